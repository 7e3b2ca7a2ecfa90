"""Test the person of each face by file names, and the detection of frames of one video."""

import logging
import re
from pathlib import Path

import numpy as np
import pytest

from fkp.data.labelled_csv import LabelledCsv, write_csv
from fkp.data.pts_folders import PtsFolders, write_pts
from fkp.data.table import FaceTable
from fkp.errors import FkpError
from fkp.files.images import write_image

POINTS = np.random.default_rng(0).uniform(1, 40, (60, 5, 2)).round(2)


def csv_set(folder: Path, names: list[str], images: list[np.ndarray] | None = None) -> LabelledCsv:
    (folder / "images").mkdir()
    for i, name in enumerate(names):
        if images:
            write_image(folder / "images" / name, images[i])
        else:
            (folder / "images" / name).write_bytes(b"not decoded")
    write_csv(folder / "keypoints.csv", names, POINTS[: len(names)])
    return LabelledCsv(str(folder), markup="face5")


@pytest.mark.parametrize(
    "name", ["IMG_{:04d}.JPG", "img_{}.png", "DSC_{:05d}.jpg", "face_{:03d}.png"]
)
def test_names_of_a_camera_are_not_one_person(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    faces = csv_set(tmp_path, [name.format(i) for i in range(40)]).read()
    assert len(set(faces.identity)) == 40 and faces.identity[3] == f"images/{name.format(3)}"
    assert "data.identity" in caplog.text and repr(name.split("_")[0]) in caplog.text
    assert sum(map(len, faces.split_indices("identity").values())) == 40


def test_the_same_names_in_two_folders_are_two_people(tmp_path: Path) -> None:
    for split in ("training", "test"):
        (tmp_path / split).mkdir()
        for i in range(12):
            (tmp_path / split / f"IMG_{i}.jpg").write_bytes(b"not decoded")
        write_csv(tmp_path / f"{split}.csv", [f"IMG_{i}.jpg" for i in range(12)], POINTS[:12])
    files = {
        "file": "training.csv",
        "images": "training",
        "test_file": "test.csv",
        "test_images": "test",
    }
    assert len(set(LabelledCsv(str(tmp_path), markup="face5", **files).read().identity)) == 24  # type: ignore[arg-type]


def test_faces_on_one_image_stay_together(tmp_path: Path) -> None:
    source = csv_set(tmp_path, [f"IMG_{i}.jpg" for i in range(20)])
    write_csv(tmp_path / "keypoints.csv", [f"IMG_{i % 20}.jpg" for i in range(40)], POINTS[:40])
    faces = source.read()
    assert len(set(faces.identity)) == 20 and faces.identity[0] == faces.identity[20]


def test_people_by_name_column_or_expression_are_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = [f"{'anna' if i % 2 else f'person{i // 6}'}_{i:02d}.png" for i in range(40)]
    source = csv_set(tmp_path, names)

    # anna has half of the faces.
    assert set(source.read().identity) == {"anna", *(f"person{i}" for i in range(7))}

    # A column of people.
    lines = (tmp_path / "keypoints.csv").read_text().splitlines()
    with_column = [lines[0] + ",identity", *(line + ",me" for line in lines[1:])]
    (tmp_path / "keypoints.csv").write_text("\n".join(with_column))
    assert set(source.read().identity) == {"me"}

    # An expression of the user.
    source.identity = re.compile(r"(.)")
    (tmp_path / "keypoints.csv").write_text("\n".join(lines))
    assert set(source.read().identity) == {"a", "p"}
    assert not caplog.records


def test_the_message_of_an_empty_split_names_the_people(tmp_path: Path) -> None:
    source = csv_set(tmp_path, [f"me_{i}.jpg" for i in range(5)])
    with pytest.raises(FkpError, match=r"no face for.*'me' \(5 faces\).*data.identity"):
        source.read().split_indices("identity")
    with pytest.raises(FkpError, match="0 faces of 0 people"):
        FaceTable([], np.zeros((0, 5, 2)), [], []).split_indices("identity")


def video(count: int, still: float) -> list[np.ndarray]:
    """Return frames of a moving pattern, mixed with noise that is new in each frame."""
    rng = np.random.default_rng(0)
    scene = rng.integers(0, 255, (48, 48 + 2 * count), np.uint8)
    scene = np.repeat(np.repeat(scene[::8, ::8], 8, 0), 8, 1)
    other = rng.integers(0, 255, (count, 6, 6), np.uint8).repeat(8, 1).repeat(8, 2)
    frames = [scene[:48, i : i + 48] for i in range(count)]
    return [
        (still * frame + (1 - still) * new).astype(np.uint8)
        for frame, new in zip(frames, other, strict=True)
    ]


@pytest.mark.parametrize("name", ["frame{:04d}.png", "clip_{:d}.png", "v1-{:06d}.png"])
@pytest.mark.parametrize(("still", "warned"), [(1.0, True), (0.9, True), (0.0, False)])
def test_frames_of_a_video_are_distinguished_from_photos(
    tmp_path: Path, name: str, still: float, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    source = csv_set(tmp_path, [name.format(i) for i in range(40)], video(40, still))
    assert len(set(source.read().identity)) == 40
    assert ("frames of one video" in caplog.text) == warned


def test_no_warning_of_a_video_whose_frames_stay_together(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    frames = video(20, 1.0)
    names = [f"clip{clip}_{i:03d}.png" for clip in range(3) for i in range(20)]
    assert set(csv_set(tmp_path, names, frames * 3).read().identity) == {"clip0", "clip1", "clip2"}
    assert not caplog.records


def test_frames_beside_pts_files_cause_the_warning_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for i, frame in enumerate(video(20, 1.0)):
        write_image(tmp_path / f"{i:06d}.png", frame)
        write_pts(tmp_path / f"{i:06d}.pts", POINTS[i])
    with caplog.at_level(logging.WARNING):
        assert len(set(PtsFolders(str(tmp_path), markup="face5").read().identity)) == 20
    assert "frames of one video" in caplog.text


def test_names_that_are_not_valid_text_are_split(tmp_path: Path) -> None:
    faces = FaceTable(
        [tmp_path] * 50, np.zeros((50, 5, 2)), [f"\udcff{i}" for i in range(50)], ["a"] * 50
    )
    assert sum(map(len, faces.split_indices("identity").values())) == 50


@pytest.mark.parametrize("expression", ["img", "(img", "*"])
def test_an_invalid_expression_is_one_message(tmp_path: Path, expression: str) -> None:
    for source in (LabelledCsv, PtsFolders):
        with pytest.raises(FkpError, match="data.identity="):
            source(str(tmp_path), identity=expression)


def test_a_group_that_matches_nothing_is_not_a_person(tmp_path: Path) -> None:
    csv_set(tmp_path, ["a_1.jpg", "b_2.jpg"])
    faces = LabelledCsv(str(tmp_path), markup="face5", identity=r"(a_)?.*").read()
    assert faces.identity.tolist() == ["a_", "b_2.jpg"]
