"""A map of vectors: two coordinates each, near where the vectors are alike."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

COMPONENTS = 50
LANDMARKS = 2000
ITERATIONS = 500
NEIGHBOURS = 5
FEWEST = 10  # of fewer items principal components tell all that there is to see
ALIKE = 1e-6
ROWS_AT_ONCE = 4096


def method() -> str:
    """What `project` lays out with here: "UMAP" where umap-learn is installed, else "t-SNE"."""
    return "UMAP" if find_spec("umap") is not None else "t-SNE"


def project(vectors_ID: Floats, *, seed: int = 0) -> Floats:
    """The places `(I, 2)` of vectors on a map, from 0 to 1: near each other where their cosine is high.

    Principal components, then UMAP or t-SNE (see `method`) of at most 2,000 landmarks, drawn at random; every other
    vector lies amid the five landmarks that are most like it. The same vectors and seed give the same map. A hundred
    thousand vectors take some 15 seconds.

    >>> from mmrec import FeatureStore
    >>> from mmrec.reporting import project
    >>> ids, vectors_ID = FeatureStore("store").vectors("visual")
    >>> places_I2 = project(vectors_ID)
    >>> places_I2.shape, float(places_I2.min()), float(places_I2.max())
    ((16, 2), 0.0, 1.0)
    """
    count = len(vectors_ID)
    norms_I1 = np.linalg.norm(vectors_ID, axis=1, keepdims=True)
    unit_ID = np.divide(vectors_ID, np.where(norms_I1 > 0, norms_I1, 1), dtype=np.float32)
    if count < 2 or np.ptp(unit_ID, axis=0).max() < ALIKE:
        return np.full((count, 2), 0.5, np.float32)
    parts_IC = _principal_parts(unit_ID)
    if count < FEWEST:
        return _in_unit_square(parts_IC[:, :2])
    landmarks_L = np.sort(np.random.default_rng(seed).permutation(count)[:LANDMARKS])
    places_L2 = _layout(parts_IC[landmarks_L], seed)
    places_I2 = places_L2 if len(landmarks_L) == count else _amid(parts_IC, parts_IC[landmarks_L], places_L2)
    return _in_unit_square(places_I2)


def _principal_parts(unit_ID: Floats) -> Floats:
    """The first principal components `(I, C)`: at least two columns."""
    from sklearn.decomposition import PCA

    kept = min(COMPONENTS, *unit_ID.shape)
    parts_IC = PCA(kept, svd_solver="covariance_eigh").fit_transform(unit_ID)
    return np.pad(parts_IC.astype(np.float32), ((0, 0), (0, max(0, 2 - kept))))


def _layout(parts_LC: Floats, seed: int) -> Floats:
    if method() == "UMAP":
        from umap import UMAP

        neighbours = min(15, len(parts_LC) - 1)
        places_L2 = UMAP(n_neighbors=neighbours, random_state=seed, n_jobs=1).fit_transform(parts_LC)
    else:
        from sklearn.manifold import TSNE
        from threadpoolctl import threadpool_limits

        perplexity = min(30, (len(parts_LC) - 1) / 3)
        with threadpool_limits(1):  # its threads wait by spinning: beside other work two take many times as long as one
            layout = TSNE(perplexity=perplexity, init="pca", max_iter=ITERATIONS, random_state=seed)
            places_L2 = layout.fit_transform(parts_LC)
    return np.asarray(places_L2, np.float32)


def _amid(parts_IC: Floats, parts_LC: Floats, places_L2: Floats) -> Floats:
    """For each vector the mean place of its nearest landmarks, the nearer the heavier; a landmark lies at its own."""
    squares_L = (parts_LC**2).sum(axis=1)
    places_I2 = np.empty((len(parts_IC), 2), np.float32)
    for start in range(0, len(parts_IC), ROWS_AT_ONCE):
        block_BC = parts_IC[start : start + ROWS_AT_ONCE]
        distances_BL = np.maximum(squares_L - 2 * block_BC @ parts_LC.T + (block_BC**2).sum(axis=1)[:, None], 0)
        nearest_BK = np.argpartition(distances_BL, NEIGHBOURS - 1, axis=1)[:, :NEIGHBOURS]
        weights_BK = 1 / (np.take_along_axis(distances_BL, nearest_BK, axis=1) + 1e-6)
        weights_BK /= weights_BK.sum(axis=1, keepdims=True)
        places_I2[start : start + ROWS_AT_ONCE] = np.einsum("bk,bkx->bx", weights_BK, places_L2[nearest_BK])
    return places_I2


def _in_unit_square(places_I2: Floats) -> Floats:
    """Moved and scaled, both directions alike, so that the wider of them goes from 0 to 1 and the other is centred."""
    least_2, most_2 = places_I2.min(axis=0), places_I2.max(axis=0)
    extent = float((most_2 - least_2).max())
    places_I2 = (places_I2 - (least_2 + most_2) / 2) / extent + 0.5
    return np.asarray(places_I2.clip(0, 1), np.float32)
