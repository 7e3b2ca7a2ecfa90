"""Check whether labels lie where the detector and the shipped weights find faces and points."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from fkp.data.label_places import Frames, Search, beside_the_face, judge, spaced, upper_left
from fkp.data.label_values import Wrong
from fkp.data.table import FaceTable
from fkp.doctor.findings import Case, Finding
from fkp.errors import FkpError
from fkp.geometry import face_box
from fkp.inference.predictor import Predictor
from fkp.markup import IBUG68, Markup

# Images to search; and images to search once wrong labels have been found in the first ones.
SOME, ALL = 400, 4000

# Faces whose labels are compared with the points of the shipped weights.
PREDICTED = 40

# A label belongs to another point if its median distance from the predicted one is larger than
# this, as a fraction of the points' extent.
MAX_DISTANCE = 0.2

# Mean confidence below which a prediction is not compared.
MIN_CONFIDENCE = 0.5

# Points that a markup must share with the weights to be compared.
MIN_SHARED = 3


def finding(wrong: Wrong, table: FaceTable) -> Finding:
    """Convert a kind of wrong labels to a finding."""
    cases = [Case(table.rows[i], str(table.paths[i]), what) for i, what in wrong.cases.items()]
    return Finding(wrong.level, wrong.check, f"{wrong.what}; {wrong.fix}", cases)


def check(
    table: FaceTable, sizes: np.ndarray, markup: Markup, suspects: Sequence[int]
) -> Iterator[Wrong]:
    """Detect faces in the images, and compare them with the labels.

    Args:
        table: F faces.
        sizes: (F, 2) width and height of each image, pixels.
        markup: of the points.
        suspects: faces that may be labelled wrongly, worst first; the worst are searched in a large
            set, too.
    """
    frames, search = Frames.of(table.points, sizes), Search()
    first = dict.fromkeys([*spaced(len(table), SOME // 2), *suspects[: SOME // 2]])
    boxes = search(table, frames, list(first))
    places = judge(markup, frames, boxes, alone=True)
    if places.wrong:
        boxes |= search(table, frames, spaced(len(table), ALL))
        places = judge(markup, frames, boxes, alone=True)
    yield from [*places.wrong, *beside_the_face(places), *upper_left(frames, places)]

    # Compare the faces whose labels lie on a detected face.
    known = {i for wrong in places.wrong for i in wrong.cases} | set(places.beside)
    yield from _compare_with_weights(table, markup, [i for i in places.seen if i not in known])


def _compare_with_weights(table: FaceTable, markup: Markup, faces: list[int]) -> Iterator[Wrong]:
    """Find points that the shipped weights predict at another place on the same faces."""
    shared = [name for name in markup.points if name in IBUG68.points]
    if len(shared) < MIN_SHARED or not faces:
        return
    own = [k for k, name in enumerate(markup.points) if name in IBUG68.points]
    theirs = [IBUG68.points.index(name) for name in shared]

    faces = [faces[i] for i in spaced(len(faces), PREDICTED)]
    distances = _distances_to_predictions(table, markup, faces, own, theirs)
    if len(distances) < PREDICTED / 8:
        return

    median = np.nanmedian(distances, 0)  # (shared,)
    far = [shared[j] for j in np.argsort(-median) if median[j] > MAX_DISTANCE]
    if far:
        named = ", ".join(far[:5]) + (", …" if len(far) > 5 else "")
        what = (
            f"the shipped weights find {named} at another place on the same faces "
            f"({len(far)} of {len(own)} points)"
        )
        fix = f"the labels' points must be in the order of the markup {markup.name}"
        yield Wrong("order of points", what, fix, {i: "" for i in faces})


def _distances_to_predictions(
    table: FaceTable, markup: Markup, faces: list[int], own: list[int], theirs: list[int]
) -> list[np.ndarray]:
    """Return the distances (shared,) of labels from predictions, in extents of the points.

    Args:
        table: of the labels.
        markup: of the labels.
        faces: indices of the faces to predict.
        own: indices of the shared points in the labels.
        theirs: indices of the same points in the predictions.
    """
    predictor, distances = Predictor.load(), []
    for i in faces:
        label = table.points[i]
        try:
            (face,) = predictor(table.paths[i], boxes=face_box(label, markup)[None])
        except FkpError:
            continue
        extent = float(np.hypot(*np.ptp(face.points, axis=0)))
        if face.confidence.mean() > MIN_CONFIDENCE:
            offsets = label[own] - face.points[theirs]  # (shared, 2)
            distances.append(np.hypot(*offsets.T) / extent)
    return distances
