"""What the points are, as data: names, mirror pairs, regions, lines and the pair that normalises errors."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from fkp.errors import FkpError
from fkp.files import harmless, read_text

MOST = 1 << 16  # bytes of a file: those that come with fkp have 2000
SIDES = {"right": "left", "left": "right", "r": "l", "l": "r"}
WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")  # rightEye and eyeR1 have two, right_eye and "right eye" too
JOINED = re.compile(r"^(left|right)|(left|right)$", re.IGNORECASE)  # lefteye


@dataclass(frozen=True)
class Markup:
    """The meaning of an ordered set of K key points.

    Args:
        name: how the markup is called in messages.
        points: K names, which head the columns of tables.
        pair: the two names whose distance normalises errors (NME). Without it, a training takes the mirror partners
            that lie farthest apart horizontally in the mean face, those of the eyes first, or else the two such points;
            a single point's errors are normalised by the side of the face box.
        regions: name -> [first, last] point, both included.
        lines: `open` and `ring` lists of [first, last] points, for drawing.
        box: `up` and `side` of the face box, see `fkp.geometry.face_box`. Without it, a training measures `frame`.
        pairs: the pairs of names that mirror each other; all other points mirror themselves. Without it, they are the
            names that differ only in their sides: right and left, R and L, in any style (right_eye, rightEye, eye_R).
        mirror: false where no pairs are known: faces are then never flipped.
        frame: measured in a training, see `fkp.framing`: `points`, the K points of the median face from the centre of
            its box, in box sides (null for a point that was never labelled), and `roll`, whether the points tell how
            far a face is turned in the image; `trust`, how much of a refinement step's move and zoom to take; `share`,
            the side of a box as a share of the image's shorter side.
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
        for name in (self.name, *self.points):
            if not isinstance(name, str) or not name.isprintable() or harmless(name) != name or not name:
                raise FkpError(f"markup {self.name!r:.40}: a name is a word that begins like one, not {name!r:.40}")
        if len(set(self.points)) != len(self.points):
            twice = sorted({p for p in self.points if self.points.count(p) > 1})
            raise FkpError(f"markup {self.name}: points named twice: {', '.join(twice)}")
        if not isinstance(self.points, list) or not self.points:
            raise FkpError(f"markup {self.name}: points is a list of names, not {self.points!r:.200}")
        self._check_pairs()
        ranges = [*self.regions.values(), *(line for lines in self.lines.values() for line in lines)]
        outside = [span for span in ranges if len(span) != 2 or not 0 <= span[0] <= span[1] < len(self.points)]
        box = {"up": 0, "side": 1} if self.box is None else self.box
        if outside or set(self.lines) - {"open", "ring"} or set(box) != {"up", "side"} or not _numbers(box.values()):
            raise FkpError(
                f"markup {self.name}: regions and lines (open, ring) are [first, last] of points 0 to "
                f"{len(self.points) - 1}{f', not {outside[0]!r:.200}' if outside else ''}; box has numbers up and side"
            )
        if self.frame is not None:
            _check_frame(self.frame, self.name, len(self.points))

    def _check_pairs(self) -> None:
        unknown = [p for p in self.pair if p not in self.points]
        if unknown or len(self.pair) not in (0, 2) or len(set(self.pair)) < min(len(self.pair), len(self.points)):
            raise FkpError(f"markup {self.name}: pair must name two of its points, got {self.pair!r:.200}")
        paired = [p for pair in self.pairs or [] for p in pair]
        wrong = [pair for pair in self.pairs or [] if len(pair) != 2 or set(pair) - set(self.points)]
        twice = sorted({p for p in paired if paired.count(p) > 1})
        if wrong or twice:
            what = f"{wrong[0]!r:.200} is none" if wrong else f"{', '.join(twice)[:200]} is in two of them"
            raise FkpError(f"markup {self.name}: pairs are [right point, left point] of its points; {what}")
        if not isinstance(self.mirror, bool):
            raise FkpError(f"markup {self.name}: mirror is true or false, not {self.mirror!r:.40}")

    @cached_property
    def _partners(self) -> list[str | None]:
        """For each point the name of its mirror partner, itself if it has none; None where a partner is missing."""
        if self.pairs is not None:
            other = dict([*self.pairs, *(pair[::-1] for pair in self.pairs)])
            return [other.get(name, name) for name in self.points]
        known, partners = {name.casefold(): name for name in self.points}, []
        for name in self.points:
            partner = next((known[c.casefold()] for c in _mirrored(name) if c.casefold() in known), None)
            one_sided = partner is None and {word.lower() for word in WORD.findall(name)} & {"right", "left"}
            partners.append(None if one_sided else partner or name)
        return partners

    @property
    def sided(self) -> bool:
        """Whether its pairs, or its names, tell anything about which points mirror each other."""
        return self.pairs is not None or self._partners != self.points

    @property
    def flips(self) -> bool:
        """Whether faces can be flipped: `flip` is known."""
        return self.mirror and None not in self._partners

    @cached_property
    def flip(self) -> np.ndarray:
        """(K,) int: where each point's mirror partner stands, so `points[flip]` renames a mirrored face.

        Raises:
            FkpError: it is not known which points mirror each other.
        """
        order = []
        for name, partner in zip(self.points, self._partners, strict=True):
            if partner is None or not self.mirror:
                missing = f"{name} has no partner {next(_mirrored(name), '')}".rstrip()
                raise FkpError(f"markup {self.name}: {missing}, so its faces cannot be flipped; list `pairs:`")
            order.append(self.points.index(partner))
        return np.array(order)

    @property
    def eyes(self) -> tuple[int, int]:
        """Indices of the normalising pair; of one point alone, twice that point.

        Raises:
            FkpError: there is none, as no training has chosen it yet.
        """
        if len(self.points) == 1:
            return 0, 0
        if not self.pair:
            raise FkpError(f"markup {self.name}: without a pair, errors have no unit; add pair: [one point, another]")
        return self.points.index(self.pair[0]), self.points.index(self.pair[1])

    @cached_property
    def median_face(self) -> np.ndarray:
        """(K, 2): the points of the measured frame, from the centre of the face box, in box sides; NaN for a point that
        was never labelled."""
        assert self.frame is not None
        return np.array([[np.nan, np.nan] if point is None else point for point in self.frame["points"]], float)

    def region(self, name: str) -> slice:
        """The points of one region, as a slice."""
        first, last = self.regions[name]
        return slice(first, last + 1)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as kept in a checkpoint; `Markup(**markup.as_dict()) == markup`."""
        return asdict(self)


def _mirrored(name: str) -> Iterator[str]:
    """What the mirror partner of a point may be called, the likeliest first; nothing for a name without sides."""

    words = {side: SIDES[side] for side in ("right", "left")}
    candidates = [_swapped(WORD, SIDES, name), _swapped(WORD, words, name), _swapped(JOINED, words, name)]
    if len(name) > 1:
        candidates.append(_swapped(WORD, SIDES, name[0]) + name[1:])  # leye
    return (candidate for candidate in candidates if candidate != name)


def _swapped(part: re.Pattern[str], sides: dict[str, str], name: str) -> str:
    """A name whose parts that are sides are the other side, written as they were."""

    def other(word: re.Match[str]) -> str:
        said, side = word[0], sides.get(word[0].lower())
        if side is None:
            return said
        return side.upper() if said.isupper() else side.capitalize() if said[0].isupper() else side

    return part.sub(other, name)


def _numbers(values: Any) -> bool:
    return all(isinstance(value, (int, float)) and abs(value) < 100 for value in values)


def _check_frame(frame: dict[str, Any], name: str, count: int) -> None:
    points, share, roll = frame.get("points"), frame.get("share"), frame.get("roll")
    trust = frame.get("trust", [1.0, 1.0])
    numbers = isinstance(trust, list) and len(trust) == 2 and _numbers([share, *trust])
    good = isinstance(points, list) and len(points) == count and isinstance(roll, bool) and numbers
    if not good or not all(p is None or (len(p) == 2 and _numbers(p)) for p in points or []) or not any(points or []):
        raise FkpError(f"markup {name}: frame is measured by a training, with points [x, y], share and roll")


class _Plain(yaml.SafeLoader):
    """YAML without aliases: those of aliases of aliases are a few lines that nobody can print."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise ValueError("it has aliases, which a markup does without")
        return super().compose_node(parent, index)


def load_markup(name: str) -> Markup:
    """Read one of the markups that come with the package, or a YAML file with the arguments of `Markup`.

    >>> load_markup("ibug68").eyes
    (36, 45)
    """
    own = Path(__file__).with_name("markups")
    file = Path(name) if name.endswith((".yaml", ".yml")) else own / f"{name}.yaml"
    if not file.is_file():
        known = sorted(f.name.removesuffix(".yaml") for f in own.iterdir())
        raise FkpError(f"no markup {name!r}; there is {', '.join(known)}, or give the path of a YAML file")
    text = read_text(file, MOST)
    try:
        given = yaml.load(text, _Plain)
        return Markup(**{key: value for key, value in given.items() if value is not None or key in ("name", "points")})
    except FkpError:
        raise
    except Exception as error:  # PyYAML says that a value is wrong in many ways
        told = " ".join(str(error).split())
        raise FkpError(f"{file}: not a markup ({told:.300}); see fkp/markups/face5.yaml") from None


IBUG68 = load_markup("ibug68")
