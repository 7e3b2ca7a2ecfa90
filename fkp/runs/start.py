"""Read what a run starts from: `start.from`, `start.mode`, and the short form `resume=`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fkp.errors import FkpError
from fkp.runs.overrides import key, text

MODES = ("resume", "repeat", "finetune")
KEYS = ("start.from", "start.mode")
# The short form: resume=true is start.from=last, resume=FOLDER is start.from=FOLDER.
SHORT = "resume"
OFF = ("false", "null", "none")


@dataclass(frozen=True)
class Start:
    """What a run starts from.

    Args:
        source: the folder of a run, a checkpoint, `last`, `shipped`, or None for new weights.
        mode: `resume` continues a run in its folder, or a checkpoint in a new folder; `repeat`
            trains a run again in a new folder; `finetune` takes weights and a new schedule.

    Raises:
        FkpError: no such mode.
    """

    source: str | None = None
    mode: str = "resume"

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise FkpError(f"start.mode={self.mode}: there is {', '.join(MODES)}")
        if self.source == "shipped" and self.mode != "finetune":
            raise FkpError(f"start.from=shipped: not for {self.mode}; add start.mode=finetune")

    @staticmethod
    def of(values: Mapping[str, Any]) -> Start:
        """Read the `start` block of a configuration or of a run's record."""
        source = values["from"]
        return Start(None if source is None else str(source), str(values["mode"]))

    def as_dict(self) -> dict[str, Any]:
        """Return the `start` block, for a run's record."""
        return {"from": self.source, "mode": self.mode}

    @property
    def checkpoint(self) -> str | None:
        """The checkpoint file to resume in a new folder."""
        if self.source is None or self.mode != "resume" or Path(self.source).is_dir():
            return None
        is_file = Path(self.source).suffix == ".ckpt" or Path(self.source).is_file()
        return self.source if is_file else None

    @property
    def run(self) -> str | None:
        """The folder of the run to resume or repeat, or `last`."""
        return None if self.mode == "finetune" or self.checkpoint else self.source

    @property
    def weights(self) -> str | None:
        """The weights to finetune: a checkpoint or `shipped`."""
        return self.source if self.mode == "finetune" else None


def read(arguments: Sequence[str]) -> Start:
    """Read the overrides of a command line.

    Raises:
        FkpError: no such mode, or `resume` and `start.from` name different runs.
    """
    values = {key(argument): text(argument) for argument in arguments}
    source = values.get("start.from", "null")
    start = Start(None if source.lower() in OFF else source, values.get("start.mode", "resume"))

    short = values.get(SHORT, "false")
    if short.lower() in OFF:
        return start
    resumed = Start("last" if short.lower() == "true" else short, "resume")
    if start.source is not None and start != resumed:
        raise FkpError(
            f"{SHORT}={short}: is short for start.from={resumed.source} start.mode=resume, "
            f"but start.from={start.source} start.mode={start.mode} is given, too; give one"
        )
    return resumed
