"""Adapting the encoders of a preset to a catalog: from its media, through the encoders and a fusion, and back.

Training is contrastive: the modalities of an item are positives of each other, those of other items negatives; with
interactions, items of one user's history are positives as well. The fusion serves the training alone: what remains is a
preset with the encoders as they became, for `embed` and `fit` to go on with.

However large a batch, a step needs the memory of a few parts: the gradient of the loss by the tokens is kept, and the
parts are encoded once more to carry it on to the weights (gradient caching, Gao et al. 2021).
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from torch import Tensor, nn

from encoders.base import EncoderError as LoadError
from encoders.tuning import Tunable, add_adapter, save_adapter
from fusion.attention import CrossModalFusion
from fusion.objectives import full_softmax, modality_alignment
from fusion.token_table import TokenTable
from mmrec.adapting.report import AdaptReport
from mmrec.adapting.training_data import Batch, CatalogMedia, Parts, TrainingBatches, decode_catalog
from mmrec.catalog import read_catalog
from mmrec.embedding import DecodeLimits, PresetEncoders, load_preset, load_preset_encoders
from mmrec.errors import EncoderError, MMRecError
from mmrec.evaluation import Interactions, read_catalog_interactions
from mmrec.store import Modality

Train = Literal["adapters", "all"]

LEARNING_RATES: dict[Train, float] = {"adapters": 5e-4, "all": 2e-5}
FUSION_LEARNING_RATE = 2e-3
FUSION_EPOCHS = 50  # of the fusion alone, before the encoders join in
WEIGHT_DECAY = 0.01
GRADIENT_CLIP = 1.0
TEMPERATURE = 0.07
TOKENS_PER_STEP = 4  # of each modality of an item, drawn anew in every step
PARTS_AT_ONCE: dict[Modality, int] = {"visual": 8, "audio": 4, "text": 16}


def adapt(
    catalog: str | os.PathLike[str],
    *,
    preset: str | os.PathLike[str],
    out: str | os.PathLike[str],
    interactions: Interactions | str | os.PathLike[str] | None = None,
    train: Train = "adapters",
    rank: int = 8,
    epochs: int = 10,
    batch_size: int = 32,
    learning_rate: float | None = None,
    seed: int = 0,
    device: str = "auto",
    allow_pickle: bool = False,
    media_root: str | os.PathLike[str] | None = None,
    limits: DecodeLimits | None = None,
    memory_bytes: int = 4 * 2**30,
    progress: Callable[[int, float], None] | None = None,
) -> AdaptReport:
    """Adapt the encoders of a preset to a small catalog, and write them with a preset that names them.

    `out` then holds a folder for each encoder that has weights, and `preset.yaml`. Encoders without weights, as
    `descriptors`, take part as they are. Everything is computed in float32; the same seed gives the same encoders on
    one machine.

    Args:
        interactions: of training alone: each item is compared with another one of the same user's history.
        train: "adapters" trains and writes LoRA adapters of `rank`; "all" trains all weights and writes checkpoints.
        batch_size: items that are told apart in one step; more make it harder.
        learning_rate: of the encoders; by default `LEARNING_RATES`.
        memory_bytes: what the decoded frames and windows of the catalog may take: they are kept, to be decoded once.
        progress: called after each epoch with its number and loss.

    Raises:
        EncoderError: a preset that cannot be loaded, or in which no encoder can be adapted.
        MMRecError: nothing to learn from, more media than fits, a loss that is not finite, or an `out` that is in use.

    >>> import mmrec
    >>> report = mmrec.adapt(
    ...     "catalog.csv", preset="base", out="adapted", interactions="interactions.csv"
    ... )  # doctest: +SKIP
    >>> report = mmrec.embed("catalog.csv", "adapted-store", preset=report.preset)  # doctest: +SKIP
    """
    start = time.perf_counter()
    _check_options(train, rank, epochs, batch_size, learning_rate)
    folder = _empty_folder(out)
    loaded = load_preset_encoders(load_preset(preset), device=device, precision="float32", allow_pickle=allow_pickle)
    _refuse_what_cannot_be_adapted(loaded, train)
    manifest = read_catalog(catalog, media_root=media_root)
    media = decode_catalog(manifest.items(), loaded, limits or DecodeLimits(), memory_bytes)
    interactions_UI = None if interactions is None else read_catalog_interactions(interactions, media.item_ids).matrix()
    training_batches = TrainingBatches(media, interactions_UI, batch_size, seed)
    torch.manual_seed(seed)
    try:
        trainables = _trainables(loaded, media, train, rank)
        trainer = _Trainer(loaded, media, trainables, learning_rate or LEARNING_RATES[train], seed)
        trainer.fit_fusion(training_batches)
        losses = []
        for epoch in range(1, epochs + 1):
            losses.append(trainer.run_epoch(training_batches, epoch))
            if progress is not None:
                progress(epoch, losses[-1])
    except torch.OutOfMemoryError as error:
        raise MMRecError(f"the device ran out of memory; a smaller encoder or device 'cpu' may do: {error}") from error
    return AdaptReport(
        preset=_write(folder, loaded, trainables),
        catalog_items=manifest.num_items,
        items=len(training_batches.rows),
        reasons=dict(sorted(media.reasons.items())),
        parameters={m: sum(p.numel() for p in trainable.parameters) for m, trainable in trainables.items()},
        losses=losses,
        seconds=time.perf_counter() - start,
    )


def _check_options(train: str, rank: int, epochs: int, batch_size: int, learning_rate: float | None) -> None:
    if train not in get_args(Train):
        raise MMRecError(f"train is {train!r}: expected one of {', '.join(get_args(Train))}")
    for name, value, least in (("rank", rank, 1), ("epochs", epochs, 1), ("batch_size", batch_size, 2)):
        if value < least:
            raise MMRecError(f"{name} is {value}: expected {least} or more")
    if learning_rate is not None and not 0 < learning_rate < float("inf"):
        raise MMRecError(f"the learning rate is {learning_rate}: expected above 0")


def _empty_folder(out: str | os.PathLike[str]) -> Path:
    folder = Path(out).absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise MMRecError(f"{folder} is not empty: name a new folder for the adapted encoders")
    except OSError as error:
        raise MMRecError(f"{folder} cannot be written: {error}") from error
    return folder


def _refuse_what_cannot_be_adapted(loaded: PresetEncoders, train: Train) -> None:
    tunable = [modality for modality, encoder in loaded.encoders.items() if isinstance(encoder, Tunable)]
    if not tunable:
        kinds = ", ".join(spec.kind for spec in loaded.specs.values())
        raise EncoderError(f"preset {loaded.preset.name!r} has no encoder with weights to adapt, only {kinds}")
    for modality in tunable:
        if train == "adapters" and loaded.specs[modality].options.get("adapter"):
            raise EncoderError(
                f"the {modality} encoder of preset {loaded.preset.name!r} has an adapter already and can have only "
                "one: start from a preset without it, or train all weights"
            )


@dataclass(frozen=True, slots=True)
class _TrainableEncoder:
    """An encoder in training, and its adapter if only that is trained."""

    encoder: Tunable
    adapter: Any | None

    @property
    def parameters(self) -> list[nn.Parameter]:
        return [p for p in self.encoder.network.parameters() if p.requires_grad]


def _trainables(
    loaded: PresetEncoders, media: CatalogMedia, train: Train, rank: int
) -> dict[Modality, _TrainableEncoder]:
    trainables = {}
    for modality in media.modalities:
        encoder = loaded.encoders[modality]
        if isinstance(encoder, Tunable):
            example = next(iter(media.parts[modality].values())).data[:1]
            try:
                adapter = add_adapter(encoder, _stacked(example), rank) if train == "adapters" else None
            except LoadError as error:
                raise EncoderError(str(error)) from error
            trainables[modality] = _TrainableEncoder(encoder, adapter)
    if not trainables:
        raise MMRecError("no item has content for an encoder that can be adapted")
    return trainables


def _stacked(parts: list[Any]) -> Any:
    return np.stack(parts) if isinstance(parts[0], np.ndarray) else parts


@dataclass(slots=True)
class _Chosen:
    """N parts of one modality: each with its item's place in the batch, its own place in the item, and its time."""

    parts: list[Any]
    items_N: Tensor
    places_N: Tensor
    times_N: Tensor

    def chunks(self, size: int) -> Iterator[tuple[Tensor, Any]]:
        """Parts that may be encoded together, of one shape or of like length, and their rows in N."""
        shapes = [part.shape if isinstance(part, np.ndarray) else () for part in self.parts]
        order = sorted(range(len(shapes)), key=lambda row: (shapes[row], len(self.parts[row])))
        for shape in sorted(set(shapes)):
            rows = [row for row in order if shapes[row] == shape]
            for at in range(0, len(rows), size):
                chunk = rows[at : at + size]
                yield torch.tensor(chunk), _stacked([self.parts[row] for row in chunk])


class _Trainer:
    """Encoders and a fusion in training."""

    def __init__(
        self,
        loaded: PresetEncoders,
        media: CatalogMedia,
        trainables: Mapping[Modality, _TrainableEncoder],
        learning_rate: float,
        seed: int,
    ) -> None:
        self._loaded, self._media, self._trainables = loaded, media, trainables
        self._random = np.random.default_rng(seed)
        encoder_parameters = [p for trainable in trainables.values() for p in trainable.parameters]
        self._device = encoder_parameters[0].device
        self._fusion = CrossModalFusion({m: loaded.encoders[m].dim for m in media.modalities}).to(self._device)
        self._frozen = {m: self._vectors_of(m) for m in media.modalities if m not in trainables}
        groups = [
            {"params": encoder_parameters, "lr": learning_rate},
            {"params": list(self._fusion.parameters()), "lr": FUSION_LEARNING_RATE},
        ]
        self._parameters = [*encoder_parameters, *self._fusion.parameters()]
        self._optimizer = torch.optim.AdamW(groups, weight_decay=WEIGHT_DECAY)

    def _vectors_of(self, modality: Modality) -> dict[int, Parts]:
        """What an encoder that is not trained makes of all items."""
        encoder = self._loaded.encoders[modality]
        return {
            row: Parts(list(encoder.encode(_stacked(own.data))), own.times_T)
            for row, own in self._media.parts[modality].items()
        }

    def fit_fusion(self, training_batches: TrainingBatches) -> None:
        """Fit the fusion to the encoders as they are, so that its first guesses do not lead them astray."""
        rows = np.arange(len(self._media.item_ids))
        chosen = self._choose(rows)
        table = _padded({m: self._encode(m, own) for m, own in chosen.items()}, chosen, len(rows))
        self._fusion.calibrate(table.tokens, table.masks)
        optimizer = torch.optim.AdamW(self._fusion.parameters(), lr=FUSION_LEARNING_RATE, weight_decay=WEIGHT_DECAY)
        for _ in range(FUSION_EPOCHS):
            for batch in training_batches.batches():
                optimizer.zero_grad()
                torch.autograd.backward(self._loss(table.select(torch.from_numpy(batch.rows)), batch))
                optimizer.step()

    def run_epoch(self, training_batches: TrainingBatches, epoch: int) -> float:
        """One step for each batch; the mean loss."""
        return float(np.mean([self._step(batch, epoch) for batch in training_batches.batches()]))

    def _step(self, batch: Batch, epoch: int) -> float:
        chosen = self._choose(batch.rows)
        vectors = {m: self._encode(m, own).requires_grad_(m in self._trainables) for m, own in chosen.items()}
        self._optimizer.zero_grad()
        loss = self._loss(_padded(vectors, chosen, len(batch.rows)), batch)
        torch.autograd.backward(loss)
        for modality, own in chosen.items():
            if (gradient_ND := vectors[modality].grad) is not None:
                self._carry_on(modality, own, gradient_ND)
        norm = nn.utils.clip_grad_norm_(self._parameters, GRADIENT_CLIP)
        if not (torch.isfinite(loss) and torch.isfinite(norm)):
            raise MMRecError(
                f"the loss became {loss.item()}, its gradient {norm.item()}, in epoch {epoch}: lower the learning rate"
            )
        self._optimizer.step()
        return loss.item()

    def _choose(self, rows: NDArray[np.int64]) -> dict[Modality, _Chosen]:
        """Some parts of each item by modality, in their order."""
        chosen = {m: self._choose_of(m, rows) for m in self._media.modalities}
        return {modality: own for modality, own in chosen.items() if own.parts}

    def _choose_of(self, modality: Modality, rows: NDArray[np.int64]) -> _Chosen:
        source = self._frozen.get(modality, self._media.parts[modality])
        data: list[Any] = []
        items: list[int] = []
        places: list[int] = []
        times: list[float] = []
        for item, row in enumerate(rows):
            if (parts := source.get(int(row))) is None:
                continue
            order = np.sort(self._random.permutation(len(parts.data))[:TOKENS_PER_STEP])
            data += [parts.data[at] for at in order]
            items += [item] * len(order)
            places += range(len(order))
            times += parts.times_T[order].tolist()
        return _Chosen(data, *(torch.tensor(values, device=self._device) for values in (items, places, times)))

    @torch.no_grad()
    def _encode(self, modality: Modality, chosen: _Chosen) -> Tensor:
        if modality in self._frozen:
            return torch.stack(chosen.parts)
        vectors_ND = torch.empty(len(chosen.parts), self._loaded.encoders[modality].dim, device=self._device)
        for rows, batch in chosen.chunks(PARTS_AT_ONCE[modality]):
            vectors_ND[rows] = self._trainables[modality].encoder.forward(batch)
        return vectors_ND

    def _carry_on(self, modality: Modality, chosen: _Chosen, gradient_ND: Tensor) -> None:
        """Encode again, and pass the gradient by the vectors on to the weights."""
        for rows, batch in chosen.chunks(PARTS_AT_ONCE[modality]):
            torch.autograd.backward(self._trainables[modality].encoder.forward(batch), gradient_ND[rows])

    def _loss(self, table: TokenTable, batch: Batch) -> Tensor:
        fused = self._fusion(table.tokens, table.masks, table.times)
        there = {modality: mask_BT.any(1) for modality, mask_BT in table.masks.items()}
        loss = modality_alignment(fused.modality_vectors, there, TEMPERATURE)
        if not len(batch.anchors_Q):
            return loss
        return loss + full_softmax(
            fused.vectors_BD[batch.positives_Q] / TEMPERATURE,
            fused.vectors_BD[batch.anchors_Q],
            torch.arange(len(batch.anchors_Q), device=self._device),
            excluded=(batch.excluded[:, 0].to(self._device), batch.excluded[:, 1].to(self._device)),
        )


def _padded(vectors: Mapping[Modality, Tensor], chosen: Mapping[Modality, _Chosen], num_items: int) -> TokenTable:
    tokens: dict[str, Tensor] = {}
    masks: dict[str, Tensor] = {}
    times: dict[str, Tensor] = {}
    for modality, vectors_ND in vectors.items():
        own = chosen[modality]
        where, shape = (own.items_N, own.places_N), (num_items, int(own.places_N.max()) + 1)
        tokens[modality] = vectors_ND.new_zeros(*shape, vectors_ND.shape[1]).index_put(where, vectors_ND)
        times[modality] = vectors_ND.new_zeros(shape).index_put(where, own.times_N.to(vectors_ND.dtype))
        masks[modality] = torch.zeros(shape, dtype=torch.bool, device=vectors_ND.device)
        masks[modality][where] = True
    return TokenTable(tokens, masks, times)


def _write(folder: Path, loaded: PresetEncoders, trainables: Mapping[Modality, _TrainableEncoder]) -> Path:
    """The adapters or checkpoints, and then the preset that names them."""
    values: dict[str, Any] = {
        "summary": f"{loaded.preset.name}, adapted",
        "frames": dataclasses.asdict(loaded.preset.frames),
        "sound": dataclasses.asdict(loaded.preset.sound),
        "text_template": loaded.preset.text_template,
    }
    path = folder / "preset.yaml"
    try:
        for modality in loaded.encoders:
            values[modality] = _write_encoder(loaded, modality, trainables.get(modality), folder / modality)
        path.write_text(yaml.safe_dump(values, sort_keys=False, allow_unicode=True), encoding="utf-8")
    except OSError as error:
        raise MMRecError(f"{folder} cannot be written: {error}") from error
    return path


def _write_encoder(
    loaded: PresetEncoders, modality: Modality, trainable: _TrainableEncoder | None, folder: Path
) -> dict[str, Any]:
    """Write what was trained of an encoder; what a preset says of it."""
    spec = loaded.specs[modality].as_dict()
    for name in {"checkpoint", "pretrained", "adapter"} & set(spec):
        spec[name] = _wherever_named(spec[name])
    if trainable is None:
        return spec
    folder.mkdir()
    if trainable.adapter is not None:
        save_adapter(trainable.adapter, folder)
        return {**spec, "adapter": str(folder)}
    trainable.encoder.save_checkpoint(folder)
    replaced = {"pretrained", "revision", "adapter", "allow_pickle"}
    return {**{name: value for name, value in spec.items() if name not in replaced}, "checkpoint": str(folder)}


def _wherever_named(name: str | None) -> str | None:
    """The name of a file or folder that is here, so that it holds in every working folder."""
    path = Path(name or "").expanduser()
    return str(path.absolute()) if name and path.exists() else name
