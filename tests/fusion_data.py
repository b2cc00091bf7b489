"""Tokens and histories for the tests of fits, with planted kinds or at random."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch

from fusion.config import FusionConfig
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


NUM_GROUPS, NUM_ITEMS, NUM_USERS = 4, 40, 200
SMALL = FusionConfig(
    dim=8, num_heads=2, max_epochs=8, batch_size=64, neighbours=3, input_dropout=0.1, learning_rate=0.02, warmup_steps=0
)


@dataclass(frozen=True)
class Planted:
    """What a fit is given."""

    table: TokenTable
    histories: Histories
    held_out_UI: sp.csr_array

    @property
    def train_UI(self) -> sp.csr_array:
        histories = self.histories
        return to_matrix(list(zip(histories.users_N, histories.items_N, strict=True)), self.held_out_UI.shape)


def planted_kinds(*, ordered: bool) -> Planted:
    """Items of four kinds that show in their content; each user takes items of one kind; items 0 to 3 are cold."""
    rng = np.random.default_rng(0)
    kind_I = np.arange(NUM_ITEMS) % NUM_GROUPS
    tokens, masks, times = {}, {}, {}
    for modality, width in (("visual", 6), ("audio", 5)):
        centres = rng.normal(size=(NUM_GROUPS, width)) * 3
        noisy = centres[kind_I][:, None] + rng.normal(size=(NUM_ITEMS, 2, width))
        tokens[modality] = torch.tensor(noisy, dtype=torch.float32)
        masks[modality] = torch.ones(NUM_ITEMS, 2, dtype=torch.bool)
        times[modality] = torch.zeros(NUM_ITEMS, 2)
    masks["audio"][::7] = False
    users, items, held = [], [], []
    for user in range(NUM_USERS):
        own = rng.permutation(np.flatnonzero(kind_I == user % NUM_GROUPS))
        warm = own[own >= NUM_GROUPS]
        users += [user] * 3
        items += list(warm[:3])
        held.append((user, own[own < NUM_GROUPS][0] if user % 5 == 0 else warm[3]))
    days_N = rng.exponential(2.0, len(users)).cumsum() if ordered else None
    histories = Histories.of(np.array(users), np.array(items), NUM_USERS, days_N=days_N, ordered=ordered)
    return Planted(TokenTable(tokens, masks, times), histories, to_matrix(held, (NUM_USERS, NUM_ITEMS)))


def planted_order(*, ordered: bool) -> Planted:
    """Users half of whose steps lead from an item to the one that always follows it, as the held-out step does.

    Contents tell nothing, and who forgets the order cannot tell which item was the last.
    """
    rng = np.random.default_rng(0)
    after_I = np.roll(np.arange(NUM_ITEMS), -1)
    lists: list[list[int]] = []
    held = []
    while len(lists) < NUM_USERS:
        walk = [int(rng.integers(NUM_ITEMS))]
        for place in range(8):
            following = int(after_I[walk[-1]])
            new = rng.choice(np.setdiff1d(np.arange(NUM_ITEMS), walk))
            walk.append(following if place == 7 or (following not in walk and rng.random() < 0.5) else int(new))
        if walk[8] not in walk[:8]:
            held.append((len(lists), walk[8]))
            lists.append(walk[:8])
    noise = torch.from_numpy(rng.normal(size=(NUM_ITEMS, 1, 6)).astype(np.float32))
    there = torch.ones(NUM_ITEMS, 1, dtype=torch.bool)
    table = TokenTable({"visual": noise}, {"visual": there}, {"visual": torch.zeros(NUM_ITEMS, 1)})
    return Planted(table, histories_of(lists, ordered=ordered), to_matrix(held, (NUM_USERS, NUM_ITEMS)))


def to_matrix(pairs: Sequence[tuple[int, int]], shape: tuple[int, int]) -> sp.csr_array:
    rows, columns = np.array(pairs).T
    return sp.csr_array((np.ones(len(pairs), np.float32), (rows, columns)), shape=shape)
