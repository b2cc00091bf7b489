"""What a job has to do: the items of a catalog that the store does not hold as they are now."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

from mmrec.catalog import Catalog, Item
from mmrec.embedding.identity import ABSENT, MediaIdentity, identified
from mmrec.embedding.presets import Preset
from mmrec.errors import CatalogError, Reason, StoreError
from mmrec.remote import Access
from mmrec.store import MODALITIES, Features, FeatureStore, Kept, Modality, StoredKeys, StoredRow, digest

_TOLD_BY_THE_FILE = frozenset({Reason.NO_STREAM, Reason.NOT_WANTED})  # the file was read, or the preset does not ask


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What a job does beside what is new: `retry_failed` tries again what another try may bring, `accept_missing` takes
    what is away for gone, `replace` puts tokens of other encoders in the place of those that are there."""

    retry_failed: bool = False
    accept_missing: bool = False
    replace: bool = False


def start_from_another_set(store: FeatureStore, fingerprints: Mapping[Modality, str]) -> None:
    """Fill a set that has no rows yet with the tokens that it shares with another set of the same store."""
    if len(store):
        return
    others = [FeatureStore(store.folder, encoder_set=name) for name in store.sets() if name != store.encoder_set]
    shared = [[m for m, used in other.used_fingerprints().items() if used == {fingerprints.get(m)}] for other in others]
    if any(shared):
        most, other = max(zip(shared, others, strict=True), key=lambda pair: len(pair[0]))
        store.copy_from(other, most)


def check_encoders(store: FeatureStore, fingerprints: Mapping[Modality, str], preset: str) -> None:
    """Raises `StoreError` where the store has tokens by another encoder, or of a modality not wanted any more."""
    for modality, used in store.used_fingerprints().items():
        if used - {fingerprints.get(modality)}:
            known = {record.fingerprint: record.name for record in store.encoders()}
            theirs = " and ".join(sorted({known.get(fingerprint, "another encoder") for fingerprint in used}))
            wanted = "asks for others" if modality in fingerprints else "asks for none"
            raise StoreError(
                f"store {store.folder} holds {modality} tokens of {theirs}, but the preset {preset!r}, as it is now, "
                f"{wanted}: embed with --replace to put new ones in their place, or with --as NAME to keep both"
            )


def check_pruning(store: FeatureStore, stored: int, leaving: int, manifest: Catalog, max_pruned: float) -> None:
    """Raises `StoreError` where more than a share of the stored rows would leave."""
    if leaving > max_pruned * stored:
        raise StoreError(
            f"pruning would delete {leaving} of the {stored} items in {store.folder}, which {manifest.path} no "
            f"longer has: more than max_pruned {max_pruned:g} allows; where the catalog is whole, use --max-pruned 1"
        )


class Reading:
    """The items of a manifest; trouble with the manifest is kept until all that was read is stored."""

    def __init__(self, manifest: Catalog) -> None:
        self._manifest = manifest
        self.error: CatalogError | None = None

    def items(self) -> Iterator[Item]:
        try:
            yield from self._manifest.items()
        except CatalogError as error:
            self.error = error

    def check(self) -> None:
        """Raises `CatalogError` if the manifest could not be read to its end, or changed meanwhile."""
        if self.error is not None:
            raise self.error
        self._manifest.check_unchanged()


@dataclass(frozen=True, slots=True)
class Task:
    """What is to be done for one item: the modalities in `todo` are embedded, of the others `kept` says what becomes.

    `has_words` says that words are heard or seen in it, which are embedded with its text.

    >>> from mmrec import Item
    >>> from mmrec.embedding import Task
    >>> sorted(Task(Item(item_id="a", title="Rain"), text="Rain").todo)
    ['audio', 'text', 'visual']
    """

    item: Item
    text: str
    todo: frozenset[Modality] = frozenset(MODALITIES)
    kept: Mapping[Modality, Kept] = field(default_factory=dict)
    keys: Mapping[Modality, str] = field(default_factory=dict)
    catalog_key: str = ""
    media: MediaIdentity = ABSENT
    stored: StoredRow | None = None
    has_words: bool = False

    @property
    def is_lost(self) -> bool:
        """Whether the item lacks what it had, or what the catalog promises, as far as can be told without a try."""
        stale = self.stored.stale if self.stored is not None else frozenset()
        away = self.item.media is not None and not self.media.content
        return away or any(self.kept.get(modality) == "as it is" for modality in stale)

    @property
    def changes_the_row(self) -> bool:
        """Whether anything is to be written although nothing is to be embedded."""
        stored = self.stored
        if stored is None or self.catalog_key != stored.catalog_key or "fresh" in self.kept.values():
            return True
        return bool(self.media.content) and self.media.state != stored.media_state

    def features(self, item: Item) -> Features:
        """The row of the item, before anything of it is embedded."""
        return Features(
            item,
            keys=dict(self.keys),
            catalog_key=self.catalog_key,
            media_hash=self.media.content,
            media_state=self.media.state,
            stored=self.stored,
            kept=dict(self.kept),
        )


def tasks_of(
    items: Iterable[Item],
    preset: Preset,
    fingerprints: Mapping[Modality, str],
    keys: StoredKeys,
    policy: Policy,
    words: Mapping[str, str] = MappingProxyType({}),
    access: Access | None = None,
) -> Iterator[Task]:
    """Of every item, what is to be done with it: nothing where the store holds it as it is now.

    `words` has a hash of those that are heard and seen in an item, where there are any.
    """
    for item, media in identified(items, keys, access or Access()):
        text, stored = preset.text_of(item), keys.row(item.item_id)
        content: dict[Modality, Any] = dict.fromkeys(("visual", "audio"), _content(item, media))
        content["text"] = text or content["visual"]
        if item.item_id in words:
            content["text"] = [content["text"], words[item.item_id]]
        now = {modality: digest(content[modality], fingerprints.get(modality)) for modality in MODALITIES}
        absent = set() if media.content else {m for m in MODALITIES if m != "text" or not text}
        todo = {m for m in MODALITIES if _is_to_be_embedded(m, now[m], m in absent, m in fingerprints, stored, policy)}
        if "text" in todo and not text and media.content:  # its words are those of the file, which is opened for them
            todo |= fingerprints.keys()
        kept: dict[Modality, Kept] = {}
        if stored is not None:
            kept = {
                m: "fresh" if m in stored.stale and now[m] == stored.keys[m] else "as it is"
                for m in MODALITIES
                if m not in todo
            }
        yield Task(
            item=item,
            text=text,
            todo=frozenset(todo),
            kept=kept,
            keys=now,
            catalog_key=digest(item.title, item.description, item.tags, item.language, sorted(item.metadata.items())),
            media=media,
            stored=stored,
            has_words=item.item_id in words,
        )


def _content(item: Item, media: MediaIdentity) -> Any:
    """What the tokens of a file are made from: its content, or the name of what is not there."""
    if media.content:
        return media.content
    return [str(item.problem)] if item.problem is not None else [item.media and os.fsencode(item.media).hex()]


def _is_to_be_embedded(
    modality: Modality, key: str, is_absent: bool, is_wanted: bool, stored: StoredRow | None, policy: Policy
) -> bool:
    if stored is None:
        return True
    if not is_wanted:
        return modality in stored.with_tokens
    if policy.retry_failed and modality in stored.worth_retrying:
        return True
    if is_absent and stored.stale & _same_source(modality) and not policy.accept_missing:
        return False
    return key != stored.keys[modality]


def keep_what_is_lost(features: Features, policy: Policy) -> Features:
    """Where a modality that the store has could not be had today, leave it there, and mark it as stale."""
    stored = features.stored
    if stored is None or policy.accept_missing:
        return features
    away = {
        modality
        for modality, problem in features.problems.items()
        if modality not in {*features.tokens, *features.kept} and problem.reason not in _TOLD_BY_THE_FILE
    }
    for modality in away & stored.with_tokens - stored.stale:
        features.kept[modality], features.stale_since[modality] = "stale", datetime.now(UTC)
    for modality in away - features.kept.keys():
        if stored.with_tokens & _same_source(modality) & away:
            features.kept[modality] = "as it is"
    return features


def _same_source(modality: Modality) -> frozenset[Modality]:
    """The modalities that come and go together."""
    return frozenset({"text"} if modality == "text" else {"visual", "audio"})
