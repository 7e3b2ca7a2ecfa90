"""Markup: what the points are, as data: names, flip indices, regions, lines, normalising pair."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from fkp.errors import FkpError
from fkp.files.plain import yaml_in
from fkp.files.reading import read_text, safe_cell

# Bytes of a markup file, at most: the shipped ones have 2000.
MAX_BYTES = 1 << 16

# Markups that come with the package.
FOLDER = Path(__file__).with_name("markups")

SIDES = {"right": "left", "left": "right", "r": "l", "l": "r"}
LONG_SIDES = {side: SIDES[side] for side in ("right", "left")}

# The words of a name: two in rightEye and eyeR1, as in right_eye and "right eye".
WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")

# A side that is joined to a word in lower case: lefteye.
JOINED = re.compile(r"^(left|right)|(left|right)$", re.IGNORECASE)


@dataclass(frozen=True)
class Markup:
    """Describe the meaning of an ordered set of K key points.

    Args:
        name: of the markup, for messages.
        points: K names, which are also the column names of tables.
        pair: the two names whose distance normalises errors (NME). Without it, a training chooses
            the mirrored points that lie farthest apart horizontally in the mean face, those of the
            eyes first, or else any two such points. The error of a single point is normalised by
            the side of the face box.
        regions: name -> [first, last] point, both included.
        lines: `open` and `ring` lists of [first, last] points, for drawing.
        box: `up` and `side` of the face box, see `fkp.geometry.face_box`. Without it, a training
            measures `frame`.
        pairs: the pairs of names that mirroring swaps; all other points mirror themselves. Without
            it, these are the names that differ only in their side: right and left, R and L, in any
            style (right_eye, rightEye, eye_R).
        mirror: false if no pairs are known: faces are then never flipped.
        frame: measured in a training, see `fkp.data.framing`. `points`: the K points of the median
            face from the centre of its box, in box sides, null for a point that was never labelled;
            `roll`: whether the points determine the roll of a face; `trust`: fractions of a
            refinement step's move and zoom to take; `share`: side of a box as a fraction of the
            image's shorter side.

    Raises:
        FkpError: the values are wrong or contradict each other.
    """

    name: str
    points: list[str]
    pair: list[str] = field(default_factory=list)
    regions: dict[str, list[int]] = field(default_factory=dict)
    lines: dict[str, list[list[int]]] = field(default_factory=dict)
    box: dict[str, float] | None = None
    pairs: list[list[str]] | None = None
    mirror: bool = True
    frame: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        self._check_names()
        self._check_pair()
        self._check_pairs()
        self._check_spans()
        self._check_box()
        self._check_frame()

    def _check_names(self) -> None:
        if not isinstance(self.points, list) or not self.points:
            raise FkpError(
                f"markup {self.name!r:.40}: points must be a list of names, "
                f"not {self.points!r:.200}",
                key="points",
            )
        for name in (self.name, *self.points):
            if not _is_name(name):
                raise FkpError(
                    f"markup {self.name!r:.40}: a name must be one line of text that does not "
                    f"begin like a formula, not {name!r:.40}",
                    key="points",
                )
        twice = _repeated(self.points)
        if twice:
            raise FkpError(
                f"markup {self.name}: points named twice: {', '.join(twice)}", key="points"
            )

    def _check_pair(self) -> None:
        unknown = set(self.pair) - set(self.points)
        distinct = len(set(self.pair)) >= min(len(self.pair), len(self.points))
        if unknown or len(self.pair) not in (0, 2) or not distinct:
            raise FkpError(
                f"markup {self.name}: pair must name two of its points, not {self.pair!r:.200}",
                key="pair",
            )

    def _check_pairs(self) -> None:
        pairs = self.pairs or []
        wrong = [pair for pair in pairs if len(pair) != 2 or set(pair) - set(self.points)]
        twice = _repeated([name for pair in pairs for name in pair])
        if wrong or twice:
            reason = f"{', '.join(twice)[:200]} is in two of them"
            if wrong:
                reason = f"{wrong[0]!r:.200} is not"
            raise FkpError(
                f"markup {self.name}: pairs must be [right point, left point] of its points; "
                f"{reason}",
                key="pairs",
            )
        if not isinstance(self.mirror, bool):
            raise FkpError(
                f"markup {self.name}: mirror must be true or false, not {self.mirror!r:.40}",
                key="mirror",
            )

    def _check_spans(self) -> None:
        """Check the regions and the lines."""
        last = len(self.points) - 1
        lines = [line for lines in self.lines.values() for line in lines]
        for span in (*self.regions.values(), *lines):
            if len(span) != 2 or not 0 <= span[0] <= span[1] <= last:
                raise FkpError(
                    f"markup {self.name}: regions and lines must be [first, last] of points 0 to "
                    f"{last}, not {span!r:.200}",
                    key="regions",
                )
        unknown = sorted(set(self.lines) - {"open", "ring"})
        if unknown:
            raise FkpError(
                f"markup {self.name}: lines are `open` or `ring`, not {unknown[0]!r:.40}",
                key="lines",
            )

    def _check_box(self) -> None:
        if self.box is None:
            return
        if set(self.box) != {"up", "side"} or not _are_numbers(self.box.values()):
            raise FkpError(
                f"markup {self.name}: box must have the numbers up and side, not {self.box!r:.200}",
                key="box",
            )

    def _check_frame(self) -> None:
        if self.frame is None:
            return
        points, roll = self.frame.get("points"), self.frame.get("roll")
        trust = self.frame.get("trust", [1.0, 1.0])
        good = (
            isinstance(points, list)
            and len(points) == len(self.points)
            and all(point is None or (len(point) == 2 and _are_numbers(point)) for point in points)
            and any(points)
            and isinstance(roll, bool)
            and isinstance(trust, list)
            and len(trust) == 2
            and _are_numbers([self.frame.get("share"), *trust])
        )
        if not good:
            raise FkpError(
                f"markup {self.name}: frame must have points [x, y], share and roll, as a training "
                "measures them",
                key="frame",
            )

    @cached_property
    def _counterparts(self) -> list[str | None]:
        """Name, for each point, the point that it becomes in a mirror, which may be itself.

        None where a name has a side, and no point has the name of the other side.
        """
        if self.pairs is not None:
            swapped = dict([*self.pairs, *(pair[::-1] for pair in self.pairs)])
            return [swapped.get(name, name) for name in self.points]

        known = {name.casefold(): name for name in self.points}
        counterparts: list[str | None] = []
        for name in self.points:
            candidates = (candidate.casefold() for candidate in _mirrored(name))
            found = next((known[c] for c in candidates if c in known), None)
            has_side = any(word.lower() in LONG_SIDES for word in WORD.findall(name))
            counterparts.append(found or (None if has_side else name))
        return counterparts

    @property
    def sided(self) -> bool:
        """Return whether its pairs or its names tell which points mirroring swaps."""
        return self.pairs is not None or self._counterparts != self.points

    @property
    def flips(self) -> bool:
        """Return whether faces can be flipped: whether there are `flip_indices`."""
        return self.mirror and None not in self._counterparts

    @cached_property
    def flip_indices(self) -> np.ndarray:
        """Return (K,) int: `points[flip_indices]` names the points of a mirrored face correctly.

        Raises:
            FkpError: the points that mirroring swaps are not known.
        """
        order = []
        for name, counterpart in zip(self.points, self._counterparts, strict=True):
            if counterpart is None or not self.mirror:
                missing = f"{name} has no counterpart {next(_mirrored(name), '')}".rstrip()
                raise FkpError(
                    f"markup {self.name}: {missing}, so its faces cannot be flipped; list `pairs:`",
                    key="pairs",
                    hint="list `pairs:`",
                )
            order.append(self.points.index(counterpart))
        return np.array(order)

    @property
    def eyes(self) -> tuple[int, int]:
        """Return the indices of the normalising pair; (0, 0) if there is a single point.

        Raises:
            FkpError: there is no pair, and no training has chosen one yet.
        """
        if len(self.points) == 1:
            return 0, 0
        if not self.pair:
            hint = "add pair: [one point, another]"
            raise FkpError(
                f"markup {self.name}: without a pair, errors have no unit; {hint}",
                key="pair",
                hint=hint,
            )
        first, second = self.pair
        return self.points.index(first), self.points.index(second)

    @property
    def unit(self) -> str:
        """Name the length of which errors are a fraction, for a table's title."""
        if self.pair == ["eye_right_outer", "eye_left_outer"]:
            return "the outer-eye distance"
        if len(self.points) == 1:
            return "the side of the face box"
        return f"the distance from {self.pair[0]} to {self.pair[1]}" if self.pair else "its unit"

    @cached_property
    def median_face(self) -> np.ndarray:
        """Return the points of the measured frame, (K, 2).

        They are measured from the centre of the face box, in box sides; NaN for a point that was
        never labelled.
        """
        assert self.frame is not None
        points = [[np.nan, np.nan] if point is None else point for point in self.frame["points"]]
        return np.array(points, float)

    def region(self, name: str) -> slice:
        """Return the points of one region as a slice."""
        first, last = self.regions[name]
        return slice(first, last + 1)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, as in a checkpoint; `Markup(**markup.as_dict()) == markup`."""
        return asdict(self)


def _is_name(name: Any) -> bool:
    """Return whether a name is printable text that a spreadsheet does not take for a formula."""
    return isinstance(name, str) and name != "" and name.isprintable() and safe_cell(name) == name


def _repeated(names: list[str]) -> list[str]:
    return sorted({name for name in names if names.count(name) > 1})


def _are_numbers(values: Any) -> bool:
    """Return whether all values are numbers below 100, which NaN and infinity are not."""
    return all(isinstance(value, (int, float)) and abs(value) < 100 for value in values)


def _mirrored(name: str) -> Iterator[str]:
    """Propose names for the counterpart of a point, the likeliest first.

    There are none for a name without a side.
    """
    candidates = [
        _swap_sides(WORD, SIDES, name),
        _swap_sides(WORD, LONG_SIDES, name),
        _swap_sides(JOINED, LONG_SIDES, name),
    ]
    if len(name) > 1:
        # A first letter that is a side: leye.
        candidates.append(_swap_sides(WORD, SIDES, name[0]) + name[1:])
    return (candidate for candidate in candidates if candidate != name)


def _swap_sides(words: re.Pattern[str], sides: dict[str, str], name: str) -> str:
    """Replace all words of a name that are sides by the other side, in the same case."""

    def swap(match: re.Match[str]) -> str:
        word = match[0]
        if word.lower() not in sides:
            return word
        side = sides[word.lower()]
        if word.isupper():
            return side.upper()
        return side.capitalize() if word[0].isupper() else side

    return words.sub(swap, name)


def load_markup(name: str) -> Markup:
    """Load a markup that comes with the package, or a YAML file with the arguments of `Markup`.

    Raises:
        FkpError: there is no such markup, or the file is not a markup.

    >>> load_markup("ibug68").eyes
    (36, 45)
    """
    file = Path(name) if name.endswith((".yaml", ".yml")) else FOLDER / f"{name}.yaml"
    if not file.is_file():
        known = sorted(file.stem for file in FOLDER.iterdir())
        raise FkpError(
            f"no markup {name!r}; there is {', '.join(known)}, or give the path of a YAML file",
            file=file,
        )

    text = read_text(file, MAX_BYTES)
    try:
        given = yaml_in(text)
        # An empty optional field stands for its default; an empty required one is an error.
        required = ("name", "points")
        values = {k: v for k, v in given.items() if v is not None or k in required}
        return Markup(**values)
    except FkpError as error:
        error.file = file
        raise
    except Exception as error:  # PyYAML and wrong types raise many kinds of errors
        reason = " ".join(str(error).split())
        raise FkpError(
            f"{file}: not a markup ({reason:.300}); see fkp/markups/face5.yaml", file=file
        ) from None


IBUG68 = load_markup("ibug68")
