"""What one process has open: the store, the models, and the log of live interactions."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from http import HTTPStatus
from itertools import chain
from pathlib import Path
from typing import Any

from mmrec.embedding import DecodeLimits
from mmrec.errors import MMRecError, ModelError, ServiceError, StoreError
from mmrec.recommending import Recommender, current_version, model_lock, read_encoders
from mmrec.remote import Access, Place, find_url, to_place
from mmrec.searching import Copies, DuplicateGroup, Query, RecordedEncoders, Searcher, find_duplicates, group_duplicates
from mmrec.service.config import ServiceConfig
from mmrec.service.interaction_log import InteractionLog
from mmrec.service.maps import ItemMaps, PlacedItems
from mmrec.service.media_files import servable
from mmrec.service.model_users import RETRY_SECONDS, LoadedModel, ServedModel
from mmrec.service.previews import Previews
from mmrec.service.problems import RequestProblem, not_found
from mmrec.service.remote_media import servable_url
from mmrec.service.stored_items import StoredItems, state_of
from mmrec.store import FeatureStore, Modality, SearchColumn, StoredAnswers

logger = logging.getLogger(__name__)
READ_PAUSE = 10
"""So many times as long as the items took to be read they are not read again."""
COMPARING_SECONDS = 10.0
LIMITS = DecodeLimits(workers=1)


def load_models(config: ServiceConfig) -> dict[str, ServedModel]:
    """The models by their names, the default first. Raises `ModelError` where one cannot be read."""
    log = InteractionLog(config.state_path)
    models = [ServedModel(Path(folder), log) for folder in config.models]
    log.close()
    return {model.name: model for model in models}


def load_word_encoders(config: ServiceConfig) -> RecordedEncoders:
    """Those of the models that have words: a store is searched by the same."""
    encoders = RecordedEncoders()
    for record in chain(*(read_encoders(folder).values() for folder in config.models)):
        try:
            if encoders.has_words(record):
                encoders.load(record)
        except MMRecError as error:
            logger.warning("%s", error)
    return encoders


class Resources:
    """Opened once a process; `refresh` follows what jobs write meanwhile."""

    def __init__(
        self,
        config: ServiceConfig,
        models: Mapping[str, ServedModel] | None = None,
        encoders: RecordedEncoders | None = None,
    ) -> None:
        self.config = config
        self.log = InteractionLog(config.state_path)
        self.models = load_models(config) if models is None else models
        self.store = FeatureStore(config.store, encoder_set=config.encoder_set)
        self.searcher = Searcher(self.store, encoders)
        self.copies = None if config.fold is None else Copies.read(config.fold)
        self._is_followed, self._next_read = True, 0.0
        self._read_items()
        self.access = Access(hosts=tuple(config.allow_hosts))
        root = None if config.media_root is None else to_place(config.media_root, ServiceError)
        self._media_root = root.resolve() if isinstance(root, Path) else root
        self.maps, self.previews = ItemMaps(), Previews(self.access)
        self._described: tuple[StoredItems, tuple[Mapping[str, SearchColumn], list[dict[str, Any]]]] | None = None
        self._duplicates: tuple[int, list[DuplicateGroup]] | None = None
        self._comparing = threading.Lock()
        self.is_stopping = False

    def refresh(self) -> int:
        """Take up another version of the store, and of each model; returns how many of these could not be taken up.

        What cannot goes on answering as it was loaded, is tried again after a while, and keeps none of the others.
        """
        followed = [self._refresh_items(), *(model.refresh() for model in self.models.values())]
        return followed.count(False)

    def _refresh_items(self) -> bool:
        if time.monotonic() < self._next_read:
            return self._is_followed
        try:
            if state_of(self.store) != self.items.state:
                self._read_items()
            self._is_followed = True
        except (MMRecError, OSError) as error:
            logger.error("the items of %s stay as they were read: %s", self.store.folder, error)
            self._next_read, self._is_followed = time.monotonic() + RETRY_SECONDS, False
        return self._is_followed

    def _read_items(self) -> None:
        """Into memory; while a job writes, again and again, but for a small share of the time."""
        started = time.monotonic()
        self.items = StoredItems(self.store)
        self._next_read = time.monotonic() + READ_PAUSE * (time.monotonic() - started)

    def model(self, name: str | None) -> LoadedModel:
        """The loaded version of a model, by default of the first."""
        if not self.models:
            raise not_found("no model is served: start the service with --model")
        if name is None:
            return next(iter(self.models.values())).loaded
        if name not in self.models:
            raise not_found(f"there is no model {name!r}: it has {', '.join(self.models)}")
        return self.models[name].loaded

    def search_once(self) -> None:
        """So that encoders are loaded and indices read before somebody waits for them."""
        try:
            if words := self.searcher.modalities_with_words():
                self.searcher.search(Query(words=["words"], modalities=words), k=1)
        except MMRecError as error:
            logger.warning("the store is not searched yet: %s", error)

    def check_item(self, item_id: str) -> None:
        """Raises where neither the store nor a model has an item."""
        if item_id not in self.items and not any(item_id in m.loaded.item_rows for m in self.models.values()):
            raise not_found(f"neither the store nor a model has an item {item_id!r}")

    def described(self) -> tuple[Mapping[str, SearchColumn], list[dict[str, Any]]]:
        """What filters know, nothing while the store cannot be searched; and the encoders of the store's tokens, each
        with whether words can be compared with these."""
        items = self.items
        if self._described is None or self._described[0] is not items:
            with_words = self._with_words()
            used = self.store.used_fingerprints()
            modalities = [
                {"modality": e.modality, "name": e.name, "dim": e.dim, "has_words": e.modality in (with_words or ())}
                for e in self.store.encoders()
                if e.fingerprint in used.get(e.modality, ())
            ]
            if with_words is None:
                return {}, modalities
            self._described = items, (self.searcher.tables.columns, modalities)
        return self._described[1]

    def _with_words(self) -> list[Modality] | None:
        """The modalities that words can be compared with; None while the store cannot be searched."""
        try:
            return self.searcher.modalities_with_words()
        except MMRecError as error:
            logger.warning("%s", error)
            return None

    def place_items(self, model: str | None) -> PlacedItems:
        """The items on a map: by a model where there is one, else by the store."""
        if model is None and not self.models:
            return self.maps.of_store(self.store)
        return self.maps.of_model(self.model(model))

    def duplicates(self) -> list[DuplicateGroup]:
        """Found once for each version of the store, by one request; another one does not wait for it very long."""
        if not self._comparing.acquire(timeout=COMPARING_SECONDS):
            raise RequestProblem(HTTPStatus.SERVICE_UNAVAILABLE, "items are being compared: ask again in a while")
        try:
            version = self.store.version
            if self._duplicates is None or self._duplicates[0] != version:
                self._duplicates = version, group_duplicates(find_duplicates(self.store, limits=LIMITS))
            return self._duplicates[1]
        except StoreError as error:  # its encoders have no measured thresholds
            raise RequestProblem(HTTPStatus.CONFLICT, str(error)) from None
        finally:
            self._comparing.release()

    def media(self, item_id: str) -> tuple[Place, str]:
        """Where an item's media file lies, and its content type."""
        path, kind = self.items.media(item_id)
        if (url := find_url(path)) is not None:
            return servable_url(item_id, url, self._media_root, self.access), kind
        root = self.items.media_root if self._media_root is None else self._media_root
        return servable(item_id, path, root if isinstance(root, Path) else None), kind

    def forget(self, user_id: str) -> None:
        """Delete what is known of a user: from the log, what language models answered about them from the store, and
        from the models, whose earlier versions go as well.
        """
        of_fit = [model for model in self.models.values() if model.loaded.was_fitted_to(user_id)]
        answers = self._forget_answers(user_id)
        if not of_fit and not answers and not self.log.of_user(user_id):
            raise not_found(f"the model knows no user {user_id!r}: there is nothing to forget")
        self.log.forget(user_id, {model.name: current_version(model.folder) for model in of_fit})
        for model in of_fit:
            try:
                _publish_without(model.folder, user_id)
            except (ModelError, OSError) as error:
                words = (
                    f"{error}; the service knows the user no more, but the files of the model do: run "
                    f"`mmrec forget-user --model {model.folder} --user ...` where they can be written"
                )
                raise RequestProblem(HTTPStatus.SERVICE_UNAVAILABLE, words) from None
            model.refresh()

    def _forget_answers(self, user_id: str) -> int:
        try:
            return StoredAnswers(self.store).forget(user_id)
        except StoreError as error:
            words = f"{error}; nothing was forgotten: try again, or run `mmrec forget-user --store ...` elsewhere"
            raise RequestProblem(HTTPStatus.SERVICE_UNAVAILABLE, words) from None


def _publish_without(folder: Path, user_id: str) -> None:
    """As `mmrec forget-user` does."""
    with model_lock(folder):
        model = Recommender.load(folder)
        if user_id in model.user_ids:
            model.forget_user(user_id)
            model.save(folder, keep=1)
