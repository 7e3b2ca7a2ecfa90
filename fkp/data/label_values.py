"""Labels that cannot be pixel coordinates, judged by their numbers alone: shares, markers of missing points, …"""

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

CORNER = 2.0  # pixels: no face fits between the image's corner and here
APART = 0.25  # of the other points' extent: a point at the image's corner that has no neighbour so near was not set
MOVED = 0.6  # of the other points' extent: further from its usual place, a value that repeats was not set
REPEATED = 3  # rows with exactly the same value
AT_ONCE = 20_000  # faces, so that a large table need not be in memory
FLAT = 0.01  # width over length of the points, below which they lie on one line
TWICE = 0.1  # of a face's extent: two labels of one image whose points lie nearer to each other are one face
UPPER = ("eye", "brow", "forehead", "iris", "pupil")
LOWER = ("mouth", "lip", "chin", "jaw", "nose", "nostril")
KNOWN = (
    IBUG68,
    load_markup("face5"),
)  # markups whose shape and frame are known before any label is read
WHERE = "leave the cell empty (in .pts files: nan) for a point without a label"
FILES = "check that the labels belong to these files, at their size"


@dataclass
class Wrong:
    """One kind of wrong labels.

    Args:
        check: a short name.
        what: what is wrong.
        fix: the way out.
        cases: face -> what is so there.
        level: `warning` for what may be right.
    """

    check: str
    what: str
    fix: str
    cases: dict[int, str]
    level: Literal["error", "warning"] = "error"

    def message(self, rows: Sequence[str] | Texts[str], total: int, show: int = 5) -> str:
        """One message with the first rows; `rows` are those of all faces, of which `total` were looked at."""
        listed = [
            f"  {rows[i]}: {said}" if said else f"  {rows[i]}"
            for i, said in list(self.cases.items())[:show]
        ]
        more = [f"  … and {len(self.cases) - show} more"] if len(self.cases) > show else []
        head = f"{self.what} ({len(self.cases)} of {total} faces); {self.fix}:"
        return "\n".join([head, *listed, *more])


def check(points: np.ndarray, sizes: np.ndarray, markup: Markup) -> list[Wrong]:
    """Find labels that are no pixel coordinates of their image; some thousands of faces at a time.

    Args:
        points: (F, K, 2) labels, IMAGE pixels; NaN where a point is not labelled.
        sizes: (F, 2) width and height of each image, pixels; 0 where it is not known.
    """
    found: dict[tuple[str, str], Wrong] = {}
    for start in range(0, len(points), AT_ONCE):
        block = slice(start, start + AT_ONCE)
        for wrong in _check(points[block], sizes[block], markup):
            cases = found.setdefault((wrong.check, wrong.fix), replace(wrong, cases={})).cases
            cases |= {start + i: said for i, said in wrong.cases.items()}
    return list(found.values())


def _check(points: np.ndarray, sizes: np.ndarray, markup: Markup) -> list[Wrong]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a face without a label has no mean
        infinite = np.isinf(points).any(2)
        finite = np.where(infinite[..., None], np.nan, points)
        shares, missing = _shares(finite, sizes), _missing(finite, sizes)
        missing &= ~shares[:, None]
        kept = np.where((missing | shares[:, None])[..., None], np.nan, finite)
        away, nowhere = _outside(kept, sizes)
        kept[away] = np.nan
        flat = _on_a_line(kept, markup) & ~nowhere
        kept[nowhere | flat] = np.nan
        turned = _turned(kept, markup)

    def named(mask: np.ndarray) -> dict[int, str]:
        return {
            i: _listed(points[i], mask[i], markup) for i in np.flatnonzero(mask.any(1)).tolist()
        }

    def spanned(mask: np.ndarray) -> dict[int, str]:
        return {i: _span(points[i], sizes[i]) for i in np.flatnonzero(mask).tolist()}

    shares_what = "no pixel coordinates: all points lie in the image's corner pixel"
    axes_fix = "write x before y, and count y from the image's top (height - 1 - y turns it round)"
    found = [
        Wrong("infinite", "points with an infinite coordinate", WHERE, named(infinite)),
        Wrong("not pixels", shares_what, _to_pixels(points, shares), spanned(shares)),
        Wrong(
            "missing as number",
            "points at a place that stands for a missing label",
            WHERE,
            named(missing),
        ),
        Wrong(
            "far outside",
            "points further outside the image than it is large",
            f"{FILES}; {WHERE}",
            named(away),
        ),
        Wrong("all outside", "all points lie outside the image", FILES, spanned(nowhere)),
        Wrong(
            "one line",
            "all points lie on one line or one spot",
            "label it again, or leave it out",
            spanned(flat),
        ),
        Wrong(
            "axes",
            "no upright face: x and y swapped, or y from the bottom",
            axes_fix,
            spanned(turned),
        ),
    ]
    return [wrong for wrong in found if wrong.cases]


def _shares(points: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """(F,) bool: all points lie within the corner pixel of a larger image, whatever may stand for missing ones."""
    labelled = np.isfinite(points).all(2)
    real = (
        labelled
        & ~_marker(points, sizes)
        & (np.abs(points).max(2) <= 2 * sizes.max(1, keepdims=True))
    )
    inside = (np.abs(points).max(2) <= CORNER) | ~real
    return np.asarray(real.any(1) & inside.all(1) & (sizes.min(1) > 4 * CORNER))


def _to_pixels(points: np.ndarray, shares: np.ndarray) -> str:
    below = np.nanmin(points[shares]) < -0.2 if shares.any() else False
    if below:
        return "they look like -1 … 1: (x + 1) / 2 * width, (y + 1) / 2 * height are pixels"
    return "they look like shares of the image: multiply x by its width and y by its height"


def _marker(points: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """(F, K) bool: values that label tools write for a point that was not set: an image's corner, or twice the same
    number that is at most 1 or larger than the image, as (0, 0), (-1, -1), (0.001, 0.001) and (9999, 9999)."""
    x, y = np.moveaxis(points, 2, 0)
    width, height = sizes.T[..., None]
    same = (np.abs(x - y) < 1e-6) & ((x <= 1) | ((x > width) & (y > height)))
    at_x = np.minimum.reduce([np.abs(x - edge) for edge in (0 * width, width - 1, width)]) < 0.01
    at_y = np.minimum.reduce([np.abs(y - edge) for edge in (0 * height, height - 1, height)]) < 0.01
    return np.asarray(same | (at_x & at_y))


def _missing(points: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """(F, K) bool: points that were not set, by their value and by how far they lie from the face's other points."""
    labelled = np.isfinite(points).all(2)
    marked = _marker(points, sizes) & labelled
    others = np.where(marked[..., None], np.nan, points)
    extent = np.hypot(*np.moveaxis(np.nanmax(others, 1) - np.nanmin(others, 1), 1, 0))
    for i, k in zip(*np.nonzero(marked), strict=True):
        nearest = np.nanmin(np.hypot(*(others[i] - points[i, k]).T)) if extent[i] > 0 else np.inf
        marked[i, k] = nearest > APART * extent[i]
    return marked | _repeated(np.where(marked[..., None], np.nan, points))


def _repeated(points: np.ndarray) -> np.ndarray:
    """(F, K) bool: points whose exact value comes in several rows, and that lie where the rest of the face does not
    put them."""
    count, points_each = points.shape[:2]
    repeated = np.zeros((count, points_each), bool)
    if points_each < 2 or count < REPEATED:
        return repeated
    middle = np.nanmedian(points, 1, keepdims=True)
    spread = np.nanmedian(np.abs(points - middle), (1, 2))[:, None, None]
    offset = (points - middle) / np.maximum(4 * spread, 1e-9)  # about the face's extent is 1
    strange = np.hypot(*np.moveaxis(offset - np.nanmedian(offset, 0), 2, 0)) > MOVED
    value = points[..., 0] + 1j * points[..., 1]
    for k in range(points_each):
        values, counts = np.unique(value[:, k], return_counts=True)
        usual = values[counts.argmax()]
        same = value[:, k] == usual
        if 2 * counts.max() > count and np.nanstd(offset[same, k], axis=0).max() > MOVED / 2:
            repeated[:, k] |= same  # the face moves, and the point does not
        values, counts = np.unique(value[strange[:, k], k], return_counts=True)
        for again in values[counts >= REPEATED]:
            same = strange[:, k] & (value[:, k] == again)
            moves = np.ptp(middle[same, 0], axis=0).max() > np.median(spread[same])
            if moves:  # else it is nearly one label, several times
                repeated[:, k] |= same
    return repeated


def _outside(points: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(F, K) bool: points further outside the image than it is large; (F,) bool: no point in the image."""
    size = sizes[:, None]
    known, labelled = np.all(sizes > 0, axis=1), np.isfinite(points).all(2)
    away = np.any((points < -size) | (points > 2 * size), axis=2) & known[:, None]
    within = np.all((points > -0.5) & (points < size - 0.5), axis=2)
    nowhere = np.asarray(~within.any(1) & labelled.any(1) & known)
    return np.asarray(away & ~nowhere[:, None]), nowhere


def _on_a_line(points: np.ndarray, markup: Markup) -> np.ndarray:
    """(F,) bool: all points on one spot, or on one line where the markup's other faces, or known ones, are not."""
    labelled = np.isfinite(points).all(2).sum(1)
    x, y = np.moveaxis(points - np.nanmean(points, 1, keepdims=True), 2, 0)
    a, b, c = np.nanmean(x * x, 1), np.nanmean(x * y, 1), np.nanmean(y * y, 1)
    root = np.sqrt((a - c) ** 2 + 4 * b * b)
    long, wide = np.sqrt((a + c + root) / 2), np.sqrt(np.maximum(a + c - root, 0) / 2)
    flat = (wide <= FLAT * long) & (labelled >= 5)
    if flat.sum() > 0.5 * max(1, (labelled >= 5).sum()) and not is_known(markup):
        flat[:] = False  # such as the four corners of the eyes
    return np.asarray(((long == 0) & (labelled >= 2)) | flat)


def is_known(markup: Markup) -> bool:
    """Whether the markup's shape and frame are known before any label is read."""
    return any(markup.points == known.points for known in KNOWN)


def _turned(points: np.ndarray, markup: Markup) -> np.ndarray:
    """(F,) bool: eyes and mouth, right and left lie to each other as in a mirror, and the face is not upright.

    A head that hangs upside down is turned, not mirrored. So only swapped or reversed axes make such a label.
    """
    upper = [
        k for k, name in enumerate(markup.points) if any(word in name.lower() for word in UPPER)
    ]
    lower = [
        k for k, name in enumerate(markup.points) if any(word in name.lower() for word in LOWER)
    ]
    if not upper or not lower:
        return np.zeros(len(points), bool)
    down = np.nanmean(points[:, lower], 1) - np.nanmean(points[:, upper], 1)
    across = points[:, markup.eyes[1]] - points[:, markup.eyes[0]]
    length, width = np.hypot(*down.T), np.hypot(*across.T)
    upright = down[:, 1] > 0.7 * length
    # Which way the pair leads in an upright face; "right" may be the viewer's.
    way = 1.0
    if not is_known(markup) and upright.any():
        way = np.sign(np.nanmedian(across[upright, 0])) or 1.0
    turn = way * (across[:, 0] * down[:, 1] - across[:, 1] * down[:, 0]) / (length * width)
    return np.asarray((turn < -0.5) & (down[:, 1] < 0.5 * length))


def twice(table: FaceTable) -> Wrong | None:
    """Find faces that are labelled twice: two rows of one image whose points nearly coincide."""
    rows = defaultdict(list)
    for i, path in enumerate(table.paths):
        rows[str(path)].append(i)
    cases: dict[int, str] = {}
    for same in rows.values():
        points = table.points[same]
        for second in range(1, len(same)):
            with warnings.catch_warnings():
                warnings.simplefilter(
                    "ignore", RuntimeWarning
                )  # two labels may have no point in common
                apart = np.nanmedian(
                    np.hypot(*np.moveaxis(points[:second] - points[second], 2, 0)), 1
                )
                extent = np.hypot(*(np.nanmax(points[second], 0) - np.nanmin(points[second], 0)))
            near = np.flatnonzero(apart <= TWICE * max(float(extent), 1e-9))
            if len(near):
                cases[same[second]] = f"as {table.rows[same[near[0]]]}"
    what, fix = "the same face labelled twice in one image", "leave one of the two rows out"
    return Wrong("labelled twice", what, fix, cases, "warning") if cases else None


def _listed(points: np.ndarray, mask: np.ndarray, markup: Markup, show: int = 3) -> str:
    """The first of a face's points, with their values."""
    some = np.flatnonzero(mask)
    said = [f"{markup.points[k]} ({points[k, 0]:.6g}, {points[k, 1]:.6g})" for k in some[:show]]
    return (
        f"{len(some)} of {len(mask)} points: {', '.join(said)}{', …' if len(some) > show else ''}"
    )


def _span(points: np.ndarray, size: np.ndarray) -> str:
    """Where a face's points lie, and how large its image is."""
    (left, top), (right, bottom) = np.nanmin(points, 0), np.nanmax(points, 0)
    return f"x {left:.4g} … {right:.4g}, y {top:.4g} … {bottom:.4g} in an image of {size[0]:.0f} x {size[1]:.0f}"
