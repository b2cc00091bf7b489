"""The versions of a model in one folder: each is there wholly or not at all, and a pointer names the one to read.

    model/current           the number of the version that readers take, replaced in one step
    model/versions/3/       the files of a version, and `manifest.json` with their checksums
    model/checkpoints/      of a fit that is not done

Any number of processes may read while one writes; writers wait for each other.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import filelock
from safetensors import SafetensorError

from mmrec.errors import MMRecError, ModelError
from mmrec.tables import local_path

FORMAT = 6
KEPT = 3
POINTER, VERSIONS, MANIFEST = "current", "versions", "manifest.json"
Folder = str | os.PathLike[str]
T = TypeVar("T")


@dataclass(frozen=True)
class ModelVersion:
    """A version of a model: when it was saved (UTC), what it ranks, and its figures on validation, if there was any."""

    number: int
    saved_at: str
    items: int
    users: int
    validation: dict[str, float]
    is_current: bool


@dataclass(frozen=True)
class Summary:
    """What the manifest of a version says of it."""

    items: int
    users: int
    validation: dict[str, float]


def publish(
    folder: Folder, write: Callable[[Path], None], read: Callable[[Path], object], summary: Summary, keep: int = KEPT
) -> int:
    """Make a version the one that readers take; returns its number.

    Args:
        write: puts the files of the version into a folder that nobody reads yet.
        read: raises `MMRecError` where these files are not a model.
        keep: how many of the latest versions stay, this one included.

    Raises `ModelError` where it cannot be written; then the folder is as it was.
    """
    if keep < 1:
        raise ModelError(f"the number of versions to keep is {keep}: expected at least 1")
    folder = local_path(folder, ModelError)
    with _write_errors(folder):
        versions = folder / VERSIONS
        versions.mkdir(parents=True, exist_ok=True)
        with model_lock(folder):
            _sweep(versions)
            number = max(_numbers(folder), default=0) + 1
            partial, pointer = versions / ".partial", versions / ".pointer"
            try:
                partial.mkdir()
                write(partial)
                _seal(partial, summary)
                read(partial)
                _write_pointer(pointer, number)
                partial.rename(versions / str(number))
                _sync(versions)
                os.replace(pointer, folder / POINTER)
                _sync(folder)
            finally:
                _sweep(versions)
            _remove(folder, _numbers(folder)[:-keep])
    return number


def read_current(folder: Folder, read: Callable[[Path], T]) -> T:
    """What `read` makes of the files of the current version; of the next, where that one goes while it is read."""
    folder = local_path(folder, ModelError)
    while True:
        number = current_version(folder)
        try:
            return read(_path(folder, number))
        except MMRecError:
            if current_version(folder) == number:
                raise


def current_version(folder: Folder) -> int:
    """The number of the version that readers take; raises `ModelError` where there is no model.

    >>> from mmrec.recommending import Recommender, RecommenderConfig, current_version
    >>> from mmrec.store import FeatureStore
    >>> config = RecommenderConfig.from_mapping({"dim": 16, "max_epochs": 1})
    >>> model = Recommender.fit(FeatureStore("store"), "interactions.csv", config=config)
    >>> model.save("model")
    1
    >>> model.save("model"), current_version("model")
    (2, 2)
    """
    path = Path(folder)
    try:
        return int((path / POINTER).read_text(encoding="utf-8"))
    except ValueError:
        raise ModelError(f"model {path} is damaged ({POINTER} holds no number): fit it anew") from None
    except OSError:
        if any(path.glob("items*.lance")):
            raise ModelError(
                f"{path} is a feature store, not a model: `mmrec fit --store {path} --model MODEL` makes one"
            ) from None
        if (path / "model.json").is_file():
            raise ModelError(f"model {path} was saved by an earlier version of mmrec: fit it anew") from None
        raise ModelError(
            f"there is no model at {path}: make one with `mmrec fit --store STORE --model {path}`"
        ) from None


def list_versions(folder: Folder) -> list[ModelVersion]:
    """The versions of a model, oldest first. Raises `ModelError` where there is no model, or a manifest is damaged.

    >>> from mmrec.recommending import list_versions
    >>> [version.number for version in list_versions("model")]    # doctest: +SKIP
    [4, 5, 6]
    """
    current = current_version(folder)
    found = []
    for number in _numbers(Path(folder)):
        manifest = _manifest(_path(folder, number))
        summary = {name: manifest[name] for name in ("saved_at", "items", "users", "validation")}
        found.append(ModelVersion(number, **summary, is_current=number == current))
    return found


def rollback(folder: Folder, number: int | None = None) -> int:
    """Make an earlier version the current one again, by default the one before it; returns its number.

    Raises `ModelError` where there is no such version, or it is damaged.

    >>> from mmrec.recommending import rollback
    >>> rollback("model", 4)    # doctest: +SKIP
    4
    """
    folder = Path(folder)
    current = current_version(folder)
    with _write_errors(folder), model_lock(folder):
        there = _numbers(folder)
        if number is None:
            number = max((version for version in there if version < current), default=0)
            if not number:
                raise ModelError(f"model {folder} has no version before {current}: there is nothing to go back to")
        if number not in there:
            raise ModelError(f"model {folder} has no version {number}; it has {', '.join(map(str, there))}")
        check_files(_path(folder, number))
        pointer = folder / VERSIONS / ".pointer"
        _write_pointer(pointer, number)
        os.replace(pointer, folder / POINTER)
        _sync(folder)
    return number


@contextmanager
def model_lock(folder: Folder) -> Iterator[None]:
    """While it is held, no other thread or process changes the model in this folder; `save` may be called within."""
    with filelock.FileLock(Path(folder) / ".lock", is_singleton=True):
        yield


def check_files(path: Path) -> None:
    """Raises `ModelError` where the files of a version are not those that were saved."""
    for name, sealed in _manifest(path)["files"].items():
        try:
            found = _checksum(path / name)
        except OSError as error:
            raise damaged(path, f"{name}: {error.strerror or error}") from error
        if found != sealed:
            raise damaged(path, f"{name} is not the file that was saved")


def damaged(path: Path, detail: object) -> ModelError:
    words = " ".join(str(detail).split())
    return ModelError(f"model {path} is damaged ({words}): fit it anew, or go back with `mmrec rollback`")


def _manifest(path: Path) -> dict[str, Any]:
    try:
        manifest: dict[str, Any] = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        found = manifest["format"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise damaged(path, f"{MANIFEST}: {error}") from error
    if found != FORMAT:
        raise ModelError(f"model {path} has format {found}; this version reads {FORMAT}: fit it anew")
    return manifest


def _seal(path: Path, summary: Summary) -> None:
    """Bring the files of a version to disk, and write their checksums; all get the mode that the umask gives."""
    files = sorted(path.iterdir())
    for file in files:
        _sync(file)
    manifest: Mapping[str, Any] = {
        "format": FORMAT,
        "saved_at": datetime.now(UTC).isoformat(timespec="seconds"),
        **asdict(summary),
        "files": {file.name: _checksum(file) for file in files},
    }
    (path / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    mode = (path / MANIFEST).stat().st_mode
    for file in files:
        file.chmod(mode)
    _sync(path / MANIFEST)
    _sync(path)


def _checksum(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "blake2b").hexdigest()[:32]


def _write_pointer(path: Path, number: int) -> None:
    path.write_text(f"{number}\n", encoding="utf-8")
    _sync(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _path(folder: Folder, number: int) -> Path:
    return Path(folder) / VERSIONS / str(number)


def _numbers(folder: Path) -> list[int]:
    """The versions that are there, ascending."""
    versions = folder / VERSIONS
    return sorted(int(path.name) for path in versions.iterdir() if path.name.isdecimal()) if versions.is_dir() else []


def _remove(folder: Path, numbers: list[int]) -> None:
    for number in numbers:
        _path(folder, number).rename(folder / VERSIONS / f".removed-{number}")
    _sweep(folder / VERSIONS)


def _sweep(versions: Path) -> None:
    """Delete what is not a version, as a killed job leaves it behind."""
    for path in versions.glob(".*"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()


@contextmanager
def _write_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        words = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise ModelError(f"model {folder} cannot be written: {words}") from error
