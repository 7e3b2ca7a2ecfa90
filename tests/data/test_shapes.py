"""Test shapes: flip indices are checked against labels, and label conventions are measured."""

from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fkp.data.pts_folders import PtsFolders
from fkp.data.shapes import centred, check_flip, convention, mean_shape, moved
from fkp.data.youtube_faces import YoutubeFaces
from fkp.errors import FkpError
from fkp.geometry import apply, rotation
from fkp.markup import IBUG68, Markup, load_markup
from fkp.painter import place_face
from fkp.painter.shape_model import ShapeModel

FACE5 = load_markup("face5")


@lru_cache
def faces68() -> np.ndarray:
    """Place 400 faces as the painter does, with its rotations, without painting them."""
    rng = np.random.default_rng(0)
    model = ShapeModel.load()
    return np.stack([place_face(model.sample(rng), rng)[1] for _ in range(400)])


def faces5() -> np.ndarray:
    whole = faces68()
    eyes = [whole[:, 36:42].mean(1), whole[:, 42:48].mean(1)]
    return np.stack([*eyes, whole[:, 30], whole[:, 48], whole[:, 54]], 1)


SETS = {"ibug68": (faces68, IBUG68), "face5": (faces5, FACE5)}


def rotated_to_one_side(points: np.ndarray, side: int, fraction: int = 10) -> np.ndarray:
    """Return one of `fraction` faces: those with the nose furthest to one side between the eyes."""
    whole = faces68()
    middle = (whole[:, 36:42].mean(1) + whole[:, 42:48].mean(1)) / 2
    across = whole[:, 45] - whole[:, 36]
    yaw = ((whole[:, 30] - middle) * across).sum(1) / (across**2).sum(1)
    return points[np.argsort(side * yaw)[: len(points) // fraction]]


def renamed(markup: Markup, **names: str) -> Markup:
    """Rename points: `renamed(m, a=b, b=a)` swaps two names."""
    return replace(markup, points=[names.get(name, name) for name in markup.points])


@pytest.mark.parametrize("name", SETS)
def test_correct_markups_pass(name: str) -> None:
    points, markup = SETS[name][0](), SETS[name][1]
    check_flip(points, markup)


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("count", [3, 12])
def test_few_faces_pass(name: str, count: int) -> None:
    points, markup = SETS[name][0](), SETS[name][1]
    for start in range(0, 400 - count, count):
        check_flip(points[start : start + count], markup)


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("side", [-1, 1])
def test_faces_rotated_to_one_side_pass(name: str, side: int) -> None:
    points, markup = SETS[name][0](), SETS[name][1]
    for fraction in (3, 10, 80):
        check_flip(rotated_to_one_side(points, side, fraction), markup)


@pytest.mark.parametrize("name", SETS)
def test_unlabelled_points_do_not_matter(name: str) -> None:
    points, markup = SETS[name][0]().copy(), SETS[name][1]
    rng = np.random.default_rng(0)
    points[rng.random(points.shape[:2]) < 0.3] = np.nan
    points[:, 3] = np.nan  # one point is labelled in no face
    check_flip(points[np.isfinite(points).all(2).sum(1) > 2], markup)


def test_wrong_names_are_found_among_unlabelled_points() -> None:
    points = faces68().copy()
    points[:, [0, 3, 20]] = np.nan
    wrong = renamed(IBUG68, brow_left_3="jaw_left_6", jaw_left_6="brow_left_3")
    with pytest.raises(
        FkpError,
        match="jaw_right_6 is paired with jaw_left_6, but its mirror image lies on brow_left_",
    ):
        check_flip(points, wrong)


def test_face_with_labels_on_one_line_does_not_decide() -> None:
    points = faces5()[:40].copy()
    points[0] = np.nan
    points[0, [0, 1, 2]] = [[10, 50], [20, 50], [90, 50]]
    check_flip(points, FACE5)


@settings(deadline=None)
@given(st.floats(0.1, 9), st.floats(-500, 500), st.floats(-500, 500))
def test_position_and_size_of_faces_do_not_matter(size: float, x: float, y: float) -> None:
    points = faces68()[:20]
    np.testing.assert_allclose(centred(points * size + (x, y)), centred(points), atol=1e-6)
    np.testing.assert_allclose(np.nanmean(centred(points), 1), 0, atol=1e-9)
    np.testing.assert_allclose(np.ptp(centred(points), axis=1).prod(1), 1)
    assert np.ptp(centred(points * (1, 0.001)), axis=1).max() == pytest.approx(2)
    np.testing.assert_allclose(mean_shape(points), centred(points).mean(0))


@pytest.mark.parametrize(
    "name, one, other, words",
    [
        ("face5", "eye_right", "mouth_right", ("eye_right", "mouth_right")),
        (
            "face5",
            "eye_right",
            "nose",
            ("nose is its own partner", "eye_right is paired with eye_left"),
        ),
        ("face5", "mouth_left", "nose", ("mouth_left",)),
        ("ibug68", "jaw_right_1", "chin", ("chin is its own partner",)),
        ("ibug68", "eye_right_outer", "lip_right_corner", ("eye_right_outer", "lip_right_corner")),
        ("ibug68", "brow_left_3", "jaw_left_6", ("brow_left_3", "jaw_left_6")),
    ],
)
def test_two_exchanged_names_are_reported(
    name: str, one: str, other: str, words: tuple[str, ...]
) -> None:
    points, markup = SETS[name][0](), SETS[name][1]
    for some in (points, points[:12]):
        with pytest.raises(
            FkpError, match=f"markup {name}: left and right do not fit the labels"
        ) as error:
            check_flip(some, renamed(markup, **{one: other, other: one}))
        for word in words:
            assert word in str(error.value)


@pytest.mark.parametrize("name", SETS)
def test_names_without_sides_are_refused(name: str) -> None:
    points, markup = SETS[name][0](), SETS[name][1]
    bare = {n: n.replace("right", "a").replace("left", "b") for n in markup.points}
    with pytest.raises(
        FkpError, match="eye.* is its own partner, but its mirror image lies on eye"
    ):
        check_flip(
            points, replace(markup, points=list(bare.values()), pair=[bare[n] for n in markup.pair])
        )


@pytest.mark.parametrize(
    "name, one, other",
    [("face5", "eye_right", "mouth_left"), ("ibug68", "eye_right_outer", "lip_left_corner")],
)
def test_crossed_pairs_are_refused(name: str, one: str, other: str) -> None:
    """The pairs are (eye, mouth) and (mouth, eye): right and left, but of different parts."""
    points, markup = SETS[name][0](), SETS[name][1]
    swap = {"right": "left", "left": "right"}
    partner = "_".join(swap.get(word, word) for word in other.split("_"))
    crossed = renamed(markup, **{one: partner, partner: one})
    with pytest.raises(FkpError) as error:
        check_flip(points, crossed)
    assert one in str(error.value) and other in str(error.value)
    assert "Name the points so that mirrored points differ only in" in str(error.value)


def test_swapping_all_sides_gives_the_same_flips() -> None:
    """A markup that calls the right side of the image "right" has the same flips."""
    swap = {n: FACE5.points[i] for n, i in zip(FACE5.points, FACE5.flip_indices, strict=True)}
    check_flip(faces5(), renamed(FACE5, **swap))


@pytest.mark.real
@pytest.mark.parametrize("source", ["youtube_faces", "300w_train"])
def test_real_faces_pass_and_exchanged_names_do_not(source: str, shared: Path) -> None:
    folder = str(shared / "data" / source)
    points = (
        (YoutubeFaces(folder) if source == "youtube_faces" else PtsFolders(folder))
        .survey()[0]
        .points
    )
    middle, across = points[:, 36:48].mean(1), points[:, 45] - points[:, 36]
    order = np.argsort(((points[:, 30] - middle) * across).sum(1) / (across**2).sum(1))
    rng = np.random.default_rng(0)
    handful = [rng.choice(len(points), 5, replace=False) for _ in range(20)]
    wrong = renamed(IBUG68, eye_right_outer="lip_right_corner", lip_right_corner="eye_right_outer")
    for some in (slice(None), order[:50], order[-50:], *handful):
        check_flip(points[some], IBUG68)
        with pytest.raises(FkpError, match="eye_right_outer is paired"):
            check_flip(points[some], wrong)


def test_convention_is_measured_at_any_pose() -> None:
    rng = np.random.default_rng(0)
    offsets = rng.normal(0, 0.03, (68, 2))
    points = faces68()
    angles = rng.uniform(-180, 180, len(points))
    rotated = np.stack(
        [
            apply(rotation(a, (50, 50)), face) * s
            for a, face, s in zip(angles, points, rng.uniform(0.2, 5, len(points)), strict=True)
        ]
    )
    labels = moved(rotated, offsets, IBUG68)
    np.testing.assert_allclose(convention(rotated, labels, IBUG68), offsets, atol=1e-9)
    np.testing.assert_allclose(moved(rotated, np.zeros((68, 2)), IBUG68), rotated)


def test_offsets_to_the_right_move_upright_faces_to_the_right() -> None:
    points = faces68()[:1]
    line = points[0, 45] - points[0, 36]
    there = moved(points, np.tile([0.5, 0.0], (68, 1)), IBUG68)
    np.testing.assert_allclose(there - points, np.tile(line / 2, (1, 68, 1)), atol=1e-9)
