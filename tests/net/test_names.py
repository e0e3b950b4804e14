"""Names in addresses: the system's resolver, TXT records over UDP and TCP, bounds, and plain errors."""

from __future__ import annotations

import errno
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from fedd.api.errors import NotConnected
from fedd.core.dns_messages import (
    CNAME,
    TXT,
    DnsMessage,
    Pointer,
    Record,
    Texts,
    decode_message,
    encode_message,
    parse_name,
)
from fedd.core.identity import PrivateKey
from fedd.net import names
from fedd.net.names import Names
from fedd.net.swarm import Swarm
from fedd.net.transport import parse_multiaddr

PEER, OTHER = (PrivateKey.from_seed(bytes([number]) * 32).peer_id for number in (1, 2))

Answer = Callable[[DnsMessage, bool], list[bytes]]
"""From a question, and whether it came over TCP, to the messages to send back."""


class Zone:
    """A name server's answers: the TXT strings of each name, asked for one after the other."""

    def __init__(self, texts: dict[str, list[str]]) -> None:
        self.texts = {parse_name(name): strings for name, strings in texts.items()}
        self.asked: list[str] = []

    def __call__(self, query: DnsMessage, over_tcp: bool) -> list[bytes]:
        (question,) = query.questions
        assert query.recursion
        assert question.type == TXT
        self.asked.append(b".".join(question.name).decode())
        strings = self.texts.get(question.name)
        records = tuple(Record(question.name, TXT, Texts((text.encode(),)), 60) for text in strings or ())
        answer = replace(query, is_response=True, code=0 if strings is not None else 3, answers=records)
        return [encode_message(answer)]


async def at_one_port() -> tuple[trio.SocketListener, trio.socket.SocketType]:
    """A TCP listener and a UDP socket, at a port that nobody else has for either."""
    while True:
        tcp = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
        udp = trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            await udp.bind(tcp.socket.getsockname())
        except OSError as error:
            udp.close()
            await tcp.aclose()
            if error.errno != errno.EADDRINUSE:
                raise
        else:
            return tcp, udp


@asynccontextmanager
async def name_server(answer: Answer, tmp_path: Path) -> AsyncIterator[Names]:
    """A name server on loopback, UDP and TCP at one port; the `Names` that asks it."""
    tcp, udp = await at_one_port()
    port = udp.getsockname()[1]
    with udp:

        async def over_udp() -> None:
            while True:
                data, where = await udp.recvfrom(9000)
                for message in answer(decode_message(data), False):
                    await udp.sendto(message, where)

        async def over_tcp(stream: trio.SocketStream) -> None:
            size = int.from_bytes(await stream.receive_some(2), "big")
            query = decode_message(await stream.receive_some(size))
            for message in answer(query, True):
                await stream.send_all(message)
            await stream.aclose()

        (tmp_path / "resolv.conf").write_text("# by hand\nsearch example\nnameserver 127.0.0.1\nnameserver\n")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(over_udp)
            nursery.start_soon(trio.serve_listeners, over_tcp, [tcp])
            yield Names(str(tmp_path / "resolv.conf"), port)
            nursery.cancel_scope.cancel()


async def resolved(names_: Names, text: str) -> list[str]:
    return [str(address) for address in await names_.resolve(parse_multiaddr(text))]


async def test_what_holds_no_name_stays_as_it_is() -> None:
    nowhere = Names("/nonexistent")
    for text in ("/ip4/192.0.2.1/tcp/1", f"/ip6/::1/tcp/1/p2p/{PEER}", "/memory/7"):
        assert await resolved(nowhere, text) == [text]


async def test_host_names_are_resolved_by_the_system() -> None:
    assert await resolved(Names(), f"/dns4/localhost/tcp/80/p2p/{PEER}") == [
        f"/ip4/127.0.0.1/tcp/80/p2p/{PEER}"
    ]
    with pytest.raises(NotConnected, match="does not resolve") as caught:
        await resolved(Names(), "/dns4/no_such_name.invalid/tcp/80")
    assert "/dns4/no_such_name.invalid/tcp/80" in caught.value.detail


def system(*hosts: str) -> Callable[..., Awaitable[list[tuple[Any, ...]]]]:
    """A system's resolver that knows these addresses of every name, of the family that is asked for."""

    async def getaddrinfo(host: str, port: int, *, family: int, type: int) -> list[tuple[Any, ...]]:
        await trio.lowlevel.checkpoint()
        of = [(socket.AF_INET6 if ":" in known else socket.AF_INET, known) for known in hosts]
        return [
            (kind, type, 6, "", (known, port)) for kind, known in of if family in (kind, socket.AF_UNSPEC)
        ]

    return getaddrinfo


async def test_each_family_is_asked_for_by_its_name() -> None:
    both = Names(getaddrinfo=system("2001:db8::1", "192.0.2.1", "fe80::1%eth0"))
    assert await resolved(both, "/dns/a.b/tcp/1") == ["/ip6/2001:db8::1/tcp/1", "/ip4/192.0.2.1/tcp/1"]
    assert await resolved(both, "/dns4/a.b/tcp/1") == ["/ip4/192.0.2.1/tcp/1"]
    assert await resolved(both, "/dns6/a.b/tcp/1") == ["/ip6/2001:db8::1/tcp/1"]
    with pytest.raises(NotConnected, match="no address that fedd can dial"):
        await resolved(Names(getaddrinfo=system()), "/dns/a.b/tcp/1")


async def test_a_name_of_very_many_addresses_gives_sixteen() -> None:
    many = Names(getaddrinfo=system(*(f"192.0.2.{number}" for number in range(100))))
    assert len(await resolved(many, "/dns/a.b/tcp/1")) == names.MAX_ADDRESSES


async def test_dnsaddr_stands_for_what_its_texts_say(tmp_path: Path) -> None:
    zone = Zone(
        {
            "_dnsaddr.example.org": [
                f"dnsaddr=/ip4/192.0.2.1/tcp/1/p2p/{PEER}",
                f"dnsaddr=/ip6/2001:db8::1/tcp/2/p2p/{PEER}",
                f"dnsaddr=/ip4/192.0.2.9/tcp/1/p2p/{OTHER}",
                f"dnsaddr=/ip4/192.0.2.1/udp/1/quic-v1/p2p/{PEER}",
                "v=spf1 -all",
                f"dnsaddr=/dnsaddr/deeper.example.org/p2p/{PEER}",
                f"dnsaddr=/dns4/localhost/tcp/4/p2p/{PEER}",
            ],
            "_dnsaddr.deeper.example.org": ["dnsaddr=/ip4/192.0.2.2/tcp/3", "dnsaddr=/\u00e9"],
        }
    )
    async with name_server(zone, tmp_path) as asking:
        assert await resolved(asking, f"/dnsaddr/Example.org/p2p/{PEER}") == [
            f"/ip4/192.0.2.1/tcp/1/p2p/{PEER}",
            f"/ip6/2001:db8::1/tcp/2/p2p/{PEER}",
            f"/ip4/192.0.2.2/tcp/3/p2p/{PEER}",
            f"/ip4/127.0.0.1/tcp/4/p2p/{PEER}",
        ]
        assert len(await resolved(asking, "/dnsaddr/example.org")) == 5
    assert zone.asked[:2] == ["_dnsaddr.example.org", "_dnsaddr.deeper.example.org"]


async def test_names_in_a_circle_end(tmp_path: Path) -> None:
    zone = Zone({"_dnsaddr.a.b": ["dnsaddr=/dnsaddr/a.b"] * 3})
    async with name_server(zone, tmp_path) as asking:
        with pytest.raises(NotConnected, match="more than 4 names"):
            await resolved(asking, "/dnsaddr/a.b")
    assert len(zone.asked) <= names.MAX_LOOKUPS


async def test_a_bomb_of_names_is_bounded(tmp_path: Path) -> None:
    bomb = [f"dnsaddr=/dnsaddr/a{number}.b" for number in range(40)]
    zone = Zone({"_dnsaddr.a.b": bomb, **{f"_dnsaddr.a{number}.b": bomb for number in range(40)}})
    async with name_server(zone, tmp_path) as asking:
        with pytest.raises(NotConnected):
            await resolved(asking, "/dnsaddr/a.b")
    assert len(zone.asked) == names.MAX_LOOKUPS
    many = Zone({"_dnsaddr.a.b": [f"dnsaddr=/ip4/192.0.2.{number}/tcp/1" for number in range(60)]})
    async with name_server(many, tmp_path) as asking:
        assert len(await resolved(asking, "/dnsaddr/a.b")) == names.MAX_ADDRESSES


async def test_a_name_that_is_none_says_so(tmp_path: Path) -> None:
    async with name_server(Zone({}), tmp_path) as asking:
        with pytest.raises(NotConnected, match=r"there is no name _dnsaddr\.a\.b"):
            await resolved(asking, "/dnsaddr/a.b")
        with pytest.raises(NotConnected, match="labels of 1 to 63 bytes"):
            await resolved(asking, "/dnsaddr/a..b")


async def test_long_answers_come_over_tcp(tmp_path: Path) -> None:
    zone = Zone({"_dnsaddr.a.b": [f"dnsaddr=/ip4/192.0.2.{number}/tcp/1/p2p/{PEER}" for number in range(9)]})

    def answer(query: DnsMessage, over_tcp: bool) -> list[bytes]:
        (message,) = zone(query, over_tcp)
        if over_tcp:
            return [len(message).to_bytes(2, "big") + message[:100], message[100:]]
        return [encode_message(replace(query, is_response=True, is_truncated=True))]

    async with name_server(answer, tmp_path) as asking:
        assert len(await resolved(asking, f"/dnsaddr/a.b/p2p/{PEER}")) == 9


@pytest.mark.parametrize(
    ("over_tcp", "says"),
    [
        (b"\xff\xff", "an answer of 65535 bytes is too long"),
        (b"\0\x20abc", "ends too early"),
        (b"", "ends too early"),
    ],
)
async def test_a_bad_answer_over_tcp_is_an_error(tmp_path: Path, over_tcp: bytes, says: str) -> None:
    def answer(query: DnsMessage, tcp: bool) -> list[bytes]:
        return [over_tcp] if tcp else [encode_message(replace(query, is_response=True, is_truncated=True))]

    async with name_server(answer, tmp_path) as asking:
        with pytest.raises(NotConnected, match=says):
            await resolved(asking, "/dnsaddr/a.b")


async def test_an_answer_to_another_question_over_tcp_is_an_error(tmp_path: Path) -> None:
    def answer(query: DnsMessage, over_tcp: bool) -> list[bytes]:
        if not over_tcp:
            return [encode_message(replace(query, is_response=True, is_truncated=True))]
        message = encode_message(replace(query, id=query.id ^ 1, is_response=True))
        return [len(message).to_bytes(2, "big") + message]

    async with name_server(answer, tmp_path) as asking:
        with pytest.raises(NotConnected, match="another question"):
            await resolved(asking, "/dnsaddr/a.b")


async def test_what_does_not_answer_the_question_is_passed_over(tmp_path: Path) -> None:
    zone = Zone({"_dnsaddr.a.b": ["dnsaddr=/ip4/192.0.2.1/tcp/1"]})
    lie = Zone({"_dnsaddr.a.b": ["dnsaddr=/ip4/192.0.2.66/tcp/1"]})

    def answer(query: DnsMessage, over_tcp: bool) -> list[bytes]:
        (true,) = zone(query, over_tcp)
        other = replace(query, questions=(query.questions[0]._replace(name=parse_name("c.d")),))
        lies = lie(replace(query, id=query.id ^ 1), over_tcp)
        return [
            b"no DNS",
            *lies,
            encode_message(query),
            encode_message(replace(other, is_response=True)),
            true,
        ]

    async with name_server(answer, tmp_path) as asking:
        assert await resolved(asking, "/dnsaddr/a.b") == ["/ip4/192.0.2.1/tcp/1"]


async def test_other_names_in_an_answer_count_only_when_an_alias_leads_there(tmp_path: Path) -> None:
    here, there, elsewhere = map(parse_name, ("_dnsaddr.a.b", "c.d", "e.f"))

    def answer(query: DnsMessage, over_tcp: bool) -> list[bytes]:
        records = (
            Record(elsewhere, TXT, Texts((b"dnsaddr=/ip4/192.0.2.66/tcp/1",)), 60),
            Record(here, CNAME, Pointer(there), 60),
            Record(there, TXT, Texts((b"dnsaddr=/ip4/192", b".0.2.1/tcp/1")), 60),
            Record(there, 99, b"?", 60),
        )
        return [encode_message(replace(query, is_response=True, answers=records))]

    async with name_server(answer, tmp_path) as asking:
        assert await resolved(asking, "/dnsaddr/a.b") == ["/ip4/192.0.2.1/tcp/1"]


async def test_a_server_that_refuses_is_asked_again_and_named(tmp_path: Path) -> None:
    zone = Zone({"_dnsaddr.a.b": ["dnsaddr=/ip4/192.0.2.1/tcp/1"]})
    codes = iter((2, 0))

    def answer(query: DnsMessage, over_tcp: bool) -> list[bytes]:
        code = next(codes, 5)
        return (
            zone(query, over_tcp)
            if code == 0
            else [encode_message(replace(query, is_response=True, code=code))]
        )

    async with name_server(answer, tmp_path) as asking:
        assert await resolved(asking, "/dnsaddr/a.b") == ["/ip4/192.0.2.1/tcp/1"]
        with pytest.raises(NotConnected, match=r"the name server 127\.0\.0\.1 refuses with code 5"):
            await resolved(asking, "/dnsaddr/a.b")


async def test_a_silent_server_costs_seconds_and_is_named(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with name_server(lambda query, over_tcp: [], tmp_path) as asking:
        start = trio.current_time()
        with pytest.raises(NotConnected, match=r"127\.0\.0\.1 does not answer"):
            await resolved(asking, "/dnsaddr/a.b")
        assert trio.current_time() - start == pytest.approx(names.ASK_S * names.ROUNDS)


async def test_a_slow_resolver_has_a_deadline(autojump_clock: MockClock) -> None:
    async def getaddrinfo(*args: object, **options: object) -> list[tuple[Any, ...]]:
        await trio.sleep_forever()

    with pytest.raises(NotConnected, match="no answer within 5 s"):
        await resolved(Names(getaddrinfo=getaddrinfo), "/dns4/a.b/tcp/1")


async def test_without_a_file_or_a_usable_server_there_are_words(tmp_path: Path) -> None:
    with pytest.raises(NotConnected, match=r"the name server 127\.0\.0\.1"):
        await resolved(Names(str(tmp_path / "none"), port=1), "/dnsaddr/a.b")
    bad = tmp_path / "bad"
    bad.write_text("nameserver not-an-address\n" * 9)
    with pytest.raises(NotConnected, match="the name server not-an-address"):
        await resolved(Names(str(bad)), "/dnsaddr/a.b")


async def test_a_swarm_dials_by_name() -> None:
    keys = [PrivateKey.from_seed(bytes([number]) * 32) for number in (1, 2)]
    here, there = (Swarm(key) for key in keys)
    async with trio.open_nursery() as nursery:
        await nursery.start(here.run)
        await nursery.start(there.run)
        (address,) = await there.listen("/ip4/127.0.0.1/tcp/0")
        port = parse_multiaddr(address).port
        connection = await here.dial(
            ["/dns4/no_such_name.invalid/tcp/1", f"/dns4/localhost/tcp/{port}"], there.peer_id
        )
        assert connection.peer_id == there.peer_id
        assert connection.remote_address == f"/ip4/127.0.0.1/tcp/{port}"
        stranger = PrivateKey.from_seed(bytes([3]) * 32).peer_id
        with pytest.raises(NotConnected, match="does not resolve"):
            await here.dial([f"/dns/no_such_name.invalid/tcp/1/p2p/{stranger}"])
        nursery.cancel_scope.cancel()
