import numpy as np
import pytest

from fkp.errors import FkpError
from fkp.markup import IBUG68, Markup, load_markup
from fkp.sources import painter


def test_flip_is_its_own_inverse_and_swaps_sides() -> None:
    flip = IBUG68.flip
    np.testing.assert_array_equal(flip[flip], np.arange(68))
    assert flip[36] == 45 and flip[0] == 16 and flip[8] == 8 and flip[48] == 54 and flip[60] == 64


def test_flipped_faces_look_like_faces_only_with_the_swap() -> None:
    faces = np.stack([painter.paint(0, i)[1] for i in range(20)])
    faces -= faces.mean(1, keepdims=True)
    mirrored = (faces * (-1, 1)).mean(0)
    assert np.abs(mirrored[IBUG68.flip] - faces.mean(0)).mean() < 0.25 * np.abs(mirrored - faces.mean(0)).mean()


def test_plain_values_make_it_again() -> None:
    assert Markup(**IBUG68.as_dict()) == IBUG68


def test_regions_and_lines_cover_all_points() -> None:
    inside = sorted(i for first, last in IBUG68.regions.values() for i in range(first, last + 1))
    assert inside == list(range(68))
    drawn = sorted(i for kind in IBUG68.lines.values() for first, last in kind for i in range(first, last + 1))
    assert drawn == list(range(68))


def test_unknown_markup_names_the_known() -> None:
    with pytest.raises(FkpError, match="ibug68"):
        load_markup("ibug67")


def test_point_without_partner_is_named() -> None:
    values = IBUG68.as_dict() | {"points": [*IBUG68.points[:-1], "ear"]}
    with pytest.raises(FkpError, match="mouth_left_bottom has no partner mouth_right_bottom"):
        _ = Markup(**values).flip
