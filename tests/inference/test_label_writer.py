"""Write pre-labels, and read them back through the readers of the same formats."""

import json
from pathlib import Path, PurePosixPath
from xml.etree import ElementTree

import numpy as np
import pytest

from fkp.data.csv_layout import BOX
from fkp.data.formats.coco import Coco
from fkp.data.formats.label_studio import LabelStudio
from fkp.data.formats.labelme import Labelme
from fkp.data.formats.writing import LabelledImage, edges
from fkp.data.labelled_csv import LabelledCsv
from fkp.data.table import FaceTable, Source
from fkp.errors import FkpError
from fkp.face import Face
from fkp.files.images import write_image
from fkp.inference.image_writer import ImageWriter
from fkp.inference.label_writer import FORMATS, LabelWriter
from fkp.inference.media import find
from fkp.inference.result_files import ResultFolder
from fkp.markup import IBUG68, Markup

MARKUP = Markup(
    "five",
    ["right_eye", "left_eye", "nose", "right_mouth", "left_mouth"],
    lines={"open": [[3, 4]], "ring": [[0, 2]]},
)
# Names that a tool may trip over.
NAMES = ["a.png", "tiefer/ünter/b & c.png", "tiefer/a.png", "empty.png"]


def faces(rng: np.random.Generator, count: int) -> list[Face]:
    """Faces side by side, the points near their boxes."""
    found = []
    for i in range(count):
        left, top = 20 + 90 * i + rng.random(), 10 + rng.random()
        points = np.array([left, top]) + 60 * rng.random((5, 2))
        box = np.array([left, top, left + 70, top + 70], np.float32)
        found.append(
            Face(points.astype(np.float32), rng.random(5).astype(np.float32), box, 0.5 + i)
        )
    return found


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    root = tmp_path / "my photos"
    for name in NAMES:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        write_image(root / name, np.zeros((93, 217, 3), np.uint8))
    return root


@pytest.fixture
def images() -> list[LabelledImage]:
    rng = np.random.default_rng(0)
    counts = [1, 2, 2, 0]
    return [
        LabelledImage(PurePosixPath(name), (217, 93), faces(rng, count))
        for name, count in zip(NAMES, counts, strict=True)
    ]


def accepted(folder: Path) -> None:
    """Turn the predictions of a Label Studio file into annotations, as its export has them."""
    tasks = json.loads((folder / "labelstudio.json").read_text())
    for task in tasks:
        task["annotations"] = task.pop("predictions")
    (folder / "labelstudio.json").write_text(json.dumps(tasks))


def read_back(name: str, folder: Path, photos: Path) -> Source:
    """The source of written labels whose files were moved beside the images."""
    for file in [file for file in folder.rglob("*") if file.is_file()]:
        place = photos / file.relative_to(folder / "labelme" if name == "labelme" else folder)
        file.rename(place)
    markup = photos.parent / "five.yaml"
    markup.write_text(f"name: five\npoints: {json.dumps(MARKUP.points)}\n")
    if name == "csv":
        return LabelledCsv(str(photos), images=".", markup=str(markup))
    if name == "labelstudio":
        accepted(photos)
        (photos / "labelstudio.xml").unlink()
    kind = {"coco": Coco, "labelstudio": LabelStudio, "labelme": Labelme}[name]
    return kind(str(photos), markup=str(markup), boxes="file")


@pytest.mark.parametrize("name", FORMATS)
def test_labels_are_read_back_as_they_were_written(
    name: str, images: list[LabelledImage], photos: Path, tmp_path: Path
) -> None:
    LabelWriter(name, MARKUP).write(tmp_path / "labels", images, photos.name)
    table = read_back(name, tmp_path / "labels", photos).read()

    wanted = {
        (photos / str(image.name), tuple(face.box.round(0))): face
        for image in images
        for face in image.faces
    }
    assert len(table) == len(wanted) == 5
    for i in range(len(table)):
        face = wanted[Path(table.paths[i]), tuple(table.boxes[i].round(0))]
        np.testing.assert_allclose(table.points[i], face.points, atol=0.01)
        np.testing.assert_allclose(table.boxes[i], face.box, atol=0.01)


@pytest.mark.parametrize("name", ["coco", "labelstudio", "labelme"])
def test_a_missing_point_has_no_label(
    name: str, images: list[LabelledImage], photos: Path, tmp_path: Path
) -> None:
    images[0].faces[0].points[2] = np.nan
    LabelWriter(name, MARKUP).write(tmp_path / "labels", images, photos.name)
    table: FaceTable = read_back(name, tmp_path / "labels", photos).read()
    missing = np.isnan(table.points).all(2)
    assert missing.sum() == 1 and missing[[p == photos / NAMES[0] for p in table.paths]][0, 2]


def test_coco_has_names_skeleton_boxes_and_scores(
    images: list[LabelledImage], tmp_path: Path
) -> None:
    (file,) = LabelWriter("coco", MARKUP).write(tmp_path, images, "photos")
    data = json.loads(file.read_text())

    (category,) = data["categories"]
    assert category["keypoints"] == MARKUP.points
    assert category["skeleton"] == [[4, 5], [1, 2], [2, 3], [3, 1]]
    assert [image["file_name"] for image in data["images"]] == NAMES
    assert data["images"][0] | {"id": 0, "file_name": ""} == {
        "id": 0,
        "file_name": "",
        "width": 217,
        "height": 93,
    }
    first, face = data["annotations"][0], images[0].faces[0]
    # From the corner of the top-left pixel.
    assert first["keypoints"][:2] == pytest.approx(face.points[0] + 0.5, abs=0.001)
    assert first["bbox"] == pytest.approx([*(face.box[:2] + 0.5), 70, 70], abs=0.02)
    assert first["score"] == pytest.approx(face.confidence.mean(), abs=1e-4)
    assert len({annotation["id"] for annotation in data["annotations"]}) == 5


def test_label_studio_has_percent_scores_and_an_interface(
    images: list[LabelledImage], tmp_path: Path
) -> None:
    ckpt = tmp_path / "best.ckpt"
    ckpt.write_bytes(b"weights")
    (file,) = LabelWriter("labelstudio", MARKUP, str(ckpt)).write(tmp_path, images, "my photos")
    tasks = json.loads(file.read_text())

    address = "/data/local-files/?d=my%20photos/tiefer/%C3%BCnter/b%20%26%20c.png"
    assert tasks[1]["data"]["image"] == address
    (prediction,) = tasks[0]["predictions"]
    assert prediction["model_version"].startswith("best.ckpt ")
    box, point = prediction["result"][:2]
    face = images[0].faces[0]
    assert point["parentID"] == box["id"] and point["score"] == round(float(face.confidence[0]), 4)
    assert point["value"]["x"] == pytest.approx((face.points[0, 0] + 0.5) / 217 * 100, abs=1e-4)
    assert tasks[3]["predictions"][0]["result"] == []

    interface = ElementTree.parse(tmp_path / "labelstudio.xml").getroot()
    (points,) = interface.findall("KeyPointLabels")
    assert [label.get("value") for label in points] == MARKUP.points
    assert {point["from_name"], box["from_name"]} == {"points", "box"}


def test_labelme_leaves_out_images_without_a_face(
    images: list[LabelledImage], tmp_path: Path
) -> None:
    (folder,) = LabelWriter("labelme", MARKUP).write(tmp_path, images, "photos")
    files = sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*.json"))
    assert files == ["a.json", "tiefer/a.json", "tiefer/ünter/b & c.json"]


def test_labelme_refuses_images_that_would_share_a_file(tmp_path: Path) -> None:
    names = [PurePosixPath("x/a.jpg"), PurePosixPath("x/a.png")]
    with pytest.raises(FkpError) as raised:
        LabelWriter("labelme", MARKUP).check_images(names)
    assert raised.value.key == "labels"
    LabelWriter("coco", MARKUP).check_images(names)


@pytest.mark.parametrize("formats", ["cocoo", ["coco", "voc"], [None]])
def test_an_unknown_format_is_refused(formats: object) -> None:
    with pytest.raises(FkpError) as raised:
        LabelWriter(formats, MARKUP)  # type: ignore[arg-type]
    assert raised.value.key == "labels"


def test_csv_has_the_columns_of_data_csv(images: list[LabelledImage], tmp_path: Path) -> None:
    (file,) = LabelWriter(["csv", "csv"], MARKUP).write(tmp_path, images, "photos")
    header, *rows = file.read_text().splitlines()
    assert set(BOX) < set(header.split(",")) and len(rows) == 5


def test_labels_never_overwrite_results(photos: Path, tmp_path: Path) -> None:
    (photos / "labels").mkdir()
    write_image(photos / "labels/coco.png", np.zeros((93, 217, 3), np.uint8))
    collection = find(str(photos))
    results = ImageWriter(ResultFolder(tmp_path / "out"), MARKUP, None, None, False, None)
    named = list(zip(collection.paths, collection.names(), strict=True))
    for path, name in named:
        results.write(path, name, np.zeros((93, 217, 3), np.uint8), [])

    writer = LabelWriter(["coco", "csv"], MARKUP)
    written = writer.write_collection(results, collection, named)
    assert [file.parent.name for file in written] == ["labels_2", "labels_2"]
    assert json.loads((tmp_path / "out/labels/coco.json").read_text())["faces"] == []
    assert len(json.loads(written[0].read_text())["images"]) == 5


def test_edges_follow_the_lines_of_the_markup() -> None:
    joined = edges(IBUG68)
    assert (36, 37) in joined and (41, 36) in joined and (16, 17) not in joined
