"""The predictor: refinement, rotation, streams, boxes and refusals; detectors and drawing."""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from fkp import Face, Predictor, painter
from fkp.detectors import HaarCascade, YuNet
from fkp.draw import draw, visualize_output
from fkp.errors import FkpError
from fkp.files.images import read_image, to_gray
from fkp.geometry import (
    apply,
    centre_and_side,
    compose,
    face_box,
    overlap,
    rolled_box,
    rotation,
    square,
    translation,
    warp,
)
from fkp.inference.refinement import AGREEING

Run = tuple[Path, str]


@pytest.fixture(scope="module")
def predictor(trained: Run) -> Predictor:
    return Predictor.load(trained[0] / "checkpoints/best.ckpt")


def test_points_move_with_the_face(predictor: Predictor) -> None:
    image, label = painter.paint(2, 0)
    box = face_box(label)
    (here,) = predictor(image, boxes=box[None])
    moved = np.pad(image, ((40, 0), (25, 0), (0, 0)))
    (there,) = predictor(moved, boxes=box[None] + np.array([25, 40, 25, 40]))
    np.testing.assert_allclose(there.points, here.points + (25, 40), atol=0.6)


def test_faces_keep_the_order_and_number_of_boxes(predictor: Predictor) -> None:
    image, label = painter.paint(2, 1)
    boxes = np.stack([face_box(label) + i for i in range(40)])
    faces = predictor(image, boxes=boxes)
    np.testing.assert_array_equal([face.box for face in faces], boxes)
    alone = predictor(image, boxes=boxes[7:8])[0]
    np.testing.assert_allclose(faces[7].points, alone.points, atol=0.01)
    assert faces[0].points.shape == (68, 2) and faces[0].points.dtype == np.float32
    assert faces[0].confidence.shape == (68,) and "68 points" in repr(faces[0])
    assert predictor(image, boxes=np.zeros((0, 4))) == []


def test_a_stream_yields_the_faces_of_single_calls_in_order_and_holds_few_images(
    predictor: Predictor,
) -> None:
    drawn = [painter.paint(2, i) for i in range(9)]
    images = [image for image, _ in drawn]
    boxes = [
        np.repeat(face_box(label)[None], i % 4, 0) + 2 * np.arange(i % 4)[:, None]
        for i, (_, label) in enumerate(drawn)
    ]
    narrow = Predictor(predictor.engine, predictor.transforms, predictor.markup, batch_size=4)
    read = 0

    def counted() -> Iterator[np.ndarray]:
        nonlocal read
        for image in images:
            read += 1
            yield image

    for i, faces in enumerate(narrow.stream(counted(), boxes, threads=1)):
        assert read - i <= 4
        alone = predictor(images[i], boxes=boxes[i])
        assert len(faces) == len(alone) == i % 4
        for face, single in zip(faces, alone, strict=True):
            np.testing.assert_allclose(face.points, single.points, atol=0.05)
            np.testing.assert_allclose(face.confidence, single.confidence, atol=0.01)
    assert i == 8
    for few in ([], boxes[:3]):
        with pytest.raises(ValueError, match="shorter"):
            list(narrow.stream(images, few))


@pytest.mark.parametrize("shape", [(1, 1), (1, 4000, 3), (3000, 1), (20, 20, 3), (19, 2000)])
def test_the_smallest_and_thinnest_images_have_no_face(
    predictor: Predictor, shape: tuple[int, ...]
) -> None:
    assert predictor(np.zeros(shape, np.uint8)) == []


def with_steps(predictor: Predictor, refine_steps: int) -> Predictor:
    return Predictor(
        predictor.engine, predictor.transforms, predictor.markup, refine_steps=refine_steps
    )


def test_refinement_crops_around_earlier_points_alternates_flips_and_weights_later_steps(
    predictor: Predictor,
) -> None:
    image, label = painter.paint(2, 3)
    gray, box = to_gray(image), face_box(label)[None]
    first, second, third = (
        with_steps(predictor, refine_steps)(image, boxes=box)[0] for refine_steps in (1, 2, 3)
    )
    alone, _ = predictor.predict(gray, box)
    np.testing.assert_array_equal(first.points, alone[0])
    for before, after, step in ((first, second, 1), (second, third, 2)):
        frame, roll = rolled_box(before.points)
        seen, _ = predictor.predict(gray, frame[None], rolls=np.array([roll]), mirrored=step == 1)
        apart = np.linalg.norm(seen[0] - before.points, axis=1).mean()
        weight = 2 / (step + 2) if apart < AGREEING * np.sqrt(np.ptp(seen[0], axis=0).prod()) else 1
        np.testing.assert_allclose(
            after.points, (1 - weight) * before.points + weight * seen[0], atol=1e-3
        )
        np.testing.assert_array_equal(after.box, before.box)


def test_a_first_step_far_from_the_second_is_dropped(predictor: Predictor) -> None:
    image, label = painter.paint(2, 3)
    far, steps = label.astype(np.float32)[None] + 60, iter([0, 1])
    twice = with_steps(predictor, 2)
    answers = (far, label.astype(np.float32)[None])
    twice.predict_crops = lambda *_: (answers[next(steps)], np.ones((1, 68), np.float32))  # type: ignore[method-assign]
    np.testing.assert_allclose(
        twice(image, boxes=face_box(label)[None])[0].points, label, atol=1e-3
    )


def test_flipping_a_mirrored_image_gives_the_points_of_the_image(predictor: Predictor) -> None:
    image, label = painter.paint(2, 4)
    gray, width, box = to_gray(image), image.shape[1], face_box(label)
    mirrored_box = np.array([width - 1 - box[2], box[1], width - 1 - box[0], box[3]])
    here, _ = predictor.predict(gray, box[None])
    there, _ = predictor.predict(
        np.ascontiguousarray(gray[:, ::-1]), mirrored_box[None], mirrored=True
    )
    back = there[0][predictor.markup.flip_indices] * (-1, 1) + (width - 1, 0)
    np.testing.assert_allclose(here[0], back, atol=0.1)
    assert np.abs(predictor.predict(gray, box[None], mirrored=True)[0] - here).max() > 0.1


def test_the_label_offset_is_added_to_flipped_steps_too(predictor: Predictor) -> None:
    image, label = painter.paint(2, 4)
    for refine_steps in (1, 2):
        plain, shifted = with_steps(predictor, refine_steps), with_steps(predictor, refine_steps)
        shifted.label_offset = 0.02
        (before,), (after,) = (one(image, boxes=face_box(label)[None]) for one in (plain, shifted))
        moved = before.points + 0.02 * (before.points[45] - before.points[36])
        np.testing.assert_allclose(after.points, moved, atol=1e-3)


def test_points_rotate_with_the_image(predictor: Predictor) -> None:
    image, label = painter.paint(2, 4)
    gray, height, width = to_gray(image), *image.shape[:2]
    about = rotation(30.0, ((width - 1) / 2, (height - 1) / 2))
    turned = warp(gray, about, (width, height))
    box, roll = rolled_box(label)
    upright, _ = predictor.predict(gray, box[None], rolls=np.array([roll]))
    box, roll = rolled_box(apply(about, label))
    seen, _ = predictor.predict(turned, box[None], rolls=np.array([roll]))
    off = np.linalg.norm(seen[0] - apply(about, upright[0]), axis=1)
    assert np.median(off) < 0.02 * (box[2] - box[0])


def test_gray_and_colour_give_the_same_points(predictor: Predictor) -> None:
    image, label = painter.paint(2, 2)
    gray = np.repeat(image[..., :1], 3, 2)
    a, b = (predictor(pixels, boxes=face_box(label)[None])[0] for pixels in (gray, gray[..., 0]))
    np.testing.assert_allclose(a.points, b.points, atol=1e-3)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((5, 5), np.float32), "uint8"),
        (np.zeros((5, 5, 4), np.uint8), r"\(5, 5, 4\)"),
        (np.zeros((0, 5), np.uint8), "gray"),
        ("nowhere.jpg", "no such file"),
        (5, "not int"),
    ],
)
def test_other_values_than_images_are_refused(
    predictor: Predictor, image: object, message: str
) -> None:
    with pytest.raises(FkpError, match=message):
        predictor(image)  # type: ignore[arg-type]


def test_boxes_without_area_are_refused(predictor: Predictor) -> None:
    with pytest.raises(FkpError, match="right > left"):
        predictor(np.zeros((50, 50), np.uint8), boxes=[[10, 10, 10, 20]])


def test_an_unknown_device_is_named(trained: Run) -> None:
    with pytest.raises(FkpError, match="device=elsewhere"):
        Predictor.load(trained[0] / "checkpoints/best.ckpt", device="elsewhere")


def test_a_checkpoint_holds_plain_values(trained: Run) -> None:
    checkpoint = torch.load(trained[0] / "checkpoints/best.ckpt", weights_only=True)
    assert json.loads(json.dumps(checkpoint["fkp"])) == checkpoint["fkp"]
    assert checkpoint["fkp"]["network"]["_target_"] == "fkp.networks.TwoConv"


def test_foreign_classes_are_not_loaded(trained: Run, tmp_path: Path) -> None:
    checkpoint = torch.load(trained[0] / "checkpoints/best.ckpt", weights_only=True)
    for target in (
        "os.system",
        "fkp.files.images.write_image",
        "fkp.networks.torch",
        "fkp.networks.nothing",
    ):
        checkpoint["fkp"]["network"] = {"_target_": target, "command": "true"}
        torch.save(checkpoint, tmp_path / "bad.ckpt")
        with pytest.raises(FkpError, match="not loaded"):
            Predictor.load(tmp_path / "bad.ckpt")


def test_missing_and_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FkpError, match="train one with"):
        Predictor.load(tmp_path / "none.ckpt")
    for content, reason in (
        (b"", "empty"),
        (b"hello", "not a file of torch"),
        (b"PK\x03\x04 broken", "damaged"),
    ):
        (tmp_path / "bad.ckpt").write_bytes(content)
        with pytest.raises(FkpError, match=f"bad.ckpt: {reason}"):
            Predictor.load(tmp_path / "bad.ckpt")
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    with pytest.raises(FkpError, match="not a checkpoint of fkp"):
        Predictor.load(tmp_path / "other.ckpt")


def test_drawing_marks_points_on_a_copy_of_the_image() -> None:
    image = np.zeros((300, 300), np.uint8)
    points = np.random.default_rng(0).uniform(100, 200, (68, 2)).astype(np.float32)
    face = Face(points, np.ones(68, np.float32), np.array([90, 90, 210, 210], np.float32), 1.0)
    drawn = draw(image, [face])
    assert drawn.shape == (300, 300, 3) and not image.any()
    x, y = np.round(points).astype(int).T
    assert (drawn[y, x, 1] > 100).all() and not drawn[:80].any()


def test_a_grid_has_a_cell_for_every_face() -> None:
    crops = [np.full((50, 50), 9, np.uint8)] * 7
    points = [np.random.default_rng(i).uniform(5, 45, (68, 2)) for i in range(7)]
    assert visualize_output(crops, points, points, columns=3, side=100).shape == (300, 300, 3)
    assert visualize_output(crops[:1], points[:1], side=100).shape == (100, 100, 3)


def test_haar_finds_nothing_in_an_empty_image_and_names_an_unknown_cascade() -> None:
    boxes, scores = HaarCascade()(np.zeros((100, 100, 3), np.uint8))
    assert boxes.shape == (0, 4) and scores.shape == (0,)
    with pytest.raises(FkpError, match="detector.cascade=none.xml"):
        HaarCascade(cascade="none.xml")


@pytest.mark.real
@pytest.mark.parametrize(
    ("photo", "people"), [("obamas.jpg", 2), ("the_beatles.jpg", 4), ("mona_lisa.jpg", 1)]
)
def test_haar_finds_the_people_in_photos(shared: Path, photo: str, people: int) -> None:
    boxes, scores = HaarCascade()(read_image(shared / "photos" / photo))
    assert len(boxes) == people
    assert (np.diff(scores) <= 0).all()


@pytest.fixture(scope="module")
def yunet(shared: Path) -> YuNet:
    return YuNet(str(shared / "models/face_detection_yunet_2023mar.onnx"))


@pytest.mark.real
@pytest.mark.parametrize(
    ("photo", "people"), [("obamas.jpg", 2), ("the_beatles.jpg", 4), ("mona_lisa.jpg", 1)]
)
def test_yunet_finds_the_people_in_photos_where_haar_does_and_rotated(
    shared: Path, yunet: YuNet, photo: str, people: int
) -> None:
    image = read_image(shared / "photos" / photo)
    boxes, scores = yunet(image)
    assert len(boxes) == people and (np.diff(scores) <= 0).all()
    for box in HaarCascade()(image)[0]:
        assert max(overlap(box, other) for other in boxes) > 0.6
    gray, _ = yunet(image[..., 1])
    assert len(gray) == people
    height, width = image.shape[:2]
    turned = warp(image, rotation(30.0, ((width - 1) / 2, (height - 1) / 2)), (width, height))
    assert len(yunet(turned)[0]) >= people - 1  # one may leave the image
    for shape in 10 * [
        (1, 3000),
        (8, 640),
        (16, 640),
        (3000, 1),
    ]:
        assert len(yunet(image)[0]) == people and len(yunet(np.zeros(shape, np.uint8))[0]) == 0


@pytest.mark.real
def test_face_box_is_where_haar_draws_it(shared: Path) -> None:
    from fkp.data.youtube_faces import YoutubeFaces

    faces = (
        YoutubeFaces(str(shared / "data/youtube_faces"))
        .read()
        .split("identity")["val"]
        .select(slice(0, 200, 4))
    )
    found = 0
    for path, points in zip(faces.paths, faces.points, strict=True):
        boxes, _ = HaarCascade()(read_image(path, gray=True))
        found += any(overlap(box, face_box(points)) > 0.6 for box in boxes)
    assert found > 0.9 * len(faces)


def test_detected_faces_of_low_confidence_are_dropped_and_given_boxes_kept(
    predictor: Predictor,
) -> None:
    image, label = painter.paint(2, 3)
    boxes = np.stack(
        [face_box(label), face_box(label) + 3, face_box(label) + 6, face_box(label) + 9]
    )
    strict = with_steps(predictor, 2)
    strict.detector = lambda _: (boxes, np.arange(4, dtype=np.float32))
    # The third is above the limit in its second step only; the fourth, after a bad box, is clear.
    steps = itertools.cycle([[0.9, 0.1, 0.1, 0.1], [0.9, 0.1, 0.4, 0.9]])

    def found(pixels: np.ndarray, *_: object) -> tuple[np.ndarray, np.ndarray]:
        """Return no confidence in rotated crops, whose number differs from that of the boxes."""
        sure = next(steps) if len(pixels) == 4 else np.zeros(len(pixels))
        points = np.repeat(label.astype(np.float32)[None], len(pixels), 0)
        return points, np.repeat(np.array(sure, np.float32)[:, None], 68, 1)

    strict.predict_crops = found  # type: ignore[method-assign]
    assert [face.score for face in strict(image)] == [0, 3]
    assert len(strict(image, boxes=boxes)) == 4
    strict.min_confidence = 0
    assert len(strict(image)) == 4


@pytest.fixture(scope="module")
def shipped() -> Predictor:
    return Predictor.load()


def rotated(image: np.ndarray, quarters: int) -> tuple[np.ndarray, np.ndarray]:
    """Rotate an image clockwise by quarter turns; return it and the affine that leads there."""
    height, width = image.shape[:2]
    corner = ((width - 1) / 2, (height - 1) / 2)
    turned = np.ascontiguousarray(np.rot90(image, -quarters))
    middle = (turned.shape[1] / 2 - width / 2, turned.shape[0] / 2 - height / 2)
    return turned, compose(rotation(90.0 * quarters, corner), translation(*middle))


def error(face: Face, label: np.ndarray) -> float:
    return float(
        np.linalg.norm(face.points - label, axis=1).mean() / np.linalg.norm(label[36] - label[45])
    )


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_faces_on_their_side_or_upside_down_are_found(shipped: Predictor, quarters: int) -> None:
    for i in range(4):
        image, label = painter.paint(5, i)
        (upright,) = shipped(image, boxes=face_box(label)[None])
        turned, there = rotated(image, quarters)
        x, y, side = centre_and_side(face_box(label))
        # As a detector's, the box does not lie as an upright face's would.
        middle = apply(there, np.array([x, y]))
        box = square(*middle, side)
        (face,) = shipped(turned, boxes=box[None])
        assert error(face, apply(there, label)) < error(upright, label) + 0.03
        assert face.confidence.mean() > shipped.min_confidence


def test_clear_faces_are_not_predicted_rotated(
    shipped: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, label = painter.paint(5, 0)
    seen: list[int] = []
    found = shipped.predict_crops
    monkeypatch.setattr(
        shipped,
        "predict_crops",
        lambda pixels, *rest: (seen.append(len(pixels)), found(pixels, *rest))[1],
    )
    (face,) = shipped(image, boxes=face_box(label)[None])
    assert face.confidence.mean() > 0.5 and seen == [1, 1]


@pytest.mark.real
@pytest.mark.parametrize("detector", ["haar", "yunet"])
def test_faces_reported_in_rotated_photos_are_right(
    shared: Path, yunet: YuNet, detector: str
) -> None:
    """Compare with the upright photos, in which YuNet finds all three people."""
    predictor, truth = (
        Predictor.load(detector=yunet if detector == "yunet" else HaarCascade()),
        Predictor.load(detector=yunet),
    )
    right = 0
    for photo in ("obamas.jpg", "mona_lisa.jpg"):
        image = read_image(shared / "photos" / photo)
        labels = [face.points for face in truth(image)]
        for quarters in (1, 2, 3):
            turned, there = rotated(image, quarters)
            for face in predictor(turned):
                assert min(error(face, apply(there, label)) for label in labels) < 0.1
                right += 1
    assert right >= 2
