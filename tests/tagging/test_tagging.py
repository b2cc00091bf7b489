"""Labels by words, by examples, and by both; what is said of how they were made."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

import mmrec
from encoders.text import HashedNgrams
from mmrec.errors import TaggingError
from mmrec.store import Features, FeatureStore
from mmrec.tagging import Examples, LabelScores, LabelSet, score_labels
from mmrec.tagging.calibration import fit_calibration, plain_log_odds
from mmrec.tagging.choosing import by_examples
from mmrec.tagging.evidence import Evidence, ItemVectors
from mmrec.tagging.probes import fit_probes

KINDS = LabelSet(
    "kind",
    {
        "piano": {"en": ["piano", "piano music"], "de": ["Klavier"]},
        "football": {"en": ["football", "football goals"]},
        "noodles": {"en": ["noodles", "cooking noodles"]},
    },
)
TRUTH = {f"{kind}-{number}": {kind} for kind in KINDS.labels for number in range(4)}


def examples(*numbers: int) -> Examples:
    return Examples({item_id: kinds for item_id, kinds in TRUTH.items() if int(item_id[-1]) in numbers})


def test_words_alone_order_items_and_name_their_best_label(store: FeatureStore) -> None:
    scores = score_labels(store, KINDS)
    assert scores.methods == ["zero-shot"] * 3 and scores.sources == {"text": 1.0} and scores.probed == []
    assert np.all((scores.scores_IK > 0) & (scores.scores_IK < 1))
    best = [KINDS.labels[place] for place in scores.scores_IK.argmax(axis=1)]
    assert best == [item_id.split("-")[0] for item_id in scores.item_ids]
    assert {label: precision for label, (precision, _) in scores.evaluate(Examples(TRUTH)).items()} == {
        "piano": 1.0,
        "football": 1.0,
        "noodles": 1.0,
    }


def test_a_score_depends_on_the_prompts_of_its_own_label_alone(store: FeatureStore) -> None:
    alone = LabelSet("kind", {"football": KINDS.prompts["football"]})
    among, by_itself = score_labels(store, KINDS), score_labels(store, alone)
    np.testing.assert_allclose(by_itself.scores_IK[:, 0], among.scores_IK[:, 1], rtol=1e-5)


def test_probes_learn_from_what_has_no_words(pictures: FeatureStore) -> None:
    scores = score_labels(pictures, KINDS, examples=examples(0, 1))
    assert scores.methods == ["probe"] * 3 and scores.probed == ["visual"] and scores.sources == {}
    assert all(set(losses) == {"probe"} for losses in scores.losses.values())
    assert all(precision == 1.0 for precision, _ in scores.evaluate(Examples(TRUTH)).values())


def test_probes_join_words_where_they_are_better_on_held_out_examples(store: FeatureStore) -> None:
    kinds = LabelSet("kind", {**KINDS.prompts, "noodles": {"en": ["a warm meal of pasta"]}})  # of which no text speaks
    words = score_labels(store, kinds)
    scores = score_labels(store, kinds, examples=examples(0, 1, 2))
    for label, method in zip(kinds.labels, scores.methods, strict=True):
        losses = scores.losses[label]
        assert (method == "probe") == (losses["probe"] < losses["zero-shot"])
    assert bool(scores.probed) == ("probe" in scores.methods)
    assert scores.sources["text"] != words.sources["text"]
    evaluated = scores.evaluate(Examples(TRUTH))
    assert evaluated == dict.fromkeys(KINDS.labels, (1.0, 1))  # the examples are left out


def test_few_examples_calibrate_words_without_a_probe(store: FeatureStore) -> None:
    scores = score_labels(store, KINDS, examples=Examples({"piano-0": {"piano"}, "noodles-0": {"noodles"}}))
    assert scores.methods == ["zero-shot"] * 3 and scores.losses == {}
    assert scores.sources["text"] != 1.0
    assert all(precision == 1.0 for precision, _ in scores.evaluate(Examples(TRUTH)).values())


def test_a_label_of_which_nothing_can_be_known_is_named(
    pictures: FeatureStore, caplog: pytest.LogCaptureFixture
) -> None:
    known = Examples({item_id: kinds - {"noodles"} for item_id, kinds in examples(0, 1).labels.items()})
    with caplog.at_level(logging.WARNING):
        scores = score_labels(pictures, KINDS, examples=known)
    assert scores.methods == ["probe", "probe", "none"]
    assert "nothing is known of noodles" in caplog.text
    assert all(set(item.scores) == {"piano", "football"} for item in scores.items())
    assert scores.evaluate(Examples(TRUTH))["noodles"] == (pytest.approx(1 / 3, abs=0.01), 2)


def test_items_without_tokens_have_no_scores(store: FeatureStore) -> None:
    store.write([Features(mmrec.Item(item_id="nothing", title="nothing"))])
    scores = score_labels(store, KINDS, examples=examples(0, 1, 2))
    items = {item.item_id: item for item in scores.items()}
    assert items["nothing"].scores == {} and items["nothing"].labels == []
    assert np.isnan(scores.scores_IK).any(axis=1).sum() == 1


def test_what_pictures_show_meets_words(store: FeatureStore) -> None:
    rows = list(store.features())
    for row in rows:
        kind = row.item.item_id.split("-")[0]
        row.tokens.pop("text")
        row.fingerprints.pop("text")
        row.classes = [(f"{kind} thing", 0.8), ("other things", 0.1)]
    store.write([], rows)
    scores = score_labels(store, KINDS)
    assert scores.sources == {"classes": 1.0}
    assert all(precision == 1.0 for precision, _ in scores.evaluate(Examples(TRUTH)).values())


def test_thresholds_say_which_labels_hold() -> None:
    scores = LabelScores(
        labels=LabelSet("s", {"a": {}, "b": {}, "c": {}}),
        item_ids=["x"],
        scores_IK=np.array([[0.25, 0.5, np.nan]], np.float32),
        methods=["zero-shot", "zero-shot", "none"],
    )
    (item,) = scores.items(0.25)
    assert item.labels == ["b", "a"] and item.scores == {"a": 0.25, "b": 0.5}
    assert scores.items()[0].labels == ["b"]


def test_average_precision_is_that_by_hand() -> None:
    scores = LabelScores(
        labels=LabelSet("s", {"a": {}, "b": {}}),
        item_ids=["w", "x", "y", "z"],
        scores_IK=np.array([[0.9, np.nan], [0.8, 0.1], [0.7, np.nan], [0.6, 0.2]], np.float32),
        methods=["zero-shot"] * 2,
    )
    truth = Examples({"w": {"a"}, "x": set(), "y": {"a"}, "z": {"b"}, "elsewhere": {"a"}})
    assert scores.evaluate(truth) == {"a": (pytest.approx((1 + 2 / 3) / 2), 2), "b": (1.0, 1)}
    with pytest.raises(TaggingError, match="all items of the truth were examples"):
        dataclasses.replace(scores, examples=truth).evaluate(truth)


def planted_evidence(seed: int = 0) -> tuple[Evidence, np.ndarray]:
    """Two sources, the second without any sense, of 300 items and 4 labels; the truth."""
    rng = np.random.default_rng(seed)
    truth_EK = rng.random((300, 4)) < [0.1, 0.2, 0.3, 0.4]
    scores_SEK = np.stack([rng.normal(size=(300, 4)) + 2 * truth_EK, rng.normal(size=(300, 4)) - 0.5 * truth_EK])
    return Evidence(["text", "visual"], scores_SEK.astype(np.float32), np.ones((2, 300), np.float32)), truth_EK


def test_calibration_is_what_a_logistic_regression_on_one_source_finds() -> None:
    evidence, truth_EK = planted_evidence()
    fitted = fit_calibration(evidence, truth_EK, np.ones(4, np.bool_))
    assert fitted is not None and fitted.slopes_S[1] == 0  # it would speak against what it shows
    one = np.column_stack([evidence.scores_SIK[0].ravel(), np.tile(np.eye(4), (300, 1))])
    reference = LogisticRegression(C=1e4, max_iter=1000).fit(one, truth_EK.ravel())
    assert fitted.slopes_S[0] == pytest.approx(reference.coef_[0, 0], rel=0.05)
    chances = 1 / (1 + np.exp(-fitted.log_odds(evidence)))
    np.testing.assert_allclose(chances.mean(axis=0), truth_EK.mean(axis=0), atol=0.02)  # as often as they hold


def test_what_examples_do_not_speak_of_gets_the_mean_bias() -> None:
    evidence, truth_EK = planted_evidence()
    truth_EK[:, 3] = False
    fitted = fit_calibration(evidence, truth_EK, truth_EK.any(axis=0))
    assert fitted is not None
    assert fitted.bias_K[3] == pytest.approx(fitted.bias_K[:3].mean())
    assert fit_calibration(evidence, np.zeros_like(truth_EK), np.zeros(4, np.bool_)) is None


def test_missing_sources_leave_the_others_as_they_are() -> None:
    both = np.array([[[4.0], [4.0]], [[np.nan], [1.0]]], np.float32)
    evidence = Evidence(["text", "classes"], both, np.array([[1, 1], [0, 0.5]], np.float32))
    alone, joined = plain_log_odds(evidence)[:, 0]
    assert alone == pytest.approx(4 - 2.5)
    assert joined == pytest.approx((4 + 0.5) / np.sqrt(1.25) - 2.5)
    nothing = Evidence([], np.zeros((0, 2, 1), np.float32), np.zeros((0, 2), np.float32))
    assert np.isnan(plain_log_odds(nothing)).all()


def test_probes_are_the_regression_on_standardised_vectors() -> None:
    rng = np.random.default_rng(0)
    vectors_ID = rng.normal(size=(50, 6)).astype(np.float32)
    truth_EK = (vectors_ID[:20, :1] + 0.5 * rng.normal(size=(20, 1))) > 0
    of_items = ItemVectors(np.arange(50), vectors_ID)
    (fitted,) = fit_probes({"visual": of_items}, np.arange(20), truth_EK, 60)
    scaled_ID = (vectors_ID - vectors_ID.mean(axis=0)) / vectors_ID.std(axis=0) / np.sqrt(6)
    reference = LogisticRegression(C=10, max_iter=1000, tol=1e-8).fit(scaled_ID[:20], truth_EK[:, 0])
    np.testing.assert_allclose(fitted.log_odds_IK[:50, 0], reference.decision_function(scaled_ID), atol=0.01)
    assert np.isnan(fitted.log_odds_IK[50:]).all()  # ten items have no pictures


def test_the_modality_that_tells_labels_apart_is_probed() -> None:
    rng = np.random.default_rng(0)
    truth_EK = np.arange(40)[:, None] % 2 == 0
    told = ItemVectors(np.arange(40), (rng.normal(size=(40, 4)) + 4 * truth_EK).astype(np.float32))
    noise = ItemVectors(np.arange(40), rng.normal(size=(40, 64)).astype(np.float32))
    evidence = Evidence(["text"], rng.normal(size=(1, 40, 1)).astype(np.float32), np.ones((1, 40), np.float32))
    choice = by_examples(evidence, {"visual": noise, "audio": told}, np.arange(40), truth_EK, np.ones(1, np.bool_))
    assert choice.modalities == ["audio"] and choice.is_probed_K.all()
    assert choice.losses[0]["probe"] < choice.losses[0]["zero-shot"]


def test_probes_that_learn_nothing_are_not_used() -> None:
    rng = np.random.default_rng(0)
    truth_EK = rng.random((60, 1)) < 0.5
    told = Evidence(
        ["text"], (rng.normal(size=(1, 60, 1)) + 6 * truth_EK).astype(np.float32), np.ones((1, 60), np.float32)
    )
    noise = ItemVectors(np.arange(60), rng.normal(size=(60, 64)).astype(np.float32))
    choice = by_examples(told, {"visual": noise}, np.arange(60), truth_EK, np.ones(1, np.bool_))
    assert not choice.is_probed_K.any() and choice.modalities == []
    assert choice.losses[0]["zero-shot"] < choice.losses[0]["probe"]


# --- what is wrong ----------------------------------------------------------------------------------------------------


def test_languages_that_no_encoder_knows_are_refused(store: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HashedNgrams, "languages", frozenset({"en", "zh"}), raising=False)
    assert score_labels(store, KINDS).methods == ["zero-shot"] * 3  # German beside English is left out
    sauna = LabelSet("s", {"piano": {"en": ["piano"]}, "sauna": {"fi": ["sauna"], "sv": ["bastu"]}})
    with pytest.raises(TaggingError) as caught:
        score_labels(store, sauna)
    assert str(caught.value) == (
        f"label 'sauna' has prompts in fi and sv alone, which no encoder of {store.folder} knows: "
        "add some in one of en, zh"
    )


def test_languages_that_are_not_said_are_warned_of(
    store: FeatureStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("py3langid")
    monkeypatch.setattr(HashedNgrams, "languages", frozenset({"en"}), raising=False)
    labels = LabelSet(
        "s", {"dog": {"": ["Ein Hund läuft durch den Park."]}, "rain": {"": ["rain on the roof of the house"]}}
    )
    with caplog.at_level(logging.WARNING):
        score_labels(store, labels)
    assert "the text encoder may not know the language of the prompts of 'dog' (de)" in caplog.text


def test_what_cannot_be_labelled_is_said(store: FeatureStore, pictures: FeatureStore, tmp_path: Path) -> None:
    with pytest.raises(TaggingError, match=r"words cannot be compared .*\(visual by looks\): give examples"):
        score_labels(pictures, KINDS)
    empty = FeatureStore(tmp_path / "empty", create=True)
    with pytest.raises(TaggingError, match="has no items: embed a catalog"):
        score_labels(empty, KINDS)
    empty.write([Features(mmrec.Item(item_id="a", title="a"))])
    with pytest.raises(TaggingError, match="has 1 items without tokens: embed a catalog"):
        score_labels(empty, KINDS)
    with pytest.raises(TaggingError, match=r"the catalog has a column 'year' \(of 'piano-0'\): .*--as NAME"):
        mmrec.tag(store, dataclasses.replace(KINDS, name="year"))
    with pytest.raises(TaggingError, match="the threshold is 2: expected 0 to 1"):
        mmrec.tag(store, KINDS, threshold=2)
    with pytest.raises(TaggingError, match="the set has no label 'violin'"):
        score_labels(store, KINDS, examples=Examples({"piano-0": {"violin"}}))
    with pytest.raises(TaggingError, match="the store has no item 'violin-0'"):
        score_labels(store, KINDS, examples=Examples({"violin-0": {"piano"}}))
    assert store.labels.names() == []
