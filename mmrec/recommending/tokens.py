"""From the store to tensors: the tokens of all items, padded to one length per modality, in the order of their ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from fusion.token_table import TokenTable
from mmrec.errors import StoreError
from mmrec.store import MODALITIES, Features, FeatureStore, Modality


def read_tokens(
    store: FeatureStore, item_ids: Sequence[str] | None = None, widths: Mapping[str, int] | None = None
) -> tuple[list[str], TokenTable]:
    """The ids, ascending, and the tokens of all items of a store, or of the named ones.

    Items that failed stand in the table without any token. `widths` names the modalities to read; without it, those
    that the store has.

    Raises `StoreError` where a named item is not in the store, where tokens of several encoders lie mixed, and where
    there is no token at all to tell the modalities by.
    """
    wanted = None if item_ids is None else set(item_ids)
    found = list(store.features(wanted))
    if wanted is not None and len(found) < len(wanted):
        missing = sorted(wanted - {f.item.item_id for f in found})
        raise StoreError(f"store {store.folder} has no item {missing[0]!r}" + _and_more(len(missing) - 1))
    found.sort(key=lambda features: features.item.item_id)
    return [f.item.item_id for f in found], to_table(found, widths or store_widths(store))


def _and_more(count: int) -> str:
    return f", nor {count} others" if count else ""


def store_widths(store: FeatureStore) -> dict[str, int]:
    """The width of the tokens of each modality that a store has."""
    dims = {record.fingerprint: record.dim for record in store.encoders()}
    widths: dict[str, int] = {modality: dims[name] for modality, name in store.fingerprints().items()}
    if not widths:
        raise StoreError(f"store {store.folder} holds no tokens: there is nothing to fit")
    return widths


def to_table(items: Sequence[Features], widths: Mapping[str, int]) -> TokenTable:
    """Pad the tokens of items; the time of a token is the middle of its span, in seconds."""
    tokens: dict[str, torch.Tensor] = {}
    masks: dict[str, torch.Tensor] = {}
    times: dict[str, torch.Tensor] = {}
    for modality in MODALITIES:
        if modality in widths:
            tokens[modality], masks[modality], times[modality] = _padded(items, modality, widths[modality])
    return TokenTable(tokens, masks, times)


def _padded(
    items: Sequence[Features], modality: Modality, width: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    length = max((len(f.tokens[modality].vectors_TD) for f in items if modality in f.tokens), default=1)
    tokens_ITD = np.zeros((len(items), length, width), np.float32)
    mask_IT: NDArray[np.bool_] = np.zeros((len(items), length), np.bool_)
    times_IT = np.zeros((len(items), length), np.float32)
    for row, features in enumerate(items):
        if modality in features.tokens:
            part = features.tokens[modality]
            count = len(part.vectors_TD)
            tokens_ITD[row, :count], mask_IT[row, :count] = part.vectors_TD, True
            times_IT[row, :count] = part.spans_T2.mean(axis=1)
    return torch.from_numpy(tokens_ITD), torch.from_numpy(mask_IT), torch.from_numpy(times_IT)
