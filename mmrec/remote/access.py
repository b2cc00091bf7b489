"""What may be read from elsewhere, and where what is read whole lies meanwhile."""

from __future__ import annotations

import ipaddress
import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from mmrec.errors import MMRecError, Reason, RemoteError
from mmrec.remote.urls import Url

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


def _default_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mmrec" / "media"


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """The hosts that `https` may read from, and a folder for media that can only be read whole, with its size.

    A host that is a name may not lead to a private address, of this machine or of its network, unless that address is
    among the hosts as well.

    >>> from mmrec.remote import Access, Url
    >>> access = Access(hosts=("media.example.org",))
    >>> access.check(Url.parse("https://media.example.org/rain.mp4"))
    >>> access.check(Url.parse("https://example.org/rain.mp4"))
    Traceback (most recent call last):
    mmrec.errors.RemoteError: https://example.org/rain.mp4: the host example.org is not allowed: allow it ...
    """

    hosts: tuple[str, ...] = ()
    cache: Path = field(default_factory=_default_cache)
    cache_bytes: int = 20 * 10**9

    def __post_init__(self) -> None:
        for host in self.hosts:
            if "/" in host or not host.strip():
                raise MMRecError(f"host {host!r}: expected a name or an address, as in media.example.org")
        if self.cache_bytes < 1:
            raise MMRecError(f"the cache's size is {self.cache_bytes} bytes: expected more than 0")

    def check(self, url: Url) -> None:
        """Raises `RemoteError` where `https` may not read from this host."""
        host = host_of(url)
        if url.scheme == "https" and host not in {name.lower().strip("[]") for name in self.hosts}:
            raise RemoteError(
                f"{url}: the host {host} is not allowed: allow it by --allow-host {host}, if you trust it",
                Reason.FORBIDDEN_PATH,
            )

    def check_address(self, url: Url, address: str) -> None:
        """Raises `RemoteError` where the host's name led to an address that is not a public one."""
        found = _leads_to(address)
        allowed = {name.lower().strip("[]") for name in self.hosts}
        if (not found.is_global or found.is_multicast) and str(found) not in allowed:
            raise RemoteError(
                f"{url}: the host {host_of(url)} leads to {found}, an address of this machine or its network, which is "
                f"not read from, unless --allow-host {found} says so",
                Reason.FORBIDDEN_PATH,
            )


def _leads_to(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The address, or that of version 4 that one of version 6 stands for."""
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv4Address):
        return found
    behind = found.ipv4_mapped or found.sixtofour
    if found in _NAT64:
        behind = ipaddress.IPv4Address(found.packed[-4:])
    return behind or found


def host_of(url: Url) -> str:
    return re.sub(r":[0-9]+$", "", url.root).strip("[]")


def parse_size(text: str) -> int:
    """A number of bytes: `20G`, `500M`, `1.5T`, `1000`; the letters are powers of 1000.

    >>> from mmrec.remote import parse_size
    >>> parse_size("20G"), parse_size("1.5 MB")
    (20000000000, 1500000)
    """
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([KMGT]?)B?", text.strip(), re.IGNORECASE)
    if found is None:
        raise MMRecError(f"size {text!r}: expected a number of bytes, as in 20G or 500M")
    return int(float(found[1]) * _UNITS[found[2].upper()])
