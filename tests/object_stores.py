"""A local object store, and a web server with TLS, that count what they are asked for, and fail when told to."""

from __future__ import annotations

import datetime
import ipaddress
import logging
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

BUCKET = "bucket"
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_REGION": "us-east-1",
    "AWS_ALLOW_HTTP": "true",
}


@dataclass
class Watched:
    """A WSGI application in front of another one: counts, delays, fails and cuts off what it answers.

    `fault` gets each request's environment, and says how it goes wrong: "busy" (503), "cut" (half of the body),
    "slow" (2 s), "denied" or "expired"; None where all is well.
    """

    application: Callable[..., Iterable[bytes]]
    requests: Counter[str] = field(default_factory=Counter)
    num_bytes: Counter[str] = field(default_factory=Counter)
    fault: Callable[[dict[str, Any]], str | None] = lambda _: None
    writing: threading.Lock = field(default_factory=threading.Lock)
    """Held by each write: moto looks whether an object is there, and makes it then; a real store does both at once."""

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        path, method = environ["PATH_INFO"], environ["REQUEST_METHOD"]
        self.requests[f"{method} {path}"] += 1
        fault = self.fault(environ)
        if fault in ERRORS:
            status, code = ERRORS[fault]
            body = f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()
            start_response(status, [("Content-Length", str(len(body))), ("Content-Type", "application/xml")])
            return [b""] if method == "HEAD" else [body]
        if fault == "slow":
            time.sleep(2)
        with nullcontext() if method in ("GET", "HEAD") else self.writing:
            body = b"".join(self.application(environ, start_response))
        if method == "GET":
            self.num_bytes[path] += len(body)
        return self._cut(body) if fault == "cut" and body else [body]

    def _cut(self, body: bytes) -> Iterator[bytes]:
        yield body[: len(body) // 2]
        raise ConnectionAbortedError

    def clear(self) -> None:
        self.requests.clear()
        self.num_bytes.clear()
        self.fault = lambda _: None


ERRORS = {
    "busy": ("503 Slow Down", "SlowDown"),
    "denied": ("403 Forbidden", "AccessDenied"),
    "expired": ("400 Bad Request", "ExpiredToken"),
}


def times(count: int, fault: str, *, of: str = "", method: str = "GET") -> Callable[[dict[str, Any]], str | None]:
    """A fault of the first requests whose path ends in `of`."""
    left = [count]

    def happens(environ: dict[str, Any]) -> str | None:
        if environ["REQUEST_METHOD"] != method or not environ["PATH_INFO"].endswith(of) or not left[0]:
            return None
        left[0] -= 1
        return fault

    return happens


@contextmanager
def serving(application: Any, context: ssl.SSLContext | None = None) -> Iterator[int]:
    """Answer on a free port of this machine, in a thread; yields the port."""
    from werkzeug.serving import WSGIRequestHandler, make_server

    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
    handler = type("Handler", (WSGIRequestHandler,), {"protocol_version": "HTTP/1.1", "log": lambda *_: None})
    server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=handler, ssl_context=context)
    server.daemon_threads = True
    server.log = lambda *_: None  # type: ignore[method-assign]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def object_store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    """A bucket of the name `BUCKET`, which `s3://` reaches by the environment."""
    pytest.importorskip("obstore")
    server = pytest.importorskip("moto.server")
    watched = Watched(server.DomainDispatcherApplication(server.create_backend_app))
    with serving(watched) as port:
        for name, value in {**ENVIRONMENT, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}.items():
            monkeypatch.setenv(name, value)
        make_bucket(BUCKET, port)
        yield watched
    make_empty()


def make_bucket(name: str, port: int) -> None:
    import boto3

    endpoint = f"http://127.0.0.1:{port}"
    boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1").create_bucket(Bucket=name)


def make_empty() -> None:
    from moto.core.models import DEFAULT_ACCOUNT_ID
    from moto.s3.models import s3_backends

    s3_backends[DEFAULT_ACCOUNT_ID]["aws"].reset()


def upload(folder: Path, prefix: str = "") -> None:
    """All files below a folder, to the bucket."""
    from mmrec.remote import Url
    from mmrec.remote.objects import write

    for path in sorted(folder.rglob("*")):
        if path.is_file():
            write(Url("s3", BUCKET, f"{prefix}{path.relative_to(folder).as_posix()}"), path)


# --- web servers ------------------------------------------------------------------------------------------------------


@dataclass
class Site:
    """Files by their paths, with ranges and ETags; `redirects` lead elsewhere."""

    files: dict[str, bytes] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    ranges: bool = True
    pause_seconds: float = 0.0

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        time.sleep(self.pause_seconds)
        if path in self.redirects:
            start_response("302 Found", [("Location", self.redirects[path]), ("Content-Length", "0")])
            return [b""]
        if path not in self.files:
            start_response("404 Not Found", [("Content-Length", "0")])
            return [b""]
        content = self.files[path]
        headers = [("ETag", f'"{hash(content)}"'), ("Content-Type", "application/octet-stream")]
        if self.ranges and (asked := environ.get("HTTP_RANGE")):
            start, _, end = asked.removeprefix("bytes=").partition("-")
            part = content[int(start) : int(end) + 1]
            headers.append(("Content-Range", f"bytes {start}-{int(start) + len(part) - 1}/{len(content)}"))
            start_response("206 Partial Content", [*headers, ("Content-Length", str(len(part)))])
            return [part]
        start_response("200 OK", [*headers, ("Content-Length", str(len(content)))])
        return [content]


@contextmanager
def web_site(site: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The site's host and port; its certificate, for 127.0.0.1 and `localhost`, is one that this process trusts."""
    from mmrec.remote import web

    certificate, key = write_certificate(folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    web._tls.cache_clear()
    with serving(site, context) as port:
        yield f"127.0.0.1:{port}"
    web._tls.cache_clear()


def write_certificate(folder: Path) -> tuple[Path, Path]:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    names: list[x509.GeneralName] = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "certificate.pem", folder / "key.pem"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    form = serialization.PrivateFormat.TraditionalOpenSSL
    paths[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
    return paths
