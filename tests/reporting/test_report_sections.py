"""What a report says is so: counted, compared and evaluated again by other means."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from planted import COLD, KINDS, kind_of, planted, to_interactions, write_store
from reported import DAMAGED, FAILED, GONE, HOSTILE

import mmrec.reporting.report
from mmrec.errors import EvaluationError, InteractionError, MMRecError, ModelError
from mmrec.evaluation import Interactions
from mmrec.recommending import Recommender
from mmrec.reporting import Report, write_report
from mmrec.reporting.items import Column, read_items
from mmrec.reporting.neighbours import spaces_of
from mmrec.reporting.ranked_lists import Training
from mmrec.reporting.report import make_report
from mmrec.reporting.scores import MODEL, evaluate
from mmrec.store import FeatureStore

Pairs = tuple[Interactions, Interactions]


def training_of(model: Recommender) -> Training:
    assert model.interactions is not None
    return Training(model.interactions)


def column(report: Report, name: str) -> Column:
    (found,) = (column for column in report.items.columns if column.name == name)
    return found


# --- the store --------------------------------------------------------------------------------------------------------


def test_what_was_embedded_is_counted(report: Report, media: dict[str, Path]) -> None:
    assert report.overview.status.items == 40
    assert report.overview.status.statuses["failed"] == 1
    assert report.overview.media_files == len(media)
    assert report.num_runs == 1 and report.runs[0].outcome == "done"
    assert report.runs[0].counts == "40 items, 39 ok, 1 failed"


def test_what_failed_is_named_with_its_reason(report: Report) -> None:
    assert report.faults.counts == [("corrupt", {"visual": 1, "audio": 0, "text": 0})]
    (fault,) = report.faults.rows
    assert fault["item_id"] == FAILED and "in the middle" in fault["detail"]


def test_columns_are_groups_of_items(report: Report) -> None:
    assert column(report, "first tag").labels == list(KINDS)
    year = column(report, "year")
    assert year.ordered and year.labels[0] == "1980" and year.labels[-1] == "2004 to 2007"
    assert "link" not in [column.name for column in report.items.columns]  # a value of its own each
    kind = column(report, "kind")
    assert [int(inside_I.sum()) for _, inside_I in kind.groups] == [10] * 4


def test_rare_values_are_others_and_empty_ones_none() -> None:
    values = [letter for place, letter in enumerate("abcdefghij") for _ in range(10 - place)] + [""] * 3
    found = Column.of_words("letter", values)
    assert found.labels == [*"abcdefgh", "other"]
    groups = dict(found.groups)
    assert groups["other"].sum() == 3 and groups["none"].sum() == 3 and groups["a"].sum() == 10


def test_numbers_are_ranges_of_about_as_many_items() -> None:
    values_I = np.append(np.random.default_rng(0).permutation(600).astype(float), np.nan)
    found = Column.of_numbers("number", values_I)
    assert found.labels[0] == "0 to 99" and len(found.labels) == 6
    assert found.codes_I[-1] == -1
    assert np.bincount(found.codes_I[:-1]).tolist() == [100] * 6
    assert Column.of_numbers("one", np.full(5, 2.0)).labels == ["2"]


def test_a_column_follows_items_into_other_rows() -> None:
    found = Column.of_words("word", ["a", "b", "a"]).aligned(np.array([1, -1, 2]))
    assert [found.labels[code] if code >= 0 else "" for code in found.codes_I] == ["b", "", "a"]


# --- items near each other --------------------------------------------------------------------------------------------


def test_neighbours_are_those_by_cosine(report: Report, store: FeatureStore, model: Recommender) -> None:
    assert len(report.neighbours) > 0
    for found in report.neighbours:
        assert [*found.spaces] == ["pictures", "sound", "fused"]
        ids, cosines = model.similar_items(found.item_id, k=5)
        assert [near.item_id for near in found.spaces["fused"]] == list(ids)
        np.testing.assert_allclose([near.cosine for near in found.spaces["fused"]], cosines, atol=1e-5)
        names, vectors_ID = store.vectors("visual")
        own_D = vectors_ID[names.index(found.item_id)]
        best = np.argsort(-(vectors_ID @ own_D))[1:6]
        assert [near.item_id for near in found.spaces["pictures"]] == [names[place] for place in best]


def test_without_a_model_modalities_count_side_by_side(store: FeatureStore) -> None:
    report = make_report(store)
    assert report.model is None and report.map is not None and report.map.vectors == "fused"
    kinds = [
        (kind_of(found.item_id), kind_of(near.item_id)) for found in report.neighbours for near in found.spaces["fused"]
    ]
    assert np.mean([own == other for own, other in kinds]) > 0.95
    assert len(report.map.rows_P) == 39  # one item has no token


def test_a_map_of_many_is_a_sample(store: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mmrec.reporting.report, "MAX_POINTS", 20)
    report = make_report(store)
    assert report.map is not None and 18 <= len(report.map.rows_P) <= 20
    assert (make_report(store).map or report.map).rows_P.tolist() == report.map.rows_P.tolist()


def test_tokens_of_several_encoders_are_said_not_compared(store: FeatureStore, tmp_path: Path) -> None:
    mixed = write_store(tmp_path / "mixed", planted(["jazz-00", "jazz-01", "sport-00"]))
    others = planted(["rain-00", "rain-01"], without=["audio"])
    for features in others:
        features.fingerprints, features.catalog_key = {"visual": "another"}, "0" * 16
    mixed.write(others)
    items = read_items(mixed)
    spaces, troubles = spaces_of(mixed, None, items, np.arange(5), ["jazz-00"])
    assert [*spaces] == ["sound"]
    assert "visual tokens of 2 encoders" in troubles[0]


# --- media ------------------------------------------------------------------------------------------------------------


def test_sheets_show_what_can_be_read(report: Report) -> None:
    sheets = dict(report.sheets)
    assert sheets.keys() == {"jazz-00", "sport-00", "rain-00", DAMAGED}
    assert sheets["jazz-00"].strip and sheets["jazz-00"].peaks
    assert not sheets["sport-00"].strip and sheets["sport-00"].peaks
    assert sheets[DAMAGED].problem is not None
    assert report.unreachable == 1  # GONE
    assert GONE not in report.thumbnails and report.thumbnails.keys() == {"jazz-00", "rain-00"}


# --- the model --------------------------------------------------------------------------------------------------------


def test_the_evaluation_is_that_of_the_model(report: Report, model: Recommender, pairs: Pairs) -> None:
    assert report.model is not None and report.model.evaluation is not None
    found = report.model.evaluation
    expected = model.evaluate(pairs[1], ks=[20], baselines=["popularity", "item_neighbours", "ease"])
    assert found.users == found.all_users == expected["users"]
    for metric in ("recall@20", "ndcg@20", "mrr@20", "hit_rate@20"):
        ours, *baselines = found.metrics[metric]
        assert ours.system == MODEL and ours.interval.mean == pytest.approx(expected[metric])
        assert [ours.interval.low, ours.interval.high] == pytest.approx(expected["intervals"][metric])
        for baseline, theirs in zip(baselines, expected["baselines"].values(), strict=True):
            assert baseline.interval.mean == pytest.approx(theirs[metric])
            assert baseline.better_by is not None
            assert baseline.better_by.mean == pytest.approx(theirs["better_by"][metric]["mean"])
            assert baseline.p_value == pytest.approx(theirs["better_by"][metric]["p_value"])


def test_slices_make_up_the_whole(report: Report) -> None:
    assert report.model is not None and report.model.evaluation is not None
    found = report.model.evaluation
    kinds = found.slices["kind"]
    assert {part.group for part in kinds} == set(KINDS)
    assert sum(part.held_out for part in kinds) == found.held_out == 80
    whole = sum(part.model.mean * part.users for part in kinds) / 80  # one was held out of each user
    assert whole == pytest.approx(found.metrics["recall@20"][0].interval.mean)


def test_cold_items_are_a_slice(model: Recommender, pairs: Pairs, report: Report) -> None:
    train = pairs[0]
    users = list(train.user_ids)
    cold = {kind_of(name): name for name in COLD}
    likes = {
        user: Counter(kind_of(train.item_ids[row]) for row in train.item_rows[train.user_rows == at])
        for at, user in enumerate(users)
    }
    held_out = to_interactions(
        [(user, cold[likes[user].most_common(1)[0][0]]) for user in users[:40]]
        + [
            (user, pairs[1].item_ids[pairs[1].item_rows[pairs[1].user_rows == pairs[1].user_index[user]][0]])
            for user in users
        ]
    )
    found = evaluate(model, training_of(model), held_out, [], seed=0)
    parts = {part.group: part for part in found.slices["cold items"]}
    assert parts["not known in training"].held_out == 40
    assert parts["not known in training"].baselines["popularity"] < parts["not known in training"].model.mean


def test_users_unknown_to_the_model_are_evaluated_as_new(model: Recommender, pairs: Pairs) -> None:
    held_out = to_interactions([(f"stranger{number}", "jazz-00") for number in range(6)])
    found = evaluate(model, training_of(model), held_out, [], seed=0)
    expected = model.evaluate(held_out, ks=[20])
    assert found.metrics["recall@20"][0].interval.mean == pytest.approx(expected["recall@20"])


def test_large_catalogs_are_evaluated_by_a_sample(
    model: Recommender, pairs: Pairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mmrec.reporting.scores.num_users_looked_at", lambda num_items: 30)
    found = evaluate(model, training_of(model), pairs[1], [], seed=0)
    assert (found.users, found.all_users) == (30, 80)


def test_held_out_interactions_must_be_held_out(model: Recommender, store: FeatureStore, pairs: Pairs) -> None:
    with pytest.raises(InteractionError, match="present in training"):
        make_report(store, model, pairs[0])
    disliked = pairs[1].select(np.arange(3))
    disliked.weights[:] = 0
    with pytest.raises(EvaluationError, match="nothing to evaluate by"):
        make_report(store, model, disliked)


def test_lists_leave_out_the_history_and_say_why(report: Report) -> None:
    assert report.model is not None
    lists = report.model.lists
    assert len(lists) == 6
    for user in lists:
        assert user.num_items == 4 and len(user.latest) == 4
        listed = [item.item_id for item in user.items]
        assert len(listed) == 10 and not set(listed) & set(user.latest)
        assert all(item.sentences for item in user.items[:3]) and not user.items[5].sentences
        assert kind_of(listed[0]) == kind_of(user.latest[0])


def test_bias_compares_shares(report: Report, model: Recommender) -> None:
    assert report.model is not None and report.model.bias is not None
    bias = report.model.bias
    assert bias.users == bias.all_users == 80 and bias.k == 20
    assert bias.catalog["the model"]["coverage"] > bias.catalog["popularity"]["coverage"]
    for parts in bias.exposure.values():
        assert sum(part.of_catalog for part in parts) == pytest.approx(1)
        assert sum(part.of_interactions for part in parts) == pytest.approx(1)
        assert sum(part.of_lists for part in parts) == pytest.approx(1)
    assert [(group.history, group.users) for group in bias.by_history] == [("2-4", 80)]


def test_curves_are_those_of_the_fit(report: Report, model: Recommender) -> None:
    assert report.model is not None
    curves = report.model.report.curves
    assert len(curves["train_loss"]) == model.report.epochs
    assert max(curves["val_recall@20"]) == pytest.approx(curves["val_recall@20"][model.report.best_epoch])


def test_a_model_of_content_alone_has_no_users(store: FeatureStore, content: Recommender, pairs: Pairs) -> None:
    report = make_report(store, content)
    assert report.model is not None and not report.model.lists and report.model.bias is None
    with pytest.raises(ModelError, match="without interactions"):
        make_report(store, content, pairs[1])


# --- writing ----------------------------------------------------------------------------------------------------------


def test_what_cannot_be_written_is_refused_before_the_work(
    store: FeatureStore, tmp_path: Path, pairs: Pairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mmrec.reporting.report, "make_report", lambda *_, **__: pytest.fail("it worked already"))
    with pytest.raises(MMRecError, match="there is no folder"):
        write_report(tmp_path / "nowhere" / "report.html", store)
    with pytest.raises(ModelError, match="none was given"):
        write_report(tmp_path / "report.html", store, None, pairs[1])


def test_titles_stand_for_items(report: Report) -> None:
    assert report.items.name("jazz-00") == HOSTILE
    assert report.items.name("of another store") == "of another store"
