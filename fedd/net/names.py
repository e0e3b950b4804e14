"""Names in addresses: /dns, /dns4 and /dns6 by the system's resolver, /dnsaddr by TXT records.

A `/dnsaddr/NAME` stands for the multiaddresses in the TXT records of `_dnsaddr.NAME`, each as
`dnsaddr=...`, which may be `/dnsaddr` again (github.com/multiformats/multiaddr, protocols/DNSADDR.md). The
system's resolver gives no TXT records, so the name servers of resolv.conf(5) are asked here.

What a name server says is not authenticated and need not be: whoever answers at an address must have the key
of the peer that is dialled.
"""

from __future__ import annotations

import secrets
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import field, replace
from typing import Any, Final

import trio

from fedd.api.errors import FeddError, InvalidParameter, NotConnected, ProtocolError
from fedd.core.dataclass import dataclass
from fedd.core.dns_messages import (
    CNAME,
    MAX_MESSAGE_BYTES,
    TXT,
    DnsMessage,
    Name,
    Pointer,
    Question,
    Texts,
    decode_message,
    encode_message,
    parse_name,
)
from fedd.net.transport import Address, parse_multiaddr

RESOLV_CONF: Final = "/etc/resolv.conf"
# resolv.conf(5): at most three are used.
MAX_SERVERS: Final = 3
# A name that needs longer leaves no time for the dial.
RESOLVE_S: Final = 5.0
ASK_S: Final = 1.5
ROUNDS: Final = 2
# A list of bootstrap peers holds a handful; a chain that is longer goes in a circle.
MAX_DEPTH: Final = 4
MAX_LOOKUPS: Final = 16
MAX_ADDRESSES: Final = 16

_MAX_FILE_BYTES: Final = 64 * 1024
_NO_SUCH_NAME: Final = 3
_PREFIX: Final = b"dnsaddr="
_FAMILIES: Final = {"dns": socket.AF_UNSPEC, "dns4": socket.AF_INET, "dns6": socket.AF_INET6}

GetAddrInfo = Callable[..., Awaitable[list[tuple[Any, ...]]]]


@dataclass(slots=True)
class _Search:
    """What resolving one address has found and used."""

    found: dict[Address, None] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    lookups: int = 0

    @property
    def over(self) -> bool:
        return self.lookups >= MAX_LOOKUPS or len(self.found) >= MAX_ADDRESSES


class Names:
    """Resolves the names of addresses. `port` is the name servers'; `getaddrinfo` as trio.socket has it."""

    def __init__(
        self,
        resolv_conf: str = RESOLV_CONF,
        port: int = 53,
        getaddrinfo: GetAddrInfo = trio.socket.getaddrinfo,
    ) -> None:
        self._resolv_conf = resolv_conf
        self._port = port
        self._getaddrinfo = getaddrinfo

    async def resolve(self, address: Address) -> list[Address]:
        """The numeric addresses that `address` stands for, at most 16; itself when it holds no name.

        Raises:
            NotConnected: there are none, with the reason.
        """
        if not address.is_name:
            return [address]
        search = _Search()
        with trio.move_on_after(RESOLVE_S) as scope:
            await self._resolve(address, search, 0)
        if scope.cancelled_caught:
            search.problems.append(f"no answer within {RESOLVE_S:g} s")
        if search.found:
            return list(search.found)[:MAX_ADDRESSES]
        reason = "; ".join(dict.fromkeys(search.problems)) or "it names no address that fedd can dial"
        raise NotConnected(
            f"cannot dial {address}: the name {address.host} does not resolve: {reason}",
            hint="check the name and this machine's name servers, or use a numeric address",
        )

    async def _resolve(self, address: Address, search: _Search, depth: int) -> None:
        try:
            if address.transport == "dnsaddr":
                await self._resolve_dnsaddr(address, search, depth)
            elif address.is_name:
                await self._resolve_host(address, search)
            else:
                search.found[address] = None
        except (FeddError, OSError) as error:
            search.problems.append(_words(error))

    async def _resolve_host(self, address: Address, search: _Search) -> None:
        search.lookups += 1
        found = await self._getaddrinfo(
            address.host, address.port, family=_FAMILIES[address.transport], type=socket.SOCK_STREAM
        )
        for family, _, _, _, sockaddr in found[:MAX_ADDRESSES]:
            transport = "ip6" if family == socket.AF_INET6 else "ip4"
            # One with a zone is a link-local address, which a multiaddress of this form cannot hold.
            if "%" not in sockaddr[0]:
                search.found[replace(address, transport=transport, host=str(sockaddr[0]))] = None

    async def _resolve_dnsaddr(self, address: Address, search: _Search, depth: int) -> None:
        if depth >= MAX_DEPTH:
            raise NotConnected(f"more than {MAX_DEPTH} names lead to each other")
        search.lookups += 1
        for text in await self.texts(f"_dnsaddr.{address.host}"):
            told = _parse(text)
            if told is None or (address.peer_id and told.peer_id not in (None, address.peer_id)):
                continue  # a transport that fedd does not speak, or another peer
            if search.over:
                return
            peer_id = told.peer_id or address.peer_id
            await self._resolve(replace(told, peer_id=peer_id), search, depth + 1)

    async def texts(self, host: str) -> list[bytes]:
        """The strings of all TXT records of a name.

        Raises:
            NotConnected: no such name, or no name server gives an answer. ProtocolError: it is no name.
        """
        name = parse_name(host)
        problem = ""
        for server in self._servers() * ROUNDS:
            try:
                with trio.fail_after(ASK_S):
                    answer = await self._ask(server, name)
            except trio.TooSlowError:
                problem = f"the name server {server} does not answer"
            except (OSError, ProtocolError) as error:
                problem = f"the name server {server}: {_words(error)}"
            else:
                if answer.code == 0:
                    return _texts_of(answer, name)
                if answer.code == _NO_SUCH_NAME:
                    raise NotConnected(f"there is no name {host}")
                problem = f"the name server {server} refuses with code {answer.code}"
        raise NotConnected(problem)

    def _servers(self) -> list[str]:
        servers: list[str] = []
        with suppress(OSError), open(self._resolv_conf, encoding="utf-8", errors="replace") as file:
            for line in file.read(_MAX_FILE_BYTES).splitlines():
                words = line.split()
                if len(words) > 1 and words[0] == "nameserver":
                    servers.append(words[1])
        # Without a word about it, the name server is this machine (resolv.conf(5)).
        return servers[:MAX_SERVERS] or ["127.0.0.1"]

    async def _ask(self, server: str, name: Name) -> DnsMessage:
        # Chance in id and port is what keeps others from answering in the server's place (RFC 5452).
        query = DnsMessage(id=secrets.randbits(16), recursion=True, questions=(Question(name, TXT),))
        (family, _, _, _, where), *_ = socket.getaddrinfo(
            server, self._port, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST
        )
        with trio.socket.socket(family, socket.SOCK_DGRAM) as udp:
            await udp.connect(where)
            await udp.send(encode_message(query))
            while True:
                data = await udp.recv(MAX_MESSAGE_BYTES)
                with suppress(ProtocolError):  # what is not the answer may be anybody's
                    answer = decode_message(data)
                    if _answers(answer, query):
                        break
        if answer.is_truncated:
            answer = await _ask_over_tcp(family, where, query)
        return answer


async def _ask_over_tcp(family: int, where: tuple[Any, ...], query: DnsMessage) -> DnsMessage:
    """RFC 1035 section 4.2.2: each message behind its length."""
    with trio.socket.socket(family, socket.SOCK_STREAM) as tcp:
        await tcp.connect(where)
        stream = trio.SocketStream(tcp)
        data = encode_message(query)
        await stream.send_all(len(data).to_bytes(2, "big") + data)
        size = int.from_bytes(await _receive_exactly(stream, 2), "big")
        if size > MAX_MESSAGE_BYTES:
            raise ProtocolError(f"an answer of {size} bytes is too long")
        answer = decode_message(await _receive_exactly(stream, size))
    if not _answers(answer, query):
        raise ProtocolError("an answer to another question")
    return answer


async def _receive_exactly(stream: trio.SocketStream, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = await stream.receive_some(count - len(data))
        if not more:
            raise ProtocolError("an answer that ends too early")
        data += more
    return data


def _answers(message: DnsMessage, query: DnsMessage) -> bool:
    return message.is_response and message.id == query.id and message.questions == query.questions


def _texts_of(message: DnsMessage, name: Name) -> list[bytes]:
    names = {name}
    found: list[bytes] = []
    for record in message.answers:
        if record.name not in names:
            continue
        if record.type == CNAME and isinstance(record.data, Pointer):
            names.add(record.data.target)
        elif isinstance(record.data, Texts):
            # One long text is several strings, to be read as one (RFC 7208 section 3.3 says it for all).
            found.append(b"".join(record.data.strings))
    return found


def _parse(text: bytes) -> Address | None:
    if not text.startswith(_PREFIX):
        return None
    try:
        return parse_multiaddr(text.removeprefix(_PREFIX).decode())
    except (InvalidParameter, ProtocolError, UnicodeDecodeError):
        return None


def _words(error: FeddError | OSError) -> str:
    if isinstance(error, FeddError):
        return error.detail
    return error.strerror or str(error)
