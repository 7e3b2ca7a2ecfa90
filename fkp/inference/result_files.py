"""Name, read and write the files of results: JSON records and rows of CSV tables."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from fkp.errors import FkpError
from fkp.face import Face
from fkp.files.reading import read_text, short
from fkp.files.writing import write_whole
from fkp.markup import Markup

# A JSON file of ten thousand faces has half as many bytes.
MAX_JSON_BYTES = 1 << 28


class ResultFolder:
    """The files of results in one folder.

    A name of a result is relative to the folder and has no ending.

    Args:
        folder: where the files lie.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def file(self, name: Path, ending: str) -> Path:
        """Return the path of a result's file."""
        # Not with_suffix: a name may contain a dot.
        return self.folder / name.parent / f"{short(name.name)}.{ending}"

    def make_parent(self, name: Path) -> None:
        """Make the folder of a result's files."""
        self.file(name, "json").parent.mkdir(parents=True, exist_ok=True)

    def write_record(self, name: Path, record: dict[str, Any]) -> None:
        """Write the JSON file of a result, whole or not at all."""
        write_whole(self.file(name, "json"), as_json(record))

    def read_record(self, name: Path) -> dict[str, Any]:
        """Read the JSON file of a result; empty if it is missing or damaged."""
        try:
            record = json.loads(read_text(self.file(name, "json"), MAX_JSON_BYTES))
        except (FkpError, ValueError, RecursionError):
            return {}
        return record if isinstance(record, dict) else {}

    def check_overwrite(self, source: Path | int, name: Path, endings: Iterable[str]) -> None:
        """Check that no file of a result is the source itself.

        Raises:
            FkpError: one is; the results need another folder.
        """
        if not isinstance(source, Path):
            return
        for file in (self.file(name, ending) for ending in endings):
            if file.exists() and file.samefile(source):
                raise FkpError(
                    f"{source}: a result would overwrite this file; choose another run_dir"
                )


def as_json(value: Any, indent: int | None = 1) -> str:
    """Convert a value to strict JSON."""
    return json.dumps(as_plain(value), indent=indent, allow_nan=False) + "\n"


def as_plain(value: Any) -> Any:
    """Replace what strict JSON cannot hold.

    A number that is not finite becomes null, and a byte of a file name that is not UTF-8 becomes
    `\\xNN`.
    """
    if isinstance(value, dict):
        return {as_plain(name): as_plain(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_plain(inner) for inner in value]
    if isinstance(value, str):
        return os.fsencode(value).decode("utf-8", "backslashreplace")
    return None if isinstance(value, float) and not math.isfinite(value) else value


def face_from_record(record: dict[str, Any], markup: Markup) -> Face:
    """Read a face from its JSON record, which may be damaged or of another program.

    Raises:
        ValueError, TypeError, LookupError or OverflowError: it is no face of this markup.
    """
    count = len(markup.points)
    shapes = {"points": (count, 2), "confidence": (count,), "box": (4,)}
    arrays = {name: np.array(record[name], float) for name in shapes}
    if any(arrays[name].shape != shape for name, shape in shapes.items()):
        raise ValueError("not a face of this markup")

    score = float(np.array(record["score"], float))
    return Face(arrays["points"], arrays["confidence"], arrays["box"], score)


def csv_header(markup: Markup) -> list[str]:
    """Return the names of a face's columns, in the order of `csv_row`."""
    points = [f"{point}_{axis}" for point in markup.points for axis in "xy"]
    return ["box_left", "box_top", "box_right", "box_bottom", "score", "confidence", *points]


def csv_row(face: Face) -> list[float | str]:
    """Return a face's cells; empty for a number that is not finite."""
    values = [*face.box, face.score, face.confidence.mean(), *face.points.flatten()]
    return [round(float(value), 3) if math.isfinite(value) else "" for value in values]
