"""mmrec as the comparison of recommenders fits it: its one default, or with a part of it left out."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from typing import Any

import numpy as np
from recommender_peers import K
from recommender_worker import peak_mib

from fusion.token_table import RaggedPart, RaggedTokens
from mmrec.ranking import Ranker
from mmrec.recommending.fitting import FitData, RecommenderConfig, fit_towers, read_fit_data
from mmrec.recommending.users import to_histories
from mmrec.store import FeatureStore

FULL, WITHOUT_FACTORS = "full", "without a linear autoencoder's factors"
SETTINGS: dict[str, dict[str, Any]] = {
    FULL: {},
    "content alone (no ids)": {"use_ids": False},
    "without order": {"order": "none"},
    "mean for attention": {"fusion": "mean"},
    WITHOUT_FACTORS: {},
    "ids alone (no content)": {"smoothing": 0.0},  # without content there is nobody to borrow from
    "full softmax": {"full_softmax_items": 10**9},  # which so many items are too many for
}


def _without(modality: str) -> Callable[[RaggedTokens, int], RaggedTokens]:
    return lambda tokens, seed: RaggedTokens({m: part for m, part in tokens.parts.items() if m != modality})


def _no_content(tokens: RaggedTokens, seed: int) -> RaggedTokens:
    """Every item has one and the same token, a single number: nothing but ids tells items apart."""
    starts_I = np.zeros(len(tokens), np.int64)
    part = RaggedPart(1, starts_I, starts_I + 1, np.zeros(1, np.float32), np.ones((1, 1), np.float32))
    return RaggedTokens({"text": part})


def _shuffled(tokens: RaggedTokens, seed: int) -> RaggedTokens:
    """Each item has all the tokens of another one."""
    order_I = np.random.default_rng([seed, 1]).permutation(len(tokens))
    return RaggedTokens(
        {
            m: replace(part, starts_I=part.starts_I[order_I], counts_I=part.counts_I[order_I])
            for m, part in tokens.parts.items()
        }
    )


CONTENT: dict[str, Callable[[RaggedTokens, int], RaggedTokens]] = {
    "ids alone (no content)": _no_content,
    "content of other items": _shuffled,
    **{f"without {modality}": _without(modality) for modality in ("visual", "audio", "text")},
}


def variants(modalities: list[str], ordered: bool, softmax: bool) -> list[str]:
    """What can be left out of a data set's model or changed in it; `softmax`: also by which softmax it learns."""
    names = [name for name in SETTINGS if name != FULL and (ordered or name != "without order")]
    names = [name for name in names if softmax or "softmax" not in name]
    names += [name for name in CONTENT if name not in SETTINGS and "items" in name]
    return names + [f"without {modality}" for modality in modalities if len(modalities) > 1]


def fit_ours(job: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """As `recommender_worker.fit_peer`; the seconds are those of what `Recommender.fit` does."""
    variant = job["settings"].get("variant", FULL)
    more = {name: value for name, value in job["settings"].items() if name != "variant"}
    config = RecommenderConfig.from_mapping({**SETTINGS.get(variant, {}), **more, "seed": job["seed"]})
    with np.load(job["problem"], allow_pickle=False) as stored:
        names, item_ids = stored["rank_user_ids"].tolist(), stored["item_ids"].tolist()
    import_module("fusion.training")  # Lightning takes seconds to import
    figures: dict[str, Any] = {"base_mib": peak_mib()}
    start, spent = time.monotonic(), time.process_time()
    data = read_fit_data(FeatureStore(job["store"]), job["train"], job["validation"])
    if variant in CONTENT:
        data = replace(data, tokens=CONTENT[variant](data.tokens, job["seed"]))
    towers, report = fit_towers(data, config, None)
    items = towers.embed_catalog(data.tokens)
    figures |= {
        "seconds": time.monotonic() - start,
        "processor_seconds": time.process_time() - spent,
        "peak_mib": peak_mib(),
        "done": True,
        "epochs": report.epochs,
        "best_epoch": report.best_epoch,
        "rules": report.rules,
    }
    assert data.item_ids == item_ids, "the items of the store and of the problem are not the same"
    width = config.fusion.dim if variant == WITHOUT_FACTORS else towers.width
    return _ranked(data, config, towers, items, names, width), figures


def _ranked(data: FitData, config: RecommenderConfig, towers: Any, items: Any, names: list[str], width: int) -> Any:
    """The lists, by the first `width` places of all vectors."""
    assert data.train is not None
    rows = np.array([data.train.user_index[name] for name in names])
    vectors_ID = items.vectors_ID.numpy().astype(np.float32)
    ranker = Ranker(vectors_ID[:, :width], items.bias_I.numpy().astype(np.float32))
    users_UD = towers.users.vectors(to_histories(data.train, config.fusion.order), vectors_ID)
    return ranker.top_k(users_UD[rows, :width], K, exclude_UI=data.train.matrix()[rows])[0]
