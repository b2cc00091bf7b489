"""Words alone or a probe beside them: label by label, by the log-loss on examples that were held out.

Letters: E examples, I items, K labels, P labels that are probed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from mmrec.store import Modality
from mmrec.tagging.calibration import Calibration, fit_calibration, plain_log_odds
from mmrec.tagging.evidence import Evidence, Floats, ItemVectors
from mmrec.tagging.probes import FOLDS, enough_examples, fit_probes


@dataclass(frozen=True, slots=True)
class Choice:
    """`log_odds_IK` by the better method, `is_probed_K` where that is the probe, and the `losses` by label where both
    were tried. `modalities` are those that the probes read, `temperatures` those of the sources of words."""

    log_odds_IK: Floats
    is_probed_K: NDArray[np.bool_]
    temperatures: dict[str, float]
    losses: dict[int, dict[str, float]] = field(default_factory=dict)
    modalities: list[Modality] = field(default_factory=list)


def by_words(evidence: Evidence, calibration: Calibration | None = None) -> Choice:
    log_odds_IK = plain_log_odds(evidence) if calibration is None else calibration.log_odds(evidence)
    slopes = [1.0] * len(evidence.sources) if calibration is None else calibration.slopes_S.tolist()
    temperatures = {name: 1 / s if s else float("inf") for name, s in zip(evidence.sources, slopes, strict=True)}
    return Choice(log_odds_IK, np.zeros(log_odds_IK.shape[1], np.bool_), temperatures)


def by_examples(
    evidence: Evidence,
    vectors: Mapping[Modality, ItemVectors],
    rows_E: NDArray[np.int64],
    truth_EK: NDArray[np.bool_],
    spoken_K: NDArray[np.bool_],
) -> Choice:
    """Words, calibrated by examples, and for labels with enough of them the mean of their log-odds and a probe's, where
    that has the smaller loss. All probes read the modalities, one or all, by which the sum of their losses is least."""
    of_examples = evidence.of(rows_E)
    words = by_words(evidence, fit_calibration(of_examples, truth_EK, spoken_K))
    probed_P = np.flatnonzero(spoken_K & enough_examples(truth_EK))
    if not len(probed_P):
        return words
    truth_EP = truth_EK[:, probed_P]
    words_EP = _held_out_words(of_examples, truth_EK, spoken_K)[:, probed_P]
    losses_of_words_P = _losses(words_EP, truth_EP)
    tried = [
        (fitted, _losses(joined(words_EP, fitted.held_out_EK), truth_EP))
        for fitted in fit_probes(vectors, rows_E, truth_EP, len(words.log_odds_IK))
    ]
    if not tried:
        return words
    probes, losses_P = min(tried, key=lambda pair: float(pair[1].sum()))
    has_words_P = np.asarray(~np.isnan(words_EP).all(axis=0))
    is_better_P = (losses_P < losses_of_words_P) | ~has_words_P
    log_odds_IK, chosen_P = words.log_odds_IK.copy(), probed_P[is_better_P]
    log_odds_IK[:, chosen_P] = joined(log_odds_IK[:, chosen_P], probes.log_odds_IK[:, is_better_P])
    is_probed_K = words.is_probed_K.copy()
    is_probed_K[chosen_P] = True
    compared = zip(probed_P.tolist(), losses_of_words_P.tolist(), losses_P.tolist(), has_words_P.tolist(), strict=True)
    losses = {
        label: {"zero-shot": of_words, "probe": of_probe} if has_words else {"probe": of_probe}
        for label, of_words, of_probe, has_words in compared
    }
    return replace(
        words,
        log_odds_IK=log_odds_IK,
        is_probed_K=is_probed_K,
        losses=losses,
        modalities=list(probes.modalities) if is_better_P.any() else [],
    )


def joined(first: Floats, second: Floats) -> Floats:
    """The mean of two log-odds, or the one that is there.

    >>> import numpy as np
    >>> joined(np.float32([[1.0, np.nan, np.nan]]), np.float32([[3.0, 3.0, np.nan]]))
    array([[ 2.,  3., nan]], dtype=float32)
    """
    mean = (first + second) / 2
    return np.where(np.isnan(first), second, np.where(np.isnan(second), first, mean))


def _held_out_words(evidence: Evidence, truth_EK: NDArray[np.bool_], spoken_K: NDArray[np.bool_]) -> Floats:
    """`(E, K)`: the log-odds of each example by a calibration on others."""
    from sklearn.model_selection import KFold

    held_out_EK = np.full(truth_EK.shape, np.nan, np.float32)
    for train, test in KFold(min(FOLDS, len(truth_EK)), shuffle=True, random_state=0).split(truth_EK):
        calibration = fit_calibration(evidence.of(train), truth_EK[train], spoken_K)
        held_out_EK[test] = by_words(evidence.of(test), calibration).log_odds_IK
    return held_out_EK


def _losses(logits_EP: Floats, truth_EP: NDArray[np.bool_]) -> NDArray[np.float64]:
    """`(P,)`: the mean log-loss of each label; an example of which nothing is known has the odds of the label."""
    counts_P = truth_EP.sum(axis=0)
    base_P = np.log((counts_P + 0.5) / (len(truth_EP) - counts_P + 0.5))
    logits_EP = np.where(np.isnan(logits_EP), base_P, logits_EP)
    losses_P: NDArray[np.float64] = np.logaddexp(0, np.where(truth_EP, -logits_EP, logits_EP)).mean(axis=0)
    return losses_P
