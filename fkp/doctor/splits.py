"""Check whether the splits of a data set share people."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fkp.data.table import FaceTable
from fkp.doctor.findings import Case, Finding, Level


def check(table: FaceTable, protocol: str, splits: np.ndarray) -> Iterator[Finding]:
    """Find people of the test split who are also in training.

    The publisher's test split is checked, too, even if it is not in use.

    Args:
        table: F faces.
        protocol: the protocol in use.
        splits: (F,) the split of each face under it; empty where there is none.
    """
    yield from _shared_people(table, splits, "error", f"data.protocol={protocol}")
    if protocol != "official" and (table.official == "test").any():
        name = "the publisher's test split (data.protocol=official, not in use)"
        yield from _shared_people(table, table.official, "warning", name)


def _shared_people(
    table: FaceTable, splits: np.ndarray, level: Level, name: str
) -> Iterator[Finding]:
    is_test = splits == "test"
    known = set(table.identity[(splits == "train") | (splits == "val")])
    leaked = is_test & np.isin(table.identity, list(known))
    if not leaked.any():
        return

    people, all_people = len(set(table.identity[leaked])), len(set(table.identity[is_test]))
    what = (
        f"{name}: {people} of its {all_people} people, {leaked.sum()} of {is_test.sum()} faces, "
        "are also in training: the test measures how well people are remembered"
    )
    cases = [
        Case(table.rows[i], str(table.paths[i]), f"{table.identity[i]} is also in training")
        for i in np.flatnonzero(leaked)
    ]
    yield Finding(level, "people shared", what, cases)
