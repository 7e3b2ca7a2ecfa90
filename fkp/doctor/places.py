"""Whether labels lie where the default detector and the shipped weights find faces and points."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from fkp.doctor.findings import Case, Finding
from fkp.errors import FkpError
from fkp.geometry import face_box
from fkp.label_places import Frames, Search, beside_the_face, judge, spaced, upper_left
from fkp.label_values import Wrong
from fkp.markup import IBUG68, Markup
from fkp.predictor import Predictor
from fkp.sources.table import FaceTable

SOME, ALL = 400, 4000  # images that are searched; and if a kind of wrong labels was found in these
PREDICTED = 40  # faces whose labels are compared with the shipped weights' points
# Of the points' extent, in the median: a label further than this from where the shipped weights find its point
# belongs to another point.
ELSEWHERE = 0.2
SURE = 0.5  # mean confidence of the weights, below which they cannot tell


def finding(wrong: Wrong, table: FaceTable) -> Finding:
    """The doctor's words for a kind of wrong labels."""
    cases = [Case(table.rows[i], str(table.paths[i]), said) for i, said in wrong.cases.items()]
    return Finding(wrong.level, wrong.check, f"{wrong.what}; {wrong.fix}", cases)


def check(table: FaceTable, sizes: np.ndarray, markup: Markup, suspects: Sequence[int]) -> Iterator[Wrong]:
    """Search images for faces, and compare these with the labels.

    Args:
        sizes: (F, 2) width and height of each image, pixels.
        suspects: faces that may be labelled wrongly, worst first: of a large set those are looked at, too.
    """
    frames, search = Frames.of(table.points, sizes), Search()
    boxes = search(table, frames, list(dict.fromkeys([*spaced(len(table), SOME // 2), *suspects[: SOME // 2]])))
    places = judge(markup, frames, boxes, alone=True)
    if places.wrong:
        boxes |= search(table, frames, spaced(len(table), ALL))
        places = judge(markup, frames, boxes, alone=True)
    yield from [*places.wrong, *beside_the_face(places), *upper_left(frames, places)]
    known = {i for wrong in places.wrong for i in wrong.cases} | set(places.beside)
    yield from _against_weights(table, markup, [i for i in places.seen if i not in known])


def _against_weights(table: FaceTable, markup: Markup, faces: list[int]) -> Iterator[Wrong]:
    """Points that the shipped weights put elsewhere on the same faces, if the markup has at least three of theirs."""
    shared = [(k, IBUG68.points.index(name)) for k, name in enumerate(markup.points) if name in IBUG68.points]
    if len(shared) < 3 or not faces:
        return
    own, theirs = (list(some) for some in zip(*shared, strict=True))
    predictor, apart = Predictor.load(), []
    faces = [faces[i] for i in spaced(len(faces), PREDICTED)]
    for i in faces:
        label = table.points[i]
        try:
            (face,) = predictor(table.paths[i], boxes=face_box(label, markup)[None])
        except FkpError:
            continue
        extent = float(np.hypot(*np.ptp(face.points, axis=0)))
        if face.confidence.mean() > SURE:
            apart.append(np.hypot(*(label[own] - face.points[theirs]).T) / extent)
    if len(apart) < PREDICTED / 8:
        return
    median = np.nanmedian(apart, 0)
    far = [markup.points[own[j]] for j in np.argsort(-median) if median[j] > ELSEWHERE]
    if far:
        named = ", ".join(far[:5]) + (", …" if len(far) > 5 else "")
        what = f"the shipped weights put {named} elsewhere on the same faces"
        fix = f"the labels' points must come in the order of the markup {markup.name}"
        yield Wrong("order of points", f"{what} ({len(far)} of {len(own)} points)", fix, {i: "" for i in faces})
