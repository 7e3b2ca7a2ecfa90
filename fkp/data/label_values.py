"""Find labels whose values cannot be pixel coordinates: fractions, markers of missing points, …"""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from fkp.data.columns import Texts
from fkp.data.table import FaceTable
from fkp.markup import IBUG68, Markup, load_markup

# Pixels: no face fits between the corner of the image and here.
CORNER = 2.0

# In extents of the other points: a point with a marker's value and no neighbour so near is missing.
APART = 0.25

# In extents of the face: a repeated value so far from its point's usual place is missing.
MOVED = 0.6

# Rows with exactly the same value, from which on it may be a marker of missing points.
REPEATED = 3

# Faces that are checked at once, so that a large table need not be in memory.
AT_ONCE = 20_000

# Width over length of the points, below which they lie on one line.
FLAT = 0.01

# In extents of a face: two labels of one image whose points lie nearer to each other are one face.
TWICE = 0.1

# Words in the names of points of the upper and of the lower half of a face.
UPPER = ("eye", "brow", "forehead", "iris", "pupil")
LOWER = ("mouth", "lip", "chin", "jaw", "nose", "nostril")

# Markups whose shape and frame are known before any label is read.
KNOWN = (IBUG68, load_markup("face5"))

WHERE = "leave the cell empty (in .pts files: nan) for a point without a label"
FILES = "check that the labels belong to these files, at their size"
SWAP = "write x before y, and count y from the top of the image (height - 1 - y converts it)"


@dataclass
class Wrong:
    """Describe one kind of wrong labels.

    Args:
        check: a short name.
        what: what is wrong.
        fix: what to do.
        cases: face -> detail.
        level: `warning` for labels that may be right.
    """

    check: str
    what: str
    fix: str
    cases: dict[int, str]
    level: Literal["error", "warning"] = "error"

    def message(self, rows: Sequence[str] | Texts[str], total: int, show: int = 5) -> str:
        """Make a message that names the first rows.

        Args:
            rows: those of all faces.
            total: number of faces that were checked.
            show: rows to name.
        """
        lines = [f"{self.what} ({len(self.cases)} of {total} faces); {self.fix}:"]
        for i, detail in list(self.cases.items())[:show]:
            lines.append(f"  {rows[i]}: {detail}" if detail else f"  {rows[i]}")
        if len(self.cases) > show:
            lines.append(f"  … and {len(self.cases) - show} more")
        return "\n".join(lines)


def check(points: np.ndarray, sizes: np.ndarray, markup: Markup) -> list[Wrong]:
    """Find labels that are no pixel coordinates of their image, some thousand faces at a time.

    Args:
        points: (F, K, 2) labels, IMAGE pixels; NaN where a point is not labelled.
        sizes: (F, 2) width and height of each image, pixels; 0 where it is not known.
        markup: the meaning of the points.
    """
    found: dict[tuple[str, str], Wrong] = {}
    for start in range(0, len(points), AT_ONCE):
        block = slice(start, start + AT_ONCE)
        for wrong in _check(points[block], sizes[block], markup):
            cases = found.setdefault((wrong.check, wrong.fix), replace(wrong, cases={})).cases
            cases |= {start + i: detail for i, detail in wrong.cases.items()}
    return list(found.values())


def _check(points: np.ndarray, sizes: np.ndarray, markup: Markup) -> list[Wrong]:
    """Find wrong labels of a block of faces; each check ignores what earlier ones have found."""
    with warnings.catch_warnings():
        # A face without a label has no mean.
        warnings.simplefilter("ignore", RuntimeWarning)

        infinite = np.isinf(points).any(2)  # (F, K)
        left = np.where(infinite[..., None], np.nan, points)  # what is not wrong so far

        fractions = _fractions(left, sizes)  # (F,)
        missing = _missing(left, sizes) & ~fractions[:, None]  # (F, K)
        left = np.where((missing | fractions[:, None])[..., None], np.nan, left)

        away, outside = _outside(left, sizes)  # (F, K), (F,)
        left[away] = np.nan
        flat = _on_a_line(left, markup) & ~outside  # (F,)
        left[outside | flat] = np.nan
        swapped = _axes_swapped(left, markup)  # (F,)

    def points_of(mask: np.ndarray) -> dict[int, str]:
        faces = np.flatnonzero(mask.any(1)).tolist()
        return {i: _listed(points[i], mask[i], markup) for i in faces}

    def spans_of(mask: np.ndarray) -> dict[int, str]:
        return {i: _span(points[i], sizes[i]) for i in np.flatnonzero(mask).tolist()}

    in_corner = "no pixel coordinates: all points lie in the image's corner pixel"
    marker = "points at a place that stands for a missing label"
    far = "points further outside the image than it is large"
    line = "all points lie on one line or one spot"
    axes = "no upright face: x and y swapped, or y from the bottom"
    again = "label it again, or leave it out"
    found = [
        Wrong("infinite", "points with an infinite coordinate", WHERE, points_of(infinite)),
        Wrong("not pixels", in_corner, _to_pixels(points, fractions), spans_of(fractions)),
        Wrong("missing as number", marker, WHERE, points_of(missing)),
        Wrong("far outside", far, f"{FILES}; {WHERE}", points_of(away)),
        Wrong("all outside", "all points lie outside the image", FILES, spans_of(outside)),
        Wrong("one line", line, again, spans_of(flat)),
        Wrong("axes", axes, SWAP, spans_of(swapped)),
    ]
    return [wrong for wrong in found if wrong.cases]


def _fractions(points: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Whether all points of a face lie in the corner pixel of a larger image, (F,) bool.

    Values that may stand for missing points are ignored.
    """
    largest = np.abs(points).max(2)  # (F, K)
    labelled = np.isfinite(points).all(2)
    real = labelled & ~_marker(points, sizes) & (largest <= 2 * sizes.max(1, keepdims=True))
    inside = (largest <= CORNER) | ~real
    return np.asarray(real.any(1) & inside.all(1) & (sizes.min(1) > 4 * CORNER))


def _to_pixels(points: np.ndarray, fractions: np.ndarray) -> str:
    """Say how to convert the labels of these faces, (F,) bool, to pixels."""
    negative = np.nanmin(points[fractions]) < -0.2 if fractions.any() else False
    if negative:
        return "they look like -1 … 1: (x + 1) / 2 * width, (y + 1) / 2 * height are pixels"
    return "they look like fractions of the image: multiply x by its width and y by its height"


def _marker(points: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Whether values are those that label tools write for a missing point, (F, K) bool.

    They are a corner of the image, or twice the same number, at most 1 or larger than the image:
    (0, 0), (-1, -1), (0.001, 0.001) and (9999, 9999).
    """
    x, y = np.moveaxis(points, 2, 0)  # (F, K)
    width, height = sizes.T[..., None]  # (F, 1)
    same = (np.abs(x - y) < 1e-6) & ((x <= 1) | ((x > width) & (y > height)))
    at_x = np.minimum.reduce([np.abs(x - edge) for edge in (0 * width, width - 1, width)]) < 0.01
    at_y = np.minimum.reduce([np.abs(y - edge) for edge in (0 * height, height - 1, height)]) < 0.01
    return np.asarray(same | (at_x & at_y))


def _missing(points: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Whether points were not labelled, by their value and their distance to others, (F, K)."""
    labelled = np.isfinite(points).all(2)
    marked = _marker(points, sizes) & labelled
    others = np.where(marked[..., None], np.nan, points)
    extent = np.hypot(*np.moveaxis(np.nanmax(others, 1) - np.nanmin(others, 1), 1, 0))  # (F,)

    for i, k in zip(*np.nonzero(marked), strict=True):
        nearest = np.nanmin(np.hypot(*(others[i] - points[i, k]).T)) if extent[i] > 0 else np.inf
        marked[i, k] = nearest > APART * extent[i]
    return marked | _repeated(np.where(marked[..., None], np.nan, points))


def _repeated(points: np.ndarray) -> np.ndarray:
    """Whether the exact value of a point repeats in other rows while the face moves, (F, K)."""
    rows, count = points.shape[:2]
    repeated = np.zeros((rows, count), bool)
    if count < 2 or rows < REPEATED:
        return repeated

    # Places in the face: its extent is about 1.
    middle = np.nanmedian(points, 1, keepdims=True)  # (F, 1, 2)
    spread = np.nanmedian(np.abs(points - middle), (1, 2))[:, None, None]
    offset = (points - middle) / np.maximum(4 * spread, 1e-9)  # (F, K, 2)
    unusual = np.hypot(*np.moveaxis(offset - np.nanmedian(offset, 0), 2, 0)) > MOVED  # (F, K)

    value = points[..., 0] + 1j * points[..., 1]  # (F, K)
    for k in range(count):
        # Most rows have one value, although the face moves.
        values, counts = np.unique(value[:, k], return_counts=True)
        same = value[:, k] == values[counts.argmax()]
        if 2 * counts.max() > rows and np.nanstd(offset[same, k], axis=0).max() > MOVED / 2:
            repeated[:, k] |= same

        # Some rows have one value at an unusual place. If the face does not move, they are
        # nearly one label, several times.
        values, counts = np.unique(value[unusual[:, k], k], return_counts=True)
        for again in values[counts >= REPEATED]:
            same = unusual[:, k] & (value[:, k] == again)
            if np.ptp(middle[same, 0], axis=0).max() > np.median(spread[same]):
                repeated[:, k] |= same
    return repeated


def _outside(points: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find points outside their image.

    Returns:
        (F, K) bool: points further outside than the image is large; (F,) bool: faces without any
        point in the image, whose points are not in the former.
    """
    size = sizes[:, None]  # (F, 1, 2)
    known, labelled = np.all(sizes > 0, axis=1), np.isfinite(points).all(2)
    away = np.any((points < -size) | (points > 2 * size), axis=2) & known[:, None]
    within = np.all((points > -0.5) & (points < size - 0.5), axis=2)
    outside = np.asarray(~within.any(1) & labelled.any(1) & known)
    return np.asarray(away & ~outside[:, None]), outside


def _on_a_line(points: np.ndarray, markup: Markup) -> np.ndarray:
    """Whether all points of a face lie on one spot or one line, (F,) bool.

    A line is no fault if most faces are lines, as for a markup of the four corners of the eyes.
    """
    labelled = np.isfinite(points).all(2).sum(1)

    # Standard deviations along the principal axes.
    x, y = np.moveaxis(points - np.nanmean(points, 1, keepdims=True), 2, 0)
    a, b, c = np.nanmean(x * x, 1), np.nanmean(x * y, 1), np.nanmean(y * y, 1)
    root = np.sqrt((a - c) ** 2 + 4 * b * b)
    length, width = np.sqrt((a + c + root) / 2), np.sqrt(np.maximum(a + c - root, 0) / 2)

    enough = labelled >= 5
    flat = (width <= FLAT * length) & enough
    if flat.sum() > 0.5 * max(1, enough.sum()) and not is_known(markup):
        flat[:] = False
    return np.asarray(((length == 0) & (labelled >= 2)) | flat)


def is_known(markup: Markup) -> bool:
    """Whether the markup's shape and frame are known before any label is read."""
    return any(markup.points == known.points for known in KNOWN)


def _axes_swapped(points: np.ndarray, markup: Markup) -> np.ndarray:
    """Whether a face that is not upright is mirrored, (F,) bool: x and y swapped, or y reversed.

    Eyes and mouth, right and left say so. A head upside down is rotated, not mirrored.
    """
    names = [name.lower() for name in markup.points]
    upper = [k for k, name in enumerate(names) if any(word in name for word in UPPER)]
    lower = [k for k, name in enumerate(names) if any(word in name for word in LOWER)]
    if not upper or not lower:
        return np.zeros(len(points), bool)

    down = np.nanmean(points[:, lower], 1) - np.nanmean(points[:, upper], 1)  # (F, 2)
    across = points[:, markup.eyes[1]] - points[:, markup.eyes[0]]  # (F, 2)
    length, width = np.hypot(*down.T), np.hypot(*across.T)
    upright = down[:, 1] > 0.7 * length

    # The direction of the pair in an upright face; "right" may be the viewer's.
    direction = 1.0
    if not is_known(markup) and upright.any():
        direction = np.sign(np.nanmedian(across[upright, 0])) or 1.0
    cross = across[:, 0] * down[:, 1] - across[:, 1] * down[:, 0]
    sine = direction * cross / (length * width)
    return np.asarray((sine < -0.5) & (down[:, 1] < 0.5 * length))


def twice(table: FaceTable) -> Wrong | None:
    """Find faces that are labelled twice: two rows of one image whose points nearly coincide."""
    rows = defaultdict(list)
    for i, path in enumerate(table.paths):
        rows[str(path)].append(i)

    cases: dict[int, str] = {}
    for same in rows.values():
        points = table.points[same]
        for second in range(1, len(same)):
            near = _coincident(points[:second], points[second])
            if len(near):
                cases[same[second]] = f"as {table.rows[same[near[0]]]}"
    what, fix = "the same face labelled twice in one image", "leave one of the two rows out"
    return Wrong("labelled twice", what, fix, cases, "warning") if cases else None


def _coincident(points: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Return the indices of the faces (n, K, 2) whose points nearly coincide with a label's."""
    with warnings.catch_warnings():
        # Two labels may have no point in common.
        warnings.simplefilter("ignore", RuntimeWarning)
        distance = np.nanmedian(np.hypot(*np.moveaxis(points - label, 2, 0)), 1)  # (n,)
        extent = np.hypot(*(np.nanmax(label, 0) - np.nanmin(label, 0)))
    return np.flatnonzero(distance <= TWICE * max(float(extent), 1e-9))


def _listed(points: np.ndarray, mask: np.ndarray, markup: Markup, show: int = 3) -> str:
    """List the first masked points of a face with their values."""
    chosen = np.flatnonzero(mask)
    listed = [f"{markup.points[k]} ({points[k, 0]:.6g}, {points[k, 1]:.6g})" for k in chosen[:show]]
    more = ", …" if len(chosen) > show else ""
    return f"{len(chosen)} of {len(mask)} points: {', '.join(listed)}{more}"


def _span(points: np.ndarray, size: np.ndarray) -> str:
    """Say where the points (K, 2) of a face lie, and how large its image is."""
    (left, top), (right, bottom) = np.nanmin(points, 0), np.nanmax(points, 0)
    span = f"x {left:.4g} … {right:.4g}, y {top:.4g} … {bottom:.4g}"
    return f"{span} in an image of {size[0]:.0f} x {size[1]:.0f}"
