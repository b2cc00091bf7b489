"""The encoders by which a store was written, and which of them have words."""

from __future__ import annotations

from typing import Any

from encoders.base import EncoderError as LoadError
from encoders.base import encoder_factory
from mmrec.embedding import load_recorded
from mmrec.errors import EncoderError
from mmrec.store import EncoderRecord


class RecordedEncoders:
    """Loads encoders when they are first asked for, and keeps them."""

    def __init__(self) -> None:
        self._loaded: dict[str, Any] = {}
        self._words: dict[str, bool] = {}

    def load(self, record: EncoderRecord) -> Any:
        """The encoder of a record. Raises `EncoderError` where it cannot be had, or has changed since."""
        if record.fingerprint not in self._loaded:
            try:
                self._loaded[record.fingerprint] = load_recorded(record)
            except LoadError as error:
                raise EncoderError(str(error)) from error
        return self._loaded[record.fingerprint]

    def has_words(self, record: EncoderRecord) -> bool:
        """Whether an encoder embeds words beside what it embeds.

        Told by its kind, without loading it; found once, as kinds are sought among all packages.
        """
        if record.fingerprint not in self._words:
            self._words[record.fingerprint] = is_known(record) and _kind_has_words(record.spec["kind"])
        return self._words[record.fingerprint]


def is_known(record: EncoderRecord) -> bool:
    return record.spec.get("kind") != "imported"


def _kind_has_words(kind: str) -> bool:
    try:
        return hasattr(encoder_factory(kind), "encode_text")
    except LoadError:
        return False
