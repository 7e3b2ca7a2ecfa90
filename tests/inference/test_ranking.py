"""Rank faces by what their labels would teach, and leave out near duplicates."""

import numpy as np
import pytest

from fkp.inference.portraits import vectors
from fkp.inference.ranking import k_means, near_duplicates, rank


def unit(values: np.ndarray) -> np.ndarray:
    values = values - values.mean(1, keepdims=True)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def places(seed: int = 0, count: int = 60, width: int = 5) -> np.ndarray:
    values = np.random.default_rng(seed).normal(size=(count, width)) * 0.5 ** np.arange(width)
    return values - values.mean(0)


def error(vectors: np.ndarray, chosen: list[int]) -> float:
    """The mean variance of a Bayesian linear map that was fitted to these faces."""
    known = vectors[chosen]
    covariance = np.linalg.inv(np.eye(vectors.shape[1]) + known.T @ known / 0.03)
    return float(np.einsum("ij,jk,ik->i", vectors, covariance, vectors).mean())


def test_the_chosen_faces_teach_more_than_random_ones() -> None:
    faces, sure = places(), np.ones(60)
    chosen = [choice.index for choice in rank(faces, sure, 6)]
    generator = np.random.default_rng(1)
    random = [error(faces, generator.permutation(60)[:6].tolist()) for _ in range(50)]
    assert len(set(chosen)) == 6 and error(faces, chosen) < min(random)


def test_each_step_takes_the_best_of_all_faces() -> None:
    faces, labelled = places(3, 30), 4
    choices = rank(faces, np.ones(30), 5, labelled)
    known, open_faces = list(range(26, 30)), faces[:26]

    for choice in choices:
        before = slow_error(faces, open_faces, known)
        after = {i: slow_error(faces, open_faces, [*known, i]) for i in range(26) if i not in known}
        assert after[choice.index] == pytest.approx(min(after.values()))
        assert choice.gain == pytest.approx((before - after[choice.index]) / before)
        known.append(choice.index)


def slow_error(faces: np.ndarray, over: np.ndarray, chosen: list[int]) -> float:
    known = faces[chosen]
    covariance = np.linalg.inv(np.eye(faces.shape[1]) + known.T @ known / 0.03)
    return float(np.trace(covariance @ (over.T @ over / len(over))))


def test_of_two_equal_faces_the_surer_one_is_taken() -> None:
    faces = places(2)
    first = rank(faces, np.ones(60), 1)[0].index
    twins = np.concatenate([faces, faces[first : first + 1]])
    confidence = np.full(61, 0.8)
    confidence[first] = 0.3
    assert rank(twins, confidence, 1)[0].index == 60


def test_a_face_like_a_labelled_one_comes_later() -> None:
    faces, sure = places(4), np.ones(60)
    first = rank(faces, sure, 1)[0].index
    labelled = np.concatenate([faces, np.repeat(faces[first : first + 1], 5, 0)])
    assert rank(labelled, np.ones(65), 1, labelled=5)[0].index != first


@pytest.mark.parametrize("total", [0, 1, 2, 7])
def test_few_faces_are_all_ranked(total: int) -> None:
    choices = rank(places(5, 7)[:total], np.ones(total), 10)
    assert sorted(choice.index for choice in choices) == list(range(total))
    assert all(0 <= choice.gain <= 1 and choice.cluster >= 1 for choice in choices)


def test_equal_faces_can_be_ranked() -> None:
    points = np.repeat(np.random.default_rng(0).random((1, 5, 2)), 4, 0)
    same = vectors(points, np.ones((4, 8)))
    assert len(rank(same, np.full(4, 0.5), 4)) == 4


def test_the_same_set_is_ranked_alike_wherever_it_lies() -> None:
    generator = np.random.default_rng(0)
    points = generator.random((6, 2)) + 0.1 * generator.random((40, 6, 2))
    features = generator.normal(size=(40, 9)) + 3
    first = [choice.index for choice in rank(vectors(points, features), np.ones(40), 8)]
    moved = vectors(7 * points + (30, -4), 5 * features)
    assert [choice.index for choice in rank(moved, np.ones(40), 8)] == first


def test_near_duplicates_name_the_labelled_or_the_first_one() -> None:
    generator = np.random.default_rng(0)
    faces = unit(generator.normal(size=(6, 100)))
    labelled = unit(generator.normal(size=(3, 100)))
    # 3 and 4 are copies of 1, the second nearly; 5 is one of a labelled face.
    faces[3], faces[5] = faces[1], labelled[2]
    faces[4] = unit(faces[1:2] + 0.01 * generator.normal(size=(1, 100)))[0]
    assert near_duplicates(faces, labelled) == {3: (False, 1), 4: (False, 1), 5: (True, 2)}
    assert near_duplicates(faces[:3], labelled[:0]) == {}


def test_clusters_are_the_groups_of_the_faces_and_repeat() -> None:
    centres = np.array([[0, 0], [10, 0], [0, 10]])
    faces = np.repeat(centres, 20, 0) + np.random.default_rng(0).normal(size=(60, 2)) / 10
    clusters = k_means(faces, 3, seed=0)
    assert [len(set(clusters[i : i + 20])) for i in (0, 20, 40)] == [1, 1, 1]
    assert len(set(clusters)) == 3 and np.array_equal(clusters, k_means(faces, 3, seed=0))
