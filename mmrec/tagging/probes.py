"""Linear probes: logistic regressions on the vectors of a few labelled items, beside what words say of them.

Letters: E examples, I items, K labels, D width, R rank.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmrec.store import Modality
from mmrec.tagging.evidence import Floats, ItemVectors

INVERSE_PENALTY = 10.0
"""Of the coefficients, where the standardised vectors of a modality have a mean square norm of one. Chosen among 1 to
100 on genres of movies, feelings in voices and kinds of pictures."""
FOLDS = 5
LEAST_EXAMPLES = 2
"""A label needs so many examples with it, and so many without."""


@dataclass(frozen=True, slots=True)
class ProbeVectors:
    """The vectors of a modality, and what standardises them: the mean and the deviation of all items that have it."""

    of_items: ItemVectors
    mean_D: Floats
    scale_D: Floats

    @classmethod
    def of(cls, of_items: ItemVectors) -> ProbeVectors:
        vectors_ND = of_items.vectors_ND
        deviation_D = vectors_ND.std(axis=0)
        scale_D = np.where(deviation_D > 1e-6, deviation_D, np.inf) * np.sqrt(vectors_ND.shape[1])
        return cls(of_items, vectors_ND.mean(axis=0), scale_D.astype(np.float32))

    def examples(self, rows_E: NDArray[np.int64]) -> Floats:
        """Standardised vectors `(E, D)` of items; zero, the mean, where an item has none."""
        places_I = np.full(int(max(rows_E.max(), self.of_items.rows_N.max())) + 1, -1)
        places_I[self.of_items.rows_N] = np.arange(len(self.of_items.rows_N))
        places_E = places_I[rows_E]
        found_ED = (self.of_items.vectors_ND[places_E] - self.mean_D) / self.scale_D
        return np.where(places_E[:, None] >= 0, found_ED, 0).astype(np.float32)

    def add_log_odds(self, logits_IK: NDArray[np.float64], weights_DK: Floats) -> None:
        scaled_DK = weights_DK / self.scale_D[:, None]
        logits_IK[self.of_items.rows_N] += self.of_items.vectors_ND @ scaled_DK - self.mean_D @ scaled_DK


@dataclass(frozen=True, slots=True)
class Fitted:
    """Probes of K labels on some modalities: `held_out_EK` are the log-odds of each example by probes that did not see
    it, `log_odds_IK` those of all items, not a number for items that have none of the modalities."""

    modalities: Sequence[Modality]
    held_out_EK: Floats
    log_odds_IK: Floats


def enough_examples(truth_EK: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """`(K,)`: which labels can have a probe."""
    return np.asarray(np.minimum(truth_EK.sum(axis=0), (~truth_EK).sum(axis=0)) >= LEAST_EXAMPLES)


def fit_probes(
    vectors: Mapping[Modality, ItemVectors], rows_E: NDArray[np.int64], truth_EK: NDArray[np.bool_], num_items: int
) -> Iterator[Fitted]:
    """Probes on each modality that examples have, and on all of them together; each label needs enough examples."""
    there = {m: ProbeVectors.of(of_items) for m, of_items in vectors.items() if np.isin(rows_E, of_items.rows_N).any()}
    subsets = [[modality] for modality in there] + ([list(there)] if len(there) > 1 else [])
    for modalities in subsets:
        chosen = [there[modality] for modality in modalities]
        yield _fit(modalities, chosen, rows_E, truth_EK, num_items)


def _fit(
    modalities: Sequence[Modality],
    vectors: Sequence[ProbeVectors],
    rows_E: NDArray[np.int64],
    truth_EK: NDArray[np.bool_],
    num_items: int,
) -> Fitted:
    examples = [of_modality.examples(rows_E) for of_modality in vectors]
    # a penalised regression is the same in any rotated space: that of the examples is small
    left_ER, values_R, right_RD = np.linalg.svd(np.hstack(examples), full_matrices=False)
    rotated_ER = left_ER * values_R
    held_out_EK = np.stack([_held_out(rotated_ER, truth_E) for truth_E in truth_EK.T], axis=1)
    models = [_regression().fit(rotated_ER, truth_E) for truth_E in truth_EK.T]
    weights_DK = (np.stack([model.coef_[0] for model in models], axis=1).T @ right_RD).T
    logits_IK = np.tile([float(model.intercept_[0]) for model in models], (num_items, 1))
    begin = 0
    for of_modality, of_examples in zip(vectors, examples, strict=True):
        end = begin + of_examples.shape[1]
        of_modality.add_log_odds(logits_IK, weights_DK[begin:end])
        begin = end
    has_any_I = np.zeros(num_items, np.bool_)
    for of_modality in vectors:
        has_any_I[of_modality.of_items.rows_N] = True
    has_any_E = has_any_I[rows_E]
    return Fitted(
        modalities,
        np.where(has_any_E[:, None], held_out_EK, np.nan).astype(np.float32),
        np.where(has_any_I[:, None], logits_IK, np.nan).astype(np.float32),
    )


def _held_out(features_ER: Floats, truth_E: NDArray[np.bool_]) -> NDArray[np.float64]:
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    folds = StratifiedKFold(min(FOLDS, int(truth_E.sum()), int((~truth_E).sum())), shuffle=True, random_state=0)
    logits_E: NDArray[np.float64] = cross_val_predict(
        _regression(), features_ER, truth_E, cv=folds, method="decision_function"
    )
    return logits_E


def _regression() -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=INVERSE_PENALTY, max_iter=1000)
