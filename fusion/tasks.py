"""What is learned in one step: the Lightning modules of the fits."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import lightning as L
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, Dataset, Sampler

from fusion.base import Fusion
from fusion.config import FusionConfig, TrainingError
from fusion.dropout import dropout
from fusion.histories import ChunkBatch, ChunkBatches, Chunks, Histories
from fusion.item_tower import Items
from fusion.linear import linear_factors
from fusion.negatives import CandidateSampler
from fusion.objectives import modality_alignment, weighted_softmax
from fusion.sharing import ALONE
from fusion.token_table import Tokens
from fusion.tower import Towers
from fusion.validation import Holdout

FACTOR_SHARES = (0.05, 0.1, 0.2, 0.4, 0.8)
LEAST_GAIN = 1.005  # of the validation score, for vectors that are twice as wide
COLD_QUANTILES = (0.0, 0.25, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 1.0)
ALIGNMENT_ITEMS = 1024


class Task(L.LightningModule, ABC):
    """What both fits share: the catalog, the optimisers, the schedule, and the check of the loss."""

    def __init__(self, tokens: Tokens, config: FusionConfig) -> None:
        super().__init__()
        self.tokens, self.config = tokens, config
        self.automatic_optimization = False
        self.holdout: Holdout | None = None
        self.share = ALONE

    @abstractmethod
    def batches(self) -> DataLoader[Any]:
        """The batches of an epoch; to make them changes nothing of what is drawn at random afterwards."""

    @property
    @abstractmethod
    def num_examples(self) -> int:
        """How many targets, or items, an epoch learns from."""

    def arrays(self) -> Iterator[NDArray[Any]]:
        """All that a fit learns from and is validated by."""
        yield from self.tokens.arrays()

    @abstractmethod
    def loss(self, batch: Any) -> Tensor:
        """The mean loss of a batch, a scalar."""

    @abstractmethod
    def weight(self, batch: Any) -> Tensor:
        """How much a batch counts beside those of other processes, a scalar."""

    def configure_optimizers(self) -> Any:
        sparse = {id(p) for p in self._sparse_parameters()}
        dense = [p for p in self.parameters() if p.requires_grad and id(p) not in sparse]
        groups = [  # biases, gains and rates do not decay
            {"params": [p for p in dense if self._decays(p)], "weight_decay": self.config.weight_decay},
            {"params": [p for p in dense if not self._decays(p)], "weight_decay": 0.0},
        ]
        optimizers: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, lr=self.config.learning_rate)]
        if sparse:
            optimizers.append(torch.optim.SparseAdam(self._sparse_parameters(), lr=self.config.learning_rate))
        return optimizers, [LambdaLR(optimizer, self._rate) for optimizer in optimizers]

    @staticmethod
    def _decays(parameter: Tensor) -> bool:
        return parameter.ndim > 1 and parameter.shape[1] > 1

    def _sparse_parameters(self) -> list[Tensor]:
        """Parameters of which a step touches some rows."""
        return []

    def _rate(self, step: int) -> float:
        """A rise over the first steps; averaged weights take the place of a fall at the end."""
        return min(1.0, (step + 1) / (self.config.warmup_steps + 1))

    def on_train_epoch_start(self) -> None:
        """Chance starts anew in every epoch, so that a fit that goes on ends as one that was not stopped."""
        torch.manual_seed(1_000_003 * self.config.seed + self.current_epoch + (self.share.rank << 40))

    def training_step(self, batch: Any, batch_index: int) -> None:
        loss, mean = self.share.of_loss(self.loss(batch), self.weight(batch))
        if not torch.isfinite(mean):
            raise TrainingError(
                f"the loss became {mean.item()} in step {self.global_step}: check the tokens for values that are not "
                "finite, or lower the learning rate"
            )
        self.log("train_loss", mean, on_step=False, on_epoch=True, batch_size=1)
        optimizers = self.optimizers(use_pl_optimizer=True)
        optimizers = optimizers if isinstance(optimizers, list) else [optimizers]
        for optimizer in optimizers:
            optimizer.zero_grad()
        self.manual_backward(loss)
        if self.config.gradient_clip:
            sparse = {id(p) for p in self._sparse_parameters()}
            dense = [p for p in self.parameters() if id(p) not in sparse]
            torch.nn.utils.clip_grad_norm_(dense, self.config.gradient_clip)
        for optimizer in optimizers:
            optimizer.step()
        schedulers = self.lr_schedulers()
        for scheduler in schedulers if isinstance(schedulers, list) else [schedulers]:
            scheduler.step()  # type: ignore[union-attr]


class RankingTask(Task):
    """Predicts the items of histories from what stands beside them there.

    Steps learn from `learned`: the `tokens`, of which some may be standardised already.
    """

    def __init__(
        self,
        towers: Towers,
        tokens: Tokens,
        learned: Tokens,
        histories: Histories,
        config: FusionConfig,
        holdout: Holdout | None,
        num_processes: int = 1,
    ) -> None:
        super().__init__(tokens, config)
        assert towers.items is not None
        self.towers, self.items, self.holdout = towers, towers.items, holdout
        self.learned = learned
        self.histories = histories
        self.chunks = Chunks(histories, size=config.chunk, user_weight=config.user_weight, seed=config.seed)
        self.sampler: CandidateSampler | None = None
        if uses_full_softmax(tokens, config):
            self.rows = torch.arange(len(tokens))
            self.table = learned.select(self.rows)
            self.candidates = self.items.trained_I.nonzero().flatten()
        else:
            counts_I = torch.from_numpy(target_counts(histories, len(tokens), 1.0))
            targets = max(1, config.batch_size // num_processes)
            self.sampler = CandidateSampler(counts_I, targets, config.num_uniform, config.num_popular)

    def batches(self) -> DataLoader[Any]:
        sampler = ChunkBatches(self.chunks, self.config.batch_size, self.config.seed, self.share)
        return DataLoader(self.chunks, batch_size=None, sampler=sampler, generator=torch.Generator())

    @property
    def num_examples(self) -> int:
        return self.chunks.num_targets

    def arrays(self) -> Iterator[NDArray[Any]]:
        yield from super().arrays()
        yield from self.histories.arrays()
        if self.holdout is not None:
            truth = self.holdout.truth
            yield from (truth.indptr, truth.indices)

    def _sparse_parameters(self) -> list[Tensor]:
        if self.sampler is None:
            return []
        return [self.items.bias.weight, *([self.items.ids.weight] if self.items.use_ids else [])]

    def on_fit_start(self) -> None:
        if self.sampler is None:
            self.rows, self.candidates = self.rows.to(self.device), self.candidates.to(self.device)
            self.table = self.table.to(self.device)
        else:
            self.sampler.to(self.device)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        return batch.to(device)

    def loss(self, batch: ChunkBatch) -> Tensor:
        targets_P = batch.items_BT[batch.targets_BT]
        log_q_C: Tensor | float = 0.0
        if self.sampler is None:
            rows, candidates_C = self.rows, self.candidates
            items = self.items(self.table, rows)
        else:
            candidates_C, log_q_C = self.sampler.draw(targets_P)
            rows = torch.unique(torch.cat([candidates_C, batch.items_BT[batch.there_BT]]))
            items = self.items(self.learned.select(rows).to(self.device), rows)
        vectors_BTD = items.vectors_ID[torch.searchsorted(rows, batch.items_BT).clamp(max=len(rows) - 1)]
        if batch.ordered and self.training:
            vectors_BTD = dropout(vectors_BTD, self.config.history_dropout)
        users_PD = self.towers.users(batch, vectors_BTD)[batch.targets_BT]
        places_C = torch.searchsorted(rows, candidates_C)
        return weighted_softmax(
            users_PD,
            items.vectors_ID[places_C],
            items.bias_I[places_C] - log_q_C,
            torch.searchsorted(candidates_C, targets_P),
            batch.importance_BT[batch.targets_BT],
            _excluded(batch, candidates_C),
        )

    def weight(self, batch: ChunkBatch) -> Tensor:
        return batch.importance_BT[batch.targets_BT].sum()

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_index: int) -> None:
        if self.sampler is not None and self.items.use_ids:
            self._decay_ids(batch)

    def _decay_ids(self, batch: ChunkBatch) -> None:
        """SparseAdam has no weight decay: the ids of the batch decay here, as AdamW's would."""
        rate = self.lr_schedulers()[1].get_last_lr()[0]  # type: ignore[index]
        rows = self.share.union(torch.unique(batch.items_BT[batch.there_BT]))
        with torch.no_grad():
            self.items.ids.weight[rows] *= 1 - rate * self.config.weight_decay

    def val_dataloader(self) -> Any:
        return [] if self.holdout is None else DataLoader(torch.zeros(1, 1), batch_size=None)  # type: ignore[arg-type]

    def validation_step(self, batch: Tensor, batch_index: int) -> dict[str, float]:
        assert self.holdout is not None
        metrics = self.holdout.metrics(self.towers.users, self.towers.embed_catalog(self.tokens))
        self.log_dict(metrics, prog_bar=True, batch_size=1)
        return metrics

    def choose_cold_bias(self) -> dict[str, float]:
        """Sets the bias of cold items to the quantile of the learned ones that serves validation best; its metrics."""
        assert self.holdout is not None
        embedded = self.towers.embed_catalog(self.tokens)
        best = self.holdout.metrics(self.towers.users, embedded)
        trained_I = self.items.trained_I
        if trained_I[self.holdout.target_items].all():
            return best
        for quantile in COLD_QUANTILES:
            bias = embedded.bias_I[trained_I].quantile(quantile)
            metrics = self.holdout.metrics(
                self.towers.users, Items(embedded.vectors_ID, torch.where(trained_I, embedded.bias_I, bias))
            )
            if metrics["val_score"] > best["val_score"]:
                best = metrics
                self.items.cold_bias.fill_(bias)
        return best

    def choose_factors(self) -> dict[str, float]:
        """Puts the factors of a linear autoencoder beside the vectors where validation gains by it; its metrics.

        Their share is how far scores by them alone vary, over how far those without them do.
        """
        assert self.holdout is not None
        embedded, users = self.towers.embed_catalog(self.tokens), self.towers.users
        best, best_IL = self.holdout.metrics(users, embedded), None
        factors_IL = torch.from_numpy(linear_factors(self.histories, len(self.tokens), self.config.dim))
        alone = Items(F.pad(factors_IL, (self.config.dim, 0)), torch.zeros_like(embedded.bias_I))
        wide_users = users.widened(factors_IL.shape[1])
        ratio = self.holdout.spread(users, embedded) / max(self.holdout.spread(wide_users, alone), 1e-9)
        least = LEAST_GAIN * best["val_score"]
        for share in FACTOR_SHARES:
            scaled_IL = factors_IL * math.sqrt(share * ratio)
            items = Items(torch.cat([embedded.vectors_ID, scaled_IL], dim=1), embedded.bias_I)
            metrics = self.holdout.metrics(wide_users, items)
            if metrics["val_score"] >= max(least, best["val_score"]):
                best, best_IL = metrics, scaled_IL
        if best_IL is not None:
            self.towers.add_factors(best_IL)
        return best


def uses_full_softmax(tokens: Tokens, config: FusionConfig) -> bool:
    """Where a step over the whole catalog is cheap: few items, and no more than 2^25 numbers in their tokens."""
    return len(tokens) <= config.full_softmax_items and tokens.num_values <= 2**25


def target_counts(histories: Histories, num_items: int, user_weight: float) -> NDArray[np.float64]:
    """How often each item stands in histories with a positive weight `(I,)`, as users count; the sum is theirs."""
    positive_N = histories.weights_N > 0
    weights_N = np.repeat(np.maximum(histories.lengths_U, 1) ** (user_weight - 1.0), histories.lengths_U) * positive_N
    weights_N *= positive_N.sum() / max(weights_N.sum(), 1e-9)
    counts_I: NDArray[np.float64] = np.bincount(histories.items_N, weights_N, minlength=num_items).astype(np.float64)
    return counts_I


def _excluded(batch: ChunkBatch, candidates_C: Tensor) -> tuple[Tensor, Tensor]:
    """(targets, places among the candidates) of what else the user of a target interacted with: no negatives of it."""
    pieces_P, places_P = batch.targets_BT.nonzero(as_tuple=True)
    allowed_PT = batch.there_BT[pieces_P]
    if batch.ordered:
        allowed_PT = allowed_PT & (torch.arange(allowed_PT.shape[1], device=allowed_PT.device) < places_P[:, None])
    targets_P1 = batch.items_BT[pieces_P, places_P].unsqueeze(1)
    items_PT = batch.items_BT[pieces_P]
    allowed_PT = allowed_PT & (items_PT != targets_P1)
    targets_N, places_N = allowed_PT.nonzero(as_tuple=True)
    items_N = items_PT[targets_N, places_N]
    found_N = torch.searchsorted(candidates_C, items_N).clamp(max=len(candidates_C) - 1)
    is_candidate_N = candidates_C[found_N] == items_N
    return targets_N[is_candidate_N], found_N[is_candidate_N]


class _Rows(Dataset[Tensor]):
    """Item rows; an index is a batch."""

    def __init__(self, rows: Tensor) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: NDArray[np.integer]) -> Tensor:
        return self.rows[torch.from_numpy(index)]


class _RowBatches(Sampler[NDArray[np.integer]]):
    """Shuffled batches of indices, another order in every epoch, the same in every run with the same seed."""

    def __init__(self, size: int, batch_size: int, seed: int) -> None:
        self.size, self.batch_size, self.seed, self.epoch = size, batch_size, seed, 0

    def __len__(self) -> int:
        return -(-self.size // self.batch_size)

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning at the start of each epoch, also after a resume."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[NDArray[np.integer]]:
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.size)
        yield from np.array_split(order, len(self))


class AlignmentTask(Task):
    """Trains the modalities of an item, and its fused vector, to agree."""

    def __init__(self, fusion: Fusion, tokens: Tokens, rows: Tensor, config: FusionConfig) -> None:
        super().__init__(tokens, config)
        self.fusion, self.rows = fusion, rows

    def batches(self) -> DataLoader[Any]:
        batch_size = min(self.config.batch_size, ALIGNMENT_ITEMS)
        sampler = _RowBatches(len(self.rows), batch_size, self.config.seed)
        return DataLoader(_Rows(self.rows), batch_size=None, sampler=sampler, generator=torch.Generator())

    @property
    def num_examples(self) -> int:
        return len(self.rows)

    def loss(self, batch: Tensor) -> Tensor:
        items = self.tokens.select(batch).to(self.device)
        fused = self.fusion(items.tokens, items.masks, items.times)
        # The fused vector stands beside the modalities: it has to agree with each, so attention and gates learn too.
        vectors = {**fused.modality_vectors, "": fused.vectors_BD}
        there = {**{m: mask_BT.any(1) for m, mask_BT in items.masks.items()}, "": items.there_I}
        return modality_alignment(vectors, there, self.config.temperature)

    def weight(self, batch: Tensor) -> Tensor:
        return torch.tensor(float(len(batch)), device=self.device)


class TwoViewsTask(AlignmentTask):
    """Trains two views of an item, with other features dropped, to agree (SimCSE, Gao et al. 2021)."""

    def loss(self, batch: Tensor) -> Tensor:
        items = self.tokens.select(batch).to(self.device)
        views = {str(k): self.fusion(items.tokens, items.masks, items.times).vectors_BD for k in range(2)}
        return modality_alignment(views, dict.fromkeys(views, items.there_I), self.config.temperature)
