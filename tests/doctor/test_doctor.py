"""The doctor finds every planted fault at its row, and no fault in a clean data set."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

from fkp import painter
from fkp.data.labelled_csv import LabelledCsv, write_csv
from fkp.data.pts_folders import PtsFolders
from fkp.doctor import label_appearance, places
from fkp.doctor.examination import examine
from fkp.doctor.findings import Finding
from fkp.files.images import read_image, write_image
from fkp.markup import IBUG68

COUNT = 100
Found = dict[tuple[str, str], Finding]


@pytest.fixture(autouse=True)
def _few_searches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Search few images: test_label_values.py tests the faults that a search finds."""
    monkeypatch.setattr(places, "SOME", 8)
    monkeypatch.setattr(places, "PREDICTED", 2)


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write 100 synthetic faces of 100 people."""
    root = tmp_path_factory.mktemp("clean")
    painted = [painter.paint(11, i) for i in range(COUNT)]
    names = [f"face{i:03d}_0.png" for i in range(COUNT)]
    for name, (image, _) in zip(names, painted, strict=True):
        write_image(root / "images" / name, image)
    write_csv(root / "keypoints.csv", names, np.stack([points for _, points in painted]))
    return root


def names_and_points(root: Path) -> tuple[list[str], np.ndarray]:
    table = LabelledCsv(str(root)).read()
    return [path.name for path in table.paths], table.points


def examined(root: Path, **options: str) -> Found:
    findings, grid = examine(LabelledCsv(str(root), **options), worst=6)
    assert grid is not None and grid.ndim == 3
    return {(finding.level, finding.check): finding for finding in findings}


def rows(finding: Finding) -> list[str]:
    return [case.row for case in finding.cases]


@pytest.fixture()
def copy(clean: Path, tmp_path: Path) -> Path:
    shutil.copytree(clean, tmp_path / "set")
    return tmp_path / "set"


def test_clean_set_has_no_errors_and_no_shift(clean: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_appearance, "GROUPS", 6)
    found = examined(clean)
    assert {check for level, check in found if level != "note"} <= {
        "unlike a face",
        "beside the face",
    }
    assert abs(found["note", "shift"].figures["percent_of_points_width"]) < 0.8


@pytest.mark.parametrize("share", [0.03, -0.03])
def test_shift_of_the_labels_is_measured(
    copy: Path, monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    monkeypatch.setattr(label_appearance, "GROUPS", 6)
    names, points = names_and_points(copy)
    width = np.ptp(points[:, :, 0], axis=1)
    write_csv(
        copy / "keypoints.csv", names, points + np.stack([share * width, 0 * width], 1)[:, None]
    )
    finding = examined(copy)["warning", "shift"]
    assert finding.figures["percent_of_points_width"] == pytest.approx(100 * share, abs=0.8)


def misnamed(root: Path, names: list[str], points: np.ndarray, i: int) -> None:
    Image.open(root / "images" / names[i]).save(root / "images" / names[i], format="JPEG")


def truncated(root: Path, names: list[str], points: np.ndarray, i: int) -> None:
    path = root / "images" / names[i]
    Image.open(path).save(path, format="JPEG", quality=95)
    path.write_bytes(path.read_bytes()[:-2000])


def unreadable(root: Path, names: list[str], points: np.ndarray, i: int) -> None:
    (root / "images" / names[i]).write_bytes(b"not an image")


def missing(root: Path, names: list[str], points: np.ndarray, i: int) -> None:
    (root / "images" / names[i]).unlink()


def transparent(root: Path, names: list[str], points: np.ndarray, i: int) -> None:
    image = Image.open(root / "images" / names[i]).convert("RGBA")
    image.putpixel((0, 0), (0, 0, 0, 0))
    image.save(root / "images" / names[i])


def rotated(root: Path, names: list[str], points: np.ndarray, i: int) -> None:
    image = Image.open(root / "images" / names[i])
    exif = image.getexif()
    exif[274] = 6
    image.save(root / "images" / names[i], exif=exif)


def tiny(root: Path, names: list[str], points: np.ndarray, i: int) -> None:
    image = read_image(root / "images" / names[i])
    factor = 25 / image.shape[0]
    write_image(
        root / "images" / names[i], cv2.resize(image, (25, 25), interpolation=cv2.INTER_AREA)
    )
    points[i] *= factor


def twin(root: Path, names: list[str], points: np.ndarray, i: int) -> None:
    """Copy the bytes to the file of a person in another split."""
    splits = LabelledCsv(str(root)).read().split_indices("identity")
    other = splits["test"][0] if i in splits["train"] else splits["train"][0]
    shutil.copy(root / "images" / names[i], root / "images" / names[other])
    points[other] = points[i] + 0.01


def near_twin(root: Path, names: list[str], points: np.ndarray, i: int) -> None:
    twin(root, names, points, i)
    image = read_image(root / "images" / names[i])
    write_image(root / "images" / names[i], np.clip(image.astype(int) + 3, 0, 255).astype(np.uint8))


def outside(root: Path, names: list[str], points: np.ndarray, i: int) -> None:
    points[i, 0, 0] = -3


def far_outside(root: Path, names: list[str], points: np.ndarray, i: int) -> None:
    points[i] += 0.5 * max(read_image(root / "images" / names[i]).shape)


def without_label(root: Path, names: list[str], points: np.ndarray, i: int) -> None:
    points[i, 3] = np.nan


def swapped(root: Path, names: list[str], points: np.ndarray, i: int) -> None:
    points[i] = points[i, IBUG68.flip_indices]


def broken(root: Path, names: list[str], points: np.ndarray, i: int) -> None:
    points[i, 48] += 0.6 * np.ptp(points[i], axis=0)


def same_label(root: Path, names: list[str], points: np.ndarray, i: int) -> None:
    points[i] = points[i - 1]


def eyes_at_one_place(root: Path, names: list[str], points: np.ndarray, i: int) -> None:
    points[i, 36] = points[i, 45]


@pytest.mark.parametrize(
    ("plant", "level", "check"),
    [
        (misnamed, "warning", "misnamed"),
        (truncated, "error", "unusable"),
        (unreadable, "error", "unusable"),
        (missing, "error", "bad rows"),
        (transparent, "warning", "alpha"),
        (rotated, "warning", "EXIF rotation"),
        (tiny, "warning", "tiny image"),
        (tiny, "warning", "tiny face"),
        (twin, "error", "duplicates"),
        (near_twin, "error", "near duplicates"),
        (outside, "warning", "outside"),
        (far_outside, "error", "outside"),
        (without_label, "note", "without label"),
        (swapped, "error", "left and right swapped"),
        (broken, "error", "broken shape"),
        (same_label, "warning", "same label"),
        (eyes_at_one_place, "error", "normaliser"),
    ],
)
def test_planted_fault_is_found_at_its_row(
    clean: Path, tmp_path: Path, plant: Callable[..., None], level: str, check: str
) -> None:
    # A third of the set is enough, and quicker.
    names, points = (column[:34] for column in names_and_points(clean))
    (tmp_path / "images").mkdir()
    for name in names:
        shutil.copy(clean / "images" / name, tmp_path / "images" / name)
    write_csv(tmp_path / "keypoints.csv", names, points)
    before = examined(tmp_path)
    assert (level, check) not in before
    plant(tmp_path, names, points, 20)
    write_csv(tmp_path / "keypoints.csv", names, points)
    cases = examined(tmp_path)[level, check].cases
    # A duplicate is reported at either of its rows.
    found = [case.row for case in cases]
    found += [case.what.split()[1] for case in cases if case.what.startswith("and ")]
    assert "keypoints.csv:22" in found
    assert len(cases) <= 2


def test_people_shared_by_the_official_splits_are_found(faces_folder: Path) -> None:
    options = {"file": "training_frames_keypoints.csv", "images": "training"}
    options |= {"test_file": "test_frames_keypoints.csv", "test_images": "test"}
    found = examined(faces_folder, **options)
    assert len(found["warning", "people shared"].cases) == 8
    found = examined(faces_folder, **options, protocol="official")
    assert len(found["error", "people shared"].cases) == 8


def call_doctor(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fkp.doctor", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=120, env=environment
    )


@pytest.mark.slow
def test_command_prints_counts_and_sets_the_exit_code(copy: Path, tmp_path: Path) -> None:
    done = call_doctor("data=csv", f"data.root={copy}", "worst=4", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["errors"] == 0
    (run,) = (tmp_path / "outputs/doctor").iterdir()
    assert read_image(run / "worst.png").shape[1] == 4 * 224
    (copy / "images/face003_0.png").unlink()
    done = call_doctor("data=csv", f"data.root={copy}", cwd=tmp_path)
    assert done.returncode == 1 and "keypoints.csv:5" in done.stdout
    written = json.loads(max((tmp_path / "outputs/doctor").glob("*/findings.json")).read_text())
    assert written[0]["level"] == "error" and written[0]["cases"][0]["row"] == "keypoints.csv:5"


def test_missing_data_set_is_one_message(tmp_path: Path) -> None:
    done = call_doctor("data=csv", "data.root=nowhere", cwd=tmp_path)
    assert done.returncode == 2 and "no such file" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.real
@pytest.mark.slow
def test_known_faults_of_real_data_sets(shared: Path) -> None:
    """Find their known faults: shared people, PNGs named .jpg, a shift, and wrong labels."""
    from fkp.data.youtube_faces import YoutubeFaces

    findings, _ = examine(
        YoutubeFaces(str(shared / "data/youtube_faces"), protocol="official"), worst=4
    )
    found = {(finding.level, finding.check): finding for finding in findings}
    assert len(found["error", "people shared"].cases) == 770
    assert len(found["warning", "misnamed"].cases) >= 770
    assert 1.0 < found["warning", "shift"].figures["percent_of_points_width"] < 2.2
    assert "training_frames_keypoints.csv:3142" in rows(found["error", "broken shape"])
    other, _ = examine(PtsFolders(str(shared / "data/300w_train")), worst=4)
    (shift,) = [finding for finding in other if finding.check == "shift"]
    assert shift.level == "note" and abs(shift.figures["percent_of_points_width"]) < 0.6
