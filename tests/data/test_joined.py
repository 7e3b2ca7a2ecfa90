"""Test several sources joined to one."""

import logging
from pathlib import Path

import numpy as np
import pytest
import yaml

from fkp.data.joined import Joined
from fkp.data.labelled_csv import LabelledCsv, write_csv
from fkp.data.pts_folders import PtsFolders, write_pts
from fkp.data.table import Source
from fkp.errors import FkpError
from fkp.markup import IBUG68


def labels(count: int, points: int = 68) -> np.ndarray:
    return np.random.default_rng(count).uniform(0, 200, (count, points, 2)).round(3)


@pytest.fixture()
def root(tmp_path: Path) -> Path:
    """Return a folder of three sets.

    `csv`: 30 faces of 15 people; `pts`: 20 of 20; `other`: a CSV of people that `csv` has, too.
    """
    for folder, count, people in (("csv", 30, 15), ("other", 24, 12)):
        names = [f"person{i % people}_{i:02d}.png" for i in range(count)]
        (tmp_path / folder / "images").mkdir(parents=True)
        for name in names:
            (tmp_path / folder / "images" / name).write_bytes(b"not decoded")
        write_csv(tmp_path / folder / "keypoints.csv", names, labels(count))
    (tmp_path / "pts").mkdir()
    for i, face in enumerate(labels(20)):
        (tmp_path / "pts" / f"photo{i:02d}.png").write_bytes(b"not decoded")
        write_pts(tmp_path / "pts" / f"photo{i:02d}.pts", face)
    return tmp_path


def known() -> dict[str, Source]:
    return {"csv": LabelledCsv("csv"), "pts": PtsFolders("pts"), "other": LabelledCsv("other")}


def test_faces_come_source_by_source_with_prefixed_rows(root: Path) -> None:
    joined = Joined(["pts", "csv"], known(), str(root))
    faces = joined.read()
    alone = [PtsFolders(str(root / "pts")).read(), LabelledCsv(str(root / "csv")).read()]
    np.testing.assert_array_equal(faces.points, np.concatenate([table.points for table in alone]))
    assert faces.paths.tolist() == [*alone[0].paths, *alone[1].paths]
    assert faces.rows.tolist() == [f"pts/{row}" for row in alone[0].rows] + [
        f"csv/{row}" for row in alone[1].rows
    ]
    assert joined.markup == IBUG68


def test_the_split_of_a_person_is_that_in_the_source_alone(root: Path) -> None:
    joined = Joined(["csv", "pts", "other"], known(), str(root)).read()
    splits = {name: set(faces.paths) for name, faces in joined.split("identity").items()}
    for alone in (
        LabelledCsv(str(root / "csv")),
        PtsFolders(str(root / "pts")),
        LabelledCsv(str(root / "other")),
    ):
        for name, faces in alone.read().split("identity").items():
            assert len(faces) and set(faces.paths) <= splits[name]
    people = [set(faces.identity) for faces in joined.split("identity").values()]
    assert not people[0] & people[1] and not people[0] & people[2] and not people[1] & people[2]


def test_weights_reach_the_table_and_its_splits(root: Path) -> None:
    joined = Joined(["csv", "pts"], known(), str(root), weights=[0.5, 3]).read()
    assert joined.weights.tolist() == [0.5] * 30 + [3.0] * 20
    train = joined.split("identity")["train"]
    for row, weight in zip(train.rows, train.weights, strict=True):
        assert weight == (0.5 if row.startswith("csv/") else 3.0)
    assert (Joined(["csv", "pts"], known(), str(root)).read().weights == 1).all()


@pytest.mark.parametrize("protocol", ["identity", "strict"])
def test_a_source_for_training_only_gives_no_face_to_val_or_test(root: Path, protocol: str) -> None:
    sources = known()
    sources["other"] = LabelledCsv("other", protocol="train")
    joined = Joined(["csv", "pts", "other"], sources, str(root), protocol=protocol)  # type: ignore[arg-type]
    splits = joined.read().split(protocol)
    alone = Joined(["csv", "pts"], known(), str(root)).read().split("identity")

    for name in ("val", "test"):
        assert splits[name].rows.tolist() == alone[name].rows.tolist()
    held_out = {*splits["val"].identity, *splits["test"].identity}
    extra = [row.startswith("other/") for row in splits["train"].rows]
    expected = [who for who in LabelledCsv(str(root / "other")).read().identity]
    assert sum(extra) == sum(who not in held_out for who in expected)
    assert 0 < sum(extra) < len(expected)
    assert not held_out & set(splits["train"].identity)


@pytest.mark.parametrize(
    "sources, weights, message",
    [
        (["csv", "ptz"], None, "data.sources: no ptz; there is csv, pts, other"),
        ([], None, "data.sources: no name; there is csv, pts, other"),
        (["csv", "pts", "csv"], None, "data.sources: csv twice"),
        (["csv", "pts"], [1.0], "data.weights: give a positive number for each of csv, pts"),
        (["csv"], [1.0, 2.0], "data.weights: give a positive number for each of csv, not"),
        (["csv", "pts"], [1.0, 0.0], "data.weights: give a positive number"),
        (["csv", "pts"], [1.0, -2.0], "data.weights: give a positive number"),
        (["csv", "pts"], [1.0, float("nan")], "data.weights: give a positive number"),
        (["csv", "pts"], [1.0, float("inf")], "data.weights: give a positive number"),
    ],
)
def test_wrong_arguments_are_refused(
    sources: list[str], weights: list[float] | None, message: str
) -> None:
    with pytest.raises(FkpError, match=message):
        Joined(sources, known(), weights=weights)


def test_different_markups_are_refused_whatever_their_names(tmp_path: Path) -> None:
    sources = {"a": LabelledCsv("csv"), "b": LabelledCsv("csv", markup="face5")}
    with pytest.raises(FkpError, match="different markups, ibug68 and face5"):
        _ = Joined(["a", "b"], sources).markup
    renamed = IBUG68.as_dict() | {"points": IBUG68.points[::-1]}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(renamed))
    with pytest.raises(FkpError, match="different markups"):
        sources["c"] = LabelledCsv("csv", markup=str(tmp_path / "mine.yaml"))
        Joined(["a", "c"], sources).survey()

    # A single source may have any.
    assert Joined(["b"], sources).markup.name == "face5"


def test_bad_rows_of_all_sources_are_named_at_once(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (root / "csv/images/person3_03.png").unlink()
    (root / "pts/photo07.pts").write_text("1 2\n")
    with pytest.raises(FkpError, match="2 bad rows, 48 good ones") as error:
        Joined(["csv", "pts"], known(), str(root)).read()
    assert "csv/keypoints.csv:5: no image" in str(error.value)
    assert "pts/photo07.pts: 1 points, but ibug68 has 68" in str(error.value)
    with caplog.at_level(logging.WARNING):
        faces = Joined(["csv", "pts"], known(), str(root), on_bad="skip").read()
    assert len(faces) == 48 and "2 bad rows left out, 48 faces kept" in caplog.text


def test_absolute_roots_are_kept(root: Path) -> None:
    sources = {"csv": LabelledCsv(str(root / "csv")), "pts": PtsFolders("pts")}
    assert len(Joined(["csv", "pts"], sources, str(root)).read()) == 50
    with pytest.raises(FkpError, match="elsewhere"):
        Joined(["other"], known(), "elsewhere").read()


def test_protocol_all_trains_on_every_face_and_tests_on_none(root: Path) -> None:
    sources = known()
    sources["other"] = LabelledCsv("other", protocol="train")
    joined = Joined(["csv", "pts", "other"], sources, str(root), protocol="all")
    table = joined.read()
    splits = joined.split_indices(table)
    assert splits["train"].tolist() == list(range(len(table))) and not len(splits["test"])
    val = table.split_indices("identity")["val"]
    assert len(val) and splits["val"].tolist() == val.tolist()
