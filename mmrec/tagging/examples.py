"""What people say of items: examples to learn from, and the truth to evaluate by."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmrec.errors import TaggingError
from mmrec.tables import Table, is_missing, local_path, to_text


@dataclass(frozen=True, slots=True)
class Examples:
    """The labels of some items: all that hold for each of them.

    A label that none of these items has is not spoken of; of the others, what an item has not, does not hold for it.

    >>> from mmrec.tagging import Examples
    >>> examples = Examples({"a": {"calm"}, "b": set(), "c": {"calm", "loud"}})
    >>> examples.spoken_of(["calm", "loud", "fast"])
    array([ True,  True, False])
    >>> examples.matrix(["c", "b"], ["calm", "fast"])
    array([[ True, False], [False, False]])
    """

    labels: Mapping[str, Collection[str]]

    @property
    def item_ids(self) -> list[str]:
        return list(self.labels)

    def spoken_of(self, labels: Sequence[str]) -> NDArray[np.bool_]:
        """`(K,)`: whether any item has a label."""
        known = {label for of_item in self.labels.values() for label in of_item}
        return np.array([label in known for label in labels], np.bool_)

    def matrix(self, item_ids: Sequence[str], labels: Sequence[str]) -> NDArray[np.bool_]:
        """`(E, K)`: whether a label holds for an item."""
        return np.array([[label in self.labels[i] for label in labels] for i in item_ids], np.bool_).reshape(
            len(item_ids), len(labels)
        )


def read_examples(path: str | os.PathLike[str], *, labels: Collection[str], item_ids: Collection[str]) -> Examples:
    """From `.csv`, `.jsonl` or `.parquet`: `item_id` and `label`, which may hold several joined by `|`, or none.

    The rows of one item add up. Raises `TaggingError` for items and labels that are not among the known ones.

    >>> from pathlib import Path
    >>> from mmrec.tagging import read_examples
    >>> written = Path("examples.csv").write_text("item_id,label\\nrain-0,calm|wet\\nrain-1,wet\\npiano-0,\\n")
    >>> known = read_examples("examples.csv", labels=["calm", "wet"], item_ids=["rain-0", "rain-1", "piano-0"])
    >>> {item_id: sorted(of_item) for item_id, of_item in known.labels.items()}
    {'rain-0': ['calm', 'wet'], 'rain-1': ['wet'], 'piano-0': []}
    """
    table = Table(
        local_path(path, TaggingError),
        known=["item_id", "label", "labels"],
        required=["item_id"],
        others=False,
        error=TaggingError,
    )
    if not os.path.exists(table.path):
        raise TaggingError(f"there is no file {path}")
    known_items, known_labels = set(item_ids), set(labels)
    found: dict[str, set[str]] = {}
    for row, values in table.rows():
        if not values.keys() & {"label", "labels"}:
            raise TaggingError(f"{table.where(row)}: there is no column label")
        item_id = to_text(values.get("item_id"))
        named = {label for cell in (values.get("label"), values.get("labels")) for label in _split(cell)}
        if problem := _unknown(item_id, named, known_items, known_labels):
            raise TaggingError(f"{table.where(row)}: {problem}")
        found.setdefault(item_id, set()).update(named)
    if not found:
        raise TaggingError(f"{path}: there are no examples")
    return Examples(found)


def check_examples(examples: Examples, *, labels: Collection[str], item_ids: Collection[str]) -> Examples:
    """Raises `TaggingError` for items and labels that are not among the known ones, and where there are none."""
    if not examples.labels:
        raise TaggingError("there are no examples")
    known_items, known_labels = set(item_ids), set(labels)
    for item_id, named in examples.labels.items():
        if problem := _unknown(item_id, named, known_items, known_labels):
            raise TaggingError(f"examples: {problem}")
    return examples


def _unknown(item_id: str, named: Collection[str], item_ids: set[str], labels: set[str]) -> str:
    """What is not known of an example, in words."""
    if item_id not in item_ids:
        return f"the store has no item {item_id!r}: embed it, or leave it out"
    for label in sorted(set(named) - labels):
        near = get_close_matches(label, labels)
        hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
        return f"the set has no label {label!r}{hint}; it has {', '.join(sorted(labels))}"
    return ""


def _split(cell: Any) -> list[str]:
    if isinstance(cell, list | tuple):
        return [to_text(part).strip() for part in cell]
    text = "" if is_missing(cell) else to_text(cell).strip()
    return [part.strip() for part in text.split("|")] if text else []
