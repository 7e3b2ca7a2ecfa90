"""Networks: images (B, C, h, w) in [0, 1] to raw output, which a codec decodes to points.

Pure torch modules. Each takes the number of points; those with `start_at` can begin training at
the mean face instead of at random points.
"""

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

    The published text gives neither kernel sizes nor strides. An early stride of 2 and pool of 4
    cost a tenth of the obvious sizes (32 5x5, 64 3x3, pools of 2: 25 M parameters) and train
    better.

    Args:
        points: K, the number of key points.
        size: side of the input, CROP pixels.
        channels: of the input.
        width: channels of the first convolution; the second has twice as many.
        dropout: probabilities after the first and the second convolution.
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
        """Make the untrained network emit `output` (2 K,), the encoded mean face, for any image."""
        with torch.no_grad():
            self.head.bias.copy_(output.flatten())

    def forward(self, image: Tensor) -> Tensor:
        """Map images (B, C, size, size) in [0, 1] to coordinates (B, 2 K)."""
        return self.head(self.features(image))


class HeatMaps(nn.Module):
    """A small residual trunk and a feature pyramid that emit one heat map per point.

    A map has a quarter of the input's side. The network standardises each crop (mean 0, standard
    deviation 1), so that brightness and contrast matter less.

    Source: Lin et al., "Feature Pyramid Networks" (2017), on a trunk after He et al., "Deep
    Residual Learning" (2016).

    Args:
        points: K, the number of key points.
        channels: of the input.
        width: channels of the first convolution; all others follow from it.
    """

    def __init__(self, points: int = 68, channels: int = 1, width: int = 16):
        super().__init__()
        w1, w2, w3 = 2 * width, 4 * width, 7 * width
        self.stem = _convolution(channels, width, 5, stride=2)
        self.fine = _Residual(width, w1, stride=2)
        self.middle = nn.Sequential(_Residual(w1, w2, stride=2), _Residual(w2, w2))
        self.coarse = nn.Sequential(
            _Residual(w2, w3, stride=2), _Residual(w3, w3), _Residual(w3, w3)
        )
        self.lateral = nn.ModuleList([nn.Conv2d(w, w2, 1) for w in (w1, w2, w3)])
        # Depthwise: a full 3x3 convolution on the largest maps would be a quarter of the work.
        self.smooth = nn.Sequential(
            nn.Conv2d(w2, w2, 3, padding=1, groups=w2, bias=False),
            nn.BatchNorm2d(w2),
            _convolution(w2, w2, 1),
        )
        self.maps = nn.Conv2d(w2, points, 1)

    def features(self, image: Tensor) -> Tensor:
        """Map images (B, C, h, w) in [0, 1] to features (B, 4 width, h / 4, w / 4)."""
        # Standardise the crop. `Tensor.std` would be a dozen nodes in ONNX.
        centred = image - image.mean((2, 3), keepdim=True)
        std = centred.square().mean((2, 3), keepdim=True).sqrt()

        # Trunk.
        fine = self.fine(self.stem(centred / (std + 0.03)))  # (B, 2 width, h / 4, w / 4)
        middle = self.middle(fine)  # (B, 4 width, h / 8, w / 8)
        coarse = self.coarse(middle)  # (B, 7 width, h / 16, w / 16)

        # Feature pyramid, from coarse to fine.
        features = self.lateral[2](coarse)
        for lateral, finer in ((self.lateral[1], middle), (self.lateral[0], fine)):
            # Plain numbers, so that ONNX does not compute the size for each batch.
            size = [int(side) for side in finer.shape[2:]]
            features = lateral(finer) + F.interpolate(features, size=size, mode="bilinear")
        return self.smooth(F.relu(features))

    def forward(self, image: Tensor) -> Tensor:
        """Map images (B, C, h, w) in [0, 1] to logits (B, K, h / 4, w / 4)."""
        # Contiguous maps: codecs sum over each map, and would copy them with channels last.
        return self.maps(self.features(image)).contiguous()


class Transfer(nn.Module):
    """A torchvision backbone and one linear layer to the points.

    Args:
        points: K, the number of key points.
        size: side of the input, CROP pixels.
        backbone: name of a torchvision classifier, such as mobilenet_v3_small or resnet18; its
            layers before the pooling are used.
        weights: `imagenet` for torchvision's, downloaded once; or the path of a file; or None.
        width: channels that the linear layer sees of each cell.

    Raises:
        FkpError: no such backbone, or its weights cannot be loaded.
    """

    # Mean and standard deviation of ImageNet's RGB, by which torchvision's weights expect images.
    MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

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
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(self.MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(self.STD)[:, None, None], persistent=False)

        # One forward pass tells the shape of the features.
        with torch.no_grad():
            features = self.backbone.eval()(torch.zeros(1, 3, size, size))
        self.backbone.train()
        _, channels, height, wide = features.shape

        self.neck = _convolution(channels, width, 1)
        self.head = nn.Linear(width * height * wide, 2 * points)
        nn.init.zeros_(self.head.weight)

    start_at = TwoConv.start_at

    def forward(self, image: Tensor) -> Tensor:
        """Map images (B, 1 or 3, size, size) in [0, 1] to coordinates (B, 2 K)."""
        features = self.backbone((image - self.mean) / self.std)
        return self.head(self.neck(features).flatten(1))


def _backbone(name: str, weights: str | None) -> nn.Sequential:
    """Build the layers of a torchvision classifier before its pooling."""
    # Importing torchvision makes tensors of its own, which must not land on the `meta` device; and
    # it takes a second, which no other network needs.
    with torch.device("cpu"):
        from torchvision import models

    # Other models than classifiers would download weights without being asked to.
    if name not in models.list_models(models):
        raise FkpError(f"model.network.backbone={name}: torchvision has no classifier of this name")

    # RegNet computes its widths with tensors, which the `meta` device cannot do.
    device = torch.empty(0).device
    with torch.device("cpu" if name.startswith("regnet") else device):
        classifier = models.get_model(name, weights=None).to(device)

    if weights is not None:
        _load_backbone(classifier, name, weights)

    layers: list[nn.Module] = []
    for layer in classifier.children():
        if isinstance(layer, (nn.AdaptiveAvgPool2d, nn.Linear)):
            break
        layers.append(layer)
    return nn.Sequential(*layers)


def _load_backbone(classifier: nn.Module, name: str, weights: str) -> None:
    state = _imagenet(name) if weights == "imagenet" else _weights_file(weights)
    try:
        classifier.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError) as error:
        reason = (str(error).splitlines() or [""])[-1].strip()
        raise FkpError(f"model.network.weights={weights}: do not fit {name} ({reason})") from None


def _imagenet(name: str) -> dict[str, Tensor]:
    from torchvision import models

    best = models.get_model_weights(name).DEFAULT
    try:
        return dict(best.get_state_dict(progress=True, check_hash=True))
    except (OSError, RuntimeError) as error:  # no network, or a file with another hash
        raise FkpError(
            f"model.network.weights=imagenet: {best.url} cannot be downloaded ({error}); download "
            "it elsewhere and give the file, model.network.weights=PATH, or train without, "
            "model.network.weights=null"
        ) from None


def _weights_file(path: str) -> dict[str, Tensor]:
    try:
        return read(Path(path))
    except FkpError as error:
        raise FkpError(f"model.network.weights={error}") from None


def fused(network: nn.Module) -> nn.Module:
    """Fold each batch norm into the convolution before it, in place, for prediction alone.

    Prediction takes a tenth less time, and points change by less than 0.001 pixels.
    """
    for child in network.children():
        fused(child)
    if isinstance(network, nn.Sequential):
        for i, (first, second) in enumerate(pairwise(list(network))):
            if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
                network[i] = fuse_conv_bn_eval(first.eval(), second.eval())
                network[i + 1] = nn.Identity()
    return network.eval()


class _Residual(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    def __init__(self, inner: int, outer: int, stride: int = 1):
        super().__init__()
        self.first = _convolution(inner, outer, 3, stride)
        self.second = nn.Sequential(
            nn.Conv2d(outer, outer, 3, padding=1, bias=False), nn.BatchNorm2d(outer)
        )
        same = inner == outer and stride == 1
        self.short = nn.Identity() if same else nn.Conv2d(inner, outer, 1, stride, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        return F.relu(self.short(features) + self.second(self.first(features)))


def _convolution(inner: int, outer: int, size: int, stride: int = 1) -> nn.Sequential:
    """Build a convolution, a batch norm and a ReLU."""
    convolution = nn.Conv2d(inner, outer, size, stride, padding=size // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outer), nn.ReLU(inplace=True))
