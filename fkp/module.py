"""The LightningModule: network + codec + loss + metrics + optimizer, in one step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytorch_lightning as pl
import torch
from torch import Tensor, distributed, nn
from torchmetrics import MeanMetric, Metric

from fkp.calibration import WITHIN, calibrate
from fkp.codecs import Codec
from fkp.data.datamodule import FacesDataModule
from fkp.data.dataset import Batch
from fkp.errors import FkpError
from fkp.markup import IBUG68, Markup
from fkp.metrics import FaceErrors, SpreadAndError, point_errors
from fkp.recipe import KEY, Recipe

STAGES = ("train", "val", "test")


class KeypointModule(pl.LightningModule):
    """Train a network to find key points.

    Args:
        network: takes the number of points, and builds image (B, C, h, w) -> raw output.
        codec: points <-> raw output.
        loss: takes raw output and encoded label, both in the codec's units.
        optimizer: takes the parameters.
        scheduler: takes the optimizer; stepped once per epoch.
        markup: the meaning of the points.
        recipe: plain values from which `fkp.inference.predictor` rebuilds what predicts; part of
            every checkpoint.
        nll_weight: weight of the codec's negative log-likelihood of the labels, added to the loss.
        label_offset: how far the labels of a data set lie to the right of the faces as a whole, in
            outer-eye distances. In a mirrored crop, as half of the training crops are, the offset
            is to the left, so that no network can learn both. Training subtracts it from the
            labels, and prediction adds it again.
        channels_last: store the weights with channels last: faster for depthwise convolutions, and
            on a GPU with mixed precision.
        compile: compile the network with torch.compile: needs a compiler, and takes a minute.
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
        self.optimizer, self.scheduler = optimizer, scheduler
        self.nll_weight, self.label_offset = nll_weight, label_offset

        # Whether the network still has its random first weights.
        self.untrained = True

        self.errors = nn.ModuleDict({f"{stage}_errors": FaceErrors() for stage in STAGES})
        self.losses = nn.ModuleDict({f"{stage}_loss": MeanMetric() for stage in STAGES})
        self.uncertainty = SpreadAndError()

    @property
    def backbone(self) -> nn.Module:
        """Return the network's backbone, which Lightning's BackboneFinetuning freezes and releases.

        Raises:
            AttributeError: the network has no backbone.
        """
        return self.network.get_submodule("backbone")

    def setup(self, stage: str) -> None:
        """Start a new network at the mean training face, if it can; a checkpoint overwrites it."""
        start_at = getattr(self.network, "start_at", None)
        if stage == "fit" and self.untrained and start_at is not None:
            mean = torch.as_tensor(data_of(self.trainer).mean_points(), dtype=torch.float32)
            start_at(self.codec.encode(mean[None])[0])

    def on_fit_start(self) -> None:
        """Let each process drop other units; rank zero drops those that a single process drops."""
        if self.global_rank:
            torch.manual_seed(torch.initial_seed() + self.global_rank)

    def forward(self, image: Tensor) -> Tensor:
        """Map images (B, C, h, w) to points (B, K, 2) in CROP pixels."""
        return self.codec.decode(self.network(image))[0]

    def label(self, batch: Batch) -> Tensor:
        """Return the points to find, (B, K, 2) in CROP pixels; NaN where not labelled."""
        label = to_crop_space(batch["points"], batch["to_crop"])
        if self.label_offset:
            label = upright(label, batch["to_crop"], self.label_offset, self.markup)
        return label

    def _step(self, batch: Batch, stage: str) -> Tensor:
        """Compute the loss of a batch, and update the metrics of a stage."""
        # Label.
        label = self.label(batch)  # (B, K, 2)
        known = torch.isfinite(label).all(-1)  # (B, K)
        target = self.codec.encode(label)  # (B, 2 K)
        labelled = torch.isfinite(target)  # (B, 2 K)

        # Forward.
        output = self.network(batch["image"])
        coordinates = self.codec.coordinates(output)  # (B, 2 K)

        # Loss, over labelled points alone. Without any it is 0, but a 0 that has gradients.
        if known.any():
            loss = self.loss(coordinates[labelled], target[labelled])
        else:
            loss = 0 * coordinates.sum()

        if self.nll_weight:
            # Select before the sum, not after: the gradient of 0 times NaN is NaN.
            nll = self.codec.nll(output, label.nan_to_num())[known]
            loss = loss + self.nll_weight * nll.sum() / max(1, len(nll))

        # Metrics. A similarity keeps ratios of lengths, so NME is the same in CROP and in IMAGE
        # pixels, except for stretched crops.
        points = self.codec.points(coordinates.detach())  # (B, K, 2)
        errors = point_errors(points, label, self.markup, batch.get("side"))  # (B, K)
        self._stage_errors(stage).update(errors.nanmean(-1))
        if stage == "val" and (spread := self.codec.spread(output)) is not None:
            self.uncertainty.update(spread, errors)

        # Weighted: a mean over labelled points, however they fall into batches and processes.
        count = known.sum()
        self._stage_loss(stage).update(loss.detach(), count)
        return self._balance(loss, count) if stage == "train" else loss

    def _stage_errors(self, stage: str) -> FaceErrors:
        return cast(FaceErrors, self.errors[f"{stage}_errors"])

    def _stage_loss(self, stage: str) -> MeanMetric:
        return cast(MeanMetric, self.losses[f"{stage}_loss"])

    def _balance(self, loss: Tensor, count: Tensor) -> Tensor:
        """Weight the loss of this process by its number of labelled points.

        DDP averages gradients over processes: with these weights, the average is the mean over the
        labelled points of all processes. A loss that is not finite in one process is returned in
        each, so that all of them stop.
        """
        if not distributed.is_initialized():
            return loss

        sums = torch.stack([count.float(), loss.detach().float() * count])
        distributed.all_reduce(sums)
        total_count, total_loss = sums
        if not torch.isfinite(total_loss):
            return total_loss
        return loss * (distributed.get_world_size() * count / total_count.clamp(min=1))

    def _log_epoch(self, stage: str) -> None:
        """Log the metrics of an epoch, and reset them.

        Once an epoch, from our own sums: `log` in each step is slow beside a small network.
        """
        errors, loss = self._stage_errors(stage), self._stage_loss(stage)
        if not errors.update_count:
            # Resumed from a checkpoint of the very end of the epoch: no batch was left.
            return

        values: dict[str, Any] = {"loss": loss.compute(), **errors.compute()}
        errors.reset()
        loss.reset()

        metrics = {f"{stage}/{name}": value for name, value in values.items()}
        for name, value in metrics.items():
            shown = name in ("train/loss", "val/nme")
            self.log(name, value, prog_bar=shown, logger=stage != "train", sync_dist=True)

        if stage == "train" and self.logger:
            # At once: Lightning would log them after the epoch's checkpoint.
            self.logger.log_metrics({**metrics, "epoch": self.current_epoch}, self.global_step - 1)

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """Compute the loss of a training batch.

        Raises:
            FkpError: the loss is not finite; the weights have not been changed by it.
        """
        loss = self._step(batch, "train")
        if not torch.isfinite(loss):
            hint = "a smaller model.optimizer.lr or trainer.gradient_clip_val=… may help"
            raise FkpError(
                f"the loss is {loss.item()} in epoch {self.current_epoch}, batch {batch_index}; "
                f"{hint}",
                key="model.optimizer.lr",
                hint=hint,
            )
        return loss

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        """Update the metrics with a validation batch."""
        self._step(batch, "val")

    def test_step(self, batch: Batch, batch_index: int) -> None:
        """Update the metrics with a test batch."""
        self._step(batch, "test")

    def on_train_epoch_end(self) -> None:
        """Log the epoch's metrics."""
        self._log_epoch("train")

    def on_validation_epoch_end(self) -> None:
        """Calibrate confidence, and log the epoch's metrics."""
        if self.uncertainty.update_count:
            # On faces that are trained on, confidence would be too high: keep what it was.
            if getattr(data_of(self.trainer), "held_out", True):
                spread, error = self.uncertainty.compute()
                self.codec.calibration = calibrate(spread, error < WITHIN)
            self.uncertainty.reset()
        self._log_epoch("val")

    def on_test_epoch_end(self) -> None:
        """Log the metrics."""
        self._log_epoch("test")

    def configure_optimizers(self) -> Any:
        """Build the optimizer of all weights that are not frozen, and the scheduler if any."""
        weights = [weight for weight in self.network.parameters() if weight.requires_grad]
        optimizer = self.optimizer(weights)
        if self.scheduler is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": self.scheduler(optimizer)}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the recipe, and the metrics of an unfinished epoch.

        Plain values only, so that the file loads with `weights_only=True`.
        """
        recipe = self.recipe and self.recipe.with_calibration(self.codec.calibration)
        checkpoint[KEY] = recipe and recipe.as_dict()

        # Lightning does not save the state of metrics; each process has its own.
        begun = {name: metric for name, metric in self._train_metrics() if metric.update_count}
        checkpoint["gathered"] = gathered(
            {name: (metric.update_count, metric.metric_state) for name, metric in begun.items()}
        )

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the metrics of an unfinished epoch.

        If fewer processes resume than have saved, some of them restore several states.
        """
        states = checkpoint.get("gathered", [])
        if isinstance(states, dict):
            # Checkpoints from before there were several processes hold a single state.
            states = [states]

        for name, metric in self._train_metrics():
            # torchmetrics counts updates by itself, but warns of a metric with a count of 0.
            metric._update_count = max([state.get(name, (0, {}))[0] for state in states], default=0)
            for state in states[self.global_rank :: self.trainer.world_size]:
                for key, value in state.get(name, (0, {}))[1].items():
                    setattr(metric, key, getattr(metric, key) + value)

    def _train_metrics(self) -> list[tuple[str, Metric]]:
        return [("errors", self._stage_errors("train")), ("loss", self._stage_loss("train"))]


def data_of(trainer: pl.Trainer) -> FacesDataModule:
    """Return the data module of a Trainer, which Lightning's types do not know."""
    return cast(Any, trainer).datamodule


def gathered(value: Any) -> list[Any]:
    """Gather a value from each training process, in the order of their ranks."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return [value]
    values = [None] * distributed.get_world_size()
    distributed.all_gather_object(values, value)
    return values


def to_crop_space(points: Tensor, to_crop: Tensor) -> Tensor:
    """Map points (B, K, 2) through affines (B, 2, 3)."""
    return points @ to_crop[:, :, :2].mT + to_crop[:, None, :, 2]


def upright(points: Tensor, to_crop: Tensor, label_offset: float, markup: Markup) -> Tensor:
    """Subtract the label offset, which is to the right, and in a mirrored crop to the left.

    Args:
        points: (B, K, 2), CROP pixels.
        to_crop: (B, 2, 3), IMAGE -> CROP.
        label_offset: in outer-eye distances.
        markup: of the points.

    Returns:
        (B, K, 2), CROP pixels.
    """
    # From eye to eye. A face whose eyes are not labelled stays where it is.
    first, second = markup.eyes
    across = (points[:, second] - points[:, first])[:, None].nan_to_num()  # (B, 1, 2)

    # An affine that mirrors has a negative determinant.
    mirrored = to_crop[:, 0, 0] * to_crop[:, 1, 1] < to_crop[:, 0, 1] * to_crop[:, 1, 0]  # (B,)
    offset = torch.where(mirrored, -label_offset, label_offset)
    return points - offset[:, None, None] * across
