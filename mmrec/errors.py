"""What can go wrong: errors are raised, problems are recorded.

MMRecError
├── CatalogError        the manifest cannot be read as a catalog
├── EncoderError        an encoder or preset cannot be had
├── StoreError          the feature store is missing, damaged, in use, or cannot be written
├── ModelError          a recommender cannot be fitted, read, or asked what it was asked
│   └── FitInterrupted  a fit was asked to stop before its end
├── RemoteError         an object store or a web server does not give, or take, what was asked
├── MediaError          a media file gives no picture, or no sound, to be shown
├── ChatError           a language model cannot be had, or its server does not answer
├── SearchError         a search cannot be understood, or cannot be answered by this store
├── TaggingError        labels, prompts or examples that cannot be used, or not with this store
├── InteractionError    interactions cannot be read, or do not fit the catalog
├── BaselineError  interactions or settings that a baseline cannot use
├── RankingError        vectors, exclusions or candidates do not fit together
├── EvaluationError     rankings and truth cannot be compared
└── ServiceError        a service cannot be started, or does not answer what it was asked

A `Problem` never stops a job: it is stored beside the item that has it.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from enum import StrEnum
from importlib.machinery import PathFinder
from importlib.util import find_spec, module_from_spec

OWN_PACKAGES = ("encoders", "fusion")


class MMRecError(Exception):
    """Base of every error that mmrec raises for its users."""


class CatalogError(MMRecError):
    """The manifest cannot be read as a catalog."""


class EncoderError(MMRecError):
    """An encoder or a preset cannot be had: unknown, missing, damaged or misconfigured."""


class StoreError(MMRecError):
    """The feature store is missing, damaged, in use by another job, or cannot be written."""


class ModelError(MMRecError):
    """A recommender cannot be fitted, read, or asked what it was asked."""


class SearchError(MMRecError):
    """A search that cannot be understood, or that this store cannot answer."""


class MediaError(MMRecError):
    """A media file that gives no picture, or no sound, to be shown; `problem` says why."""

    def __init__(self, media: os.PathLike[str], wanted: str, problem: Problem) -> None:
        super().__init__(f"{media} gives no {wanted}: {problem.reason}, {problem.detail}")
        self.problem = problem


class RemoteError(MMRecError):
    """An object store or a web server that does not give, or take, what was asked; `reason` is that of an item."""

    def __init__(self, message: str, reason: Reason) -> None:
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple[type[RemoteError], tuple[str, Reason]]:
        return RemoteError, (str(self), self.reason)


class ChatError(MMRecError):
    """A language model that cannot be had, or whose server does not answer."""


class TaggingError(MMRecError):
    """Labels, prompts or examples that cannot be used, or not with this store."""


class InteractionError(MMRecError):
    """Interactions that cannot be read, or that do not fit the catalog or each other."""


class LeakError(InteractionError):
    """Held-out interactions are present in training."""


class BaselineError(MMRecError):
    """Interactions or settings that a baseline cannot use."""


class RankingError(MMRecError):
    """Vectors, exclusions or candidates that do not fit together."""


class EvaluationError(MMRecError):
    """Rankings and held-out items that cannot be compared."""


class ServiceError(MMRecError):
    """A service that cannot be started so, or that does not answer what it was asked."""


class FitInterrupted(ModelError):
    """A fit was asked to stop before its end; the same fit goes on from its last epoch."""


class Reason(StrEnum):
    """The closed list of why a modality of an item has no tokens, or fewer than it should, or nothing was found out."""

    NO_MEDIA = "no_media"
    NO_STREAM = "no_stream"
    NO_TEXT = "no_text"
    NOT_WANTED = "not_wanted"
    NO_CONTENT = "no_content"
    MISSING_FILE = "missing_file"
    FORBIDDEN_PATH = "forbidden_path"
    NOT_A_FILE = "not_a_file"
    NOT_READABLE = "not_readable"
    NOT_MEDIA = "not_media"
    UNSUPPORTED = "unsupported"
    TOO_SHORT = "too_short"
    TOO_LARGE = "too_large"
    CORRUPT = "corrupt"
    TIMEOUT = "timeout"
    OUT_OF_MEMORY = "out_of_memory"
    CRASHED = "crashed"
    NOT_FINITE = "not_finite"
    NOT_ENCODED = "not_encoded"
    NO_ANSWER = "no_answer"
    INVALID_ANSWER = "invalid_answer"
    REFUSED = "refused"
    TOO_LONG = "too_long"

    @property
    def is_fault(self) -> bool:
        """False where the item simply does not have the modality, or the preset does not ask for it."""
        return self not in {Reason.NO_MEDIA, Reason.NO_STREAM, Reason.NO_TEXT, Reason.NOT_WANTED}

    @property
    def may_pass(self) -> bool:
        """True where another try, with more time or memory or rights, may do better on the same file."""
        return self in {
            Reason.TIMEOUT,
            Reason.OUT_OF_MEMORY,
            Reason.CRASHED,
            Reason.NOT_READABLE,
            Reason.NOT_A_FILE,
            Reason.NO_ANSWER,
        }


@dataclass(frozen=True, slots=True)
class Problem:
    """A reason, with the words of whoever found it."""

    reason: Reason
    detail: str = ""


def refuse_shadowed_packages() -> None:
    """Make sure that `encoders` and `fusion` are the packages beside mmrec, without importing what is in them.

    Raises:
        MMRecError: Python finds, or has imported, a file or package of that name which is another.
    """
    home = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    strangers = {name: found for name in OWN_PACKAGES if (found := _stranger(name, home))}
    if strangers:
        raise MMRecError(
            f"Python finds {' and '.join(strangers.values())} in place of mmrec's own {' and '.join(strangers)} in "
            f"{home}: rename what is in the way, or keep its folder off the path of Python (the current folder, "
            "the folder of the script, PYTHONPATH)"
        )


def _stranger(name: str, home: str) -> str | None:
    """The file or folder that Python takes for one of mmrec's own packages; None where that is the one at home."""
    own = PathFinder.find_spec(name, [home])
    if own is None or own.origin is None or own.loader is None:  # frozen into a program: nothing to be told apart
        return None
    try:
        found = find_spec(name)
    except ValueError:
        return f"a module {name!r} that no file belongs to"
    if found is None:
        return None
    if found.origin is not None:
        folders = (os.path.realpath(os.path.dirname(origin)) for origin in (found.origin, own.origin))
        return None if len(set(folders)) == 1 else found.origin
    if name in sys.modules:
        return next(iter(found.submodule_search_locations or ()), name)
    # A folder without __init__.py gives way to a package anywhere on the path, but the packages of an editable install
    # are not on it, and would be looked for too late.
    module = sys.modules[name] = module_from_spec(own)
    own.loader.exec_module(module)
    return None
