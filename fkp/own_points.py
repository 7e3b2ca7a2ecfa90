"""Fit a map from a trained network to the user's own points, in closed form.

The map (`fkp.point_map.PointMap`) is linear in its weights, so ridge regression finds them: with
penalties that cross-validation over people chooses, from a few faces, in seconds. The same
cross-validation tells how accurate the map is on people that it has not seen.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fkp.data.dataset import FacialKeypointsDataset
from fkp.data.folds import dealt
from fkp.markup import Markup
from fkp.metrics import point_errors
from fkp.module import to_crop_space
from fkp.point_map import UNITS, PointMap, Seen, turn

FOLDS, FEWEST_PEOPLE = 5, 3

# A face is seen as in evaluation, and so many more times with random changes of training that there
# are about ENOUGH views; each of them also mirrored.
ENOUGH, MOST_CHANGED = 1000, 3

# Faces that a map is fitted to, at most: memory grows with their number.
MOST_FACES = 4000

# Reach of a trunk's point for the standard deviation of another, in units of the face's size.
REACH = 0.1

BATCH = 64

log = logging.getLogger(__name__)

# Ridge penalties to choose from, for one view of each face.
PENALTIES = (10.0, 30.0, 100.0, 300.0)
LOCAL_PENALTIES = (10.0, 30.0, 100.0)


@dataclass
class Views:
    """What the trunk sees in n views of F faces.

    Attributes:
        seen: of the trunk, on the CPU, features in half precision.
        inputs: (n, D), of the linear map, float64.
        label: (n, K, 2), in aligned coordinates; NaN where not labelled.
        side: (n,), of the face box, UNITS.
        face: (n,), number of the face.
        mirrored: (n,) bool.
        plain: (n,) bool: without random changes, as in evaluation.
    """

    seen: Seen
    inputs: Tensor
    label: Tensor
    side: Tensor
    face: Tensor
    mirrored: Tensor
    plain: Tensor


@dataclass(frozen=True)
class Fitted:
    """The result of a fit.

    Attributes:
        points: (F, K, 2), CROP pixels of the crop without random changes: of each face, by a map
            that was fitted without this person.
        spread: (F, K), the standard deviations that belong to them.
        errors: (F, K), their distances to the labels, as fractions of the eye distance; NaN where
            not labelled.
        penalties: those chosen, of the linear map and of the corrections.
    """

    points: Tensor
    spread: Tensor
    errors: Tensor
    penalties: tuple[float, float]


@torch.no_grad()
def fit(network: PointMap, dataset: FacialKeypointsDataset, markup: Markup) -> Fitted:
    """Fit the map of a network to the faces of a dataset, in place.

    Args:
        network: in evaluation mode; its trunk is trained.
        dataset: F faces.
        markup: the meaning of their points.
    """
    views = view(network, dataset)
    fold = torch.from_numpy(_folds(list(dataset.table.identity)))[views.face]
    per_face = len(views.face) / len(dataset)

    # The linear map: choose the penalty, on people that it was not fitted to.
    penalties = [per_face * penalty for penalty in PENALTIES]
    flat = views.label.flatten(1)  # (n, 2 K)
    held_out = _held_out(views.inputs, flat, fold, penalties)  # (P, n, 2 K)
    best = _best(held_out, flat)
    first = held_out[best].view_as(views.label)

    # The corrections: fitted to what the linear map errs on people that it was not fitted to.
    local_penalties = [per_face * penalty for penalty in LOCAL_PENALTIES]
    corrected = _cross_validate(network, views, fold, penalties[best], local_penalties)
    local_best = _best(corrected.flatten(2), flat)

    # Fit both to all faces.
    network.spread_weight.copy_(_nearness(views.label.nanmean(0), network.shape))
    (weight, bias), *_ = ridge(views.inputs, flat, [penalties[best]])
    network.weight.copy_(weight)
    network.bias.copy_(bias)
    around, penalty = _surroundings(network, views, first), local_penalties[local_best]
    for k in range(network.points):
        ((weight, bias),) = ridge(around[:, k], (views.label - first)[:, k], [penalty])
        network.local_weight[k] = weight
        network.local_bias[k] = bias

    points, spread = _joined(network, views, corrected[local_best], dataset.flip_indices)
    label, _ = _joined(network, views, views.label, None)
    side = views.side[views.plain & ~views.mirrored]
    errors = point_errors(points, label, markup, side)

    size = network.codec.size
    points = points * (size / UNITS) + network.codec.middle
    return Fitted(points, spread, errors, (PENALTIES[best], LOCAL_PENALTIES[local_best]))


@torch.no_grad()
def view(network: PointMap, dataset: FacialKeypointsDataset) -> Views:
    """Run the trunk on the faces of a dataset, and set the shape that aligns them.

    Args:
        network: in evaluation mode, with a trained trunk.
        dataset: F faces; its flip indices tell whether they are also seen mirrored.
    """
    flip, changed = dataset.flip_indices, min(MOST_CHANGED, ENOUGH // len(dataset) - 1)
    columns: list[tuple[Tensor, ...]] = []
    for look in range(max(0, changed) + 1):
        for image, label, side, face in _batches(dataset, look):
            plain = torch.full_like(face, look == 0, dtype=torch.bool)
            rest = (side, face, torch.zeros_like(plain), plain)
            columns.append((*_look(network, image), label, *rest))
            if flip is not None:
                label = label[:, flip] * label.new_tensor([-1, 1])
                rest = (side, face, torch.ones_like(plain), plain)
                columns.append((*_look(network, image.flip(-1)), label, *rest))

    features, found, spread, label, side, face, mirrored, plain = map(
        torch.cat, zip(*columns, strict=True)
    )
    network.shape.copy_(found[plain & ~mirrored].mean(0))
    seen = Seen(features, found, spread, turn(found, network.shape.cpu()))
    inputs = torch.cat([network.inputs(part) for part in _in_batches(seen)]).double()
    return Views(seen, inputs, network.aligned(seen, label).double(), side, face, mirrored, plain)


def _batches(dataset: FacialKeypointsDataset, look: int) -> Iterator[tuple[Tensor, ...]]:
    """Yield images (B, C, h, w), labels (B, K, 2), sides of boxes (B,) and faces (B,).

    Labels are in UNITS from the crop's centre, sides in UNITS.

    Args:
        dataset: of the faces.
        look: 0 for crops without random changes, else the number of the random draw.
    """
    for faces in torch.arange(len(dataset)).split(BATCH):
        keys = [(look, i) if look else i for i in faces.tolist()]
        batch = dataset.finish(dataset.__getitems__(keys))
        label, size = to_crop_space(batch["points"], batch["to_crop"]), batch["image"].shape[-1]
        units = (label - (size - 1) / 2) * (UNITS / size)
        yield batch["image"], units, batch["side"] * (UNITS / size), faces


def _look(network: PointMap, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Run the trunk: features in half precision, found and spread."""
    seen = network.see(image)
    return seen.features.half(), seen.found, seen.spread


def _in_batches(seen: Seen) -> Iterator[Seen]:
    """Split what the trunk has seen in n crops into batches."""
    for i in range(0, len(seen.found), BATCH):
        yield Seen(*(part[i : i + BATCH] for part in seen))


def ridge(x: Tensor, y: Tensor, penalties: Sequence[float]) -> list[tuple[Tensor, Tensor]]:
    """Fit y = x w + b by least squares, with a penalty on the squares of w.

    Args:
        x: (n, D), float64.
        y: (n, M); NaN where unknown.
        penalties: the fits.

    Returns:
        for each penalty w (D, M) and b (M,).
    """
    fits = [(x.new_zeros(x.shape[1], y.shape[1]), y.nanmean(0)) for _ in penalties]

    # Columns whose unknown rows are the same are fitted together.
    masks, group = torch.unique(torch.isfinite(y), dim=1, return_inverse=True)
    for i, known in enumerate(masks.T):
        columns = group == i
        if not known.any():
            fits = [(w, b.nan_to_num()) for w, b in fits]
            continue

        rows, values = x[known], y[known][:, columns]
        x_mean, y_mean = rows.mean(0), values.mean(0)
        rows, values = rows - x_mean, values - y_mean
        for (w, b), solved in zip(fits, _solve(rows, values, penalties), strict=True):
            w[:, columns] = solved
            b[columns] = y_mean - x_mean @ solved
    return fits


def _solve(x: Tensor, y: Tensor, penalties: Sequence[float]) -> Iterator[Tensor]:
    """Solve (x' x + penalty) w = x' y for each penalty, through the smaller of x' x and x x'."""
    wide = x.shape[0] < x.shape[1]
    gram, target = (x @ x.T, y) if wide else (x.T @ x, x.T @ y)
    identity = torch.eye(len(gram), dtype=x.dtype)
    for penalty in penalties:
        factor = torch.linalg.cholesky(gram + penalty * identity)
        solved = torch.cholesky_solve(target, factor)
        yield x.T @ solved if wide else solved


def _held_out(x: Tensor, y: Tensor, fold: Tensor, penalties: Sequence[float]) -> Tensor:
    """Predict each row of y (n, M) by fits without its fold: (P, n, M)."""
    predicted = y.new_zeros(len(penalties), *y.shape)
    for k in fold.unique():
        own = fold == k
        for i, (w, b) in enumerate(ridge(x[~own], y[~own], penalties)):
            predicted[i, own] = x[own] @ w + b
    return predicted


def _cross_validate(
    network: PointMap, views: Views, fold: Tensor, penalty: float, local_penalties: Sequence[float]
) -> Tensor:
    """Predict all views by maps and corrections that were fitted without their fold.

    Returns:
        (P, n, K, 2), aligned coordinates, for each penalty of the corrections.
    """
    flat = views.label.flatten(1)
    predicted = views.label.new_zeros(len(local_penalties), *views.label.shape)
    for k in fold.unique():
        own = fold == k

        # As in the fit to all faces, but without this fold: the corrections learn from places that
        # were predicted without their own fold.
        first = torch.zeros_like(views.label)
        first[~own] = _held_out(views.inputs[~own], flat[~own], fold[~own], [penalty])[0].view(
            -1, *views.label.shape[1:]
        )
        ((w, b),) = ridge(views.inputs[~own], flat[~own], [penalty])
        first[own] = (views.inputs[own] @ w + b).view(-1, *views.label.shape[1:])

        around = _surroundings(network, views, first)
        for point in range(network.points):
            rest = (views.label - first)[:, point]
            fits = ridge(around[~own, point], rest[~own], local_penalties)
            for i, (w, b) in enumerate(fits):
                predicted[i, own, point] = first[own, point] + around[own, point] @ w + b
    return predicted


def _surroundings(network: PointMap, views: Views, aligned: Tensor) -> Tensor:
    """Gather the features around points (n, K, 2) in aligned coordinates: (n, K, 9 C), float64."""
    parts = zip(_in_batches(views.seen), aligned.float().split(BATCH), strict=True)
    return torch.cat([network.surroundings(seen, points) for seen, points in parts]).double()


def _joined(
    network: PointMap, views: Views, aligned: Tensor, flip: np.ndarray | None
) -> tuple[Tensor, Tensor]:
    """Average the points of the plain view of each face and of its mirror image.

    Returns:
        points (F, K, 2), UNITS from the crop's centre, and standard deviations (F, K).
    """
    points = network.unaligned(views.seen, aligned.float())  # (n, K, 2)
    spread = network.spread(views.seen)  # (n, K)
    own = views.plain & ~views.mirrored
    order = views.face[own].argsort()
    joined, joined_spread = points[own][order], spread[own][order]
    if flip is None:
        return joined, joined_spread

    own = views.plain & views.mirrored
    back = points[own][views.face[own].argsort()][:, flip] * points.new_tensor([-1, 1])
    return (joined + back) / 2, joined_spread


def _nearness(points: Tensor, shape: Tensor) -> Tensor:
    """Weight the trunk's points (J, 2) by their distance to other points (K, 2): (K, J)."""
    shape = shape - shape.mean(0)
    size = (shape.amax(0) - shape.amin(0)).prod().sqrt()
    square = torch.cdist(points.float(), shape).square() / (2 * (REACH * size) ** 2)
    return torch.softmax(-square, 1)


def _folds(people: Sequence[str]) -> np.ndarray:
    """Return the fold of each face, (F,): of its person, or of the face itself if people are few.

    The corrections are validated on a fold, after a map was validated on another, so there must be
    three.
    """
    if len(set(people)) >= FEWEST_PEOPLE:
        return dealt(people, min(FOLDS, len(set(people))))
    log.warning(
        "the faces are of %d people, too few to leave people out: the cross-validation leaves "
        "faces out, and so tells of other photos of these people, not of other people",
        len(set(people)),
    )
    return dealt([str(i) for i in range(len(people))], min(FOLDS, len(people)))


def _best(predicted: Tensor, label: Tensor) -> int:
    """Return which of P predictions (P, n, 2 K) is nearest to the label (n, 2 K) on average."""
    distance = (predicted - label).unflatten(2, (-1, 2)).norm(dim=3)
    return int(distance.nanmean((1, 2)).argmin())
