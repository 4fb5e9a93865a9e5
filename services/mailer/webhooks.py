"""Webhooks: a signed POST to the address that a step names, and what its answer says.

Nothing goes to private addresses unless the operator allows it, whatever a name resolves to at the time of the call;
and redirects are not followed. An answer that does not come leaves no doubt worth having: receivers tell calls apart by
`webhook-id`, so it is called again.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
import ssl
import time
from collections.abc import Iterable, Sequence
from typing import Any

import httpcore
from msgspec.structs import replace

from services.mailer.outcomes import NO_SUCH_ADDRESS
from services.mailer.signing import headers
from services.mailer.transport import Accepted, Deferred, Mail, Receipt, Rejected, printable
from shared.errors import RapportError

_CONNECT_SECONDS = 5.0
_ANSWER_SECONDS = 15.0
_ADDRESS = re.compile("[!-~]+")
_GONE = 410
_ABOUT_THE_CALL = (400, 409, 413, 422)
"""Of these the receiver says that it does not like this one. Anything else that is no yes, it says to all."""
_READ = 300
"""Bytes of an answer that are kept, for who looks into why a call failed."""


class PrivateAddress(RapportError):
    """A name that leads to where only we can go."""


class WebhookTransport:
    """Calls addresses, signed with each of `keys`. `to_private` allows calls to addresses that are not public."""

    def __init__(self, keys: Sequence[bytes], connections: int, *, to_private: bool = False) -> None:
        self._keys = keys
        self._connections = connections
        self._to_private = to_private
        self._pool: httpcore.AsyncConnectionPool | None = None

    @property
    def connections(self) -> int:
        return self._connections

    async def start(self) -> None:
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=ssl.create_default_context(),
            max_connections=2 * self._connections,
            max_keepalive_connections=self._connections,
            keepalive_expiry=30.0,
            network_backend=_Guard(self._to_private),
        )

    async def close(self) -> None:
        if self._pool is not None:
            await self._pool.aclose()

    async def deliver(self, mail: Mail, data_by: float) -> Receipt:
        assert self._pool is not None
        if asyncio.get_running_loop().time() > data_by:
            return Deferred("", "abandoned")
        if not _ADDRESS.fullmatch(mail.recipient):
            return Rejected("the address has a blank, or what is outside ASCII", False, "invalid_address")
        signed = headers(self._keys, mail.request.id, int(time.time()), mail.data)
        try:
            async with asyncio.timeout(_CONNECT_SECONDS + _ANSWER_SECONDS):
                status, said = await self._post(mail, {**mail.headers, **signed, "User-Agent": "Rapport"})
        except PrivateAddress as error:
            return Rejected(str(error), suppress=False, reason="private_address")
        except (TimeoutError, httpcore.TimeoutException):
            return Deferred("no answer in time", "timeout")
        except (httpcore.NetworkError, httpcore.ProtocolError, OSError, ssl.SSLError) as error:
            return Deferred(f"{type(error).__name__}: {error}", "connection")
        except (httpcore.UnsupportedProtocol, UnicodeError, ValueError) as error:
            return Rejected(f"{type(error).__name__}: {error}", suppress=False, reason="invalid_address")
        reply = f"{status} {said}".strip()
        if 200 <= status < 300:
            return Accepted(reply)
        if status == _GONE:
            return Rejected(reply, suppress=False, reason="gone")
        if 300 <= status < 400:
            return Deferred(reply, "redirected")
        return Deferred(reply, "deferred" if status in _ABOUT_THE_CALL else "failing")

    async def _post(self, mail: Mail, sent: dict[str, str]) -> tuple[int, str]:
        assert self._pool is not None
        timeouts = {"connect": _CONNECT_SECONDS, "pool": _CONNECT_SECONDS, "read": _ANSWER_SECONDS, "write": 5.0}
        extensions: dict[str, Any] = {"timeout": timeouts}
        url = httpcore.URL(mail.recipient)
        sent = {"Host": url.host.decode() if url.port is None else f"{url.host.decode()}:{url.port}", **sent}
        async with self._pool.stream(
            "POST", url, headers=list(sent.items()), content=mail.data, extensions=extensions
        ) as response:
            said = b""
            async for chunk in response.aiter_stream():
                said += chunk
                if len(said) >= _READ:
                    break
        return response.status, printable(" ".join(said[:_READ].decode(errors="replace").split()))


class GatewayTransport:
    """Hands text messages or notifications to the operator's own gateway, wherever it stands: each in a call like a
    webhook's. It says with 410 and `no_such_address` that nothing will ever arrive at a number or a device."""

    def __init__(self, url: str, keys: Sequence[bytes], connections: int) -> None:
        self._url = url
        self._calls = WebhookTransport(keys, connections, to_private=True)

    @property
    def connections(self) -> int:
        return self._calls.connections

    async def start(self) -> None:
        await self._calls.start()

    async def close(self) -> None:
        await self._calls.close()

    async def deliver(self, mail: Mail, data_by: float) -> Receipt:
        receipt = await self._calls.deliver(replace(mail, recipient=self._url), data_by)
        if isinstance(receipt, Rejected) and receipt.reason == "gone" and NO_SUCH_ADDRESS in receipt.reply:
            return receipt._replace(suppress=True)
        return receipt


class _Guard(httpcore.AnyIOBackend):
    """Opens connections to public addresses only: it looks at where a name leads, and goes to the very address that it
    has looked at."""

    def __init__(self, to_private: bool) -> None:
        self._to_private = to_private

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        if not self._to_private:
            host = await _public(host, port)
        return await super().connect_tcp(host, port, timeout, local_address, socket_options)

    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore.AsyncNetworkStream:
        raise PrivateAddress(f"{path}: a webhook goes to a web address.")


async def _public(host: str, port: int) -> str:
    """An address of the host. Raises PrivateAddress where any of them is not public, OSError where there is none."""
    found = await asyncio.get_running_loop().getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
    addresses = [str(entry[4][0]) for entry in found]
    for address in addresses:
        if not is_public(address):
            raise PrivateAddress(
                f"{host} leads to {address}, which is not public. Use a public address, or allow the others with"
                " RAPPORT_MAILER_WEBHOOK_PRIVATE=true."
            )
    return addresses[0]


_UNICAST = ipaddress.ip_network("2000::/3")
"""All that is given out of IPv6: https://www.iana.org/assignments/ipv6-address-space/. What lies beyond is nobody's, or
an IPv4 address in one of many clothes."""
_TRANSLATED = ipaddress.ip_network("64:ff9b::/96")
_NOT_GIVEN = tuple(map(ipaddress.ip_network, ("192.0.0.0/24", "192.88.99.0/24", "3fff::/20")))
"""Of special use (https://www.iana.org/assignments/iana-ipv4-special-registry/), and public to `ipaddress`."""


def is_public(address: str) -> bool:
    """Whether an IP address belongs to the internet at large."""
    found: Any = ipaddress.ip_address(address.partition("%")[0])
    if found.version == 6:
        # An IPv4 address that stacks or translators unwrap (RFC 4291, RFC 3056, RFC 6052).
        inner = found.ipv4_mapped or found.sixtofour
        if inner is None and found in _TRANSLATED:
            inner = ipaddress.ip_address(int(found) & 0xFFFF_FFFF)
        if inner is not None:
            found = inner
        elif found not in _UNICAST:
            return False
    return bool(found.is_global and not found.is_multicast and not any(found in some for some in _NOT_GIVEN))
