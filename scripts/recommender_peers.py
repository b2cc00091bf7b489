"""The recommenders that ours is compared with, from the libraries that own them, and the spaces they are tuned over.

A peer is fitted to a `Problem` and gives the best items of the users asked for. Nothing of mmrec is imported here, so
that a peer whose library needs other versions can run in an environment of its own. `recommender_worker.py` runs them.
"""

from __future__ import annotations

import signal
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

K = 20
USERS_AT_ONCE = 512
Settings = Mapping[str, Any]
Rows = NDArray[np.int64]
Scores = NDArray[np.floating]
Best = Callable[[Rows], Rows]  # rows of users -> rows of their best K items


class TimeUp(Exception):
    """The time of a trial is over."""


@dataclass(frozen=True)
class Problem:
    """What peers learn from: positive interactions, in order where `ordered`, and mean tokens by modality."""

    users_N: Rows
    items_N: Rows
    num_users: int
    num_items: int
    ordered: bool
    rank_users: Rows
    content: dict[str, NDArray[np.float32]]

    @classmethod
    def load(cls, path: Path) -> Problem:
        with np.load(path, allow_pickle=False) as stored:
            content = {name.removeprefix("content_"): stored[name] for name in stored if name.startswith("content_")}
            sizes = (int(stored["num_users"]), int(stored["num_items"]), bool(stored["ordered"]))
            return cls(stored["users_N"], stored["items_N"], *sizes, stored["rank_users"], content)

    def matrix(self, values_N: NDArray[np.floating] | None = None) -> sp.csr_matrix:
        """Histories `(U, I)`; a `csr_matrix`, which some of the libraries insist on."""
        values_N = np.ones(len(self.users_N), np.float32) if values_N is None else values_N.astype(np.float32)
        return sp.csr_matrix((values_N, (self.users_N, self.items_N)), shape=(self.num_users, self.num_items))

    def ages(self) -> Rows:
        """How many interactions the same user had after each `(N,)`."""
        order_N = np.lexsort((np.arange(len(self.users_N)), self.users_N))
        counts_U = np.bincount(self.users_N, minlength=self.num_users)
        ages_N = np.empty(len(order_N), np.int64)
        ages_N[order_N] = np.repeat(np.cumsum(counts_U), counts_U) - 1 - np.arange(len(order_N))
        return ages_N


@contextmanager
def time_limit(deadline: float) -> Iterator[None]:
    """Raises `TimeUp` inside when the clock of `time.monotonic` passes the deadline."""

    def stop(*_: object) -> None:
        raise TimeUp

    signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, max(0.01, deadline - time.monotonic()))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def finished(fit: Callable[[], Any], deadline: float) -> bool:
    """Whether `fit` came to its end before the deadline; if not, its object keeps what it reached."""
    try:
        with time_limit(deadline):
            fit()
    except TimeUp:
        return False
    return True


def best_by(problem: Problem, score: Callable[[Rows], Scores]) -> Best:
    """The best items by scores `(U, I)`, those of the history left out; equal scores by row."""
    seen_UI = problem.matrix()

    def best(users: Rows) -> Rows:
        found = []
        for start in range(0, len(users), USERS_AT_ONCE):
            block = users[start : start + USERS_AT_ONCE]
            scores_UI = np.array(score(block), np.float64)
            scores_UI[seen_UI[block].nonzero()] = -np.inf
            rows_UK = np.argsort(-scores_UI, axis=1, kind="stable")[:, :K]
            found.append(np.where(np.isneginf(np.take_along_axis(scores_UI, rows_UK, 1)), -1, rows_UK))
        return np.concatenate(found)

    return best


# --- popularity, linear models, content -------------------------------------------------------------------------------


def popularity(problem: Problem, settings: Settings, seed: int, deadline: float) -> tuple[Best, bool]:
    counts_I = np.bincount(problem.items_N, minlength=problem.num_items)
    return best_by(problem, lambda users: np.tile(counts_I, (len(users), 1))), True


def ease(problem: Problem, settings: Settings, seed: int, deadline: float, recency: bool = False) -> tuple[Best, bool]:
    """Steck 2019, in closed form over the items that training has; with `recency`, older history counts for less."""
    from scipy.linalg import lapack

    l2, user_power = settings.get("l2", 100.0), settings.get("user_power", 0.0)
    train_UI = sp.csr_array(problem.matrix())
    known = np.unique(problem.items_N)
    known_UJ = sp.csr_array(train_UI[:, known])
    weights_U = np.maximum(np.diff(train_UI.indptr), 1.0) ** -user_power
    gram_JJ = (known_UJ.T @ (sp.diags_array(weights_U) @ known_UJ)).toarray().astype(np.float64)
    gram_JJ[np.diag_indices_from(gram_JJ)] += l2
    factor_JJ, failed = lapack.dpotrf(gram_JJ, lower=1, overwrite_a=1)
    if not failed:
        factor_JJ, failed = lapack.dpotri(factor_JJ, lower=1, overwrite_c=1)
    if failed:
        raise ValueError(f"the item-item matrix cannot be inverted with l2 = {l2}")
    inverse_JJ = np.tril(factor_JJ) + np.tril(factor_JJ, -1).T
    linear_JJ = (-inverse_JJ / np.diag(inverse_JJ)).astype(np.float32)
    np.fill_diagonal(linear_JJ, 0)
    values_N = 0.5 ** (problem.ages() / settings.get("half_life", 20.0)) if recency else None
    history_UJ = sp.csr_array(problem.matrix(values_N)[:, known])

    def score(users: Rows) -> Scores:
        scores_UI = np.zeros((len(users), problem.num_items), np.float32)
        scores_UI[:, known] = history_UJ[users] @ linear_JJ
        return scores_UI

    return best_by(problem, score), time.monotonic() < deadline


def content_neighbours(
    problem: Problem, settings: Settings, seed: int, deadline: float, modality: str
) -> tuple[Best, bool]:
    """Each item is scored by those of its nearest training items, by the cosine of content, that the user had."""
    names = sorted(problem.content) if modality == "all" else [modality]
    parts = [
        settings.get(f"weight_{name}", 1.0) * _unit(problem.content[name], settings.get("whiten", False))
        for name in names
    ]
    vectors_ID = np.concatenate(parts, axis=1)
    vectors_ID /= np.maximum(np.linalg.norm(vectors_ID, axis=1, keepdims=True), 1e-9)
    known = np.unique(problem.items_N)
    count = min(int(settings.get("neighbours", 100)), len(known))
    near_JI = np.zeros((len(known), problem.num_items), np.float32)
    for start in range(0, problem.num_items, 1024):
        cosines_BJ = vectors_ID[start : start + 1024] @ vectors_ID[known].T
        cosines_BJ[known == np.arange(start, start + len(cosines_BJ))[:, None]] = -np.inf
        rows_BK = np.argpartition(-cosines_BJ, count - 1, axis=1)[:, :count]
        values_BK = np.maximum(np.take_along_axis(cosines_BJ, rows_BK, 1), 0)
        near_JI[rows_BK, start + np.arange(len(rows_BK))[:, None]] = values_BK
    history_UJ = sp.csr_array(problem.matrix()[:, known])
    return best_by(problem, lambda users: history_UJ[users] @ near_JI), time.monotonic() < deadline


def _unit(vectors_ID: NDArray[np.float32], whiten: bool) -> NDArray[np.float32]:
    """Centred over the items that have content, whitened if asked for, of length one; zero for items without."""
    there_I = np.abs(vectors_ID).sum(1) > 0
    centred_ID = vectors_ID[there_I] - vectors_ID[there_I].mean(0)
    if whiten:
        values_D, axes_DD = np.linalg.eigh(np.cov(centred_ID.T) + 1e-9 * np.eye(centred_ID.shape[1]))
        centred_ID = centred_ID @ (axes_DD / np.sqrt(np.maximum(values_D, 0) + 0.1 * values_D.mean()))
    unit_ID = np.zeros_like(vectors_ID)
    unit_ID[there_I] = centred_ID / np.maximum(np.linalg.norm(centred_ID, axis=1, keepdims=True), 1e-9)
    return unit_ID


# --- implicit and ELSA ------------------------------------------------------------------------------------------------


def als(problem: Problem, settings: Settings, seed: int, deadline: float) -> tuple[Best, bool]:
    from implicit.als import AlternatingLeastSquares
    from threadpoolctl import threadpool_limits

    model = AlternatingLeastSquares(**settings, random_state=seed, use_gpu=False)
    with threadpool_limits(1, "blas"):  # implicit has threads of its own
        done = finished(lambda: model.fit(problem.matrix(), show_progress=False), deadline)
    return best_by(problem, lambda users: model.user_factors[users] @ model.item_factors.T), done


def bpr(problem: Problem, settings: Settings, seed: int, deadline: float) -> tuple[Best, bool]:
    from implicit.bpr import BayesianPersonalizedRanking

    model = BayesianPersonalizedRanking(**settings, random_state=seed, use_gpu=False)
    done = finished(lambda: model.fit(problem.matrix(), show_progress=False), deadline)
    return best_by(problem, lambda users: model.user_factors[users] @ model.item_factors.T), done


def item_neighbours(problem: Problem, settings: Settings, seed: int, deadline: float, kind: str) -> tuple[Best, bool]:
    from implicit import nearest_neighbours

    model = getattr(nearest_neighbours, kind)(**settings)
    model.fit(problem.matrix(), show_progress=False)
    history_UI = problem.matrix()
    score = lambda users: (history_UI[users] @ model.similarity).toarray()  # noqa: E731
    return best_by(problem, score), time.monotonic() < deadline


def elsa(problem: Problem, settings: Settings, seed: int, deadline: float) -> tuple[Best, bool]:
    """Vančura et al. 2022, by its authors' package `elsarec`."""
    import torch
    from elsa import ELSA

    torch.manual_seed(seed)
    history_UI, random = problem.matrix(), np.random.default_rng(seed)
    dims, rate = int(settings.get("n_dims", 256)), settings.get("lr", 0.1)
    model = ELSA(problem.num_items, dims, device=torch.device("cpu"), lr=rate)
    size = int(settings.get("batch_size", 256))

    def fit() -> None:
        for _ in range(int(settings.get("epochs", 20))):
            order = random.permutation(problem.num_users)
            for start in range(0, len(order), size):
                batch_BI = torch.from_numpy(history_UI[order[start : start + size]].toarray())
                model.train_step(batch_BI, batch_BI)

    done = finished(fit, deadline)

    def score(users: Rows) -> Scores:
        with torch.no_grad():
            scores: Scores = model(torch.from_numpy(history_UI[users].toarray())).numpy()
        return scores

    return best_by(problem, score), done


# --- what there is, and how it is tuned -------------------------------------------------------------------------------

Fit = Callable[[Problem, Settings, int, float], tuple[Best, bool]]


@dataclass(frozen=True)
class Peer:
    """How to fit it, the package that owns it, the space it is tuned over, and where it applies.

    A space names for each setting its choices, or ("log", low, high), or ("whole", low, high), both log-uniform.
    """

    fit: Fit
    space: Mapping[str, tuple[Any, ...]]
    package: str = ""
    needs_order: bool = False
    needs: str = ""  # a modality
    seeded: bool = False


LOG_L2 = ("log", 1.0, 3000.0)
CONTENT = {"neighbours": ("whole", 5, 2000), "whiten": (False, True)}


def peers() -> dict[str, Peer]:
    import recommender_sequence_peers as sequences

    linear = {"l2": LOG_L2, "user_power": (0.0, 0.5, 1.0)}
    recent = {**linear, "half_life": ("log", 2.0, 300.0)}
    weights = {f"weight_{name}": ("log", 0.2, 5.0) for name in ("visual", "audio", "text")}
    factors = {"factors": ("whole", 16, 256), "regularization": ("log", 1e-3, 1.0)}
    near = {"K": ("whole", 5, 1000)}
    return {
        "popularity": Peer(popularity, {}),
        "EASE": Peer(ease, linear),
        "EASE, recency": Peer(partial(ease, recency=True), recent, needs_order=True),
        "ELSA": Peer(
            elsa,
            {"n_dims": ("whole", 32, 1024), "lr": ("log", 3e-3, 0.3), "epochs": ("whole", 3, 60)},
            "elsarec",
            seeded=True,
        ),
        "implicit ALS": Peer(
            als, {**factors, "alpha": ("log", 1.0, 100.0), "iterations": ("whole", 5, 40)}, "implicit", seeded=True
        ),
        "implicit BPR": Peer(
            bpr,
            {**factors, "learning_rate": ("log", 3e-3, 0.3), "iterations": ("whole", 30, 500)},
            "implicit",
            seeded=True,
        ),
        "implicit item-kNN cosine": Peer(partial(item_neighbours, kind="CosineRecommender"), near, "implicit"),
        "implicit item-kNN BM25": Peer(
            partial(item_neighbours, kind="BM25Recommender"),
            {**near, "K1": ("log", 0.1, 100.0), "B": (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)},
            "implicit",
        ),
        **{
            f"content kNN {name}": Peer(partial(content_neighbours, modality=name), CONTENT, needs=name)
            for name in ("visual", "audio", "text")
        },
        "content kNN all": Peer(partial(content_neighbours, modality="all"), {**CONTENT, **weights}, needs="all"),
        "Cornac VBPR": Peer(sequences.vbpr, sequences.VBPR_SPACE, "cornac", needs="all", seeded=True),
        **{
            f"{owner} {name}": Peer(fit, space, owner.lower(), needs_order=True, seeded=True)
            for owner, name, fit, space in sequences.TRANSFORMERS
        },
    }


def draw_settings(name: str, peer: Peer, trials: int) -> list[dict[str, Any]]:
    """The trials of a peer: its defaults, then settings drawn at random, the same in every run."""
    random = np.random.default_rng(zlib.crc32(name.encode()))
    drawn: list[dict[str, Any]] = [{}]
    while len(drawn) < (trials if peer.space else 1):
        drawn.append({setting: _draw(random, values) for setting, values in peer.space.items()})
    return drawn


def _draw(random: np.random.Generator, values: tuple[Any, ...]) -> Any:
    if values[0] in ("log", "whole"):
        value = float(np.exp(random.uniform(np.log(values[1]), np.log(values[2]))))
        return round(value) if values[0] == "whole" else float(f"{value:.4g}")
    return values[int(random.integers(len(values)))]
