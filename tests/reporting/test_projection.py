"""The map: its places are in the unit square, alike for what is alike, and the same every time."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors

import mmrec.reporting.projection
from mmrec.reporting import project


def clusters(
    count: int, width: int = 32, kinds: int = 6, spread: float = 0.3
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    rng = np.random.default_rng(3)
    kind_I = rng.integers(0, kinds, count)
    centres_KD = rng.normal(size=(kinds, width))
    return (centres_KD[kind_I] + spread * rng.normal(size=(count, width))).astype(np.float32), kind_I


def share_of_own_kind(places_I2: NDArray[np.float32], kind_I: NDArray[np.int64], neighbours: int = 5) -> float:
    near_IK = NearestNeighbors(n_neighbors=neighbours + 1).fit(places_I2).kneighbors(places_I2)[1][:, 1:]
    return float((kind_I[near_IK] == kind_I[:, None]).mean())


@pytest.mark.parametrize("landmarks", [2000, 100])
def test_what_is_alike_is_near(monkeypatch: pytest.MonkeyPatch, landmarks: int) -> None:
    monkeypatch.setattr(mmrec.reporting.projection, "LANDMARKS", landmarks)
    vectors_ID, kind_I = clusters(400)
    places_I2 = project(vectors_ID)
    assert places_I2.shape == (400, 2)
    assert places_I2.min() == 0 and places_I2.max() == 1
    assert share_of_own_kind(places_I2, kind_I) > 0.95
    np.testing.assert_array_equal(project(vectors_ID), places_I2)


def test_the_length_of_a_vector_does_not_count() -> None:
    vectors_ID, kind_I = clusters(100)
    lengths_I = np.random.default_rng(0).uniform(0.01, 100, 100)
    assert share_of_own_kind(project(vectors_ID * lengths_I[:, None].astype(np.float32)), kind_I) > 0.95


@pytest.mark.parametrize("count", [0, 1, 2, 3, 9, 10, 12])
@pytest.mark.parametrize("width", [1, 2, 64])
def test_few_vectors_have_places_too(count: int, width: int) -> None:
    places_I2 = project(clusters(count, width)[0])
    assert places_I2.shape == (count, 2)
    assert np.isfinite(places_I2).all()
    assert ((places_I2 >= 0) & (places_I2 <= 1)).all()


def test_vectors_that_are_all_alike_lie_in_the_middle() -> None:
    assert (project(np.ones((20, 8), np.float32)) == 0.5).all()
    assert (project(np.zeros((20, 8), np.float32)) == 0.5).all()
