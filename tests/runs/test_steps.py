"""Test that the number of epochs follows from the number of steps, and the validations with it."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf

from fkp.errors import FkpError
from fkp.runs import steps


class Data:
    """A data module of a number of batches."""

    def __init__(self, batches: int):
        self.batches, self.ready = batches, False

    def setup(self) -> None:
        self.ready = True

    def train_dataloader(self) -> list[None]:
        assert self.ready
        return [None] * self.batches


def configuration(count: int | None, **trainer: Any) -> DictConfig:
    cfg = OmegaConf.create({"steps": count, "trainer": {"max_epochs": 20, **trainer}})
    return OmegaConf.merge(cfg, {"scheduler": {"total_steps": "${trainer.max_epochs}"}})  # type: ignore[return-value]


@given(st.integers(1, 5000), st.integers(1, 400), st.sampled_from([None, 1, 7]))
def test_enough_epochs_are_trained_and_the_last_is_validated(
    count: int, batches: int, every: int | None
) -> None:
    trainer = {} if every is None else {"check_val_every_n_epoch": every}
    cfg = configuration(count, **trainer)
    steps.derive_epochs(cfg, Data(batches))  # type: ignore[arg-type]
    epochs, used = cfg.trainer.max_epochs, cfg.trainer.check_val_every_n_epoch
    assert epochs % used == 0 and cfg.scheduler.total_steps == epochs
    assert count <= epochs * batches < count + batches * used
    needed = math.ceil(count / batches)
    if every is None:
        assert epochs // used <= 2 * steps.VALIDATIONS
    else:
        assert used == min(every, needed)


@pytest.mark.parametrize(
    ("trainer", "epochs"),
    [
        ({}, 10),
        ({"accumulate_grad_batches": 4}, 34),  # 3 steps an epoch
        ({"limit_train_batches": 5}, 20),
        ({"limit_train_batches": 0.5}, 20),
    ],
)
def test_the_steps_of_an_epoch_are_lightnings(trainer: dict[str, Any], epochs: int) -> None:
    cfg = configuration(100, **trainer)
    steps.derive_epochs(cfg, Data(10))  # type: ignore[arg-type]
    assert cfg.trainer.max_epochs == epochs


def test_without_steps_nothing_changes() -> None:
    cfg = configuration(None)
    steps.derive_epochs(cfg, Data(10))  # type: ignore[arg-type]
    assert cfg == configuration(None)


def test_steps_and_epochs_are_not_both_given() -> None:
    steps.refuse_both(configuration(None), ["trainer.max_epochs=3"])
    steps.refuse_both(configuration(50), ["seed=3"])
    with pytest.raises(FkpError) as refused:
        steps.refuse_both(configuration(50), ["trainer.max_epochs=3"])
    assert refused.value.key == "steps"
