"""Test measured frames: for any markup, the detector's boxes serve as well as the labels' boxes."""

import json
import logging
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml

from fkp import Predictor, painter
from fkp.data.datamodule import FacesDataModule
from fkp.data.framing import boxed, measured
from fkp.data.image_cache import face_boxes
from fkp.data.shapes import check_flip, mean_shape, proposal
from fkp.data.table import FaceTable, Fault, Source
from fkp.detectors import Detector, HaarCascade
from fkp.errors import FkpError
from fkp.files.images import write_image
from fkp.geometry import apply, centre_and_side, face_box, reframed, rolled_box, rotation, strayed
from fkp.inference.evaluation import baseline, evaluate
from fkp.markup import IBUG68, Markup, load_markup
from fkp.metrics import nme
from fkp.recipe import Recipe
from fkp.runs.results import say_if_untrained
from fkp.transforms import Crops, FaceCrop, RandomCrop, RandomFlip, Rescale, run

TRAIN, TEST = 30, 16


def upsampled(points: np.ndarray) -> np.ndarray:
    """Interpolate 98 points, as many as WFLW has, along the 68: (F, 98, 2)."""
    places = np.linspace(0, 67, 98)
    low, share = np.floor(places).astype(int), (places % 1)[None, :, None]
    return points[:, low] * (1 - share) + points[:, np.minimum(low + 1, 67)] * share


def mean_of(points: np.ndarray, *spans: slice) -> np.ndarray:
    return np.stack([points[:, span].mean(1) for span in spans], 1)


EYES = (slice(36, 42), slice(42, 48))
# How the points of a markup are made from the 68, and its normalising pair, if it names one.
KINDS: dict[str, tuple[Any, list[int]]] = {
    "one point": (lambda p: p[:, 30:31], []),
    "two points": (lambda p: mean_of(p, *EYES), [0, 1]),
    "two points without a pair": (lambda p: mean_of(p, *EYES), []),
    "two points, one above the other": (lambda p: p[:, [27, 8]], [0, 1]),
    "nostrils, near each other": (lambda p: p[:, [32, 34]], [0, 1]),
    "four points on one line": (
        lambda p: np.stack([p[:, 36] + (p[:, 45] - p[:, 36]) * s for s in (0, 0.3, 0.7, 1)], 1),
        [],
    ),
    "face5": (lambda p: np.concatenate([mean_of(p, *EYES), p[:, [30, 48, 54]]], 1), [0, 1]),
    "eyes only": (lambda p: p[:, 36:48], [0, 9]),
    "forehead": (lambda p: p[:, 17:28], [0, 9]),
    "mouth only": (lambda p: p[:, 48:68], [0, 6]),
    "profile": (
        lambda p: p[:, [*range(9), *range(17, 22), *range(27, 32), *range(36, 42)]],
        [14, 8],
    ),
    "98 points": (upsampled, []),
}


def markup_of(kind: str, **more: Any) -> Markup:
    count, pair = KINDS[kind][0](np.zeros((1, 68, 2))).shape[1], KINDS[kind][1]
    return Markup(
        kind, [f"p{i}" for i in range(count)], [f"p{i}" for i in pair], mirror=False, **more
    )


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> FaceTable:
    """Drawn faces with 68 points, the first of them for training; no two images have one size."""
    folder, points, paths = tmp_path_factory.mktemp("framing"), [], []
    for i in range(TRAIN + TEST):
        image, label = painter.paint(5, i)
        sized = np.pad(image, ((0, 0), (0, 400 + i - image.shape[1]), (0, 0)))
        paths.append(write_image(folder / f"{i}.png", sized))
        points.append(label)
    names = [f"{i}" for i in range(len(paths))]
    return FaceTable(paths, np.stack(points), names, names, ["train"] * TRAIN + ["test"] * TEST)


@pytest.fixture(scope="module")
def detector() -> Detector:
    return CachedDetector()


@pytest.fixture(autouse=True)
def _detects_once(detector: Detector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fkp.data.framing.HaarCascade", lambda: detector)


class CachedDetector:
    """The default detector, which searches each image once."""

    def __init__(self) -> None:
        self.detector, self.found = HaarCascade(), {}

    def __call__(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        width = image.shape[1]
        if width not in self.found:
            self.found[width] = self.detector(image)
        return self.found[width]


class Set(Source):
    """A table with an official test split."""

    protocol = "official"

    def __init__(self, faces: FaceTable, markup: Markup):
        self.faces, self.markup = faces, markup

    def survey(self) -> tuple[FaceTable, list[Fault]]:
        return self.faces, []


class Recorder:
    """A transform that records the crops for the oracle."""

    draws = 0

    def __init__(self) -> None:
        self.crops: list[Crops] = []

    def __call__(self, crops: Crops, draws: np.ndarray | None = None) -> Crops:
        self.crops.append(crops)
        return crops


class Oracle:
    """Imitate a trained network.

    It predicts each label, moved a sixth of the way to the mean label of training crops, with noise
    of 1 % of the crop.
    """

    recipe = Recipe({}, {}, {}, IBUG68)

    def __init__(self, faces: FaceTable, recorder: Recorder, mean: np.ndarray):
        self.labels = {400 + i: points for i, points in enumerate(faces.points)}
        self.recorder, self.mean, self.random = recorder, mean, np.random.default_rng(0)

    def __call__(self, crops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        seen = [
            (int(w), to_crop)
            for c in self.recorder.crops
            for (w, _), to_crop in zip(c.extents, c.to_crop, strict=True)
        ]
        self.recorder.crops.clear()
        assert len(seen) == len(crops)
        points = np.stack([apply(to_crop, self.labels[width]) for width, to_crop in seen])
        points += (self.mean - points) / 6 + self.random.normal(
            0, 0.01 * crops.shape[2], points.shape
        )
        return points.astype(np.float32), np.ones(points.shape[:2], np.float32)


def steps() -> list[Any]:
    return [FaceCrop(1.36, 0.14), Rescale(50), RandomCrop(45)]


def trained(faces: FaceTable, markup: Markup, detector: Detector) -> Predictor:
    """Return a predictor with an oracle, trained on the first faces in the markup's frame."""
    train, recorder = boxed(faces.select(slice(TRAIN)), markup), Recorder()
    crops = run(steps(), Crops(face_boxes(train, markup), np.full((TRAIN, 2), 400), train.points))
    oracle = Oracle(faces, recorder, crops.crop_points().mean(0))
    return Predictor(oracle, [*steps(), recorder], markup, detector=detector)


def own(faces: FaceTable, kind: str) -> FaceTable:
    """Return the same faces with the points of a markup."""
    table = faces.select(slice(None))
    table.points = KINDS[kind][0](faces.points)
    return table


@pytest.mark.parametrize("kind", KINDS)
def test_detected_boxes_are_as_good_as_label_boxes(
    kind: str, faces: FaceTable, detector: Detector
) -> None:
    table = own(faces, kind)
    markup = measured(table.select(slice(TRAIN)), markup_of(kind))
    assert (
        Markup(**json.loads(json.dumps(markup.as_dict()))) == markup and markup.frame is not None
    )  # as in a file
    predictor = trained(table, markup, detector)
    # The markup of the data set has no frame: the one of the checkpoint is used.
    rows, count = evaluate(predictor, Set(table, markup_of(kind)), "test")
    nme = {name: row["nme"] for name, row in rows.items()}
    assert count == TEST and rows["detector"]["missed"] <= 1, rows["detector"]
    assert (
        nme["detector"] < 1.5 * nme["label_box"] and nme["label_box"] < 1.5 * nme["as_trained"]
    ), nme
    assert nme["detector"] < nme["mean_shape"] or kind == "one point", nme


def test_points_of_the_data_may_have_another_order(faces: FaceTable, detector: Detector) -> None:
    table = own(faces, "face5")
    markup = measured(table.select(slice(TRAIN)), markup_of("face5"))
    predictor = trained(table, markup, detector)
    rows, _ = evaluate(predictor, Set(table, markup_of("face5")), "test")

    turned = table.select(slice(None))
    turned.points = turned.points[:, ::-1]
    predictor = trained(table, markup, detector)
    same, _ = evaluate(predictor, Set(turned, Markup("turned", markup.points[::-1])), "test")
    assert same["label_box"]["nme"] == pytest.approx(rows["label_box"]["nme"])

    with pytest.raises(FkpError):
        evaluate(predictor, Set(turned, Markup("other", [*markup.points[:-1], "tail"])), "test")


def test_frame_has_no_median_error_for_boxes_of_any_convention(faces: FaceTable) -> None:
    for kind in ("face5", "four points on one line", "forehead", "98 points"):
        table = own(faces, kind).select(slice(TRAIN))
        wanted = np.array([face_box(points) for points in faces.points[:TRAIN]]) * 1.0
        x, y, side = centre_and_side(wanted)
        table.boxes = np.stack(
            [x - side, y - 0.9 * side, x + side, y + 1.1 * side], 1
        )  # twice as large, and lower in the image
        markup = measured(table, markup_of(kind))
        table.boxes = table.boxes * np.nan
        found_x, found_y, found = centre_and_side(face_boxes(table, markup))
        assert np.median(found / (2 * side)) == pytest.approx(1, abs=0.01), kind
        assert np.median((found_x - x) / side) == pytest.approx(0, abs=0.02), kind
        assert np.median((found_y - y) / side) == pytest.approx(0.1, abs=0.02), kind


def test_declared_boxes_are_kept(faces: FaceTable) -> None:
    assert measured(faces, IBUG68) is IBUG68
    face5 = load_markup("face5")
    assert measured(own(faces, "face5"), face5) is face5


@pytest.mark.parametrize(
    "pair", [["nose", "mouth_left"], ["eye_left", "eye_right"], ["mouth_right", "eye_right"]]
)
def test_pair_that_is_not_level_does_not_rotate_the_crop(pair: list[str], faces: FaceTable) -> None:
    table = own(faces, "face5")
    markup = measured(table, replace(load_markup("face5"), pair=pair))
    for points in table.points:
        box, roll = rolled_box(points, markup)
        declared, level = rolled_box(points, load_markup("face5"))
        assert abs(roll - level) < 15
        np.testing.assert_allclose(centre_and_side(box)[2], centre_and_side(declared)[2], rtol=0.25)


def test_frames_rotate_and_scale_with_the_points(faces: FaceTable) -> None:
    table = own(faces, "face5")
    markup = measured(table, markup_of("face5"))
    points = table.points[0]
    box, roll = rolled_box(points, markup)
    larger, rolled = rolled_box(2 * apply(rotation(30, (50, 60)), points), markup)
    assert rolled - roll == pytest.approx(30) and np.ptp(larger) == pytest.approx(
        2 * np.ptp(box), rel=1
    )
    x, y, side = centre_and_side(larger)
    middle = 2 * apply(rotation(30, (50, 60)), np.array(centre_and_side(box)[:2]))
    np.testing.assert_allclose([x, y, side], [*middle, 2 * centre_and_side(box)[2]], rtol=1e-4)


def test_size_and_roll_that_points_do_not_determine_are_kept(faces: FaceTable) -> None:
    boxes, rolls = np.array([[10.0, 20, 110, 120]]), np.array([12.0])
    one = measured(own(faces, "one point"), markup_of("one point"))
    (box,), (roll,) = reframed(np.array([[[300.0, 200]]]), boxes, rolls, one)
    assert roll == 12 and centre_and_side(box)[2] == pytest.approx(100)
    # A head that turns moves its nose in the detector's box: the box follows the nose a little.
    assert 10 < box[0] < 150
    two = measured(own(faces, "nostrils, near each other"), markup_of("nostrils, near each other"))
    (box,), (roll,) = reframed(np.array([[[60.0, 90], [60, 90.5]]]), boxes, 0 * rolls, two)
    assert 0.4 * 100 < centre_and_side(box)[2] < 110 and abs(roll) < 25


def test_strayed_boxes_are_recognised() -> None:
    given = np.array([[0.0, 0, 100, 100]] * 6)
    boxes = np.array(
        [
            [5, 5, 95, 95],
            [30, 30, 60, 60],
            [45, 45, 50, 50],
            [-300, -300, 300, 300],
            [101, 0, 201, 100],
            [np.nan] * 4,
        ]
    )
    assert strayed(boxes, given).tolist() == [False, False, True, True, True, True]


@pytest.mark.parametrize("refine_steps", [2, 4])
@pytest.mark.parametrize("frame_kind", ["declared", "measured"])
@pytest.mark.parametrize("seen", ["one spot", "far away"])
def test_refinement_step_that_strays_is_not_taken(
    seen: str, frame_kind: str, refine_steps: int, faces: FaceTable, detector: Detector
) -> None:
    table = own(faces, "face5")
    markup = measured(
        table, load_markup("face5") if frame_kind == "declared" else markup_of("face5")
    )
    predictor = trained(table, markup, detector)
    predictor.refine_steps, calls = refine_steps, 0
    label, box = table.points[0], face_boxes(table, markup)[:1]
    wrong = {"one spot": 0 * label + label[0], "far away": label + 500}[seen]
    label = label.astype(np.float32)

    def found(*_: Any) -> tuple[np.ndarray, np.ndarray]:
        nonlocal calls
        calls += 1
        return (label if calls == 1 else wrong)[None].astype(np.float32), np.full(
            (1, 5), 0.5 if calls == 1 else 1, np.float32
        )

    predictor.predict_crops = found  # type: ignore[method-assign]
    (face,) = predictor(np.zeros((300, 400), np.uint8), boxes=box)
    np.testing.assert_array_equal(face.points, label)
    assert (face.confidence == 0.5).all()


def test_no_boxes_and_no_detections_are_reported(
    faces: FaceTable, monkeypatch: Any, caplog: Any
) -> None:
    blind = lambda _: (np.zeros((0, 4), np.float32), np.zeros(0, np.float32))  # noqa: E731
    monkeypatch.setattr("fkp.data.framing.HaarCascade", lambda: blind)
    for kind in ("face5", "one point", "four points on one line"):
        table = own(faces, kind)
        with caplog.at_level(logging.INFO):
            markup = measured(table, markup_of(kind))
        assert f"detector found 0 of the {len(table)} training faces" in caplog.text
        boxes = face_boxes(boxed(table, markup), markup)
        assert (boxes[:, 2:] > boxes[:, :2]).all()


def test_faces_with_unlabelled_pair_or_few_points_have_boxes(faces: FaceTable) -> None:
    table = own(faces, "face5")
    table.points[3, 1:] = np.nan
    table.points[4, :3] = np.nan
    table.points[:, 4] = np.nan
    markup = measured(table, replace(load_markup("face5"), box=None))
    assert markup.frame is not None and markup.frame["points"][4] is None
    boxes = face_boxes(boxed(table, markup), markup)
    whole = np.array([face_box(points) for points in faces.points])
    off = np.abs(boxes - whole).max(1) / (whole[:, 2] - whole[:, 0])
    assert off.max() < 0.45 and np.median(off) < 0.12


def test_missing_pair_becomes_the_eyes_or_the_widest_pair(faces: FaceTable) -> None:
    bare = replace(load_markup("face5"), pair=[])
    assert measured(own(faces, "face5"), bare).pair == ["eye_right", "eye_left"]
    assert measured(faces, replace(IBUG68, pair=[])).pair == ["eye_right_outer", "eye_left_outer"]
    table = own(faces, "profile")
    shape = mean_shape(table.points)
    pair = measured(table, replace(markup_of("profile"), pair=[])).pair
    wide = [shape[int(name[1:]), 0] for name in pair]
    assert wide[1] - wide[0] == pytest.approx(np.ptp(shape[:, 0]))


NAMELESS = Markup("mine", ["p1", "p2", "p3", "p4", "p5"], ["p1", "p2"])


def test_faces_without_known_pairs_are_trained_on_but_not_flipped(
    faces: FaceTable, caplog: Any
) -> None:
    source = Set(own(faces, "face5"), replace(NAMELESS, mirror=False))
    module = FacesDataModule(
        source, {str(i): step for i, step in enumerate([*steps(), RandomFlip(0.0)])}
    )
    module.setup()
    assert "pairs: [[p1, p2], [p4, p5]]" in caplog.text
    assert (
        not source.markup.flips and source.markup.frame is not None
    )  # as stored in the checkpoint
    item = module.splits["train"][0]
    assert item["image"].shape == (1, 45, 45)
    # The side of the face box in CROP pixels: the crop is 1.36 sides wide before it is cut.
    assert float(item["side"]) == pytest.approx(50 / 1.36, rel=0.01)


@pytest.mark.parametrize(
    "markup",
    [
        NAMELESS,
        replace(NAMELESS, mirror=False),
        replace(NAMELESS, points=["p1", "p2", "nose_left", "p4", "p5"]),
    ],
)
def test_faces_without_known_pairs_are_not_flipped_and_pairs_are_proposed(
    markup: Markup, faces: FaceTable, caplog: pytest.LogCaptureFixture
) -> None:
    table = own(faces, "face5")
    module = FacesDataModule(Set(table, markup), {"flip": RandomFlip(0.5)})
    # Ten faces prove no pairs.
    assert not module._check_flips(table.points[:10], markup).flips
    listed = caplog.messages[-1].rpartition("pairs: ")[2]
    pasted = replace(markup, pairs=yaml.safe_load(listed), mirror=True)
    assert (
        pasted.flip_indices.tolist() == [1, 0, 2, 4, 3]
        and module._check_flips(table.points, pasted) == pasted
    )


def test_pairs_that_labels_prove_are_taken(faces: FaceTable) -> None:
    table = own(faces, "face5")
    module = FacesDataModule(Set(table, NAMELESS), {"flip": RandomFlip(0.5)})
    proved = module._check_flips(table.points, NAMELESS)
    assert proved.pairs == [["p1", "p2"], ["p4", "p5"]]


@pytest.mark.parametrize("some", [slice(0, 68), slice(36, 48), slice(48, 68), slice(17, 27)])
def test_proposed_pairs_are_right(some: slice, faces: FaceTable) -> None:
    points, names = faces.points[:, some], [f"p{i}" for i in range(68)][some]
    listed = proposal(mean_shape(points), Markup("mine", names)).rpartition("pairs: ")[2]
    pasted = Markup("mine", names, pairs=yaml.safe_load(listed))
    check_flip(points, pasted)
    wanted = [f"p{i}" for i in IBUG68.flip_indices[some]]
    # Points that lie near each other, such as those of the lips, may be exchanged.
    assert (
        np.mean(
            [pasted.points[k] == name for k, name in zip(pasted.flip_indices, wanted, strict=True)]
        )
        > 0.9
    )


def test_no_pairs_are_proposed_for_one_side_of_a_face(faces: FaceTable) -> None:
    points = KINDS["profile"][0](faces.points)
    assert "pairs" not in proposal(mean_shape(points), markup_of("profile"))


def test_wrong_declared_pairs_are_refused_even_without_flips(faces: FaceTable) -> None:
    table, wrong = own(faces, "face5"), replace(NAMELESS, pairs=[["p1", "p4"], ["p2", "p5"]])
    with pytest.raises(FkpError, match="p1 is paired with p4"):
        FacesDataModule(Set(table, wrong), {})._check_flips(table.points, wrong)


def test_points_on_the_midline_need_no_pairs(faces: FaceTable) -> None:
    points, middle = (
        faces.points[:, [27, 30, 8]],
        Markup("middle", ["bridge", "tip", "chin"], ["bridge", "chin"]),
    )
    assert (
        FacesDataModule(Set(faces, middle), {"flip": RandomFlip(0.5)})._check_flips(points, middle)
        == middle
    )


def test_flip_augmentation_at_test_time_needs_pairs(faces: FaceTable, detector: Detector) -> None:
    table = own(faces, "face5")
    markup, mirrors = measured(table, NAMELESS), []
    for one in (replace(markup, mirror=False), replace(markup, pairs=[["p1", "p2"], ["p4", "p5"]])):
        predictor = trained(table, one, detector)
        crop = predictor.crop

        def seen(*given: Any, **more: Any) -> Any:
            mirrors.append(more["mirrored"])
            return crop(*given, **more)  # noqa: B023

        predictor.crop = seen  # type: ignore[method-assign]
        predictor(np.zeros((300, 400), np.uint8), boxes=face_boxes(table, markup)[:1])
    assert mirrors == [False, False, False, True]


def test_errors_of_a_single_point_are_in_box_sides() -> None:
    two = Markup("two", ["p1", "p2"], ["p1", "p2"])
    label, side = np.zeros((3, 1, 2)), np.array([10.0, 20, 50])
    np.testing.assert_allclose(nme(label + (3, 4), label, Markup("one", ["nose"]), side), 5 / side)
    assert nme(label[0] + 1, np.eye(2), two, side[0]) == nme(
        label[0] + 1, np.eye(2), two
    )  # two points have a distance


def test_networks_no_better_than_the_mean_face_are_reported(faces: FaceTable, capsys: Any) -> None:
    table = own(faces, "face5")
    markup = measured(table, NAMELESS)
    nme_of_mean = baseline(table, table, markup)
    assert 5 < nme_of_mean < 40
    splits = {split: SimpleNamespace(table=table) for split in ("train", "test")}
    data = SimpleNamespace(splits=splits, source=SimpleNamespace(markup=markup))
    trainer = SimpleNamespace(datamodule=data, global_step=132, current_epoch=6)
    say_if_untrained(0.9 * nme_of_mean, trainer)
    assert not capsys.readouterr().out
    say_if_untrained(nme_of_mean, trainer)
    printed = capsys.readouterr().out
    assert (
        "132 optimizer steps" in printed
        and "trainer.max_epochs=30" in printed
        and "experiment=" in printed
    )
