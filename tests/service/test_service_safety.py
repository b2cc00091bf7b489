"""Who may ask, for what, how often and how much; nothing leaves that is not the catalog's."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

import pytest
from media_files import write_image
from served import BASE, MakeClient, config_of
from starlette.testclient import TestClient

from mmrec.errors import ServiceError
from mmrec.service import JsonFormatter, ServiceConfig, create_app

TOKEN = "correct-horse-battery"
BEARER = {"Authorization": f"Bearer {TOKEN}"}


def status(api: TestClient, what: str, method: str = "GET", **sent: Any) -> int:
    return api.request(method, f"/api/v1/{what}", **sent).status_code


# --- who --------------------------------------------------------------------------------------------------------------


def test_a_token_is_asked_for_everything_but_whether_it_lives(start: MakeClient) -> None:
    api = start(token=TOKEN)
    for what in ("about", "items", "metrics", "openapi.json", "user?user_id=u", "media?item_id=clip", "nothing"):
        assert status(api, what) == 401, what
        assert status(api, what, headers={"Authorization": f"Bearer {TOKEN}x"}) == 401
        assert status(api, what, headers={"Authorization": f"Basic {TOKEN}"}) == 401
        assert status(api, what, headers=BEARER) != 401
        assert status(api, what, headers={"Authorization": "Bearer \xff\xfe".encode("latin-1")}) == 401
    assert status(api, f"items?token={TOKEN}") == 401
    assert status(api, "health") == status(api, "ready") == 200
    assert api.get("/api/v1/items").headers["www-authenticate"] == "Bearer"


def test_the_token_is_exchanged_for_a_cookie_that_only_reads(start: MakeClient) -> None:
    api = start(token=TOKEN)
    assert status(api, "session", "POST", json={"token": "another-token-altogether"}) == 401
    answer = api.post("/api/v1/session", json={"token": TOKEN})
    assert answer.status_code == 204
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie and "samesite=strict" in cookie.lower()
    assert TOKEN not in cookie
    assert status(api, "media?item_id=clip") == 200
    assert status(api, "search", "POST", json={"words": ["jazz"]}) == 401
    api.cookies.clear()
    assert status(api, "media?item_id=clip", headers={"Cookie": "mmrec_session=made-up"}) == 401
    assert status(api, "media?item_id=clip", headers={"Cookie": 'mmrec_session="\\400'}) == 401


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "[::1", "evil.example:127.0.0.1"])
def test_a_website_that_renames_itself_is_not_answered(api: TestClient, host: str) -> None:
    assert status(api, "items", headers={"Host": host}) == 421


@pytest.mark.parametrize("host", ["localhost", "localhost:8000", "127.0.0.1:1", "[::1]:8000"])
def test_this_machine_is_answered_by_all_its_names(api: TestClient, host: str) -> None:
    assert status(api, "items", headers={"Host": host}) == 200


def test_other_websites_cannot_send(api: TestClient) -> None:
    body = {"words": ["jazz"]}
    assert status(api, "search", "POST", json=body, headers={"Origin": "https://evil.example"}) == 403
    assert status(api, "search", "POST", json=body, headers={"Origin": "null"}) == 403
    assert status(api, "search", "POST", json=body, headers={"Origin": BASE}) == 200
    plain = {"content": json.dumps(body), "headers": {"Content-Type": "text/plain"}}
    assert status(api, "search", "POST", **plain) == 422
    answer = api.options("/api/v1/search", headers={"Origin": "https://evil.example"})
    assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"host": "0.0.0.0"}, "set a token"),
        ({"host": "example.org"}, "set a token"),
        ({"host": "0.0.0.0", "token": "short"}, "too easy to guess"),
        ({"token": "a token of several words"}, "too easy to guess"),
        ({"workers": 0}, "workers is 0"),
        ({"upload_seconds": 0.0}, "above 0"),
        ({"models": ["a/model", "b/model"]}, "two are named model"),
    ],
)
def test_what_would_be_unsafe_is_refused_at_the_start(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ServiceError, match=words):
        ServiceConfig(store="store", **options)


# --- what -------------------------------------------------------------------------------------------------------------

TRICKS = [
    "../../../../etc/passwd", "/etc/passwd", "..%2f..%2fetc%2fpasswd", "clip/../../catalog.csv", "catalog.csv",
    "clip\0.png", "file:///etc/passwd", "http://127.0.0.1/", "clip.mp4", "media/clip.mp4", "%00", "~root",
]  # fmt: skip


@pytest.mark.parametrize("item_id", TRICKS)
@pytest.mark.parametrize("what", ["media", "thumbnail", "waveform", "item"])
def test_ids_are_no_paths(api: TestClient, what: str, item_id: str) -> None:
    assert api.get(f"/api/v1/{what}", params={"item_id": item_id}).status_code in (404, 422)


@pytest.mark.parametrize(
    "path", ["/api/v1/../../etc/passwd", "/static/../../config.py", "/..%2fREADME.md", "/static//etc/passwd"]
)
def test_paths_lead_nowhere(api: TestClient, path: str) -> None:
    assert api.get(path).status_code == 404


def test_a_link_out_of_the_tree_is_not_followed(api: TestClient) -> None:
    answer = api.get("/api/v1/media", params={"item_id": "outside"})
    assert answer.status_code == 403
    assert "outside the media root" in answer.json()["detail"]
    assert api.get("/api/v1/thumbnail", params={"item_id": "outside"}).status_code == 403


def test_a_named_root_is_the_only_one(start: MakeClient, copied: Path, tmp_path: Path) -> None:
    api = start(copied, tmp_path / "root.sqlite", media_root=copied / "elsewhere")
    assert status(api, "media?item_id=clip") == 403


@pytest.mark.parametrize("item_id", ["drawing", "damaged", "missing", "jazz-0"])
def test_what_is_no_media_is_not_served(api: TestClient, item_id: str) -> None:
    assert status(api, "media", params={"item_id": item_id}) == 404


def test_a_pipe_blocks_nobody(tmp_path: Path) -> None:
    from mmrec.service.media_files import servable
    from mmrec.service.problems import RequestProblem

    os.mkfifo(tmp_path / "pipe.mp4")
    write_image(tmp_path / "photo.png")
    with pytest.raises(RequestProblem, match="no file"):
        servable("pipe", str(tmp_path / "pipe.mp4"), tmp_path)
    with pytest.raises(RequestProblem, match="outside"):
        servable("photo", str(tmp_path / "photo.png"), None)
    assert servable("photo", str(tmp_path / "photo.png"), tmp_path) == tmp_path / "photo.png"


def test_every_answer_tells_browsers_to_run_nothing_of_others(api: TestClient) -> None:
    for answer in (
        api.get("/api/v1/items"),
        api.get("/api/v1/nothing"),
        api.get("/"),
        api.get("/api/v1/media?item_id=clip"),
    ):
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert "server" not in answer.headers


# --- how much ---------------------------------------------------------------------------------------------------------


def test_bodies_have_a_limit_whether_they_say_their_length_or_not(start: MakeClient) -> None:
    api = start(max_body_bytes=1000, max_upload_bytes=100_000)
    long = {"words": ["jazz " * 300]}
    assert status(api, "search", "POST", json=long) == 413
    chunks = (json.dumps(long)[at : at + 100].encode() for at in range(0, 1600, 100))
    answer = api.post("/api/v1/search", content=chunks, headers={"Content-Type": "application/json"})
    assert answer.status_code == 413
    assert answer.json()["detail"] == "the body is too large: expected at most 1000 bytes"
    assert status(api, "search/file", "POST", files={"file": ("a.png", b"x" * 200_000)}) == 413
    assert status(api, "search/file", "POST", files={"file": ("a.png", b"x" * 20_000)}) == 400


def test_deep_and_strange_json_is_refused_and_harms_nobody(api: TestClient) -> None:
    for text in (
        "[" * 100_000,
        '{"words": ["\\ud800"]}',
        '{"k": NaN}',
        '{"k": 1e400}',
        "\x00",
        '{"words": ["\\u0000"]}',
    ):
        answer = api.post("/api/v1/search", content=text, headers={"Content-Type": "application/json"})
        assert answer.status_code in (400, 422), (text[:20], answer.text)
    body = {"interactions": [{"user_id": "u", "item_id": "clip", "weight": 1e308, "timestamp": -1e300}]}
    assert status(api, "interactions", "POST", json=body) == 422


def test_a_client_that_asks_too_often_waits(start: MakeClient) -> None:
    api = start(requests_per_second=5.0)
    answers = [api.get("/api/v1/health") for _ in range(30)]
    limited = [answer for answer in answers if answer.status_code == 429]
    assert 5 <= len(limited) <= 20
    assert limited[0].headers["retry-after"] == "1"
    assert limited[0].json()["title"] == "Too Many Requests"


# --- logs -------------------------------------------------------------------------------------------------------------


def test_each_request_is_a_line_of_json_with_its_id_and_without_secrets(
    start: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    api = start(token=TOKEN)
    with caplog.at_level(logging.INFO, "mmrec.service"):
        api.get("/api/v1/user", params={"user_id": "somebody-private"}, headers={**BEARER, "X-Request-ID": "abc-1"})
        api.get("/api/v1/items", headers={"X-Request-ID": "not\tan id"})
    lines = [json.loads(JsonFormatter().format(r)) for r in caplog.records if r.name == "mmrec.service"]
    assert (lines[0]["request_id"], lines[0]["status"], lines[0]["route"]) == ("abc-1", 200, "/user")
    assert lines[1]["status"] == 401
    assert len(lines[1]["request_id"]) == 32
    assert lines[0]["milliseconds"] > 0
    said = json.dumps(lines)
    assert TOKEN not in said and "somebody-private" not in said


def test_what_nobody_foresaw_is_told_without_its_innards(
    served: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    app = create_app(config_of(served, tmp_path / "broken.sqlite"))
    with TestClient(app, base_url=BASE) as api:
        monkeypatch.setattr(app.state.resources.items, "page", None)
        answer = api.get("/api/v1/items")
    assert answer.status_code == 500
    assert answer.json()["detail"] == "the service failed; its log says why"
    assert answer.headers["content-security-policy"]
    assert "NoneType" in caplog.text
