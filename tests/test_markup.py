"""Markups: flip indices, names of sides, and faults of markup files."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from fkp import painter
from fkp.errors import FkpError
from fkp.markup import IBUG68, Markup, load_markup


def test_flip_indices_are_an_involution_that_swaps_sides() -> None:
    flip = IBUG68.flip_indices
    np.testing.assert_array_equal(flip[flip], np.arange(68))
    assert flip[36] == 45 and flip[0] == 16 and flip[8] == 8 and flip[48] == 54 and flip[60] == 64


def test_mirrored_faces_resemble_faces_only_with_swapped_points() -> None:
    faces = np.stack([painter.paint(0, i)[1] for i in range(20)])
    faces -= faces.mean(1, keepdims=True)
    mirrored = (faces * (-1, 1)).mean(0)
    assert (
        np.abs(mirrored[IBUG68.flip_indices] - faces.mean(0)).mean()
        < 0.25 * np.abs(mirrored - faces.mean(0)).mean()
    )


def pairs(text: str) -> list[int]:
    """Spell out the flip indices of pairs such as `0-32`; `0-32…15-17` is a run of pairs."""
    swapped: dict[int, int] = {}
    for part in text.split():
        first, last = (tuple(map(int, end.split("-"))) for end in (part.split("…") * 2)[:2])
        step = 1 if last[1] >= first[1] else -1
        others = range(first[1], last[1] + step, step)
        swapped |= dict(zip(range(first[0], last[0] + 1), others, strict=True))
    return [swapped.get(i, i) for i in range(max(swapped) + 1)]


# mmpose, configs/_base_/datasets/wflw.py, cofw.py and lapa.py: `swap` of each key point.
WFLW = (
    "0-32…32-0 33-46…37-42 38-50…41-47 42-37…46-33 47-41…50-38 55-59…59-55 60-72…64-68 65-75…67-73"
)
WFLW += " 68-64…72-60 73-67…75-65 76-82…82-76 83-87…87-83 88-92…92-88 93-95…95-93 96-97 97-96"
LAPA = (
    "0-32…32-0 33-46…37-42 38-50…41-47 42-37…46-33 47-41…50-38 55-65…65-55 66-79…70-75 71-82…73-80"
)
LAPA += " 74-83 75-70…79-66 80-73…82-71 83-74 84-90…90-84 91-95…95-91 96-100…100-96 101-103…103-101"
LAPA += " 104-105 105-104"
COFW = (
    "0-1 1-0 2-3 3-2 4-6 5-7 6-4 7-5 8-9 9-8 10-11 11-10 12-14 13-15 14-12 15-13 16-17 17-16 18-19"
)
COFW += " 19-18 22-23 23-22 28-28"
# BioID's readme: 0 = right eye pupil, 1 = left eye pupil, …, 19 = tip of chin.
BIOID = "0-1 1-0 2-3 3-2 4-7…7-4 8-13…13-8 15-16 16-15 19-19"


@pytest.mark.parametrize(
    ("name", "swap", "eyes"),
    [
        ("wflw98", WFLW, (60, 72)),
        ("lapa106", LAPA, (66, 79)),
        ("cofw29", COFW, (8, 9)),
        ("bioid20", BIOID, (0, 1)),
    ],
)
def test_flip_indices_are_those_that_are_published(
    name: str, swap: str, eyes: tuple[int, int]
) -> None:
    markup = load_markup(name)
    assert markup.flip_indices.tolist() == pairs(swap)
    assert markup.eyes == eyes and markup.flip_indices[eyes[0]] == eyes[1]
    inside = [i for first, last in markup.regions.values() for i in range(first, last + 1)]
    assert inside == list(range(len(markup.points)))


def test_a_markup_is_rebuilt_from_its_plain_values() -> None:
    assert Markup(**IBUG68.as_dict()) == IBUG68


def test_regions_and_lines_cover_all_points() -> None:
    inside = sorted(i for first, last in IBUG68.regions.values() for i in range(first, last + 1))
    assert inside == list(range(68))
    drawn = sorted(
        i for kind in IBUG68.lines.values() for first, last in kind for i in range(first, last + 1)
    )
    assert drawn == list(range(68))


def test_the_error_for_an_unknown_markup_lists_the_known_ones() -> None:
    with pytest.raises(FkpError, match="ibug68"):
        load_markup("ibug67")


def test_a_point_without_counterpart_is_named() -> None:
    values = IBUG68.as_dict() | {"points": [*IBUG68.points[:-1], "ear"]}
    with pytest.raises(FkpError, match="mouth_left_bottom has no counterpart mouth_right_bottom"):
        _ = Markup(**values).flip_indices


@pytest.mark.parametrize(
    "names",
    [
        ["rightEye", "leftEye", "nose"],
        ["RightEye", "LeftEye"],
        ["eyeR", "eyeL", "mouthR1", "mouthL1"],
        ["eye_R", "eye_L", "chin"],
        ["r_eye", "l_eye", "lip"],
        ["R_EYE", "L_EYE"],
        ["right eye", "left eye", "upright"],
        ["Right-Eye", "left-eye"],
        ["righteye", "lefteye"],
        ["eyeright", "eyeleft"],
        ["reye", "leye", "lip"],
        ["right_eye_r", "left_eye_l", "right_eye_l", "left_eye_r"],
    ],
)
def test_sides_are_found_in_names_of_any_style(names: list[str]) -> None:
    markup, swapped = Markup("mine", names), list(range(len(names)))
    for i in range(0, len(names) - 1, 2):
        swapped[i : i + 2] = [i + 1, i]
    assert markup.flip_indices.tolist() == swapped and markup.sided and markup.flips


def test_listed_pairs_take_precedence_over_names() -> None:
    markup = Markup("mine", ["p1", "p2", "left_3"], pairs=[["p1", "left_3"]])
    assert markup.flip_indices.tolist() == [2, 1, 0] and markup.sided
    assert Markup("mine", ["nose_left"], pairs=[]).flip_indices.tolist() == [0]
    assert Markup(**markup.as_dict()) == markup


def test_without_a_counterpart_faces_are_not_flipped_and_it_is_named() -> None:
    profile = Markup("profile", ["leftEye", "nose"])
    assert not profile.flips
    with pytest.raises(FkpError, match="leftEye has no counterpart rightEye"):
        _ = profile.flip_indices
    assert (
        not Markup("mine", ["p1", "p2"]).sided
        and not Markup("mine", ["p1", "p2"], mirror=False).flips
    )


def test_markups_of_older_checkpoints_are_equal() -> None:
    older = {
        name: IBUG68.as_dict()[name]
        for name in ("name", "points", "pair", "regions", "lines", "box")
    }
    assert Markup(**older) == IBUG68 and IBUG68.frame is None


def test_a_pair_is_needed_only_where_errors_are_measured() -> None:
    assert Markup("one", ["nose"]).eyes == (0, 0)
    with pytest.raises(FkpError) as error:
        _ = Markup("two", ["nose", "chin"]).eyes
    assert error.value.key == "pair"


@st.composite
def markups(draw: st.DrawFn) -> Markup:
    """Draw names of up to four words, some of them sides, in any order, with their counterparts."""
    words = st.sampled_from(["right", "left", "eye", "ear", "1", "2", "upright"])
    names = draw(
        st.lists(st.lists(words, min_size=1, max_size=4).map("_".join), min_size=2, max_size=9)
    )
    swap = {"right": "left", "left": "right"}
    counterparts = ["_".join(swap.get(word, word) for word in name.split("_")) for name in names]
    points = draw(st.permutations(sorted({*names, *counterparts})))
    return Markup("generated", points, [points[0], points[-1]])


@settings(deadline=None)
@given(markups())
def test_flip_indices_of_any_names_are_an_involution_that_swaps_sides(markup: Markup) -> None:
    flip = markup.flip_indices
    np.testing.assert_array_equal(flip[flip], np.arange(len(markup.points)))
    for name, place in zip(markup.points, flip, strict=True):
        sides = [word for word in name.split("_") if word in ("right", "left")]
        swapped = [word for word in markup.points[place].split("_") if word in ("right", "left")]
        assert (markup.points[place] == name) == (not sides)
        assert [{"right": "left", "left": "right"}[word] for word in sides] == swapped


def test_flipping_face5_swaps_the_eyes_and_the_corners_of_the_mouth() -> None:
    assert load_markup("face5").flip_indices.tolist() == [1, 0, 2, 4, 3]


FINE = {
    "name": "mine",
    "points": ["tip", "ear_left", "ear_right"],
    "pair": ["ear_left", "ear_right"],
}
FAULTS: dict[str, object] = {
    "an empty file": None,
    "a list": [1, 2],
    "a word": "points",
    "a field too many": FINE | {"pionts": []},
    "a field too few": {"name": "mine", "pair": ["ear_left", "ear_right"]},
    "one point twice": FINE | {"points": ["tip", "tip", "ear_left", "ear_right"]},
    "a pair of one point": FINE | {"pair": ["tip", "tip"]},
    "a mirror pair with an unknown point": FINE | {"pairs": [["ear_left", "nose"]]},
    "a mirror pair of one": FINE | {"pairs": [["ear_left"]]},
    "a mirror pair of itself": FINE | {"pairs": [["tip", "tip"]]},
    "a point in two mirror pairs": FINE
    | {"pairs": [["ear_left", "ear_right"], ["ear_left", "tip"]]},
    "mirror pairs that are names": FINE | {"pairs": ["ear_left", "ear_right"]},
    "a mirror that is a word": FINE | {"mirror": "maybe"},
    "a frame of too few": FINE | {"frame": {"points": [[0, 0]], "roll": True, "share": 0.5}},
    "a frame of words": FINE | {"frame": {"points": ["a", "b", "c"], "roll": True, "share": 0.5}},
    "a frame with NaN": FINE
    | {"frame": {"points": [[0, float("nan")]] * 3, "roll": True, "share": 0.5}},
    "a frame without points": FINE | {"frame": {"points": [None] * 3, "roll": True, "share": 0.5}},
    "a frame that is a word": FINE | {"frame": "wide"},
    "points that are numbers": FINE | {"points": [1, 2], "pair": [1, 2]},
    "points that are one number": FINE | {"points": 5},
    "a point that is a formula": FINE | {"points": ["=1+1", "ear_left", "ear_right"]},
    "a point of two lines": FINE | {"points": ["a\nb", "ear_left", "ear_right"]},
    "a point without a name": FINE | {"points": ["", "ear_left", "ear_right"]},
    "an infinite box": FINE | {"box": {"up": float("inf"), "side": 1.5}},
    "a region of three": FINE | {"regions": {"ears": [1, 2, 2]}},
    "points that are null": FINE | {"points": None},
    "a pair of one": FINE | {"pair": ["tip"]},
    "a pair with an unknown point": FINE | {"pair": ["tip", "nose"]},
    "a region outside": FINE | {"regions": {"ears": [1, 3]}},
    "a region backwards": FINE | {"regions": {"ears": [2, 1]}},
    "a region of one number": FINE | {"regions": {"ears": [1]}},
    "a region that is no range": FINE | {"regions": {"ears": 1}},
    "regions without names": FINE | {"regions": [[0, 1]]},
    "lines without kind": FINE | {"lines": [[0, 1]]},
    "lines of an unknown kind": FINE | {"lines": {"closed": [[0, 1]]}},
    "a line of words": FINE | {"lines": {"open": [["tip", "ear_left"]]}},
    "a box of one side": FINE | {"box": {"up": 0.1}},
    "a box of words": FINE | {"box": {"up": "high", "side": "wide"}},
    "a box that is a number": FINE | {"box": 1.5},
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_a_file_is_one_error_of_one_line_with_the_file(
    fault: str, tmp_path: Path
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(FINE))
    assert load_markup(str(file)).flip_indices.tolist() == [0, 2, 1]
    file.write_text(yaml.safe_dump(FAULTS[fault]))
    with pytest.raises(FkpError, match=r"mine") as error:
        load_markup(str(file))
    assert len(str(error.value).splitlines()) == 1
    assert error.value.file == file


BOMB = b"a: &a [x, x]\n" + b"".join(
    b"%c: &%c [%s]\n" % (i, i, b"*%c, " % (i - 1) * 9) for i in range(98, 122)
)
HOSTILE = [
    BOMB,
    b"points: " + b"[" * 30_000,
    b"#" * 70_000,
    b"name: !!python/object/apply:os.system [ls]",
]
HOSTILE += [
    b"name: !!int ''",
    b"name: 9999-99-99",
    b"a: " + b"9" * 5000,
    b"? [a, b]\n: c",
    b"name: !!bool maybe",
]


@pytest.mark.parametrize("data", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_file_is_one_short_error(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_bytes(data)
    with pytest.raises(
        FkpError, match=r"mine.yaml: (not a markup|70000 bytes, more than)"
    ) as error:
        load_markup(str(tmp_path / "mine.yaml"))
    assert len(str(error.value)) < 1000


@pytest.mark.parametrize("data", [b"points: [a, b", b"\xff\xfe\x00", b"", b"a: b: c"])
def test_a_file_that_is_not_yaml_is_one_error(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_bytes(data)
    with pytest.raises(
        FkpError, match=r"mine.yaml: not (a markup.*see fkp/markups/face5.yaml|text in UTF-8)"
    ):
        load_markup(str(tmp_path / "mine.yaml"))


def test_the_error_for_a_missing_file_lists_the_known_markups() -> None:
    with pytest.raises(FkpError, match="face5, ibug68, .*, or give the path"):
        load_markup("nowhere/mine.yaml")


def test_the_unit_of_errors_is_named() -> None:
    assert IBUG68.unit == "the outer-eye distance"
    assert "iris_r to iris_l" in Markup("own", ["iris_r", "iris_l"], pair=["iris_r", "iris_l"]).unit
    assert Markup("one", ["nose"]).unit == "the side of the face box"
