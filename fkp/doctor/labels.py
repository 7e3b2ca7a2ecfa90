"""What is wrong with the labels: by their numbers, their shapes, and the pixels below them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import cv2
import numpy as np

from fkp.data.image_cache import ImageCache
from fkp.data.shapes import aligned, check_flip, onto
from fkp.data.table import FaceTable
from fkp.doctor.findings import Case, Finding
from fkp.errors import FkpError
from fkp.geometry import apply, compose, invert
from fkp.markup import Markup

TINY_FACE = 32  # pixels of a face box's side
FAR_OUTSIDE = 0.25  # of a face box's side
ODD_SHAPE = 8.0  # times as far from where the other points put it as is usual for that point
BROKEN = 0.3  # of a face's size: no face is so odd
SIDE, REACH = (
    64,
    12,
)  # of the patch on which a face is compared with the mean face, and how far it is looked for
UNIT = 40.0  # pixels of the patch that are the size of a face
MISPLACED, BETTER = (
    0.12,
    0.25,
)  # of a face's size; and in correlation: from these a face is said to lie elsewhere
FEW = 20  # faces, whose mean is no mean face
GROUPS = 24  # of faces, each with a mean face of its own, for the error of the shift


class Suspect(NamedTuple):
    """A face that may be labelled wrongly."""

    score: float  # 1 is where a finding begins
    face: int
    why: str


def check(
    table: FaceTable, canvases: ImageCache, markup: Markup
) -> tuple[list[Finding], list[Suspect]]:
    """Findings, and the faces that may be labelled wrongly, worst first."""
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", RuntimeWarning
        )  # means of nothing, where a point is labelled nowhere
        findings = list(_numbers(table, canvases, markup))
        affines, mean = aligned(table.points)
        swapped = _swapped(table, markup, mean)
        shapes, broken = _odd_shapes(table, markup, affines, mean)
        places, likeness = _misplaced(canvases, affines)
        shift = _shift(table, markup, affines, mean, canvases)
    known = {suspect.face for suspect in swapped}
    shapes, broken = ([s for s in some if s.face not in known] for some in (shapes, broken))
    suspects = sorted([*swapped, *broken, *shapes, *places], key=lambda suspect: -suspect.score)
    for level, name, what, some in (
        (
            "error",
            "left and right swapped",
            "the labels fit a face only with left and right swapped",
            swapped,
        ),
        (
            "error",
            "broken shape",
            "a point lies nowhere near where the other points of the face put it",
            broken,
        ),
        (
            "warning",
            "odd shape",
            "a point lies far from where the other points of the face put it",
            shapes,
        ),
        (
            "warning",
            "unlike a face",
            "labelled wrongly, or hard to see: more like a face elsewhere",
            places,
        ),
    ):
        cases = [Case(table.rows[s.face], str(table.paths[s.face]), s.why) for s in some]
        if cases:
            findings.append(Finding(level, name, what, cases))  # type: ignore[arg-type]
    once: dict[int, Suspect] = {}
    for suspect in suspects:
        once.setdefault(suspect.face, suspect)
    rest = [
        Suspect(0.0, int(i), f"likeness to the mean face {likeness[i]:.2f}")
        for i in np.argsort(likeness)
    ]
    return findings + shift, [*once.values(), *(s for s in rest if s.face not in once)]


def _numbers(table: FaceTable, canvases: ImageCache, markup: Markup) -> Iterator[Finding]:
    points, boxes = table.points, canvases.boxes
    labelled = np.isfinite(points).all(2)
    names = np.array(markup.points)

    def cases(chosen: np.ndarray, what: list[str] | None = None) -> list[Case]:
        said = what or [""] * len(chosen)
        return [
            Case(table.rows[i], str(table.paths[i]), w) for i, w in zip(chosen, said, strict=True)
        ]

    beyond = np.maximum(
        np.maximum(-0.5 - points, points - (canvases.extents[:, None] - 0.5)), 0
    ).max(2)
    beyond = np.where(labelled, beyond, 0)
    side = boxes[:, 2] - boxes[:, 0]
    far = beyond.max(1) > FAR_OUTSIDE * side
    for level, mask, what in (
        ("error", far, f"points more than {FAR_OUTSIDE:.0%} of the face box outside the picture"),
        ("warning", (beyond.max(1) > 0) & ~far, "points outside the picture"),
    ):
        chosen = np.flatnonzero(mask)[np.argsort(-beyond.max(1)[mask])]
        said = [
            f"{(beyond[i] > 0).sum()} points, up to {beyond[i].max():.0f} px ({names[beyond[i].argmax()]})"
            for i in chosen
        ]
        if len(chosen):
            yield Finding(level, "outside", what, cases(chosen, said))  # type: ignore[arg-type]
    if not labelled.all():
        chosen = np.flatnonzero(~labelled.all(1))
        said = [f"{(~labelled[i]).sum()} of {len(names)}" for i in chosen]
        yield Finding(
            "note",
            "without label",
            "points without a label: left out of loss and metrics",
            cases(chosen, said),
        )
    if never := names[~labelled.any(0)].tolist():
        yield Finding("warning", "never labelled", f"no face has {', '.join(never)}")
    eyes = points[:, markup.eyes[0]] - points[:, markup.eyes[1]]
    apart = np.hypot(eyes[:, 0], eyes[:, 1])
    if len(names) > 1 and len(chosen := np.flatnonzero(~(apart > 0.05 * side))):
        what = f"{' and '.join(markup.pair)} lie on one spot or have no label, so the face cannot be scored"
        yield Finding(
            "error" if (apart[chosen] >= 0).any() else "warning", "normaliser", what, cases(chosen)
        )
    if len(chosen := np.flatnonzero(side < TINY_FACE)):
        said = [f"{side[i]:.0f} px" for i in chosen]
        yield Finding(
            "warning", "tiny face", f"a face box below {TINY_FACE} pixels", cases(chosen, said)
        )
    whole = np.nanmean(points == np.round(points))
    if whole > 0.99:
        yield Finding(
            "note",
            "whole pixels",
            "the labels are whole pixels",
            figures={"share": round(float(whole), 4)},
        )
    seen: dict[bytes, int] = {}
    again = [
        (i, first)
        for i, face in enumerate(points)
        if (first := seen.setdefault(face.tobytes(), i)) != i
    ]
    if again:
        said = [f"as {table.rows[first]}" for _, first in again]
        yield Finding(
            "warning",
            "same label",
            "the very same points twice",
            cases(np.array([i for i, _ in again]), said),
        )
    try:
        check_flip(points, replace(markup, mirror=True))
    except FkpError as error:
        # Names that tell nothing of sides are wrong in nothing: faces are then not flipped.
        yield Finding(
            "error" if markup.flips and markup.sided else "note", "flip table", str(error)
        )
    right, left = markup.eyes
    mean_x = np.nanmean(points[:, :, 0] - np.nanmean(points[:, :, 0], 1, keepdims=True), 0)
    if len(names) > 1 and "right" in markup.pair[0].lower() and mean_x[right] > mean_x[left]:
        what = "right and left are the viewer's, not the person's: flips are right, but another set would not fit"
        yield Finding("warning", "viewer's left", what)


def _residuals(points: np.ndarray, shape: np.ndarray) -> np.ndarray:
    """(F, K): how far each point lies from its place in the shape, in sizes of a face."""
    affines = onto(points, shape)
    return np.linalg.norm(apply(affines, points) - shape, axis=2)


def _swapped(table: FaceTable, markup: Markup, mean: np.ndarray) -> list[Suspect]:
    if not markup.flips:
        return []
    as_is = np.sqrt(np.nanmean(_residuals(table.points, mean) ** 2, 1))
    other = np.sqrt(np.nanmean(_residuals(table.points[:, markup.flip_indices], mean) ** 2, 1))
    chosen = np.flatnonzero(other < 0.5 * as_is)
    return [
        Suspect(as_is[i] / other[i], int(i), f"{as_is[i] / other[i]:.1f} times nearer when swapped")
        for i in chosen
    ]


def _odd_shapes(
    table: FaceTable, markup: Markup, affines: np.ndarray, mean: np.ndarray
) -> tuple[list[Suspect], list[Suspect]]:
    """Faces with a point far from where a principal component model of the others' shapes puts it: odd, and broken."""
    shapes = apply(affines, table.points) - mean
    shapes = np.where(np.isfinite(shapes), shapes, 0).reshape(len(shapes), -1)
    keep = np.ones(len(shapes), bool)
    modes = min(16, len(shapes) // 25, shapes.shape[1] // 4)
    for count in (
        0,
        modes,
        modes,
    ):  # first bare, and each time without those it found, lest they teach it themselves
        _, _, axes = np.linalg.svd(shapes[keep] - shapes[keep].mean(0), full_matrices=False)
        rest = shapes - shapes[keep].mean(0)
        rest = rest - (rest @ axes[:count].T) @ axes[:count]
        distance = np.linalg.norm(rest.reshape(len(shapes), -1, 2), axis=2)
        usual = np.maximum(np.median(distance[keep], 0), 1e-3)
        score = distance / usual / ODD_SHAPE
        keep = score.max(1) < 1
        if keep.sum() < 2:
            return [], []
    chosen = np.flatnonzero(~keep)
    worst = score.argmax(1)
    odd: list[Suspect] = []
    broken: list[Suspect] = []
    for i in chosen[np.argsort(-score.max(1)[chosen])].tolist():
        off = distance[i, worst[i]]
        why = f"{markup.points[worst[i]]} {100 * off:.0f} % of the face's size off"
        (broken if off > BROKEN else odd).append(Suspect(float(score[i, worst[i]]), i, why))
    return odd, broken


def _patches(canvases: ImageCache, affines: np.ndarray, faces: np.ndarray) -> Iterator[np.ndarray]:
    """(n, n) float32 of each of these faces, turned, scaled and moved onto the mean shape, with a margin of REACH."""
    side = SIDE + 2 * REACH
    place = np.array([[UNIT, 0, (side - 1) / 2], [0, UNIT, (side - 1) / 2]])
    for i in faces.tolist():
        to_patch = compose(invert(canvases.affines[i]), affines[i], place)
        yield cv2.warpAffine(canvases[i], to_patch, (side, side), flags=cv2.INTER_LINEAR).astype(
            np.float32
        )


def _misplaced(canvases: ImageCache, affines: np.ndarray) -> tuple[list[Suspect], np.ndarray]:
    """Faces that are more like the mean face where the label is not; and how like it each is, -1 … 1."""
    count, mean = len(canvases), np.zeros((SIDE, SIDE), np.float32)
    likeness, suspects = np.ones(count), []
    if count < FEW:
        return [], likeness
    for patch in _patches(
        canvases, affines, np.unique(np.linspace(0, count - 1, 4000).astype(int))
    ):
        inner = _evenly_lit(patch)[REACH:-REACH, REACH:-REACH]
        mean += inner / (inner.std() + 1e-3)
    for i, patch in enumerate(_patches(canvases, affines, np.arange(count))):
        fit = cv2.matchTemplate(_evenly_lit(patch), mean, cv2.TM_CCOEFF_NORMED)
        _, best, _, (x, y) = cv2.minMaxLoc(fit)
        likeness[i] = here = fit[REACH, REACH]
        off = np.hypot(x - REACH, y - REACH) / UNIT
        if off > MISPLACED and best - here > BETTER:
            why = (
                f"like the mean face {here:.2f}, but {best:.2f} {100 * off:.0f} % of its size away"
            )
            suspects.append(Suspect(float((best - here) / BETTER), i, why))
    return sorted(suspects, key=lambda suspect: -suspect.score), likeness


def _evenly_lit(patch: np.ndarray, reach: float = 6.0) -> np.ndarray:
    """A patch less its local mean, over its local deviation: what light and skin do to a face taken out."""
    rest = patch - cv2.GaussianBlur(patch, (0, 0), reach)
    return rest / (np.sqrt(cv2.GaussianBlur(rest**2, (0, 0), reach)) + 4)


def _shift(
    table: FaceTable, markup: Markup, affines: np.ndarray, mean: np.ndarray, canvases: ImageCache
) -> list[Finding]:
    """Whether labels lie beside the faces as a whole: the mean picture under labels that are symmetric is symmetric
    about their axis, unless they are shifted. Only sideways: up and down, a face has no symmetry."""
    if not markup.flips or len(mean) < 3:  # two points are symmetric wherever they lie
        return []
    mirror = mean[markup.flip_indices] * (-1, 1)
    symmetric = (mean + mirror) / 2
    asymmetry = np.linalg.norm(
        apply(onto(table.points, symmetric), table.points) - symmetric, axis=2
    )
    frontal = np.flatnonzero(np.nanmean(asymmetry, 1) <= np.nanmedian(np.nanmean(asymmetry, 1)))
    if len(frontal) < 8 * GROUPS:
        return []
    people = {name: i % GROUPS for i, name in enumerate(dict.fromkeys(table.identity[frontal]))}
    means: dict[int, np.ndarray] = {}
    patches = _patches(canvases, onto(table.points, symmetric), frontal)
    for person, patch in zip(table.identity[frontal], patches, strict=True):
        standard = (patch - patch.mean()) / (patch.std() + 1e-3)
        means[people[person]] = means.get(people[person], 0) + standard
    if len(means) < 2:
        return []
    found = np.array([_axis(mean_picture) for mean_picture in means.values()])
    # The axis of the picture lies `found` right of the labels' axis, so the labels lie that far left of the face.
    width = np.ptp(symmetric[:, 0])
    share = -found / UNIT / width
    eyes = np.linalg.norm(symmetric[markup.eyes[0]] - symmetric[markup.eyes[1]])
    shift, error = float(share.mean()), float(share.std(ddof=1) / np.sqrt(len(share)))
    figures = {
        "percent_of_points_width": round(100 * shift, 2),
        "standard_error": round(100 * error, 2),
        "percent_of_eye_distance": round(100 * shift * float(width / eyes), 2),
    }
    side = "right" if shift > 0 else "left"
    if abs(shift) < max(3 * error, 0.005):
        what = f"labels lie on the faces: {100 * shift:+.2f} ± {100 * error:.2f} % of the points' width to the right"
        return [Finding("note", "shift", what, figures=figures)]
    what = (
        f"the labels lie {100 * abs(shift):.2f} ± {100 * error:.2f} % of the points' width to the {side} of the face: "
        "flips teach a contradiction, and every prediction will lie there too"
    )
    return [Finding("warning", "shift", what, figures=figures)]


def _axis(picture: np.ndarray) -> float:
    """How far right of its middle a picture's axis of symmetry lies, pixels."""
    reach = 6
    mirrored = np.ascontiguousarray(picture[:, ::-1]).astype(np.float32)
    # Where the mirror image fits best is twice as far away as the axis.
    fit = cv2.matchTemplate(
        picture.astype(np.float32), mirrored[:, reach:-reach], cv2.TM_CCOEFF_NORMED
    )[0]
    best = int(np.clip(fit.argmax(), 1, len(fit) - 2))
    a, b, c = fit[best - 1 : best + 2]
    return (best + (a - c) / (2 * (a - 2 * b + c)) - reach) / 2
