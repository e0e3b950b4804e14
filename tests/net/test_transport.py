"""Addresses, TCP's errors, and the in-memory network."""

from __future__ import annotations

import contextlib
import errno
import socket
import subprocess
import sys
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import example, given, settings
from hypothesis import strategies as st
from multiaddr import Multiaddr

from fedd.api.errors import Conflict, Denied, FeddError, InvalidParameter, NotConnected, Unhealthy
from fedd.core.identity import PrivateKey
from fedd.net import tcp
from fedd.net.tcp import TcpNetwork, broken_reason, machine_addresses
from fedd.net.transport import Address, multiaddr_from_bytes, multiaddr_to_bytes, parse_multiaddr

PEER = PrivateKey.from_seed(bytes(32)).peer_id


@pytest.mark.parametrize(
    "text",
    [
        "/ip4/127.0.0.1/tcp/0",
        f"/ip4/192.0.2.7/tcp/65535/p2p/{PEER}",
        f"/ip6/::1/tcp/4001/p2p/{PEER}",
        "/dns/example.org/tcp/1",
        "/dns4/a-b.example/tcp/1",
        "/dns6/localhost/tcp/1",
        f"/dnsaddr/bootstrap.example.org/p2p/{PEER}",
        "/dnsaddr/a.example",
        "/memory/12",
        f"/memory/12/p2p/{PEER}",
    ],
)
def test_addresses_are_read_and_written(text: str) -> None:
    assert str(parse_multiaddr(text)) == text


def test_other_spellings_of_an_address_are_one() -> None:
    assert str(parse_multiaddr("/ip6/0:0::1/tcp/1/")) == "/ip6/::1/tcp/1"
    assert str(parse_multiaddr(f"/ip4/1.2.3.4/tcp/1/ipfs/{PEER}")) == f"/ip4/1.2.3.4/tcp/1/p2p/{PEER}"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not an address"),
        ("192.0.2.7:4001", "not an address"),
        ("/ip4/999.0.0.1/tcp/1", "999"),
        ("/ip6/1.2.3.4/tcp/1", "not an address"),
        ("/ip4/1.2.3.4/tcp/65536", "at most 65535"),
        ("/ip4/1.2.3.4/udp/1/quic-v1", "fedd speaks tcp, not ip4/udp/quic-v1"),
        ("/ip4/1.2.3.4/tcp/1/p2p/nonsense", "nonsense"),
        ("/ip4/1.2.3.4/tcp", "tcp"),
        ("x" * 5000, "not an address"),
    ],
)
def test_what_is_wrong_with_an_address_is_said(text: str, says: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        parse_multiaddr(text)
    assert says in caught.value.detail
    assert len(str(caught.value)) < 700


def test_binary_addresses() -> None:
    address = parse_multiaddr(f"/ip4/1.2.3.4/tcp/80/p2p/{PEER}")
    assert multiaddr_from_bytes(multiaddr_to_bytes(address)) == str(address)
    assert multiaddr_to_bytes(parse_multiaddr("/ip4/1.2.3.4/tcp/80")) == bytes([4, 1, 2, 3, 4, 6, 0, 80])
    for text in (
        "/memory/5",
        "/ip6/2001:db8::1/tcp/65535",
        "/ip6/::ffff:1.2.3.4/tcp/1",
        "/dns/example.org/tcp/2",
        "/dns4/localhost/tcp/3",
        f"/dns6/a.b/tcp/4/p2p/{PEER}",
        f"/dnsaddr/a.b/p2p/{PEER}",
        f"/ip4/1.2.3.4/tcp/80/p2p/{PEER}",
    ):
        binary = multiaddr_to_bytes(parse_multiaddr(text))
        assert binary == Multiaddr(text).to_bytes()
        assert parse_multiaddr(multiaddr_from_bytes(binary)) == parse_multiaddr(text)
    with pytest.raises(InvalidParameter, match="not a binary multiaddress"):
        multiaddr_from_bytes(b"\xff\xff\xff")


HOSTS = st.one_of(
    st.tuples(st.just("ip4"), st.ip_addresses(v=4).map(str)),
    st.tuples(st.just("ip6"), st.ip_addresses(v=6).map(lambda address: address.exploded)),
    st.tuples(st.sampled_from(["ip4", "ip6"]), st.text("0123456789abcdef:.", max_size=16)),
    st.tuples(
        st.sampled_from(["dns", "dns4", "dns6"]), st.from_regex(r"[a-z]{1,8}(\.[a-z]{1,8})?", fullmatch=True)
    ),
)
NUMBERS = st.one_of(st.integers(0, 70_000).map(str), st.sampled_from(["", "-1", "00", "0080", "x", "1.0"]))
COMMON_FORMS = st.one_of(
    st.builds(lambda host, port: f"/{host[0]}/{host[1]}/tcp/{port}", HOSTS, NUMBERS),
    NUMBERS.map(lambda number: f"/memory/{number}"),
)
ENDS = st.sampled_from(["", "/", f"/p2p/{PEER}", "/p2p/", "/p2p/nonsense", f"/p2p/{PEER[:-1]}"])


@given(COMMON_FORMS, ENDS)
@example("/ip4/01.2.3.4/tcp/1", "")
@example("/ip6/::ffff:1.2.3.4/tcp/1", "")
@example("/ip4/1.2.3/tcp/1", "")
@settings(max_examples=100, deadline=None)
def test_the_common_forms_mean_what_the_package_says(start: str, end: str) -> None:
    try:
        expected = Multiaddr(start + end).to_bytes()
    except (ValueError, LookupError):
        with pytest.raises(FeddError):
            parse_multiaddr(start + end)
    else:
        assert multiaddr_to_bytes(parse_multiaddr(start + end)) == expected


def test_a_daemon_that_sees_common_addresses_does_not_load_the_package() -> None:
    program = (
        "import sys, fedd.daemon\n"
        "from fedd.config import load\n"
        "from fedd.net.transport import multiaddr_from_bytes, multiaddr_to_bytes, parse_multiaddr\n"
        f"address = '/ip4/127.0.0.1/tcp/4001/p2p/{PEER}'\n"
        "load(None, {'name': 'a', 'listen': ['/ip6/::1/tcp/0'], 'connect': [address]})\n"
        "for text in (address, '/ip6/::1/tcp/1', '/dns4/localhost/tcp/1', '/dns/a/tcp/2', '/memory/1'):\n"
        "    multiaddr_to_bytes(parse_multiaddr(text))\n"
        "multiaddr_from_bytes(multiaddr_to_bytes(parse_multiaddr('/ip4/127.0.0.1/tcp/1')))\n"
        "print(sorted({'multiaddr', 'netaddr', 'numpy', 'pluggy'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"


def test_wildcards() -> None:
    assert parse_multiaddr("/ip4/0.0.0.0/tcp/1").is_wildcard
    assert parse_multiaddr("/ip6/::/tcp/1").is_wildcard
    assert not parse_multiaddr("/ip6/::1/tcp/1").is_wildcard
    assert not parse_multiaddr("/memory/1").is_wildcard
    assert not parse_multiaddr("/dns/localhost/tcp/1").is_wildcard
    assert not parse_multiaddr("/dnsaddr/a.example").is_wildcard


def test_it_is_known_which_addresses_hold_names() -> None:
    names = ["/dns/a.b/tcp/1", "/dns4/a.b/tcp/1", "/dns6/a.b/tcp/1", "/dnsaddr/a.b"]
    numbers = ["/ip4/1.2.3.4/tcp/1", "/ip6/::1/tcp/1", "/memory/1"]
    assert [parse_multiaddr(text).is_name for text in names + numbers] == [True] * 4 + [False] * 3
    assert machine_addresses("ip4")
    assert machine_addresses("ip6")


# ---- TCP ------------------------------------------------------------------------------


async def test_tcp_carries_bytes_and_closes() -> None:
    network = TcpNetwork()
    listener = await network.listen(parse_multiaddr("/ip4/127.0.0.1/tcp/0"))
    (address,) = listener.addresses
    assert address.port
    wire = await network.connect(address)
    other = await listener.accept()
    assert wire.local_address == other.remote_address
    assert wire.remote_address == address
    buffer = memoryview(bytearray(10))
    with pytest.raises(BlockingIOError):
        other.recv_into(buffer)
    assert wire.send(b"hello") == 5
    await other.wait_readable()
    assert other.recv_into(buffer) == 5
    await wire.wait_writable()
    wire.close()
    wire.close()
    await other.wait_readable()
    assert other.recv_into(buffer) == 0
    for wait in (wire.wait_readable, wire.wait_writable):
        with pytest.raises(trio.ClosedResourceError):
            await wait()
    other.close()
    listener.close()
    with pytest.raises(NotConnected, match="nobody listens") as caught:
        await network.connect(address)
    assert "check that the daemon" in caught.value.hint
    with pytest.raises(trio.ClosedResourceError):
        await listener.accept()


@pytest.mark.parametrize(("round_trip_us", "bounded"), [(300, True), (30_000, False), (0, False)])
async def test_a_near_peers_kernel_is_offered_a_bounded_window(
    round_trip_us: int, bounded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tcp, "_round_trip_us", lambda raw: round_trip_us)
    listener = await TcpNetwork().listen(parse_multiaddr("/ip4/127.0.0.1/tcp/0"))
    wire = await TcpNetwork().connect(listener.addresses[0])
    assert isinstance(wire, tcp.TcpWire)
    clamp = wire._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_WINDOW_CLAMP)
    assert (clamp == tcp.NEAR_UNREAD_BYTES) is bounded
    wire.close()
    listener.close()


async def test_the_kernel_tells_the_round_trip() -> None:
    listener = await TcpNetwork().listen(parse_multiaddr("/ip4/127.0.0.1/tcp/0"))
    wire = await TcpNetwork().connect(listener.addresses[0])
    assert isinstance(wire, tcp.TcpWire)
    assert 0 < tcp._round_trip_us(wire._socket) < 1_000_000
    wire.close()
    listener.close()


async def test_a_kernel_that_says_connected_when_asked_again_is_understood(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """connect(2): a socket that is connected gives EISCONN; Linux tells the end of the first call instead."""

    class Posix(socket.socket):
        def connect_ex(self, address: Any) -> int:
            return super().connect_ex(address) or errno.EISCONN

    listener = await TcpNetwork().listen(parse_multiaddr("/ip4/127.0.0.1/tcp/0"))
    monkeypatch.setattr(socket, "socket", Posix)
    wire = await TcpNetwork().connect(listener.addresses[0])
    assert wire.send(b"hello") == 5
    wire.close()
    listener.close()


async def test_those_who_wait_for_a_socket_can_be_interrupted() -> None:
    listener = await TcpNetwork().listen(parse_multiaddr("/ip4/127.0.0.1/tcp/0"))
    wire = await TcpNetwork().connect(listener.addresses[0])
    with contextlib.suppress(BlockingIOError):
        while True:
            wire.send(bytes(1 << 20))
    woken: list[str] = []

    async def wait(name: str) -> None:
        await getattr(wire, name)()
        woken.append(name)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait, "wait_readable")
        nursery.start_soon(wait, "wait_writable")
        await trio.testing.wait_all_tasks_blocked()
        wire.interrupt()
    assert sorted(woken) == ["wait_readable", "wait_writable"]
    wire.close()
    wire.interrupt()  # nothing happens
    listener.close()


async def test_listening_on_a_wildcard_gives_addresses_that_can_be_dialled() -> None:
    network = TcpNetwork()
    listener = await network.listen(parse_multiaddr("/ip4/0.0.0.0/tcp/0"))
    assert "127.0.0.1" in [address.host for address in listener.addresses]
    wire = await network.connect(listener.addresses[-1])
    wire.close()
    listener.close()


async def test_ipv6() -> None:
    network = TcpNetwork()
    try:
        listener = await network.listen(parse_multiaddr("/ip6/::/tcp/0"))
    except FeddError as error:
        pytest.skip(f"no IPv6 here: {error}")
    local = Address("ip6", "::1", listener.addresses[0].port)
    wire = await network.connect(local)
    other = await listener.accept()
    assert other.remote_address.transport == "ip6"
    for end in (wire, other, listener):
        end.close()


async def test_an_address_in_use_is_a_conflict_that_says_what_to_do() -> None:
    network = TcpNetwork()
    listener = await network.listen(parse_multiaddr("/ip4/127.0.0.1/tcp/0"))
    with pytest.raises(Conflict) as caught:
        await network.listen(listener.addresses[0])
    assert str(listener.addresses[0]) in caught.value.detail
    assert "in use" in caught.value.detail
    assert "/tcp/0" in caught.value.hint
    listener.close()
    again = await network.listen(listener.addresses[0])
    again.close()


async def test_listening_where_one_cannot_is_refused() -> None:
    network = TcpNetwork()
    with pytest.raises(InvalidParameter, match="no such address"):
        await network.listen(parse_multiaddr("/ip4/192.0.2.1/tcp/0"))
    with pytest.raises(InvalidParameter, match="numeric"):
        await network.listen(parse_multiaddr("/dns/localhost/tcp/0"))


@pytest.mark.parametrize(
    ("number", "kind", "says"),
    [
        (errno.EACCES, Denied, "not permitted"),
        (errno.EAFNOSUPPORT, InvalidParameter, "no such address"),
        (errno.EMFILE, Unhealthy, "Too many open files"),
    ],
)
def test_why_one_cannot_listen(number: int, kind: type[FeddError], says: str) -> None:
    error = tcp._cannot_listen(Address("ip4", "127.0.0.1", 1), OSError(number, "Too many open files"))
    assert type(error) is kind
    assert says in error.detail


@pytest.mark.parametrize(
    ("number", "kind", "says"),
    [
        (errno.EMFILE, Unhealthy, "cannot dial"),
        (errno.ENETUNREACH, NotConnected, "unreachable"),
        (errno.ECONNREFUSED, NotConnected, "nobody listens"),
    ],
)
def test_why_one_cannot_dial(number: int, kind: type[FeddError], says: str) -> None:
    error = tcp._not_connected(Address("ip4", "127.0.0.1", 1), OSError(number, "Network is unreachable"))
    assert type(error) is kind
    assert says in error.detail


def test_why_a_link_broke() -> None:
    assert broken_reason(ConnectionResetError(errno.ECONNRESET, "reset")) == "closed"
    assert broken_reason(BrokenPipeError(errno.EPIPE, "pipe")) == "closed"
    assert broken_reason(OSError(errno.EHOSTUNREACH, "No route to host")) == "error: No route to host"


async def test_a_socket_without_descriptors_left_says_so() -> None:
    listener = await TcpNetwork().listen(parse_multiaddr("/ip4/127.0.0.1/tcp/0"))

    class Full:
        def fileno(self) -> int:
            return real.fileno()

        def accept(self) -> None:
            raise OSError(errno.EMFILE, "Too many open files")

    real, listener._socket = listener._socket, Full()
    with pytest.raises(Unhealthy, match="Too many open files") as caught:
        await listener.accept()
    assert "LimitNOFILE" in caught.value.hint
    real.close()


async def test_a_closed_listener_says_so_whether_or_not_one_waits() -> None:
    listener = await TcpNetwork().listen(parse_multiaddr("/ip4/127.0.0.1/tcp/0"))
    async with trio.open_nursery() as nursery:

        async def wait() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await listener.accept()

        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        listener.close()
    with pytest.raises(trio.ClosedResourceError):
        await listener.accept()
    listener.close()


async def test_accepting_lets_others_have_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tcp, "ACCEPTS_AT_ONCE", 2)
    listener = await TcpNetwork().listen(parse_multiaddr("/ip4/127.0.0.1/tcp/0"))
    to = ("127.0.0.1", listener.addresses[0].port)
    diallers = [socket.create_connection(to) for _ in range(8)]
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(count)
        for _ in diallers:
            (await listener.accept()).close()
        assert turns
        nursery.cancel_scope.cancel()
    for dialler in diallers:
        dialler.close()
    listener.close()


def test_little_is_held_unsent_by_the_kernel() -> None:
    a, b = socket.socketpair()
    a.close()
    b.close()
    with socket.create_server(("127.0.0.1", 0)) as server:
        raw = socket.create_connection(server.getsockname())
        wire = tcp.TcpWire(raw)
        assert raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT) == 16 * 1024
        raw.close()
        assert wire.remote_address.host == "127.0.0.1"


# ---- in memory ------------------------------------------------------------------------
