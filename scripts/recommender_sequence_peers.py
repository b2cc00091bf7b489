"""Peers that learn by gradients in libraries of their own: VBPR, SASRec and BERT4Rec by Cornac, and by RecTools.

RecTools wants older versions of numpy, pandas and Lightning than mmrec does: it runs in an environment of its own,
whose interpreter `bench_recommenders.py --rectools-python` names.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from recommender_peers import Best, Problem, Rows, Scores, Settings

VBPR_SPACE = {
    "k": ("whole", 8, 128),
    "k2": ("whole", 8, 128),
    "n_epochs": ("whole", 5, 60),
    "learning_rate": ("log", 5e-4, 0.02),
    "lambda_w": ("log", 1e-4, 0.1),
    "batch_size": (256, 1024),
}
CORNAC_SPACE = {
    "embedding_dim": (32, 64, 128),
    "n_epochs": ("whole", 5, 60),
    "learning_rate": ("log", 3e-4, 5e-3),
    "max_len": (20, 50, 100),
    "num_blocks": (1, 2),
    "dropout": (0.1, 0.2, 0.4),
}
RECTOOLS_SPACE = {
    "n_factors": (32, 64, 128, 256),
    "n_blocks": (1, 2),
    "n_heads": (1, 2, 4),
    "epochs": ("whole", 5, 60),
    "lr": ("log", 3e-4, 5e-3),
    "session_max_len": (20, 50, 100),
    "dropout_rate": (0.1, 0.2, 0.4),
}


def vbpr(problem: Problem, settings: Settings, seed: int, deadline: float) -> tuple[Best, bool]:
    """He and McAuley 2016, with all modalities side by side, each of length one after centring."""
    from cornac.data import Dataset, ImageModality
    from cornac.models import VBPR
    from recommender_peers import _unit, best_by, time_limit

    features_ID = np.concatenate([_unit(problem.content[name], False) for name in sorted(problem.content)], axis=1)
    users, items = (OrderedDict((row, row) for row in range(n)) for n in (problem.num_users, problem.num_items))
    ratings = (problem.users_N, problem.items_N, np.ones(len(problem.users_N)))
    train = Dataset(problem.num_users, problem.num_items, users, items, ratings, seed=seed)
    train.add_modalities(item_image=ImageModality(features=features_ID, ids=list(items), normalized=False).build(items))
    model = VBPR(**{"batch_size": 256, **settings}, seed=seed, verbose=False)
    with time_limit(deadline):  # its weights are not to be had before the end
        model.fit(train)
    return best_by(problem, lambda users: np.stack([np.array(model.score(user)) for user in users])), True


def cornac_transformer(
    problem: Problem, settings: Settings, seed: int, deadline: float, kind: str
) -> tuple[Best, bool]:
    from cornac import models
    from cornac.data import SequentialDataset
    from recommender_peers import best_by, finished

    users, items = (OrderedDict((row, row) for row in range(n)) for n in (problem.num_users, problem.num_items))
    train = SequentialDataset(
        problem.num_users, problem.num_users, problem.num_items, users, users, items,
        (problem.users_N, problem.items_N, np.ones(len(problem.users_N))),
        session_indices=problem.users_N, timestamps=np.arange(len(problem.users_N)), seed=seed,
    )  # fmt: skip
    model = getattr(models, kind)(**settings, seed=seed)
    done = finished(lambda: model.fit(train), deadline)
    histories = _histories(problem)
    unknown_I = np.bincount(problem.items_N, minlength=problem.num_items) == 0

    def score(rows: Rows) -> Scores:
        scores_UI = np.stack([np.asarray(model.score(row, histories[row])).ravel() for row in rows])
        scores_UI[:, unknown_I] = scores_UI.min() - 1  # vectors that nothing was learned of
        return scores_UI

    return best_by(problem, score), done


def _histories(problem: Problem) -> list[list[int]]:
    order_N = np.lexsort((np.arange(len(problem.users_N)), problem.users_N))
    counts_U = np.bincount(problem.users_N, minlength=problem.num_users)
    return [part.tolist() for part in np.split(problem.items_N[order_N], np.cumsum(counts_U)[:-1])]


def rectools_transformer(
    problem: Problem, settings: Settings, seed: int, deadline: float, kind: str
) -> tuple[Best, bool]:
    import pandas as pd
    import pytorch_lightning as pl
    from rectools import models
    from rectools.dataset import Dataset

    pl.seed_everything(seed)
    seconds = max(1.0, deadline - time.monotonic())
    table = pd.DataFrame({"user_id": problem.users_N, "item_id": problem.items_N, "weight": 1.0})
    table["datetime"] = pd.to_datetime(np.arange(len(table)), unit="s")
    dataset = Dataset.construct(table)
    made: list[Any] = []

    def make_trainer() -> Any:
        made.append(
            pl.Trainer(
                max_epochs=settings.get("epochs", 3), max_time={"seconds": int(seconds)}, accelerator="cpu",
                logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
            )
        )  # fmt: skip
        return made[-1]

    model = getattr(models, f"{kind}Model")(**settings, get_trainer_func=make_trainer, deterministic=True)
    model.fit(dataset)

    def best(rows: Rows) -> Rows:
        """By popularity for users of one interaction, of whom it learns nothing and whom it does not know."""
        from recommender_peers import K, popularity

        lists = model.recommend(users=rows, dataset=dataset, k=K, filter_viewed=True, on_unsupported_targets="ignore")
        rows_UK = popularity(problem, {}, seed, deadline)[0](rows)
        places = {row: place for place, row in enumerate(rows.tolist())}
        rows_UK[[places[user] for user in lists["user_id"]], lists["rank"].to_numpy() - 1] = lists["item_id"]
        return rows_UK

    return best, time.monotonic() < deadline


TRANSFORMERS = [
    (owner, name, partial(fit, kind=name), space)
    for owner, fit, space in (
        ("Cornac", cornac_transformer, CORNAC_SPACE),
        ("RecTools", rectools_transformer, RECTOOLS_SPACE),
    )
    for name in ("SASRec", "BERT4Rec")
]
