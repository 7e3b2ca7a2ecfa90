"""Check the coordinates of labels: outside the image, missing, too close, rounded, or repeated."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from fkp.data.image_cache import ImageCache
from fkp.data.shapes import check_flip
from fkp.data.table import FaceTable
from fkp.doctor.findings import Case, Finding, Level
from fkp.errors import FkpError
from fkp.markup import Markup

# Side of a face box, pixels.
MIN_FACE = 32

# Distance outside the image, in sides of the face box.
FAR_OUTSIDE = 0.25

# Least distance of the two points that normalise errors, in sides of the face box.
MIN_PAIR = 0.05

# Fraction of whole numbers from which the labels count as rounded.
WHOLE = 0.99


def check(table: FaceTable, cache: ImageCache, markup: Markup) -> Iterator[Finding]:
    """Check the coordinates of F faces with K points.

    Args:
        table: of the labels.
        cache: of the images' sizes and the face boxes.
        markup: of the points.
    """
    labels = _Labels(table, cache, markup)
    yield from labels.outside_the_image()
    yield from labels.without_label()
    yield from labels.never_labelled()
    yield from labels.normalising_pair()
    yield from labels.tiny_faces()
    yield from labels.whole_pixels()
    yield from labels.repeated()
    yield from labels.flip_indices()
    yield from labels.sides_of_the_viewer()


@dataclass
class _Labels:
    """The labels of a data set, and one check a method."""

    table: FaceTable
    cache: ImageCache
    markup: Markup

    def __post_init__(self) -> None:
        left, right = self.cache.boxes[:, 0], self.cache.boxes[:, 2]
        self.points = self.table.points  # (F, K, 2)
        self.is_labelled = np.isfinite(self.points).all(2)  # (F, K)
        self.sides = right - left  # (F,)
        self.names = np.array(self.markup.points)

    def outside_the_image(self) -> Iterator[Finding]:
        """Find points outside the image: the outer edges of its pixels."""
        sizes = self.cache.extents[:, None]
        outside = np.maximum(-0.5 - self.points, self.points - (sizes - 0.5))  # (F, K, 2)
        distance = np.where(self.is_labelled, np.maximum(outside, 0).max(2), 0)  # (F, K)
        largest = distance.max(1)
        is_far = largest > FAR_OUTSIDE * self.sides

        far = f"points more than {FAR_OUTSIDE:.0%} of the face box outside the image"
        levels: list[tuple[Level, np.ndarray, str]] = [
            ("error", is_far, far),
            ("warning", (largest > 0) & ~is_far, "points outside the image"),
        ]
        for level, mask, what in levels:
            chosen = np.flatnonzero(mask)[np.argsort(-largest[mask])]
            details = [
                f"{(distance[i] > 0).sum()} points, up to {largest[i]:.0f} px "
                f"({self.names[distance[i].argmax()]})"
                for i in chosen
            ]
            if len(chosen):
                yield Finding(level, "outside", what, self._cases(chosen, details))

    def without_label(self) -> Iterator[Finding]:
        """Find faces with points that have no label."""
        chosen = np.flatnonzero(~self.is_labelled.all(1))
        if len(chosen):
            details = [f"{(~self.is_labelled[i]).sum()} of {len(self.names)}" for i in chosen]
            what = "points without a label: left out of loss and metrics"
            yield Finding("note", "without label", what, self._cases(chosen, details))

    def never_labelled(self) -> Iterator[Finding]:
        """Find points that no face has."""
        never = self.names[~self.is_labelled.any(0)].tolist()
        if never:
            yield Finding("warning", "never labelled", f"no face has {', '.join(never)}")

    def normalising_pair(self) -> Iterator[Finding]:
        """Find faces whose errors cannot be normalised by the distance of two points."""
        first, second = self.markup.eyes
        distance = np.hypot(*(self.points[:, first] - self.points[:, second]).T)  # (F,)
        chosen = np.flatnonzero(~(distance > MIN_PAIR * self.sides))
        if len(self.names) > 1 and len(chosen):
            what = (
                f"{' and '.join(self.markup.pair)} are at one place or have no label, so the face "
                "cannot be evaluated"
            )
            level: Level = "error" if (distance[chosen] >= 0).any() else "warning"
            yield Finding(level, "normaliser", what, self._cases(chosen))

    def tiny_faces(self) -> Iterator[Finding]:
        """Find faces of few pixels."""
        chosen = np.flatnonzero(self.sides < MIN_FACE)
        if len(chosen):
            details = [f"{self.sides[i]:.0f} px" for i in chosen]
            what = f"a face box below {MIN_FACE} pixels"
            yield Finding("warning", "tiny face", what, self._cases(chosen, details))

    def whole_pixels(self) -> Iterator[Finding]:
        """Find out whether labels are rounded to whole pixels."""
        fraction = float(np.nanmean(self.points == np.round(self.points)))
        if fraction > WHOLE:
            figures = {"share": round(fraction, 4)}
            yield Finding("note", "whole pixels", "the labels are whole pixels", figures=figures)

    def repeated(self) -> Iterator[Finding]:
        """Find faces with exactly the points of an earlier one."""
        first: dict[bytes, int] = {}
        earlier = [first.setdefault(face.tobytes(), i) for i, face in enumerate(self.points)]
        chosen = [i for i, other in enumerate(earlier) if other != i]
        if chosen:
            details = [f"as {self.table.rows[earlier[i]]}" for i in chosen]
            what = "exactly the same points twice"
            yield Finding("warning", "same label", what, self._cases(chosen, details))

    def flip_indices(self) -> Iterator[Finding]:
        """Find flip indices that do not fit the labels."""
        try:
            check_flip(self.points, replace(self.markup, mirror=True))
        except FkpError as error:
            # Without names of sides in the markup, faces are not flipped: no error.
            is_used = self.markup.flips and self.markup.sided
            yield Finding("error" if is_used else "note", "flip table", str(error))

    def sides_of_the_viewer(self) -> Iterator[Finding]:
        """Find out whether the points named right are at the person's left."""
        right, left = self.markup.eyes
        x = self.points[:, :, 0]
        mean_x = np.nanmean(x - np.nanmean(x, 1, keepdims=True), 0)  # (K,)
        is_named = len(self.names) > 1 and "right" in self.markup.pair[0].lower()
        if is_named and mean_x[right] > mean_x[left]:
            what = (
                "right and left are those of the viewer, not of the person: flips are correct, but "
                "the labels do not fit those of other data sets"
            )
            yield Finding("warning", "viewer's left", what)

    def _cases(
        self, chosen: Sequence[int] | np.ndarray, details: list[str] | None = None
    ) -> list[Case]:
        """Build the cases of these faces."""
        details = details or [""] * len(chosen)
        return [
            Case(self.table.rows[i], str(self.table.paths[i]), what)
            for i, what in zip(chosen, details, strict=True)
        ]
