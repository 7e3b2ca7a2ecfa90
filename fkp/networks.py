"""Pure torch: image (B, C, h, w) to raw output, which a codec turns into points."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from fkp.errors import FkpError
from fkp.files.torch_archive import read


class TwoConv(nn.Module):
    """The published network: two convolutions, dropout 0.1 and 0.2, one linear layer.

    The published text gives neither kernels nor strides. A stride of 2 and a pool of 4 early make a step on a CPU ten
    times cheaper than the obvious sizes (32 5x5, 64 3x3, pools of 2: 25 M parameters) and train better.

    Args:
        points: K, key points.
        size: side of the input, CROP pixels.
        channels: of the input.
        width: kernels of the first convolution; the second has twice as many.
        dropout: after the first and after the second convolution.
    """

    def __init__(
        self,
        points: int = 68,
        size: int = 224,
        channels: int = 1,
        width: int = 32,
        dropout: tuple[float, float] = (0.1, 0.2),
    ):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(channels, width, 5, stride=2, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(4),
            nn.Dropout(dropout[0]),
            nn.Conv2d(width, 2 * width, 3),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Dropout(dropout[1]),
            nn.Flatten(),
        )
        with torch.no_grad():
            features = self.features(torch.zeros(1, channels, size, size)).shape[1]
        self.head = nn.Linear(features, 2 * points)
        nn.init.zeros_(self.head.weight)

    def start_at(self, output: Tensor) -> None:
        """Let the untrained network answer `output` (2 K,), the encoded mean face, whatever it sees."""
        with torch.no_grad():
            self.head.bias.copy_(output.flatten())

    def forward(self, image: Tensor) -> Tensor:
        """(B, C, size, size) in [0, 1] to (B, 2 K)."""
        return self.head(self.features(image))


class HeatMaps(nn.Module):
    """A small residual trunk and a feature pyramid that ends in one map a point, a quarter of the input's side.

    After Lin et al., "Feature Pyramid Networks" (2017), on a trunk after He et al., "Deep Residual Learning" (2016).
    The crop is standardised (mean 0, deviation 1) inside, so that light and contrast matter less.

    Args:
        points: K, key points.
        channels: of the input.
        width: kernels of the first convolution; all others follow from it.
    """

    def __init__(self, points: int = 68, channels: int = 1, width: int = 16):
        super().__init__()
        w1, w2, w3 = 2 * width, 4 * width, 7 * width
        self.stem = _convolution(channels, width, 5, stride=2)
        self.fine = _Residual(width, w1, stride=2)
        self.middle = nn.Sequential(_Residual(w1, w2, stride=2), _Residual(w2, w2))
        self.coarse = nn.Sequential(_Residual(w2, w3, stride=2), _Residual(w3, w3), _Residual(w3, w3))
        self.lateral = nn.ModuleList([nn.Conv2d(w, w2, 1) for w in (w1, w2, w3)])
        # Depthwise: a full 3x3 here, where the maps are largest, would be a quarter of the network's work.
        self.smooth = nn.Sequential(
            nn.Conv2d(w2, w2, 3, padding=1, groups=w2, bias=False), nn.BatchNorm2d(w2), _convolution(w2, w2, 1)
        )
        self.maps = nn.Conv2d(w2, points, 1)

    def forward(self, image: Tensor) -> Tensor:
        """(B, C, h, w) in [0, 1] to logits (B, K, h / 4, w / 4)."""
        centred = image - image.mean((2, 3), keepdim=True)
        deviation = centred.square().mean((2, 3), keepdim=True).sqrt()  # `std` would be a dozen steps in ONNX
        fine = self.fine(self.stem(centred / (deviation + 0.03)))
        middle = self.middle(fine)
        coarse = self.coarse(middle)
        features = self.lateral[2](coarse)
        for lateral, finer in ((self.lateral[1], middle), (self.lateral[0], fine)):
            size = [int(side) for side in finer.shape[2:]]  # numbers, which ONNX need not find out anew for each face
            features = lateral(finer) + F.interpolate(features, size=size, mode="bilinear")
        # Each map in one piece, as codecs sum over maps: where channels come last, they would copy them in every sum.
        return self.maps(self.smooth(F.relu(features))).contiguous()


class Transfer(nn.Module):
    """A torchvision backbone, trained for ImageNet if its weights are given, and one linear layer to the points.

    Args:
        points: K, key points.
        size: side of the input, CROP pixels.
        backbone: a torchvision classifier's name, such as mobilenet_v3_small or resnet18; what it does before it pools.
        weights: `imagenet` for torchvision's, downloaded once; or a file of them; or None for none.
        width: channels that the linear layer sees of each place.

    Raises:
        FkpError: no such backbone, or its weights cannot be had.
    """

    # What torchvision's classifiers were trained on: RGB, standardised with ImageNet's mean and deviation.
    MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

    def __init__(
        self,
        points: int = 68,
        size: int = 112,
        backbone: str = "mobilenet_v3_small",
        weights: str | None = None,
        width: int = 64,
    ):
        super().__init__()
        self.backbone = _backbone(backbone, weights)
        self.mean: Tensor
        self.deviation: Tensor
        self.register_buffer("mean", torch.tensor(self.MEAN)[:, None, None], persistent=False)
        self.register_buffer("deviation", torch.tensor(self.DEVIATION)[:, None, None], persistent=False)
        with torch.no_grad():
            _, channels, height, wide = self.backbone.eval()(torch.zeros(1, 3, size, size)).shape
        self.backbone.train()
        self.neck = _convolution(channels, width, 1)
        self.head = nn.Linear(width * height * wide, 2 * points)
        nn.init.zeros_(self.head.weight)

    start_at = TwoConv.start_at

    def forward(self, image: Tensor) -> Tensor:
        """(B, 1 or 3, size, size) in [0, 1] to (B, 2 K)."""
        return self.head(self.neck(self.backbone((image - self.mean) / self.deviation)).flatten(1))


def _backbone(name: str, weights: str | None) -> nn.Sequential:
    """The part of a torchvision classifier before its pooling."""
    with torch.device("cpu"):  # wherever the network is being made: the package makes tensors of its own
        from torchvision import models  # a second of imports that no other network needs
    if name not in models.list_models(models):  # others than classifiers would fetch weights unasked
        raise FkpError(f"model.network.backbone={name}: torchvision has no such model that classifies")
    place = torch.empty(0).device  # where the network is being made
    with torch.device("cpu" if name.startswith("regnet") else place):  # which computes its widths with tensors
        classifier = models.get_model(name, weights=None).to(place)
    if weights is not None:
        state = _imagenet(name) if weights == "imagenet" else _of_file(weights)
        try:
            classifier.load_state_dict(state)
        except (RuntimeError, TypeError, AttributeError) as error:
            reason = (str(error).splitlines() or [""])[-1].strip()
            raise FkpError(f"model.network.weights={weights}: do not fit {name} ({reason})") from None
    layers: list[nn.Module] = []
    for layer in classifier.children():
        if isinstance(layer, (nn.AdaptiveAvgPool2d, nn.Linear)):
            break
        layers.append(layer)
    return nn.Sequential(*layers)


def _imagenet(name: str) -> dict[str, Tensor]:
    from torchvision import models

    best = models.get_model_weights(name).DEFAULT
    try:
        return dict(best.get_state_dict(progress=True, check_hash=True))
    except (OSError, RuntimeError) as error:  # no network; or another file than torchvision expects
        raise FkpError(
            f"model.network.weights=imagenet: {best.url} cannot be fetched ({error}); fetch it elsewhere and give "
            "the file, model.network.weights=path, or train without, model.network.weights=null"
        ) from None


def _of_file(path: str) -> dict[str, Tensor]:
    try:
        return read(Path(path))
    except FkpError as error:
        raise FkpError(f"model.network.weights={error}") from None


def fused(network: nn.Module) -> nn.Module:
    """A network for prediction alone, in place: each batch norm becomes part of the convolution right before it, which
    takes a tenth of the time off and changes points by less than a thousandth of a pixel."""
    for part in network.children():
        fused(part)
    if isinstance(network, nn.Sequential):
        for i, (first, second) in enumerate(pairwise(list(network))):
            if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
                network[i], network[i + 1] = fuse_conv_bn_eval(first.eval(), second.eval()), nn.Identity()
    return network.eval()


class _Residual(nn.Module):
    def __init__(self, inner: int, outer: int, stride: int = 1):
        super().__init__()
        self.first = _convolution(inner, outer, 3, stride)
        self.second = nn.Sequential(nn.Conv2d(outer, outer, 3, padding=1, bias=False), nn.BatchNorm2d(outer))
        same = inner == outer and stride == 1
        self.short = nn.Identity() if same else nn.Conv2d(inner, outer, 1, stride, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        return F.relu(self.short(features) + self.second(self.first(features)))


def _convolution(inner: int, outer: int, size: int, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(inner, outer, size, stride, padding=size // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outer), nn.ReLU(inplace=True))
