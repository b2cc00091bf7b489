from __future__ import annotations

import io
import random
import socket
from typing import Any

import pytest
from object_stores import Site, Watched, times, web_site

from mmrec.errors import MMRecError, Reason, RemoteError
from mmrec.remote import Access, RangedFile, Url, open_file, stat, web

HERE = Access(hosts=("127.0.0.1",))
ServedSite = tuple[Site, str]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "FIRST_PAUSE", 0.01)


def refused(url: str, access: Access) -> RemoteError:
    with pytest.raises(RemoteError) as caught:
        stat(Url.parse(url), access)
    return caught.value


def test_files_are_read_by_ranges(site: ServedSite) -> None:
    content, host = site
    content.files["/a b.mp4"] = random.Random(0).randbytes(5_000_000)
    url = Url.parse(f"https://{host}/a%20b.mp4")
    there = stat(url, HERE)
    assert there.size == 5_000_000 and there.etag == f'"{hash(content.files["/a b.mp4"])}"'
    file = RangedFile(url, HERE)
    file.seek(-5, io.SEEK_END)
    assert file.read(10) == content.files["/a b.mp4"][-5:]
    with open_file(url, HERE) as whole:
        assert whole.read() == content.files["/a b.mp4"]
    content.files["/a b.mp4"] = bytes(5_000_000)
    file.seek(2_000_000)
    with pytest.raises(RemoteError, match="written anew while it was read"):
        file.read(1)


def test_servers_without_ranges_serve_as_well(site: ServedSite, monkeypatch: pytest.MonkeyPatch) -> None:
    content, host = site
    content.ranges, content.files["/a"] = False, random.Random(0).randbytes(3_000_000)
    with open_file(Url.parse(f"https://{host}/a"), HERE) as file:
        assert file.read() == content.files["/a"]
    monkeypatch.setattr(web, "MAX_SKIPPED_BYTES", 1_000_000)
    with open_file(Url.parse(f"https://{host}/a"), HERE) as file, pytest.raises(RemoteError, match="gives no ranges"):
        file.read()


@pytest.mark.parametrize("fault", ["busy", "cut"])
def test_what_fails_on_the_way_is_tried_again(tmp_path: Any, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    watched = Watched(Site({"/a": bytes(1000)}))
    watched.fault = times(2, fault)
    with web_site(watched, tmp_path, monkeypatch) as host:
        assert stat(Url.parse(f"https://{host}/a"), HERE).size == 1000
        watched.fault = lambda _: "busy"
        error = refused(f"https://{host}/a", HERE)
    assert "after 5 tries: the server answers 503" in str(error) and error.reason is Reason.NOT_READABLE


def test_what_is_not_there(site: ServedSite) -> None:
    _, host = site
    error = refused(f"https://{host}/none", HERE)
    assert "there is no file at" in str(error) and error.reason is Reason.MISSING_FILE
    port = socket.create_server(("127.0.0.1", 0)).getsockname()[1]  # closed at once
    assert "cannot be read, after 5 tries" in str(refused(f"https://127.0.0.1:{port}/", HERE))


# --- what may be asked ------------------------------------------------------------------------------------------------


def test_a_host_that_is_not_allowed_is_not_asked() -> None:
    for access in (Access(), Access(hosts=("example.org", "notexample.com"))):
        error = refused("https://example.com/a.mp4", access)
        assert "the host example.com is not allowed: allow it by --allow-host example.com" in str(error)
        assert error.reason is Reason.FORBIDDEN_PATH


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "10.0.0.1", "192.168.1.1", "169.254.169.254", "[::1]", "[fe80::1]", "[::ffff:127.0.0.1]", "0.0.0.0",
     "100.64.0.1", "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "224.0.0.1", "localhost", "127.1", "2130706433"],
)  # fmt: skip
def test_private_addresses_are_not_asked(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any) -> None:
        raise AssertionError("it was connected to")

    monkeypatch.setattr(web.socket, "create_connection", never)
    named = host if host in ("localhost", "127.1", "2130706433") else "a.example"
    monkeypatch.setattr(web.socket, "getaddrinfo", leading_to({"a.example": host.strip("[]")}))
    error = refused(f"https://{named}/a", Access(hosts=(named,)))
    assert "an address of this machine or its network" in str(error) and error.reason is Reason.FORBIDDEN_PATH


def leading_to(names: dict[str, str]) -> Any:
    ask = socket.getaddrinfo

    def found(host: str, *rest: Any, **options: Any) -> Any:
        return ask(names.get(host, host), *rest, **options)

    return found


def test_an_address_that_is_allowed_by_name_is_asked(site: ServedSite, monkeypatch: pytest.MonkeyPatch) -> None:
    content, host = site
    content.files["/a"] = b"x"
    by_name = f"https://{host.replace('127.0.0.1', 'localhost')}/a"
    monkeypatch.setattr(web.socket, "getaddrinfo", leading_to({"localhost": "127.0.0.1"}))
    assert "unless --allow-host 127.0.0.1 says so" in str(refused(by_name, Access(hosts=("localhost",))))
    assert "not allowed" in str(refused(by_name, HERE))
    assert stat(Url.parse(by_name), Access(hosts=("localhost", "127.0.0.1"))).size == 1


def test_a_name_that_leads_elsewhere_the_second_time_is_asked_once(
    site: ServedSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def found(host: str, port: int, **options: Any) -> Any:
        asked.append(host)
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("93.184.215.14" if len(asked) == 1 else "127.0.0.1", port))
        ]

    connected = []

    def connect(address: Any, *_: Any) -> Any:
        connected.append(address)
        raise RemoteError("far enough", Reason.NOT_READABLE)

    monkeypatch.setattr(web.socket, "getaddrinfo", found)
    monkeypatch.setattr(web.socket, "create_connection", connect)
    refused("https://rebinding.example/a", Access(hosts=("rebinding.example",)))
    assert asked == ["rebinding.example"] and connected == [("93.184.215.14", 443)]


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("https://example.com/a", "the host example.com is not allowed"),
        ("http://127.0.0.1/a", "only https:// is followed"),
        ("file:///etc/passwd", "only https:// is followed"),
        ("https://localhost/a", "the host localhost is not allowed"),
        ("https://user:pw@127.0.0.1/a", "name or password"),
        ("/round", "redirected more than 5 times"),
    ],
)
def test_redirects_are_looked_at(site: ServedSite, target: str, words: str) -> None:
    content, host = site
    content.redirects |= {"/a": target, "/round": "/round"}
    assert words in str(refused(f"https://{host}/a", HERE))


def test_redirects_that_may_be_are_followed(site: ServedSite) -> None:
    content, host = site
    content.redirects["/a"], content.files["/b"] = "/b", b"bb"
    assert stat(Url.parse(f"https://{host}/a"), HERE).size == 2


def test_a_certificate_of_nobody_is_refused(site: ServedSite, monkeypatch: pytest.MonkeyPatch) -> None:
    _, host = site
    monkeypatch.delenv("SSL_CERT_FILE")
    web._tls.cache_clear()
    assert "certificate is not valid" in str(refused(f"https://{host}/a", HERE))


def test_what_is_no_host_is_refused_in_words() -> None:
    with pytest.raises(MMRecError, match="expected a name or an address"):
        Access(hosts=("https://example.org",))
    with pytest.raises(MMRecError, match="expected more than 0"):
        Access(cache_bytes=0)
