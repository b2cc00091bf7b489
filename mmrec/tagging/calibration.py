"""From evidence to log-odds: a temperature for each source, and a bias for each label.

Letters: S sources, I items, E examples, K labels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmrec.tagging.evidence import Evidence, Floats

EVEN = 2.5
"""Without examples, so much evidence makes a label as likely as not. Chosen on topics of the sample catalog, genres of
movies and kinds of pictures, where decisions by text had their best F1 at 2.0, 2.6 and 3.2."""
BIAS_PENALTY = 1.0


@dataclass(frozen=True, slots=True)
class Calibration:
    """Log-odds are `bias_K` and, of each source that an item has, its evidence over `means_S` by `slopes_S` and by its
    weight."""

    slopes_S: NDArray[np.float64]
    means_S: NDArray[np.float64]
    bias_K: NDArray[np.float64]

    def log_odds(self, evidence: Evidence) -> Floats:
        """`(I, K)`; not a number where there is no evidence at all."""
        logits_IK = np.tensordot(self.slopes_S, _centred(evidence, self.means_S), axes=1) + self.bias_K
        return _where_known(evidence, logits_IK)


def plain_log_odds(evidence: Evidence) -> Floats:
    """`(I, K)`: log-odds without examples, which order items well but are no measured probabilities.

    Sources are joined as weighted z-scores are (Stouffer's method).

    >>> import numpy as np
    >>> from mmrec.tagging.evidence import Evidence
    >>> scores_SIK = np.array([[[3.0], [1.0]], [[3.0], [np.nan]]], np.float32)
    >>> plain_log_odds(Evidence(["text", "visual"], scores_SIK, np.ones((2, 2), np.float32))).round(2)
    array([[ 1.74], [-1.5 ]], dtype=float32)
    """
    is_known_SIK = ~np.isnan(evidence.scores_SIK)
    weights_SIK = evidence.weights_SI[:, :, None] * is_known_SIK
    sums_IK = (weights_SIK * np.where(is_known_SIK, evidence.scores_SIK, 0)).sum(axis=0)
    norms_IK = np.sqrt((weights_SIK**2).sum(axis=0))
    return _where_known(evidence, sums_IK / np.maximum(norms_IK, 1e-6) - EVEN)


def fit_calibration(evidence: Evidence, truth_EK: NDArray[np.bool_], spoken_K: NDArray[np.bool_]) -> Calibration | None:
    """By logistic regression on all pairs of an example and a label that examples speak of; None where these tell
    nothing apart. Sources that would speak against what they show are left out; other labels get the mean bias."""
    import scipy.sparse as sp
    from sklearn.linear_model import LogisticRegression

    scores_SEK, targets = evidence.scores_SIK[:, :, spoken_K], truth_EK[:, spoken_K].ravel()
    if not len(scores_SEK) or not spoken_K.any() or len(np.unique(targets)) < 2 or np.isnan(scores_SEK).all():
        return None
    counts_S = (~np.isnan(scores_SEK)).sum(axis=(1, 2))
    means_S = np.nansum(scores_SEK, axis=(1, 2), dtype=np.float64) / np.maximum(1, counts_S)
    of_spoken = Evidence(evidence.sources, scores_SEK, evidence.weights_SI)
    features_NS = _centred(of_spoken, means_S).reshape(len(scores_SEK), -1).T
    labels_NK = sp.vstack([sp.eye_array(int(spoken_K.sum()))] * len(truth_EK))
    used_S = counts_S > 0
    slopes_S, bias_K = np.zeros(len(means_S)), np.zeros(len(spoken_K))
    while True:
        model = LogisticRegression(C=1 / BIAS_PENALTY, max_iter=1000)
        model.fit(sp.hstack([sp.csr_array(features_NS[:, used_S]), labels_NK], format="csr"), targets)
        slopes_S[:] = 0
        slopes_S[used_S] = model.coef_[0, : used_S.sum()]
        if (slopes_S >= 0).all():
            break
        used_S &= slopes_S > 0
    biases = model.coef_[0, used_S.sum() :] + model.intercept_[0]
    bias_K[:], bias_K[spoken_K] = biases.mean(), biases
    return Calibration(slopes_S, means_S, bias_K)


def _centred(evidence: Evidence, means_S: NDArray[np.float64]) -> NDArray[np.float64]:
    centred_SIK = (evidence.scores_SIK - means_S[:, None, None]) * evidence.weights_SI[:, :, None]
    return np.where(np.isnan(centred_SIK), 0.0, centred_SIK)


def _where_known(evidence: Evidence, logits_IK: NDArray[np.float64]) -> Floats:
    is_known_IK = (~np.isnan(evidence.scores_SIK)).any(axis=0)
    return np.where(is_known_IK, logits_IK, np.nan).astype(np.float32)
