"""Read what the tools themselves wrote (samples/README.md): each point to a tenth of a pixel."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from fkp.data.formats.auto import FORMATS, Auto, recognise
from fkp.data.formats.base import LabelFormat
from fkp.data.formats.coco import Coco
from fkp.data.formats.deeplabcut import DeepLabCut
from fkp.data.formats.label_studio import LabelStudio
from fkp.data.formats.labelme import Labelme
from fkp.data.formats.sleap import Sleap
from fkp.data.formats.yolo import Yolo
from fkp.data.labelled_csv import LabelledCsv
from fkp.data.table import FaceTable
from fkp.errors import FkpError

SAMPLES = Path(__file__).parent / "samples"
TRUTH = json.loads((SAMPLES / "truth.json").read_text())
NAMES = list(TRUTH[0]["points"])
PAIRS = {frozenset(pair) for pair in (("eye_right", "eye_left"), ("mouth_right", "mouth_left"))}

# Sample -> its format, how many faces of an image it holds, and the tolerance in pixels.
CASES = {
    "coco_datumaro.json": ("coco", 2, 0.1),
    "coco_labelstudio.json": ("coco", 1, 0.51),  # its converter rounds to whole pixels
    "labelstudio.json": ("labelstudio", 2, 0.1),
    "labelstudio_min.json": ("labelstudio", 1, 0.1),
    "labelme": ("labelme", 2, 0.1),
    "yolo": ("yolo", 2, 0.1),
    "deeplabcut": ("deeplabcut", 1, 0.1),
    "deeplabcut_many": ("deeplabcut", 2, 0.1),
    "sleap.slp": ("sleap", 2, 0.1),
    "sleap.pkg.slp": ("sleap", 2, 0.1),
}
ALL = pytest.mark.parametrize("sample", CASES)
KINDS = {
    "coco": Coco,
    "labelstudio": LabelStudio,
    "labelme": Labelme,
    "yolo": Yolo,
    "deeplabcut": DeepLabCut,
    "sleap": Sleap,
}


def folder_of(sample: str, root: Path) -> Path:
    """A user's folder: the labels of a sample, and the images where the tool has them."""
    if "sleap" in sample:
        pytest.importorskip("sleap_io")
    if (SAMPLES / sample).is_dir():
        shutil.copytree(SAMPLES / sample, root / ("labels" if sample == "labelme" else ""))
    else:
        root.mkdir()
        shutil.copy(SAMPLES / sample, root)

    if sample == "yolo":
        # sleap-io numbers the images that it writes.
        (root / "train").mkdir()
        (root / "labels").rename(root / "train" / "labels")
        (root / "train" / "images").mkdir()
        for k, image in enumerate(sorted((SAMPLES / "images").iterdir())):
            shutil.copy(image, root / "train" / "images" / f"{k:07d}.jpg")
    elif "deeplabcut" in sample:
        shutil.copytree(SAMPLES / "images", root / "labeled-data" / "video")
        for file in root.glob("CollectedData*"):
            file.rename(root / "labeled-data" / "video" / file.name)
    elif sample != "sleap.pkg.slp":
        shutil.copytree(SAMPLES / "images", root / "images")
    return root


def source_of(sample: str, root: Path, **given: str) -> LabelFormat:
    kind = KINDS[CASES[sample][0]]
    source = kind(str(folder_of(sample, root)), **given)
    assert isinstance(source, LabelFormat)
    return source


def expected(sample: str) -> list[dict]:
    return [face for face in TRUTH if face["face"] < CASES[sample][1]]


def true_points(faces: list[dict], names: list[str]) -> np.ndarray:
    places = [[face["points"][name] for name in names] for face in faces]
    return np.array([[[np.nan if v is None else v for v in p] for p in f] for f in places], float)


def check(table: FaceTable, names: list[str], sample: str) -> None:
    faces = expected(sample)
    assert len(table) == len(faces)
    truth = true_points(faces, names)
    assert (np.isnan(table.points) == np.isnan(truth)).all()
    assert np.nanmax(np.abs(table.points - truth)) <= CASES[sample][2]


@ALL
def test_points_are_read_to_a_tenth_of_a_pixel(sample: str, tmp_path: Path) -> None:
    source = source_of(sample, tmp_path / "set")
    table = source.read()
    assert sorted(source.markup.points) == sorted(NAMES)
    check(table, source.markup.points, sample)


@ALL
def test_faces_lie_in_their_own_images(sample: str, tmp_path: Path) -> None:
    table = source_of(sample, tmp_path / "set").read()
    names = [face["image"] for face in expected(sample)]
    if sample == "yolo":
        numbers = sorted(set(names))
        names = [f"{numbers.index(name):07d}.jpg" for name in names]
    ending = ".png" if sample == "sleap.pkg.slp" else ".jpg"
    assert [path.stem + ending for path in table.paths] == [Path(n).stem + ending for n in names]
    assert all(path.is_file() for path in table.paths)


@ALL
def test_people_come_from_names_of_images(sample: str, tmp_path: Path) -> None:
    if sample == "yolo":
        pytest.skip("sleap-io numbers the images that it writes")
    people = source_of(sample, tmp_path / "set").read().identity.tolist()
    assert [name.rpartition("/")[2] for name in people] == [
        face["image"].rpartition("_")[0] for face in expected(sample)
    ]


@ALL
def test_the_markup_comes_from_the_file(sample: str, tmp_path: Path) -> None:
    source = source_of(sample, tmp_path / "set")
    markup = source.markup  # before any face is read
    flips = markup.flip_indices
    pairs = {frozenset((markup.points[i], markup.points[k])) for i, k in enumerate(flips) if i != k}
    assert pairs == PAIRS
    if sample in ("coco_datumaro.json", "sleap.slp", "yolo"):
        # Edges between consecutive points: 1-2, and 3-4-5.
        assert markup.lines == {"open": [[1, 2], [3, 5]]}


@ALL
def test_a_markup_chooses_and_orders_the_points(sample: str, tmp_path: Path) -> None:
    chosen = ["chin", "eye_left", "eye_right"]
    (tmp_path / "mine.yaml").write_text(f"name: mine\npoints: [{', '.join(chosen)}]\n")
    source = source_of(sample, tmp_path / "set", markup=str(tmp_path / "mine.yaml"))
    assert source.markup.points == chosen
    check(source.read(), chosen, sample)


@ALL
def test_auto_recognises_the_format(sample: str, tmp_path: Path) -> None:
    root = folder_of(sample, tmp_path / "set")
    assert recognise(root)[0] == CASES[sample][0]
    source = Auto(str(root))
    check(source.read(), source.markup.points, sample)


@ALL
def test_a_missing_image_is_a_bad_row(sample: str, tmp_path: Path) -> None:
    if sample == "sleap.pkg.slp":
        pytest.skip("its images lie in the file")
    source = source_of(sample, tmp_path / "set")
    image = "0000000.jpg" if sample == "yolo" else "ann_1.jpg"
    next((tmp_path / "set").rglob(image)).unlink()
    table, faults = source.survey()
    # A YOLO label without an image is in no split.
    assert len(faults) == (0 if sample == "yolo" else 1)
    assert len(table) == len(expected(sample)) - 1


@pytest.mark.parametrize("sample", ["coco_datumaro.json", "labelstudio.json", "labelme", "yolo"])
def test_boxes_of_the_file_are_taken_only_when_asked(sample: str, tmp_path: Path) -> None:
    assert np.isnan(source_of(sample, tmp_path / "a").read().boxes).all()
    source = source_of(sample, tmp_path / "b", boxes="file")
    table = source.read()
    points = table.points
    around = np.concatenate([np.nanmin(points, 1), np.nanmax(points, 1)], 1)
    boxed = np.isfinite(table.boxes).all(1)
    # labelme's sample has a rectangle around the first face of each image only.
    assert boxed.tolist() == [sample != "labelme" or face["face"] == 0 for face in expected(sample)]
    if sample != "yolo":  # sleap-io adds a margin
        assert np.abs(table.boxes - around)[boxed].max() < 0.1


def test_h5_of_deeplabcut_equals_its_csv(tmp_path: Path) -> None:
    pytest.importorskip("h5py")
    root = folder_of("deeplabcut", tmp_path / "set")
    csv, h5 = (
        DeepLabCut(str(root), file=f"labeled-data/video/CollectedData_ann.{ending}")
        for ending in ("csv", "h5")
    )
    assert csv.markup == h5.markup
    assert np.array_equal(csv.read().points, h5.read().points, equal_nan=True)


def test_auto_reads_tables_and_pts(tmp_path: Path, faces_folder: Path) -> None:
    assert recognise(faces_folder)[0] == "youtube_faces"
    (tmp_path / "points").mkdir()
    shutil.copytree(SAMPLES / "images", tmp_path / "points" / "images")
    header = ",".join(["image", "a_x", "a_y", "b_x", "b_y"])
    (tmp_path / "points" / "mine.csv").write_text(f"{header}\nann_1.jpg,1,2,3,4\n")
    source = Auto(str(tmp_path / "points"))
    assert isinstance(source.source, LabelledCsv)
    assert source.markup.points == ["a", "b"]
    assert source.read().points[0].tolist() == [[1, 2], [3, 4]]

    shutil.copytree(SAMPLES / "images", tmp_path / "pts")
    (tmp_path / "pts" / "ann_1.pts").write_text("version: 1\nn_points: 1\n{\n1 1\n}\n")
    assert recognise(tmp_path / "pts")[0] == "pts"


def test_auto_lists_what_it_found(tmp_path: Path) -> None:
    with pytest.raises(FkpError) as error:
        recognise(tmp_path)
    assert error.value.key == "data.root"
    assert all(name in (error.value.hint or "") for name in FORMATS)

    shutil.copy(SAMPLES / "coco_datumaro.json", tmp_path)
    shutil.copy(SAMPLES / "labelstudio.json", tmp_path)
    with pytest.raises(FkpError) as error:
        Auto(str(tmp_path)).read()
    assert error.value.key == "data"
    for choice in ("data=coco data.file=coco_datumaro.json", "data=labelstudio data.file="):
        assert choice in (error.value.hint or "")


@pytest.mark.real
def test_mesh12_as_coco_equals_its_csv(shared: Path) -> None:
    # Its coordinates count from the centre of the top-left pixel, as those of the CSV do.
    root = shared / "data" / "pseudo" / "lfw"
    coco = Coco(str(root), "mesh12_coco.json").read()
    table = LabelledCsv(str(root), "mesh12_train.csv", markup=str(root / "mesh12.yaml")).read()
    first = table.select(slice(0, 200))
    assert coco.paths.tolist() == first.paths.tolist()
    assert coco.identity.tolist() == [str(p.name).rpartition("_")[0] for p in first.paths]
    assert np.abs(coco.points - first.points).max() < 0.1
