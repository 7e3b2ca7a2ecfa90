"""Test the map from a trained network to other points: its coordinates, and its closed form."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fkp import own_points
from fkp.codecs import Located, SoftArgmax
from fkp.geometry import apply, similarity
from fkp.networks import HeatMaps
from fkp.point_map import PointMap, Seen, turn

SIZE, J = 64, 7
IMAGES = torch.rand(5, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(0))


def point_map(points: int) -> PointMap:
    torch.manual_seed(0)
    trunk = HeatMaps(points=J, width=4)
    with torch.no_grad():
        trunk.maps.weight.mul_(30)  # maps with clear maxima
    network = PointMap(points, trunk, SoftArgmax(SIZE, 0.64)).eval()
    with torch.no_grad():
        network.shape.copy_(network.see(IMAGES).found.mean(0))
    return network


@pytest.mark.parametrize("chosen", [[3], [0, 6], [5, 1, 2, 4, 0]])
def test_a_map_that_selects_points_of_the_trunk_decodes_to_them(chosen: list[int]) -> None:
    network = point_map(len(chosen))
    for k, j in enumerate(chosen):
        network.weight.data[2 * j, 2 * k] = network.weight.data[2 * j + 1, 2 * k + 1] = 1.0
    with torch.no_grad():
        points, _ = Located(SIZE, 0.64).decode(network(IMAGES))
        expected, _ = network.codec.decode(network.trunk(IMAGES))
    torch.testing.assert_close(points, expected[:, chosen], atol=1e-3, rtol=0)


def test_a_correction_moves_its_point_alone() -> None:
    network = point_map(3)
    with torch.no_grad():
        before = network(IMAGES)
        network.local_bias[1] = torch.tensor([2.0, 0.0])
        moved = (network(IMAGES) - before)[..., :2].norm(dim=2)
    assert (moved[:, 1] > 1e-3).all() and moved[:, [0, 2]].abs().max() == 0


@settings(max_examples=30, deadline=None)
@given(st.floats(-3, 3), st.floats(0.2, 5), st.floats(-40, 40), st.floats(-40, 40))
def test_alignment_is_a_least_squares_similarity_and_is_undone(
    angle: float, scale: float, x: float, y: float
) -> None:
    rng = np.random.default_rng(1)
    shape = rng.normal(0, 20, (J, 2))
    factor = scale * np.exp(1j * angle)
    seen = (shape[:, 0] + 1j * shape[:, 1]) * factor + complex(x, y)
    found = np.stack([seen.real, seen.imag], -1)[None] + rng.normal(0, 0.5, (1, J, 2))

    network = point_map(1)
    points = torch.from_numpy(found)
    one = torch.zeros(1)
    view = Seen(one, points, one, turn(points, torch.from_numpy(shape)))
    aligned = network.aligned(view, points)
    expected = apply(similarity(found, shape), found) - shape.mean(0)
    np.testing.assert_allclose(aligned.numpy(), expected, atol=1e-6 * scale + 1e-6)
    torch.testing.assert_close(network.unaligned(view, aligned), points)


def test_features_are_sampled_at_the_place_of_the_pixel() -> None:
    """A feature that is the x coordinate of its cell is interpolated to x."""
    network = point_map(1)
    cells = ((torch.arange(16) + 0.5) / 16 - 0.5) * 128  # UNITS
    features = cells.repeat(16, 1)[None, None]
    places = torch.tensor([[[-30.0, 5.0], [0.0, 0.0], [41.5, -7.0]]])
    torch.testing.assert_close(network._sample(features, places)[0, :, 0], places[0, :, 0])


@pytest.mark.parametrize("size", [3, 60])
def test_ridge_is_the_regularised_least_squares_of_each_column(size: int) -> None:
    rng = np.random.default_rng(size)
    x, y = rng.normal(1, 2, (20, size)), rng.normal(5, 1, (20, 4))
    y[:6, 1] = y[3:9, 2] = np.nan
    y[:, 3] = np.nan
    fits = own_points.ridge(torch.from_numpy(x), torch.from_numpy(y), [0.5, 20.0])
    for penalty, (weight, bias) in zip([0.5, 20.0], fits, strict=True):
        for column in range(3):
            known = np.isfinite(y[:, column])
            centred, target = x[known] - x[known].mean(0), y[known, column]
            rows = np.vstack([centred, np.sqrt(penalty) * np.eye(size)])
            wanted = np.linalg.lstsq(
                rows, np.r_[target - target.mean(), np.zeros(size)], rcond=None
            )[0]
            np.testing.assert_allclose(weight[:, column], wanted, atol=1e-8)
            np.testing.assert_allclose(bias[column], target.mean() - x[known].mean(0) @ wanted)
        assert (weight[:, 3] == 0).all() and torch.isfinite(bias).all()


@pytest.mark.parametrize("people", [1, 2, 3, 4, 30])
def test_there_are_three_folds_of_few_people_too(people: int) -> None:
    names = [f"person{i % people}" for i in range(30)]
    folds = own_points._folds(names)
    assert len(set(folds.tolist())) == min(5, max(people, 5 if people < 3 else people))
    if people >= 3:
        assert all(
            len({f for f, n in zip(folds, names, strict=True) if n == who}) == 1 for who in names
        )


def test_the_map_is_differentiable_everywhere() -> None:
    network = point_map(2).train()
    network(IMAGES)[..., :2].sum().backward()
    parts = [network.weight, network.bias, network.local_bias, network.trunk.stem[0].weight]
    network.local_weight.data.normal_()
    assert all(part.grad is not None and torch.isfinite(part.grad).all() for part in parts)
