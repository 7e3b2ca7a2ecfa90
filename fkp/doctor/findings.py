"""Hold the findings of the checks; sort, print and save them."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from rich.console import Console
from rich.text import Text

from fkp.errors import FkpError

Level = Literal["error", "warning", "note"]
LEVELS: tuple[Level, ...] = ("error", "warning", "note")


@dataclass
class Case:
    """One row of the data that a finding is about.

    Args:
        row: where it was read from, `file:row`.
        file: its image, as far as it is known.
        what: details of this row, if there are any.
    """

    row: str
    file: str = ""
    what: str = ""


@dataclass
class Finding:
    """One fault of a data set, or one property worth knowing.

    Args:
        level: `error` must be corrected before training; `warning` costs accuracy or makes the test
            unreliable; `note` is for information.
        check: a short name.
        what: a sentence.
        cases: the rows concerned, worst first; empty for what concerns the whole set.
        figures: measured values.
    """

    level: Level
    check: str
    what: str
    cases: Sequence[Case] = ()
    figures: dict[str, float] = field(default_factory=dict)


class Suspect(NamedTuple):
    """A face that may be labelled wrongly.

    Args:
        score: severity; a finding starts at 1.
        face: index of the face.
        why: the reason, for the case and the caption.
    """

    score: float
    face: int
    why: str


def worst_first(findings: Sequence[Finding]) -> list[Finding]:
    """Sort findings: errors, warnings, notes; within a level by their number of rows."""
    return sorted(findings, key=lambda finding: (LEVELS.index(finding.level), -len(finding.cases)))


def show(findings: Sequence[Finding], cases: int = 5) -> None:
    """Print findings, with the first rows of each."""
    console = Console()
    colours = {"error": "bold red", "warning": "yellow", "note": "dim"}
    for finding in findings:
        count = f" ({len(finding.cases)} rows)" if finding.cases else ""
        what = f"  {finding.check}{count}: {finding.what}"
        console.print(Text.assemble((finding.level, colours[finding.level]), what), soft_wrap=True)

        for case in finding.cases[:cases]:
            columns = (case.row, Path(case.file).name, case.what)
            line = "    " + "  ".join(column for column in columns if column)
            console.print(Text(line), soft_wrap=True)
        if len(finding.cases) > cases:
            console.print(f"    … and {len(finding.cases) - cases} more", highlight=False)
    if not findings:
        console.print("no faults found")


def make_folder(folder: Path) -> None:
    """Make the folder that the findings are written to, unless it exists.

    Raises:
        FkpError: it cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FkpError(
            f"run_dir={folder}: cannot be made ({error.strerror}); choose another folder"
        ) from None
    if not os.access(folder, os.W_OK):
        raise FkpError(f"run_dir={folder}: cannot be written to; choose another folder")


def save(findings: Sequence[Finding], file: Path) -> None:
    """Write findings with all their rows as strict JSON.

    Values that are not finite become null.
    """
    records = [asdict(finding) for finding in findings]
    for record in records:
        record["figures"] = {
            name: float(value) if math.isfinite(value) else None
            for name, value in record["figures"].items()
        }
    file.write_text(json.dumps(records, indent=1, allow_nan=False) + "\n", encoding="utf-8")
