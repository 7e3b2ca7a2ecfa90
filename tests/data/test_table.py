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


def test_people_are_never_shared_and_no_face_is_lost() -> None:
    whole = table(200)
    parts = whole.split("identity")
    people = {part: set(faces.identity) for part, faces in parts.items()}
    assert not people["train"] & people["val"] and not people["train"] & people["test"]
    assert not people["val"] & people["test"]
    assert sum(len(faces) for faces in parts.values()) == len(whole)
    assert 0.08 < len(people["test"]) / 200 < 0.22 and 0.08 < len(people["val"]) / 200 < 0.22


def full(count: int, seed: int = 0) -> FaceTable:
    """Every column filled with something else for every face."""
    rng, names = np.random.default_rng(seed), [f"{seed}-{i}" for i in range(count)]
    official = ["test" if i % 3 else "train" for i in range(count)]
    points, boxes = rng.random((count, 5, 2)), rng.random((count, 4))
    return FaceTable(
        [Path(n) for n in names], points, names, names, official, boxes, rng.random(count)
    )


def test_faces_keep_all_their_columns_when_chosen_and_joined() -> None:
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


@pytest.mark.parametrize("rule", ["identity", "official"])
def test_parts_are_each_face_once_and_splits_are_their_faces(rule: str) -> None:
    whole = full(120)
    parts = whole.split_indices(rule)
    assert sorted(np.concatenate(list(parts.values()))) == list(range(120))
    for name, faces in whole.split(rule).items():
        np.testing.assert_array_equal(faces.boxes, whole.boxes[parts[name]])
        if rule == "official":
            assert (faces.official == "test").all() == (name == "test")


def test_strict_is_identity_without_the_publishers_test_faces_in_training() -> None:
    whole = full(120)
    identity, strict = whole.split_indices("identity"), whole.split_indices("strict")
    np.testing.assert_array_equal(strict["test"], identity["test"])
    for part in ("train", "val"):
        assert set(strict[part]) == {i for i in identity[part] if whole.official[i] == "train"}


def test_an_unknown_rule_is_told() -> None:
    with pytest.raises(
        FkpError, match="data.protocol=people: no such rule; there is official, identity, strict"
    ):
        full(9).parts("people")


def test_the_rule_is_the_same_everywhere() -> None:
    parts = table(20, 1).split("identity")
    assert sorted(parts["test"].identity) == ["person1", "person17", "person2"]
    assert sorted(parts["val"].identity) == ["person18", "person3", "person8"]


def test_official_test_is_the_publishers_and_validation_is_by_identity(faces_folder: Path) -> None:
    parts = YoutubeFaces(str(faces_folder), protocol="official").read().split("official")
    assert {path.parent.name for path in parts["test"].paths} == {"test"} and len(
        parts["test"]
    ) == 8
    assert not set(parts["train"].identity) & set(parts["val"].identity)
    assert set(parts["test"].identity) & set(
        parts["train"].identity
    )  # the leak that the README tells of


def test_people_whom_their_hash_leaves_out_of_a_part_are_split_by_its_order(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As a table of people that were chosen by that hash: those of somebody else's training part."""
    whole = table(200, 1)
    chosen = whole.select(whole.split_indices("identity")["train"])
    parts = chosen.parts("identity")
    assert sorted(np.concatenate(list(parts.values()))) == list(range(len(chosen)))
    assert all(0.1 < len(parts[part]) / len(chosen) < 0.2 for part in ("val", "test"))
    chosen.parts("identity")
    assert caplog.text.count("order") == 1


def test_too_few_people_is_an_error_that_says_so() -> None:
    with pytest.raises(FkpError, match="leaves no face for"):
        table(1).split("identity")


def test_csv_written_and_read_is_the_same(tmp_path: Path, faces_folder: Path) -> None:
    points = np.random.default_rng(0).uniform(-5, 200, (3, 68, 2)).round(3)
    names = sorted(path.name for path in (faces_folder / "training").iterdir())[:3]
    write_csv(tmp_path / "k.csv", names, points)
    faces = LabelledCsv(str(tmp_path), "k.csv", str(faces_folder / "training")).read()
    np.testing.assert_allclose(faces.points, points)
    assert faces.identity.tolist() == [name.rsplit("_", 1)[0] for name in names]
    assert faces.rows[0] == "k.csv:2"


def test_every_bad_row_is_named_at_once(tmp_path: Path, faces_folder: Path) -> None:
    shutil.copy(faces_folder / "training_frames_keypoints.csv", tmp_path / "keypoints.csv")
    lines = (tmp_path / "keypoints.csv").read_text().splitlines()
    lines[3] = lines[3].replace(lines[3].split(",")[0], "gone.png")
    cells = lines[5].split(",")
    lines[5] = ",".join([*cells[:9], "12o", *cells[10:]])
    (tmp_path / "keypoints.csv").write_text("\n".join(lines))
    with pytest.raises(FkpError) as error:
        LabelledCsv(str(tmp_path), images=str(faces_folder / "training")).read()
    assert "2 bad rows" in str(error.value)
    assert "keypoints.csv:4: no picture" in str(error.value)
    assert "keypoints.csv:6: '12o' in column 10 is not a number" in str(error.value)


def test_wrong_number_of_columns_and_no_file(tmp_path: Path) -> None:
    (tmp_path / "keypoints.csv").write_text(",0,1\na.png,1,2\n")
    with pytest.raises(FkpError, match="3 columns, but ibug68 needs 137"):
        LabelledCsv(str(tmp_path)).read()
    with pytest.raises(FkpError, match="no such file"):
        LabelledCsv(str(tmp_path), file="else.csv").read()


def test_an_empty_cell_is_a_point_without_label(tmp_path: Path, faces_folder: Path) -> None:
    name = next((faces_folder / "training").iterdir()).name
    points = np.ones((1, 68, 2))
    points[0, 5] = np.nan
    write_csv(tmp_path / "keypoints.csv", [name], points)
    faces = LabelledCsv(str(tmp_path), images=str(faces_folder / "training")).read()
    np.testing.assert_array_equal(np.isnan(faces.points[0]).any(1), np.arange(68) == 5)


def test_synthetic_faces_are_drawn_once_and_do_not_depend_on_workers() -> None:
    one, two = Synthetic(count=6, seed=3, workers=1), Synthetic(count=6, seed=3, workers=2)
    first = one.read()
    written = {path: path.stat().st_mtime_ns for path in first.paths}
    assert {path: path.stat().st_mtime_ns for path in two.read().paths} == written
    shutil.rmtree(one.root)
    again = two.read()
    np.testing.assert_array_equal(first.points, again.points)
    assert not [path for path in one.root.parent.iterdir() if path.name.startswith(".synthetic")]


def test_synthetic_faces_are_not_taken_from_another_set(tmp_path: Path) -> None:
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
    """Five faces as .pts files in two folders."""
    faces = YoutubeFaces(str(faces_folder)).read()
    for i in range(5):
        file = tmp_path / "pts" / ("afw" if i % 2 else "helen") / f"{i}_1.pts"
        file.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(faces.paths[i], file.with_suffix(".png"))
        write_pts(file, faces.points[i])
    return tmp_path / "pts"


def test_pts_written_and_read_is_the_same_and_counts_from_one(
    pts_folder: Path, faces_folder: Path
) -> None:
    faces, wanted = PtsFolders(str(pts_folder)).read(), YoutubeFaces(str(faces_folder)).read()
    assert [path.stem for path in faces.paths] == ["1_1", "3_1", "0_1", "2_1", "4_1"]
    np.testing.assert_allclose(faces.points, wanted.points[[1, 3, 0, 2, 4]], atol=1e-3)
    assert faces.identity[0] == "afw/1"
    bare = pts_folder / "bare.pts"
    bare.write_text("1 1\n11.5 21\n")
    np.testing.assert_array_equal(read_pts(bare), [[0, 0], [10.5, 20]])


def test_every_bad_pts_file_is_named_at_once(pts_folder: Path) -> None:
    (pts_folder / "afw/1_1.pts").write_text("n_points: 3\n{\n1 2\n}\n")
    (pts_folder / "afw/3_1.png").unlink()
    (pts_folder / "helen/0_1.pts").write_text("{\n1 2\n1 two\n}\n")
    (pts_folder / "helen/2_1.pts").write_text("{\n1 2\n}\n")
    with pytest.raises(FkpError) as error:
        PtsFolders(str(pts_folder)).read()
    for fault in (
        "4 bad rows",
        "says n_points: 3, but has 1",
        "no picture",
        "0_1.pts:3: '1 two'",
        "1 points, but ibug68",
    ):
        assert fault in str(error.value)


def test_a_folder_without_pts_says_so(tmp_path: Path) -> None:
    with pytest.raises(FkpError, match=r"no \.pts file"):
        PtsFolders(str(tmp_path)).read()


def test_missing_folder_says_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(FkpError, match=r"data.root=.*data.download=true"):
        YoutubeFaces(str(tmp_path / "nowhere")).read()


def test_labels_can_be_moved_onto_the_human_convention(faces_folder: Path) -> None:
    published, human = (
        YoutubeFaces(str(faces_folder), labels=labels).read().points
        for labels in ("published", "human")
    )
    offsets = pd.read_csv(OFFSETS)
    assert list(offsets["point"]) == IBUG68.points
    # Labels lie to the right of the faces (doctor: 1.63 +- 0.25 % of the points' width); human ones lie left of those.
    assert 0.01 < offsets["x"].mean() < 0.04
    np.testing.assert_allclose(moved(published, -offsets[["x", "y"]].to_numpy(), IBUG68), human)
    with pytest.raises(FkpError, match="published and human"):
        YoutubeFaces(str(faces_folder), labels="mine")  # type: ignore[arg-type]
