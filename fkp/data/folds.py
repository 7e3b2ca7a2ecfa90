"""Divide people into folds with about as many faces each, for cross-validation."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np

from fkp.errors import FkpError

ALL = "all"  # instead of a fold's number: train on all faces, and test on none
VAL_SHARE = 0.15  # of the faces that are not tested on


def place(identity: str) -> float:
    """Return a number in [0, 1) that depends on the name of a person alone."""
    digest = hashlib.sha256(identity.encode(errors="surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def dealt(identity: Iterable[str], folds: int) -> np.ndarray:
    """Return the fold of each face, (F,), from 0; the same on every machine for the same people.

    People are taken by their number of faces, most first, then by the hash of their name; each
    goes to the fold that has the fewest faces so far. So two folds differ by at most the faces of
    one person.

    >>> dealt(["Ada", "Ada", "Bo", "Cy"], 2).tolist()
    [0, 0, 1, 1]
    """
    names, person, counts = np.unique(
        np.array(list(identity), object), return_inverse=True, return_counts=True
    )
    hashes = np.array([place(name) for name in names])
    fold, faces = np.zeros(len(names), int), np.zeros(folds, int)
    for one in np.lexsort([hashes, -counts]):
        fold[one] = faces.argmin()
        faces[fold[one]] += counts[one]
    return fold[person]


def fold_indices(
    identity: Iterable[str], pooled: np.ndarray, folds: int, fold: int | str | None
) -> dict[str, np.ndarray]:
    """Return the indices of the faces in train, val and test for one fold.

    The fold's people are tested on. About 15 % of the others, by person, are validated on, the rest
    is trained on. No person is in two splits.

    Args:
        identity: F names of people.
        pooled: (F,) bool, the faces that are divided; the others are for training only.
        folds: number of folds.
        fold: from 0; `all` tests on no face and trains on all, but those of the validation.

    Raises:
        FkpError: no such fold, or too few people.
    """
    names = np.array(list(identity), object)
    if fold is None:
        hint = "give data.folds on the command line of train.py, or add data.fold=0"
        raise FkpError(
            f"data.folds={folds}: which fold to test on is not given; {hint}",
            key="data.fold",
            hint=hint,
        )
    if fold != ALL and not (isinstance(fold, int) and 0 <= fold < folds):
        raise FkpError(
            f"data.fold={fold}: there are the folds 0 to {folds - 1}, and {ALL}", key="data.fold"
        )
    people = len(set(names[pooled]))
    if people < folds:
        raise _too_few(folds, people)

    # Test: the fold. Validation: of equal parts of the others, the one nearest to the share.
    test = np.zeros(len(names), bool)
    if fold != ALL:
        test[pooled] = dealt(names[pooled], folds) == fold
    others = pooled & ~test
    part = np.full(len(names), -1)
    part[others] = dealt(names[others], round(1 / VAL_SHARE))
    sizes = np.bincount(part[others])
    val = part == np.abs(sizes - VAL_SHARE * others.sum()).argmin()
    if not (others & ~val).any():
        raise _too_few(folds, people)

    # A person of val or test may also be among the faces for training only.
    left_out = ~pooled & np.isin(names.astype(str), names[val | test].astype(str))
    splits = {"train": ~test & ~val & ~left_out, "val": val, "test": test}
    return {name: np.flatnonzero(mask) for name, mask in splits.items()}


def ordered(identity: Iterable[str], salt: str) -> np.ndarray:
    """Return the indices of faces in a random order of their people.

    The first N and the first 2 N are nested, and hold people as a whole, but for the last.

    Args:
        identity: F names of people.
        salt: another one gives another order.
    """
    places = [place(salt + name) for name in identity]
    return np.argsort(places, kind="stable")


def _too_few(folds: int, people: int) -> FkpError:
    return FkpError(
        f"data.folds={folds}: {people} people are too few, as each fold needs people to test on, "
        "to validate on and to train on. If the names are not those of people, set data.identity "
        "to a regular expression whose group 1 of a file name is the person",
        key="data.folds",
    )
