"""A model evaluated by held-out interactions, as its own users and items have them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp

from mmrec.evaluation import InteractionSource, align, check_no_leak, evaluate_rankings, read_catalog_interactions
from mmrec.ranking import Ranker
from mmrec.recommending.model_files import ModelFiles
from mmrec.recommending.profiles import UserProfiles


def evaluate_model(
    files: ModelFiles,
    profiles: UserProfiles,
    ranker: Ranker,
    held_out: InteractionSource,
    ks: Sequence[int],
    baselines: Sequence[str],
) -> dict[str, Any]:
    """Arguments, result and errors as `Recommender.evaluate`."""
    held_out = read_catalog_interactions(held_out, files.item_ids)
    if files.interactions is not None:
        check_no_leak(files.interactions, held_out)
    user_ids = () if files.interactions is None else files.interactions.user_ids
    aligned = align(held_out, user_ids=user_ids, item_ids=files.item_ids)
    relevant_UI = aligned.select(aligned.weights > 0).matrix()
    users = np.flatnonzero(np.diff(relevant_UI.indptr))
    found = profiles.resolve_rows(users)
    return evaluate_rankings(
        ranker,
        files.vectors_ID,
        found.vectors_UD,
        found.seen_UI,
        sp.csr_array(relevant_UI[users]),
        files.trained_I,
        profiles.positives_UI,
        ks,
        baselines,
    )
