"""Suggest photos to label, with a tiny trained model, as a user does."""

import csv
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from fkp import painter
from fkp.data.labelled_csv import write_csv
from fkp.files.images import read_image, write_image
from fkp.runs import suggest

Run = tuple[Path, str]
COUNT = 8


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Painted faces, a copy of one of them, a photo without a face, and a damaged file."""
    root = tmp_path_factory.mktemp("photos")
    for i in range(COUNT):
        (root / f"{i % 2}").mkdir(exist_ok=True)
        write_image(root / f"{i % 2}/face{i}.png", painter.paint(5, i)[0])
    write_image(root / "copy.jpg", read_image(root / "1/face3.png"))
    write_image(root / "blank.png", np.full((90, 90, 3), 128, np.uint8))
    (root / "damaged.png").write_text("not an image")
    return root


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["suggest", *arguments])
    suggest.main()


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "suggestions.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_every_photo_is_ranked_listed_or_left_out(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "out"
    run(monkeypatch, f"image={photos}", "count=10", "labels=coco", f"run_dir={out}")
    counts = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert counts["without_face"] >= 1 and counts["near_duplicates"] >= 1
    assert counts["failed"] == 1 and sum(counts.values()) == COUNT + 3

    rows = table(out)
    assert len(rows) == counts["suggested"] > 4
    assert [int(row["rank"]) for row in rows] == list(range(1, len(rows) + 1))
    names = {row["image"] for row in rows}
    assert len(names) == len(rows) and all((photos / name).is_file() for name in names)
    assert len(names & {"copy.jpg", "1/face3.png"}) == 1
    assert str(photos / "blank.png") in (out / "without_face.txt").read_text().splitlines()
    assert read_image(out / "suggestions.png").std() > 10
    coco = json.loads((out / "labels/coco.json").read_text())
    assert {image["file_name"] for image in coco["images"]} == names
    assert len(coco["annotations"]) == len(rows)


@pytest.mark.slow
def test_labelled_photos_and_their_copies_are_left_out(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    shutil.copytree(photos, tmp_path / "photos")
    names = ["1/face3.png", "0/face2.png"]
    labels = np.stack([painter.paint(5, i)[1] for i in (3, 2)])
    write_csv(tmp_path / "photos/done.csv", names, labels)

    folder = tmp_path / "photos"
    arguments = (f"image={folder}", "count=3", f"run_dir={tmp_path / 'out'}")
    run(monkeypatch, *arguments, f"labelled={folder / 'done.csv'}", "shown=0")
    counts = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert counts["labelled"] == 2 and counts["suggested"] == 3
    assert not {row["image"] for row in table(tmp_path / "out")} & {*names, "copy.jpg"}
    assert not (tmp_path / "out/suggestions.png").exists()


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["image={photos}/nowhere"], "image"),
        (["image={photos}/copy.jpg"], "image"),
        (["image={photos}", "count=500"], "count"),
        (["image={photos}", "count=0"], "count"),
        (["image={photos}", "count=2", "labelled=nowhere"], "labelled"),
        (["image={photos}", "count=2", "labels=voc"], "labels"),
        (["image={photos}", "count=2", "ckpt=nowhere.ckpt"], "nowhere.ckpt"),
        ([], "image"),
    ],
)
def test_a_mistake_is_one_message(
    arguments: list[str],
    fault: str,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.chdir(tmp_path)
    given = [argument.format(photos=photos) for argument in arguments]
    with pytest.raises(SystemExit) as raised:
        run(monkeypatch, *given, f"run_dir={tmp_path / 'out'}")
    message = capsys.readouterr().err
    assert raised.value.code == 2 and message.startswith(fault) or fault in message
    assert "Traceback" not in message


def test_pre_labels_of_other_points_are_refused(
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    shutil.copytree(photos, tmp_path / "photos")
    file = tmp_path / "photos/own.csv"
    file.write_text("image,left_eye_x,left_eye_y,nose_x,nose_y\n0/face0.png,40,40,60,60\n")
    given = (f"image={file.parent}", f"labelled={file}", "labels=coco", "count=2")
    with pytest.raises(SystemExit):
        run(monkeypatch, *given, f"run_dir={tmp_path / 'out'}")
    assert capsys.readouterr().err.startswith("labels: ")
