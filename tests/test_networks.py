"""The laws that every network and codec obeys."""

import pytest
import torch

from fkp.codecs import Coordinates
from fkp.networks import TwoConv

NETWORKS = {"two_conv": (lambda: TwoConv(size=64, width=4), Coordinates(64))}


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
def test_decode_undoes_encode(name: str) -> None:
    _, codec = NETWORKS[name]
    points = torch.rand(3, 68, 2) * 64
    decoded, confidence = codec.decode(codec.encode(points))
    torch.testing.assert_close(decoded, points, atol=1e-4, rtol=0)
    assert confidence.shape == (3, 68) and ((confidence >= 0) & (confidence <= 1)).all()


@pytest.mark.parametrize("name", NETWORKS)
def test_starts_at_the_mean_face(name: str) -> None:
    make, codec = NETWORKS[name]
    network, mean = make().eval(), torch.rand(68, 2) * 64
    network.start_at(codec.encode(mean[None])[0])
    points, _ = codec.decode(network(torch.rand(2, 1, 64, 64)))
    torch.testing.assert_close(points, mean.expand(2, -1, -1), atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", NETWORKS)
def test_one_face_alone_is_as_in_a_batch(name: str) -> None:
    make, _ = NETWORKS[name]
    network, images = make().eval(), torch.rand(5, 1, 64, 64)
    with torch.no_grad():
        network.head.weight.normal_()
        torch.testing.assert_close(network(images)[2:3], network(images[2:3]), atol=1e-4, rtol=1e-4)


def test_published_sizes() -> None:
    assert sum(p.numel() for p in TwoConv().parameters()) == 1_490_440
