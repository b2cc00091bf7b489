"""The commands that fit and ask a recommender: answers as JSON, exit statuses, one line for what fails."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from planted import KINDS, item_ids, kind_of, planted, watched, write_csv

from mmrec.cli import main
from mmrec.recommending.recommender import Recommender

pytestmark = pytest.mark.usefixtures("one_thread")
SETTINGS = """
dim: 16
num_heads: 2
max_epochs: 5
batch_size: 64
learning_rate: 0.02
input_dropout: 0.1
"""
FILES = {"train": "train.csv", "validation": "validation.csv", "config": "fit.yaml"}
COLD = [f"{kind}-09" for kind in KINDS]


@dataclass(frozen=True)
class Work:
    """What the commands are given: files of one folder."""

    folder: Path

    def __getattr__(self, name: str) -> Path:
        return self.folder / FILES.get(name, name)


class Run:
    """One command, its status and what it printed."""

    def __init__(self, capsys: pytest.CaptureFixture[str], *words: object) -> None:
        capsys.readouterr()
        try:
            self.status = main([str(word) for word in words])
        except SystemExit as stop:
            self.status = int(stop.code or 0)
        self.out, self.err = capsys.readouterr()

    @property
    def json(self) -> Any:
        return json.loads(self.out, parse_constant=pytest.fail)  # neither NaN nor Infinity is JSON

    def fails(self, *words: str) -> None:
        lines = [line for line in self.err.splitlines() if line.startswith("mmrec: error:")]
        assert self.status == 1 and self.out == "", (self.status, self.out)
        assert len(lines) == 1 and "Traceback" not in self.err
        for word in words:
            assert word in lines[0], lines[0]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]):  # type: ignore[no-untyped-def]
    return lambda *words: Run(capsys, *words)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Work:
    """Features made elsewhere, interactions, and a model: made by the commands alone, in the order a user would."""
    work = Work(tmp_path_factory.mktemp("work"))
    items = planted(item_ids())
    rows = [f"{f.item.item_id},{f.item.title},{f.item.language},{f.item.metadata['kind']}" for f in items]
    (work.folder / "items.csv").write_text("\n".join(["item_id,title,language,kind", *rows]) + "\n")
    np.save(work.folder / "visual.npy", np.stack([f.tokens["visual"].vectors_TD for f in items]))
    np.save(work.folder / "audio.npy", np.stack([f.tokens["audio"].vectors_TD.mean(0) for f in items]))
    train, validation = watched(COLD)
    write_csv(work.train, train)
    write_csv(work.validation, validation)
    work.config.write_text(SETTINGS)
    for words in (
        ["import-features", "--items", work.folder / "items.csv", "--visual", work.folder / "visual.npy",
         "--audio", work.folder / "audio.npy", "--store", work.store],
        ["fit", "--store", work.store, "--interactions", work.train, "--validation", work.validation,
         "--model", work.model, "--config", work.config, "--seed", 3],
    ):  # fmt: skip
        assert main([str(word) for word in words]) == 0
    return work


# --- the way from features to figures ---------------------------------------------------------------------------------


def test_the_commands_in_order_answer_in_json(run: Any, work: Work, tmp_path: Path) -> None:
    """Each answer on standard output is one JSON object and nothing else."""
    taken = run("import-features", "--items", work.folder / "items.csv", "--visual", work.folder / "visual.npy",
                "--audio", work.folder / "audio.npy", "--store", tmp_path / "store", "--json")  # fmt: skip
    assert taken.status == 0 and taken.json == {"items": 40}
    fitted = run("fit", "--store", tmp_path / "store", "--interactions", work.train, "--validation", work.validation,
                 "--model", tmp_path / "model", "--config", work.config, "--json")  # fmt: skip
    assert fitted.status == 0, fitted.err
    assert fitted.json["items"] == 40 and fitted.json["users"] == 80 and fitted.json["examples"] == 320
    assert set(fitted.json) == {
        "version", "items", "users", "epochs", "best_epoch", "examples", "seconds", "metrics", "rules", "curves"
    }  # fmt: skip
    assert fitted.json["rules"]["order"] == "none" and fitted.json["epochs"] <= 5
    assert not list((tmp_path / "model").rglob("*.ckpt"))
    assert 0 < fitted.json["metrics"]["val_recall@20"] <= 1
    judged = run("evaluate", "--model", tmp_path / "model", "--interactions", work.validation, "--k", 20, "--json")
    assert judged.status == 0
    assert np.isclose(judged.json["recall@20"], fitted.json["metrics"]["val_recall@20"])
    assert np.isclose(judged.json["ndcg@20"], fitted.json["metrics"]["val_ndcg@20"])


def test_fit_without_interactions(run: Any, work: Work, tmp_path: Path) -> None:
    fitted = run("fit", "--store", work.store, "--model", tmp_path / "model", "--config", work.config)
    assert fitted.status == 0 and "40 items, 0 users" in fitted.out
    similar = run("similar", "--model", tmp_path / "model", "--item", "rain-03", "--k", 3, "--json")
    assert {kind_of(found["item_id"]) for found in similar.json} == {"rain"}


def test_the_seed_of_the_command_wins_and_is_saved(work: Work) -> None:
    assert Recommender.load(work.model).config.fusion.seed == 3


def test_logs_are_kept_where_asked(run: Any, work: Work, tmp_path: Path) -> None:
    fitted = run("fit", "--store", work.store, "--interactions", work.train, "--model", tmp_path / "model",
                 "--config", work.config, "--logs", tmp_path / "logs")  # fmt: skip
    assert fitted.status == 0
    assert list((tmp_path / "logs").rglob("metrics.csv")) and not list((tmp_path / "logs").rglob("*.ckpt"))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("dims: 3", "unknown settings ['dims']: did you mean dim?"),
        ("dim: wide", "dim must be int, got 'wide'"),
        ("half_life_days: 7", "unknown settings ['half_life_days']"),
        ("half_lives: []", "half_lives must be one or more positive numbers"),
        ("order: backwards", "order 'backwards' is not one of"),
        ("user_weight: 7", "user_weight must be between 0 and 1"),
        ("- a\n- b", "expected settings"),
        ("dim: [", "cannot be read"),
        ("num_heads: 5", "heads"),
    ],
)
def test_fit_refuses_settings(run: Any, work: Work, tmp_path: Path, settings: str, words: str) -> None:
    (tmp_path / "fit.yaml").write_text(settings)
    fit = run("fit", "--store", work.store, "--interactions", work.train, "--model", tmp_path / "model",
              "--config", tmp_path / "fit.yaml")  # fmt: skip
    fit.fails(words)
    assert not (tmp_path / "model").exists()


def test_fit_refuses_data(run: Any, work: Work, tmp_path: Path) -> None:
    def fit(**options: object) -> Run:
        options = {"store": work.store, "model": tmp_path / "model", "config": work.config, **options}
        return run("fit", *(word for name, value in options.items() for word in (f"--{name}", value)))  # type: ignore[no-any-return]

    (tmp_path / "strange.csv").write_text("user_id,item_id\na,jazz-00\na,nix\n")
    (tmp_path / "columns.csv").write_text("user,item\na,jazz-00\n")
    (tmp_path / "empty.csv").write_text("user_id,item_id\n")
    fit(store=tmp_path / "none").fails("there is no store")
    fit(interactions=tmp_path / "none.csv").fails("there is no file")
    fit(interactions=tmp_path / "strange.csv").fails("1 of 2 interactions", "'nix'")
    fit(interactions=tmp_path / "columns.csv").fails("no column user_id and item_id")
    fit(interactions=tmp_path / "empty.csv").fails("there are no interactions")
    fit(interactions=work.train, validation=work.train).fails("320 of 320", "present in training")
    fit(interactions=work.train, validation=tmp_path / "empty.csv").fails("there are no interactions")
    fit(validation=work.validation).fails("without interactions")
    fit(config=tmp_path / "none.yaml").fails("cannot be read")
    fit(interactions=work.train, device="mps").fails("not available")


# --- evaluate ---------------------------------------------------------------------------------------------------------


def test_evaluate_at_several_lengths(run: Any, work: Work) -> None:
    judged = run("evaluate", "--model", work.model, "--interactions", work.validation, "--k", 5, 20, 100, "--json")
    for name in ("recall", "precision", "ndcg", "map", "mrr", "hit_rate"):
        assert {f"{name}@5", f"{name}@20", f"{name}@100"} <= set(judged.json)
    assert judged.json["users"] == 80 and judged.json["recall@100"] == 1.0
    printed = run("evaluate", "--model", work.model, "--interactions", work.validation)
    assert printed.status == 0 and "recall@20" in printed.out and "coverage" in printed.out


def test_evaluate_refuses(run: Any, work: Work, tmp_path: Path) -> None:
    run("evaluate", "--model", work.model, "--interactions", work.train).fails("320 of 320", "present in training")
    run("evaluate", "--model", tmp_path, "--interactions", work.train).fails("there is no model")
    run("evaluate", "--model", work.model, "--interactions", work.validation, "--k", 0).fails("at least 1")
    assert run("evaluate", "--model", work.model).status == 2


# --- recommend --------------------------------------------------------------------------------------------------------


def test_recommend_for_one_user(run: Any, work: Work) -> None:
    answer = run("recommend", "--model", work.model, "--user", "user00", "--k", 4, "--json")
    ids, scores = Recommender.load(work.model).recommend("user00", k=4)
    assert answer.json["user_id"] == "user00"
    assert [item["item_id"] for item in answer.json["items"]] == ids.tolist()
    assert np.allclose([item["score"] for item in answer.json["items"]], scores)
    assert [item["title"] for item in answer.json["items"]] == [f"{kind_of(i)} clip {i}" for i in ids]
    printed = run("recommend", "--model", work.model, "--user", "user00", "--k", 4)
    assert printed.out.startswith("user00\n") and f"clip {ids[0]}" in printed.out


def test_recommend_for_unknown_users_warns(run: Any, work: Work, caplog: pytest.LogCaptureFixture) -> None:
    answer = run("recommend", "--model", work.model, "--user", "stranger", "--json")
    assert answer.status == 0 and len(answer.json["items"]) == 20
    assert "'stranger'" in answer.err + caplog.text


def test_recommend_for_a_file_of_users(run: Any, work: Work, tmp_path: Path) -> None:
    (tmp_path / "users.txt").write_bytes(b"\xef\xbb\xbfuser05\r\n\r\nuser01\r\n")
    answer = run("recommend", "--model", work.model, "--users", tmp_path / "users.txt", "--k", 2, "--json")
    answers = [json.loads(line) for line in answer.out.splitlines()]
    assert [one["user_id"] for one in answers] == ["user05", "user01"]
    (tmp_path / "nobody.txt").write_text("")
    assert run("recommend", "--model", work.model, "--users", tmp_path / "nobody.txt").status == 0
    run("recommend", "--model", work.model, "--users", tmp_path / "none.txt").fails("one user id a line")
    (tmp_path / "nobody.txt").write_bytes(b"caf\xe9\n")
    run("recommend", "--model", work.model, "--users", tmp_path / "nobody.txt").fails(
        "row 1: not UTF-8", "save the file"
    )


def test_recommend_for_all_as_parquet(run: Any, work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmrec.recommending.recommendations.USERS_AT_ONCE", 7)
    answer = run("recommend", "--model", work.model, "--all", "--k", 40, "--out", tmp_path / "all.parquet")
    assert answer.status == 0 and "80 users" in answer.err
    assert pq.read_metadata(tmp_path / "all.parquet").num_row_groups == 12  # of seven users, not of one
    rows = pq.read_table(tmp_path / "all.parquet").to_pylist()
    model = Recommender.load(work.model)
    assert len(rows) == 80 * 36  # four items are seen already, their places stay out
    ids, scores = model.recommend(model.user_ids, k=40)
    for user, own_ids, own_scores in zip(model.user_ids, ids, scores, strict=True):
        own = [row for row in rows if row["user_id"] == user]
        assert [row["rank"] for row in own] == list(range(1, 37))
        assert [row["item_id"] for row in own] == own_ids[:36].tolist()
        assert np.allclose([row["score"] for row in own], own_scores[:36], rtol=1e-5)


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "CSV"])
def test_recommend_for_all_as_text(run: Any, work: Work, tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"all.{suffix}"
    for path in (out, tmp_path / "all.parquet"):
        assert run("recommend", "--model", work.model, "--all", "--k", 40, "--out", path).status == 0
    if suffix == "jsonl":
        rows = [json.loads(line) for line in out.read_text().splitlines()]
    else:
        rows = pd.read_csv(out, dtype={"user_id": str}).to_dict("records")
    expected = pq.read_table(tmp_path / "all.parquet").to_pylist()
    scores, expected_scores = ([row.pop("score") for row in found] for found in (rows, expected))
    assert rows == expected
    assert np.array_equal(np.array(scores, np.float32), np.array(expected_scores, np.float32))
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize("name", ["none/all.parquet", "none/all.csv"])
def test_recommend_to_a_place_that_is_not_there(run: Any, work: Work, tmp_path: Path, name: str) -> None:
    run("recommend", "--model", work.model, "--all", "--out", tmp_path / name).fails("cannot be written")


def test_recommend_refuses_other_files_before_the_work(run: Any, work: Work, tmp_path: Path) -> None:
    for name in ("all.xlsx", "all", "all.csv.gz"):
        answer = run("recommend", "--model", tmp_path / "no model", "--all", "--out", tmp_path / name)
        answer.fails("all", "end in .csv, .jsonl or .parquet")


def test_recommend_with_filters(run: Any, work: Work) -> None:
    ask = ["recommend", "--model", work.model, "--user", "user00", "--k", 40, "--json", "--where"]
    kinds = {kind_of(item["item_id"]) for item in run(*ask, "kind=rain", "--where", "kind=jazz").json["items"]}
    assert kinds == {"rain", "jazz"}
    both = run(*ask, "kind=rain", "--where", "language=en").json["items"]
    assert {item["item_id"] for item in both} == {f"rain-0{k}" for k in (1, 3, 5, 7, 9)}
    assert run(*ask, "kind=polka").json["items"] == []
    run(*ask, "kind").fails("expected COLUMN=VALUE")
    run(*ask, "colour=red").fails("no column 'colour'")


def test_recommend_spreads_and_explores(run: Any, work: Work) -> None:
    ask = ["recommend", "--model", work.model, "--user", "user00", "--k", 6, "--json"]
    explored = [item["item_id"] for item in run(*ask, "--explore-share", 0.5).json["items"]]
    assert len(set(explored) & set(COLD)) == 3
    varied = {kind_of(item["item_id"]) for item in run(*ask, "--diversity", 0.9).json["items"]}
    assert len(varied) > 1
    for option in ("--diversity", "--explore-share"):
        assert run(*ask, option, 2).status == 2


def test_recommend_refuses(run: Any, work: Work, tmp_path: Path) -> None:
    run("recommend", "--model", tmp_path, "--user", "user00").fails("there is no model")
    run("recommend", "--model", work.model, "--user", "user00", "--k", 0).fails("k must be at least 1")
    run("recommend", "--model", work.model, "--text", "slow piano").fails("without text")
    assert run("recommend", "--model", work.model).status == 2
    assert run("recommend", "--model", work.model, "--user", "user00", "--all").status == 2


def test_recommend_to_words(run: Any, work: Work, tmp_path: Path) -> None:
    topics = {"piano": "slow piano music", "football": "a football match", "围棋": "围棋比赛"}
    rows = [f"{topic}-{k},{words} {k}" for topic, words in topics.items() for k in range(4)]
    (tmp_path / "catalog.csv").write_text("\n".join(["item_id,title", *rows]) + "\n", encoding="utf-8")
    (tmp_path / "words.yaml").write_text("text: {kind: hashed-ngrams}\n")
    pairs = [f"u{k},{topic}-{(k + step) % 4}" for k, topic in enumerate([*topics] * 4) for step in range(2)]
    (tmp_path / "train.csv").write_text("\n".join(["user_id,item_id", *pairs]) + "\n", encoding="utf-8")
    store, model = tmp_path / "store", tmp_path / "model"
    assert run("embed", tmp_path / "catalog.csv", "--store", store, "--preset", tmp_path / "words.yaml").status == 0
    assert run("fit", "--store", store, "--interactions", tmp_path / "train.csv", "--model", model,
               "--config", work.config).status == 0  # fmt: skip
    for topic in ("piano", "围棋"):
        answer = run("recommend", "--model", model, "--text", topic, "--k", 2, "--json")
        assert [item["item_id"].split("-")[0] for item in answer.json["items"]] == [topic] * 2
    assert run("recommend", "--model", model, "--text", "piano").out.startswith("for these words:")
    tagged = run("recommend", "--model", model, "--text", "piano", "--where", "tags=x")
    assert tagged.status == 0


# --- similar, import-features -----------------------------------------------------------------------------------------


def test_similar(run: Any, work: Work) -> None:
    answer = run("similar", "--model", work.model, "--item", "jazz-03", "--k", 4, "--json")
    assert [kind_of(found["item_id"]) for found in answer.json] == ["jazz"] * 4
    assert all(found["cosine"] <= 1.0001 for found in answer.json)
    assert len(run("similar", "--model", work.model, "--item", "jazz-03", "--k", 100, "--json").json) == 39
    assert "jazz clip" in run("similar", "--model", work.model, "--item", "jazz-03").out
    run("similar", "--model", work.model, "--item", "nix").fails("no item 'nix'")


def test_import_features_refuses(run: Any, work: Work, tmp_path: Path) -> None:
    items, store = work.folder / "items.csv", tmp_path / "store"
    np.save(tmp_path / "few.npy", np.ones((3, 4)))
    run("import-features", "--items", items, "--store", store).fails("nothing to import")
    run("import-features", "--items", items, "--store", store, "--visual", tmp_path / "few.npy").fails("has 3 rows")
    run("import-features", "--items", tmp_path / "none.csv", "--store", store, "--visual", "x.npy").fails("no catalog")
    assert run("import-features", "--store", store).status == 2
    taken = run("import-features", "--items", items, "--store", store, "--visual", work.folder / "visual.npy")
    assert taken.status == 0 and taken.out == f"40 items in {store}\n"


def test_explain(run: Any, work: Work) -> None:
    best = run("recommend", "--model", work.model, "--user", "user00", "--k", 2, "--json").json["items"]
    item, score = best[1]["item_id"], best[1]["score"]
    words = ["explain", "--model", work.model, "--user", "user00", "--item", item]
    told = run(*words, "--store", work.store, "--json").json
    assert told["place"] == 2 and told["score"] == pytest.approx(score, abs=1e-4)
    assert {part["name"] for part in told["parts"]} == {"visual", "audio", "id"}
    assert told["popularity"] + sum(p["contribution"] for p in told["parts"]) == pytest.approx(score, abs=1e-4)
    assert len(told["history"]) == 4 and kind_of(told["history"][0]["item_id"]) == kind_of(item)
    shown = run(*words, "--store", work.store)
    assert shown.status == 0 and f"for user00 at place 2 of 36, score {score:.3f}" in shown.out
    for expected in ("its pictures (without: place", "its popularity", "its sound: 1 of 1\n", "Shapley", "Because of"):
        assert expected in shown.out, expected
    assert told["history"][0]["title"] in shown.out and told["sentences"][0] in shown.out


def test_explain_without_the_store_and_in_short(run: Any, work: Work) -> None:
    words = ["explain", "--model", work.model, "--user", "user01", "--item", "sport-09"]
    shown = run(*words, "--top", 1)
    assert shown.status == 0 and "its content (without: place" in shown.out and "3 others" in shown.out
    assert "which was not given" in shown.out and "what its score would lose without" not in shown.out
    told = run(*words, "--json").json
    assert [part["name"] for part in told["parts"]] == ["content", "id"] and told["moments"] == []


def test_explain_refuses(run: Any, work: Work, tmp_path: Path) -> None:
    words = ["explain", "--model", work.model, "--user"]
    run(*words, "nobody", "--item", "sport-09").fails("no user 'nobody'")
    run(*words, "user00", "--item", "nothing").fails("no item 'nothing'")
    run(*words, "user00", "--item", "sport-09", "--top", -1).fails("top is -1")
    run(*words, "user00", "--item", "sport-09", "--store", tmp_path / "none").fails("no store at")
    assert run(*words, "user00").status == 2
