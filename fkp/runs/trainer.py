"""Build Lightning's Trainer from a configuration, with its callbacks, logger and precision."""

from __future__ import annotations

import warnings
from typing import Any

from omegaconf import DictConfig

from fkp.errors import FkpError
from fkp.runs import config

# Warnings of Lightning that tell a user nothing.
IGNORED_WARNINGS = (
    # Lightning 2.6 on torch 2.15; nothing of ours.
    ".*LeafSpec.*",
    # A resumed run continues in its folder.
    "Checkpoint directory .* exists",
    # Each epoch is logged anyway.
    ".*smaller than the logging interval",
    # The user gave logger=null.
    ".*but have no logger configured",
)


def build_trainer(cfg: DictConfig, **logging: Any) -> Any:
    """Build the Trainer of a configuration.

    Args:
        cfg: of conf/train.yaml.
        logging: further arguments of TensorBoard's logger, for a resumed run.

    Raises:
        FkpError: `trainer.callbacks`, which is a group of its own here.
    """
    from pytorch_lightning.callbacks import Checkpoint

    for message in IGNORED_WARNINGS:
        warnings.filterwarnings("ignore", message=message)

    logger = _build_logger(cfg, logging)
    callbacks = _build_callbacks(cfg, bool(logger))
    return config.build(
        cfg.trainer,
        callbacks=callbacks,
        logger=logger,
        enable_checkpointing=any(isinstance(callback, Checkpoint) for callback in callbacks),
        precision=precision(cfg.trainer.precision),
        sync_batchnorm=bool(cfg.trainer.get("sync_batchnorm")) and on_gpu(cfg.trainer.accelerator),
    )


def _build_callbacks(cfg: DictConfig, logging: bool) -> list[Any]:
    """Build the callbacks of the group, except those that the Trainer's own keys turn off.

    Args:
        cfg: of conf/train.yaml.
        logging: whether there is a logger.
    """
    from pytorch_lightning.callbacks import Checkpoint, LearningRateMonitor, ProgressBar

    if "callbacks" in cfg.trainer:
        raise FkpError(
            "trainer.callbacks: they are a group; add yours with +callbacks.mine={_target_: …}"
        )
    nodes = (cfg.get("callbacks") or {}).values()
    callbacks = [config.build(node) for node in nodes if node]

    unwanted: list[type] = [] if logging else [LearningRateMonitor]
    unwanted += [Checkpoint] if cfg.trainer.get("enable_checkpointing") is False else []
    unwanted += [ProgressBar] if cfg.trainer.get("enable_progress_bar") is False else []
    return [callback for callback in callbacks if not isinstance(callback, tuple(unwanted))]


def _build_logger(cfg: DictConfig, logging: dict[str, Any]) -> Any:
    """Build the logger of the group, unless `trainer.logger` says otherwise; False for none."""
    node = cfg.trainer.get("logger", True)
    node = cfg.get("logger") if node is True else node
    if not node:
        return False
    target = str(node.get("_target_")) if isinstance(node, DictConfig) else ""
    return config.build(node, **(logging if target.endswith("TensorBoardLogger") else {}))


def on_gpu(accelerator: str) -> bool:
    """Return whether a Trainer with this `accelerator` uses a GPU; SyncBatchNorm needs one."""
    import torch

    return accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()


def precision(wanted: str | None) -> str | None:
    """Resolve `auto` to half precision where the device has instructions for it, else to single.

    A processor without such instructions emulates them: a step then takes nine times as long.

    Args:
        wanted: `auto`, or one of Lightning's words, which is returned unchanged.
    """
    import torch

    if wanted != "auto":
        return wanted
    if torch.cuda.is_available():
        bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        return "bf16-mixed" if bf16 else "16-mixed"

    # The oldest supported torch lacks the function.
    able: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    return "bf16-mixed" if able.get("avx512_bf16") or able.get("amx_bf16") else "32-true"
