"""Wing loss against its definition, and what every loss here must keep to."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fkp.losses import WingLoss


@given(st.floats(0.5, 20), st.floats(0.1, 5), st.floats(-100, 100))
def test_wing_is_what_its_paper_says(width: float, curvature: float, error: float) -> None:
    x = abs(error)
    logarithm = width * math.log(1 + x / curvature)
    expected = logarithm if x < width else x - width + width * math.log(1 + width / curvature)
    loss = WingLoss(width, curvature)(
        torch.tensor([error], dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    )
    assert loss.item() == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_wing_pulls_harder_at_small_errors_than_l1() -> None:
    errors = torch.tensor([0.5, 3.0, 20.0], requires_grad=True)
    (gradient,) = torch.autograd.grad(WingLoss(10.0, 2.0)(errors, torch.zeros(3)) * 3, errors)
    torch.testing.assert_close(gradient, torch.tensor([4.0, 2.0, 1.0]))


def test_wing_of_nothing_is_nought_and_of_no_width_refused() -> None:
    assert WingLoss()(torch.zeros(0), torch.zeros(0)) == 0
    with pytest.raises(ValueError, match="positive"):
        WingLoss(width=0)
