"""Run a checkpoint with torch."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fkp.codecs import Codec
from fkp.errors import FkpError, one_line
from fkp.files.torch_archive import read
from fkp.networks import fused
from fkp.recipe import KEY, Recipe
from fkp.transforms import Normalize, ToTensor


@dataclass
class TorchEngine:
    """Run a network and its codec with torch.

    Several threads may use one engine at once. In a forked process it runs on one thread on the
    CPU, and not at all on CUDA.

    Args:
        network: images (B, C, h, w) in [0, 1] to raw output, in evaluation mode.
        codec: raw output to points and confidence.
        recipe: of the checkpoint.
    """

    network: torch.nn.Module
    codec: Codec
    recipe: Recipe

    @classmethod
    def load(cls, path: Path, device: str | None = None) -> TorchEngine:
        """Load a checkpoint, and optimise its network for prediction.

        Args:
            path: of the checkpoint.
            device: such as "cpu" or "cuda"; None takes a GPU if there is one.

        Raises:
            FkpError: it is not a checkpoint of fkp, or there is no such device.
        """
        network, recipe = rebuild(path)
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        try:
            network = fused(network).to(device).to(memory_format=torch.channels_last)
        except (RuntimeError, AssertionError) as error:
            raise FkpError(f"device={device}: {one_line(error)}") from None
        return cls(network, recipe.build_codec(), recipe)

    @torch.inference_mode()
    def __call__(self, crops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        images = self._images(crops)
        points, confidence = self.codec.decode(self.network(images))
        return points.cpu().numpy(), confidence.cpu().numpy()

    @torch.inference_mode()
    def features(self, crops: np.ndarray) -> np.ndarray | None:
        """Compute what the network sees in face crops: its features, averaged over the crop.

        Args:
            crops: (B, h, w), or RGB (B, h, w, 3), uint8.

        Returns:
            (B, D) float32; None if the network has no maps of `features`.
        """
        compute = getattr(self.network, "features", None)
        if compute is None:
            return None
        maps = compute(self._images(crops))
        return maps.mean((2, 3)).float().cpu().numpy() if maps.ndim == 4 else None

    def _images(self, crops: np.ndarray) -> torch.Tensor:
        """Convert crops to the network's input (B, C, h, w), on its device."""
        device = next(self.network.parameters()).device
        if _forked:
            _check_fork(device)
        return Normalize()(ToTensor()(crops).to(device))


_forked = False


def _note_fork() -> None:
    global _forked
    _forked = True


if hasattr(os, "register_at_fork"):  # not on Windows, which cannot fork
    os.register_at_fork(after_in_child=_note_fork)


def _check_fork(device: torch.device) -> None:
    """Use one thread in a forked process, which has neither torch's threads nor a CUDA context.

    Raises:
        FkpError: the model is not on the CPU.
    """
    if device.type != "cpu":
        raise FkpError(
            f"device={device} cannot be used in a process forked after the model was loaded; start"
            ' processes with the method "spawn", load the model in each process, or use device=cpu'
        )
    torch.set_num_threads(1)


def rebuild(path: Path) -> tuple[torch.nn.Module, Recipe]:
    """Rebuild the network of a checkpoint with its weights, in evaluation mode.

    Args:
        path: of the checkpoint.

    Returns:
        the network, and the recipe that the checkpoint holds.

    Raises:
        FkpError: it is not a checkpoint of fkp, or its weights do not fit its network.
    """
    checkpoint = read(path)
    if not isinstance(checkpoint, dict) or not {KEY, "state_dict"} <= set(checkpoint):
        raise FkpError(f"{path}: not a checkpoint of fkp")

    recipe = Recipe.from_file(checkpoint[KEY], path)
    try:
        network = _with_weights(recipe, network_weights(checkpoint), path.stat().st_size)
    except (RuntimeError, AttributeError, TypeError, ValueError) as error:
        raise FkpError(f"{path}: its weights do not fit its network ({one_line(error)})") from None
    return network.eval(), recipe


def network_weights(checkpoint: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Return the state of the network alone: without the module's losses and metrics."""
    prefix = "network."
    return {
        name.removeprefix(prefix): weight
        for name, weight in checkpoint["state_dict"].items()
        if name.startswith(prefix)
    }


def _with_weights(
    recipe: Recipe, weights: dict[str, torch.Tensor], file_bytes: int
) -> torch.nn.Module:
    # First without memory: a hostile recipe may describe a network of any size.
    with torch.device("meta"):
        outline = recipe.build_network()
    outline.load_state_dict(weights, assign=True)
    if sum(weight.numel() for weight in weights.values()) > file_bytes:
        raise ValueError("more numbers than the file has bytes")

    network = recipe.build_network()
    network.load_state_dict(weights)
    return network
