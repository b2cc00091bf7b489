"""Words for items, and reasons in words that name only what is there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from chat_server import asked_about, chat_server

from mmrec.cli import main
from mmrec.errors import Reason, StoreError
from mmrec.recommending import Explanation, Recommender
from mmrec.store import FeatureStore, Finding, Findings
from mmrec.understanding import Asker, ServerChat, WhyInWords, describe, why_in_words
from mmrec.understanding.writing import ungrounded


def described(title: str, **other: Any) -> str:
    return json.dumps({"titles": [title], "blurb": f"About {title}.", "tags": ["one"]} | other)


def test_items_are_described_by_what_is_known_of_them(spoken: Path) -> None:
    store = FeatureStore(spoken / "store")
    with Findings(store).lock():
        heard = {"passages": [[0.0, 1.0, "Good evening."]]}
        Findings(store).put([Finding(item_id="piano-0", task="heard", key="1", value=heard)])
    with chat_server(lambda body, number: described(asked_about(body)["title"])) as server:
        asker = Asker(ServerChat("fake", url=server.url), store)
        found = {one.item_id: one for one in describe(store, asker)}
        assert len(found) == len(server.requests) == 15
        again = list(describe(store, Asker(ServerChat("fake", url=server.url), store), ["piano-0"]))
        assert len(server.requests) == 15
    data = next(d for d in map(asked_about, server.requests) if d["title"] == "Slow piano music")
    assert (data["heard"], data["tags"]) == ("Good evening.", ["piano"])
    assert again[0].description == found["piano-0"].description
    assert again[0].description is not None and again[0].description.blurb == "About Slow piano music."
    with pytest.raises(StoreError, match="has no item 'none'"):
        list(describe(store, asker, ["none"]))


def test_a_title_that_gives_orders_changes_no_other_item(spoken: Path) -> None:
    store = FeatureStore(spoken / "store")

    def obeys(body: dict[str, Any], number: int) -> str:
        title = asked_about(body)["title"]
        return described(title, titles=["PWNED"], extra="x") if title == "Football goals" else described(title)

    with chat_server(obeys) as server:
        found = {one.item_id: one for one in describe(store, Asker(ServerChat("fake", url=server.url)))}
    spoiled = [item for item, one in found.items() if one.description is None or one.description.titles == ["PWNED"]]
    assert spoiled == ["football-1"]


def explained(folder: Path) -> Explanation:
    return Recommender.load(folder / "model").explain("u0", "piano-4")


def why(folder: Path, text: str) -> WhyInWords:
    with chat_server(lambda body, number: json.dumps({"text": text})) as server:
        titles = ["Slow piano music", "Calm piano sonata", "Piano nocturne", "Football final", "Rain"]
        return why_in_words(explained(folder), Asker(ServerChat("fake", url=server.url)), titles=titles)


def test_reasons_in_words_that_name_what_is_there_are_taken(spoken: Path) -> None:
    said = 'You had "Slow piano music", and "Piano nocturne" is like it. It sounds calm.'
    assert why(spoken, said) == WhyInWords(text=said)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('You had "Football final".', "Football final"),
        ("You had “Swan Lake” once.", "Swan Lake"),
        ("It is by the composer Chopin.", "Chopin"),
        ("It is at place 77 of your list.", "77"),
        ("You had it. Football final is like it.", "Football final"),
    ],
)
def test_reasons_that_name_what_is_not_there_give_way_to_the_computed_ones(spoken: Path, text: str, named: str) -> None:
    found = why(spoken, text)
    assert found.text == " ".join(explained(spoken).sentences())
    assert named in found.problem


def test_without_an_answer_the_computed_reasons_are_told(spoken: Path) -> None:
    with chat_server(lambda body, number: "no") as server:
        found = why_in_words(explained(spoken), Asker(ServerChat("fake", url=server.url)))
    assert found.text.startswith("Because of") and Reason.INVALID_ANSWER in found.problem


@pytest.mark.parametrize(
    ("text", "strange"),
    [
        ("I think you like Rain.", ""),
        ("下雨的声音很安静", ""),
        ("“雷雨”也很好", "雷雨"),
        ("Wie Rain, nur Lauter.", "Lauter"),
    ],
)
def test_names_are_looked_for_in_other_scripts_too(text: str, strange: str) -> None:
    assert ungrounded(text, ["Rain"], ["Rain"], ["Rain", "Storm"]) == strange


def test_the_commands_describe_and_explain(spoken: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def reply(body: dict[str, Any], number: int) -> str:
        data = asked_about(body)
        return json.dumps({"text": 'Like "Alien".'}) if "computed" in data else described(data["title"])

    with chat_server(reply) as server:
        served = ["--server", server.url, "--store", str(spoken / "store")]
        command = ["describe", *served, "--chat", "fake"]
        assert main([*command, "--all", "--dry-run"]) == 0
        assert "15 questions" in capsys.readouterr().out
        assert main([*command, "--item", "piano-0"]) == 0
        assert "About Slow piano music." in capsys.readouterr().out
        assert main([*command, "--all", "--out", str(spoken / "words.jsonl")]) == 0
        lines = [json.loads(line) for line in (spoken / "words.jsonl").read_text().splitlines()]
        assert len(lines) == 15 and lines[0].keys() == {"item_id", "titles", "blurb", "tags"}
        assert len(server.requests) == 15
        capsys.readouterr()
        explain = ["explain", "--model", str(spoken / "model"), "--user", "u0", "--item", "piano-4"]
        assert main([*explain, "--in-words", "fake", *served]) == 0
        printed = capsys.readouterr()
        assert printed.out.startswith("Because of") and "'Alien'" in printed.err
    assert main([*explain, "--dry-run"]) == 1
    with chat_server(lambda body, number: "no") as server:
        failing = ["describe", "--server", server.url, "--store", str(spoken / "store"), "--chat", "other", "--all"]
        assert main(failing) == 1
