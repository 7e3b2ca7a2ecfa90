"""The LightningModule: network + codec + loss + metrics + optimizer, in one step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, distributed, nn
from torchmetrics import MeanMetric, Metric

from fkp.calibration import WITHIN, calibrate
from fkp.codecs import Codec
from fkp.errors import FkpError
from fkp.markup import IBUG68, Markup
from fkp.metrics import FaceErrors, SpreadAndError, point_errors
from fkp.recipe import KEY, Recipe

Batch = dict[str, Tensor]


class KeypointModule(pl.LightningModule):
    """Trains a network to find key points.

    Args:
        network: takes the number of points and makes the network, image (B, C, h, w) to raw output.
        codec: points <-> raw output.
        loss: of raw output and encoded label.
        nll_weight: how much of the loss, besides, is the codec's nll at the labels.
        optimizer: takes the parameters.
        scheduler: takes the optimizer; stepped once an epoch.
        markup: the meaning of the points.
        recipe: from which `fkp.inference.predictor` rebuilds the predictor; kept in every checkpoint.
        label_offset: how far the labels lie to the right of the faces as a whole, in outer-eye distances, as many sets' do. In
            the mirror, where half of the faces come from, it is the left: a network that is shown both learns neither.
            So it is taken out of what the network learns, and put back by what predicts.
        channels_last: lay the network's weights out with channels last: faster where convolutions are depthwise, and
            on a GPU with mixed precision.
        compile: let torch.compile make the network's kernels; takes a compiler, and a minute at the start.
    """

    def __init__(
        self,
        network: Callable[..., nn.Module],
        codec: Codec,
        loss: nn.Module,
        optimizer: Callable[..., torch.optim.Optimizer],
        scheduler: Callable[..., torch.optim.lr_scheduler.LRScheduler] | None = None,
        markup: Markup = IBUG68,
        recipe: Recipe | None = None,
        nll_weight: float = 0.0,
        label_offset: float = 0.0,
        channels_last: bool = False,
        compile: bool = False,
    ):
        super().__init__()
        self.network = network(points=len(markup.points))
        if channels_last:
            self.network.to(memory_format=torch.channels_last)
        if compile:
            self.network.compile()
        self.codec, self.loss, self.markup, self.recipe = codec, loss, markup, recipe
        self.optimizer, self.scheduler, self.nll_weight, self.label_offset = (
            optimizer,
            scheduler,
            nll_weight,
            label_offset,
        )
        self.fresh = True  # untrained: no weights but the network's own first ones
        stages = ("train", "val", "test")
        self.errors = nn.ModuleDict({f"{stage}_errors": FaceErrors() for stage in stages})
        self.losses = nn.ModuleDict({f"{stage}_loss": MeanMetric() for stage in stages})
        self.uncertainty = SpreadAndError()

    @property
    def backbone(self) -> nn.Module:
        """The network's backbone, where it has one: what Lightning's BackboneFinetuning freezes and releases."""
        return self.network.backbone  # type: ignore[return-value]

    def setup(self, stage: str) -> None:
        """Before weights are restored: let a network that can start at the mean training face."""
        if stage == "fit" and self.fresh and hasattr(self.network, "start_at"):
            mean = torch.as_tensor(self.trainer.datamodule.mean_points(), dtype=torch.float32)  # type: ignore[attr-defined]
            self.network.start_at(self.codec.encode(mean[None])[0])  # type: ignore[operator]

    def on_fit_start(self) -> None:
        """Let each process drop out other units; the first those that one alone would."""
        if self.global_rank:
            torch.manual_seed(torch.initial_seed() + self.global_rank)

    def start_from(self, network: nn.Module) -> None:
        """Take over the weights of a trained network; RuntimeError if they do not fit."""
        self.network.load_state_dict(network.state_dict())
        self.fresh = False

    def forward(self, image: Tensor) -> Tensor:
        """Images (B, C, h, w) to points (B, K, 2) in CROP pixels."""
        return self.codec.decode(self.network(image))[0]

    def label(self, batch: Batch) -> Tensor:
        """Points (B, K, 2) in CROP pixels that the network is to find; NaN where not labelled."""
        label = to_crop_space(batch["points"], batch["to_crop"])
        return (
            upright(label, batch["to_crop"], self.label_offset, self.markup)
            if self.label_offset
            else label
        )

    def _step(self, batch: Batch, stage: str) -> Tensor:
        label = self.label(batch)
        output = self.network(batch["image"])
        target = self.codec.encode(label)
        labelled = torch.isfinite(target)
        coordinates = self.codec.coordinates(output)
        known = torch.isfinite(label).all(-1)
        loss = (
            self.loss(coordinates[labelled], target[labelled])
            if known.any()
            else 0 * coordinates.sum()
        )
        if self.nll_weight:
            # Unlabelled points are left out before the sum: a gradient of 0 times NaN is NaN.
            nll = self.codec.nll(output, label.nan_to_num())[known]
            loss = loss + self.nll_weight * nll.sum() / max(1, len(nll))
        # Similarities keep ratios of lengths, so NME is the same in CROP and IMAGE pixels (but for stretched ones).
        errors = point_errors(
            self.codec.points(coordinates.detach()), label, self.markup, batch.get("side")
        )
        self.errors[f"{stage}_errors"].update(errors.nanmean(-1))  # type: ignore[operator]
        if stage == "val" and (spread := self.codec.spread(output)) is not None:
            self.uncertainty.update(spread, errors)
        # A mean over labelled points, however they fall into batches and processes.
        points = known.sum()
        self.losses[f"{stage}_loss"].update(loss.detach(), points)  # type: ignore[operator]
        return self._share(loss, points) if stage == "train" else loss

    def _share(self, loss: Tensor, points: Tensor) -> Tensor:
        """The loss of this process's share of a batch, so weighted that the mean over processes, which DDP takes of the
        gradients, is the mean over the labelled points of all; and not finite in one of them, it is so in each."""
        if not distributed.is_initialized():
            return loss
        sums = torch.stack([points.float(), loss.detach().float() * points])
        distributed.all_reduce(sums)
        if not torch.isfinite(sums[1]):
            return sums[1]
        return loss * (distributed.get_world_size() * points / sums[0].clamp(min=1))

    def _end(self, stage: str) -> None:
        # Logged once an epoch, from sums of our own: `log` in every step is slow beside a small network.
        errors, loss = self.errors[f"{stage}_errors"], self.losses[f"{stage}_loss"]
        if (
            not errors.update_count
        ):  # gone on with from a checkpoint of the epoch's very end: nothing is left to tell
            return
        figures = {"loss": loss.compute(), **errors.compute()}  # type: ignore[operator]
        errors.reset()  # type: ignore[operator]
        loss.reset()  # type: ignore[operator]
        named = {f"{stage}/{name}": value for name, value in figures.items()}
        for name, value in named.items():
            shown = name in ("train/loss", "val/nme")
            self.log(name, value, prog_bar=shown, logger=stage != "train", sync_dist=True)
        if (
            stage == "train" and self.logger
        ):  # at once: Lightning would log them after the epoch's checkpoint
            self.logger.log_metrics({**named, "epoch": self.current_epoch}, self.global_step - 1)

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """One step.

        Raises:
            FkpError: the loss is not finite; the weights have not been changed by it.
        """
        loss = self._step(batch, "train")
        if not torch.isfinite(loss):
            raise FkpError(
                f"the loss is {loss.item()} in epoch {self.current_epoch}, batch {batch_index}; a smaller"
                " model.optimizer.lr or trainer.gradient_clip_val=… may help"
            )
        return loss

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        """One step."""
        self._step(batch, "val")

    def test_step(self, batch: Batch, batch_index: int) -> None:
        """One step."""
        self._step(batch, "test")

    def on_train_epoch_end(self) -> None:
        """Log the epoch's figures."""
        self._end("train")

    def on_validation_epoch_end(self) -> None:
        """Log the epoch's figures, and calibrate confidence by them."""
        if self.uncertainty.update_count:
            spread, error = self.uncertainty.compute()
            self.codec.calibration = calibrate(spread, error < WITHIN)
            self.uncertainty.reset()
        self._end("val")

    def on_test_epoch_end(self) -> None:
        """Log the figures."""
        self._end("test")

    def configure_optimizers(self) -> Any:
        """The optimizer, and the scheduler if there is one."""
        optimizer = self.optimizer(
            [weight for weight in self.network.parameters() if weight.requires_grad]
        )
        if self.scheduler is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": self.scheduler(optimizer)}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the recipe: plain values only, so that the file loads with weights_only=True."""
        recipe = self.recipe and self.recipe.with_calibration(self.codec.calibration)
        checkpoint[KEY] = recipe and recipe.as_dict()
        # What a half epoch has come to, in each process: Lightning keeps no metrics.
        begun = {name: metric for name, metric in self._of_training() if metric.update_count}
        checkpoint["gathered"] = gathered(
            {name: (one.update_count, one.metric_state) for name, one in begun.items()}
        )

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take up what a half epoch had come to. Where it goes on in fewer processes, some take up that of several."""
        states = checkpoint.get("gathered", [])
        states = (
            [states] if isinstance(states, dict) else states
        )  # before there were several, there was the one
        for name, metric in self._of_training():
            # torchmetrics would count updates by itself, but tells a metric without any by this alone.
            metric._update_count = max([state.get(name, (0, {}))[0] for state in states], default=0)
            for state in states[self.global_rank :: self.trainer.world_size]:
                for part, value in state.get(name, (0, {}))[1].items():
                    setattr(metric, part, getattr(metric, part) + value)

    def _of_training(self) -> list[tuple[str, Metric]]:
        return [("errors", self.errors["train_errors"]), ("loss", self.losses["train_loss"])]  # type: ignore[list-item]


def gathered(value: Any) -> list[Any]:
    """What each process that trains has here, in the order of their numbers."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return [value]
    values = [None] * distributed.get_world_size()
    distributed.all_gather_object(values, value)
    return values


def to_crop_space(points: Tensor, to_crop: Tensor) -> Tensor:
    """Points (B, K, 2) through affines (B, 2, 3)."""
    return points @ to_crop[:, :, :2].mT + to_crop[:, None, :, 2]


def upright(points: Tensor, to_crop: Tensor, label_offset: float, markup: Markup) -> Tensor:
    """Labels (B, K, 2) in CROP pixels without their label_offset to the right, which in a mirrored crop is the left."""
    first, second = markup.eyes
    across = (points[:, second] - points[:, first])[
        :, None
    ].nan_to_num()  # eyes that are not labelled move nothing
    mirrored = (
        to_crop[:, 0, 0] * to_crop[:, 1, 1] < to_crop[:, 0, 1] * to_crop[:, 1, 0]
    )  # the affine turns the picture over
    return points - torch.where(mirrored, -label_offset, label_offset)[:, None, None] * across
