"""What a service is started with."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mmrec.errors import ServiceError
from mmrec.remote import Url, to_place

MIB = 2**20
SHORTEST_TOKEN = 16


@dataclass(frozen=True, kw_only=True)
class ServiceConfig:
    """What is served, to whom, and how much of it.

    Args:
        store: the folder of the feature store; `encoder_set` names one of its sets.
        models: folders of fitted models; the first answers where a request names none, the others go by the names of
            their folders.
        state: the SQLite file of live interactions; by default beside the folder of the first model, or of the store,
            as `model.interactions.sqlite`.
        media_root: media are served from below this folder, or URL, alone; by default from below the deepest folder
            that all of the catalog's files lie in, and from all URLs that it names.
        allow_hosts: `https` media are served from these hosts alone.
        fold: what `mmrec duplicates --json` printed: of items that are the same, lists and searches show the best one.
        host, port: where it listens. Anything but this machine needs a `token`.
        token: what requests must bring as `Authorization: Bearer ...`; empty: none is asked for.
        workers: processes that answer.
        max_upload_bytes: of a file to search by; `max_body_bytes` of any other body.
        upload_seconds: for a body to arrive.
        requests_per_second: of one client to one worker, with bursts of twice as many; 0: any number.

    >>> from mmrec.service import ServiceConfig
    >>> ServiceConfig(store="store", host="0.0.0.0")
    Traceback (most recent call last):
    mmrec.errors.ServiceError: host 0.0.0.0 is open to other machines: set a token of at least 16 characters
    """

    store: str | Path | Url
    encoder_set: str = ""
    models: Sequence[str | Path] = ()
    state: str | Path | None = None
    media_root: str | Path | Url | None = None
    allow_hosts: Sequence[str] = ()
    fold: str | Path | None = None
    host: str = "127.0.0.1"
    port: int = 8000
    token: str = ""
    workers: int = 1
    max_upload_bytes: int = 64 * MIB
    max_body_bytes: int = MIB
    upload_seconds: float = 60.0
    requests_per_second: float = 200.0

    def __post_init__(self) -> None:
        is_plain = self.token.isascii() and self.token.isprintable() and " " not in self.token
        if self.token and (len(self.token) < SHORTEST_TOKEN or not is_plain):
            raise ServiceError(f"the token is too easy to guess: expected at least {SHORTEST_TOKEN} letters or digits")
        if not self.token and not self.is_local:
            raise ServiceError(
                f"host {self.host} is open to other machines: set a token of at least {SHORTEST_TOKEN} characters"
            )
        for name, least in (("workers", 1), ("max_upload_bytes", 1), ("max_body_bytes", 1), ("port", 0)):
            if getattr(self, name) < least:
                raise ServiceError(f"{name} is {getattr(self, name)}: expected at least {least}")
        if not self.upload_seconds > 0 or not self.requests_per_second >= 0:
            raise ServiceError("upload_seconds must be above 0, and requests_per_second at least 0")
        names = [Path(folder).resolve().name for folder in self.models]
        if len(set(names)) < len(names):
            raise ServiceError(
                f"models are told apart by the names of their folders, and two are named {_again(names)}"
            )

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach it."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def state_path(self) -> Path:
        if self.state is not None:
            return Path(self.state)
        if not self.models and isinstance(to_place(self.store, ServiceError), Url):
            raise ServiceError(f"{self.store} has no folder beside it for live interactions: name a file by --state")
        beside = Path(self.models[0] if self.models else self.store).resolve()
        return beside.with_name(f"{beside.name}.interactions.sqlite")


def _again(names: Sequence[str]) -> str:
    return next(name for name in names if names.count(name) > 1)
