"""From a checkpoint to an exported file, which is refused if it answers otherwise."""

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

SAME = 0.05  # CROP pixels that the two may differ by
ALIKE = 0.5  # and by which they may differ on average where one counts in whole numbers


class _Whole(nn.Module):
    """Everything between uint8 crops and points."""

    def __init__(self, engine: TorchEngine):
        super().__init__()
        self.network, self.codec = engine.network, engine.codec

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        images = crops[:, None] if crops.dim() == 3 else crops.permute(0, 3, 1, 2)
        points, confidence = self.codec.decode(self.network(Normalize()(images)))
        # Bare ones would be frozen into the file, for as many faces as the example has.
        return points, 0 * points[..., 0] + 1 if self.codec.calibration is None else confidence


def export(checkpoint: Path, out: Path, crops: np.ndarray, int8: bool = False) -> float:
    """Write a checkpoint as ONNX: crops (B, h, w), or RGB (B, h, w, 3), uint8, for any B, to points (B, K, 2), CROP
    pixels, and confidence (B, K).

    Args:
        checkpoint: of `train.py`.
        out: where to; its folder is made.
        crops: (N, h, w) or (N, h, w, 3) uint8, faces on which both are compared.
        int8: let all convolutions but the first and last count in whole numbers of 8 bits, with ranges that these crops
            fill: two thirds of the time.

    Returns:
        the largest difference of a coordinate, CROP pixels; the mean distance of points with `int8`.

    Raises:
        FkpError: onnx is not installed; or the file differs by more than 0.05 pixels, or 0.5 on average with `int8`: it
            is not kept.
    """
    try:
        import onnx
    except ImportError:
        raise FkpError('onnx is not installed; pip install "fkp[onnx]"') from None
    engine = TorchEngine.load(checkpoint, "cpu")
    out.parent.mkdir(parents=True, exist_ok=True)
    draft = out.with_name(f".{out.name}")
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter(
            "ignore"
        )  # of tracing, and that there is a newer exporter: it wants more packages
        torch.onnx.export(
            _Whole(engine).eval(),  # or else the exporter leaves the network in training
            (torch.from_numpy(crops[:2]),),
            str(draft),
            input_names=["crops"],
            output_names=["points", "confidence"],
            dynamic_axes={name: {0: "faces"} for name in ("crops", "points", "confidence")},
            dynamo=False,
        )
    if int8:
        _in_whole_numbers(draft, crops)
    model = onnx.load(str(draft))
    onnx.helper.set_model_props(model, {KEY: json.dumps(engine.recipe.as_dict())})
    onnx.save(model, str(draft))
    seal(draft)
    (points, sure), (again, sure_again) = engine(crops), OnnxEngine(draft)(crops)
    if int8:
        apart = float(np.linalg.norm(points - again, axis=-1).mean())
        good = apart <= ALIKE and np.abs(sure - sure_again).mean() <= 0.05
    else:
        apart = float(np.abs(points - again).max())
        good = apart <= SAME and np.abs(sure - sure_again).max() <= 0.01
    if not good:
        draft.unlink()
        raise FkpError(
            f"{out}: not kept, as it differs from {checkpoint} by {apart:.3f} pixels of the crop"
        )
    draft.replace(out)
    return apart


def _in_whole_numbers(file: Path, crops: np.ndarray) -> None:
    """Quantise a file's convolutions, in place."""
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    class Faces(CalibrationDataReader):
        """The crops, one by one."""

        def __init__(self) -> None:
            self.left = iter(crops)

        def get_next(self) -> dict[str, np.ndarray] | None:
            crop = next(self.left, None)
            return None if crop is None else {"crops": crop[None]}

    convolutions = [node.name for node in onnx.load(str(file)).graph.node if node.op_type == "Conv"]
    quantize_static(
        str(file),
        str(file),
        Faces(),
        op_types_to_quantize=["Conv"],
        nodes_to_exclude=[convolutions[0], convolutions[-1]],  # pixels, and logits
        per_channel=True,
        reduce_range=True,  # 7 bits of weights: the sums of 8 overflow on processors without VNNI
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
