"""Checkpoints, run by torch."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fkp.codecs import Codec
from fkp.errors import FkpError
from fkp.files.torch_archive import read
from fkp.inference.engines import checked, part
from fkp.networks import fused
from fkp.transforms import Normalize, ToTensor


@dataclass
class TorchEngine:
    """A network and its codec.

    Several threads may use one engine at once. In a forked process it runs on one thread on the CPU, and not at all on
    CUDA.

    Args:
        network: image (B, C, h, w) in [0, 1] to raw output, in evaluation mode.
        codec: raw output to points and confidence.
        recipe: what the checkpoint says of them.
    """

    network: torch.nn.Module
    codec: Codec
    recipe: dict[str, Any]

    @classmethod
    def load(cls, path: Path, device: str | None = None) -> TorchEngine:
        """That of a checkpoint, made quick for prediction.

        Raises:
            FkpError: not a checkpoint of fkp, or no such device.
        """
        network, recipe = rebuild(path)
        place = device or ("cuda" if torch.cuda.is_available() else "cpu")
        try:
            network = fused(network).to(place).to(memory_format=torch.channels_last)
        except (RuntimeError, AssertionError) as error:
            raise FkpError(f"device={place}: {str(error).splitlines()[0]}") from None
        return cls(network, part(recipe["codec"], path), recipe)

    @torch.inference_mode()
    def __call__(self, crops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        device = next(self.network.parameters()).device
        if _forked:
            _check_fork(device)
        images = Normalize()(ToTensor()(crops).to(device))
        points, confidence = self.codec.decode(self.network(images))
        return points.cpu().numpy(), confidence.cpu().numpy()


_forked = False


def _note_fork() -> None:
    global _forked
    _forked = True


if hasattr(os, "register_at_fork"):  # not on Windows, which cannot fork
    os.register_at_fork(after_in_child=_note_fork)


def _check_fork(device: torch.device) -> None:
    """A forked process has none of the threads that torch would wait for, nor a CUDA context."""
    if device.type != "cpu":
        raise FkpError(
            f"device={device} cannot be used in a process forked after the model was loaded; start processes with "
            'the method "spawn", load the model in each process, or use device=cpu'
        )
    torch.set_num_threads(1)


def rebuild(path: Path) -> tuple[torch.nn.Module, dict[str, Any]]:
    """The network of a checkpoint with its weights, in evaluation mode, and the recipe.

    Raises:
        FkpError: not a checkpoint of fkp.
    """
    checkpoint = read(path)
    if not isinstance(checkpoint, dict) or not {"fkp", "state_dict"} <= set(checkpoint):
        raise FkpError(f"{path}: not a checkpoint of fkp")
    recipe, state = checked(checkpoint["fkp"], path), checkpoint["state_dict"]
    points = len(recipe["markup"]["points"])
    try:
        weights = {
            name.removeprefix("network."): w
            for name, w in state.items()
            if name.startswith("network.")
        }
        with torch.device("meta"):  # takes no memory, however large the recipe wants it
            frame: torch.nn.Module = part(recipe["network"], path, points=points)
        frame.load_state_dict(weights, assign=True)
        if sum(weight.numel() for weight in weights.values()) > path.stat().st_size:
            raise ValueError("more numbers than the file has bytes")
        network: torch.nn.Module = part(recipe["network"], path, points=points)
        network.load_state_dict(weights)
    except (RuntimeError, AttributeError, TypeError, ValueError) as error:
        raise FkpError(
            f"{path}: its weights do not fit its network ({' '.join(str(error).split())[:300]})"
        ) from None
    return network.eval(), recipe
