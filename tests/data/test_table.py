"""Test the table of faces, its splits, and the sources that make it."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fkp.data.labelled_csv import LabelledCsv, write_csv
from fkp.data.pts_folders import PtsFolders, read_pts, write_pts
from fkp.data.shapes import moved
from fkp.data.synthetic import Synthetic
from fkp.data.table import FaceTable
from fkp.data.youtube_faces import OFFSETS, YoutubeFaces
from fkp.errors import FkpError
from fkp.markup import IBUG68


def table(people: int, frames: int = 3) -> FaceTable:
    names = [f"person{i % people}" for i in range(people * frames)]
    count = len(names)
    return FaceTable(
        [Path(f"{i}.png") for i in range(count)], np.zeros((count, 68, 2)), names, names
    )


def test_identity_splits_share_no_person_and_lose_no_face() -> None:
    whole = table(200)
    splits = whole.split("identity")
    people = {split: set(faces.identity) for split, faces in splits.items()}
    assert not people["train"] & people["val"] and not people["train"] & people["test"]
    assert not people["val"] & people["test"]
    assert sum(len(faces) for faces in splits.values()) == len(whole)
    assert 0.08 < len(people["test"]) / 200 < 0.22 and 0.08 < len(people["val"]) / 200 < 0.22


def full(count: int, seed: int = 0) -> FaceTable:
    """Fill every column with different values for every face."""
    rng, names = np.random.default_rng(seed), [f"{seed}-{i}" for i in range(count)]
    official = ["test" if i % 3 else "train" for i in range(count)]
    points, boxes = rng.random((count, 5, 2)), rng.random((count, 4))
    return FaceTable(
        [Path(n) for n in names], points, names, names, official, boxes, rng.random(count)
    )


def test_select_and_join_keep_all_columns() -> None:
    one, other = full(7), full(4, seed=1)
    joined = FaceTable.joined([one, other])
    assert len(joined) == 11
    assert (
        len(set(one.weights)) == 7
        and len(set(one.boxes.ravel())) == 28
        and set(one.official) == {"test", "train"}
    )
    for table, chosen in ((one, np.arange(7)), (other, np.arange(7, 11))):
        for name, column in vars(joined.select(chosen)).items():
            np.testing.assert_array_equal(column, vars(table)[name], err_msg=name)
    mask = np.arange(11) % 2 == 1
    for name, column in vars(joined.select(mask)).items():
        np.testing.assert_array_equal(column, vars(joined)[name][1::2], err_msg=name)
        assert len(column) == 5


@pytest.mark.parametrize("protocol", ["identity", "official"])
def test_every_face_is_in_one_split(protocol: str) -> None:
    whole = full(120)
    indices = whole.split_indices(protocol)
    assert sorted(np.concatenate(list(indices.values()))) == list(range(120))
    for name, faces in whole.split(protocol).items():
        np.testing.assert_array_equal(faces.boxes, whole.boxes[indices[name]])
        if protocol == "official":
            assert (faces.official == "test").all() == (name == "test")


def test_strict_leaves_the_publishers_test_faces_out_of_train_and_val() -> None:
    whole = full(120)
    identity, strict = whole.split_indices("identity"), whole.split_indices("strict")
    np.testing.assert_array_equal(strict["test"], identity["test"])
    for split in ("train", "val"):
        assert set(strict[split]) == {i for i in identity[split] if whole.official[i] == "train"}


def test_unknown_protocol_is_refused() -> None:
    with pytest.raises(FkpError, match="data.protocol=people.* official, identity, strict"):
        full(9).split_indices("people")


def test_identity_split_is_the_same_on_every_machine() -> None:
    splits = table(20, 1).split("identity")
    assert sorted(splits["test"].identity) == ["person1", "person17", "person2"]
    assert sorted(splits["val"].identity) == ["person18", "person3", "person8"]


def test_official_test_is_the_publishers_and_val_is_by_identity(faces_folder: Path) -> None:
    splits = YoutubeFaces(str(faces_folder), protocol="official").read().split("official")
    assert {path.parent.name for path in splits["test"].paths} == {"test"}
    assert len(splits["test"]) == 8
    people = {split: set(faces.identity) for split, faces in splits.items()}
    assert not people["train"] & people["val"]
    assert people["test"] & people["train"]  # the leak that the README describes


def test_people_are_split_by_rank_if_their_hashes_leave_a_split_empty(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Such as the people of another table's train split, which were selected by the same hash."""
    whole = table(200, 1)
    chosen = whole.select(whole.split_indices("identity")["train"])
    indices = chosen.split_indices("identity")
    assert sorted(np.concatenate(list(indices.values()))) == list(range(len(chosen)))
    assert all(0.1 < len(indices[split]) / len(chosen) < 0.2 for split in ("val", "test"))
    chosen.split_indices("identity")
    assert caplog.text.count("order") == 1


def test_too_few_people_are_refused() -> None:
    with pytest.raises(FkpError, match="leaves no face for"):
        table(1).split("identity")


def test_csv_round_trip(tmp_path: Path, faces_folder: Path) -> None:
    points = np.random.default_rng(0).uniform(-5, 200, (3, 68, 2)).round(3)
    names = sorted(path.name for path in (faces_folder / "training").iterdir())[:3]
    write_csv(tmp_path / "k.csv", names, points)
    faces = LabelledCsv(str(tmp_path), "k.csv", str(faces_folder / "training")).read()
    np.testing.assert_allclose(faces.points, points)
    assert faces.identity.tolist() == [name.rsplit("_", 1)[0] for name in names]
    assert faces.rows[0] == "k.csv:2"


def test_all_bad_csv_rows_are_named_in_one_error(tmp_path: Path, faces_folder: Path) -> None:
    shutil.copy(faces_folder / "training_frames_keypoints.csv", tmp_path / "keypoints.csv")
    lines = (tmp_path / "keypoints.csv").read_text().splitlines()
    lines[3] = lines[3].replace(lines[3].split(",")[0], "gone.png")
    cells = lines[5].split(",")
    lines[5] = ",".join([*cells[:9], "12o", *cells[10:]])
    (tmp_path / "keypoints.csv").write_text("\n".join(lines))
    with pytest.raises(FkpError) as error:
        LabelledCsv(str(tmp_path), images=str(faces_folder / "training")).read()
    assert "2 bad rows" in str(error.value)
    assert "keypoints.csv:4: no " in str(error.value)
    assert "keypoints.csv:6: '12o' in column 10 is not a number" in str(error.value)


def test_wrong_number_of_columns_and_missing_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "keypoints.csv").write_text(",0,1\na.png,1,2\n")
    with pytest.raises(FkpError, match="3 columns, but ibug68 needs 137"):
        LabelledCsv(str(tmp_path)).read()
    with pytest.raises(FkpError, match="no such file"):
        LabelledCsv(str(tmp_path), file="else.csv").read()


def test_empty_cell_is_an_unlabelled_point(tmp_path: Path, faces_folder: Path) -> None:
    name = next((faces_folder / "training").iterdir()).name
    points = np.ones((1, 68, 2))
    points[0, 5] = np.nan
    write_csv(tmp_path / "keypoints.csv", [name], points)
    faces = LabelledCsv(str(tmp_path), images=str(faces_folder / "training")).read()
    np.testing.assert_array_equal(np.isnan(faces.points[0]).any(1), np.arange(68) == 5)


def test_synthetic_faces_are_painted_once_and_do_not_depend_on_workers() -> None:
    one, two = Synthetic(count=6, seed=3, workers=1), Synthetic(count=6, seed=3, workers=2)
    first = one.read()
    written = {path: path.stat().st_mtime_ns for path in first.paths}
    assert {path: path.stat().st_mtime_ns for path in two.read().paths} == written
    shutil.rmtree(one.root)
    again = two.read()
    np.testing.assert_array_equal(first.points, again.points)
    assert not [path for path in one.root.parent.iterdir() if path.name.startswith(".synthetic")]


def test_synthetic_faces_of_another_set_are_refused(tmp_path: Path) -> None:
    Synthetic(count=4, root=str(tmp_path / "set"), workers=1).read()
    assert len(Synthetic(count=4, root=str(tmp_path / "set")).read()) == 4
    for other in (
        Synthetic(count=5, root=str(tmp_path / "set")),
        Synthetic(count=4, root=str(tmp_path)),
    ):
        with pytest.raises(FkpError, match="holds something else"):
            other.read()


@pytest.fixture()
def pts_folder(faces_folder: Path, tmp_path: Path) -> Path:
    """Write five faces as .pts files in two folders."""
    faces = YoutubeFaces(str(faces_folder)).read()
    for i in range(5):
        file = tmp_path / "pts" / ("afw" if i % 2 else "helen") / f"{i}_1.pts"
        file.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(faces.paths[i], file.with_suffix(".png"))
        write_pts(file, faces.points[i])
    return tmp_path / "pts"


def test_pts_round_trip_and_counting_from_one(pts_folder: Path, faces_folder: Path) -> None:
    faces, wanted = PtsFolders(str(pts_folder)).read(), YoutubeFaces(str(faces_folder)).read()
    assert [path.stem for path in faces.paths] == ["1_1", "3_1", "0_1", "2_1", "4_1"]
    np.testing.assert_allclose(faces.points, wanted.points[[1, 3, 0, 2, 4]], atol=1e-3)
    assert faces.identity[0] == "afw/1"
    bare = pts_folder / "bare.pts"
    bare.write_text("1 1\n11.5 21\n")
    np.testing.assert_array_equal(read_pts(bare), [[0, 0], [10.5, 20]])


def test_all_bad_pts_files_are_named_in_one_error(pts_folder: Path) -> None:
    (pts_folder / "afw/1_1.pts").write_text("n_points: 3\n{\n1 2\n}\n")
    (pts_folder / "afw/3_1.png").unlink()
    (pts_folder / "helen/0_1.pts").write_text("{\n1 2\n1 two\n}\n")
    (pts_folder / "helen/2_1.pts").write_text("{\n1 2\n}\n")
    with pytest.raises(FkpError) as error:
        PtsFolders(str(pts_folder)).read()
    for fault in (
        "4 bad rows",
        "says n_points: 3, but has 1",
        "3_1",
        "0_1.pts:3: '1 two'",
        "1 points, but ibug68",
    ):
        assert fault in str(error.value)


def test_folder_without_pts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FkpError, match=r"no \.pts file"):
        PtsFolders(str(tmp_path)).read()


def test_missing_folder_names_data_root_and_download(tmp_path: Path) -> None:
    with pytest.raises(FkpError, match=r"data.root=.*data.download=true"):
        YoutubeFaces(str(tmp_path / "nowhere")).read()


def test_labels_can_follow_the_human_convention(faces_folder: Path) -> None:
    published, human = (
        YoutubeFaces(str(faces_folder), labels=labels).read().points
        for labels in ("published", "human")
    )
    offsets = pd.read_csv(OFFSETS)
    assert list(offsets["point"]) == IBUG68.points
    # The published labels lie 1.63 +- 0.25 % of the points' width to the right of the faces (by
    # the doctor), so human labels lie to the left of them.
    assert 0.01 < offsets["x"].mean() < 0.04
    np.testing.assert_allclose(moved(published, -offsets[["x", "y"]].to_numpy(), IBUG68), human)
    with pytest.raises(FkpError, match="published and human"):
        YoutubeFaces(str(faces_folder), labels="mine")  # type: ignore[arg-type]
