"""What each reader refuses, leaves out or is told: planted in small files."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fkp.data.formats.base import LabelFormat
from fkp.data.formats.coco import Coco
from fkp.data.formats.contents import spans
from fkp.data.formats.deeplabcut import DeepLabCut
from fkp.data.formats.label_studio import LabelStudio
from fkp.data.formats.labelme import Labelme
from fkp.data.formats.yolo import Yolo
from fkp.data.joined import Joined
from fkp.data.labelled_csv import LabelledCsv
from fkp.data.table import Fault
from fkp.errors import FkpError

SAMPLES = Path(__file__).parent / "samples"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    shutil.copytree(SAMPLES / "images", tmp_path / "set" / "images")
    return tmp_path / "set"


def coco(root: Path, change: dict[str, Any] | None = None, **extra: Any) -> Path:
    """A COCO file of one face with the points a (10, 20) and b (30, 40)."""
    annotation = {"id": 1, "image_id": 1, "category_id": 1, "keypoints": [10, 20, 2, 30, 40, 1]}
    data = {
        "images": [{"id": 1, "file_name": "ann_1.jpg"}],
        "annotations": [annotation, annotation | {"id": 2} | (change or {})],
        "categories": [{"id": 1, "name": "face", "keypoints": ["a", "b"], "skeleton": [[1, 2]]}],
    }
    (root / "in.json").write_text(json.dumps(data | extra))
    return root


def faults(source: LabelFormat) -> list[Fault]:
    return source.survey()[1]


def test_visibility_0_is_no_label(root: Path) -> None:
    table = Coco(str(coco(root, {"keypoints": [10, 20, 0, 30, 40, 2]}))).read()
    assert np.array_equal(table.points[1], [[np.nan, np.nan], [30, 40]], equal_nan=True)


@pytest.mark.parametrize("keypoints", [None, [], [0, 0, 0, 0, 0, 0]])
def test_annotations_without_labels_are_left_out(root: Path, keypoints: Any) -> None:
    assert len(Coco(str(coco(root, {"keypoints": keypoints}))).read()) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"keypoints": [1, 2, 2]},
        {"keypoints": [10, 20, 2, None, 40, 2]},
        {"keypoints": [10, "x", 2, 30, 40, 2]},
        {"keypoints": [10, 20, 2, 1e300, 40, 2]},
        {"image_id": 7},
        {"image_id": [1]},
        {"bbox": [1, 2, 3]},
        {"bbox": [10, 10, 0, 0]},
        {"bbox": "a"},
    ],
)
def test_a_bad_annotation_is_one_bad_row(root: Path, change: dict[str, Any]) -> None:
    source = Coco(str(coco(root, change)), boxes="file", on_bad="skip")
    table, bad = source.survey()
    assert [fault.row for fault in bad] == ["in.json:annotations[1]"]
    assert len(table) == 1


def test_boxes_that_are_not_used_may_be_empty(root: Path) -> None:
    assert len(Coco(str(coco(root, {"bbox": [10, 10, 0, 0]}))).read()) == 2


@pytest.mark.parametrize(
    ("origin", "extra", "corner"),
    [
        ("auto", {}, False),
        ("auto", {"info": {"contributor": "Label Studio"}}, True),
        ("auto", {"info": {"contributor": "fkp"}}, True),
        ("auto", {"info": {"contributor": "COCO Consortium"}}, False),
        ("auto", {"licenses": [{"name": "", "id": 0, "url": ""}], "info": {"year": ""}}, True),
        ("corner", {}, True),
        ("centre", {"info": {"contributor": "Label Studio"}}, False),
    ],
)
def test_the_origin_is_told_by_the_program_or_the_user(
    root: Path, origin: Any, extra: dict[str, Any], corner: bool
) -> None:
    table = Coco(str(coco(root, **extra)), origin=origin).read()
    assert table.points[0, 0].tolist() == ([9.5, 19.5] if corner else [10, 20])


def test_a_markup_chooses_between_categories(root: Path, tmp_path: Path) -> None:
    other = {"id": 2, "name": "hand", "keypoints": ["thumb"]}
    face = {"id": 1, "name": "face", "keypoints": ["a", "b"]}
    coco(root, {"category_id": 2, "keypoints": [1, 2, 2]}, categories=[face, other])
    with pytest.raises(FkpError) as error:
        Coco(str(root)).read()
    assert error.value.file == root / "in.json"

    (tmp_path / "face.yaml").write_text("name: mine\npoints: [b, a]\n")
    table = Coco(str(root), markup=str(tmp_path / "face.yaml")).read()
    assert table.points.tolist() == [[[30, 40], [10, 20]]]


def test_files_with_test_in_their_name_are_the_test_split(root: Path) -> None:
    coco(root)
    (root / "in.json").rename(root / "train.json")
    shutil.copy(root / "train.json", root / "test.json")
    table = Coco(str(root), file="*.json", protocol="official").read()
    assert sorted(table.official.tolist()) == ["test", "test", "train", "train"]


def test_names_that_lead_out_of_root_are_bad_rows(root: Path) -> None:
    shutil.copy(SAMPLES / "images" / "ann_1.jpg", root.parent / "secret.jpg")
    images = [{"id": 1, "file_name": "../../secret.jpg"}]
    assert len(faults(Coco(str(coco(root, images=images))))) == 2
    (root / "data.yaml").write_text("train: ..\nkpt_shape: [1, 2]\n")
    with pytest.raises(FkpError) as error:
        Yolo(str(root)).read()
    assert error.value.file == root / "data.yaml"


def test_a_markup_with_other_points_names_the_missing_one(root: Path) -> None:
    (root / "mine.yaml").write_text("name: mine\npoints: [a, c]\n")
    with pytest.raises(FkpError) as error:
        _ = Coco(str(coco(root)), markup=str(root / "mine.yaml")).markup
    assert error.value.key == "data.markup"
    assert "'c'" in str(error.value)


def test_a_name_that_no_markup_can_have_names_the_file(root: Path) -> None:
    categories = [{"id": 1, "name": "face", "keypoints": ["=cmd()", "b"]}]
    with pytest.raises(FkpError) as error:
        _ = Coco(str(coco(root, categories=categories))).markup
    assert (error.value.key, error.value.file) == ("points", root / "in.json")


def test_two_points_of_one_name_are_a_bad_row(root: Path) -> None:
    point = {"label": "a", "points": [[1, 2]], "group_id": None, "shape_type": "point"}
    data = {"imagePath": "images\\ann_1.jpg", "shapes": [point, point]}
    (root / "one.json").write_text(json.dumps(data))
    assert [fault.row for fault in faults(Labelme(str(root)))] == ["one.json"]

    region = {"value": {"x": 1, "y": 1, "keypointlabels": ["a"]}}
    region |= {"original_width": 10, "original_height": 10}
    task = {"id": 5, "data": {"image": "ann_1.jpg"}, "annotations": [{"result": [region] * 2}]}
    (root / "one.json").write_text(json.dumps([task]))
    assert [fault.row for fault in faults(LabelStudio(str(root)))] == ["one.json:task 5"]


def test_of_several_annotations_the_truth_or_the_last_counts(root: Path) -> None:
    def annotation(x: float, **more: Any) -> dict[str, Any]:
        value = {"x": x, "y": 50, "keypointlabels": ["a"]}
        region = {"value": value, "original_width": 100, "original_height": 100}
        return {"result": [region, {"from_name": "person", "value": {"choices": ["Ann"]}}], **more}

    def read(*annotations: dict[str, Any]) -> float:
        task = {"id": 1, "data": {"image": "ann_1.jpg"}, "annotations": list(annotations)}
        (root / "one.json").write_text(json.dumps([task]))
        table = LabelStudio(str(root)).read()
        assert table.identity.tolist() == ["Ann"]
        return float(table.points[0, 0, 0])

    assert read(annotation(10), annotation(20)) == 19.5
    assert read(annotation(10), annotation(20, was_cancelled=True)) == 9.5
    assert read(annotation(10, ground_truth=True), annotation(20)) == 9.5


def test_yolo_says_what_it_knows_of_pairs_and_splits(root: Path) -> None:
    (root / "labels").mkdir()
    for name in ("ann_1", "bob_1"):
        (root / "labels" / f"{name}.txt").write_text("0 .5 .5 1 1 .5 .5 2 .25 .5 0\n")
    (root / "test.txt").write_text("./images/bob_1.jpg\n")
    (root / "data.yaml").write_text(
        "train: images\ntest: test.txt\nkpt_shape: [2, 3]\n"
        "flip_idx: [1, 0]\nkpt_names: {0: [p, q]}\n"
    )
    source = Yolo(str(root), protocol="official")
    assert source.markup.points == ["p", "q"]
    assert source.markup.pairs == [["p", "q"]]
    table = source.read()
    assert sorted(zip([p.stem for p in table.paths], table.official.tolist(), strict=True)) == [
        ("ann_1", "train"),
        ("bob_1", "test"),
    ]
    # The centre of an image of 88 x 96 pixels, and an unlabelled point.
    (ann,) = [i for i, path in enumerate(table.paths) if path.stem == "ann_1"]
    assert np.array_equal(table.points[ann], [[43.5, 47.5], [np.nan] * 2], equal_nan=True)


def test_frames_of_six_videos_stay_together(root: Path) -> None:
    for count in (5, 6):
        for video in range(count):
            folder = root / "labeled-data" / f"v{video}"
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(SAMPLES / "images" / "ann_1.jpg", folder / "img1.jpg")
            shutil.copy(SAMPLES / "images" / "ann_1.jpg", folder / "img2.jpg")
            rows = [f"labeled-data/v{video}/img{k}.jpg,1,2" for k in (1, 2)]
            header = ["scorer,me,me", "bodyparts,nose,nose", "coords,x,y"]
            (folder / "CollectedData_me.csv").write_text("\n".join([*header, *rows]) + "\n")
        people = set(DeepLabCut(str(root)).read().identity.tolist())
        assert len(people) == (6 if count == 6 else 10)


def test_joined_sources_share_a_markup_that_files_name(root: Path) -> None:
    coco(root)
    (root / "keypoints.csv").write_text("image,a_x,a_y,b_x,b_y\nbob_1.jpg,1,2,3,4\n")
    known = {"coco": Coco("set"), "csv": LabelledCsv("set", markup=None)}
    joined = Joined(["coco", "csv"], dict(known), root=str(root.parent))
    assert joined.markup.points == ["a", "b"]
    assert joined.read().points[2].tolist() == [[1, 2], [3, 4]]

    (root / "keypoints.csv").write_text("image,a_x,a_y,c_x,c_y\nbob_1.jpg,1,2,3,4\n")
    known = {"coco": Coco("set"), "csv": LabelledCsv("set", markup=None)}
    with pytest.raises(FkpError) as error:
        Joined(["coco", "csv"], dict(known), root=str(root.parent)).survey()
    assert error.value.key == "data.sources"


def test_edges_become_lines() -> None:
    assert spans([(0, 1), (1, 2), (0, 2)], 3) == {"ring": [[0, 2]]}
    assert spans([(0, 1), (3, 2), (0, 3), (9, 4)], 5) == {"open": [[0, 1], [2, 3]]}
    assert spans([], 5) == {}
