"""Presets: named sets of encoders and sampling plans, as data. A YAML file of the same shape defines another."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from typing import Any

from encoders.cleaning import clean_text
from mmrec.catalog import Item
from mmrec.errors import EncoderError, MMRecError
from mmrec.media import FrameSampling, SoundSampling

TEXT_FIELDS = ("title", "description", "tags", "language")


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderSpec:
    """Which encoder to load: its kind and the options that kind takes; what its weights weigh, and their licence.

    `fallback` is loaded, with a warning, where the encoder cannot be had; without one that is an error.
    """

    kind: str
    options: Mapping[str, Any] = field(default_factory=dict)
    megabytes: int = 0
    licence: str = ""
    fallback: EncoderSpec | None = None

    def as_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, **self.options}


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """One encoder per modality, None where the modality is not wanted, and what is sampled for each.

    `text_template` makes the text of an item from `$title`, `$description`, `$tags` and `$language`; lines that stay
    empty are dropped.
    """

    name: str
    summary: str = ""
    visual: EncoderSpec | None = None
    audio: EncoderSpec | None = None
    text: EncoderSpec | None = None
    frames: FrameSampling = field(default_factory=FrameSampling)
    sound: SoundSampling = field(default_factory=SoundSampling)
    text_template: str = "$title\n$description\n$tags"

    def __post_init__(self) -> None:
        if not (self.visual or self.audio or self.text):
            raise EncoderError(f"preset {self.name!r} names no encoder: give at least one of visual, audio and text")
        template = Template(self.text_template)
        unknown = set(template.get_identifiers()) - set(TEXT_FIELDS)
        if unknown or not template.is_valid():
            raise EncoderError(
                f"text_template {self.text_template!r}: it may use {', '.join('$' + f for f in TEXT_FIELDS)}"
            )

    def text_of(self, item: Item) -> str:
        """What is encoded of an item's words; empty where it has none."""
        fields = {
            "title": item.title,
            "description": item.description,
            "tags": ", ".join(item.tags),
            "language": item.language,
        }
        cleaned = {name: clean_text(value) for name, value in fields.items()}
        if not (cleaned["title"] or cleaned["description"] or cleaned["tags"]):
            return ""
        lines = Template(self.text_template).substitute(cleaned).splitlines()
        return "\n".join(line.strip() for line in lines if line.strip())


PRESETS = {
    "base": Preset(
        name="base",
        summary="CLIP ViT-B/32, wav2vec2-base and a small multilingual E5",
        visual=EncoderSpec(
            kind="open-clip",
            options={
                "checkpoint": "hf-hub:laion/CLIP-ViT-B-32-laion2B-s34B-b79K",
                "revision": "1a25a446712ba5ee05982a381eed697ef9b435cf",
            },
            megabytes=605,
            licence="MIT",
        ),
        audio=EncoderSpec(
            kind="wav2vec2",
            options={
                "checkpoint": "facebook/wav2vec2-base-960h",
                "revision": "22aad52d435eb6dbaf354bdad9b0da84ce7d6156",
                "layers": "mean",
            },
            megabytes=378,
            licence="Apache-2.0",
        ),
        text=EncoderSpec(
            kind="sentence-transformer",
            options={
                "checkpoint": "intfloat/multilingual-e5-small",
                "revision": "fd1525a9fd15316a2d503bf26ab031a61d056e98",
                "document_prompt": "passage: ",
                "query_prompt": "query: ",
            },
            megabytes=493,
            licence="MIT",
        ),
        frames=FrameSampling(mode="uniform", count=8),
        sound=SoundSampling(mode="windows", window_seconds=5.0, count=8),
    ),
    "large": Preset(
        name="large",
        summary="CLIP ViT-L/14, CLAP and a multilingual E5",
        visual=EncoderSpec(
            kind="open-clip",
            options={
                "checkpoint": "hf-hub:laion/CLIP-ViT-L-14-laion2B-s32B-b82K",
                "revision": "1627032197142fbe2a7cfec626f4ced3ae60d07a",
            },
            megabytes=1711,
            licence="MIT",
        ),
        audio=EncoderSpec(
            kind="clap",
            options={
                "checkpoint": "laion/clap-htsat-unfused",
                "revision": "79b58ed25fc00386262a2bea4b19fd21dc4310a0",
            },
            megabytes=615,
            licence="Apache-2.0",
        ),
        text=EncoderSpec(
            kind="sentence-transformer",
            options={
                "checkpoint": "intfloat/multilingual-e5-base",
                "revision": "d128750597153bb5987e10b1c3493a34e5a4502a",
                "document_prompt": "passage: ",
                "query_prompt": "query: ",
            },
            megabytes=1112,
            licence="MIT",
        ),
        frames=FrameSampling(mode="uniform", count=16),
        sound=SoundSampling(mode="windows", window_seconds=10.0, count=8),
    ),
    "light": Preset(
        name="light",
        summary="no download: EfficientNet-Lite0 and descriptors, log-mel statistics, sentences of 16 languages",
        visual=EncoderSpec(kind="efficientnet-lite", licence="Apache-2.0", fallback=EncoderSpec(kind="descriptors")),
        audio=EncoderSpec(kind="log-mel"),
        text=EncoderSpec(kind="universal-sentences", licence="Apache-2.0", fallback=EncoderSpec(kind="hashed-ngrams")),
        frames=FrameSampling(mode="uniform", count=8),
        sound=SoundSampling(mode="windows", window_seconds=5.0, count=8),
    ),
    "descriptors": Preset(
        name="descriptors",
        summary="no weights at all: colour, edge and motion descriptors, log-mel statistics, character n-grams",
        visual=EncoderSpec(kind="descriptors"),
        audio=EncoderSpec(kind="log-mel"),
        text=EncoderSpec(kind="hashed-ngrams"),
        frames=FrameSampling(mode="uniform", count=8),
        sound=SoundSampling(mode="windows", window_seconds=5.0, count=8),
    ),
}


def load_preset(name: str | os.PathLike[str]) -> Preset:
    """A preset by its name, or from a YAML file.

    Raises `EncoderError` for an unknown name, and for a file with unknown keys or values out of range.
    """
    if isinstance(name, str) and name in PRESETS:
        return PRESETS[name]
    path = Path(name)
    if path.suffix.lower() not in {".yaml", ".yml"}:
        raise EncoderError(
            f"there is no preset {str(name)!r}: known are {', '.join(PRESETS)}, or a file that ends in .yaml"
        )
    return _read_preset(path)


def _read_preset(path: Path) -> Preset:
    import yaml

    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise EncoderError(f"there is no preset file {path}") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise EncoderError(f"preset {path} cannot be read: {error}") from None
    if not isinstance(values, dict):
        raise EncoderError(f"preset {path}: expected keys such as visual, audio, text, frames, sound")
    try:
        return _to_preset({"name": path.stem, **values})
    except MMRecError as error:
        raise EncoderError(f"preset {path}: {error}") from error


def _to_preset(values: dict[str, Any]) -> Preset:
    _refuse_unknown(values, Preset, "the preset")
    parsed: dict[str, Any] = dict(values)
    for modality in ("visual", "audio", "text"):
        if values.get(modality) is not None:
            parsed[modality] = _to_spec(values[modality], modality)
    for key, kind in (("frames", FrameSampling), ("sound", SoundSampling)):
        if key in values:
            _refuse_unknown(values[key], kind, key)
            parsed[key] = kind(**values[key])
    for key in ("name", "summary", "text_template"):
        if key in parsed and not isinstance(parsed[key], str):
            raise EncoderError(f"{key} is {parsed[key]!r}: expected text")
    return Preset(**parsed)


def _to_spec(values: Any, modality: str) -> EncoderSpec:
    if not isinstance(values, dict) or not isinstance(values.get("kind"), str):
        raise EncoderError(f"{modality} is {values!r}: expected a mapping with the encoder's kind and its options")
    options = {str(key): value for key, value in values.items() if key != "kind"}
    if "device" in options or "precision" in options:
        raise EncoderError(f"{modality}: device and precision are chosen by the job, not by the preset")
    return EncoderSpec(kind=values["kind"], options=options)


def _refuse_unknown(values: Any, kind: type, where: str) -> None:
    if not isinstance(values, dict):
        raise EncoderError(f"{where} is {values!r}: expected a mapping")
    known = [f.name for f in dataclasses.fields(kind)]
    unknown = [str(key) for key in values if key not in known]
    if unknown:
        raise EncoderError(f"{where} has the unknown key {', '.join(map(repr, unknown))}: known are {', '.join(known)}")
