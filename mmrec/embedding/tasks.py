"""What a job has to do: the items of a catalog that the store does not hold as they are now."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from mmrec.catalog import Catalog, Item
from mmrec.embedding.preset_encoders import PresetEncoders
from mmrec.errors import CatalogError, StoreError
from mmrec.store import FeatureStore, StoredKeys


def check_pruning(store: FeatureStore, keys: StoredKeys, manifest: Catalog, max_pruned: float) -> None:
    """Raises `StoreError` where a larger share of the store than `max_pruned` is not in the manifest."""
    leaving = keys.num_leaving(item.item_id for item in manifest.items())
    if leaving > max_pruned * len(keys):
        raise StoreError(
            f"pruning would delete {leaving} of the {len(keys)} items in {store.folder}, which {manifest.path} no "
            f"longer has: more than max_pruned {max_pruned:g} allows; where the catalog is whole, use --max-pruned 1"
        )


class Reading:
    """The items of a manifest, each once; trouble with the manifest is kept until all that was read is stored."""

    def __init__(self, manifest: Catalog) -> None:
        self._manifest = manifest
        self._error: CatalogError | None = None

    def items(self) -> Iterator[Item]:
        met: set[int] = set()
        try:
            for item in self._manifest.items():
                number = hash(item.item_id)
                if number not in met:
                    met.add(number)
                    yield item
        except CatalogError as error:
            self._error = error

    def check(self) -> None:
        """Raises `CatalogError` if the manifest could not be read to its end, or changed meanwhile."""
        if self._error is not None:
            raise self._error
        self._manifest.check_unchanged()


@dataclass(slots=True)
class Task:
    """An item to embed, its words, and the keys of its row.

    >>> from mmrec import Item
    >>> from mmrec.embedding import Task
    >>> Task(Item(item_id="a", title="Rain"), text="Rain", content_key="0" * 32, catalog_key="0" * 32).text
    'Rain'
    """

    item: Item
    text: str
    content_key: str
    catalog_key: str


def unfinished(
    items: Iterable[Item],
    loaded: PresetEncoders,
    keys: StoredKeys,
    skip: Callable[[Item, str | None], None],
    *,
    retry_failed: bool,
) -> Iterator[Task]:
    """The items that the store does not hold as they are now.

    `skip` is told of the others, with the new key of the row in the catalog where that alone has changed.
    """
    for item in items:
        text = loaded.text(item)
        content_key = _digest(_media_state(item), text, sorted(loaded.fingerprints.items()))
        catalog_key = _digest(item.title, item.description, item.tags, item.language, sorted(item.metadata.items()))
        difference = keys.compare(item.item_id, content_key, catalog_key)
        if difference in {"new", "changed"} or (retry_failed and keys.worth_retrying(item.item_id)):
            yield Task(item, text, content_key, catalog_key)
            continue
        skip(item, catalog_key if difference == "relabelled" else None)


def _digest(*parts: Any) -> str:
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()


def _media_state(item: Item) -> Any:
    """What changes when the file does."""
    if item.media is None:
        return item.problem and [item.problem.reason, item.problem.detail]
    path = os.fsencode(item.media).hex()
    try:
        status = item.media.stat()
    except (OSError, ValueError):
        return [path]
    return [path, status.st_size, status.st_mtime_ns]
