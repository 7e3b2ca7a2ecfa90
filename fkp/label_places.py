"""Whether labels lie on the faces that a detector finds in their images, and if not, on which scale they would."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from fkp.detectors import HaarCascade
from fkp.errors import FkpError
from fkp.geometry import centre_and_side
from fkp.label_values import AT_ONCE, KNOWN, Wrong
from fkp.markup import Markup
from fkp.pictures import read_picture
from fkp.sources.table import FaceTable

FIRST, SAMPLE, LAST = 12, 48, 200  # images that are searched; more only if labels of those before lie beside faces
FACE = 40  # pixels: to this size a labelled face may be shrunk before it is searched for
# How far a label may lie from where the detector puts it: of the box's side, and the logarithm of its size. Of
# youtube_faces, 300-W and LFW 99 % lie within, and 95 % of UTKFace, whose chips are tight.
OFF, LARGER = 0.3, 0.45
ASIDE = 0.25  # of a box's side: no markup's points lie further from the face's axis, in the median
WANDER = 0.1  # of a box's side: frames that scatter more than this may be swapped or reversed
ALIKE = 0.12  # in logarithm: factors of rows that are of one kind
CHANGED = 0.25  # in logarithm: factors nearer to 1 are the detector's scatter
STRICT = 0.4  # of these tolerances, for a row that nothing else speaks for
MOST = 0.4  # of the faces whose labels lie beside them, a kind explains at least so many
ENOUGH = 3  # rows of one kind that are no accident
FROM_TOP_LEFT = "write x, y from the image's top left corner, in this order"
COPIES = {1: "shares of the image", 100: "percent of the image", 1000: "thousandths of the image"}


@dataclass
class Frames:
    """Where the labels of F faces lie: centres, spans in x and y, and sizes of the images, each (F, 2) in pixels."""

    centres: np.ndarray
    spans: np.ndarray
    sizes: np.ndarray

    @classmethod
    def of(cls, points: np.ndarray, sizes: np.ndarray) -> Frames:
        """Those of labels (F, K, 2)."""
        centres, spans = np.empty((len(points), 2)), np.empty((len(points), 2))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # a face without a label lies nowhere
            for start in range(0, len(points), AT_ONCE):
                block = slice(start, start + AT_ONCE)
                centres[block] = np.nanmean(points[block], 1)
                spans[block] = np.nanmax(points[block], 1) - np.nanmin(points[block], 1)
        return cls(centres, spans, np.asarray(sizes, float))

    @property
    def extents(self) -> np.ndarray:
        """(F,)"""
        return np.hypot(*self.spans.T)

    def select(self, faces: Sequence[int]) -> Frames:
        """Those of these faces."""
        return Frames(self.centres[faces], self.spans[faces], self.sizes[faces])


@dataclass
class Kind:
    """How labels may have been changed.

    Args:
        undo: frames -> frames as they would be without it, but for an unknown factor if `scaled`.
    """

    name: str
    undo: Callable[[Frames], Frames]
    scaled: bool = True


def _times(side: Callable[[np.ndarray], np.ndarray]) -> Callable[[Frames], Frames]:
    """Multiply by a side of the image: sizes (F, 2) -> (F, 2)."""
    return lambda f: Frames(f.centres * side(f.sizes), f.spans * side(f.sizes), f.sizes)


def _mirrored(frames: Frames, axis: int) -> Frames:
    centres = frames.centres.copy()
    centres[:, axis] = frames.sizes[:, axis] - 1 - centres[:, axis]
    return Frames(centres, frames.spans, frames.sizes)


# Of those that explain as many rows, the first is named.
KINDS = [
    Kind("copy", _times(lambda sizes: sizes)),
    Kind("factor", lambda frames: frames),
    Kind("longest side", _times(lambda sizes: sizes.max(1, keepdims=True))),
    Kind("width", _times(lambda sizes: sizes[:, :1])),
    Kind("height", _times(lambda sizes: sizes[:, 1:])),
    Kind("x and y swapped", lambda f: Frames(f.centres[:, ::-1], f.spans[:, ::-1], f.sizes), scaled=False),
    Kind("y counted from the bottom", lambda frames: _mirrored(frames, 1), scaled=False),
    Kind("x counted from the right", lambda frames: _mirrored(frames, 0), scaled=False),
]


@dataclass
class Fit:
    """How frames lie to the nearest of the boxes in their images: F rows.

    Args:
        off: (F, 2) from where the markup's points usually lie, of the box's side.
        larger: (F,) logarithm of how much larger they are than usual; 0 where that is not known.
        factor: (F,) what they were multiplied by to lie there.
    """

    off: np.ndarray
    larger: np.ndarray
    factor: np.ndarray

    def hits(self, strict: float = 1.0) -> np.ndarray:
        """(F,) bool: those that lie on a face."""
        return np.asarray((np.abs(self.off).max(1) < OFF * strict) & (np.abs(self.larger) < LARGER * strict))


def fit(frames: Frames, boxes: Sequence[np.ndarray], usual: np.ndarray, scaled: bool = False) -> Fit:
    """Compare frames with the boxes (n, 4) in their images.

    Args:
        usual: (3,) where points lie in a box: x, y from its centre, of its side, and the logarithm of their extent over
            it; NaN for a size that is not known.
        scaled: multiply each frame by the factor that brings it nearest to the box.
    """
    off, larger, factor = np.zeros((len(boxes), 2)), np.zeros(len(boxes)), np.ones(len(boxes))
    for i, (centre, extent, found) in enumerate(zip(frames.centres, frames.extents, boxes, strict=True)):
        x, y, side = centre_and_side(found)
        target = np.stack([x, y], 1) + usual[:2] * side[:, None]
        times = np.maximum(target @ centre / max(centre @ centre, 1e-9), 1e-9) if scaled else np.ones(len(found))
        apart = (times[:, None] * centre - target) / side[:, None]
        size = np.nan_to_num(np.log(np.maximum(times * extent, 1e-9) / side) - usual[2])
        best = int((np.abs(apart).sum(1) + np.abs(size)).argmin())
        off[i], larger[i], factor[i] = apart[best], size[best], times[best]
    return Fit(off, larger, factor)


def usual_place(markup: Markup, frames: Frames, boxes: Sequence[np.ndarray]) -> np.ndarray:
    """(3,) where the markup's points lie in a detector's box, as `fit` takes it: known, or medians over these faces."""
    for known in KNOWN:
        if markup.points == known.points and known.box is not None:
            return np.array([0.0, known.box["up"] / known.box["side"], np.log(2**0.5 / known.box["side"])])
    own = fit(frames, boxes, np.array([0.0, 0.0, 0.0 if (frames.extents > 0).all() else np.nan]))
    x, y = (float(value) for value in np.median(own.off, 0))
    size = float(np.median(own.larger))
    # Points of a face are about as large as its box, and on both sides of its axis.
    if abs(x) > ASIDE or abs(y) > 2 * ASIDE or not np.log(0.1) < size < np.log(2.5) or not (frames.extents > 0).all():
        return np.array([x if abs(x) <= ASIDE else 0.0, y if abs(y) <= 2 * ASIDE else 0.0, np.nan])
    return np.array([x, y, size])


class Search:
    """Finds faces in images, each once, no more finely than the labelled face needs."""

    def __init__(self) -> None:
        self.detectors: dict[int, HaarCascade] = {}
        self.found: dict[int, np.ndarray] = {}

    def __call__(self, table: FaceTable, frames: Frames, faces: Sequence[int]) -> dict[int, np.ndarray]:
        """Face -> boxes (n, 4) in its image, IMAGE pixels; none where the image cannot be read."""
        for i in faces:
            if i not in self.found:
                self.found[i] = self._boxes(table.paths[i], frames.centres[i], float(frames.extents[i]))
        return {i: self.found[i] for i in faces}

    def _boxes(self, path: object, centre: np.ndarray, extent: float) -> np.ndarray:
        try:
            image = read_picture(path, gray=True)  # type: ignore[arg-type]
        except FkpError:
            return np.zeros((0, 4), np.float32)
        longest = max(image.shape[:2])
        needed = longest * FACE / max(extent, 1.0)
        boxes = self._detector(next(side for side in (240, 640, 1280) if needed <= side or side == 1280))(image)[0]
        # The face that is labelled may be one that this search missed: look for it alone.
        x, y = centre
        left, top = np.clip(np.array([x, y]) - 1.2 * extent, 0, None).astype(int)
        right, bottom = (np.array([x, y]) + 1.2 * extent).astype(int) + 1
        part = image[top:bottom, left:right]
        if extent < 8 or min(part.shape[:2]) < 16 or part.shape == image.shape or _near(boxes, centre):
            return boxes
        factor = max(1.0, 3 * FACE / max(part.shape))
        part = cv2.resize(part, None, fx=factor, fy=factor)
        own = self._detector(240, True)(part)[0] / factor + np.array([left, top] * 2)
        return np.concatenate([boxes, own])

    def _detector(self, longest: int, finer: bool = False) -> HaarCascade:
        key = longest + finer
        if key not in self.detectors:
            second = "haarcascade_frontalface_alt2.xml" if finer else None
            step = 1.1 if finer else 1.2
            least = 0.7 * FACE / longest
            self.detectors[key] = HaarCascade(scale_factor=step, second=second, min_size=least, longest=longest)
        return self.detectors[key]


def _near(boxes: np.ndarray, centre: np.ndarray) -> bool:
    x, y, side = centre_and_side(boxes)
    return bool((np.hypot(x - centre[0], y - centre[1]) < 0.4 * side).any())


def sample(table: FaceTable, sizes: np.ndarray, markup: Markup) -> list[Wrong]:
    """Compare labels with the faces that the default detector finds in a few images, and with the table's own boxes.

    Twelve evenly spaced images and those whose labels lie unusually; some dozens more if any label lies beside a face.

    Args:
        sizes: (F, 2) width and height of each image, pixels.
    """
    if not len(table):
        return []
    search, frames = Search(), Frames.of(table.points, sizes)
    given = np.flatnonzero(np.isfinite(table.boxes).all(1) & np.isfinite(frames.centres).all(1)).tolist()
    own = judge(markup, frames, {i: table.boxes[i : i + 1] for i in given}).wrong
    if own:
        return own
    first, more = (spaced(len(table), count) for count in (FIRST, SAMPLE))
    boxes = search(table, frames, list(dict.fromkeys([*first, *_unusual(frames)])))
    places = judge(markup, frames, boxes)
    if places.wrong or places.beside or len(places.seen) < FIRST / 2:
        boxes |= search(table, frames, more)
        places = judge(markup, frames, boxes)
    if not places.wrong and len(places.beside) >= ENOUGH - 1:  # some more of their kind would prove it
        boxes |= search(table, frames, spaced(len(table), LAST))
        places = judge(markup, frames, boxes)
    return [*places.wrong, *beside_the_face(places), *upper_left(frames, places)]


def spaced(total: int, count: int) -> list[int]:
    """At most so many of the numbers from 0 to below a total, evenly spaced."""
    return list(dict.fromkeys(np.linspace(0, total - 1, count).astype(int).tolist()))


def _unusual(frames: Frames, most: int = 16, deviations: float = 6.0) -> list[int]:
    """Faces whose place or size in the image is unlike the others', the most unlike first."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        size = np.log(np.maximum(frames.extents, 1e-9) / np.sqrt(frames.sizes.prod(1)))
        place = np.column_stack([frames.centres / frames.sizes, size])
        apart = np.abs(place - np.nanmedian(place, 0))
        score = np.nan_to_num((apart / np.maximum(1.48 * np.nanmedian(apart, 0), (0.03, 0.03, 0.1))).max(1))
    order = np.argsort(-score)[:most]
    return [int(i) for i in order if score[i] > deviations]


def beside_the_face(places: Places) -> list[Wrong]:
    """Labels that lie on no face that was found; an error if most do."""
    if not places.beside:
        return []
    most = len(places.seen) >= FIRST / 2 and len(places.beside) > 0.5 * len(places.seen)
    what = "the detector finds faces in these images, but not where the labels are"
    fix = "check that the labels belong to these files, in pixels of these images"
    return [Wrong("beside the face", what, fix, {i: "" for i in places.beside}, "error" if most else "warning")]


def upper_left(frames: Frames, places: Places) -> list[Wrong]:
    """Labels that may be percent, where no face was found that could tell."""
    high = frames.centres + frames.spans / 2
    if places.seen or len(high) < FIRST or not (np.nanmax(high) <= 101 and np.median(frames.sizes.min(1)) > 200):
        return []
    what = "no coordinate is above 100, in images of more than 200 pixels, and the detector finds no face in them"
    return [Wrong("percent?", what, "if they are percent of the image, make them pixels", {}, "warning")]


@dataclass
class Places:
    """What the detector says of some faces.

    Args:
        wrong: kinds of wrong labels, with their faces.
        beside: faces whose label lies on no face that was found, for no reason that is known.
        seen: faces in whose images a face was found.
    """

    wrong: list[Wrong]
    beside: list[int]
    seen: list[int]


def judge(markup: Markup, frames: Frames, boxes: dict[int, np.ndarray], alone: bool = False) -> Places:
    """Compare labels with the faces that were found in their images.

    Args:
        frames: of all faces.
        boxes: face -> boxes (n, 4) found in its image.
        alone: one row that fits closely is a kind of its own; else some rows must be of one kind.
    """
    seen = [i for i, found in boxes.items() if len(found) and np.isfinite(frames.centres[i]).all()]
    if not seen:
        return Places([], [], [])
    some, theirs = frames.select(seen), [boxes[i] for i in seen]
    usual = usual_place(markup, some, theirs)
    as_is = fit(some, theirs, usual)
    hits = as_is.hits()
    if wrong := _wandering(some, theirs, as_is, seen, usual):
        return Places(wrong, [], seen)
    left = [i for i, hit in zip(seen, hits, strict=True) if not hit]
    for strict in (1.0, *([STRICT] if alone else [])):
        while left and (found := _explained(frames, boxes, left, usual, strict)):
            found.what += f" (so far as faces were found: in {len(seen)} of {len(boxes)} images)"
            wrong.append(found)
            left = [i for i in left if i not in found.cases]
    return Places(wrong, left, seen)


def _wandering(frames: Frames, boxes: list[np.ndarray], as_is: Fit, seen: list[int], usual: np.ndarray) -> list[Wrong]:
    """Labels that all lie near the faces, but move the other way when these do."""
    scatter = np.hypot(*_scatter(as_is))
    if len(seen) < FIRST or scatter < WANDER:
        return []
    for kind in KINDS:
        if not kind.scaled and np.hypot(*_scatter(fit(kind.undo(frames), boxes, usual))) < scatter / 2:
            return [Wrong("axes", f"labels with {kind.name}", FROM_TOP_LEFT, {i: "" for i in seen})]
    return []


def _scatter(found: Fit) -> np.ndarray:
    """(2,): of boxes' sides, robust against a few that lie elsewhere."""
    return 1.48 * np.median(np.abs(found.off - np.median(found.off, 0)), 0)


def _explained(
    frames: Frames, boxes: dict[int, np.ndarray], faces: list[int], usual: np.ndarray, strict: float = 1.0
) -> Wrong | None:
    """The kind that brings most of these labels onto faces, if it is no accident.

    Args:
        strict: of the tolerances; below 1, single rows count, too, but for those that may be turned heads.
    """
    some, theirs = frames.select(faces), [boxes[i] for i in faces]
    kinds = [*KINDS, _stretched(some, theirs, usual)]
    if strict < 1:
        kinds = [kind for kind in kinds if kind.name in ("copy", "factor")]
    tried = [_tried(kind, some, theirs, usual, strict) for kind in kinds]
    best = int(np.argmax([score.sum() for score, _ in tried]))
    kind, (score, factor) = kinds[best], tried[best]
    count = int((score > 0).sum())
    copy = _copy(factor) if kind.name == "copy" else None

    if not count or (not copy and strict == 1 and (count < ENOUGH or count < MOST * len(faces))):
        return None
    cases = {faces[k]: _where(some, k) for k in np.flatnonzero(score).tolist()}
    what, fix = _told(kind, factor, copy)
    return Wrong("not pixels" if kind.scaled else "axes", what, fix, cases)


def _tried(
    kind: Kind, frames: Frames, boxes: list[np.ndarray], usual: np.ndarray, strict: float
) -> tuple[np.ndarray, float]:
    """(F,) how well a kind explains each label, 0 … 1, and the factor that those it explains share."""
    undone = kind.undo(frames)
    found = fit(undone, boxes, usual, kind.scaled)
    hits = found.hits(strict)
    if not kind.scaled:
        return 0.7 * hits, 1.0  # about as much as labels get that share their factor but for the detector's scatter
    by = found.factor[:, None] * undone.centres / frames.centres
    hits &= (np.abs(np.log(np.maximum(by, 1e-9))) > CHANGED).any(1)  # nearly as it is, it explains nothing
    if not hits.any():
        return 0.0 * hits, 1.0
    logs = np.log(found.factor)
    apart = np.abs(logs[:, None] - logs[hits])
    middle = np.median(logs[hits & (apart[:, (apart < ALIKE).sum(0).argmax()] < ALIKE)])  # of the most that agree
    return np.maximum(1 - np.abs(logs - middle) / ALIKE, 0) * hits, float(np.exp(middle))


def _stretched(frames: Frames, boxes: list[np.ndarray], usual: np.ndarray) -> Kind:
    """Labels of copies that were all resized to one size, of another shape than the images."""
    ratios = []
    for centre, size, found in zip(frames.centres, frames.sizes, boxes, strict=True):
        x, y, side = (float(value[0]) for value in centre_and_side(found))
        copied = centre * size / np.maximum([x + usual[0] * side, y + usual[1] * side], 1)
        ratios.append(copied[0] / max(copied[1], 1e-9))
    shape = float(np.median(ratios))
    return Kind(f"copy of shape {shape:.4f}", _times(lambda sizes: sizes * (1, shape)))


def _copy(factor: float) -> int | None:
    """Whether a copy whose side is 1 / factor pixels long stands for shares, percent, …"""
    return next((side for side in COPIES if abs(np.log(factor * side)) < ALIKE), None)


def _told(kind: Kind, factor: float, copy: int | None) -> tuple[str, str]:
    """What is wrong, and the way out."""
    if not kind.scaled:
        return f"labels with {kind.name}", FROM_TOP_LEFT
    if copy is not None:
        by = "" if copy == 1 else f" / {copy}"
        return f"labels in {COPIES[copy]}, not pixels", f"multiply x by the image's width{by} and y by its height{by}"
    if kind.name == "factor":
        what = f"labels of images of another size, about {1 / factor:.3g} times these"
        return what, f"multiply x and y by about {factor:.3g}"
    side = 1 / factor
    if kind.name.startswith("copy"):
        shape = float(kind.name.split()[-1]) if " " in kind.name else 1.0
        what = f"labels of copies that were resized to about {side:.0f} x {side / shape:.0f}"
        return what, "multiply x by width / that width, y by height / that height"
    what = f"labels of copies whose {kind.name} was about {side:.0f}"
    return what, f"multiply x and y by the image's {kind.name} / {side:.0f}"


def _where(frames: Frames, k: int) -> str:
    low, high = frames.centres[k] - frames.spans[k] / 2, frames.centres[k] + frames.spans[k] / 2
    width, height = frames.sizes[k]
    span = f"x {low[0]:.4g} … {high[0]:.4g}, y {low[1]:.4g} … {high[1]:.4g}"
    return f"points about {span} in an image of {width:.0f} x {height:.0f}"
