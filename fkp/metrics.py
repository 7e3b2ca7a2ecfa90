"""How far predicted points lie from labels: NME, failure rate, AUC.

Sources: Sagonas et al., "300 Faces In-the-Wild Challenge" (2016) for NME over the outer eye corners and the CED curve.
"""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from fkp.markup import IBUG68, Markup

Points = TypeVar("Points", np.ndarray, Tensor)


def point_errors(
    predicted: Points, label: Points, markup: Markup = IBUG68, side: Points | None = None
) -> Points:
    """Distance of each point to its label, as a fraction of the inter-ocular distance of the label.

    Args:
        predicted, label: (..., K, 2), both NumPy or both torch, the same pixels; NaN where not labelled.
        side: (...), of the face boxes, the same pixels: the unit of a markup of one point, which has no such distance.

    Returns:
        (..., K); NaN where not labelled.
    """
    right, left = markup.eyes
    unit = ((label[..., right, :] - label[..., left, :]) ** 2).sum(-1) ** 0.5
    if right == left and side is not None:
        unit = side
    return ((predicted - label) ** 2).sum(-1) ** 0.5 / unit[..., None]


def nme(
    predicted: Points, label: Points, markup: Markup = IBUG68, side: Points | None = None
) -> Points:
    """Normalised mean error per face: mean over labelled points of |p - l| / |l_36 - l_45| (outer eye corners).

    Args:
        predicted, label: (..., K, 2), both NumPy or both torch, the same pixels; NaN where not labelled.
        side: as of `point_errors`.

    Returns:
        (...): fractions, not percent.

    >>> label = np.zeros((68, 2)); label[45] = 10, 0
    >>> float(nme(label + (3, 4), label, IBUG68))
    0.5
    """
    errors = point_errors(predicted, label, markup, side)
    return torch.nanmean(errors, -1) if isinstance(errors, Tensor) else np.nanmean(errors, -1)


def summary(faces: Points) -> dict[str, float]:
    """Figures of a set of faces, in percent.

    Args:
        faces: (F,) NME of each face, a fraction; infinite for a face that was not found, NaN for one that cannot be
            scored, as its normalising pair is not labelled: it is left out.

    Returns:
        nme (over found faces), median, fr8 and fr10 (failure rate: faces worse than 8 % and 10 %, or not found), auc10
        (area under the CED curve up to 10 %, 100 for a perfect system).
    """
    errors = np.asarray(faces.cpu() if isinstance(faces, Tensor) else faces, float)
    errors = errors[~np.isnan(errors)]
    if not errors.size:
        return dict.fromkeys(("nme", "median", "fr8", "fr10", "auc10"), float("nan"))
    found = errors[np.isfinite(errors)]
    return {
        "nme": 100 * float(found.mean()) if found.size else float("nan"),
        "median": 100 * float(np.median(errors)),
        "fr8": 100 * float((errors > 0.08).mean()),
        "fr10": 100 * float((errors > 0.10).mean()),
        # The CED curve's area up to t is the mean over faces of how far below t each one stays: exact, no bins.
        "auc10": 100 * float(np.maximum(0.10 - errors, 0).mean() / 0.10),
    }


def interval(
    faces: np.ndarray, identity: np.ndarray, level: float = 0.95, draws: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Bootstrap interval of the mean over faces, where whole people are drawn with replacement, as faces of one person
    err alike, and so are trainings (Efron, "Bootstrap Methods", 1979; percentiles).

    Args:
        faces: (F,) errors, or (T, F) of T trainings; faces that are not finite, in any of them, are left out.
        identity: (F,) names of people.
        level: of confidence.
        draws: how many sets of people are drawn.
        seed: of the draws.

    Returns:
        low, high; NaN if no face is left.

    >>> low, high = interval(np.array([1.0, 3.0]), np.array(["Ada", "Bo"]))
    >>> low, high
    (1.0, 3.0)
    """
    trainings = np.atleast_2d(faces)
    finite = np.isfinite(trainings).all(0)
    if not finite.any():
        return float("nan"), float("nan")
    _, person = np.unique(np.asarray(identity)[finite].astype(str), return_inverse=True)
    total, count = (
        np.stack([np.bincount(person, one[finite]) for one in trainings]),
        np.bincount(person),
    )
    rng, often = np.random.default_rng(seed), np.full(len(total), 1 / len(total))
    drawn = rng.integers(0, len(count), (draws, len(count)))
    means = rng.multinomial(len(total), often, draws) @ total / len(total)
    means = np.take_along_axis(means, drawn, 1).sum(1) / count[drawn].sum(1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


class FaceErrors(Metric):
    """`summary` over an epoch, across processes.

    >>> metric = FaceErrors()
    >>> metric.update(torch.tensor([0.02, 0.12]))
    >>> round(metric.compute()["fr10"])
    50
    """

    full_state_update = False
    faces: Any

    def __init__(self) -> None:
        super().__init__()
        self.add_state("faces", default=[], dist_reduce_fx="cat")

    def update(self, faces: Tensor) -> None:
        """Add (B,) NME of faces."""
        self.faces.append(faces.detach())

    def compute(self) -> dict[str, float]:
        """All figures, percent."""
        return summary(dim_zero_cat(self.faces))


class SpreadAndError(Metric):
    """What confidence is calibrated by, gathered over an epoch, across processes."""

    full_state_update = False
    spreads: Any
    errors: Any

    def __init__(self) -> None:
        super().__init__()
        self.add_state("spreads", default=[], dist_reduce_fx="cat")
        self.add_state("errors", default=[], dist_reduce_fx="cat")

    def update(self, spread: Tensor, error: Tensor) -> None:
        """Add points (B, K): how wide they were left, and their error as a fraction; NaN where there is no label."""
        known = torch.isfinite(error)
        self.spreads.append(spread[known].detach().float())
        self.errors.append(error[known].detach().float())

    def compute(self) -> tuple[Tensor, Tensor]:
        """(N,) each."""
        return dim_zero_cat(self.spreads), dim_zero_cat(self.errors)
