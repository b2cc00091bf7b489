"""The data sets of the comparison of recommenders: each a store with features, and interactions in parts.

Users that training does not know, and what a user did in training already, are taken out of the held-out parts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

import mmrec
from mmrec.evaluation import (
    Interactions,
    align,
    make_interactions,
    read_catalog_interactions,
    read_interactions,
    write_interactions,
)
from mmrec.recommending.tokens import read_tokens
from mmrec.sample import make_sample_catalog

SHORTVIDEO_WIDTH = 128
SHORTVIDEO_DAYS = ("2022-05-05", "2022-05-07")  # the first of validation, the first of test
ITEMS_AT_ONCE = 1024


@dataclass(frozen=True)
class DataSet:
    """`train` and the parts of `held_out` index the same users and items, those of `item_ids`, in the store's order."""

    name: str
    store: Path
    folder: Path
    train: Interactions
    held_out: Mapping[str, Interactions]
    content: Mapping[str, NDArray[np.float32]]
    rank_users: NDArray[np.int64]
    digest: str

    @property
    def ordered(self) -> bool:
        return self.train.timestamps is not None

    def relevant(self, part: str) -> Any:
        """What is relevant for the users of `rank_users` `(R, I)`; users may have nothing."""
        return self.held_out[part].matrix()[self.rank_users]

    @property
    def trained_I(self) -> NDArray[np.bool_]:
        return np.bincount(self.train.item_rows, minlength=len(self.train.item_ids)) > 0

    def describe(self) -> dict[str, Any]:
        train = self.train
        return {
            "users": len(train.user_ids),
            "items": len(train.item_ids),
            "items in training": int(self.trained_I.sum()),
            "interactions": len(train),
            "ordered": self.ordered,
            "modalities": {name: values.shape[1] for name, values in self.content.items()},
            **{
                f"{part}: {what}": count
                for part, held in self.held_out.items()
                for what, count in (("interactions", len(held)), ("users", len(np.unique(held.user_rows))))
            },
        }


def load_data_set(name: str, data: Path | None, cache: Path, stores: Mapping[str, Path]) -> DataSet:
    """One of `DATA_SETS`; what has to be made goes into `cache`, and is found there again.

    Raises `FileNotFoundError` where the files of a data set are not there.
    """
    if name != "sample" and data is None:
        raise FileNotFoundError(f"{name} needs a folder of data: --data")
    store, train, held_out = DATA_SETS[name](data or Path(), cache, stores)
    item_ids, tokens = read_tokens(mmrec.FeatureStore(store))
    train = read_catalog_interactions(train, item_ids)
    held_out = {part: _known(read_catalog_interactions(held, item_ids), train) for part, held in held_out.items()}
    content = {modality: pooled(part) for modality, part in tokens.parts.items()}
    rank_users = np.unique(np.concatenate([held.user_rows for held in held_out.values()]))
    folder = cache / f"{name}.problem"
    folder.mkdir(parents=True, exist_ok=True)
    write_interactions(train, folder / "train.parquet")
    write_interactions(held_out["validation"], folder / "validation.parquet")
    order_N = np.argsort(train.order())
    np.savez(
        folder / "problem.npz",
        users_N=train.user_rows[order_N],
        items_N=train.item_rows[order_N],
        num_users=len(train.user_ids),
        num_items=len(item_ids),
        ordered=train.timestamps is not None,
        rank_users=rank_users,
        rank_user_ids=np.array([train.user_ids[row] for row in rank_users]),
        item_ids=np.array(item_ids),
        **{f"content_{modality}": values_ID for modality, values_ID in content.items()},
    )
    digest = hashlib.blake2b(digest_size=8)
    held_arrays = [array for held in held_out.values() for array in (held.user_rows, held.item_rows)]
    for array in (train.user_rows[order_N], train.item_rows[order_N], *held_arrays, *content.values()):
        digest.update(np.ascontiguousarray(array).data)
    return DataSet(name, store, folder, train, held_out, content, rank_users, digest.hexdigest())


def pooled(part: Any) -> NDArray[np.float32]:
    """The mean token of each item `(I, D)`, zero for items without."""
    means = []
    for start in range(0, len(part.counts_I), ITEMS_AT_ONCE):
        tokens_BTW, mask_BT, _ = part.read(np.arange(start, min(start + ITEMS_AT_ONCE, len(part.counts_I))))
        means.append((tokens_BTW.sum(1) / mask_BT.sum(1, keepdim=True).clamp(min=1)).numpy())
    return np.concatenate(means).astype(np.float32)


def _known(held: Interactions, train: Interactions) -> Interactions:
    """The interactions that count, of users that training knows, with what they did not have there."""
    held = align(held, user_ids=train.user_ids, item_ids=train.item_ids)
    num_items = len(train.item_ids)
    known_N = np.isin(held.user_rows, train.user_rows) & (held.weights > 0)
    again_N = np.isin(held.user_rows * num_items + held.item_rows, train.user_rows * num_items + train.item_rows)
    chosen = held.select(known_N & ~again_N)
    return replace(chosen, user_ids=train.user_ids)


# --- the data sets ----------------------------------------------------------------------------------------------------

Parts = tuple[Path, Interactions, dict[str, Interactions]]


def _movies(split: str, data: Path, cache: Path, stores: Mapping[str, Path]) -> Parts:
    """Posters and plots by the preset `light`, all ratings as interactions."""
    folder, store = _existing(data / "movies"), stores.get("movies", cache / "movies.store")
    if "movies" not in stores:
        mmrec.embed(folder / "items.csv", store, preset="light", device="cpu")
    parts = {p: read_interactions(folder / split / f"{p}.parquet") for p in ("train", "validation", "test")}
    return store, parts.pop("train"), parts


def _tiktok(data: Path, cache: Path, stores: Mapping[str, Path]) -> Parts:
    """Visual and acoustic features as given; the order of the rows is ignored."""
    folder, store = _existing(data / "tiktok"), stores.get("tiktok", cache / "tiktok.store")
    features = {"visual": folder / "image_feat.npy", "audio": folder / "audio_feat.npy"}
    _import(folder / "items.parquet", store, features)
    train = read_interactions(folder / "train.parquet")
    shuffled = train.select(np.random.default_rng(0).permutation(len(train)))  # no method can use the order of rows
    return store, shuffled, {"validation": read_interactions(folder / "validation.parquet")}


def _shortvideo(data: Path, cache: Path, stores: Mapping[str, Path]) -> Parts:
    """Impressions with a long view, by day. Features are what the videos are tagged with, their author, music and kind,
    hashed to 2,048 ones and zeros, less frequent ones weighing more, and projected to 128 numbers by a truncated SVD;
    they are imported as `text`."""
    folder, store = _existing(data / "shortvideo"), stores.get("shortvideo", cache / "shortvideo.store")
    videos = pq.read_table(folder / "videos.parquet").to_pylist()
    words = [
        [f"tag {tag}" for tag in (video["tag"] or "").split(",") if tag]
        + [f"{name} {video[name]}" for name in ("author_id", "music_id", "music_type", "upload_type", "video_type")]
        for video in videos
    ]
    cache.mkdir(parents=True, exist_ok=True)
    features_path, items_path = cache / "shortvideo.npy", cache / "shortvideo_items.parquet"
    np.save(features_path, _project(words))
    pq.write_table(pq.read_table(folder / "videos.parquet", columns=["item_id"]), items_path)
    _import(items_path, store, {"text": features_path})
    table = pq.read_table(folder / "impressions.parquet")
    table = table.filter(np.asarray(table["long_view"]) == 1)
    days_N = np.asarray(table["timestamp"]).astype("datetime64[s]").astype("datetime64[D]")
    first, second = (np.datetime64(day) for day in SHORTVIDEO_DAYS)
    validation_N = (days_N >= first) & (days_N < second)
    parts = [_interactions(table.filter(chosen)) for chosen in (days_N < first, validation_N, days_N >= second)]
    return store, parts[0], {"validation": parts[1], "test": parts[2]}


def _project(words: list[list[str]]) -> NDArray[np.float32]:
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction import FeatureHasher
    from sklearn.feature_extraction.text import TfidfTransformer

    hashed = FeatureHasher(2048, input_type="string", alternate_sign=False).transform(words)
    weighted = TfidfTransformer().fit_transform(hashed)
    projected: NDArray[np.float32] = TruncatedSVD(SHORTVIDEO_WIDTH, random_state=0).fit_transform(weighted)
    return projected.astype(np.float32)


def _interactions(table: Any) -> Interactions:
    users, items = (table[name].to_pylist() for name in ("user_id", "item_id"))
    return make_interactions(users, items, timestamps=np.asarray(table["timestamp"], np.float64))


def _sample(data: Path, cache: Path, stores: Mapping[str, Path]) -> Parts:
    """The catalog that `mmrec demo` makes, by the preset `light`."""
    store = stores.get("sample", cache / "sample.store")
    catalog = make_sample_catalog(cache / "sample")
    mmrec.embed(catalog, store, preset="light", device="cpu")
    train = read_interactions(catalog.with_name("interactions.csv"))
    return store, train, {"validation": read_interactions(catalog.with_name("interactions_validation.csv"))}


DATA_SETS: dict[str, Callable[[Path, Path, Mapping[str, Path]], Parts]] = {
    "movies-time": lambda *arguments: _movies("time", *arguments),
    "movies-cold": lambda *arguments: _movies("cold", *arguments),
    "tiktok": _tiktok,
    "shortvideo": _shortvideo,
    "sample": _sample,
}


def _existing(folder: Path) -> Path:
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}")
    return folder


def _import(items: Path, store: Path, features: Mapping[Any, Path]) -> None:
    if not store.exists():
        mmrec.import_features(items, store, features)
