"""Files of the web that somebody else's data name: from public addresses only, of bounded size, in bounded time.

data = fetch("https://example.org/cat.jpg")

Whoever writes a table chooses its addresses, and this machine may reach what they cannot: its own services, its
network, the metadata of its cloud. So the name of a host is resolved once, all its addresses must be public, and those
very addresses are connected to: what its name server answers the next time (DNS rebinding) has no effect. Every
redirect is checked alike. A proxy of the environment is not used, as it would resolve names itself.
"""

from __future__ import annotations

import ipaddress
import socket
import time
from collections.abc import Collection, Iterable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import httpcore
import httpx

if TYPE_CHECKING:
    import ssl

MOST_BYTES = 100_000_000
SECONDS = 60.0  # for all of it, redirects included; only the name server has a clock of its own
HOPS = 5  # redirects
REDIRECTS = (301, 302, 303, 307, 308)
HEADERS: Mapping[bytes | str, bytes | str] = {
    "User-Agent": "tipsv2 (images of a data set)",
    "Accept": "image/*,*/*",
    "Accept-Encoding": "identity",
}
NAT64 = ipaddress.ip_network("64:ff9b::/96")  # how networks without IPv4 write its addresses
FAILURES = (
    httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError, httpcore.UnsupportedProtocol,
    httpcore.ConnectionNotAvailable, httpx.InvalidURL,
)  # fmt: skip


def fetch(address: str, also: Collection[str] = (), most_bytes: int = MOST_BYTES, seconds: float = SECONDS) -> bytes:
    """The file at an address of the web (http or https).

    also: IP addresses that count as public.
    Raises ValueError, half a sentence, for what is not fetched (another scheme, an address that is not public, too
    large, too slow, too many redirects) and OSError, alike, for what cannot be.
    """
    backend = _PublicOnly(time.monotonic() + seconds, seconds, also)
    try:
        url = httpx.URL(address)
        with httpcore.ConnectionPool(ssl_context=_certificates(), network_backend=backend) as pool:
            for _ in range(HOPS + 1):
                if url.scheme not in ("http", "https") or not url.raw_host:
                    raise ValueError(f"{str(url)[:200]} is no address of the web (http or https)")
                target = httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)
                with pool.stream("GET", target, headers=HEADERS) as answer:
                    place = httpx.Headers(answer.headers).get("location")
                    if answer.status in REDIRECTS and place:
                        url = url.join(place)
                        continue
                    if answer.status != 200:
                        raise OSError(f"{url.host} answers with status {answer.status}")
                    return _body(answer, most_bytes)
    except FAILURES as error:
        raise OSError(str(error) or type(error).__name__) from error
    raise ValueError(f"it is redirected more than {HOPS} times")


def is_public(address: str) -> bool:
    """May an IP address be that of a machine anywhere, not of this one, its network or its cloud's services?"""
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            ip = ip.ipv4_mapped
        elif ip in NAT64:
            ip = ipaddress.IPv4Address(int(ip) & 0xFFFF_FFFF)
        elif ip.sixtofour or ip.teredo or ip.is_site_local or ip.scope_id:
            return False  # the first two wrap an IPv4 address of any kind, and are out of use
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or ip.is_unspecified)


class _PublicOnly(httpcore.SyncBackend):
    """Opens connections to the addresses that were checked, and none after `end` (of time.monotonic)."""

    def __init__(self, end: float, seconds: float, also: Collection[str]):
        self.end, self.seconds, self.also = end, seconds, also

    def left(self) -> float:
        """Seconds. Raises ValueError where there are none."""
        if (left := self.end - time.monotonic()) <= 0:
            raise ValueError(f"it takes longer than {self.seconds:g} seconds")
        return left

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        try:
            answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise OSError(f"there is no host {host} ({error.strerror or error})") from error
        addresses = list(dict.fromkeys(str(answer[4][0]) for answer in answers))
        if hidden := [address for address in addresses if not (is_public(address) or address in self.also)]:
            raise ValueError(f"{host} is at {hidden[0]}, which is not a public address: such files are not fetched")
        failure: Exception = OSError(f"{host} has no address")
        for address in addresses:
            try:
                stream = super().connect_tcp(address, port, self.left(), local_address, socket_options)
                return _Timed(stream, self)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure


class _Timed(httpcore.NetworkStream):
    """A connection that waits for nothing beyond its backend's end, so that a server that dribbles holds up nobody."""

    def __init__(self, stream: httpcore.NetworkStream, backend: _PublicOnly):
        self._stream, self._backend = stream, backend

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._backend.left())

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._backend.left())

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        return _Timed(self._stream.start_tls(ssl_context, server_hostname, self._backend.left()), self._backend)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def _body(answer: httpcore.Response, most_bytes: int) -> bytes:
    chunks, size = [], 0
    for chunk in answer.iter_stream():
        chunks.append(chunk)
        size += len(chunk)
        if size > most_bytes:
            raise ValueError(f"it has more than {most_bytes / 1e6:g} MB")
    return b"".join(chunks)


@lru_cache(maxsize=1)
def _certificates() -> ssl.SSLContext:
    return httpcore.default_ssl_context()
