"""Where the media of a catalog may lie: paths, what forbids them, and folders as catalogs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from manifests import items_of, one_row, only, write_csv, write_jsonl

from mmrec.catalog.manifest import read_catalog
from mmrec.errors import CatalogError, Reason


def test_relative_media_is_relative_to_the_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "catalog"
    folder.mkdir()
    path = one_row(folder, media="sub/../clip.mp4")
    monkeypatch.chdir(tmp_path)
    for given in (path, Path("catalog/catalog.csv")):
        item = only(given)
        assert item.problem is None
        assert item.media is not None and item.media.absolute() == folder / "clip.mp4"
    monkeypatch.chdir(folder)
    item = only(Path("catalog.csv"))
    assert item.media is not None and item.media.absolute() == folder / "clip.mp4"


FORBIDDEN = [
    pytest.param("../secret.mp4", "leaves the catalog's folder", id="parent"),
    pytest.param("sub/../../secret.mp4", "leaves the catalog's folder", id="hidden parent"),
    pytest.param("https://example.org/a.mp4", "the host example.org is not allowed", id="host"),
    pytest.param("http://example.org/a.mp4", "expected a local path, or one of", id="unknown scheme"),
    pytest.param("s3:///a.mp4", "names no bucket", id="no bucket"),
    pytest.param("file://server/share/a.mp4", "expected a local path, or one of", id="file of another machine"),
    pytest.param("file:///a%00b.mp4", "NUL", id="NUL in a file URL"),
    pytest.param("a\0b.mp4", "NUL", id="NUL"),
]


@pytest.mark.parametrize(("media", "message"), FORBIDDEN)
def test_a_forbidden_path_is_the_item_s_own_problem(tmp_path: Path, media: str, message: str) -> None:
    item = only(write_jsonl(tmp_path / "c.jsonl", [{"item_id": "a", "media": media, "title": "t"}]))
    assert item.media is None
    assert item.problem is not None
    assert item.problem.reason is Reason.FORBIDDEN_PATH
    assert message in item.problem.detail


def test_a_relative_manifest_confines_relative_media_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one_row(tmp_path, media="../secret.mp4")
    monkeypatch.chdir(tmp_path)
    item = only(Path("catalog.csv"))
    assert item.problem is not None and item.problem.reason is Reason.FORBIDDEN_PATH


def test_absolute_media_is_taken_as_given(tmp_path: Path) -> None:
    item = only(one_row(tmp_path, media="/somewhere/else/../clip.mp4"))
    assert item.problem is None
    assert item.media == Path("/somewhere/else/../clip.mp4")


def test_a_media_root_confines_every_path(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    (root / "sub").mkdir(parents=True)
    outside.mkdir()
    for folder in (root, outside):
        (folder / "clip.mp4").write_bytes(b"x")
    (root / "away.mp4").symlink_to(outside / "clip.mp4")
    (root / "away").symlink_to(outside)
    (root / "near.mp4").symlink_to(root / "clip.mp4")
    (root / "loop.mp4").symlink_to(root / "loop.mp4")
    names = {
        "inside": ("clip.mp4", True),
        "link inside": ("near.mp4", True),
        "absolute inside": (str(root / "sub/../clip.mp4"), True),
        "link outside": ("away.mp4", False),
        "folder link outside": ("away/clip.mp4", False),
        "absolute outside": (str(outside / "clip.mp4"), False),
        "absolute with dots": (str(root / "../outside/clip.mp4"), False),
        "a folder whose name begins alike": (f"{root}-not/clip.mp4", False),
    }
    path = write_csv(root / "c.csv", [{"item_id": key, "media": name} for key, (name, _) in names.items()])
    for item in items_of(path, media_root=root):
        allowed = names[item.item_id][1]
        assert (item.problem is None) == allowed, item
        assert (item.media is not None) == allowed
    loop = only(write_csv(root / "loop.csv", [{"item_id": "a", "media": "loop.mp4"}]), media_root=root)
    assert loop.problem is not None and loop.problem.reason is Reason.FORBIDDEN_PATH


def test_a_media_root_may_be_a_link_itself(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "root")
    item = only(one_row(tmp_path / "root", media="clip.mp4"), media_root=tmp_path / "link")
    assert item.problem is None


def test_a_media_root_must_be_a_folder(tmp_path: Path) -> None:
    path = one_row(tmp_path, media="clip.mp4")
    with pytest.raises(CatalogError, match="is not a folder"):
        read_catalog(path, media_root=tmp_path / "nowhere")


def test_a_folder_is_a_catalog_of_its_media_files(tmp_path: Path) -> None:
    for name in ("b.mp4", "a.1.jpg", "a.2.jpg", "子/🎵.OGG", "notes.txt", "mp4", "z/.hidden.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    items = items_of(tmp_path)
    assert [item.item_id for item in items] == ["a.1.jpg", "a.2.jpg", "b.mp4", "z/.hidden.mp4", "子/🎵.OGG"]
    for item in items:
        assert item.media == tmp_path / item.item_id
        assert item.problem is None


def test_a_file_name_that_is_no_unicode_is_still_found(tmp_path: Path) -> None:
    name = b"caf\xe9.mp4"
    try:
        with open(os.path.join(os.fsencode(tmp_path), name), "wb"):
            pass
    except OSError:
        pytest.skip("the file system takes only Unicode names")
    item = only(tmp_path)
    item.item_id.encode()
    assert item.media is not None and item.media.exists()


@pytest.mark.parametrize("start", ["file://", "file://localhost", "FILE://", "file:"])
def test_a_file_url_is_the_path_that_it_names(tmp_path: Path, start: str) -> None:
    item = only(one_row(tmp_path, media=f"{start}{tmp_path}/a%20clip%25%23%E7%8B%97.mp4"))
    assert item.media == tmp_path / "a clip%#狗.mp4" and item.problem is None
    outside = only(one_row(tmp_path, media=f"{start}/etc/passwd.mp4"), media_root=tmp_path)
    assert outside.problem is not None and outside.problem.reason is Reason.FORBIDDEN_PATH


def test_a_folder_with_links_and_what_systems_leave_behind(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = "folder/a.m4b folder/b.F4V folder/c.asf folder/d.jfif folder/._a.m4b folder/.Trashes/x.mp4 real/linked.mp4"
    passed_over = "folder/a.txt folder/b.TXT folder/c.srt folder/README folder/catalog.parquet"
    for name in f"{names} {passed_over}".split():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder" / "link").symlink_to("../real")
    (tmp_path / "real" / "again").symlink_to("../folder")
    items = items_of(tmp_path / "folder")
    assert [item.item_id for item in items] == ["a.m4b", "b.F4V", "c.asf", "d.jfif", "link/linked.mp4"]
    (record,) = caplog.records
    assert "passed over 5 files that are no media: 2 .txt, 1 " in record.getMessage()
    assert "1 without a suffix" in record.getMessage()


def test_a_folder_without_media_says_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "a.txt").touch()
    with pytest.raises(CatalogError, match=r"has no items: .* passed over 1 file that is no media: 1 \.txt"):
        read_catalog(tmp_path)
