"""Test folds: each face is tested on once, no person is in two splits, and folds are balanced."""

from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from fkp.data.folds import ALL, dealt, fold_indices, ordered
from fkp.data.joined import Joined
from fkp.data.labelled_csv import LabelledCsv
from fkp.data.synthetic import Synthetic
from fkp.data.table import EXTRA, FaceTable
from fkp.errors import FkpError
from fkp.runs import signatures

# Faces of each person.
PEOPLE = st.lists(st.integers(1, 9), min_size=12, max_size=60)


def names_of(counts: list[int]) -> np.ndarray:
    return np.repeat([f"person {i}" for i in range(len(counts))], counts).astype(object)


@settings(max_examples=50, deadline=None)
@given(PEOPLE, st.integers(2, 6), st.randoms())
def test_folds_are_balanced_and_do_not_depend_on_the_order(counts, folds, random) -> None:
    names = names_of(counts)
    fold = dealt(names, folds)
    faces = np.bincount(fold, minlength=folds)
    assert np.ptp(faces) <= max(counts)
    assert all(len(set(fold[names == name])) == 1 for name in set(names))

    shuffled = np.array(random.sample(range(len(names)), len(names)))
    assert (dealt(names[shuffled], folds) == fold[shuffled]).all()


@settings(max_examples=50, deadline=None)
@given(PEOPLE, st.integers(2, 6))
def test_every_face_is_tested_on_once_by_a_training_without_its_person(counts, folds) -> None:
    names, tested = names_of(counts), []
    pooled = np.ones(len(names), bool)
    for fold in range(folds):
        splits = fold_indices(names, pooled, folds, fold)
        people = [set(names[chosen]) for chosen in splits.values()]
        assert all(people) and len(set.union(*people)) == sum(map(len, people))
        assert sum(map(len, splits.values())) == len(names)
        tested += splits["test"].tolist()

        others = len(names) - len(splits["test"])
        assert len(splits["val"]) <= 0.15 * others + max(counts)
    assert sorted(tested) == list(range(len(names)))


@settings(max_examples=20, deadline=None)
@given(PEOPLE)
def test_an_order_keeps_people_together_and_depends_on_the_salt(counts: list[int]) -> None:
    names = names_of(counts)
    order = ordered(names, "0 ")
    assert sorted(order) == list(range(len(names)))
    changes = (names[order][1:] != names[order][:-1]).sum()
    assert changes == len(counts) - 1
    assert (ordered(names, "1 ") != order).any()


def test_the_final_model_trains_on_all_but_the_validation() -> None:
    names = names_of([1] * 40)
    splits = fold_indices(names, np.ones(40, bool), 5, ALL)
    assert [len(splits[name]) for name in ("train", "val", "test")] == [34, 6, 0]


def test_faces_for_training_only_are_never_tested_on() -> None:
    names = np.array([f"person {i % 20}" for i in range(40)], object)
    pooled = np.arange(40) < 30
    splits = fold_indices(names, pooled, 5, 0)
    held_out = set(names[splits["test"]]) | set(names[splits["val"]])
    assert (np.r_[splits["test"], splits["val"]] < 30).all()
    assert not held_out & set(names[splits["train"]])
    assert (splits["train"] >= 30).sum() == sum(name not in held_out for name in names[30:])


@pytest.mark.parametrize(
    ("people", "folds", "fold", "key"),
    [
        (9, 5, 5, "data.fold"),
        (9, 5, -1, "data.fold"),
        (9, 5, None, "data.fold"),
        (4, 5, 0, "data.folds"),
        (2, 2, 0, "data.folds"),
        (0, 2, 0, "data.folds"),
    ],
)
def test_folds_that_cannot_be_are_refused(people, folds, fold, key) -> None:
    with pytest.raises(FkpError) as refused:
        fold_indices(names_of([2] * people), np.ones(2 * people, bool), folds, fold)
    assert refused.value.key == key


def test_a_source_splits_by_fold_or_by_protocol() -> None:
    names = [f"person {i}" for i in range(30)]
    table = FaceTable([Path(name) for name in names], np.zeros((30, 68, 2)), names, names)
    plain, folded = LabelledCsv("x"), LabelledCsv("x", folds=3, fold=1)
    assert plain.split(table).keys() == table.split("identity").keys()
    np.testing.assert_array_equal(
        plain.split_indices(table)["test"], table.split_indices("identity")["test"]
    )
    assert len(folded.split(table)["test"]) == 10

    table.official[:10] = EXTRA
    assert (folded.split_indices(table)["test"] >= 10).all()

    for source, key in (
        (LabelledCsv("x", fold=1), "data.folds"),
        (LabelledCsv("x", folds=3, fold=1, protocol="strict"), "data.protocol"),
    ):
        with pytest.raises(FkpError) as refused:
            source.split(table)
        assert refused.value.key == key


def test_the_folds_of_joined_sources_are_those_of_all_together() -> None:
    with pytest.raises(FkpError) as refused:
        Joined(["one"], {"one": Synthetic(folds=5)})
    assert refused.value.key == "data.known.one.folds"


@pytest.mark.parametrize("file", sorted((ROOT / "conf/data").glob("*.yaml")), ids=lambda f: f.stem)
def test_every_source_takes_folds(file: Path) -> None:
    conf = OmegaConf.load(file)
    if "_target_" not in conf:  # inherits those of another option
        return
    assert conf.folds is None and conf.fold is None
    signature = signatures.of(conf["_target_"])
    assert signature is not None and {"folds", "fold"} <= signature.parameters.keys()
