"""Media at URLs: the service hands them on, by ranges, from places that it may read, and from no others."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from media_files import write_video
from object_stores import BUCKET, Site, Watched, object_store, times, upload, web_site
from PIL import Image
from served import BASE, PRESET
from starlette.testclient import TestClient

from mmrec import embed
from mmrec.remote import Url
from mmrec.remote.objects import delete
from mmrec.service import ServiceConfig, create_app


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clips") / "clips" / "clip.mp4"
    path.parent.mkdir()
    write_video(path, frames=24, sound_seconds=2.0)
    return path


@pytest.fixture
def objects(monkeypatch: pytest.MonkeyPatch, clip: Path) -> Iterator[Watched]:
    with object_store(monkeypatch) as watched:
        upload(clip.parent.parent)
        yield watched


def stored(folder: Path, *media: str, **options: object) -> Path:
    """A store of items with these media, by their numbers."""
    rows = [f"{number},{name},title" for number, name in enumerate(media)]
    (folder / "catalog.csv").write_text("\n".join(["item_id,media,title", *rows]))
    (folder / "preset.yaml").write_text(PRESET)
    embed(folder / "catalog.csv", folder / "store", preset=folder / "preset.yaml", workers=1, **options)  # type: ignore[arg-type]
    return folder / "store"


def serving(store: Path, **options: object) -> TestClient:
    config = ServiceConfig(store=store, state=store.parent / "state.sqlite", requests_per_second=0.0, **options)  # type: ignore[arg-type]
    return TestClient(create_app(config), base_url=BASE)


def media(api: TestClient, item_id: str = "0", **headers: str):  # type: ignore[no-untyped-def]
    return api.get("/api/v1/media", params={"item_id": item_id}, headers=headers)


def test_an_object_is_handed_on_whole_and_by_ranges(objects: Watched, clip: Path, tmp_path: Path) -> None:
    data = clip.read_bytes()
    with serving(stored(tmp_path, f"s3://{BUCKET}/clips/clip.mp4")) as api:
        whole = media(api)
        assert (whole.status_code, whole.content, whole.headers["content-type"]) == (200, data, "video/mp4")
        assert whole.headers["accept-ranges"] == "bytes"
        end = len(data)
        for asked, start, stop in (
            ("5-9", 5, 10),
            (f"{end - 3}-", end - 3, end),
            ("-7", end - 7, end),
            ("3-9999999", 3, end),
        ):
            answer = media(api, Range=f"bytes={asked}")
            assert (answer.status_code, answer.content) == (206, data[start:stop])
            assert answer.headers["content-range"] == f"bytes {start}-{stop - 1}/{end}"
        beyond = media(api, Range=f"bytes={len(data)}-")
        assert (beyond.status_code, beyond.headers["content-range"]) == (416, f"bytes */{len(data)}")
        for several in ("bytes=0-1,4-5", "bytes=-", "lines=1-2"):
            assert media(api, Range=several).status_code == 200
        same = {"Range": "bytes=0-1", "If-Range": whole.headers["etag"]}
        assert media(api, **same).status_code == 206
        assert media(api, **{**same, "If-Range": '"another"'}).status_code == 200
        objects.clear()
        head = api.head("/api/v1/media", params={"item_id": "0"})
        assert (head.content, head.headers["content-length"]) == (b"", str(len(data)))

        picture = api.get("/api/v1/thumbnail", params={"item_id": "0", "width": 128})
        assert Image.open(io.BytesIO(picture.content)).width == 128
        assert max(api.get("/api/v1/waveform", params={"item_id": "0"}).json()["peaks"]) > 0.01

        objects.fault = times(99, "denied", of="clip.mp4")
        denied = media(api)
        assert denied.status_code == 502 and "access denied" in denied.json()["detail"]
        objects.clear()
        delete(Url.parse(f"s3://{BUCKET}/clips/clip.mp4"))
        assert media(api).status_code == 404


def test_a_root_holds_for_urls_and_files_alike(objects: Watched, clip: Path, tmp_path: Path) -> None:
    store = stored(tmp_path, f"s3://{BUCKET}/clips/clip.mp4", str(clip))
    for root, statuses in (
        (None, [200, 200]),
        (f"s3://{BUCKET}/clips", [200, 403]),
        (f"s3://{BUCKET}/clip", [403, 403]),
        (clip.parent, [403, 200]),
    ):
        with serving(store, media_root=root) as api:
            assert [media(api, item_id).status_code for item_id in ("0", "1")] == statuses, root


def test_web_servers_are_read_from_where_that_is_allowed(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Site(files={"/clip.mp4": clip.read_bytes()})
    with web_site(site, tmp_path, monkeypatch) as host:
        port = host.rpartition(":")[2]
        allowed = ("127.0.0.1", "localhost")
        store = stored(tmp_path, f"https://{host}/clip.mp4", f"https://localhost:{port}/clip.mp4", allow_hosts=allowed)
        with serving(store, allow_hosts=allowed) as api:
            assert media(api, Range="bytes=0-3").content == clip.read_bytes()[:4]
            site.redirects["/clip.mp4"] = "https://169.254.169.254/latest/meta-data"
            away = media(api)
            assert away.status_code == 403 and "169.254.169.254 is not allowed" in away.json()["detail"]
        with serving(store) as api:
            assert media(api).status_code == 403
        with serving(store, allow_hosts=["localhost"]) as api:
            inside = media(api, "1")
            assert inside.status_code == 403 and "an address of this machine" in inside.json()["detail"]
