"""The encoders of a preset, loaded when they are needed; until then their fingerprints, as they were recalled.

So a job that has nothing to do, as most nights, need not load its encoders to see that.
"""

from __future__ import annotations

import hashlib
import json
import os
import site
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from encoders.base import KINDS
from mmrec.embedding.presets import EncoderSpec, Preset
from mmrec.errors import RemoteError
from mmrec.remote import Place, text_if_there, write_text
from mmrec.store import Modality

if TYPE_CHECKING:
    from mmrec.embedding.preset_encoders import PresetEncoders

_FILE = "encoders.json"
_OWN_CODE = ("encoders", "mmrec.embedding", "mmrec.media")


class EncodersChanged(Exception):
    """The encoders are others than was recalled: what was planned by their fingerprints is to be planned again."""


class LazyEncoders:
    """The encoders of a preset, with the fingerprints that the job on this folder found last for the same setting.

    Loads at once where none are known. Raises `EncoderError` where an encoder cannot be had.
    """

    def __init__(self, preset: Preset, folder: Place, **loading: Any) -> None:
        self.preset = preset
        self._path, self._loading = folder / _FILE, loading
        self._setting = _setting(preset, loading)
        self._recalled = _recalled(self._path, self._setting)
        if self._recalled is None:
            self._loaded  # noqa: B018 - before a store is made for it

    @property
    def fingerprints(self) -> Mapping[Modality, str]:
        return self._loaded.fingerprints if self._recalled is None else self._recalled

    def load(self) -> PresetEncoders:
        """Raises `EncodersChanged` where they are not those that were recalled."""
        recalled, self._recalled = self._recalled, None
        if recalled is not None and recalled != dict(self._loaded.fingerprints):
            raise EncodersChanged
        return self._loaded

    def remember(self) -> None:
        """Let the next job recall the fingerprints."""
        if self._setting is not None and self._recalled is None:
            with suppress(OSError, RemoteError):  # it is only slower without
                write_text(self._path, json.dumps({self._setting: dict(self.fingerprints)}))

    @cached_property
    def _loaded(self) -> PresetEncoders:
        from mmrec.embedding.preset_encoders import load_preset_encoders

        return load_preset_encoders(self.preset, **self._loading)


def _recalled(path: Place, setting: str | None) -> dict[Modality, str] | None:
    try:
        found = json.loads(text_if_there(path) or "{}").get(setting)
    except (OSError, ValueError, AttributeError, RemoteError):
        return None
    return found if isinstance(found, dict) else None


def _setting(preset: Preset, loading: Mapping[str, Any]) -> str | None:
    """A hash of all that the fingerprints depend on, as far as it can be seen without a load.

    It covers the preset, the ways of the load, the code, what is installed, the devices, and the files of
    checkpoints. None where they cannot be seen: for encoders of other packages and revisions that may move.
    """
    specs = [spec for spec in (preset.visual, preset.audio, preset.text) if spec is not None]
    files = [_checkpoint_files(spec) for spec in specs]
    if any(found is None for found in files) or any(spec.kind not in KINDS for spec in specs):
        return None
    devices = [os.path.exists("/dev/nvidiactl"), os.environ.get("CUDA_VISIBLE_DEVICES"), os.cpu_count()]
    installed = [_state(Path(folder)) for folder in (*site.getsitepackages(), site.getusersitepackages())]
    parts = [asdict(preset), loading, devices, installed, list(_own_code()), files]
    return hashlib.blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=16).hexdigest()


def _own_code() -> Iterator[list[Any]]:
    for package in _OWN_CODE:
        found = find_spec(package)
        for folder in (found and found.submodule_search_locations) or ():
            yield from (_state(path) for path in sorted(Path(folder).glob("*.py")))


def _checkpoint_files(spec: EncoderSpec) -> list[list[Any]] | None:
    name = str(spec.options.get("checkpoint", ""))
    if name.startswith("package:") or not name:
        return []  # what is installed covers it
    if Path(name).is_dir():
        return [_state(path) for path in sorted(Path(name).rglob("*"))]
    return [] if spec.options.get("revision") else None


def _state(path: Path) -> list[Any]:
    try:
        status = path.stat()
    except OSError:
        return [str(path)]
    return [str(path), status.st_size, status.st_mtime_ns]
