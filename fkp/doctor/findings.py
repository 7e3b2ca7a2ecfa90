"""What the doctor says: findings, worst first, on the screen, as JSON, and as a sheet of faces."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.text import Text

from fkp.errors import FkpError

LEVELS = ("error", "warning", "note")
Level = Literal["error", "warning", "note"]


@dataclass
class Case:
    """One row of the data that a finding is about.

    Args:
        row: where it was read from, `file:row`.
        file: its picture, as far as it is known.
        what: what is so there, if more can be said than in the finding.
    """

    row: str
    file: str = ""
    what: str = ""


@dataclass
class Finding:
    """One thing that is wrong, or worth knowing.

    Args:
        level: `error` must be mended before training, `warning` costs accuracy or honesty, `note` is as it is.
        check: a short name.
        what: a sentence.
        cases: the rows concerned, worst first; none for what concerns the whole set.
        figures: what was measured.
    """

    level: Level
    check: str
    what: str
    cases: Sequence[Case] = ()
    figures: dict[str, float] = field(default_factory=dict)


def worst_first(findings: Sequence[Finding]) -> list[Finding]:
    """Errors, warnings, notes; among them those of most rows first."""
    return sorted(findings, key=lambda finding: (LEVELS.index(finding.level), -len(finding.cases)))


def show(findings: Sequence[Finding], cases: int = 5) -> None:
    """Print them, with the first rows of each."""
    console = Console()
    colours = {"error": "bold red", "warning": "yellow", "note": "dim"}
    for finding in findings:
        count = f" ({len(finding.cases)} rows)" if finding.cases else ""
        what = f"  {finding.check}{count}: {finding.what}"
        console.print(Text.assemble((finding.level, colours[finding.level]), what), soft_wrap=True)
        for case in finding.cases[:cases]:
            parts = (case.row, Path(case.file).name, case.what)
            console.print(Text("    " + "  ".join(part for part in parts if part)), soft_wrap=True)
        if len(finding.cases) > cases:
            console.print(f"    … and {len(finding.cases) - cases} more", highlight=False)
    if not findings:
        console.print("nothing to find fault with")


def make_folder(folder: Path) -> None:
    """Make the folder that the findings are written to, if it is not there yet.

    Raises:
        FkpError: it cannot be made, or cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FkpError(
            f"run_dir={folder}: cannot be made ({error.strerror}); name another folder"
        ) from None
    if not os.access(folder, os.W_OK):
        raise FkpError(f"run_dir={folder}: cannot be written to; name another folder")


def save(findings: Sequence[Finding], file: Path) -> None:
    """Write all of them, with all rows, as strict JSON; figures that could not be measured are null."""
    rows = [asdict(finding) for finding in findings]
    for row in rows:
        row["figures"] = {
            name: float(x) if math.isfinite(x) else None for name, x in row["figures"].items()
        }
    file.write_text(json.dumps(rows, indent=1, allow_nan=False) + "\n", encoding="utf-8")
