"""Test the advice on few faces and on points of one's own."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fkp.data.labelled_csv import LabelledCsv
from fkp.data.table import FaceTable
from fkp.runs import advice


def data(count: int, **options: Any) -> Any:
    source = LabelledCsv("x", **options)
    names = [f"person {i}" for i in range(count)]
    points = np.zeros((count, len(source.markup.points), 2))
    table = FaceTable([Path(name) for name in names], points, names, names)
    splits = {name: SimpleNamespace(table=faces) for name, faces in source.split(table).items()}
    return SimpleNamespace(splits=splits, source=source)


@pytest.mark.parametrize(
    ("count", "options", "experiment", "keys"),
    [
        (300, {}, None, []),
        (199, {}, None, ["data.folds=5"]),
        (199, {"folds": 5, "fold": 0}, None, []),
        (300, {"markup": "face5"}, None, ["experiment=own_points"]),
        (300, {"markup": "face5"}, "heatmap", []),
        (60, {"markup": "face5"}, None, ["data.folds=5", "experiment=own_points"]),
    ],
)
def test_advice_names_the_key(
    count: int, options: dict[str, Any], experiment: str | None, keys: list[str]
) -> None:
    lines = advice.lines(data(count, **options), experiment)
    assert len(lines) == len(keys)
    assert all(key in line for key, line in zip(keys, lines, strict=True))
