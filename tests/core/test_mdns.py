"""The rules of libp2p's mDNS: what is asked, what is answered, what is believed, and when."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedd.core import mdns
from fedd.core.dns_messages import (
    ANY,
    PTR,
    SRV,
    TXT,
    A,
    DnsMessage,
    Pointer,
    Question,
    Record,
    Service,
    Texts,
    decode_message,
    parse_name,
)
from fedd.core.identity import PrivateKey
from fedd.core.mdns import SERVICE, SERVICES, Found, QuerySchedule

PEER, OTHER = (PrivateKey.from_seed(bytes([number]) * 32).peer_id for number in (1, 2))
FEDERATION, ANOTHER = "ab" * 32, "cd" * 32
NAME = b"n" * mdns.INSTANCE_CHARS
HERE = f"/ip4/192.0.2.1/tcp/4747/p2p/{PEER}"
THERE = f"/ip6/2001:db8::1/tcp/4747/p2p/{PEER}"
HOSTS = [bytes([192, 0, 2, 1]), bytes(15) + b"\1"]


def answer(*addresses: str, federation: str | None = None) -> DnsMessage:
    return decode_message(mdns.encode_answer(NAME, addresses, 4747, HOSTS, federation))


def said(*strings: str, name: bytes = NAME, ttl_s: int = 120) -> DnsMessage:
    """An answer as another program may write it."""
    instance = (name, *SERVICE)
    texts = Texts(tuple(string.encode() for string in strings))
    return DnsMessage(
        is_response=True,
        answers=(Record(SERVICE, PTR, Pointer(instance), ttl_s), Record(instance, TXT, texts, ttl_s)),
    )


def test_a_query_asks_for_peers() -> None:
    query = decode_message(mdns.encode_query())
    assert query == DnsMessage(questions=(Question(parse_name("_p2p._udp.local"), PTR),))
    assert mdns.asks_for_peers(query)
    assert not mdns.asks_for_services(query)
    assert not mdns.found_in(query, FEDERATION)


def test_an_answer_has_all_that_other_programs_wait_for() -> None:
    message = answer(HERE, THERE)
    instance, host = (NAME, *SERVICE), (NAME, b"local")
    assert message.is_response
    assert message.answers == (Record(SERVICE, PTR, Pointer(instance), 120),)
    assert message.additional == (
        Record(instance, TXT, Texts((f"dnsaddr={HERE}".encode(), f"dnsaddr={THERE}".encode())), 120, True),
        Record(instance, SRV, Service(4747, host), 120, True),
        Record(host, A, HOSTS[0], 120, True),
        Record(host, 28, HOSTS[1], 120, True),
    )
    assert not mdns.asks_for_peers(message)


def test_an_answer_fits_a_packet() -> None:
    longest = "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"
    addresses = [f"/ip6/{longest}/tcp/65535/p2p/{PEER}"] * 9 + [f"/dns4/{'a' * 240}/tcp/1/p2p/{PEER}"]
    assert len(mdns.encode_answer(NAME, addresses, 4747, [bytes(16)] * 9, FEDERATION)) <= 1232
    too_long = f"/dns4/{'a' * 240}/tcp/1/p2p/{PEER}"
    (found,) = mdns.found_in(answer(too_long, HERE, federation=FEDERATION), FEDERATION)
    assert found == Found(NAME, PEER, (HERE,), True)


def test_fellows_know_each_other_and_strangers_learn_nothing() -> None:
    message = answer(HERE, THERE, federation=FEDERATION)
    assert mdns.found_in(message, FEDERATION) == [Found(NAME, PEER, (HERE, THERE), True)]
    assert mdns.found_in(message, ANOTHER) == [Found(NAME, PEER, (HERE, THERE), False)]
    assert mdns.found_in(message, None) == [Found(NAME, PEER, (HERE, THERE), False)]
    assert mdns.found_in(answer(HERE), FEDERATION) == [Found(NAME, PEER, (HERE,), False)]
    marks = {
        string
        for name in (NAME, b"m" * 32)
        for record in decode_message(mdns.encode_answer(name, [HERE], 1, [], FEDERATION)).additional
        if isinstance(record.data, Texts)
        for string in record.data.strings
        if string.startswith(b"fedd=")
    }
    assert len(marks) == 2  # nothing links two instances of one federation for who does not know its id
    assert not any(FEDERATION.encode()[:8] in mark for mark in marks)


def test_a_mark_holds_for_its_own_words_only() -> None:
    (text,) = [r.data for r in answer(HERE, federation=FEDERATION).additional if isinstance(r.data, Texts)]
    mark = text.strings[-1].decode()
    assert mdns.found_in(said(f"dnsaddr={HERE}", mark), FEDERATION)[0].is_fellow
    elsewhere = f"/ip4/198.51.100.1/tcp/1/p2p/{PEER}"
    another = f"/ip4/192.0.2.1/tcp/4747/p2p/{OTHER}"
    for lie in (
        said(f"dnsaddr={elsewhere}", mark),
        said(f"dnsaddr={another}", mark),
        said(f"dnsaddr={HERE}", f"dnsaddr={elsewhere}", mark),
        said(f"dnsaddr={HERE}", mark, name=b"m" * 32),
        said(f"dnsaddr={HERE}", mark[:-1]),
        said(f"dnsaddr={HERE}", "fedd="),
    ):
        (found,) = mdns.found_in(lie, FEDERATION)
        assert not found.is_fellow


def test_what_js_and_py_libp2p_write_is_read() -> None:
    instance = (NAME, *SERVICE)
    js = DnsMessage(
        is_response=True,
        answers=(
            Record(SERVICE, PTR, Pointer(instance), 120),
            Record(instance, TXT, Texts((f"dnsaddr={HERE}".encode(),)), 120),
            Record(instance, TXT, Texts((f"dnsaddr={THERE}".encode(),)), 120),
        ),
    )
    assert mdns.found_in(js, None) == [Found(NAME, PEER, (HERE, THERE), False)]
    py = said(f"dnsaddr={HERE}", f"dnsaddr2={THERE}")
    assert mdns.found_in(py, None) == [Found(NAME, PEER, (HERE, THERE), False)]


@pytest.mark.parametrize(
    "message",
    [
        said(),
        said("id=x", "dnsaddr", "dnsaddr=", "dnsaddr=no-slash"),
        said("dnsaddr=/ip4/192.0.2.1/tcp/1"),
        said("dnsaddr=/ip4/192.0.2.1/tcp/1/p2p/nonsense"),
        said("dnsaddr=/ip4/192.0.2.1/tcp/1/p2p/12D3KooW"),
        said(f"dnsaddr={HERE}", f"dnsaddr=/ip4/192.0.2.1/tcp/1/p2p/{OTHER}"),
        said(f"dnsaddr=/x\u00e9/p2p/{PEER}"),
        said(f"dnsaddr=/{'a' * 240}/p2p/{PEER}"[:250]),
        said(f"dnsaddr={HERE}", ttl_s=0),
        DnsMessage(is_response=True, answers=(Record((NAME, *SERVICE), TXT, Texts((HERE.encode(),)), 9),)),
        DnsMessage(is_response=True, answers=(Record(SERVICE, PTR, Pointer(SERVICE), 9),)),
        DnsMessage(is_response=True, answers=(Record(SERVICE, PTR, Pointer((b"a", b"b", b"c", b"d")), 9),)),
        DnsMessage(is_response=True, answers=(Record(SERVICES, PTR, Pointer((NAME, *SERVICE)), 9),)),
        DnsMessage(is_response=True, answers=(Record(SERVICE, 99, b"", 9),)),
    ],
)
def test_what_names_no_peer_is_passed_over(message: DnsMessage) -> None:
    assert mdns.found_in(message, FEDERATION) == []


def test_a_message_names_a_few_peers_at_most_and_each_a_few_addresses() -> None:
    many = DnsMessage(
        is_response=True,
        answers=tuple(Record(SERVICE, PTR, Pointer((b"%d" % n, *SERVICE)), 9) for n in range(50)),
        additional=tuple(
            Record((b"%d" % n, *SERVICE), TXT, Texts((f"dnsaddr={HERE}".encode(),)), 9) for n in range(50)
        ),
    )
    assert len(mdns.found_in(many, None)) == mdns.MAX_FOUND
    wordy = said(*(f"dnsaddr=/ip4/192.0.2.{n}/tcp/1/p2p/{PEER}" for n in range(50)))
    assert len(mdns.found_in(wordy, None)[0].addresses) == mdns.MAX_ADDRESSES


def test_who_is_asked() -> None:
    def asking(name: str, kind: int) -> DnsMessage:
        return DnsMessage(questions=(Question(parse_name("x.y"), A), Question(parse_name(name), kind)))

    assert mdns.asks_for_peers(asking("_p2p._udp.local", ANY))
    assert not mdns.asks_for_peers(asking("_p2p._udp.local", A))
    assert not mdns.asks_for_peers(asking("_ipp._tcp.local", PTR))
    assert mdns.asks_for_services(asking("_services._dns-sd._udp.local", PTR))
    instance = f"{NAME.decode()}._p2p._udp.local"
    assert mdns.asks_for(asking(instance, SRV), NAME)
    assert mdns.asks_for(asking(f"{NAME.decode()}.local", A), NAME)
    assert not mdns.asks_for(asking(instance, SRV), b"m" * 32)
    services = decode_message(mdns.encode_services())
    assert services.answers == (Record(SERVICES, PTR, Pointer(SERVICE), 120),)
    for response in (services, answer(HERE)):
        assert not mdns.asks_for_services(response)
        assert not mdns.asks_for(response, NAME)


@given(st.binary(max_size=300))
@settings(max_examples=100, deadline=None)
def test_any_strings_are_read_or_passed_over(text: bytes) -> None:
    instance = (NAME, *SERVICE)
    for strings in (
        (text[:255],),
        (b"dnsaddr=/" + text[:200],),
        (f"dnsaddr={HERE}".encode(), b"fedd=" + text[:99]),
    ):
        message = DnsMessage(
            is_response=True,
            answers=(Record(SERVICE, PTR, Pointer(instance), 9), Record(instance, TXT, Texts(strings), 9)),
        )
        for found in mdns.found_in(message, FEDERATION):
            assert not found.is_fellow
            assert all(address.startswith("/") for address in found.addresses)


# -- when


def run(schedule: QuerySchedule, until: float) -> list[float]:
    asked = []
    while schedule.due < until:
        now = schedule.due
        schedule.asked(now, 1.0)
        asked.append(now)
    return asked


def test_a_lonely_node_asks_often_at_first_and_then_each_minute() -> None:
    assert run(QuerySchedule(100.0), 330.0) == [100, 101, 104, 113, 140, 200, 260, 320]


def test_a_node_with_links_asks_rarely_and_not_when_another_has() -> None:
    schedule = QuerySchedule(0.0)
    schedule.asked(0.0, 1.0)
    schedule.set_linked(True, 0.5, 1.0)
    assert run(schedule, 1000.0) == [300.5, 600.5, 900.5]
    schedule.heard_query(1100.0, 1.0)
    schedule.heard_query(1000.0, 1.0)
    schedule.set_linked(True, 1101.0, 1.0)
    assert schedule.due == 1400.0


def test_a_lonely_node_asks_whoever_else_does() -> None:
    schedule = QuerySchedule(0.0)
    schedule.asked(0.0, 1.0)
    schedule.heard_query(0.5, 1.0)
    assert schedule.due == 1.0


def test_a_node_that_loses_its_links_asks_at_once() -> None:
    schedule = QuerySchedule(0.0, linked=True)
    schedule.asked(0.0, 1.0)
    schedule.set_linked(False, 10.0, 1.0)
    schedule.set_linked(False, 10.5, 1.0)
    assert run(schedule, 15.0) == [10.0, 11.0, 14.0]


def test_chance_keeps_nodes_from_asking_together() -> None:
    schedule = QuerySchedule(0.0)
    schedule.asked(0.0, 0.75)
    assert schedule.due == 0.75
