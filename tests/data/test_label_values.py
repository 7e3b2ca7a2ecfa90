"""Test that labels that are no pixel coordinates or stand for missing points are refused."""

import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fkp import painter
from fkp.data import label_places, label_values
from fkp.data.datamodule import FacesDataModule
from fkp.data.label_places import Frames, Search, judge
from fkp.data.labelled_csv import LabelledCsv, write_csv
from fkp.data.table import FaceTable, OnBad
from fkp.doctor.__main__ import doctor
from fkp.doctor.examination import examine
from fkp.doctor.findings import Finding, make_folder, save
from fkp.errors import FkpError
from fkp.files.images import write_image
from fkp.markup import IBUG68, Markup, load_markup
from fkp.transforms import FaceCrop, Rescale

COUNT = 32
FIVE = [[36, 39], [42, 45], [30], [48], [54]]  # of 68 points, whose means are the markup face5
NAMELESS = Markup("own", [f"p{i}" for i in range(5)], ["p0", "p1"])
Change = Callable[[np.ndarray, np.ndarray], np.ndarray]


class Faces:
    """Hold 32 painted faces, and the boxes that the detector finds in their images."""

    def __init__(self, root: Path):
        images, labels = zip(*(painter.paint(11, i) for i in range(COUNT)), strict=True)
        self.root, self.points = root, np.stack(labels)
        self.sizes = np.array([image.shape[1::-1] for image in images], float)
        self.names = [f"face{i:03d}_0.png" for i in range(COUNT)]
        for name, image in zip(self.names, images, strict=True):
            write_image(root / "images" / name, image)
        paths, rows = (
            [root / "images" / name for name in self.names],
            [f"keypoints.csv:{i + 2}" for i in range(COUNT)],
        )
        self.table = FaceTable(paths, self.points, self.names, rows)
        self.boxes = Search()(self.table, Frames.of(self.points, self.sizes), range(COUNT))

    def five(self) -> np.ndarray:
        """(32, 5, 2)"""
        return np.stack([self.points[:, some].mean(1) for some in FIVE], 1)

    def written(self, folder: Path, points: np.ndarray) -> LabelledCsv:
        """Write the data set with other labels."""
        (folder / "images").symlink_to(self.root / "images")
        write_csv(folder / "keypoints.csv", self.names, points)
        return LabelledCsv(str(folder))


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Faces:
    return Faces(tmp_path_factory.mktemp("drawn"))


def some(share: float) -> np.ndarray:
    """Choose one face, several, most or all of them: (32,) bool."""
    chosen = np.zeros(COUNT, bool)
    chosen[np.random.default_rng(3).permutation(COUNT)[: max(1, round(share * COUNT))]] = True
    return chosen


def planted(
    points: np.ndarray, sizes: np.ndarray, change: Change, chosen: np.ndarray
) -> np.ndarray:
    return np.where(chosen[:, None, None], change(points, sizes[:, None]), points)


def marker(*value: float) -> Change:
    def change(points: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        changed = points.copy()
        changed[:, 2] = value
        return changed

    return change


def at_corner(points: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    changed = points.copy()
    changed[:, 2] = sizes[:, 0] - 1
    return changed


def huge(points: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    changed = points.copy()
    changed[:, 2, 1] = 900000 + 1000 * np.arange(COUNT)
    return changed


def reversed_y(points: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    return np.stack([points[..., 0], sizes[..., 1] - 1 - points[..., 1]], -1)


BY_NUMBER: dict[str, tuple[str, Change]] = {
    "shares": ("not pixels", lambda points, sizes: points / sizes),
    "-1 to 1": ("not pixels", lambda points, sizes: 2 * points / sizes - 1),
    "0, 0": ("missing as number", marker(0, 0)),
    "-1, -1": ("missing as number", marker(-1, -1)),
    "nearly 0": ("missing as number", marker(1e-3, 1e-3)),
    "9999": ("missing as number", marker(9999, 9999)),
    "-999": ("missing as number", marker(-999, -999)),
    "lower right corner": ("missing as number", at_corner),
    "huge": ("far outside", huge),
    "infinite": ("infinite", marker(50, np.inf)),
    "minus the image's size": ("all outside", lambda points, sizes: points - sizes),
    "one spot": ("one line", lambda points, sizes: 0 * points + 60.5),
    "one line": ("one line", lambda points, sizes: points[..., :1] * (1, 0.5) + 3),
    "x and y swapped": ("axes", lambda points, sizes: points[..., ::-1]),
    "y from the bottom": ("axes", reversed_y),
}


@pytest.mark.parametrize("share", [0, 0.15, 0.6, 1])
@pytest.mark.parametrize("kind", BY_NUMBER)
@pytest.mark.parametrize("markup", ["ibug68", "face5"])
def test_impossible_labels_are_found_by_their_values(
    kind: str, share: float, markup: str, faces: Faces
) -> None:
    check, change = BY_NUMBER[kind]
    good, chosen = faces.points if markup == "ibug68" else faces.five(), some(share)
    points = planted(good, faces.sizes, change, chosen)
    found = label_values.check(points, faces.sizes, load_markup(markup))
    assert {wrong.check for wrong in found} <= {check}
    missed = set(np.flatnonzero(chosen)) ^ {i for wrong in found for i in wrong.cases}
    assert len(missed) <= (0.1 * chosen.sum() if check == "axes" else 0), (
        missed
    )  # a head rolled by 90 degrees


@pytest.mark.parametrize("share", [0.15, 0.6, 1])
def test_value_that_repeats_while_the_face_moves_is_a_missing_point(
    share: float, faces: Faces
) -> None:
    chosen = some(share)
    (wrong,) = label_values.check(
        planted(faces.points, faces.sizes, marker(7, 3), chosen), faces.sizes, IBUG68
    )
    assert wrong.check == "missing as number" and set(wrong.cases) == set(np.flatnonzero(chosen))
    assert "jaw_right_3 (7, 3)" in next(iter(wrong.cases.values()))


def test_good_labels_pass(faces: Faces) -> None:
    width = np.ptp(faces.points, axis=1)[:, None]
    in_corner = faces.points - faces.points.min(1, keepdims=True)
    shapes = {
        "whole pixels": np.round(faces.points),
        "a small face": 0.15 * faces.points,
        "a face in the corner": np.round(in_corner),
        "a face cut off there": np.maximum(in_corner - 0.2 * width, 0),
        "points outside": in_corner - 0.2 * width,
        "aligned by the eyes": in_corner - in_corner[:, 36:37] + 40,
        "heads that hang": faces.sizes[:, None] - 1 - faces.points,
    }
    for name, points in shapes.items():
        assert not label_values.check(points, faces.sizes, IBUG68), name
    tiny = np.full_like(faces.sizes, 8)
    assert not label_values.check(8 * faces.points / faces.sizes[:, None], tiny, IBUG68)
    corners_of_eyes = np.stack(
        [faces.points[:, [36, 39, 42, 45, 27], 0], np.full((COUNT, 5), 50)], -1
    )
    assert not label_values.check(corners_of_eyes, faces.sizes, NAMELESS)


BY_FACES: dict[str, tuple[str, Change]] = {
    "percent": ("width / 100", lambda points, sizes: 100 * points / sizes),
    "thousandths": ("width / 1000", lambda points, sizes: 1000 * points / sizes),
    "half": ("multiply x and y by about", lambda points, sizes: points / 2),
    "twice": ("multiply x and y by about 0.", lambda points, sizes: 2 * points),
    "longest side": (
        "longest side / ",
        lambda points, sizes: 600 * points / sizes.max(2, keepdims=True),
    ),
    "copies": ("multiply x by width", lambda points, sizes: points / sizes * (640, 480)),
}


@pytest.mark.parametrize("share", [0, 0.15, 0.6, 1])
@pytest.mark.parametrize("kind", BY_FACES)
def test_labels_of_another_size_are_found_by_detected_faces(
    kind: str, share: float, faces: Faces
) -> None:
    way_out, change = BY_FACES[kind]
    chosen = some(share)
    chosen[[i for i, boxes in faces.boxes.items() if not len(boxes)]] = False
    points = planted(faces.points, faces.sizes, change, chosen)
    places = judge(IBUG68, Frames.of(points, faces.sizes), faces.boxes, alone=True)
    found = {i for wrong in places.wrong for i in wrong.cases}
    assert found <= set(np.flatnonzero(chosen))
    assert len(found) >= 0.8 * chosen.sum() or (
        share == 0 and places.beside
    )  # a single row may be of any kind
    if chosen.sum() > 10:
        assert any(way_out in wrong.fix for wrong in places.wrong), places.wrong


@pytest.mark.parametrize("kind", BY_FACES)
@pytest.mark.parametrize("markup", ["face5", "own"])
def test_labels_of_unknown_markups_are_found_by_detected_faces(
    kind: str, markup: str, faces: Faces
) -> None:
    good, own = faces.five(), load_markup("face5") if markup == "face5" else NAMELESS
    assert not judge(own, Frames.of(good, faces.sizes), faces.boxes).wrong
    wrong = BY_FACES[kind][1](good, faces.sizes[:, None])
    assert judge(own, Frames.of(wrong, faces.sizes), faces.boxes).wrong


def test_labels_of_other_images_are_an_error(faces: Faces) -> None:
    mixed = np.roll(faces.points - faces.points.min(1, keepdims=True), 3, axis=0)
    places = judge(IBUG68, Frames.of(mixed, faces.sizes), faces.boxes)
    assert [wrong.level for wrong in label_places.beside_the_face(places)] == ["error"]


def module(
    source: LabelledCsv, on_bad: OnBad = "stop", check_labels: bool = True
) -> FacesDataModule:
    source.on_bad = on_bad
    crop = {"frame": FaceCrop(1.4), "rescale": Rescale(40)}
    return FacesDataModule(source, crop, batch_size=8, check_labels=check_labels)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (BY_NUMBER["shares"][1], ["keypoints.csv:2", "multiply x by its width"]),
        (BY_NUMBER["0, 0"][1], ["keypoints.csv:2", "jaw_right_3 (0, 0)", "leave the cell empty"]),
        (BY_FACES["percent"][1], ["keypoints.csv:2", "width / 100", "datamodule.check_labels"]),
    ],
)
def test_training_refuses_wrong_labels_and_says_what_to_do(
    change: Change, words: list[str], faces: Faces, tmp_path: Path
) -> None:
    source = faces.written(tmp_path, change(faces.points, faces.sizes[:, None]))
    with pytest.raises(FkpError) as error:
        module(source).setup()
    assert all(word in str(error.value) for word in words), error.value


def test_rows_with_wrong_labels_can_be_skipped(
    faces: Faces, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    points = planted(faces.points, faces.sizes, marker(0, 0), some(0.15))
    trained = module(faces.written(tmp_path, points), "skip")
    trained.setup()
    assert (
        sum(map(len, trained.splits.values())) == COUNT - 5 and "5 bad rows left out" in caplog.text
    )


def test_check_labels_false_trains_anyway(faces: Faces, tmp_path: Path) -> None:
    module(faces.written(tmp_path, faces.points / 2), check_labels=False).setup()


def test_face_labelled_twice_is_reported_with_both_rows(
    faces: Faces, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    faces.written(tmp_path, faces.points)
    again = faces.points[[5, 6]] + [[[0.5, 0]], [[200, 0]]]  # the same face; another face beside it
    write_csv(
        tmp_path / "keypoints.csv",
        [*faces.names, *faces.names[5:7]],
        np.concatenate([faces.points, again]),
    )
    source = LabelledCsv(str(tmp_path))
    twice = label_values.twice(source.read())
    assert (
        twice is not None
        and twice.cases == {COUNT: "as keypoints.csv:7"}
        and twice.level == "warning"
    )
    write_csv(
        tmp_path / "keypoints.csv",
        [*faces.names, faces.names[5]],
        np.concatenate([faces.points, again[:1]]),
    )
    with caplog.at_level(logging.WARNING):
        module(LabelledCsv(str(tmp_path))).setup()
    assert f"keypoints.csv:{COUNT + 2}" in caplog.text and "keypoints.csv:7" in caplog.text


@pytest.mark.parametrize(
    ("check", "change", "share"),
    [
        ("not pixels", BY_NUMBER["shares"][1], 1),
        ("not pixels", BY_FACES["percent"][1], 0),
        ("missing as number", BY_NUMBER["-1, -1"][1], 0.6),
        ("order of points", lambda points, sizes: points[:, ::-1], 1),
    ],
)
def test_doctor_names_the_rows(
    check: str, change: Change, share: float, faces: Faces, tmp_path: Path
) -> None:
    chosen = some(share)
    source = faces.written(tmp_path, planted(faces.points, faces.sizes, change, chosen))
    findings, sheet = examine(source, worst=3)
    found = {case.row for finding in findings if finding.check == check for case in finding.cases}
    rows = {f"keypoints.csv:{i + 2}" for i in np.flatnonzero(chosen)}
    assert next(finding.level for finding in findings if finding.check == check) == "error"
    assert found <= rows and len(found) >= 0.7 * len(rows) and sheet is not None


def test_doctor_makes_its_folder_writes_strict_json_and_exits_with_1(
    faces: Faces,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    faces.written(tmp_path, faces.points / faces.sizes[:, None])
    out = tmp_path / "new" / "folder"
    monkeypatch.setattr(
        sys, "argv", ["doctor", "data=csv", f"data.root={tmp_path}", f"run_dir={out}"]
    )
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        doctor()
    assert (
        end.value.code == 1 and json.loads(capsys.readouterr().out.splitlines()[-1])["errors"] == 1
    )
    (finding,) = [
        row for row in json.loads((out / "findings.json").read_text()) if row["level"] == "error"
    ]
    assert len(finding["cases"]) == COUNT and (out / "worst.png").is_file()


def test_findings_are_strict_json_for_any_values(tmp_path: Path) -> None:
    figures = {"a": float("nan"), "b": float("inf"), "c": float(np.float32(0.1)), "d": 0.25}
    save([Finding("note", "shift", "", figures=figures)], tmp_path / "findings.json")
    (row,) = json.loads((tmp_path / "findings.json").read_text(), parse_constant=pytest.fail)
    assert (
        row["figures"]["a"] is None and row["figures"]["b"] is None and row["figures"]["d"] == 0.25
    )
    (tmp_path / "file").write_text("")
    with pytest.raises(FkpError, match="run_dir"):
        make_folder(tmp_path / "file")


@pytest.mark.real
def test_real_labels_pass(shared: Path) -> None:
    from fkp.data.pts_folders import PtsFolders

    mesh = shared / "data/pseudo/lfw"
    for source in (
        PtsFolders(str(shared / "data/300w_train/afw")),
        LabelledCsv(str(mesh), file="mesh12_test.csv", markup=str(mesh / "mesh12.yaml")),
    ):
        table = source.read()
        sizes = np.array(
            [label_places.read_image(path).shape[1::-1] for path in table.paths[:].tolist()], float
        )
        found = [
            *label_values.check(table.points, sizes, source.markup),
            *label_places.sample(table, sizes, source.markup),
        ]
        assert not [wrong for wrong in found if wrong.level == "error"]
