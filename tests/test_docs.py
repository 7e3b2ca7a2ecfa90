"""Run every command of docs/own_points.md, on painted faces."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from conftest import ROOT, call

from fkp import painter
from fkp.data.formats.writing import LabelledImage, as_coco
from fkp.face import Face
from fkp.files.images import write_image
from fkp.geometry import face_box
from fkp.markup import IBUG68

# The names tell the mirror pairs.
OWN = {"eye_right": 36, "eye_left": 45, "nose": 30, "mouth_right": 48, "mouth_left": 54}
PEOPLE, PHOTOS = 26, 32
SHORTER = {"count=50": "count=3"}


def photo(index: int) -> str:
    return f"person{index}_01.jpg"


def label(folder: Path, people: range) -> None:
    """Write faces and their labels as CVAT exports them."""
    markup = replace(IBUG68, points=list(OWN), regions={}, lines={}, pair=["eye_right", "eye_left"])
    images = []
    for i in people:
        image, points = painter.paint(11, i)
        write_image(folder / "images" / photo(i), image)
        own = points[list(OWN.values())].astype(np.float32)
        face = Face(own, np.ones(len(OWN), np.float32), face_box(points), 1.0)
        height, width = image.shape[:2]
        images.append(LabelledImage(PurePosixPath(photo(i)), (width, height), [face]))
    file = folder / "annotations/person_keypoints_default.json"
    file.parent.mkdir()
    file.write_text(json.dumps(as_coco(images, markup)))


def run(command: str, cwd: Path) -> str:
    """Run a command of the page, shortened; return what it printed."""
    for long, short in SHORTER.items():
        command = command.replace(long, short)
    program, *arguments = shlex.split(command)
    if program == "pip":
        known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        (extras,) = re.findall(r"\[(.+)\]", arguments[-1])
        assert set(extras.split(",")) <= set(known["optional-dependencies"])
        return ""

    assert program == "python"
    if arguments[0] == "-m":
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        whole = [sys.executable, *arguments]
        done = subprocess.run(whole, cwd=cwd, env=environment, capture_output=True, text=True)
    else:
        done = call(*arguments, cwd=cwd)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def correct_the_suggested(folder: Path) -> None:
    """Take the pre-labels as they are."""
    file = folder / "my_faces/annotations/second.json"
    shutil.copy(folder / "outputs/second/labels/coco.json", file)
    for image in json.loads(file.read_text())["images"]:
        shutil.copy(folder / "photos" / image["file_name"], folder / "my_faces/images")


@pytest.mark.slow
def test_own_points_from_photos_to_an_app(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    for i in range(PHOTOS):
        write_image(tmp_path / "photos" / photo(i), painter.paint(11, i)[0])
    label(tmp_path / "my_faces", range(PEOPLE))
    label(tmp_path / "new_people", range(PHOTOS, PHOTOS + 5))

    page = (ROOT / "docs/own_points.md").read_text()
    blocks = re.findall(r"^```(bash|python)\n(.*?)^```$", page, re.M | re.S)
    printed = ""
    monkeypatch.chdir(tmp_path)
    for language, block in blocks:
        if language == "python":
            exec(compile(block, "own_points.md", "exec"), {"__name__": "own_points"})
            continue
        for command in block.strip().splitlines():
            printed += run(command, tmp_path)
            if "labelled=" in command:
                correct_the_suggested(tmp_path)

    # All labelled faces are used, after the second round with those suggested.
    assert f"{PEOPLE} faces, each by a map" in printed
    assert f"{PEOPLE + 3} faces, each by a map" in printed
    assert "on 5 all faces" in printed
    assert "mouth_left: " in capsys.readouterr().out
    assert len([language for language, _ in blocks if language == "bash"]) == len(blocks) - 1 > 8
