"""What a file says of its content in words: the tags of its container, as clean text."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping

from av.audio.stream import AudioStream
from av.container import InputContainer

TAGS = ("title", "artist", "album", "genre", "description")
MAX_TAG_LENGTH = 500
TAG_ERRORS = "surrogateescape"  # how tags must be read, so that nothing of them is lost


def tags_of(container: InputContainer, audio: AudioStream | None) -> dict[str, str]:
    """The tags of a container; Ogg has them in the stream, where others name languages and versions."""
    tags = _chosen(container.metadata)
    if container.format.name == "ogg" and audio is not None:
        tags = _chosen(audio.metadata) | tags
    return tags


def _chosen(metadata: Mapping[str, str]) -> dict[str, str]:
    tags: dict[str, str] = {}
    for key, value in metadata.items():
        name = key.lower()
        if name in TAGS and name not in tags and (text := _clean(value)):
            tags[name] = text
    return tags


def _clean(value: str) -> str:
    """One line of text: old tags are in no encoding that they name, most of them in that of Western Windows."""
    raw = value.encode("utf-8", "surrogateescape")
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        text = raw.decode("cp1252", "replace")
    spaced = "".join(" " if unicodedata.category(letter) == "Cc" else letter for letter in text)
    return " ".join(unicodedata.normalize("NFC", spaced).split())[:MAX_TAG_LENGTH].strip()
