"""Sets of labels from files and built in; what people say of items; and every way in which these can be wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mmrec.errors import TaggingError
from mmrec.tagging import BUILT_IN, Examples, LabelSet, read_examples, read_labels


@pytest.mark.parametrize("name", BUILT_IN)
def test_the_built_in_sets_speak_six_languages(name: str) -> None:
    labels = read_labels(name)
    assert labels.name == name and len(labels.labels) >= 12
    for prompts in labels.prompts.values():
        assert set(prompts) == {"en", "zh", "ja", "ru", "de", "es"}
        assert all(len(set(texts)) == 2 for texts in prompts.values())
    texts = [text for prompts in labels.prompts.values() for texts in prompts.values() for text in texts]
    assert all(text.strip() == text for text in texts)


def test_yaml_has_prompts_by_language_or_not_or_none(tmp_path: Path) -> None:
    path = tmp_path / "mood.yaml"
    path.write_text(
        "calm:\n  en: [quiet music, a lullaby]\n  no: rolig musikk\nwild: [loud drums]\n"
        "'on':\n  prompts: [lights]\nplain:\n",
        encoding="utf-8",
    )
    assert read_labels(path) == LabelSet(
        "mood",
        {
            "calm": {"en": ["quiet music", "a lullaby"], "no": ["rolig musikk"]},
            "wild": {"": ["loud drums"]},
            "on": {"": ["lights"]},
            "plain": {"": ["plain"]},
        },
    )
    assert read_labels(path, name="feeling").name == "feeling"


def test_tables_have_a_column_for_each_language(tmp_path: Path) -> None:
    csv, jsonl = tmp_path / "mood.csv", tmp_path / "mood.jsonl"
    csv.write_text("label,en,de,prompts\ncalm,quiet|soft,ruhig,\nwild,,,loud\nplain,,,\n", encoding="utf-8")
    rows = [
        {"label": "calm", "en": ["quiet", "soft"], "de": "ruhig"},
        {"label": "wild", "prompts": "loud"},
        {"label": "plain"},
    ]
    jsonl.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert read_labels(csv) == read_labels(jsonl)
    assert read_labels(csv).prompts == {
        "calm": {"en": ["quiet", "soft"], "de": ["ruhig"]},
        "wild": {"": ["loud"]},
        "plain": {"": ["plain"]},
    }


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("a.yaml", "calm: [x]\nwild: [y]\ncalm: [z]\n", "line 3: the label 'calm' repeats: name it once"),
        ("a.yaml", "calm: {en: [x], en: [y]}\n", "line 1: 'en' repeats in label 'calm'"),
        ("a.yaml", "calm: {en: ['']}\n", "label 'calm' has an empty prompt in 'en': say what it means"),
        ("a.yaml", "calm: {en: []}\n", "label 'calm' has an empty prompt in 'en'"),
        ("a.yaml", "calm: [' ', x]\n", "label 'calm' has an empty prompt: say what it means"),
        ("a.yaml", "calm: {en: {a: b}}\n", "line 1: label 'calm': expected a text or a list of texts"),
        ("a.yaml", "- calm\n", "expected a mapping of labels to prompts"),
        ("a.yaml", "calm: [\n", "is not YAML"),
        ("a.yaml", "", "expected a mapping of labels to prompts"),
        ("a.yaml", "{}", "the set 'a' has no labels"),
        ("a.yaml", "'--': [x]\n", "has a label '--': expected a word"),
        ("my set.yaml", "calm: [x]\n", "labels named 'my set': expected a letter, then letters, digits, - and _"),
        ("language.yaml", "calm: [x]\n", "labels named 'language', as a column of all items is: say --as NAME"),
        (
            "a.csv",
            "label,en\ncalm,x\ncalm,y\n",
            "row 3: the label 'calm' repeats: name it once, its prompts",
        ),
        ("a.csv", "label,en\n,x\n", "row 2: the label is missing"),
        ("a.csv", "label,en\ncalm,x||y\n", "label 'calm' has an empty prompt in 'en'"),
        ("a.csv", "name,en\ncalm,x\n", "there is no column label"),
        ("a.csv", "label,en\n", "the set 'a' has no labels"),
        ("a.txt", "calm", "there is no set of labels"),
    ],
)
def test_bad_labels_are_named_in_one_line(tmp_path: Path, name: str, text: str, complaint: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(TaggingError) as caught:
        read_labels(tmp_path / name)
    assert complaint in str(caught.value) and str(tmp_path / name) in str(caught.value)


def test_a_set_that_is_not_there_is_named_beside_those_that_are() -> None:
    with pytest.raises(TaggingError, match=r"no set of labels 'topics': known are topic, emotion, scene, or a file"):
        read_labels("topics")
    with pytest.raises(TaggingError, match=r"there is no file of labels nowhere\.yaml"):
        read_labels("nowhere.yaml")


def test_examples_add_up_and_what_is_not_said_does_not_hold(tmp_path: Path) -> None:
    path = tmp_path / "gold.csv"
    path.write_text("item_id,labels\na,calm|wet\nb,\na,loud\n", encoding="utf-8")
    examples = read_examples(path, labels=["calm", "wet", "loud", "fast"], item_ids=["a", "b", "c"])
    assert examples.labels == {"a": {"calm", "wet", "loud"}, "b": set()}
    assert examples.matrix(["b", "a"], ["wet", "fast"]).tolist() == [[False, False], [True, False]]
    assert examples.spoken_of(["wet", "fast"]).tolist() == [True, False]
    jsonl = tmp_path / "gold.jsonl"
    jsonl.write_text('{"item_id": "a", "label": ["calm", "wet"]}\n{"item_id": "b", "label": null}\n', encoding="utf-8")
    known = read_examples(jsonl, labels=["calm", "wet"], item_ids=["a", "b"])
    assert known == Examples({"a": {"calm", "wet"}, "b": set()})


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("item_id,label\na,calm\nz,calm\n", "row 3: the store has no item 'z': embed it, or leave it out"),
        ("item_id,label\na,clam\n", "row 2: the set has no label 'clam'; did you mean 'calm'?; it has calm, wet"),
        ("item_id,label\na,calm||wet\n", "row 2: the set has no label ''"),
        ("item_id,tag\na,calm\n", "row 2: there is no column label"),
        ("id,label\na,calm\n", "there is no column item_id"),
        ("item_id,label\n", "there are no examples"),
    ],
)
def test_bad_examples_are_named_in_one_line(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "gold.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(TaggingError) as caught:
        read_examples(path, labels=["calm", "wet"], item_ids=["a", "b"])
    assert complaint in str(caught.value) and str(path) in str(caught.value)


def test_a_file_of_examples_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(TaggingError, match=r"there is no file .*gold\.csv"):
        read_examples(tmp_path / "gold.csv", labels=["calm"], item_ids=["a"])
