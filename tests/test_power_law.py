"""Test the power law: a known one is found again, and no fit leaves its bounds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fkp.power_law import fit

SIZES = np.array([20, 30, 46, 70, 106, 160])


@pytest.mark.parametrize("a", [0.0, 2.5])
@pytest.mark.parametrize("c", [0.2, 0.5, 1.0, 2.0])
def test_a_known_law_is_found_again(a: float, c: float) -> None:
    law = fit(SIZES, a + 9 * SIZES**-c)
    assert float(law.c) == pytest.approx(c, abs=1e-9)
    assert law(640) == pytest.approx(a + 9 * 640**-c)


@settings(max_examples=100, deadline=None)
@given(arrays(float, (3, 6), elements=st.floats(0.1, 30)))
def test_the_error_of_more_faces_is_never_higher_and_never_below_zero(errors: np.ndarray) -> None:
    law = fit(SIZES, errors)
    assert (law.a >= 0).all() and (law.b >= 0).all() and ((law.c >= 0) & (law.c <= 2)).all()
    assert (law(320) <= law(160) + 1e-9).all() and (law(1e9) >= 0).all()

    # Each row is fitted by itself.
    alone = fit(SIZES, errors[1])
    assert float(alone(320)) == pytest.approx(float(law(320)[1]))


def test_errors_that_rise_are_a_constant() -> None:
    law = fit(SIZES, np.linspace(1, 2, 6))
    assert float(law(10)) == pytest.approx(float(law(10_000)))
