"""What speaks for each label of each item, by words alone: the likeness of its prompts, against that of other words.

Letters: S sources, I items, K labels, B labels of the background, D width.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encoders.base import EncoderError as LoadError
from encoders.languages import language_of
from mmrec.errors import TaggingError
from mmrec.searching import CLASS_PROMPT, RecordedEncoders
from mmrec.store import EncoderRecord, FeatureStore, Modality
from mmrec.tagging.label_sets import BUILT_IN, UNSAID, LabelSet, Prompts, read_labels

logger = logging.getLogger(__name__)
Floats = NDArray[np.float32]
CLASSES = "classes"
"""The source that is not a modality: the names of what pictures show, read by the text encoder."""


@dataclass(frozen=True, slots=True)
class ItemVectors:
    """A vector `(N, D)`, L2-normalised, of each item that has one; `rows_N` say which of the I items these are."""

    rows_N: NDArray[np.int64]
    vectors_ND: Floats


@dataclass(frozen=True, slots=True)
class Evidence:
    """`scores_SIK`: how much more an item is like a label than like other words, in standard deviations, by source.

    Not a number where an item lacks a source, or a source has no words for a label. A score depends on other items by
    the deviation alone, which is one number a source. `weights_SI` (0 to 1) is how sure a source is of an item.
    """

    sources: list[str]
    scores_SIK: Floats
    weights_SI: Floats

    def of(self, items: NDArray[np.int64]) -> Evidence:
        return Evidence(self.sources, self.scores_SIK[:, items], self.weights_SI[:, items])


def gather_evidence(
    store: FeatureStore, item_ids: Sequence[str], vectors: Mapping[Modality, ItemVectors], labels: LabelSet
) -> Evidence:
    """From every encoder of the store that has words; of none where none has any.

    Raises `TaggingError` for a label whose prompts are in languages that none of these encoders knows.
    """
    encoders, used = RecordedEncoders(), _used_records(store)
    compared: dict[str, tuple[EncoderRecord, ItemVectors, Floats]] = {
        modality: (used[modality], of_items, np.ones(len(of_items.rows_N), np.float32))
        for modality, of_items in vectors.items()
        if modality in used and encoders.has_words(used[modality])
    }
    if "text" in used and encoders.has_words(used["text"]):
        classes, sureness_N = _class_vectors(store, item_ids, encoders.load(used["text"]))
        if len(sureness_N):
            compared[CLASSES] = used["text"], classes, sureness_N
    scores_SIK = np.full((len(compared), len(item_ids), len(labels.labels)), np.nan, np.float32)
    weights_SI = np.zeros(scores_SIK.shape[:2], np.float32)
    prototypes: dict[str, tuple[Floats, Floats]] = {}
    for source, (record, of_items, sureness_N) in enumerate(compared.values()):
        if record.fingerprint not in prototypes:
            prototypes[record.fingerprint] = _prototypes(encoders.load(record), record.modality, labels)
        scores_SIK[source, of_items.rows_N] = contrast(of_items.vectors_ND, *prototypes[record.fingerprint])
        weights_SI[source, of_items.rows_N] = sureness_N
    if prototypes:
        is_read_K = np.any([~np.isnan(own_KD[:, 0]) for own_KD, _ in prototypes.values()], axis=0)
        used_encoders = [encoders.load(record) for record, *_ in compared.values()]
        _refuse_unread(labels, is_read_K.tolist(), used_encoders, store)
    return Evidence(list(compared), scores_SIK, weights_SI)


def contrast(vectors_ND: Floats, own_KD: Floats, background_BD: Floats) -> Floats:
    """`(N, K)`: the cosine with each label over the mean of those with the background, by their deviation.

    >>> import numpy as np
    >>> axes = np.eye(4, dtype=np.float32)
    >>> contrast(axes[:1], axes[:2], axes).round(2)
    array([[ 1.73, -0.58]], dtype=float32)
    """
    background_NB = vectors_ND @ background_BD.T
    means_N1 = background_NB.mean(axis=1, keepdims=True)
    deviation = max(float((background_NB - means_N1).std()), 1e-6)
    return np.asarray((vectors_ND @ own_KD.T - means_N1) / deviation, np.float32)


def _used_records(store: FeatureStore) -> dict[Modality, EncoderRecord]:
    """The encoder of each modality: that of the tokens, or the latest where no item has any."""
    records = store.encoders()
    latest = {record.modality: record for record in records}
    known = {record.fingerprint: record for record in records}
    return latest | {m: known[name] for m, name in store.fingerprints().items() if name in known}


def _class_vectors(store: FeatureStore, item_ids: Sequence[str], encoder: Any) -> tuple[ItemVectors, Floats]:
    """What pictures show, as the mean of the names of their classes, weighted by their probabilities; and the sum of
    these, which is little where the network is not sure."""
    rows = {item_id: row for row, item_id in enumerate(item_ids)}
    shown: dict[int, dict[str, float]] = {}
    for batch in store.scan(["item_id", "visual_classes", "visual_class_scores"]):
        for item_id, names, scores in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            if names:
                shown[rows[item_id]] = dict(zip(names, scores, strict=True))
    names = sorted({name for classes in shown.values() for name in classes})
    if not names:
        return ItemVectors(np.zeros(0, np.int64), np.zeros((0, encoder.dim), np.float32)), np.zeros(0, np.float32)
    places = {name: place for place, name in enumerate(names)}
    units_CD = _encode(encoder, [CLASS_PROMPT.format(name) for name in names])
    sums = [np.array([*classes.values()]) @ units_CD[[places[name] for name in classes]] for classes in shown.values()]
    sureness_N = np.array([sum(classes.values()) for classes in shown.values()], np.float32)
    return ItemVectors(np.array([*shown], np.int64), _units(np.stack(sums))), sureness_N.clip(0, 1)


def _prototypes(encoder: Any, modality: Modality, labels: LabelSet) -> tuple[Floats, Floats]:
    """The vectors of the labels `(K, D)`, not a number where none of a label's prompts can be read; and those of all
    built-in labels, the background."""
    _warn_of_languages(encoder, modality, labels)
    built_in = [prompts for name in BUILT_IN for prompts in read_labels(name).prompts.values()]
    wanted = [_readable(prompts, encoder, modality) for prompts in (*labels.prompts.values(), *built_in)]
    texts = list(dict.fromkeys(chain(*wanted)))
    units = dict(zip(texts, _encode(encoder, texts), strict=True))
    nothing_D = np.full(encoder.dim, np.nan, np.float32)
    means = [np.mean([units[text] for text in own], axis=0) if own else nothing_D for own in wanted]
    prototypes_D = _units(np.stack(means))
    own_KD, background_BD = np.split(prototypes_D, [len(labels.labels)])
    return own_KD, background_BD[~np.isnan(background_BD[:, 0])]


def _readable(prompts: Prompts, encoder: Any, modality: Modality) -> list[str]:
    """The prompts in languages that an encoder knows: English alone where one of pictures or sound does not say."""
    known = getattr(encoder, "languages", None)
    if known is None and modality != "text" and "en" in prompts:
        known = frozenset({"en"})
    readable = (texts for language, texts in prompts.items() if known is None or language in {UNSAID, *known})
    return list(chain(*readable))


def _refuse_unread(labels: LabelSet, is_read_K: Sequence[bool], encoders: Sequence[Any], store: FeatureStore) -> None:
    for label, is_read in zip(labels.labels, is_read_K, strict=True):
        if not is_read:
            known = sorted(set(chain(*(getattr(encoder, "languages", None) or {"en"} for encoder in encoders))))
            raise TaggingError(
                f"label {label!r} has prompts in {' and '.join(labels.prompts[label])} alone, which no encoder of "
                f"{store.folder} knows: add some in one of {', '.join(known)}"
            )


def _warn_of_languages(encoder: Any, modality: Modality, labels: LabelSet) -> None:
    """One line about prompts that do not say their language, and seem to be in one that the encoder does not know."""
    known = getattr(encoder, "languages", None)
    if known is None:
        return
    try:
        unread = {
            label: language
            for label, prompts in labels.prompts.items()
            for language in map(language_of, prompts.get(UNSAID, ()))
            if language is not None and language not in known
        }
    except LoadError:
        return
    if unread:
        named = ", ".join(f"{label!r} ({language})" for label, language in unread.items())
        logger.warning("the %s encoder may not know the language of the prompts of %s", modality, named)


def _encode(encoder: Any, texts: Sequence[str]) -> Floats:
    return _units(encoder.encode_text(list(texts)).float().cpu().numpy())


def _units(vectors_ND: NDArray[Any]) -> Floats:
    norms_N1 = np.linalg.norm(vectors_ND, axis=1, keepdims=True)
    return np.asarray(vectors_ND / np.maximum(norms_N1, 1e-12), np.float32)
