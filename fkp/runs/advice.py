"""Advise on a training: folds for few faces, and the experiment for points of one's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fkp.console import print_line
from fkp.runs.provenance import is_rank_zero

if TYPE_CHECKING:
    from fkp.data.datamodule import FacesDataModule

FEW = 200  # faces; a test split of 15 % is then at most 30 of them
OWN_POINTS = "own_points"


def show(data: FacesDataModule, experiment: str | None) -> None:
    """Print what may serve these faces better than the settings in use.

    Args:
        data: that has been set up.
        experiment: the option of the group; None if there is none.
    """
    if is_rank_zero():
        for line in lines(data, experiment):
            print_line(f"note        {line}")


def lines(data: FacesDataModule, experiment: str | None) -> list[str]:
    """Return the advice, a line each."""
    found = []
    tables = {name: split.table for name, split in data.splits.items()}
    faces = sum(map(len, tables.values()))
    # A map is scored on all faces anyway, by cross-validation.
    if faces < FEW and data.source.folds is None and experiment != OWN_POINTS:
        people = len(set(tables["test"].identity))
        found.append(
            f"{faces} faces are few: the test split is {len(tables['test'])} faces of {people} "
            "people, and the NME depends on who they are. data.folds=5 tests on every face once"
        )
    markup = data.source.markup
    if markup.name != "ibug68" and experiment is None:
        found.append(
            f"markup {markup.name}: points of your own are learned from fewer faces with "
            f"experiment={OWN_POINTS}, which starts from the shipped weights; the default is the "
            "published system"
        )
    return found
