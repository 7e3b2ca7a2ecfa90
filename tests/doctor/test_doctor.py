"""Every fault that is planted in a clean set is found, at its row, and a clean set has none."""

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
from fkp.doctor import labels, places
from fkp.doctor.examination import examine
from fkp.doctor.findings import Finding
from fkp.files.images import read_image, write_image
from fkp.markup import IBUG68

COUNT = 100
Found = dict[tuple[str, str], Finding]


@pytest.fixture(autouse=True)
def _few_searches(monkeypatch: pytest.MonkeyPatch) -> None:
    """tests/test_label_values.py has the faults that are found in the images themselves."""
    monkeypatch.setattr(places, "SOME", 8)
    monkeypatch.setattr(places, "PREDICTED", 2)


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """100 drawn faces of 100 people."""
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
    findings, sheet = examine(LabelledCsv(str(root), **options), worst=6)
    assert sheet is not None and sheet.ndim == 3
    return {(finding.level, finding.check): finding for finding in findings}


def rows(finding: Finding) -> list[str]:
    return [case.row for case in finding.cases]


@pytest.fixture()
def copy(clean: Path, tmp_path: Path) -> Path:
    shutil.copytree(clean, tmp_path / "set")
    return tmp_path / "set"


def test_a_clean_set_has_no_error_and_lies_on_its_faces(
    clean: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(labels, "GROUPS", 6)
    found = examined(clean)
    assert {check for level, check in found if level != "note"} <= {
        "unlike a face",
        "beside the face",
    }
    assert abs(found["note", "shift"].figures["percent_of_points_width"]) < 0.8


@pytest.mark.parametrize("share", [0.03, -0.03])
def test_labels_that_lie_beside_the_faces_are_told_by_how_much(
    copy: Path, monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    monkeypatch.setattr(labels, "GROUPS", 6)
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
    (root / "images" / names[i]).write_bytes(b"no picture at all")


def missing(root: Path, names: list[str], points: np.ndarray, i: int) -> None:
    (root / "images" / names[i]).unlink()


def transparent(root: Path, names: list[str], points: np.ndarray, i: int) -> None:
    picture = Image.open(root / "images" / names[i]).convert("RGBA")
    picture.putpixel((0, 0), (0, 0, 0, 0))
    picture.save(root / "images" / names[i])


def turned(root: Path, names: list[str], points: np.ndarray, i: int) -> None:
    picture = Image.open(root / "images" / names[i])
    exif = picture.getexif()
    exif[274] = 6
    picture.save(root / "images" / names[i], exif=exif)


def tiny(root: Path, names: list[str], points: np.ndarray, i: int) -> None:
    image = read_image(root / "images" / names[i])
    factor = 25 / image.shape[0]
    write_image(
        root / "images" / names[i], cv2.resize(image, (25, 25), interpolation=cv2.INTER_AREA)
    )
    points[i] *= factor


def twin(root: Path, names: list[str], points: np.ndarray, i: int) -> None:
    """The same bytes under the name of a person in another part."""
    parts = LabelledCsv(str(root)).read().split_indices("identity")
    other = parts["test"][0] if i in parts["train"] else parts["train"][0]
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


def one_spot(root: Path, names: list[str], points: np.ndarray, i: int) -> None:
    points[i, 36] = points[i, 45]


@pytest.mark.parametrize(
    ("plant", "level", "check"),
    [
        (misnamed, "warning", "misnamed"),
        (truncated, "error", "unusable"),
        (unreadable, "error", "unusable"),
        (missing, "error", "bad rows"),
        (transparent, "warning", "alpha"),
        (turned, "warning", "EXIF rotation"),
        (tiny, "warning", "tiny picture"),
        (tiny, "warning", "tiny face"),
        (twin, "error", "duplicates"),
        (near_twin, "error", "near duplicates"),
        (outside, "warning", "outside"),
        (far_outside, "error", "outside"),
        (without_label, "note", "without label"),
        (swapped, "error", "left and right swapped"),
        (broken, "error", "broken shape"),
        (same_label, "warning", "same label"),
        (one_spot, "error", "normaliser"),
    ],
)
def test_a_planted_fault_is_found_at_its_row(
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
    found = examined(tmp_path)
    assert "keypoints.csv:22" in [case.row for case in found[level, check].cases] + [
        case.what.split()[1] for case in found[level, check].cases if case.what.startswith("and ")
    ]
    assert len(found[level, check].cases) <= 2


def test_people_shared_by_the_publishers_split_are_told(faces_folder: Path) -> None:
    options = {"file": "training_frames_keypoints.csv", "images": "training"}
    options |= {"test_file": "test_frames_keypoints.csv", "test_images": "test"}
    assert len(examined(faces_folder, **options)["warning", "people shared"].cases) == 8
    assert (
        len(examined(faces_folder, **options, protocol="official")["error", "people shared"].cases)
        == 8
    )


def call_doctor(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fkp.doctor", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=120, env=environment
    )


@pytest.mark.slow
def test_the_command_ends_with_its_counts_and_an_exit_code(copy: Path, tmp_path: Path) -> None:
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


def test_a_set_that_is_not_there_is_one_message(tmp_path: Path) -> None:
    done = call_doctor("data=csv", "data.root=nowhere", cwd=tmp_path)
    assert done.returncode == 2 and "no such file" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.real
@pytest.mark.slow
def test_the_real_sets(shared: Path) -> None:
    """What is known of them: the leak, PNGs named .jpg, the shift to the right, labels that are really wrong."""
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
