"""The laws that every network and codec obeys."""

import math
from pathlib import Path

import pytest
import torch

from fkp.codecs import Coordinates, SoftArgmax
from fkp.errors import FkpError
from fkp.geometry import mirroring
from fkp.markup import IBUG68
from fkp.module import KeypointModule, to_crop_space, upright
from fkp.networks import HeatMaps, Transfer, TwoConv, fused

NETWORKS = {
    "two_conv": (lambda: TwoConv(size=64, width=4), Coordinates(64)),
    "heatmap": (lambda: HeatMaps(width=4), SoftArgmax(64)),
    "transfer": (lambda: Transfer(size=64, backbone="resnet18", width=4), Coordinates(64)),
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
    torch.testing.assert_close(
        codec.encode(points), codec.coordinates(output), atol=1e-4, rtol=1e-4
    )
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
            share = (part[..., 0] if dx else 1 - part[..., 0]) * (
                part[..., 1] if dy else 1 - part[..., 1]
            )
            b, k = torch.meshgrid(torch.arange(2), torch.arange(68), indexing="ij")
            maps[b, k, low[..., 1] + dy, low[..., 0] + dx] += share
    decoded, _ = SoftArgmax(64).decode(maps.clamp_min(1e-12).log())
    torch.testing.assert_close(decoded, points, atol=1e-3, rtol=0)
    middle, _ = SoftArgmax(64).decode(torch.zeros(1, 68, side, side))
    torch.testing.assert_close(middle, torch.full_like(middle, 31.5))


def test_the_least_surprised_maps_are_those_that_decode_to_the_label() -> None:
    codec, label = SoftArgmax(64), 3 + 57 * torch.rand(2, 68, 2)
    x, y = (codec._cell_weights(label[..., axis], 16) for axis in (0, 1))
    best = (y[..., None] * x[..., None, :]).clamp_min(1e-12).log()
    torch.testing.assert_close(codec.decode(best)[0], label, atol=1e-3, rtol=0)
    least = codec.nll(best, label)
    assert least.shape == (2, 68) and (least <= math.log(4) + 1e-3).all()
    for other in (best / 2, best.roll(1, -1), torch.randn_like(best)):
        assert (codec.nll(other, label) > least - 1e-4).all()


def test_only_labelled_points_surprise() -> None:
    module = KeypointModule(
        lambda points: HeatMaps(points, width=4),
        SoftArgmax(32),
        torch.nn.L1Loss(),
        torch.optim.SGD,
        nll_weight=1.0,
    )
    label, image = 32 * torch.rand(2, 68, 2), torch.rand(2, 1, 32, 32)
    label[0, 5] = torch.nan
    batch = {"image": image, "points": label, "to_crop": torch.eye(2, 3).expand(2, 2, 3)}
    module.training_step(batch, 0).backward()
    gradient = module.network.maps.weight.grad
    assert torch.isfinite(gradient).all() and gradient.abs().sum() > 0
    label[:, 7] = torch.nan
    module.zero_grad()
    module.training_step(batch, 0).backward()
    gradient = module.network.maps.weight.grad
    assert (gradient[7] == 0).all() and gradient[5].abs().sum() > 0


def test_faces_whose_labels_lean_are_learnt_the_same_in_the_mirror() -> None:
    """Without their offset, labels lie on the face; in a mirrored crop, on its mirror image."""
    face, to_crop = (
        10 + 40 * torch.rand(3, 68, 2),
        torch.tensor([[0.9, -0.3, 2.0], [0.3, 0.9, 1.0]]).expand(3, 2, 3),
    )
    leaning = face + 0.02 * (face[:, 45] - face[:, 36])[:, None]
    torch.testing.assert_close(
        upright(to_crop_space(leaning, to_crop), to_crop, 0.02, IBUG68),
        to_crop_space(face, to_crop),
    )
    over = torch.from_numpy(mirroring(64)).float().expand(3, 2, 3)
    swapped, mirrored = leaning[:, IBUG68.flip_indices], to_crop * torch.tensor([[-1.0], [1.0]])
    mirrored = mirrored + torch.tensor([[0, 0, 63.0], [0, 0, 0]])
    torch.testing.assert_close(
        to_crop_space(to_crop_space(leaning, to_crop), over), to_crop_space(leaning, mirrored)
    )
    there = upright(to_crop_space(swapped, mirrored), mirrored, 0.02, IBUG68)
    torch.testing.assert_close(there, to_crop_space(face, mirrored)[:, IBUG68.flip_indices])
    leaning[0, 36] = torch.nan
    assert torch.isfinite(upright(leaning, to_crop, 0.02, IBUG68)[0, 37:]).all()


@pytest.mark.parametrize("name", NETWORKS)
def test_a_fused_network_answers_as_before(name: str) -> None:
    network, image = NETWORKS[name][0](), torch.rand(4, 1, 64, 64)
    network.train()(image)  # norms of their own
    before = network.eval()(image)
    norms = sum(isinstance(part, torch.nn.BatchNorm2d) for part in network.modules())
    torch.testing.assert_close(fused(network)(image), before, atol=1e-4, rtol=1e-4)
    after = sum(isinstance(part, torch.nn.BatchNorm2d) for part in network.modules())
    assert after < norms or not norms
    assert name != "heatmap" or not after


@pytest.mark.parametrize("name", ["two_conv", "transfer"])
def test_starts_at_the_mean_face(name: str) -> None:
    make, codec = NETWORKS[name]
    network, mean = make().eval(), torch.rand(68, 2) * 64
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
        together, alone = (
            codec.decode(network(images))[0][2:3],
            codec.decode(network(images[2:3]))[0],
        )
    torch.testing.assert_close(together, alone, atol=1e-2, rtol=1e-4)


def test_published_sizes() -> None:
    assert sum(p.numel() for p in TwoConv().parameters()) == 1_490_440


def test_heat_maps_stay_under_a_million_parameters() -> None:
    assert sum(p.numel() for p in HeatMaps().parameters()) < 1_000_000


@pytest.mark.parametrize(
    "backbone", ["mobilenet_v3_small", "shufflenet_v2_x0_5", "efficientnet_b0", "densenet121"]
)
def test_any_backbone_of_torchvision_keeps_places(backbone: str) -> None:
    assert Transfer(size=64, backbone=backbone, width=4).eval()(torch.rand(2, 1, 64, 64)).shape == (
        2,
        136,
    )


@pytest.mark.parametrize("backbone", ["mobilenet_v3_small", "regnet_y_400mf"])
def test_any_backbone_can_be_made_without_memory(backbone: str) -> None:
    with torch.device("meta"):
        network = Transfer(size=64, backbone=backbone, width=4)
    assert all(weight.is_meta for weight in network.parameters())


def test_transfer_takes_weights_of_a_file(tmp_path: Path) -> None:
    from torchvision.models import resnet18

    donor = resnet18()
    torch.save(donor.state_dict(), tmp_path / "resnet18.pth")
    backbone = Transfer(
        size=64, backbone="resnet18", weights=str(tmp_path / "resnet18.pth")
    ).backbone
    torch.testing.assert_close(backbone[0].weight, donor.conv1.weight, atol=0, rtol=0)


def test_weights_that_cannot_be_had_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from urllib.error import URLError

    def offline(*_: object, **__: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr("torch.hub.download_url_to_file", offline)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "text.pth").write_text("no weights")
    torch.save({"other": torch.zeros(1)}, tmp_path / "other.pth")
    for weights, message in [
        ("imagenet", "cannot be downloaded .*no route to host.*weights=null"),
        (str(tmp_path / "gone.pth"), "gone.pth: cannot be read"),
        (str(tmp_path / "text.pth"), "text.pth: not a file of torch"),
        (str(tmp_path / "other.pth"), "do not fit resnet18"),
    ]:
        with pytest.raises(FkpError, match=message):
            Transfer(size=64, backbone="resnet18", weights=weights)
    with pytest.raises(FkpError, match="resnet81: torchvision has no classifier"):
        Transfer(backbone="resnet81")
