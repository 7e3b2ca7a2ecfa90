"""Data sets of publishers: files in the layout that each module of fkp/data/formats names.

The image of each face has a white pixel at each point, so that the rule of the coordinates and the
axes of stored images are tested on pixels.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.io import savemat

from fkp import painter
from fkp.data.formats.auto import Auto, recognise
from fkp.data.formats.bioid import BioId
from fkp.data.formats.cofw import Cofw
from fkp.data.formats.ddfa import Aflw2000, ThreeHundredWLp
from fkp.data.formats.lapa import JdLandmark, Lapa
from fkp.data.formats.published import Published, read_points
from fkp.data.formats.wflw import ATTRIBUTES, Wflw
from fkp.errors import FkpError
from fkp.files.images import read_image

FACES = 4
Rng = np.random.Generator


def paint(rng: Rng, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Paint a face, with `count` points at whole pixels near its 68 points, each marked white."""
    image, points = painter.paint(3, int(rng.integers(2)))
    image = np.minimum(image[:-9], 250)  # not square
    height, width = image.shape[:2]
    points = points[rng.integers(0, 68, count)] + rng.uniform(-9, 9, (count, 2))
    points = np.clip(points.round(), 0, [width - 1, height - 1])
    x, y = points.astype(int).T
    image[y, x] = 255
    return image, points


def save(file: Path, image: np.ndarray) -> None:
    """Write an image without loss, under any name: a JPEG would blur the white pixels."""
    file.parent.mkdir(parents=True, exist_ok=True)
    kind = ".pgm" if file.suffix == ".pgm" else ".png"
    pixels = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) if kind == ".pgm" else image[..., ::-1]
    file.write_bytes(cv2.imencode(kind, pixels)[1].tobytes())


def write_text(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def lines(points: np.ndarray) -> str:
    return "".join(f"{x:.6f} {y:.6f}\n" for x, y in points)


def write_wflw(root: Path, rng: Rng) -> dict[str, np.ndarray]:
    """As its README: x0 y0 … x97 y97, box, six attributes, image; all in one line."""
    written = {}
    for split in ("train", "test"):
        rows = []
        for i in range(FACES // 2):
            name = f"37--Soccer/37_Soccer_{split}_37_{i}.jpg"
            image, points = paint(rng, 98)
            save(root / "WFLW_images" / name, image)
            written[name] = points
            numbers = " ".join(f"{value:.6f}" for value in points.ravel())
            box = [*points.min(0).astype(int), *points.max(0).astype(int)]
            attributes = [int(i == 1)] + [0] * 5  # the second is a large pose
            rows.append(f"{numbers} {' '.join(map(str, [*box, *attributes]))} {name}\n")
        folder = root / "WFLW_annotations/list_98pt_rect_attr_train_test"
        write_text(folder / f"list_98pt_rect_attr_{split}.txt", "".join(rows))
    return written


def write_300w_lp(root: Path, rng: Rng) -> dict[str, np.ndarray]:
    """As `landmarks/AFW/NAME_pts.mat` has it: pts_2d (68, 2), pts_3d (68, 2); MATLAB's pixels."""
    written = {}
    for name in ("AFW/AFW_134212_1_0", "AFW/AFW_134212_1_7", "LFPW/LFPW_image_train_0003_0"):
        image, points = paint(rng, 68)
        save(root / f"{name}.jpg", image)
        (root / "landmarks" / name).parent.mkdir(parents=True, exist_ok=True)
        arrays = {"pts_2d": points + 1, "pts_3d": points + 5}
        savemat(root / f"landmarks/{name}_pts.mat", arrays, do_compression=True)
        savemat(root / f"{name}.mat", {"pt2d": points.T + 3, "Pose_Para": np.zeros((1, 7))})
        written[f"{name}.jpg"] = points
    return written


def write_aflw2000(root: Path, rng: Rng) -> dict[str, np.ndarray]:
    """As `image00002.mat` has it: pt3d_68 (3, 68), MATLAB's pixels, beside image00002.jpg."""
    written = {}
    for i in range(FACES):
        image, points = paint(rng, 68)
        name = f"image{i + 2:05d}"
        save(root / f"{name}.jpg", image)
        depth = np.concatenate([points.T + 1, np.ones((1, 68))])
        savemat(root / f"{name}.mat", {"pt3d_68": depth, "pt2d": np.full((2, 21), -1.0)})
        written[f"{name}.jpg"] = points
    return written


def write_cofw(root: Path, rng: Rng) -> dict[str, np.ndarray]:
    """As MATLAB 7.3 writes IsTr {N, 1}, phisTr (N, 87), bboxesTr (N, 4): axes in reverse order."""
    written = {}
    for split, end, count in (("train", "Tr", 3), ("test", "T", 2)):
        with h5py.File(root / f"COFW_{split}_color.mat", "w", userblock_size=512) as file:
            references, labels, boxes = [], [], []
            for i in range(count):
                image, points = paint(rng, 29)
                stored = image[..., 0] if i == 0 else image  # some are gray
                references.append(file.create_dataset(f"#refs#/{i}", data=stored.T).ref)
                hidden = np.arange(29) == i
                labels.append(np.concatenate([*(points.T + 1), hidden]))
                boxes.append([*(points.min(0) + 1), *np.ptp(points, axis=0)])
                written[f"{split}:{i}"] = points
            cells = np.array(references, h5py.ref_dtype)[None]
            file.create_dataset(f"Is{end}", data=cells, dtype=h5py.ref_dtype)
            file[f"phis{end}"] = np.array(labels).T
            file[f"bboxes{end}"] = np.array(boxes).T
    return written


def write_lapa(root: Path, rng: Rng) -> dict[str, np.ndarray]:
    """As published: the number of points, then `x y` of each, pixels from 0."""
    written = {}
    for split in ("train", "val", "test"):
        image, points = paint(rng, 106)
        name = f"{split}/images/757765{len(split)}_0.jpg"
        save(root / name, image)
        text = root / name.replace("images", "landmarks").replace(".jpg", ".txt")
        write_text(text, "106\n" + lines(points))
        written[name] = points
    return written


def write_jd(root: Path, rng: Rng) -> dict[str, np.ndarray]:
    """As published: AFW/picture/N.jpg, AFW/landmark/N.jpg.txt, Corrected_landmark/N.jpg.txt."""
    written = {}
    for part, face in (("AFW", "AFW_134212_1_0"), ("IBUG", "IBUG_image_003_1_0")):
        image, points = paint(rng, 106)
        name = f"Training_data/{part}/picture/{face}.jpg"
        save(root / name, image)
        write_text(
            root / f"Training_data/{part}/landmark/{face}.jpg.txt", "106\n" + lines(points + 9)
        )
        write_text(
            root / f"Training_data/Corrected_landmark/{face}.jpg.txt", "106\n" + lines(points)
        )
        written[name] = points
    image, points = paint(rng, 106)
    save(root / "Test_data/picture/1.jpg", image)
    write_text(root / "Test_data/landmark/1.jpg.txt", "106\n" + lines(points))
    return written | {"Test_data/picture/1.jpg": points}


def write_bioid(root: Path, rng: Rng) -> dict[str, np.ndarray]:
    """As FGnet's markup: points_20/bioid_0000.pts, pixels from 0, beside BioID_0000.pgm."""
    written = {}
    for i in (0, 1, 100):
        image, points = paint(rng, 20)
        name = f"BioID-FaceDatabase-V1.2/BioID_{i:04d}.pgm"
        save(root / name, image)
        header = "version: 1\nn_points: 20\n{\n"
        write_text(root / f"points_20/bioid_{i:04d}.pts", f"{header}{lines(points)}}}\n")
        written[name] = points
    return written


@dataclass
class Case:
    """A data set: its reader, its writer, and its label files with the share that is one face."""

    read: Callable[..., Published]
    write: Callable[[Path, Rng], dict[str, np.ndarray]]
    labels: str
    one_each: bool = True


CASES = {
    "wflw": Case(Wflw, write_wflw, "WFLW_annotations/*/*.txt", one_each=False),
    "300w_lp": Case(ThreeHundredWLp, write_300w_lp, "landmarks/*/*.mat"),
    "aflw2000": Case(Aflw2000, write_aflw2000, "*.mat"),
    "cofw": Case(Cofw, write_cofw, "*.mat", one_each=False),
    "lapa": Case(Lapa, write_lapa, "*/landmarks/*.txt"),
    "jd": Case(JdLandmark, write_jd, "Training_data/Corrected_landmark/*.txt"),
    "bioid": Case(BioId, write_bioid, "points_20/*.pts"),
}
names = pytest.mark.parametrize("name", CASES)


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, dict[str, np.ndarray]]]:
    """Write each data set once."""
    found = {}
    for name, case in CASES.items():
        root = tmp_path_factory.mktemp(name)
        found[name] = root, case.write(root, np.random.default_rng(len(name)))
    return found


@names
def test_points_lie_on_the_pixels_where_the_publisher_put_them(name: str, sets: dict) -> None:
    root, written = sets[name]
    source = CASES[name].read(str(root))
    table, faults = source.survey()
    assert not faults and len(table) == len(written)

    known = list(written.values())
    if name != "cofw":  # whose images have no names
        known = [
            written[path.relative_to(root).as_posix().removeprefix("WFLW_images/")]
            for path in table.paths
        ]
    assert np.abs(table.points - np.stack(known)).max() <= 0.1
    assert table.points.shape[1] == len(source.markup.points)

    for path, points in zip(table.paths, table.points, strict=True):
        image = read_image(path, gray=True)
        x, y = points.round().astype(int).T
        assert (image[y, x] >= 255).all() and image.min() < 200


@names
def test_a_folder_is_recognised_as_its_own_data_set_only(name: str, sets: dict) -> None:
    root, written = sets[name]
    assert recognise(root)[0] == name
    assert [other for other, case in CASES.items() if case.read.recognise(root)] == [name]
    assert len(Auto(str(root)).survey()[0]) == len(written)


@names
def test_a_missing_image_is_the_fault_of_its_row(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    case.write(tmp_path, np.random.default_rng(0))
    table, _ = case.read(str(tmp_path)).survey()
    row, path = table.rows[0], Path(table.paths[0])
    path.unlink()
    table, faults = case.read(str(tmp_path), on_bad="skip").survey()
    assert [fault.row for fault in faults] == [row] and row not in list(table.rows)


@names
@pytest.mark.parametrize("kind", ["empty", "foreign", "cut", "noise"])
def test_a_damaged_file_is_an_error_that_names_it(name: str, kind: str, tmp_path: Path) -> None:
    case = CASES[name]
    case.write(tmp_path, np.random.default_rng(0))
    files = sorted(tmp_path.glob(case.labels))
    file, data = files[0], files[0].read_bytes()
    noise = np.random.default_rng(1).integers(0, 256, len(data), np.uint8).tobytes()
    damaged = {"empty": b"", "foreign": b"a b c\n" * 300, "cut": data[: len(data) // 2]}
    file.write_bytes(damaged.get(kind, noise))

    with pytest.raises(FkpError) as error:
        case.read(str(tmp_path)).read()
    assert file.name in str(error.value)
    if case.one_each:
        table, faults = case.read(str(tmp_path), on_bad="skip").survey()
        assert len(faults) == 1 and file.name in faults[0].row and len(table)


@names
def test_a_folder_without_the_data_set_is_an_error(name: str, tmp_path: Path) -> None:
    for root in (tmp_path, tmp_path / "none"):
        with pytest.raises(FkpError) as error:
            CASES[name].read(str(root)).survey()
        assert error.value.key == "data.root" and str(root) in str(error.value)


@pytest.mark.parametrize("name", ["wflw", "cofw", "lapa", "jd"])
def test_official_splits_are_the_publishers(name: str, sets: dict) -> None:
    root, _ = sets[name]
    table, _ = CASES[name].read(str(root), protocol="official").survey()
    test = {"wflw": 2, "cofw": 2, "lapa": 1, "jd": 1}[name]
    assert (table.official == "test").sum() == test
    assert all("test" in row.lower() for row in table.select(table.official == "test").rows)


def test_an_official_protocol_needs_test_faces(tmp_path: Path) -> None:
    write_wflw(tmp_path, np.random.default_rng(0))
    next(tmp_path.glob("*/*/*_test.txt")).unlink()
    with pytest.raises(FkpError) as error:
        Wflw(str(tmp_path)).survey()
    assert error.value.key == "data.protocol"
    assert len(Wflw(str(tmp_path), protocol="identity").survey()[0]) == FACES // 2


def test_a_subset_of_wflw_has_the_test_faces_with_its_attribute(sets: dict) -> None:
    root, _ = sets["wflw"]
    found = {kind: Wflw(str(root), subset=kind).survey()[0] for kind in ATTRIBUTES[:1]}["pose"]
    assert found.official.tolist() == ["train", "train", "test"]
    with pytest.raises(FkpError) as error:
        Wflw(str(root), subset="blur").survey()  # no test face is blurred
    assert error.value.key == "data.protocol"


def test_a_truncated_line_of_wflw_is_the_fault_of_its_row(tmp_path: Path) -> None:
    write_wflw(tmp_path, np.random.default_rng(0))
    file = next(tmp_path.glob("*/*/*_train.txt"))
    file.write_text(file.read_text()[:-100])
    table, faults = Wflw(str(tmp_path), on_bad="skip").survey()
    assert [fault.row for fault in faults] == [f"{file.name}:2"] and len(table) == FACES - 1


def test_boxes_are_read_on_request(sets: dict) -> None:
    for name in ("wflw", "cofw"):
        root, _ = sets[name]
        table = CASES[name].read(str(root), boxes="file").read()
        low, high = table.points.min(1), table.points.max(1)
        np.testing.assert_allclose(table.boxes, np.concatenate([low, high], 1), atol=0.1)
        assert np.isnan(CASES[name].read(str(root)).read().boxes).all()


def test_occluded_points_of_cofw_can_be_left_out(sets: dict) -> None:
    root, _ = sets["cofw"]
    table = Cofw(str(root), occluded="leave_out").read()
    hidden = np.isnan(table.points).all(2)
    assert np.argwhere(hidden).tolist() == [[0, 0], [1, 1], [2, 2], [3, 0], [4, 1]]


@pytest.mark.parametrize(("labels", "moved"), [("pts_2d", 0), ("pts_3d", 4), ("pt2d", 2)])
def test_labels_of_300w_lp_are_chosen(labels: str, moved: int, sets: dict) -> None:
    root, written = sets["300w_lp"]
    table = ThreeHundredWLp(str(root), labels=labels).read()
    known = np.stack([written[path.relative_to(root).as_posix()] for path in table.paths])
    np.testing.assert_allclose(table.points, known + moved, atol=1e-6)


def test_poses_and_copies_of_a_photo_stay_together(sets: dict) -> None:
    people = {name: set(CASES[name].read(str(sets[name][0])).read().identity) for name in CASES}
    assert people["300w_lp"] == {"AFW_134212", "LFPW_image_train_0003"}
    assert people["jd"] == {"AFW_134212", "IBUG_image_003", "1"}
    assert people["bioid"] == {"00", "01"}
    assert people["lapa"] == {"7577655", "7577653", "7577654"}

    # LFPW has this photo under two names.
    source = ThreeHundredWLp("any")
    faces = [
        source.face(Path("any/x.mat"), np.zeros((68, 2)), Path(f"any/{name}.jpg"))
        for name in ("LFPW_Flip/LFPW_image_train_0052_3", "LFPW/LFPW_image_train_0003_0")
    ]
    assert {face.person for face in faces} == {"LFPW_image_train_0003"}


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(*[st.floats(-1e5, 1e5)] * 2), min_size=1, max_size=9))
def test_reading_a_text_returns_what_was_written(points: list[tuple[float, float]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "face.txt"
        write_text(file, f"{len(points)}\r\n" + lines(np.array(points)).replace("\n", "\r\n"))
        np.testing.assert_allclose(read_points(file, len(points)), points, atol=1e-6)
