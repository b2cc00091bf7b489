"""What is known of items and histories, as questions tell it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmrec.recommending import Recommender
from mmrec.store import FeatureStore, Finding, Findings, FindingTask

MOST_VALUES = 10


def in_brief(row: Mapping[str, Any], found: Mapping[FindingTask, Finding], *, characters: int) -> dict[str, Any]:
    """The title, tags and labels of an item of a catalog, and of a summary or its description so many characters.

    >>> from mmrec.understanding.known_items import in_brief
    >>> in_brief({"item_id": "a", "title": "Rain", "tags": ["calm"], "description": "It rains."}, {}, characters=100)
    {'title': 'Rain', 'tags': ['calm'], 'about': 'It rains.'}
    """
    summary = found["about"].value.get("summary") if "about" in found else ""
    said = str(summary or row.get("description") or "")
    labels = {name: value for name, value in row.items() if isinstance(value, list) and name != "tags"}
    values = {"title": row.get("title") or row.get("item_id"), "tags": row.get("tags"), **labels}
    values["about"] = said if len(said) <= characters else f"{said[:characters].rsplit(' ', 1)[0]} ..."
    return {name: _few(value) for name, value in values.items() if value}


def findings_of(store: FeatureStore | None, item_ids: Sequence[str]) -> dict[str, dict[FindingTask, Finding]]:
    return {} if store is None else Findings(store).of(item_ids)


def _few(value: Any) -> Any:
    return value[:MOST_VALUES] if isinstance(value, list) else value


class LatestItems:
    """The latest interactions of the users of a model, so many of each.

    >>> import mmrec
    >>> from mmrec.understanding.known_items import LatestItems
    >>> config = mmrec.RecommenderConfig.from_mapping({"dim": 16, "max_epochs": 1})
    >>> model = mmrec.Recommender.fit(mmrec.FeatureStore("store"), "interactions.csv", config=config)
    >>> LatestItems(model, 2).of("user00")
    [('rain-1', 0.25), ('piano-1', 1.0)]
    """

    def __init__(self, model: Recommender, count: int) -> None:
        self._count = count
        self._interactions = interactions = model.interactions
        self.are_graded = interactions is not None and len(np.unique(interactions.weights)) > 1
        if interactions is not None:
            self._sorted = np.lexsort((interactions.order(), interactions.user_rows))
            self._bounds = np.concatenate([[0], np.cumsum(interactions.user_degrees())])

    def of(self, user: str) -> list[tuple[str, float]]:
        """The ids and weights, the latest first; of users that the model does not know, nothing."""
        interactions = self._interactions
        row = None if interactions is None else interactions.user_index.get(user)
        if interactions is None or row is None:
            return []
        places = self._sorted[self._bounds[row] : self._bounds[row + 1]][::-1][: self._count].tolist()
        return [(interactions.item_ids[interactions.item_rows[p]], float(interactions.weights[p])) for p in places]
