"""Labels of all items of a store: by words alone, or by words and examples; and how good they are.

Letters: S sources, E examples, I items, K labels.
"""

from __future__ import annotations

import json
import logging
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mmrec.errors import TaggingError
from mmrec.store import FeatureStore, LabelledItem, Modality
from mmrec.tagging.choosing import Choice, by_examples, by_words
from mmrec.tagging.evidence import Evidence, Floats, ItemVectors, gather_evidence
from mmrec.tagging.examples import Examples, check_examples, read_examples
from mmrec.tagging.label_sets import LabelSet, read_labels

logger = logging.getLogger(__name__)
Method = Literal["zero-shot", "probe", "none"]
"""How a label was scored: by its prompts; by these and a linear probe on examples; or not at all."""
THRESHOLD = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelScores:
    """`scores_IK` (0 to 1) of the labels of all items, not a number where nothing is known, and how they were made.

    `methods` is how each label was scored, `examples` how many items had it among the examples, `losses` the log-loss
    of both methods on examples that were held out, where both were tried. `sources` are what words were compared with,
    with their temperatures (evidence is divided by them), which are fitted where there are examples; `probed` are the
    modalities that the probes read.
    """

    labels: LabelSet
    item_ids: list[str]
    scores_IK: Floats
    methods: list[Method]
    examples: Examples | None = None
    losses: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    sources: Mapping[str, float] = field(default_factory=dict)
    probed: list[Modality] = field(default_factory=list)

    def __repr__(self) -> str:
        counts = Counter(self.methods)
        made = ", ".join(f"{count} by {method}" for method, count in counts.items())
        return (
            f"LabelScores({self.labels.name!r}, {len(self.item_ids)} items, {len(self.labels.labels)} labels: {made})"
        )

    def items(self, threshold: float = THRESHOLD) -> list[LabelledItem]:
        """Each item with the labels that score `threshold` or more, best first, and all scores."""
        found = []
        for item_id, scores_K in zip(self.item_ids, self.scores_IK.tolist(), strict=True):
            scores = {label: s for label, s in zip(self.labels.labels, scores_K, strict=True) if s == s}
            holding = sorted((label for label, s in scores.items() if s >= threshold), key=lambda label: -scores[label])
            found.append(LabelledItem(item_id=item_id, labels=holding, scores=scores))
        return found

    def evaluate(self, truth: Examples) -> dict[str, tuple[float, int]]:
        """The average precision of each label that the truth speaks of, and the number of items that have it.

        Items that were examples are left out, and labels that no other item has. Raises `TaggingError` where there is
        no other item.
        """
        from sklearn.metrics import average_precision_score

        learned = set(self.examples.item_ids) if self.examples is not None else set()
        places = {item_id: place for place, item_id in enumerate(self.item_ids)}
        item_ids = [item_id for item_id in truth.item_ids if item_id in places and item_id not in learned]
        if not item_ids:
            raise TaggingError("all items of the truth were examples: evaluate by others than those learned from")
        truth_EK = truth.matrix(item_ids, self.labels.labels)
        scores_EK = np.nan_to_num(self.scores_IK[[places[item_id] for item_id in item_ids]], nan=-1.0)
        return {
            label: (float(average_precision_score(truth_E, scores_E)), int(truth_E.sum()))
            for label, truth_E, scores_E in zip(self.labels.labels, truth_EK.T, scores_EK.T, strict=True)
            if truth_E.any()
        }


def tag(
    store: FeatureStore,
    labels: str | os.PathLike[str] | LabelSet,
    *,
    name: str = "",
    examples: str | os.PathLike[str] | Examples | None = None,
    threshold: float = THRESHOLD,
    command: str = "",
) -> LabelScores:
    """Score labels for all items of a store, and keep those that reach `threshold`, as a column by which searches and
    recommendations can be filtered. What the set of this name had before is replaced.

    Arguments and errors are those of `read_labels`, `read_examples` and `score_labels`; `StoreError` where another
    process writes the store.

    >>> import mmrec
    >>> store = mmrec.FeatureStore("store")
    >>> scores = mmrec.tag(store, "topic")
    >>> scores
    LabelScores('topic', 16 items, 27 labels: 27 by zero-shot)
    >>> scores.scores_IK.shape
    (16, 27)
    >>> store.labels.names()
    ['topic']
    """
    of_set = labels if isinstance(labels, LabelSet) else read_labels(labels, name=name)
    if not 0 <= threshold <= 1:
        raise TaggingError(f"the threshold is {threshold}: expected 0 to 1")
    with store.lock(), store.run(command or f"mmrec.tag({str(store.folder)!r}, {of_set.name!r})") as run:
        _refuse_taken(store, of_set.name)
        scores = score_labels(store, of_set, examples=examples)
        items = scores.items(threshold)
        store.labels.write(of_set.name, items)
        run.counts = {"items": len(items), "labelled": sum(bool(item.labels) for item in items)}
    return scores


def score_labels(
    store: FeatureStore, labels: LabelSet, *, examples: str | os.PathLike[str] | Examples | None = None
) -> LabelScores:
    """Score labels for all items of a store, without keeping them.

    Without `examples` by the likeness of prompts to texts, and to pictures and sound where their encoders have words or
    know classes of things. With them this is calibrated; and each label that two examples have, and two have not, also
    gets a linear probe, which is used where it is better on examples that were held out.

    Raises `TaggingError` for examples of unknown items and labels, for prompts in languages that no encoder knows, and
    where there is nothing to compare; `StoreError` where tokens of several encoders lie mixed.
    """
    item_ids: list[str] = store.to_arrow(["item_id"])["item_id"].to_pylist()
    vectors = _vectors(store, item_ids)
    known = _to_examples(examples, labels, item_ids)
    evidence = gather_evidence(store, item_ids, vectors, labels)
    if known is not None:
        choice = _choose(evidence, vectors, item_ids, known, labels)
    elif evidence.sources:
        choice = by_words(evidence)
    else:
        made_by = ", ".join(f"{r.modality} by {r.name}" for r in store.encoders() if r.modality in vectors)
        raise TaggingError(
            f"words cannot be compared with what store {store.folder} has ({made_by}): give examples, with --examples"
        )
    scores_IK = (1 / (1 + np.exp(-choice.log_odds_IK))).astype(np.float32)
    methods = _methods(scores_IK, choice.is_probed_K)
    _warn_of_unscored(labels, methods)
    return LabelScores(
        labels=labels,
        item_ids=item_ids,
        scores_IK=scores_IK,
        methods=methods,
        examples=known,
        losses={labels.labels[place]: of_label for place, of_label in choice.losses.items()},
        sources=choice.temperatures,
        probed=choice.modalities,
    )


def _vectors(store: FeatureStore, item_ids: list[str]) -> dict[Modality, ItemVectors]:
    rows = {item_id: row for row, item_id in enumerate(item_ids)}
    found: dict[Modality, ItemVectors] = {}
    for modality in store.fingerprints():
        ids, vectors_ND = store.vectors(modality)
        found[modality] = ItemVectors(np.array([rows[item_id] for item_id in ids]), vectors_ND)
    if not found:
        holds = f"{len(item_ids)} items without tokens" if item_ids else "no items"
        raise TaggingError(f"store {store.folder} has {holds}: embed a catalog into it with `mmrec embed`")
    return found


def _to_examples(
    examples: str | os.PathLike[str] | Examples | None, labels: LabelSet, item_ids: list[str]
) -> Examples | None:
    if examples is None:
        return None
    if isinstance(examples, Examples):
        return check_examples(examples, labels=labels.labels, item_ids=item_ids)
    return read_examples(examples, labels=labels.labels, item_ids=item_ids)


def _choose(
    evidence: Evidence,
    vectors: Mapping[Modality, ItemVectors],
    item_ids: list[str],
    examples: Examples,
    labels: LabelSet,
) -> Choice:
    places = {item_id: place for place, item_id in enumerate(item_ids)}
    rows_E = np.array([places[item_id] for item_id in examples.item_ids])
    truth_EK = examples.matrix(examples.item_ids, labels.labels)
    return by_examples(evidence, vectors, rows_E, truth_EK, examples.spoken_of(labels.labels))


def _methods(scores_IK: Floats, is_probed_K: NDArray[np.bool_]) -> list[Method]:
    is_scored_K = np.asarray(~np.isnan(scores_IK).all(axis=0))
    named = zip(is_scored_K.tolist(), is_probed_K.tolist(), strict=True)
    return ["none" if not is_scored else "probe" if is_probed else "zero-shot" for is_scored, is_probed in named]


def _warn_of_unscored(labels: LabelSet, methods: list[Method]) -> None:
    unscored = [label for label, method in zip(labels.labels, methods, strict=True) if method == "none"]
    if unscored:
        logger.warning(
            "no words can be compared with this store, and a probe needs two examples with a label and two without: "
            "nothing is known of %s",
            ", ".join(unscored),
        )


def _refuse_taken(store: FeatureStore, name: str) -> None:
    """A set of labels may not be named as a column of the catalog."""
    for batch in store.scan(["item_id", "metadata"]):
        for item_id, metadata in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            if name in json.loads(metadata or "{}"):
                raise TaggingError(
                    f"the catalog has a column {name!r} (of {item_id!r}): name the labels otherwise, with --as NAME"
                )
