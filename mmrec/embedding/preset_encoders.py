"""The encoders of a preset, loaded, with what each wants decoded and the fingerprint of all that makes its tokens."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
import logging
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from encoders.base import (
    AudioEncoder,
    Encoder,
    VisualEncoder,
    encoder_factory,
    load_encoder,
)
from encoders.base import EncoderError as LoadError
from encoders.checkpoints import fetch as fetch_checkpoint
from encoders.devices import resolve_device
from encoders.languages import language_of
from mmrec.catalog import Item
from mmrec.embedding.presets import EncoderSpec, Preset
from mmrec.errors import EncoderError
from mmrec.media import FramePlan, SoundPlan
from mmrec.store import EncoderRecord, Modality

if TYPE_CHECKING:
    import torch

DECODER_REVISION = 3
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PresetEncoders:
    """One loaded encoder per wanted modality, the plans that decoding follows for them, and their device."""

    preset: Preset
    encoders: Mapping[Modality, Encoder]
    specs: Mapping[Modality, EncoderSpec]
    frames: FramePlan | None
    sound: SoundPlan | None
    fingerprints: Mapping[Modality, str]
    device: torch.device

    def language(self, item: Item, text: str) -> str | None:
        """The language of an item, as an ISO 639 code: its row says it, or its words do; None where neither."""
        if item.language.strip():
            return re.split(r"[-_]", item.language.strip().lower())[0]
        try:
            return language_of(text)
        except LoadError:
            return None

    def reads(self, language: str | None) -> bool:
        """Whether the text encoder knows a language; True where that cannot be told."""
        known: frozenset[str] | None = getattr(self.encoders.get("text"), "languages", None)
        return language is None or known is None or language in known

    def records(self) -> list[EncoderRecord]:
        return [
            EncoderRecord(
                fingerprint=self.fingerprints[modality],
                modality=modality,
                name=encoder.name,
                dim=encoder.dim,
                spec=self.specs[modality].as_dict(),
                encoder_fingerprint=encoder.fingerprint,
            )
            for modality, encoder in self.encoders.items()
        ]


def load_preset_encoders(
    preset: Preset, *, device: str = "auto", precision: str = "auto", allow_pickle: bool = False
) -> PresetEncoders:
    """Load the encoders of a preset. Raises `EncoderError` where one cannot be had, before anything is decoded."""
    encoders: dict[Modality, Encoder] = {}
    specs: dict[Modality, EncoderSpec] = {}
    wanted: dict[Modality, EncoderSpec | None] = {"visual": preset.visual, "audio": preset.audio, "text": preset.text}
    for modality, spec in wanted.items():
        if spec is not None:
            specs[modality], encoders[modality] = _load(spec, device, precision, allow_pickle)
            if encoders[modality].modality != modality:
                raise EncoderError(
                    f"preset {preset.name!r}: {spec.kind!r} embeds {encoders[modality].modality}, not {modality}"
                )
    frames = _frame_plan(preset, cast("VisualEncoder", encoders["visual"])) if "visual" in encoders else None
    sound = _sound_plan(preset, cast("AudioEncoder", encoders["audio"])) if "audio" in encoders else None
    inputs: dict[Modality, Any] = {
        "visual": frames and dataclasses.asdict(frames),
        "audio": sound and dataclasses.asdict(sound),
        "text": preset.text_template,
    }
    fingerprints = {modality: _fingerprint(encoder, inputs[modality]) for modality, encoder in encoders.items()}
    return PresetEncoders(preset, encoders, specs, frames, sound, fingerprints, resolve_device(device))


def load_recorded_encoders(records: Collection[EncoderRecord]) -> PresetEncoders:
    """The encoders of these records, of a modality each, with the sampling that a preset has where it names none.

    Raises `EncoderError` as `load_recorded`.
    """
    encoders = {record.modality: load_recorded(record) for record in records}
    options = {record.modality: dict(record.spec) for record in records}
    specs = {modality: EncoderSpec(kind=kept.pop("kind"), options=kept) for modality, kept in options.items()}
    preset = Preset(name="as recorded", visual=specs.get("visual"), audio=specs.get("audio"), text=specs.get("text"))
    return PresetEncoders(
        preset=preset,
        encoders=encoders,
        specs=specs,
        frames=_frame_plan(preset, cast("VisualEncoder", encoders["visual"])) if "visual" in encoders else None,
        sound=_sound_plan(preset, cast("AudioEncoder", encoders["audio"])) if "audio" in encoders else None,
        fingerprints={record.modality: record.fingerprint for record in records},
        device=resolve_device("auto"),
    )


def load_recorded(record: EncoderRecord) -> Encoder:
    """Load the encoder that made the tokens of a record, in the precision in which it made them.

    Raises `EncoderError` where it cannot be had, or has changed since.
    """
    for precision in ("auto", "float32", "bfloat16", "float16"):
        try:
            encoder = load_encoder(**dict(record.spec), precision=precision)
        except LoadError as error:
            raise EncoderError(str(error)) from error
        if encoder.dim == record.dim and record.encoder_fingerprint in ("", encoder.fingerprint):
            return encoder
    raise EncoderError(f"the {record.modality} encoder {record.name!r} has changed since the items were embedded")


def fetch(preset: Preset, *, allow_pickle: bool = False) -> dict[Modality, Path | None]:
    """Download what the encoders of a preset need and the cache has not; None for one that needs nothing.

    Raises `EncoderError` where something cannot be had.
    """
    specs: dict[Modality, EncoderSpec | None] = {"visual": preset.visual, "audio": preset.audio, "text": preset.text}
    try:
        return {
            modality: fetch_checkpoint(spec.kind, **{**spec.options, "allow_pickle": allow_pickle})
            for modality, spec in specs.items()
            if spec is not None
        }
    except LoadError as error:
        raise EncoderError(str(error)) from error


def _load(spec: EncoderSpec, device: str, precision: str, allow_pickle: bool) -> tuple[EncoderSpec, Encoder]:
    options = dict(spec.options)
    try:
        if allow_pickle and "allow_pickle" in inspect.signature(encoder_factory(spec.kind)).parameters:
            options["allow_pickle"] = True
        return spec, load_encoder(spec.kind, device=device, precision=precision, **options)
    except LoadError as error:
        if spec.fallback is None:
            raise EncoderError(str(error)) from error
        logger.warning("%s instead of %s: %s", spec.fallback.kind, spec.kind, error)
    return _load(spec.fallback, device, precision, allow_pickle)


def _frame_plan(preset: Preset, encoder: VisualEncoder) -> FramePlan:
    height, width = encoder.frame_size
    return FramePlan(
        sampling=preset.frames,
        height=height,
        width=width,
        fit=encoder.frame_fit,
        interpolation=encoder.interpolation,
        offsets=encoder.frame_offsets,
    )


def _sound_plan(preset: Preset, encoder: AudioEncoder) -> SoundPlan:
    return SoundPlan(sampling=preset.sound, sample_rate=encoder.sample_rate, min_seconds=encoder.min_seconds)


def _fingerprint(encoder: Encoder, inputs: Any) -> str:
    parts = json.dumps([encoder.fingerprint, DECODER_REVISION, inputs], sort_keys=True)
    return hashlib.blake2b(parts.encode(), digest_size=12).hexdigest()
