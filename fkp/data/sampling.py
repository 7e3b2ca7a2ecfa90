"""Choose the faces of each training epoch, and continue an interrupted epoch where it stopped."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, Sampler

Key = tuple[int, int]  # epoch, draw


class WeightedEpochs(Sampler[Key]):
    """Sample every face as often as its weight says, in an order given by (seed, epoch) alone.

    Yields (epoch, draw), where draw % len(weights) is the face: a face of weight 2 comes as i and
    as i + len(weights). Of a fractional weight such as 1.25, a quarter of the faces comes twice,
    other faces in other epochs. Lightning calls `set_epoch` at the start of each epoch.

    With several processes, each takes its share of every batch, so that all together take what a
    single process would: process p takes the faces p, p + processes, … of a batch. A last batch
    with fewer faces than processes is left out.

    Args:
        weights: (F,), at least 0.
        seed: of the order.
        batch: faces per step, of all processes together.
        process: the number of this process, from 0.
        processes: their number.

    Attributes:
        skipped: number of faces at the start of this process's order that are left out, because
            the interrupted epoch has shown them.
    """

    def __init__(
        self,
        weights: np.ndarray,
        seed: int = 0,
        batch: int = 1,
        process: int = 0,
        processes: int = 1,
    ):
        self.weights, self.seed = np.asarray(weights, float), seed
        self.epoch = self.skipped = 0

        # The places of this process in the order of an epoch, the same in every epoch.
        count = len(self._draws())
        last = count % batch
        places = np.arange(count - last if last < processes else count)
        self.places = places[places % batch % processes == process]

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next iteration."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.places)

    def __iter__(self) -> Iterator[Key]:
        draws = self._draws()
        order = np.random.default_rng([self.seed, self.epoch]).permutation(len(draws))
        mine = draws[order][self.places][self.skipped :]
        return ((self.epoch, int(draw)) for draw in mine)

    def _draws(self) -> np.ndarray:
        """List the epoch's draws, not yet shuffled; their number is the same in every epoch."""
        count = len(self.weights)
        repeats = np.floor(self.weights).astype(int)

        # The integer part: visit v of a face is the draw i + v * F.
        draws = [
            np.flatnonzero(repeats > visit) + visit * count
            for visit in range(repeats.max(initial=0))
        ]

        # The fractional part: a window moves over one shuffled order of the faces of a weight, so
        # that after many epochs each of them was shown equally often.
        for weight in np.unique(self.weights[self.weights > repeats]):
            faces = np.flatnonzero(self.weights == weight)
            # At least one: else a small group would never be shown.
            window = max(1, round((weight - np.floor(weight)) * len(faces)))
            shuffled = np.random.default_rng(self.seed).permutation(faces)
            places = np.arange(window) + self.epoch * window
            chosen = np.take(shuffled, places, mode="wrap")
            draws.append(chosen + int(np.floor(weight)) * count)
        return np.concatenate(draws) if draws else np.zeros(0, int)


class TrainLoader(DataLoader[Any]):
    """Load training batches, and continue within an epoch after a resume by Lightning.

    Attributes:
        served: batches of this epoch that have been yielded.
        skipped: batches at the start of the next iteration that were yielded before the resume.
    """

    sampler: WeightedEpochs
    served = 0
    skipped = 0

    def state_dict(self) -> dict[str, int]:
        """Return the position within the epoch."""
        return {"served": self.served}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue the next iteration from a position; from the start after a whole epoch."""
        self.skipped = state["served"] % len(self)

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        self.served, self.skipped = self.skipped, 0
        self.sampler.skipped = self.served * (self.batch_size or 1)
        for batch in super().__iter__():
            self.served += 1
            yield batch
