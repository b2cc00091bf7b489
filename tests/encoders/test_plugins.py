"""Encoders of other distributions: found by their entry points, listed, loaded, and named where they are broken."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from media_files import write_image

import mmrec
from encoders.base import KINDS, EncoderError, EncoderKind, encoder_factory, encoder_kinds, load_encoder
from mmrec.cli import main
from mmrec.embedding import load_preset, load_preset_encoders

ROOT = Path(__file__).resolve().parents[2]

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Puts a module with entry points, and what says that a distribution brought them, on the path."""
    monkeypatch.syspath_prepend(tmp_path)

    def put(distribution: str, code: str, **kinds: str) -> None:
        module = distribution.replace("-", "_")
        (tmp_path / f"{module}.py").write_text(code)
        facts = tmp_path / f"{module}-1.2.dist-info"
        facts.mkdir()
        (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.2\n")
        points = [f"{kind.replace('_', '-')} = {module}:{name}" for kind, name in kinds.items()]
        (facts / "entry_points.txt").write_text("\n".join(["[mmrec.encoders]", *points, ""]))
        monkeypatch.delitem(sys.modules, module, raising=False)

    return put


LENGTH = """
import torch
from encoders.base import fingerprint

class Length:
    name, modality, dim = "length", "text", 1
    def __init__(self, *, unit, power=1, device="auto", precision="auto"):
        self.fingerprint = fingerprint("length", 1, unit=unit, power=power)
    def encode(self, texts, /):
        return torch.tensor([[float(len(text))] for text in texts]).reshape(-1, 1)
    def passages(self, text, /):
        return [text]

def any_options(**options):
    return Length(**{"unit": "m"} | options)

class Bare:
    name, modality, dim, fingerprint = "bare", "audio", 1, "bare"
    def __init__(self, *, device, precision):
        pass

class Deaf(Length):
    def __init__(self, *, unit="m"):
        super().__init__(unit=unit)

class Failing(Length):
    def __init__(self, *, device, precision):
        raise RuntimeError("no licence key")

number = 3
"""


def test_kinds_of_other_distributions_are_found_and_loaded(install: Install) -> None:
    install("long-words", LENGTH, length="Length", any_length="any_options")
    assert EncoderKind("length", "long_words:Length", "long-words 1.2") in encoder_kinds()
    assert {kind.name for kind in encoder_kinds()} >= {*KINDS, "length", "any-length"}
    assert load_encoder("length", unit="m").fingerprint != load_encoder("length", unit="km").fingerprint
    assert load_encoder("any-length", power=2).name == "length"


def test_options_are_checked_as_those_of_built_in_kinds(install: Install) -> None:
    install("long-words", LENGTH, length="Length")
    with pytest.raises(EncoderError, match=r"'length' of long-words 1.2 has no option width; it takes: power, unit"):
        load_encoder("length", unit="m", width=3)
    with pytest.raises(EncoderError, match=r"'length' of long-words 1.2 needs the option unit"):
        load_encoder("length")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Missing", r"cannot be imported from long_words:Missing: AttributeError: .*'Missing'"),
        ("number", r"long_words:number is 3: expected a class or a function"),
        ("Bare", r"is not complete: it has no encode, min_seconds, sample_rate"),
        ("Deaf", r"long_words:Deaf must take device, precision by keyword"),
        ("Failing", r"cannot be made: RuntimeError: no licence key"),
    ],
)
def test_what_is_broken_is_named_with_its_distribution(install: Install, name: str, message: str) -> None:
    install("long-words", LENGTH, broken=name)
    with pytest.raises(EncoderError, match=f"encoder 'broken' of long-words 1.2.*{message}"):
        load_encoder("broken")
    assert "hashed-ngrams" in load_encoder("hashed-ngrams").name


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        ("import no_such_library", "ModuleNotFoundError: No module named 'no_such_library'"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("def", "SyntaxError: .*"),
    ],
)
def test_an_import_that_fails_is_named_with_its_distribution_and_cause(
    install: Install, code: str, cause: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    install("long-words", code, length="Length")
    preset = tmp_path / "mine.yaml"
    preset.write_text("text: {kind: length}\n")
    message = f"encoder 'length' of long-words 1.2 cannot be imported from long_words:Length: {cause}"
    with pytest.raises(mmrec.EncoderError, match=message):
        load_preset_encoders(load_preset(preset))
    assert main(["presets"]) == 0
    (tmp_path / "catalog.csv").write_text("item_id,title\na,A\n")
    command = ["embed", str(tmp_path / "catalog.csv"), "--store", str(tmp_path / "s"), "--preset", str(preset)]
    assert main(command) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert re.match(f"mmrec: error: {message}", line)


def test_a_name_that_two_distributions_use_is_refused(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    install("long-words", LENGTH, length="Length", log_mel="Length")
    install("short-words", LENGTH, length="Length")
    with pytest.raises(
        EncoderError,
        match=r"kind 'length' is offered more than once, by long-words 1.2 \(long_words:Length\) and short-words 1.2 "
        r"\(short_words:Length\): rename or uninstall one",
    ):
        encoder_factory("length")
    with pytest.raises(EncoderError, match=r"'log-mel' is offered more than once, by mmrec .* and long-words 1.2"):
        load_encoder("log-mel")
    assert main(["presets"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "  length               long-words 1.2 and short-words 1.2, of which one must go" in lines
    assert "  log-mel              built in and long-words 1.2, of which one must go" in lines
    assert "  hashed-ngrams        built in" in lines


# --- the example in CONTRIBUTING.md -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files of the example, and in `installed` the package that pip made of them."""
    folder = tmp_path_factory.mktemp("example")
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = text.partition("## An encoder of your own\n")[2].partition("\n## ")[0]
    files = dict(re.findall(r"^```\w+\n# (\S+)\n(.*?)^```$", section, re.MULTILINE | re.DOTALL))
    assert set(files) == {"pyproject.toml", "mean_colour.py", "test_mean_colour.py", "colours.yaml"}
    (folder / "source").mkdir()
    for name, content in files.items():
        (folder / "source" / name).write_text(content, encoding="utf-8")
    options = "install --quiet --no-deps --no-build-isolation --no-index --target".split()
    pip = [sys.executable, "-m", "pip", *options, str(folder / "installed"), str(folder / "source")]
    done = subprocess.run(pip, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    write_image(folder / "a.png")
    write_image(folder / "b.png")
    (folder / "catalog.csv").write_text("item_id,media\na,a.png\nb,b.png\n")
    return folder


def run(example: Path, *arguments: str) -> str:
    """What Python prints where the package is on the path."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(example / "installed"), str(ROOT)])}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=example, env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def test_the_example_is_listed_with_its_distribution(example: Path) -> None:
    assert "  mean-colour          mmrec-mean-colour 0.1" in run(example, "-m", "mmrec", "presets").splitlines()


def test_the_example_embeds_a_catalog(example: Path) -> None:
    options = ("--store", "store", "--preset", "source/colours.yaml", "--workers", "1", "--json")
    report = json.loads(run(example, "-m", "mmrec", "embed", "catalog.csv", *options))
    assert (report["ok"], report["encoders"]["visual"]["dim"]) == (2, 3 * 8**2)
    again = json.loads(run(example, "-m", "mmrec", "embed", "catalog.csv", *options))
    assert again["skipped"] == 2
    vectors = "import mmrec; ids, vectors_ID = mmrec.FeatureStore('store').vectors('visual'); print(vectors_ID.shape)"
    assert run(example, "-c", vectors) == "(2, 192)\n"


def test_the_example_keeps_the_contract_as_it_says(example: Path) -> None:
    test = (example / "source" / "test_mean_colour.py").read_text()
    run(example, "-c", f"{test}\ntest_contract()")
