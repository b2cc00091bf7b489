"""Features that were made elsewhere: NumPy files beside a manifest, written to a feature store as they are."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mmrec.catalog import Item, read_catalog
from mmrec.errors import CatalogError, Problem, Reason, StoreError
from mmrec.store.feature_store import EncoderRecord, FeatureStore
from mmrec.store.features import Features, Modality, Tokens

ROWS_PER_COMMIT = 4096


def import_features(
    items: str | os.PathLike[str],
    store: str | os.PathLike[str],
    features: Mapping[Modality, str | os.PathLike[str]],
    *,
    origin: str | None = None,
) -> int:
    """Write one row per item of the manifest `items`; row k of each `.npy` file belongs to its row k.

    A file holds `(I, D)`, one token per item, or `(I, T, D)`, T tokens; a token that is not finite is left out.
    Items that the store holds already are replaced. `origin` names what made the vectors: imports of the same origin
    and width can be compared, so that new items can join; without it, each file is an origin of its own. Returns the
    number of items.

    Raises `CatalogError` where a file cannot be read, is not of numbers, or has another number of rows, and
    `StoreError` where other items of the store have tokens from another file or encoder, which cannot be compared.

    >>> import numpy as np
    >>> import mmrec
    >>> np.save("pictures.npy", np.random.default_rng(0).normal(size=(16, 32)))
    >>> mmrec.import_features("catalog.csv", "imported", {"visual": "pictures.npy"})
    16
    >>> mmrec.FeatureStore("imported")
    FeatureStore('imported', 16 items, visual 32)
    """
    manifest = read_catalog(items)
    if not features:
        raise CatalogError("there is nothing to import: name a .npy file for visual, audio or text")
    arrays = {modality: _open_array(Path(path), manifest.num_items) for modality, path in features.items()}
    records = {
        modality: EncoderRecord(
            fingerprint=_fingerprint(Path(features[modality]), modality, origin, array.shape[-1]),
            modality=modality,
            name=f"imported {origin or Path(features[modality]).name}",
            dim=array.shape[-1],
            spec={"kind": "imported"},
        )
        for modality, array in arrays.items()
    }
    target = FeatureStore(store, create=True)
    with target.lock():
        keys = target.keys()
        if len(target) > sum(keys.holds(item.item_id) for item in manifest.items()):
            _check_comparable(target, records)
        target.add_encoders(records.values())
        rows = enumerate(manifest.items())
        while batch := list(islice(rows, ROWS_PER_COMMIT)):
            made = [_features(row, item, arrays, records) for row, item in batch]
            known = [f for f in made if keys.holds(f.item.item_id)]
            target.write([f for f in made if not keys.holds(f.item.item_id)], known)
        target.compact()
    return manifest.num_items


def _open_array(path: Path, num_items: int) -> NDArray[np.floating]:
    try:
        array: NDArray[np.floating] = np.lib.format.open_memmap(path, mode="r")  # reads .npy files alone, no pickles
    except (OSError, ValueError) as error:
        raise CatalogError(f"{path} cannot be read as a NumPy file: {error}") from None
    is_real = np.issubdtype(array.dtype, np.integer) or np.issubdtype(array.dtype, np.floating)
    if array.ndim not in (2, 3) or not is_real or 0 in array.shape[1:]:
        raise CatalogError(f"{path} holds {array.dtype} {array.shape}, not real numbers (items, D) or (items, T, D)")
    if len(array) != num_items:
        raise CatalogError(f"{path} has {len(array)} rows, the manifest {num_items}: row k must belong to item k")
    return array


def _check_comparable(store: FeatureStore, records: Mapping[Modality, EncoderRecord]) -> None:
    for modality, fingerprint in store.fingerprints().items():
        if modality in records and records[modality].fingerprint != fingerprint:
            raise StoreError(
                f"store {store.folder} holds other items, with {modality} tokens of another origin, which cannot be "
                "compared: import all items at once, name the same origin, or take a new store"
            )


def _fingerprint(path: Path, modality: Modality, origin: str | None, width: int) -> str:
    if origin is not None:
        return hashlib.blake2b(repr((modality, origin, width)).encode(), digest_size=12).hexdigest()
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(modality.encode(), digest_size=12)).hexdigest()


def _features(
    row: int, item: Item, arrays: Mapping[Modality, NDArray[np.floating]], records: Mapping[Modality, EncoderRecord]
) -> Features:
    features = Features(item)
    for modality, array in arrays.items():
        with np.errstate(over="ignore"):  # what float32 cannot hold is not finite
            vectors_TD = np.atleast_2d(np.asarray(array[row], np.float32))
        vectors_TD = vectors_TD[np.isfinite(vectors_TD).all(axis=1)]
        if len(vectors_TD):
            features.tokens[modality] = Tokens(vectors_TD, np.zeros((len(vectors_TD), 2)))
            features.fingerprints[modality] = records[modality].fingerprint
        else:
            features.problems[modality] = Problem(Reason.NOT_FINITE, "the imported row is not finite")
    for modality, tokens in features.tokens.items():
        content = hashlib.blake2b(features.fingerprints[modality].encode(), digest_size=8)
        content.update(np.ascontiguousarray(tokens.vectors_TD).tobytes())
        features.keys[modality] = content.hexdigest()
    return features
