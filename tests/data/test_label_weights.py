"""Test the weights of faces: of a column, and of the spread of several teachers' labels."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fkp.data.joined import Joined
from fkp.data.label_weights import in_quarters, of_spread, read_spreads
from fkp.data.labelled_csv import LabelledCsv
from fkp.data.sampling import WeightedEpochs
from fkp.errors import FkpError
from fkp.markup import load_markup

COUNT = 24
NAMES = [f"person{i % 8}_{i:02d}.png" for i in range(COUNT)]
FLOATS = st.floats(0, 1e6)


def write(root: Path, **columns: list[object]) -> Path:
    """Write labels with these further columns, and files that stand for images."""
    (root / "images").mkdir(parents=True, exist_ok=True)
    for name in NAMES:
        (root / "images" / name).write_bytes(b"not decoded")
    points = np.random.default_rng(0).uniform(0, 200, (COUNT, 10)).round(2)
    headers = [f"{point}_{axis}" for point in load_markup("face5").points for axis in "xy"]
    table = pd.DataFrame(points, columns=headers).assign(**columns)
    table.insert(0, "file", NAMES)
    table.to_csv(root / "keypoints.csv", index=False)
    return root


def csv(root: Path, **options: object) -> LabelledCsv:
    return LabelledCsv(str(root), markup="face5", **options)  # type: ignore[arg-type]


@given(spread=st.lists(FLOATS, min_size=1), full=st.floats(1e-3, 1e3))
def test_more_spread_is_never_more_weight(spread: list[float], full: float) -> None:
    spreads = np.sort(spread)
    weights = of_spread(spreads, full)
    assert (np.diff(weights) <= 0).all() and (weights >= 0.25).all() and (weights <= 1).all()
    assert (weights[spreads <= full] == 1).all() and (4 * weights % 1 == 0).all()
    exact = np.minimum(1, (full / np.maximum(spreads, 1e-9)) ** 2)
    assert (np.abs(weights - exact)[exact >= 0.25] <= 0.125 + 1e-9).all()
    np.testing.assert_array_equal(of_spread(10 * spreads, 10 * full), weights)


@given(weights=st.lists(st.floats(0, 100), min_size=1))
def test_rounding_keeps_what_is_shown_and_what_is_not(weights: list[float]) -> None:
    rounded = in_quarters(np.array(weights))
    assert ((rounded > 0) == (np.array(weights) > 0)).all() and (4 * rounded % 1 == 0).all()
    np.testing.assert_array_equal(in_quarters(rounded), rounded)


def test_a_column_and_the_spreads_of_a_file_are_multiplied(tmp_path: Path) -> None:
    weights = [0, 0.3, 2, None] * (COUNT // 4)
    spreads = np.linspace(0, 3, COUNT).round(3)
    root = write(tmp_path, weight=weights, spread=spreads.tolist())
    given = in_quarters(np.array([0, 0.25, 2, 1] * (COUNT // 4)))
    np.testing.assert_array_equal(csv(root).read().weights, given)

    # The same spreads of the labels' own column, and of a file in another order.
    both = given * of_spread(spreads, 1.5)
    own = csv(root, spread="column", full_weight_spread=1.5).read()
    np.testing.assert_array_equal(own.weights, both)
    order = np.random.default_rng(1).permutation(COUNT)
    table = pd.DataFrame({"spread": spreads[order], "file": np.array(NAMES)[order]})
    table.to_csv(root / "spread.csv", index=False)
    file = csv(root, spread="spread.csv", full_weight_spread=1.5).read()
    np.testing.assert_array_equal(file.weights, both)

    # And they are multiplied with the source's weight.
    source = csv(Path("."), spread="spread.csv", full_weight_spread=1.5)
    joined = Joined(["one"], {"one": source}, str(root), weights=[3]).read()
    np.testing.assert_array_equal(joined.weights, 3 * both)


def test_labels_without_a_spread_have_their_full_weight(tmp_path: Path) -> None:
    root = write(tmp_path)
    pd.DataFrame({"file": NAMES, "spread": [None] * COUNT}).to_csv(root / "spread.csv", index=False)
    assert (csv(root, spread="spread.csv").read().weights == 1).all()
    assert (csv(root).read().weights == 1).all()


@pytest.mark.parametrize("cell", ["-1", "x", "101", "-0.5"])
def test_a_weight_that_is_none_is_a_bad_row(cell: str, tmp_path: Path) -> None:
    root = write(tmp_path, weight=["1", cell, *["1"] * (COUNT - 2)])
    faces, faults = csv(root).survey()
    assert len(faces) == COUNT - 1
    assert [fault.row for fault in faults] == ["keypoints.csv:3"] and cell in faults[0].what


def test_images_that_the_file_of_spreads_lacks_are_bad_rows(tmp_path: Path) -> None:
    root = write(tmp_path)
    table = pd.DataFrame({"file": NAMES[2:], "spread": 1.0})
    table.to_csv(root / "spread.csv", index=False)
    _, faults = csv(root, spread="spread.csv").survey()
    assert [fault.row for fault in faults] == ["keypoints.csv:2", "keypoints.csv:3"]


def test_mistakes_name_the_key_and_the_file(tmp_path: Path) -> None:
    root, file = write(tmp_path), tmp_path / "spread.csv"
    for spread, named in (("column", root / "keypoints.csv"), ("spread.csv", file)):
        with pytest.raises(FkpError) as refused:
            csv(root, spread=spread).survey()
        assert refused.value.key == "data.spread" and refused.value.file == named
    for text, row in (("file,x\na.png,1\n", None), ("file,spread\na.png,1\na.png,2\n", 3)):
        file.write_text(text)
        with pytest.raises(FkpError) as refused:
            read_spreads(file)
        assert refused.value.file == file and refused.value.row == row
    with pytest.raises(FkpError):
        csv(root, full_weight_spread=0)


def test_every_face_of_a_positive_weight_is_shown_in_the_long_run() -> None:
    weights = np.array([0.25, 0.5, 0.75, 0, 2, 1.25, 1.25])
    sampler, shown = WeightedEpochs(weights), np.zeros(len(weights), int)
    for epoch in range(8):
        sampler.set_epoch(epoch)
        shown += np.bincount([draw % len(weights) for _, draw in sampler], minlength=len(weights))
    assert ((shown > 0) == (weights > 0)).all() and shown[4] == 16
