"""The recipe: everything a file must say to rebuild a predictor.

A training makes it from its configuration, every checkpoint and exported file keeps it as plain
values, and prediction reads it back. It names only fkp's own networks, codecs and transforms, and
is checked before anything is built from it: loading a file never runs foreign code.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fkp.errors import FkpError, one_line
from fkp.markup import Markup

if TYPE_CHECKING:
    from torch import nn

    from fkp.calibration import Calibration
    from fkp.codecs import Codec
    from fkp.transforms import Transform

KEY = "fkp"  # under which checkpoints and exported files keep the recipe
VERSION = 1  # the newest that this fkp reads

# A file from outside is checked against these before anything is built.
TYPES = {"network": dict, "codec": dict, "transforms": dict, "gray": bool, "markup": dict}
LIMITS = {"size": 1024, "channels": 3}  # of crops: memory grows with both
MAX_VALUES = 10_000
MODULES = ("fkp.networks", "fkp.point_map", "fkp.codecs", "fkp.transforms")

# Names until 2026-11, which the shipped files and users' checkpoints still hold.
OLD_KEYS = {"lean": "label_offset"}
OLD_STEPS = {"frame": "face_crop", "crop": "random_crop", "flip": "random_flip"}
OLD_ARGUMENTS = {
    "fkp.transforms.FaceCrop": {
        "lower": "offset_y",
        "turn": "rotation",
        "tail": "tail_p",
        "whole": "full_image",
    },
    "fkp.transforms.RandomFlip": {"share": "p"},
}

Spec = dict[str, Any]  # `_target_`, the class, and its constructor's arguments


@dataclass(frozen=True)
class Recipe:
    """Describe a trained model by plain values, and build its parts.

    Args:
        network: class and arguments, without the number of points.
        codec: class and arguments, the calibration of its confidence included.
        transforms: class and arguments of each geometric step from a face to the crop, in order.
        markup: the meaning of the points, with the frame that the training has measured, if any.
        gray: the network takes one channel, not RGB.
        label_offset: how far the labels lie to the right of the face, in outer-eye distances. The
            network is trained without it; prediction adds it.
        trained_on: checksums of the labels that the training has seen, where a set was used whole,
            see `fkp.data.table.label_sums`: an evaluation on them would be too good.
        file: where the recipe was read, for messages; None for one from a configuration.
    """

    network: Spec
    codec: Spec
    transforms: dict[str, Spec]
    markup: Markup
    gray: bool = True
    label_offset: float = 0.0
    trained_on: tuple[int, ...] = ()
    file: Path | None = field(default=None, compare=False, repr=False)

    @classmethod
    def from_config(cls, values: dict[str, Any], markup: Markup) -> Recipe:
        """Take the recipe from a configuration.

        Args:
            values: the resolved configuration of `train.py`, as plain values.
            markup: of the training data.
        """
        network = dict(values["model"]["network"])
        if "weights" in network:
            network["weights"] = None  # the checkpoint itself holds the weights
        return cls(
            network=network,
            codec=values["model"]["codec"],
            transforms=values["transforms"],
            markup=markup,
            gray=values["datamodule"]["gray"],
            label_offset=values["model"].get("label_offset", 0.0),
        )

    @classmethod
    def from_file(cls, values: Any, file: Path) -> Recipe:
        """Check the values that a file holds under `KEY`, of this or an earlier version.

        Args:
            values: anything: the file may come from anybody.
            file: for messages.

        Raises:
            FkpError: there is no recipe, it is of a newer fkp, or it is invalid.
        """
        if not isinstance(values, dict):
            raise FkpError(
                f"{file}: has no recipe, so it cannot predict; train with `python train.py`"
            )
        _check_version(values.get("version"), file)
        if not _is_plain(values):
            raise FkpError(f"{file}: its recipe holds more than a few plain values; not loaded")

        values = current_names(values)
        _check_types(values, file)
        _check_limits(values, file)
        try:
            markup = Markup(**values["markup"])
        except Exception as error:  # unchecked values can raise anything
            raise FkpError(f"{file}: its markup is invalid ({one_line(error)})") from None

        return cls(
            network=values["network"],
            codec=values["codec"],
            transforms=values["transforms"],
            markup=markup,
            gray=values["gray"],
            label_offset=values.get("label_offset", 0.0),  # older files have none
            trained_on=tuple(values.get("trained_on", ())),
            file=file,
        )

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, which `from_file` reads back."""
        return {
            "version": VERSION,
            "network": self.network,
            "codec": self.codec,
            "transforms": self.transforms,
            "gray": self.gray,
            "label_offset": self.label_offset,
            "trained_on": list(self.trained_on),
            "markup": self.markup.as_dict(),
        }

    @property
    def calibration(self) -> Calibration | None:
        """The a, b of `fkp.calibration.confidence`; None for a codec without."""
        values = self.codec.get("calibration")
        return None if values is None else (values[0], values[1])

    def with_calibration(self, calibration: Calibration | None) -> Recipe:
        """Return the recipe with this calibration of the codec; unchanged for None."""
        if calibration is None:
            return self
        return replace(self, codec={**self.codec, "calibration": list(calibration)})

    def build_network(self) -> nn.Module:
        """Build the network, with new weights."""
        network: nn.Module = self._build(self.network, points=len(self.markup.points))
        return network

    def build_codec(self) -> Codec:
        """Build the codec, calibrated if the recipe has a calibration."""
        codec: Codec = self._build(self.codec)
        return codec

    def build_transforms(self) -> list[Transform]:
        """Build the geometric steps, in order."""
        return [self._build(spec) for spec in self.transforms.values()]

    def _build(self, spec: Spec, **more: Any) -> Any:
        """Build one of fkp's own classes.

        Raises:
            FkpError: the class is not fkp's, or does not take these arguments.
        """
        where = self.file or "recipe"
        arguments = {
            # Arguments may be described objects themselves, as the trunk of a map.
            name: self._build(value) if _is_spec(value) else value
            for name, value in spec.items()
            if name != "_partial_"
        } | more
        target = str(arguments.pop("_target_", ""))

        module, _, name = target.rpartition(".")
        found = getattr(importlib.import_module(module), name, None) if module in MODULES else None
        if not isinstance(found, type) or found.__module__ != module:
            raise FkpError(f"{where}: {target[:80]!r} is not one of fkp's own classes; not loaded")

        try:
            return found(**arguments)
        except FkpError as error:
            raise FkpError(f"{where}: {error}") from None
        except Exception as error:  # unchecked values can raise anything
            raise FkpError(
                f"{where}: {name} does not take these arguments ({one_line(error)}); it was made"
                " by another version of fkp"
            ) from None


def current_names(values: dict[str, Any]) -> dict[str, Any]:
    """Replace the names of earlier versions by those of today."""
    values = {OLD_KEYS.get(key, key): value for key, value in values.items()}
    steps = values.get("transforms")
    if not isinstance(steps, dict):
        return values

    renamed = {}
    for name, spec in steps.items():
        if isinstance(spec, dict):
            old = OLD_ARGUMENTS.get(str(spec.get("_target_")), {})
            spec = {old.get(key, key): value for key, value in spec.items()}
        renamed[OLD_STEPS.get(name, name)] = spec
    return {**values, "transforms": renamed}


def _check_version(version: Any, file: Path) -> None:
    if isinstance(version, int) and version > VERSION:
        raise FkpError(
            f"{file}: made by a newer fkp (this one reads recipes up to version {VERSION});"
            " update fkp"
        )
    if version != VERSION:
        raise FkpError(f"{file}: its recipe has no version that fkp knows; train it again")


def _check_types(values: dict[str, Any], file: Path) -> None:
    wrong = [name for name, kind in TYPES.items() if not isinstance(values.get(name), kind)]
    if not isinstance(values.get("label_offset", 0.0), (int, float)):
        wrong.append("label_offset")
    sums = values.get("trained_on", [])
    if not isinstance(sums, list) or not all(isinstance(one, int) for one in sums):
        wrong.append("trained_on")
    if isinstance(values.get("transforms"), dict):
        steps = values["transforms"].items()
        wrong += [f"transforms.{name}" for name, spec in steps if not isinstance(spec, dict)]
    if wrong:
        raise FkpError(
            f"{file}: its recipe lacks {', '.join(wrong)}, or holds values of another type there;"
            " train it again"
        )


def _check_limits(values: dict[str, Any], file: Path) -> None:
    specs = list(_specs([values["network"], values["codec"], *values["transforms"].values()]))
    for name, limit in LIMITS.items():
        if any(spec.get(name, 1) not in range(1, limit + 1) for spec in specs):
            raise FkpError(f"{file}: its recipe has a {name} outside 1 to {limit}; not loaded")
    if any(spec.get("weights") is not None for spec in specs):
        raise FkpError(f"{file}: its recipe names other files as network.weights; not loaded")


def _is_spec(value: Any) -> bool:
    return isinstance(value, dict) and "_target_" in value


def _specs(specs: Iterable[Spec]) -> Iterator[Spec]:
    """Yield specs, and those among their arguments."""
    for spec in specs:
        yield spec
        yield from _specs(value for value in spec.values() if _is_spec(value))


def _is_plain(value: Any) -> bool:
    """Whether it holds JSON values only, and at most `MAX_VALUES` of them.

    A value that is referenced twice counts twice: a few nested lists can be very many values.
    """
    pending, count = [value], 0
    while pending and count <= MAX_VALUES:
        one = pending.pop()
        count += 1
        if isinstance(one, dict):
            if not all(isinstance(name, str) for name in one):
                return False
            pending += one.values()
        elif isinstance(one, (list, tuple)):
            pending += one
        elif not (one is None or isinstance(one, str) or _is_number(one)):
            return False
    return count <= MAX_VALUES


def _is_number(value: Any) -> bool:
    # Not NaN; and integers that are exact as a double, too.
    return isinstance(value, (int, float)) and abs(value) < 2**53
