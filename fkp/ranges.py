"""Ranges of numeric parameters, which signatures do not state, by the parameter's name."""

from __future__ import annotations

from math import inf
from typing import Any

from fkp.errors import FkpError

# Packages whose parameters have these meanings.
OURS = ("fkp", "torch", "pytorch_lightning")

# The smallest number above 0.
TINY = 5e-324

_FROM_1 = (
    *("batch_size", "count", "width", "workers", "faces", "frames", "longest"),
    *("steps", "train_faces", "sizes", "repeats"),
    *("check_val_every_n_epoch", "accumulate_grad_batches", "num_nodes"),
)
_FROM_0 = (
    *(
        "max_epochs",
        "num_workers",
        "worst",
        "minutes",
        "patience",
        "gradient_clip_val",
        "log_every_n_steps",
    ),
    *("shift", "zoom", "rotation", "stretch", "gain", "gamma", "sigma", "std"),
    *("min_neighbors", "side", "beta", "threads"),
)
_POSITIVE = (
    *("lr", "smallest", "pixels", "scale", "margin", "unit", "cutoff", "speed_cutoff"),
    "full_weight_spread",
)
_PROBABILITIES = ("p", "tail_p", "dropout", "min_confidence")

# Least and largest value, both allowed.
LIMITS: dict[str, tuple[float, float]] = {
    **dict.fromkeys(_FROM_1, (1, inf)),
    **dict.fromkeys(_FROM_0, (0, inf)),
    **dict.fromkeys(_POSITIVE, (TINY, inf)),
    **dict.fromkeys(_PROBABILITIES, (0, 1)),
    "scale_factor": (1 + 1e-6, inf),
    "refine_steps": (1, 100),
    "quality": (0, 100),
    "seed": (0, 2**32 - 1),
    "folds": (2, inf),
    "fold": (0, inf),
    # Side of a crop, pixels: what networks and recipes accept.
    "size": (32, 1024),
}


def fault(name: str, value: Any) -> str | None:
    """Say what is wrong with the value of a parameter, or with one in a list of values.

    Values that are no numbers are not checked.

    Returns:
        the reason; None if the value is in its range.

    >>> fault("refine_steps", -3), fault("dropout", [0.1, 2])
    ('-3 is less than 1', '2 is more than 1')
    >>> fault("lr", 0), fault("scale_factor", 1.0)
    ('0 is not more than 0', '1.0 is not more than 1')
    """
    least, most = LIMITS.get(name, (-inf, inf))
    for number in value if isinstance(value, list) else [value]:
        if isinstance(number, bool) or not isinstance(number, (int, float)):
            continue

        if number != number:
            return f"{number} is not a number"
        if number > most:
            return f"{number} is more than {most}"
        if number < least:
            if isinstance(least, int):
                return f"{number} is less than {least}"
            # A least value that is no integer stands for the open range above the integer.
            return f"{number} is not more than {int(least)}"
    return None


def require(**values: Any) -> None:
    """Refuse arguments of a constructor that are out of their range.

    Raises:
        FkpError: the first that is; `key` is its name.
    """
    for name, value in values.items():
        if reason := fault(name, value):
            raise FkpError(f"{name}={value}: {reason}", key=name)
