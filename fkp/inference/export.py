"""Export a checkpoint to ONNX, and refuse the file if its answers differ."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from fkp.errors import FkpError
from fkp.inference.onnx_engine import OnnxEngine, seal
from fkp.inference.torch_engine import TorchEngine
from fkp.recipe import KEY
from fkp.transforms import Normalize

# How far an exported file may differ from its checkpoint: CROP pixels, and confidence. In single
# precision this is the largest difference; with int8, the mean one.
MAX_PIXELS, MAX_CONFIDENCE = 0.05, 0.01
MEAN_PIXELS_INT8, MEAN_CONFIDENCE_INT8 = 0.5, 0.05


def export(checkpoint: Path, out: Path, crops: np.ndarray, int8: bool = False) -> float:
    """Export a checkpoint to ONNX.

    The file takes crops (B, h, w), or RGB (B, h, w, 3), uint8, for any B, and returns points
    (B, K, 2), CROP pixels, and confidence (B, K).

    Args:
        checkpoint: of `train.py`.
        out: the file to write; its folder is made.
        crops: (N, h, w) or (N, h, w, 3) uint8, faces on which both are compared.
        int8: quantise all convolutions but the first and the last to 8 bits, with the ranges that
            these crops fill: prediction takes two thirds of the time.

    Returns:
        the largest difference of a coordinate, CROP pixels; with `int8` the mean distance of the
        points.

    Raises:
        FkpError: onnx is not installed; or the file differs too much, and is not kept.
    """
    try:
        import onnx
    except ImportError:
        raise FkpError('onnx is not installed; pip install "fkp[onnx]"') from None

    engine = TorchEngine.load(checkpoint, "cpu")
    out.parent.mkdir(parents=True, exist_ok=True)
    draft = out.with_name(f".{out.name}")

    # Trace the model, then quantise it.
    _trace(engine, crops[:2], draft)
    if int8:
        _quantise(draft, crops)

    # Add the recipe, which rebuilds the predictor, and the checksum.
    model = onnx.load(str(draft))
    onnx.helper.set_model_props(model, {KEY: json.dumps(engine.recipe.as_dict())})
    onnx.save(model, str(draft))
    seal(draft)

    # Compare, and keep the file only if it answers alike.
    difference, good = _compare(engine(crops), OnnxEngine(draft)(crops), int8)
    if not good:
        draft.unlink()
        raise FkpError(
            f"{out}: not kept, as it differs from {checkpoint} by {difference:.3f} CROP pixels"
        )
    draft.replace(out)
    return difference


class _CropsToPoints(nn.Module):
    """Everything between uint8 crops and points, for tracing."""

    def __init__(self, engine: TorchEngine):
        super().__init__()
        self.network, self.codec = engine.network, engine.codec

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        images = crops[:, None] if crops.dim() == 3 else crops.permute(0, 3, 1, 2)  # (B, C, h, w)
        points, confidence = self.codec.decode(self.network(Normalize()(images)))
        if self.codec.calibration is None:
            # Ones that depend on the points: constant ones would keep the example's batch size.
            confidence = 0 * points[..., 0] + 1
        return points, confidence


def _trace(engine: TorchEngine, crops: np.ndarray, file: Path) -> None:
    """Write a model as ONNX, with any number of faces; crops are an example."""
    names = ("crops", "points", "confidence")
    with warnings.catch_warnings(), torch.inference_mode():
        # Of tracing, and of a newer exporter, which needs more packages.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            # In evaluation mode: the exporter leaves the network in the mode of this module.
            _CropsToPoints(engine).eval(),
            (torch.from_numpy(crops),),
            str(file),
            input_names=[*names[:1]],
            output_names=[*names[1:]],
            dynamic_axes={name: {0: "faces"} for name in names},
            dynamo=False,
        )


def _quantise(file: Path, crops: np.ndarray) -> None:
    """Quantise a file's convolutions to 8 bits, in place."""
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    class Faces(CalibrationDataReader):
        """The crops, one by one."""

        def __init__(self) -> None:
            self.remaining = iter(crops)

        def get_next(self) -> dict[str, np.ndarray] | None:
            crop = next(self.remaining, None)
            return None if crop is None else {"crops": crop[None]}

    convolutions = [node.name for node in onnx.load(str(file)).graph.node if node.op_type == "Conv"]
    quantize_static(
        str(file),
        str(file),
        Faces(),
        op_types_to_quantize=["Conv"],
        # The first sees pixels, the last makes logits: both need the precision.
        nodes_to_exclude=[convolutions[0], convolutions[-1]],
        per_channel=True,
        # 7 bits of weights: the sums of 8 overflow on processors without VNNI.
        reduce_range=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )


def _compare(
    expected: tuple[np.ndarray, np.ndarray], got: tuple[np.ndarray, np.ndarray], int8: bool
) -> tuple[float, bool]:
    """Compare points and confidence: their difference in CROP pixels, and whether it is small."""
    offsets, apart = expected[0] - got[0], np.abs(expected[1] - got[1])
    if int8:
        difference = float(np.linalg.norm(offsets, axis=-1).mean())
        return difference, bool(
            difference <= MEAN_PIXELS_INT8 and apart.mean() <= MEAN_CONFIDENCE_INT8
        )
    difference = float(np.abs(offsets).max())
    return difference, bool(difference <= MAX_PIXELS and apart.max() <= MAX_CONFIDENCE)
