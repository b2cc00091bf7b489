"""What can be learned from interactions alone: baselines for the hybrid model, behind one contract.

A model scores items from histories, so a user who was not there when it was fitted is ranked like any other. Rows of
`history_UI` are users, columns the items of the fit; values are positive weights.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from typing import Any, ClassVar, Self

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from mmrec.errors import BaselineError

Rows = NDArray[np.int64]
Floats = NDArray[np.float32]

USERS_AT_ONCE = 1024


class Baseline(ABC):
    """The contract: `fit`, then `score`, `recommend`, `similar_items`, `save` and `load`.

    A subclass learns `arrays`, named arrays that are all it needs to score.

    >>> import numpy as np
    >>> import scipy.sparse as sp
    >>> from mmrec.evaluation import BASELINES
    >>> train_UI = sp.csr_array(np.array([[1, 1, 0], [1, 1, 0], [0, 1, 1]], dtype=np.float32))
    >>> model = BASELINES["item_neighbours"]().fit(train_UI)
    >>> rows_UK, scores_UK = model.recommend(sp.csr_array(np.array([[1, 0, 0]], dtype=np.float32)), k=1)
    >>> rows_UK
    array([[1]])
    """

    name: ClassVar[str]

    def __init__(self) -> None:
        self.arrays: dict[str, NDArray[Any]] = {}

    def fit(self, train_UI: sp.csr_array) -> Self:
        """Fits to weighted interactions; at least one interaction, all weights positive and finite."""
        if not train_UI.nnz:
            raise BaselineError("there are no interactions to learn from")
        if not (np.isfinite(train_UI.data) & (train_UI.data > 0)).all():
            raise BaselineError("the weights of interactions must be positive and finite")
        self.arrays = self._learn(train_UI.astype(np.float32))
        return self

    def score(self, history_UI: sp.csr_array) -> Floats:
        """The scores of all items for each history `(U, I)`; memory grows with both."""
        if not self.arrays:
            raise BaselineError(f"this {self.name} model has not been fitted")
        if history_UI.shape[1] != self.num_items:
            raise BaselineError(f"histories over {history_UI.shape[1]} items, fitted on {self.num_items}")
        return self._score(history_UI.astype(np.float32))

    def recommend(self, history_UI: sp.csr_array, k: int, *, exclude_seen: bool = True) -> tuple[Rows, Floats]:
        """Rows and scores of the best items, each `(U, min(k, I))`, best first, equal scores by row.

        Items of the history are left out unless `exclude_seen` is false; places without an item hold -1 and -inf.
        """
        if k < 1:
            raise BaselineError(f"k must be at least 1, got {k}")
        k = min(k, self.num_items) if self.arrays else k
        rows, scores = [], []
        for start in range(0, max(history_UI.shape[0], 1), USERS_AT_ONCE):
            block_UI = sp.csr_array(history_UI[start : start + USERS_AT_ONCE])
            scores_UI = self.score(block_UI)
            if exclude_seen:
                scores_UI[block_UI.nonzero()] = -np.inf
            rows_UK, scores_UK = _best(scores_UI, k)
            rows.append(rows_UK)
            scores.append(scores_UK)
        return np.concatenate(rows), np.concatenate(scores)

    def similar_items(self, items_N: Rows, k: int) -> tuple[Rows, Floats]:
        """Items that stand near each given one, itself left out: rows and scores, each `(N, min(k, I))`."""
        ones = np.ones(len(items_N), np.float32)
        shape = (len(items_N), self.num_items)
        return self.recommend(sp.csr_array((ones, (np.arange(len(items_N)), items_N)), shape=shape), k)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the model as one `.npz` file."""
        with open(path, "wb") as file:
            np.savez_compressed(file, allow_pickle=False, **self.arrays)

    def load(self, path: str | os.PathLike[str]) -> Self:
        """Reads what `save` of the same kind of model wrote."""
        try:
            with np.load(path, allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in stored.files}
        except (OSError, ValueError) as error:
            raise BaselineError(f"{path} is no saved {self.name} model: {error}") from error
        if set(arrays) != self._names():
            raise BaselineError(f"{path} is no saved {self.name} model: it holds {sorted(arrays)}")
        self.arrays = arrays
        return self

    @property
    @abstractmethod
    def num_items(self) -> int:
        """How many items the model was fitted on."""

    @abstractmethod
    def _names(self) -> set[str]: ...

    @abstractmethod
    def _learn(self, train_UI: sp.csr_array) -> dict[str, NDArray[Any]]: ...

    @abstractmethod
    def _score(self, history_UI: sp.csr_array) -> Floats: ...


class Popularity(Baseline):
    """The sum of each item's weights, the same for everyone."""

    name = "popularity"

    @property
    def num_items(self) -> int:
        return len(self.arrays["popularity_I"])

    def _names(self) -> set[str]:
        return {"popularity_I"}

    def _learn(self, train_UI: sp.csr_array) -> dict[str, NDArray[Any]]:
        return {"popularity_I": np.asarray(train_UI.sum(axis=0), dtype=np.float32).ravel()}

    def _score(self, history_UI: sp.csr_array) -> Floats:
        return np.repeat(self.arrays["popularity_I"][None], history_UI.shape[0], axis=0)


class ItemNeighbours(Baseline):
    """Item k-nearest-neighbours by the cosine of the users who interacted with them.

    Args:
        neighbours: how many each item keeps.
        shrinkage: added to the product of norms, against neighbours by few users.
    """

    name = "item neighbours"

    def __init__(self, *, neighbours: int = 100, shrinkage: float = 10.0) -> None:
        super().__init__()
        if neighbours < 1 or shrinkage < 0:
            raise BaselineError(f"neighbours {neighbours} must be positive, shrinkage {shrinkage} not negative")
        self.neighbours = neighbours
        self.shrinkage = shrinkage

    @property
    def num_items(self) -> int:
        return len(self.arrays["indptr"]) - 1

    def _names(self) -> set[str]:
        return {"data", "indices", "indptr"}

    def _learn(self, train_UI: sp.csr_array) -> dict[str, NDArray[Any]]:
        columns = sp.csr_array(train_UI.T)
        norm_I = np.sqrt(np.asarray(columns.power(2).sum(axis=1)).ravel())
        kept = []
        for start in range(0, columns.shape[0], USERS_AT_ONCE):
            block = sp.csr_array(columns[start : start + USERS_AT_ONCE] @ train_UI)
            rows = np.repeat(np.arange(block.shape[0]), np.diff(block.indptr))
            block.data /= norm_I[rows + start] * norm_I[block.indices] + self.shrinkage
            block.data[block.indices == rows + start] = 0
            kept.append(_keep_largest(block, rows, self.neighbours))
        similarity = sp.csr_array(sp.vstack(kept, format="csr"))
        return {"data": similarity.data, "indices": similarity.indices, "indptr": similarity.indptr}

    def _score(self, history_UI: sp.csr_array) -> Floats:
        parts = (self.arrays["data"], self.arrays["indices"], self.arrays["indptr"])
        similarity = sp.csr_array(parts, shape=(self.num_items, self.num_items))
        scores: Floats = (history_UI @ similarity).toarray()
        return scores


class EASE(Baseline):
    """A linear autoencoder without self-similarity, in closed form (Steck 2019); memory grows with the square of items.

    Args:
        regularisation: added to the diagonal of the item-item matrix.
        user_power: users weigh one over their number of interactions to this power; 0 lets very active users dominate.
    """

    name = "EASE"

    def __init__(self, *, regularisation: float = 10.0, user_power: float = 1.0) -> None:
        super().__init__()
        if regularisation <= 0:
            raise BaselineError(f"regularisation must be above 0, got {regularisation}")
        self.regularisation = regularisation
        self.user_power = user_power

    @property
    def num_items(self) -> int:
        return len(self.arrays["weights_II"])

    def _names(self) -> set[str]:
        return {"weights_II"}

    def _learn(self, train_UI: sp.csr_array) -> dict[str, NDArray[Any]]:
        from scipy.linalg import lapack

        degrees_U = np.maximum(np.diff(train_UI.indptr), 1).astype(np.float32)
        weighted_UI = sp.diags_array(degrees_U**-self.user_power) @ train_UI
        gram_II = (train_UI.T @ weighted_UI).toarray().astype(np.float64)
        gram_II[np.diag_indices_from(gram_II)] += self.regularisation
        factor_II, failed = lapack.dpotrf(gram_II, lower=1, overwrite_a=1)
        if not failed:
            inverse_II, failed = lapack.dpotri(factor_II, lower=1, overwrite_c=1)
        if failed:
            raise BaselineError("the item-item matrix cannot be inverted: raise the regularisation")
        inverse_II = np.tril(inverse_II) + np.tril(inverse_II, -1).T
        weights_II = -inverse_II / np.diag(inverse_II)
        np.fill_diagonal(weights_II, 0)
        return {"weights_II": weights_II.astype(np.float32)}

    def _score(self, history_UI: sp.csr_array) -> Floats:
        scores: Floats = history_UI @ self.arrays["weights_II"]
        return scores


class ALS(Baseline):
    """Matrix factorisation for implicit feedback by alternating least squares (Hu et al. 2008), by `implicit`.

    A history becomes a user vector by one least-squares step against the item vectors.

    Args:
        factors: the width of the vectors.
        regularisation, confidence, iterations, seed: as in `implicit`, where confidence is called alpha.
    """

    name = "ALS"

    def __init__(
        self,
        *,
        factors: int = 64,
        regularisation: float = 0.05,
        confidence: float = 10.0,
        iterations: int = 15,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.factors = factors
        self.regularisation = regularisation
        self.confidence = confidence
        self.iterations = iterations
        self.seed = seed

    @property
    def num_items(self) -> int:
        return len(self.arrays["vectors_IF"])

    def _names(self) -> set[str]:
        return {"vectors_IF"}

    def _learn(self, train_UI: sp.csr_array) -> dict[str, NDArray[Any]]:
        model = self._library()
        model.fit(sp.csr_matrix(train_UI), show_progress=False)
        return {"vectors_IF": np.asarray(model.item_factors, dtype=np.float32)}

    def _score(self, history_UI: sp.csr_array) -> Floats:
        model = self._library()
        model.item_factors = self.arrays["vectors_IF"]
        model.factors = model.item_factors.shape[1]
        users_UF = model.recalculate_user(np.arange(history_UI.shape[0]), sp.csr_matrix(history_UI))
        scores: Floats = users_UF @ model.item_factors.T
        return scores

    def _library(self) -> Any:
        try:
            from implicit.als import AlternatingLeastSquares
        except ImportError as error:
            raise BaselineError("ALS needs the package implicit: pip install 'mmrec[baselines]'") from error

        return AlternatingLeastSquares(
            factors=self.factors,
            regularization=self.regularisation,
            alpha=self.confidence,
            iterations=self.iterations,
            random_state=self.seed,
            use_gpu=False,
        )


BASELINES: dict[str, type[Baseline]] = {
    "popularity": Popularity,
    "item_neighbours": ItemNeighbours,
    "ease": EASE,
    "als": ALS,
}


def _best(scores_UI: Floats, k: int) -> tuple[Rows, Floats]:
    rows_UK = np.argsort(-scores_UI, axis=1, kind="stable")[:, :k]
    scores_UK = np.take_along_axis(scores_UI, rows_UK, 1)
    return np.where(np.isneginf(scores_UK), -1, rows_UK), scores_UK


def _keep_largest(block: sp.csr_array, rows: Rows, count: int) -> sp.csr_array:
    """The `count` largest positive values of each row, equal ones by column."""
    order = np.lexsort((block.indices, -block.data, rows))
    place = np.arange(len(order)) - block.indptr[rows[order]]
    chosen = order[(place < count) & (block.data[order] > 0)]
    return sp.csr_array((block.data[chosen], (rows[chosen], block.indices[chosen])), shape=block.shape)
