"""Metrics: how far predicted points lie from labels (NME, failure rate, AUC).

Source: Sagonas et al., "300 Faces In-The-Wild Challenge" (2016), for NME over the outer eye corners
and the curve of cumulative errors (CED).
"""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from fkp.markup import IBUG68, Markup

Points = TypeVar("Points", np.ndarray, Tensor)


def point_errors(
    predicted: Points, label: Points, markup: Markup = IBUG68, side: Points | None = None
) -> Points:
    """Compute the distance of each point to its label, as a fraction of the label's eye distance.

    Args:
        predicted: (..., K, 2), NumPy or torch.
        label: (..., K, 2), of the same kind and in the same pixels; NaN where not labelled.
        markup: names the two points whose distance is the unit.
        side: (...), sides of the face boxes in the same pixels: the unit of a markup of one point,
            which has no such distance.

    Returns:
        (..., K); NaN where not labelled.
    """
    right, left = markup.eyes
    if right == left and side is not None:
        unit = side
    else:
        unit = _lengths(label[..., right, :] - label[..., left, :])
    return _lengths(predicted - label) / unit[..., None]


def _lengths(vectors: Points) -> Points:
    """Compute the lengths (...) of vectors (..., 2)."""
    return (vectors**2).sum(-1) ** 0.5


def nme(
    predicted: Points, label: Points, markup: Markup = IBUG68, side: Points | None = None
) -> Points:
    """Compute the normalised mean error of each face.

    nme = mean over labelled points of |p_k - l_k| / |l_36 - l_45|, the outer eye corners

    Args:
        predicted: (..., K, 2), NumPy or torch.
        label: (..., K, 2), of the same kind and in the same pixels; NaN where not labelled.
        markup: names the two points whose distance is the unit.
        side: as for `point_errors`.

    Returns:
        (...): fractions, not percent.

    >>> label = np.zeros((68, 2)); label[45] = 10, 0
    >>> float(nme(label + (3, 4), label, IBUG68))
    0.5
    """
    errors = point_errors(predicted, label, markup, side)
    return torch.nanmean(errors, -1) if isinstance(errors, Tensor) else np.nanmean(errors, -1)


def summary(faces: Points) -> dict[str, float]:
    """Summarise the errors of a set of faces, in percent.

    Args:
        faces: (F,) NME of each face, a fraction; infinite for a face that was not found. NaN for a
            face that cannot be scored, as its normalising pair is not labelled: it is left out.

    Returns:
        nme: mean over found faces.
        median: over all faces.
        fr8, fr10: failure rates, the faces worse than 8 % and 10 % or not found.
        auc10: area under the CED curve up to 10 %; 100 for a perfect system.
    """
    errors = np.asarray(faces.cpu() if isinstance(faces, Tensor) else faces, float)
    errors = errors[~np.isnan(errors)]
    if not errors.size:
        return dict.fromkeys(("nme", "median", "fr8", "fr10", "auc10"), float("nan"))

    found = errors[np.isfinite(errors)]
    return {
        "nme": 100 * float(found.mean()) if found.size else float("nan"),
        "median": 100 * float(np.median(errors)),
        "fr8": 100 * float((errors > 0.08).mean()),
        "fr10": 100 * float((errors > 0.10).mean()),
        # The area under the CED curve up to t is the mean over faces of max(0, t - error): exact,
        # without bins.
        "auc10": 100 * float(np.maximum(0.10 - errors, 0).mean() / 0.10),
    }


def interval(
    faces: np.ndarray, identity: np.ndarray, level: float = 0.95, draws: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Compute a bootstrap interval of the mean over faces, by percentiles.

    People are drawn with replacement, each with all of their faces, because the errors of one
    person's faces are correlated. If there are several trainings, these are drawn as well.

    Source: Efron, "Bootstrap Methods: Another Look at the Jackknife" (1979).

    Args:
        faces: (F,) errors, or (T, F) of T trainings. Faces that are not finite in all trainings are
            left out.
        identity: (F,) names of people.
        level: of confidence.
        draws: how many bootstrap samples.
        seed: of the draws.

    Returns:
        low, high; NaN if no face is left.

    >>> low, high = interval(np.array([1.0, 3.0]), np.array(["Ada", "Bo"]))
    >>> low, high
    (1.0, 3.0)
    """
    trainings = np.atleast_2d(faces)  # (T, F)
    finite = np.isfinite(trainings).all(0)
    if not finite.any():
        return float("nan"), float("nan")

    # Sum of errors of each person in each training, (T, P), and number of faces, (P,).
    _, person = np.unique(np.asarray(identity)[finite].astype(str), return_inverse=True)
    total = np.stack([np.bincount(person, errors[finite]) for errors in trainings])
    count = np.bincount(person)

    # Draw people, and how often each training.
    rng = np.random.default_rng(seed)
    people = rng.integers(0, len(count), (draws, len(count)))  # (draws, P)
    often = rng.multinomial(len(total), np.full(len(total), 1 / len(total)), draws)  # (draws, T)

    # The mean over faces of each sample.
    sums = often @ total / len(total)  # (draws, P)
    means = np.take_along_axis(sums, people, 1).sum(1) / count[people].sum(1)  # (draws,)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


class FaceErrors(Metric):
    """Compute `summary` over an epoch, across processes.

    >>> metric = FaceErrors()
    >>> metric.update(torch.tensor([0.02, 0.12]))
    >>> round(metric.compute()["fr10"])
    50
    """

    full_state_update = False
    faces: Any

    def __init__(self) -> None:
        super().__init__()
        self.add_state("faces", default=[], dist_reduce_fx="cat")

    def update(self, faces: Tensor) -> None:
        """Add (B,) NME of faces, fractions."""
        self.faces.append(faces.detach())

    def compute(self) -> dict[str, float]:
        """Return all metrics of `summary`, percent."""
        return summary(dim_zero_cat(self.faces))


class SpreadAndError(Metric):
    """Collect, over an epoch and across processes, what confidence is calibrated from."""

    full_state_update = False
    spreads: Any
    errors: Any

    def __init__(self) -> None:
        super().__init__()
        self.add_state("spreads", default=[], dist_reduce_fx="cat")
        self.add_state("errors", default=[], dist_reduce_fx="cat")

    def update(self, spread: Tensor, error: Tensor) -> None:
        """Add points.

        Args:
            spread: (B, K) standard deviations, from the codec.
            error: (B, K), fractions; NaN where not labelled.
        """
        known = torch.isfinite(error)
        self.spreads.append(spread[known].detach().float())
        self.errors.append(error[known].detach().float())

    def compute(self) -> tuple[Tensor, Tensor]:
        """Return the spread and the error of all labelled points, (N,) each."""
        return dim_zero_cat(self.spreads), dim_zero_cat(self.errors)
