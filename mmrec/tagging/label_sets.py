"""Sets of labels: each label with prompts, which say in several languages what it means."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from mmrec.errors import TaggingError
from mmrec.store import SearchColumns
from mmrec.tables import SUFFIXES, Table, is_missing, local_path, to_text

BUILT_IN = ("topic", "emotion", "scene")
UNSAID = ""
"""The language of prompts that do not say which it is."""
_YAML = (".yaml", ".yml")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_UNSAID_NAMES = ("prompt", "prompts")

Prompts = Mapping[str, Sequence[str]]
"""Language (ISO 639-1) -> prompts."""


@dataclass(frozen=True, slots=True)
class LabelSet:
    """Labels with their prompts, by language. Raises `TaggingError` for an empty prompt and a name that is no column.

    >>> import mmrec.tagging
    >>> mood = mmrec.tagging.LabelSet("mood", {"calm": {"en": ["quiet music"]}, "wild": {"en": ["loud drums"]}})
    >>> mood.labels
    ['calm', 'wild']
    """

    name: str
    prompts: Mapping[str, Prompts]

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise TaggingError(
                f"labels named {self.name!r}: expected a letter, then letters, digits, - and _: say --as NAME"
            )
        if self.name in SearchColumns({}):
            raise TaggingError(f"labels named {self.name!r}, as a column of all items is: say --as NAME")
        if not self.prompts:
            raise TaggingError(f"the set {self.name!r} has no labels: expected at least one")
        for label, by_language in self.prompts.items():
            if not any(map(str.isalnum, label)):
                raise TaggingError(f"the set {self.name!r} has a label {label!r}: expected a word")
            for language, texts in by_language.items():
                if not texts or not all(any(map(str.isalnum, text)) for text in texts):
                    where = f" in {language!r}" if language else ""
                    raise TaggingError(f"label {label!r} has an empty prompt{where}: say what it means")

    @property
    def labels(self) -> list[str]:
        return list(self.prompts)


def read_labels(source: str | os.PathLike[str], *, name: str = "") -> LabelSet:
    """One of the sets `topic`, `emotion` and `scene`, or one from a file, named as the file is if not otherwise.

    In YAML, label -> language -> prompts, or label -> prompts. In CSV, JSONL and Parquet, a column `label` and one of
    prompts, joined by `|`, for each language; or `prompts`, which does not say which. A label without any is its own.

    Raises `TaggingError` where that cannot be read, for a label that repeats, and for prompts that are empty.

    >>> import mmrec.tagging
    >>> topics = mmrec.tagging.read_labels("topic")
    >>> len(topics.labels), topics.prompts["cooking"]["de"][0]
    (27, 'Kochen und Essen')
    """
    if isinstance(source, str) and source in BUILT_IN:
        text = (files("mmrec.tagging") / "sets" / f"{source}.yaml").read_text(encoding="utf-8")
        return LabelSet(name or source, _from_yaml(text, source))
    path = Path(source)
    if path.suffix.lower() not in (*_YAML, *SUFFIXES):
        raise TaggingError(
            f"there is no set of labels {str(source)!r}: known are {', '.join(BUILT_IN)}, or a file that ends in "
            f"{', '.join((*_YAML, *SUFFIXES))}"
        )
    if not path.exists():
        raise TaggingError(f"there is no file of labels {path}")
    try:
        prompts = _read_yaml(path) if path.suffix.lower() in _YAML else _read_table(path)
        return LabelSet(name or path.stem, prompts)
    except TaggingError as error:
        raise TaggingError(f"{error}" if str(path) in str(error) else f"{path}: {error}") from None


def _read_yaml(path: Path) -> dict[str, Prompts]:
    try:
        return _from_yaml(path.read_text(encoding="utf-8-sig"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise TaggingError(f"{path} cannot be read: {error}") from None


def _from_yaml(text: str, where: str) -> dict[str, Prompts]:
    import yaml

    try:
        root = yaml.compose(text, Loader=yaml.BaseLoader)
    except yaml.YAMLError as error:
        raise TaggingError(f"{where} is not YAML: {error}") from None
    if not isinstance(root, yaml.MappingNode):
        raise TaggingError(f"{where}: expected a mapping of labels to prompts")
    prompts: dict[str, Prompts] = {}
    for key, node in root.value:
        label = str(key.value)
        if label in prompts:
            raise TaggingError(f"{where}, line {key.start_mark.line + 1}: the label {label!r} repeats: name it once")
        by_language = dict(_languages(node, label, where))
        prompts[label] = by_language or {UNSAID: [label]}
    return prompts


def _languages(node: Any, label: str, where: str) -> Iterator[tuple[str, list[str]]]:
    import yaml

    if not isinstance(node, yaml.MappingNode):
        if node.value != "":
            yield UNSAID, _texts(node, label, where)
        return
    seen = set()
    for key, inner in node.value:
        language = str(key.value)
        if language in seen:
            raise TaggingError(f"{where}, line {key.start_mark.line + 1}: {language!r} repeats in label {label!r}")
        seen.add(language)
        yield (UNSAID if language in _UNSAID_NAMES else language), _texts(inner, label, where)


def _texts(node: Any, label: str, where: str) -> list[str]:
    import yaml

    nodes = node.value if isinstance(node, yaml.SequenceNode) else [node]
    for inner in nodes:
        if not isinstance(inner, yaml.ScalarNode):
            line = inner.start_mark.line + 1
            raise TaggingError(f"{where}, line {line}: label {label!r}: expected a text or a list of texts as prompts")
    return [str(inner.value) for inner in nodes]


def _read_table(path: Path) -> dict[str, Prompts]:
    table = Table(local_path(path, TaggingError), known=["label"], required=["label"], others=True, error=TaggingError)
    prompts: dict[str, Prompts] = {}
    for row, values in table.rows():
        label = to_text(values.pop("label", None)).strip()
        if not label:
            raise TaggingError(f"{table.where(row)}: the label is missing")
        if label in prompts:
            raise TaggingError(
                f"{table.where(row)}: the label {label!r} repeats: name it once, its prompts joined by |"
            )
        by_language = {
            (UNSAID if name in _UNSAID_NAMES else name): _cell(value)
            for name, value in values.items()
            if not is_missing(value) and value != ""
        }
        prompts[label] = by_language or {UNSAID: [label]}
    return prompts


def _cell(value: Any) -> list[str]:
    parts = value if isinstance(value, list | tuple) else to_text(value).split("|")
    return [to_text(part).strip() for part in parts]
