"""Confidence says how often points are near their labels."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fkp.calibration import calibrate, confidence, reliability
from fkp.codecs import SoftArgmax
from fkp.module import KeypointModule
from fkp.networks import HeatMaps


@settings(deadline=None, max_examples=25)
@given(st.floats(-12, 2), st.floats(-4, 0), st.integers(0, 99))
def test_the_law_that_made_the_points_is_found_again(a: float, b: float, seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    spread = torch.exp(torch.randn(20000, generator=random) - 3)
    chance = confidence(spread, (a, b))
    near = torch.rand(20000, generator=random) < chance
    found = confidence(spread, calibrate(spread, near))
    assert (found - chance).abs().mean() < 0.02
    for said, true, count in reliability(found, near):
        assert said == pytest.approx(true, abs=0.06) and count == 2000


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_points_that_are_all_near_or_all_far_have_a_finite_fit(share: float) -> None:
    spread = torch.rand(500) + 0.01
    sure = confidence(spread, calibrate(spread, torch.full((500,), share > 0.5)))
    assert torch.isfinite(sure).all() and (sure - share).abs().max() < 0.05


def test_points_that_do_not_vary_are_as_sure_as_their_share() -> None:
    near = torch.arange(400) % 4 != 0
    sure = confidence(torch.full((400,), 0.1), calibrate(torch.full((400,), 0.1), near))
    assert sure.mean().item() == pytest.approx(0.75, abs=0.01)


def test_a_wider_map_is_less_sure() -> None:
    y, x = torch.meshgrid(torch.arange(32), torch.arange(32), indexing="ij")
    maps = torch.stack(
        [-((x - 15) ** 2 + (y - 12) ** 2) / (2 * width**2) for width in (1.0, 2.0, 4.0)]
    )[None]
    codec = SoftArgmax(128, 1.28, calibration=(-9.0, -3.0))
    points, sure = codec.decode(maps)
    np.testing.assert_allclose(
        codec.spread(maps)[0, :2], np.sqrt(2) * np.array([1, 2]) / 32, rtol=0.02
    )
    assert sure[0, 0] > sure[0, 1] > sure[0, 2] and ((sure > 0) & (sure < 1)).all()
    plain, ones = SoftArgmax(128, 1.28).decode(maps)
    assert torch.equal(plain, points) and (ones == 1).all()


@pytest.mark.parametrize("held_out", [True, False])
def test_faces_that_are_trained_on_do_not_calibrate(held_out: bool) -> None:
    module = KeypointModule(
        lambda points: HeatMaps(points, width=4),
        SoftArgmax(32, calibration=(1.0, 2.0)),
        torch.nn.L1Loss(),
        torch.optim.SGD,
    )
    data = SimpleNamespace(held_out=held_out)
    trainer = SimpleNamespace(datamodule=data)
    module.trainer = trainer  # type: ignore[assignment]
    module.uncertainty.update(torch.rand(9, 68) + 0.01, 0.1 * torch.rand(9, 68))
    module.on_validation_epoch_end()
    assert (module.codec.calibration == (1.0, 2.0)) != held_out
    assert not module.uncertainty.update_count
