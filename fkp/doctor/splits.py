"""Whether people are shared between the parts of a split."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fkp.data.table import FaceTable
from fkp.doctor.findings import Case, Finding


def check(table: FaceTable, rule: str, part: np.ndarray) -> Iterator[Finding]:
    """Findings about the split in use, and about the publisher's.

    Args:
        rule: of the split in use.
        part: (F,) each face's part in it; empty where there is none.
    """
    yield from _shared(table, part, "error", f"data.protocol={rule}")
    if rule != "official" and (table.official == "test").any():
        yield from _shared(
            table,
            table.official,
            "warning",
            "the publisher's test part (data.protocol=official, not in use)",
        )


def _shared(table: FaceTable, part: np.ndarray, level: str, name: str) -> Iterator[Finding]:
    test = part == "test"
    known = set(table.identity[(part == "train") | (part == "val")])
    leaked = test & np.isin(table.identity, list(known))
    if leaked.any():
        people, all_people = len(set(table.identity[leaked])), len(set(table.identity[test]))
        what = (
            f"{name}: {people} of its {all_people} people, {leaked.sum()} of {test.sum()} faces, are also in training: "
            "it scores memory of people"
        )
        cases = [
            Case(table.rows[i], str(table.paths[i]), f"{table.identity[i]} is in training too")
            for i in np.flatnonzero(leaked)
        ]
        yield Finding(level, "people shared", what, cases)  # type: ignore[arg-type]
