"""The laws that every network and codec obeys."""

import pytest
import torch

from fkp.codecs import Coordinates, SoftArgmax
from fkp.networks import HeatMaps, TwoConv

NETWORKS = {
    "two_conv": (lambda: TwoConv(size=64, width=4), Coordinates(64)),
    "heatmap": (lambda: HeatMaps(width=4), SoftArgmax(64)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_gradient_reaches_every_parameter(name: str) -> None:
    make, codec = NETWORKS[name]
    network = make()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(0, 0.1)
    network(torch.rand(4, 1, 64, 64)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


@pytest.mark.parametrize("name", NETWORKS)
def test_what_a_loss_compares_is_what_is_decoded(name: str) -> None:
    make, codec = NETWORKS[name]
    output = make().eval()(torch.rand(3, 1, 64, 64))
    points, confidence = codec.decode(output)
    torch.testing.assert_close(codec.encode(points), codec.coordinates(output), atol=1e-4, rtol=1e-4)
    assert points.shape == (3, 68, 2) and confidence.shape == (3, 68)
    assert ((confidence >= 0) & (confidence <= 1)).all()


@pytest.mark.parametrize("name", NETWORKS)
def test_points_undoes_encode(name: str) -> None:
    points, codec = torch.rand(3, 68, 2) * 64, NETWORKS[name][1]
    torch.testing.assert_close(codec.points(codec.encode(points)), points, atol=1e-4, rtol=0)


def test_a_map_that_surrounds_a_point_decodes_to_it() -> None:
    """Mass shared by the four cells round a point, each the more the nearer, has its mean there."""
    points, side = torch.rand(2, 68, 2) * 50 + 6, 16
    cells = (points + 0.5) * side / 64 - 0.5
    low, part = cells.floor().long(), cells - cells.floor()
    maps = torch.zeros(2, 68, side, side)
    for dx in (0, 1):
        for dy in (0, 1):
            share = (part[..., 0] if dx else 1 - part[..., 0]) * (part[..., 1] if dy else 1 - part[..., 1])
            b, k = torch.meshgrid(torch.arange(2), torch.arange(68), indexing="ij")
            maps[b, k, low[..., 1] + dy, low[..., 0] + dx] += share
    decoded, _ = SoftArgmax(64).decode(maps.clamp_min(1e-12).log())
    torch.testing.assert_close(decoded, points, atol=1e-3, rtol=0)
    middle, _ = SoftArgmax(64).decode(torch.zeros(1, 68, side, side))
    torch.testing.assert_close(middle, torch.full_like(middle, 31.5))


def test_starts_at_the_mean_face() -> None:
    network, codec, mean = TwoConv(size=64, width=4).eval(), Coordinates(64), torch.rand(68, 2) * 64
    network.start_at(codec.encode(mean[None])[0])
    points, _ = codec.decode(network(torch.rand(2, 1, 64, 64)))
    torch.testing.assert_close(points, mean.expand(2, -1, -1), atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", NETWORKS)
def test_one_face_alone_is_as_in_a_batch(name: str) -> None:
    make, codec = NETWORKS[name]
    network, images = make().eval(), torch.rand(5, 1, 64, 64)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(0, 0.1)
        together, alone = codec.decode(network(images))[0][2:3], codec.decode(network(images[2:3]))[0]
    torch.testing.assert_close(together, alone, atol=1e-2, rtol=1e-4)


def test_published_sizes() -> None:
    assert sum(p.numel() for p in TwoConv().parameters()) == 1_490_440


def test_heat_maps_stay_under_a_million_parameters() -> None:
    assert sum(p.numel() for p in HeatMaps().parameters()) < 1_000_000
