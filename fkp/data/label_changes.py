"""Explain labels beside the faces: the unit or the axes with which they would lie on them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fkp.data.label_frames import Fit, Frames, fit
from fkp.data.label_values import Wrong
from fkp.geometry import centre_and_side

ALIKE = 0.12  # in logarithm: factors of rows that were changed alike
CHANGED = 0.25  # in logarithm: factors nearer to 1 are the scatter of the detector
WANDER = 0.1  # in sides of the box: frames that scatter more may have swapped or reversed axes
MOST = 0.4  # fraction of the faces that a change must explain
ENOUGH = 3  # rows that were changed alike, below which it may be an accident

# How well a change of axes explains a label: about as well as labels with the same factor do, which
# the scatter of the detector keeps from a perfect score.
AXES_SCORE = 0.7

FROM_TOP_LEFT = "write x, y from the image's top left corner, in this order"
COPIES = {
    1: "fractions of the image",
    100: "percent of the image",
    1000: "thousandths of the image",
}


@dataclass
class Kind:
    """Describe how labels may have been changed.

    Args:
        name: for messages.
        undo: frames -> frames without the change, but for an unknown factor if `scaled`.
        scaled: the change has an unknown factor.
    """

    name: str
    undo: Callable[[Frames], Frames]
    scaled: bool = True


def _times(side: Callable[[np.ndarray], np.ndarray]) -> Callable[[Frames], Frames]:
    """Undo a division by a side of the image; `side` maps sizes (F, 2) to (F, 1) or (F, 2)."""
    return lambda f: Frames(f.centres * side(f.sizes), f.spans * side(f.sizes), f.sizes)


def _swapped(frames: Frames) -> Frames:
    """Exchange x and y."""
    return Frames(frames.centres[:, ::-1], frames.spans[:, ::-1], frames.sizes)


def _reversed(frames: Frames, axis: int) -> Frames:
    """Count an axis from the other side of the image."""
    centres = frames.centres.copy()
    centres[:, axis] = frames.sizes[:, axis] - 1 - centres[:, axis]
    return Frames(centres, frames.spans, frames.sizes)


# Of kinds that explain equally many rows, the first is reported.
KINDS = [
    Kind("copy", _times(lambda sizes: sizes)),
    Kind("factor", lambda frames: frames),
    Kind("longest side", _times(lambda sizes: sizes.max(1, keepdims=True))),
    Kind("width", _times(lambda sizes: sizes[:, :1])),
    Kind("height", _times(lambda sizes: sizes[:, 1:])),
    Kind("x and y swapped", _swapped, scaled=False),
    Kind("y counted from the bottom", lambda frames: _reversed(frames, 1), scaled=False),
    Kind("x counted from the right", lambda frames: _reversed(frames, 0), scaled=False),
]


def changed_axes(
    frames: Frames, boxes: list[np.ndarray], as_is: Fit, faces: list[int], usual: np.ndarray
) -> list[Wrong]:
    """Find labels near the faces that move in another direction than these from image to image.

    Args:
        frames: of F faces.
        boxes: F arrays (n, 4), found in their images.
        as_is: how the frames fit the boxes.
        faces: F indices, for the cases.
        usual: (3,), as in `fit`.
    """
    scatter = np.hypot(*_scatter(as_is))
    if scatter < WANDER:
        return []
    for kind in KINDS:
        if kind.scaled:
            continue
        if np.hypot(*_scatter(fit(kind.undo(frames), boxes, usual))) < scatter / 2:
            what = f"labels with {kind.name}"
            return [Wrong("axes", what, FROM_TOP_LEFT, dict.fromkeys(faces, ""))]
    return []


def _scatter(found: Fit) -> np.ndarray:
    """Return the robust standard deviation of places (2,), in sides of the box."""
    return 1.48 * np.median(np.abs(found.off - np.median(found.off, 0)), 0)


def explain(
    frames: Frames,
    boxes: dict[int, np.ndarray],
    faces: list[int],
    usual: np.ndarray,
    strict: float = 1.0,
) -> Wrong | None:
    """Find the change that explains most of these labels; None if it may be an accident.

    Args:
        frames: of all faces.
        boxes: face -> boxes (n, 4) found in its image.
        faces: those whose labels lie beside the faces.
        usual: (3,), as in `fit`.
        strict: scales the tolerances; below 1 single rows count too, but only for changes that
            rotated heads cannot imitate.
    """
    some, theirs = frames.select(faces), [boxes[i] for i in faces]
    kinds = [*KINDS, _stretched(some, theirs, usual)]
    if strict < 1:
        kinds = [kind for kind in kinds if kind.name in ("copy", "factor")]

    scored = [_score(kind, some, theirs, usual, strict) for kind in kinds]
    best = int(np.argmax([score.sum() for score, _ in scored]))
    kind, (score, factor) = kinds[best], scored[best]
    copy = _copy(factor) if kind.name == "copy" else None

    # Rows of a usual unit, or rows under strict tolerances, count even if they are few.
    count = int((score > 0).sum())
    few = count < ENOUGH or count < MOST * len(faces)
    if not count or (not copy and strict == 1 and few):
        return None
    cases = {faces[k]: _where(some, k) for k in np.flatnonzero(score).tolist()}
    what, fix = _describe(kind, factor, copy)
    return Wrong("not pixels" if kind.scaled else "axes", what, fix, cases)


def _score(
    kind: Kind, frames: Frames, boxes: list[np.ndarray], usual: np.ndarray, strict: float
) -> tuple[np.ndarray, float]:
    """Score how well a change explains each label, (F,) in [0, 1], and find the shared factor."""
    undone = kind.undo(frames)
    found = fit(undone, boxes, usual, kind.scaled)
    hits = found.hits(strict)
    if not kind.scaled:
        return AXES_SCORE * hits, 1.0

    # A label that hardly changes is not explained.
    by = found.factor[:, None] * undone.centres / frames.centres
    hits &= (np.abs(np.log(np.maximum(by, 1e-9))) > CHANGED).any(1)
    if not hits.any():
        return 0.0 * hits, 1.0

    # The factor on which most labels agree.
    logs = np.log(found.factor)
    distance = np.abs(logs[:, None] - logs[hits])  # (F, hits)
    most = (distance < ALIKE).sum(0).argmax()
    middle = np.median(logs[hits & (distance[:, most] < ALIKE)])
    score = np.maximum(1 - np.abs(logs - middle) / ALIKE, 0) * hits
    return score, float(np.exp(middle))


def _stretched(frames: Frames, boxes: list[np.ndarray], usual: np.ndarray) -> Kind:
    """Make the kind of labels of copies that were resized to one size of another aspect ratio."""
    ratios = []
    for centre, size, found in zip(frames.centres, frames.sizes, boxes, strict=True):
        x, y, side = (float(value[0]) for value in centre_and_side(found))
        place = np.maximum([x + usual[0] * side, y + usual[1] * side], 1)
        copied = centre * size / place
        ratios.append(copied[0] / max(copied[1], 1e-9))
    ratio = float(np.median(ratios))
    return Kind(f"copy of shape {ratio:.4f}", _times(lambda sizes: sizes * (1, ratio)))


def _copy(factor: float) -> int | None:
    """Return the unit, if a copy of 1 / factor pixels stands for fractions, percent, …"""
    return next((side for side in COPIES if abs(np.log(factor * side)) < ALIKE), None)


def _describe(kind: Kind, factor: float, copy: int | None) -> tuple[str, str]:
    """Say what is wrong, and what to do."""
    if not kind.scaled:
        return f"labels with {kind.name}", FROM_TOP_LEFT
    if copy is not None:
        by = "" if copy == 1 else f" / {copy}"
        fix = f"multiply x by the image's width{by} and y by its height{by}"
        return f"labels in {COPIES[copy]}, not pixels", fix
    if kind.name == "factor":
        what = f"labels of images of another size, about {1 / factor:.3g} times these"
        return what, f"multiply x and y by about {factor:.3g}"

    side = 1 / factor
    if kind.name.startswith("copy"):
        ratio = float(kind.name.split()[-1]) if " " in kind.name else 1.0
        what = f"labels of copies that were resized to about {side:.0f} x {side / ratio:.0f}"
        return what, "multiply x by width / that width, y by height / that height"
    what = f"labels of copies whose {kind.name} was about {side:.0f}"
    return what, f"multiply x and y by the image's {kind.name} / {side:.0f}"


def _where(frames: Frames, k: int) -> str:
    """Say where the points of face k lie, and how large its image is."""
    low, high = frames.centres[k] - frames.spans[k] / 2, frames.centres[k] + frames.spans[k] / 2
    width, height = frames.sizes[k]
    span = f"x {low[0]:.4g} … {high[0]:.4g}, y {low[1]:.4g} … {high[1]:.4g}"
    return f"points about {span} in an image of {width:.0f} x {height:.0f}"
