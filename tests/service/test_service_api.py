"""What the API answers is what Python answers; lists come in pages; what cannot be had is one clear problem."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from served import ROWS, SCRIPT, SLASHES, MakeClient
from starlette.testclient import TestClient

from mmrec import FeatureStore, Query, Recommender, Searcher
from mmrec.recommending import Explanation
from mmrec.store import LabelledItem


def get(api: TestClient, what: str, **parameters: Any) -> Any:
    answer = api.get(f"/api/v1/{what}", params=parameters)
    assert answer.status_code == 200, answer.text
    return answer.json()


def post(api: TestClient, what: str, body: Any) -> Any:
    answer = api.post(f"/api/v1/{what}", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def found(results: list[dict[str, Any]]) -> list[str]:
    return [result["item"]["item_id"] for result in results]


# --- the service ------------------------------------------------------------------------------------------------------


def test_it_lives_and_says_what_it_serves(api: TestClient, model: Recommender) -> None:
    assert get(api, "health") == {"status": "ok"}
    assert get(api, "ready") == {"status": "ready"}
    about = get(api, "about")
    assert about["store"]["items"] == len(ROWS)
    assert about["store"]["statuses"]["failed"] == 0
    assert {m["modality"]: m["has_words"] for m in about["store"]["modalities"]} == {
        "visual": False, "audio": False, "text": True,
    }  # fmt: skip
    assert {"name": "year", "kind": "number"} in about["columns"]
    assert [(m["name"], m["version"], m["users"]) for m in about["models"]] == [("model", 1, len(model.user_ids))]


def test_figures_count_requests_by_route(api: TestClient) -> None:
    get(api, "items", limit=1)
    lines = api.get("/api/v1/metrics").text.splitlines()
    (counted,) = [line for line in lines if line.startswith("mmrec_requests_total") and '/items"' in line]
    assert 'status="200"' in counted
    assert float(counted.rsplit(" ", 1)[1]) >= 1


def test_every_operation_is_documented(api: TestClient) -> None:
    paths = get(api, "openapi.json")["paths"]
    assert len(paths) >= 22
    for path, operations in paths.items():
        for operation in operations.values():
            assert operation["description"], path
            assert "{" not in path, "ids stand in the query"


# --- items ------------------------------------------------------------------------------------------------------------


def test_items_come_in_pages_in_the_order_of_the_store(api: TestClient, served: Path) -> None:
    everything = FeatureStore(served / "store").to_arrow(["item_id"])["item_id"].to_pylist()
    pages = [get(api, "items", offset=offset, limit=10) for offset in (0, 10, 20, 30)]
    assert [item["item_id"] for page in pages for item in page["items"]] == everything
    assert {page["total"] for page in pages} == {len(ROWS)}


def test_items_are_filtered_as_by_the_command_line(api: TestClient) -> None:
    page = get(api, "items", where="year >= 1992 and year < 1995 and tags = 'calm'")
    assert sorted(item["item_id"] for item in page["items"]) == ["jazz-2", "jazz-3", "jazz-4"]
    assert get(api, "items", where="year > 3000")["total"] == 0
    assert [item["item_id"] for item in get(api, "items", status="partial")["items"]] == [
        "damaged",
        "missing",
        "drawing",
    ]


def test_a_summary_says_what_an_item_is(api: TestClient) -> None:
    items = {item["item_id"]: item for item in get(api, "items", limit=100)["items"]}
    kinds = {name: (items[name]["medium"], items[name]["has_media"]) for name in ("clip", "tone", SLASHES, "jazz-0")}
    assert kinds == {
        "clip": ("clip", True), "tone": ("sound", True), SLASHES: ("picture", True), "jazz-0": ("text", False),
    }  # fmt: skip
    assert items["clip"]["tags"] == ["dog", "walk"]
    assert items["clip"]["metadata"] == {"year": "2001"}
    assert items["clip"]["duration_seconds"] == pytest.approx(2, abs=0.2)
    assert items[SLASHES]["title"] == SCRIPT
    assert not items["damaged"]["has_media"]


def test_an_id_with_slashes_is_an_id(api: TestClient) -> None:
    item = get(api, "item", item_id=SLASHES)
    assert item["item_id"] == SLASHES
    assert item["facts"]["width"] > 0
    assert item["moments"]["visual"]


def test_faults_are_named(api: TestClient) -> None:
    item = get(api, "item", item_id="damaged")
    assert (item["heard"], item["seen"], item["about"]) == ([], [], {})
    assert item["problems"]["visual"]["reason"] == "not_media"
    page = get(api, "failures", limit=1)
    assert page["total"] == 3
    assert page["items"][0]["problems"]["audio"]["detail"]
    assert Path(page["items"][0]["media"]).name == "damaged.mp4"


def test_runs_are_told(api: TestClient) -> None:
    (run,) = get(api, "runs")["runs"]
    assert run["exit"] == 0
    assert run["counts"]["items"] == len(ROWS)


def test_labels_are_shown_filtered_by_and_followed(start: MakeClient, copied: Path, tmp_path: Path) -> None:
    api = start(copied, tmp_path / "labelled.sqlite")
    assert not get(api, "about")["features"]["tags"]
    labels = [LabelledItem(item_id=f"jazz-{number}", labels=["quiet"], scores={"quiet": 0.9}) for number in range(3)]
    FeatureStore(copied / "store").labels.write("mood", labels)
    deadline = time.monotonic() + 30
    while not get(api, "item", item_id="jazz-0")["tag_columns"] and time.monotonic() < deadline:
        time.sleep(0.1)
    assert get(api, "item", item_id="jazz-0")["tag_columns"] == {"mood": ["quiet"]}
    assert get(api, "about")["features"]["tags"]
    assert get(api, "items", where="mood = 'quiet'")["total"] == 3
    placed = get(api, "map", color="mood")
    assert placed["color"][placed["item_ids"].index("jazz-1")] == ["quiet"]


# --- media ------------------------------------------------------------------------------------------------------------


def test_media_are_served_whole_and_in_ranges(api: TestClient, served: Path) -> None:
    data = (served / "media" / "clip.mp4").read_bytes()
    whole = api.get("/api/v1/media", params={"item_id": "clip"})
    assert (whole.content, whole.headers["content-type"]) == (data, "video/mp4")
    part = api.get("/api/v1/media", params={"item_id": "clip"}, headers={"Range": "bytes=5-9"})
    assert (part.status_code, part.content) == (206, data[5:10])
    assert part.headers["content-range"] == f"bytes 5-9/{len(data)}"
    beyond = api.get("/api/v1/media", params={"item_id": "clip"}, headers={"Range": f"bytes={len(data)}-"})
    assert beyond.status_code == 416
    head = api.head("/api/v1/media", params={"item_id": "clip"})
    assert (head.content, head.headers["content-length"]) == (b"", str(len(data)))


@pytest.mark.parametrize("item_id", ["clip", SLASHES])
def test_thumbnails_are_pictures_of_the_size_that_is_asked_for(api: TestClient, item_id: str) -> None:
    answer = api.get("/api/v1/thumbnail", params={"item_id": item_id, "width": 128})
    assert answer.headers["content-type"] == "image/jpeg"
    assert Image.open(io.BytesIO(answer.content)).width == 128


def test_a_thumbnail_is_that_of_its_moment(api: TestClient) -> None:
    pictures = [
        api.get("/api/v1/thumbnail", params={"item_id": "clip", "seconds": seconds}).content for seconds in (0, 1.9)
    ]
    dark, bright = (np.median(np.asarray(Image.open(io.BytesIO(picture)).convert("L"))) for picture in pictures)
    assert bright > dark + 50


def test_a_waveform_has_as_many_peaks_as_asked(api: TestClient) -> None:
    waveform = get(api, "waveform", item_id="tone", points=20)
    assert len(waveform["peaks"]) == 20
    assert max(waveform["peaks"]) > 0.01
    assert waveform["seconds"] == pytest.approx(2, abs=0.1)


def test_what_has_no_picture_says_so(api: TestClient) -> None:
    answer = api.get("/api/v1/thumbnail", params={"item_id": "tone"})
    assert answer.status_code == 404
    assert "gives no picture" in answer.json()["detail"]
    assert api.get("/api/v1/thumbnail", params={"item_id": "jazz-0"}).json()["detail"].endswith("has no media file")


# --- searching --------------------------------------------------------------------------------------------------------


def test_a_search_finds_what_python_finds(api: TestClient, served: Path) -> None:
    body = {"words": ["slow jazz"], "without": ["goals"], "where": "year < 1997", "k": 5, "weights": {"words": 0.5}}
    results = post(api, "search", body)["results"]
    query = Query(words=["slow jazz"], without=["goals"], where="year < 1997", weights={"words": 0.5})
    ids, scores = Searcher(FeatureStore(served / "store")).search(query, k=5)
    assert found(results) == ids
    assert [result["score"] for result in results] == pytest.approx(scores.tolist())
    assert found(post(api, "search", {**body, "k": 2, "offset": 1})["results"]) == ids[1:3]


def test_a_search_may_know_who_asks_and_avoid_what_is_alike(api: TestClient, served: Path, model: Recommender) -> None:
    body = {"words": ["night week"], "k": 6, "diversity": 0.5, "user_id": "user00", "weights": {"user": 2.0}}
    query = Query(words=["night week"], diversity=0.5, taste=model.taste("user00"), weights={"user": 2.0})
    ids, scores = Searcher(FeatureStore(served / "store")).search(query, k=6)
    results = post(api, "search", body)["results"]
    assert found(results) == ids
    assert [result["score"] for result in results] == pytest.approx(scores.tolist())
    assert found(post(api, "search", {"words": ["night week"], "k": 6})["results"]) != ids


def test_moments_are_found(api: TestClient) -> None:
    (first, *_) = post(api, "search", {"items": [SLASHES], "moments": True})["results"]
    assert first["item"]["item_id"] in ("clip", "outside")
    assert first["moment"]["modality"] == "visual"
    assert first["score"] == first["moment"]["score"]


def test_a_file_finds_itself(api: TestClient, served: Path) -> None:
    with open(served / "media" / "clip.mp4", "rb") as file:
        sent = {"files": {"file": ("../../clip.mp4", file)}, "data": {"query": json.dumps({"k": 2})}}
        answer = api.post("/api/v1/search/file", **sent)
    assert answer.status_code == 200, answer.text
    assert found(answer.json()["results"])[0] == "clip"


@pytest.mark.parametrize("by", ["visual", "text", "fused"])
def test_neighbours_are_those_of_python(api: TestClient, served: Path, model: Recommender, by: Any) -> None:
    results = get(api, "similar", item_id="outside", by=by, k=3)["results"]
    if by == "fused":
        ids, cosines = model.similar_items("outside", k=3)
    else:
        ids, cosines = Searcher(FeatureStore(served / "store")).similar_items("outside", by, k=3)
    assert found(results) == list(ids)
    assert [result["score"] for result in results] == pytest.approx(cosines.tolist(), abs=1e-6)


def test_the_nearest_by_a_modality_is_the_most_alike(api: TestClient) -> None:
    assert found(get(api, "similar", item_id="jazz-0", by="text", k=3)["results"])[0].startswith("jazz")
    assert found(get(api, "similar", item_id="outside", by="visual", k=1)["results"]) == [SLASHES]


def test_the_same_content_again_is_found_or_the_reason_told(api: TestClient) -> None:
    answer = api.get("/api/v1/duplicates")
    assert answer.status_code == 409
    assert "threshold" in answer.json()["detail"]


def test_the_map_places_every_item(api: TestClient, model: Recommender) -> None:
    placed = get(api, "map", color="year")
    assert placed["item_ids"] == model.item_ids
    assert placed["by"] == "fused"
    assert placed["color"][placed["item_ids"].index("clip")] == "2001"
    assert all(0 <= place <= 1 for place in (*placed["x"], *placed["y"]))


# --- users ------------------------------------------------------------------------------------------------------------


def test_lists_are_those_of_python(api: TestClient, model: Recommender) -> None:
    options = {"k": 4, "exclude": ["jazz-1"], "diversity": 0.2, "exclude_seen": False}
    lists = post(api, "recommend", {"users": ["user00", "user01"], "where": {"tags": ["jazz", "sport"]}, **options})
    ids_UK, scores_UK = model.recommend(["user00", "user01"], where={"tags": ["jazz", "sport"]}, **options)
    assert [found(one["results"]) for one in lists["lists"]] == ids_UK.tolist()
    scores = [[result["score"] for result in one["results"]] for one in lists["lists"]]
    assert np.allclose(scores, scores_UK)


def test_somebody_new_gets_what_python_gives_somebody_new(api: TestClient, model: Recommender) -> None:
    (one,) = post(api, "recommend", {"users": ["nobody knows"], "k": 5})["lists"]
    assert found(one["results"]) == model.recommend(model.user_state(), k=5)[0].tolist()


def test_scores_are_those_of_python(api: TestClient, model: Recommender) -> None:
    items = ["jazz-0", "goal-0", SLASHES]
    scores = post(api, "score", {"user_id": "user00", "items": items})["scores"]
    assert np.allclose(scores, model.score("user00", items))
    pairs = [["user00", "jazz-0"], ["user01", "goal-0"], ["user00", SLASHES]]
    scores = post(api, "score", {"pairs": pairs})["scores"]
    assert np.allclose(scores, model.score(["user00", "user01", "user00"], items))


def test_a_history_is_told_newest_first(api: TestClient) -> None:
    user = get(api, "user", user_id="user03")
    assert user["known"]
    assert [entry["item"]["item_id"] for entry in user["history"]] == ["goal-6", "goal-5", "goal-4", "goal-3"]
    times = [entry["timestamp"] for entry in user["history"]]
    assert times == sorted(times, reverse=True)
    assert times[-1] == pytest.approx(1e9 + 86_400 * 12)
    assert get(api, "user", user_id="nobody") == {"user_id": "nobody", "known": False, "history": []}


def test_users_come_in_pages(api: TestClient, model: Recommender) -> None:
    page = get(api, "users", prefix="user0", offset=2, limit=3)
    assert page["total"] == 10
    assert page["items"] == [{"user_id": f"user0{n}", "num_interactions": 4} for n in (2, 3, 4)]
    assert get(api, "users", prefix="nobody")["items"] == []


def test_an_explanation_is_that_of_python(api: TestClient, served: Path, model: Recommender) -> None:
    said = get(api, "explain", user_id="user00", item_id="clip")
    expected = model.explain("user00", "clip", store=FeatureStore(served / "store"))
    assert said["sentences"] == expected.sentences()
    assert said["score"] == pytest.approx(expected.score)
    told, wanted = leaves(Explanation.from_dict(said).to_dict()), leaves(json.loads(json.dumps(expected.to_dict())))
    assert told == pytest.approx(wanted, abs=1e-5)  # the order of a sum is another in another thread


def leaves(value: Any, path: str = "") -> dict[str, Any]:
    """What a JSON value holds, by where it stands."""
    if not isinstance(value, dict | list | tuple):
        return {path: value}
    inside = value.items() if isinstance(value, dict) else enumerate(value)
    return {name: leaf for key, part in inside for name, leaf in leaves(part, f"{path}/{key}").items()}


UNKNOWN = {"interactions": [{"user_id": "user00", "item_id": "nothing"}]}

# --- problems ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "words", "method", "what", "sent"),
    [
        (404, "the store has no item 'nothing'", "GET", "item", {"params": {"item_id": "nothing"}}),
        (404, "no item", "GET", "media", {"params": {"item_id": "../../etc/passwd"}}),
        (404, "the model has no item", "GET", "similar", {"params": {"item_id": "nothing"}}),
        (404, "no user", "GET", "explain", {"params": {"item_id": "clip", "user_id": "nobody"}}),
        (404, "no user", "POST", "search", {"json": {"words": ["jazz"], "user_id": "nobody"}}),
        (404, "no user", "DELETE", "user", {"params": {"user_id": "nobody"}}),
        (404, "no model 'other'", "POST", "recommend", {"json": {"users": ["user00"], "model": "other"}}),
        (
            400,
            "no column 'jear'; did you mean 'year'?",
            "POST",
            "search",
            {"json": {"words": ["a"], "where": "jear=1"}},
        ),
        (400, "there are no words in '...'", "POST", "search", {"json": {"words": ["..."]}}),
        (400, "the search is empty", "POST", "search", {"json": {}}),
        (400, "nothing can be found there", "POST", "search", {"json": {"words": ["a"], "where": "year > 3000"}}),
        (400, "no column", "POST", "recommend", {"json": {"users": ["user00"], "where": {"jear": 1}}}),
        (400, "no item 'nothing'", "POST", "score", {"json": {"user_id": "user00", "items": ["nothing"]}}),
        (400, "not both", "POST", "score", {"json": {"user_id": "user00"}}),
        (
            404,
            "nor a model has",
            "POST",
            "interactions",
            {"json": {"interactions": [{"user_id": "u", "item_id": "x"}]}},
        ),
        (422, "k: ", "POST", "recommend", {"json": {"users": ["user00"], "k": 0}}),
        (422, "cc: Extra inputs", "POST", "recommend", {"json": {"users": ["user00"], "cc": 0}}),
        (422, "item_id: Field required", "GET", "item", {}),
        (422, "limit", "GET", "items", {"params": {"limit": 100_000}}),
        (422, "JSON", "POST", "search", {"content": "{", "headers": {"content-type": "application/json"}}),
        (422, "by", "GET", "similar", {"params": {"item_id": "clip", "by": "smell"}}),
        (404, "", "GET", "nothing", {}),
        (405, "", "POST", "items", {}),
    ],
)
def test_a_problem_is_one_line_of_the_command_lines_words(
    api: TestClient, status: int, words: str, method: str, what: str, sent: dict[str, Any]
) -> None:
    answer = api.request(method, f"/api/v1/{what}", **sent)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    said = answer.json()
    assert said["status"] == status
    assert words in said["detail"]
    assert "\n" not in said["detail"]
    assert said["request_id"] == answer.headers["x-request-id"]


def test_a_file_that_is_no_media_is_named_by_its_own_name(api: TestClient) -> None:
    answer = api.post("/api/v1/search/file", files={"file": ("../../notes.txt", b"words")})
    assert answer.status_code == 400
    assert answer.json()["detail"].startswith("notes.txt has nothing to compare (visual: not_media")
    assert "/tmp" not in answer.text
