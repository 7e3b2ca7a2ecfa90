"""The ranges of values that signatures do not tell, by the parameter's name."""

from __future__ import annotations

from math import inf
from typing import Any

from fkp.errors import FkpError

OURS = ("fkp", "torch", "pytorch_lightning")  # packages whose parameters have these meanings
TINY = 5e-324  # the smallest number above 0
LIMITS: dict[str, tuple[float, float]] = {
    **dict.fromkeys(
        ("batch_size", "count", "width", "workers", "faces", "frames", "longest"), (1, inf)
    ),
    **dict.fromkeys(
        ("max_epochs", "check_val_every_n_epoch", "accumulate_grad_batches", "num_nodes"), (1, inf)
    ),
    **dict.fromkeys(
        ("num_workers", "worst", "minutes", "patience", "gradient_clip_val", "log_every_n_steps"),
        (0, inf),
    ),
    **dict.fromkeys(
        (
            "shift",
            "zoom",
            "rotation",
            "tail_p",
            "stretch",
            "gain",
            "gamma",
            "sigma",
            "std",
            "min_neighbors",
            "side",
        ),
        (0, inf),
    ),
    **dict.fromkeys(("lr", "scale", "margin", "unit", "cutoff", "speed_cutoff"), (TINY, inf)),
    **dict.fromkeys(("p", "tail_p", "dropout", "min_confidence", "min_size"), (0, 1)),
    "scale_factor": (1 + 1e-6, inf),
    "refine_steps": (1, 100),
    "beta": (0, inf),
    "quality": (0, 100),
    "seed": (0, 2**32 - 1),
    "size": (32, 1024),  # of a crop, pixels: what networks and recipes take
}


def fault(name: str, value: Any) -> str | None:
    """What is wrong with a number, or with one in a list, by the name of its parameter; None if nothing is.

    >>> fault("refine_steps", -3), fault("dropout", [0.1, 2])
    ('-3 is less than 1', '2 is more than 1')
    >>> fault("lr", 0), fault("scale_factor", 1.0)
    ('0 is not more than 0', '1.0 is not more than 1')
    """
    least, most = LIMITS.get(name, (-inf, inf))
    for number in value if isinstance(value, list) else [value]:
        if (
            not isinstance(number, (int, float))
            or isinstance(number, bool)
            or least <= number <= most
        ):
            continue
        if number != number or number > most:
            return (
                f"{number} is not a number" if number != number else f"{number} is more than {most}"
            )
        return (
            f"{number} is less than {least}"
            if isinstance(least, int)
            else f"{number} is not more than {int(least)}"
        )
    return None


def require(**values: Any) -> None:
    """Refuse arguments of a constructor that are out of their range.

    Raises:
        FkpError: one is; named.
    """
    for name, value in values.items():
        if reason := fault(name, value):
            raise FkpError(f"{name}={value}: {reason}")
