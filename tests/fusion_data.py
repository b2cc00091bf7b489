"""Tokens and histories for the tests of fits, with planted kinds or at random."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from fusion.histories import ChunkBatch, Chunks, Histories
from fusion.token_table import RaggedPart, RaggedTokens, TokenTable


def random_table(num_items: int = 30, seed: int = 0) -> TokenTable:
    """Items of two modalities with one to three tokens; item 4 is silent, item 5 has nothing."""
    generator = torch.Generator().manual_seed(seed)
    tokens = {
        "visual": torch.randn(num_items, 3, 8, generator=generator),
        "audio": torch.randn(num_items, 2, 5, generator=generator),
    }
    masks = {m: torch.ones(x.shape[:2], dtype=torch.bool) for m, x in tokens.items()}
    masks["visual"][:, 2] = False
    masks["visual"][::3, 1:] = False
    masks["audio"][4:5] = False
    masks["visual"][5:6], masks["audio"][5:6] = False, False
    times = {m: torch.rand(x.shape[:2], generator=generator) * 60 for m, x in tokens.items()}
    tokens = {m: x * masks[m].unsqueeze(-1) for m, x in tokens.items()}
    return TokenTable(tokens, masks, {m: x * masks[m] for m, x in times.items()})


def ragged(table: TokenTable, *, backwards: bool = False) -> RaggedTokens:
    """The same tokens without padding; `backwards`: written from the last item to the first."""
    order = np.arange(len(table))[:: -1 if backwards else 1]
    parts = {}
    for modality, tokens_ITW in table.tokens.items():
        counts = table.masks[modality].sum(1).numpy()[order].astype(np.int64)
        starts = np.cumsum(counts) - counts
        mask_IT = table.masks[modality].numpy()[order]
        back = np.argsort(order)
        parts[modality] = RaggedPart(
            tokens_ITW.shape[2],
            starts[back],
            counts[back],
            table.times[modality].numpy()[order][mask_IT],
            tokens_ITW.numpy()[order][mask_IT],
        )
    return RaggedTokens(parts)


def histories_of(lists: Sequence[Sequence[int]], *, ordered: bool, gaps: bool = False) -> Histories:
    """Histories of these items, in this order; `gaps`: a day more between every two."""
    users_N = np.repeat(np.arange(len(lists)), [len(items) for items in lists])
    days_N = np.concatenate([np.cumsum(np.arange(len(items))) for items in lists]).astype(float) if gaps else None
    items_N = np.concatenate([np.asarray(items, np.int64) for items in lists])
    return Histories.of(users_N, items_N, len(lists), days_N=days_N, ordered=ordered)


def random_histories(lengths: Sequence[int], *, ordered: bool, seed: int = 0, weighted: bool = False) -> Histories:
    """Users with so many items each, no item twice, in random order and with random gaps where order counts."""
    rng = np.random.default_rng(seed)
    total = sum(lengths)
    return Histories.of(
        np.repeat(np.arange(len(lengths)), lengths),
        rng.permutation(total),
        len(lengths),
        weights_N=rng.choice([-1.0, 0.0, 1.0, 1.0, 1.0], total).astype(np.float32) if weighted else None,
        days_N=rng.exponential(3.0, total).cumsum() if ordered else None,
        ordered=ordered,
    )


def all_pieces(chunks: Chunks) -> ChunkBatch:
    """All pieces as one batch."""
    return chunks[np.arange(len(chunks))]
