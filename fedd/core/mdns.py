"""Discovery on the local network: what is asked and answered, and when (libp2p's mDNS specification).

A query asks for PTR records of `_p2p._udp.local`; an answer names an instance, whose name is chosen at random
at each start and whose TXT record holds multiaddresses as `dnsaddr=...`. SRV and address records go with it,
because other programs' listeners wait for them (RFC 6763).

Nothing here is authenticated by itself. Beside the addresses fedd puts a mark, `fedd=...`: a MAC of all the
others, keyed with the federation's id. Members recognise each other by it before they dial, strangers
learn nothing from it, and whoever does not know the federation's id cannot make one up.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Sequence
from dataclasses import field
from typing import Final

from fedd.api.errors import InvalidParameter, ProtocolError
from fedd.api.types import PeerId
from fedd.core.dataclass import dataclass
from fedd.core.dns_messages import (
    AAAA,
    ANY,
    MAX_TEXT_BYTES,
    PTR,
    SRV,
    TXT,
    A,
    DnsMessage,
    Name,
    Pointer,
    Question,
    Record,
    Service,
    Texts,
    encode_message,
    parse_name,
)
from fedd.core.identity import parse_peer_id

SERVICE: Final = parse_name("_p2p._udp.local")
# "What services are there?" (RFC 6763 section 9); the specification wants it answered.
SERVICES: Final = parse_name("_services._dns-sd._udp.local")
INSTANCE_CHARS: Final = 32
"""Length of an instance's random name: the specification wants 32 or more, a DNS label has 63."""

# 120 s for what holds a host's address, RFC 6762 section 10; the specification says the same.
TTL_S: Final = 120
# So that an answer fits one packet of any network: an IPv6 address with port and peer id has 125 bytes.
MAX_TOLD: Final = 4
# What of one answer is looked at: others' answers name one instance, and a device has a handful of addresses.
MAX_FOUND: Final = 8
MAX_ADDRESSES: Final = 8

_ADDRESS: Final = re.compile(rb"dnsaddr[0-9]*=(/[!-~]{1,240})")
_PEER: Final = re.compile(r"/p2p/([0-9A-Za-z]{1,128})\Z")
_MARK: Final = b"fedd="
_MARK_BYTES: Final = 16
_MARK_DOMAIN: Final = b"fedd/mdns/1"


@dataclass(frozen=True, slots=True)
class Found:
    """A peer that an answer names: multiaddresses, each with its /p2p/ID.

    `is_fellow`: it proves to know the id of this node's federation, and names these addresses itself.
    """

    instance: bytes
    peer_id: PeerId
    addresses: tuple[str, ...]
    is_fellow: bool


def encode_query() -> bytes:
    """The question for everybody."""
    return encode_message(DnsMessage(questions=(Question(SERVICE, PTR),)))


def encode_answer(
    instance: bytes, addresses: Sequence[str], port: int, hosts: Sequence[bytes], federation: str | None
) -> bytes:
    """This node's answer.

    `addresses` are multiaddresses with /p2p/ID, `hosts` packed IP addresses, `federation` is its id in hex.

    What has no room (an address of more than 247 characters, the fifth and following ones) is left out.
    """
    name = (instance, *SERVICE)
    host = (instance, SERVICE[-1])
    told = [f"dnsaddr={address}".encode() for address in addresses]
    told = [text for text in told if len(text) <= MAX_TEXT_BYTES][:MAX_TOLD]
    mark = [] if federation is None else [_MARK + _mark(federation, instance, told)]
    return encode_message(
        DnsMessage(
            is_response=True,
            answers=(Record(SERVICE, PTR, Pointer(name), TTL_S),),
            additional=(
                Record(name, TXT, Texts((*told, *mark)), TTL_S, unique=True),
                Record(name, SRV, Service(port, host), TTL_S, unique=True),
                *(
                    Record(host, A if len(packed) == 4 else AAAA, packed, TTL_S, unique=True)
                    for packed in hosts[:MAX_TOLD]
                ),
            ),
        )
    )


def encode_services() -> bytes:
    """The answer to "what services are there?"."""
    return encode_message(
        DnsMessage(is_response=True, answers=(Record(SERVICES, PTR, Pointer(SERVICE), TTL_S),))
    )


def asks_for_peers(message: DnsMessage) -> bool:
    """Whether everybody is asked to answer."""
    return not message.is_response and any(
        question.name == SERVICE and question.type in (PTR, ANY) for question in message.questions
    )


def asks_for_services(message: DnsMessage) -> bool:
    """Whether it is asked what services there are."""
    return not message.is_response and any(
        question.name == SERVICES and question.type in (PTR, ANY) for question in message.questions
    )


def asks_for(message: DnsMessage, instance: bytes) -> bool:
    """Whether `instance` is asked for its records."""
    names = ((instance, *SERVICE), (instance, SERVICE[-1]))
    return not message.is_response and any(question.name in names for question in message.questions)


def found_in(message: DnsMessage, federation: str | None) -> list[Found]:
    """The peers that a response names, at most MAX_FOUND; what is not of use is passed over.

    A record with a time to live of 0 takes its words back (RFC 6762 section 10.1).
    """
    if not message.is_response:
        return []
    records = [record for record in (*message.answers, *message.additional) if record.ttl_s]
    strings: dict[Name, list[bytes]] = {}
    for record in records:
        if isinstance(record.data, Pointer) and record.name == SERVICE and len(strings) < MAX_FOUND:
            target = record.data.target
            if len(target) == len(SERVICE) + 1 and target[1:] == SERVICE:
                strings.setdefault(target, [])
    for record in records:
        # js-libp2p gives each address a record of its own, go-libp2p one record to all.
        if isinstance(record.data, Texts) and record.name in strings:
            strings[record.name] += record.data.strings
    found = (_read(name[0], texts, federation) for name, texts in strings.items())
    return [peer for peer in found if peer is not None]


def _read(instance: bytes, texts: list[bytes], federation: str | None) -> Found | None:
    told = [text for text in texts if _ADDRESS.fullmatch(text)]
    by_peer: dict[str, list[str]] = {}
    for text in told:
        address = text.partition(b"=")[2].decode()
        named = _PEER.search(address)
        if named is not None:
            by_peer.setdefault(named[1], []).append(address)
    if len(by_peer) != 1:  # nobody, or an instance that is several peers, which is a lie
        return None
    ((peer, addresses),) = by_peer.items()
    try:
        peer_id = parse_peer_id(peer)
    except (InvalidParameter, ProtocolError):
        return None
    fellow = federation is not None and any(
        text.startswith(_MARK)
        and hmac.compare_digest(text.removeprefix(_MARK), _mark(federation, instance, told))
        for text in texts
    )
    return Found(instance, peer_id, tuple(dict.fromkeys(addresses))[:MAX_ADDRESSES], fellow)


def _mark(federation: str, instance: bytes, told: Sequence[bytes]) -> bytes:
    """HMAC-SHA256 (RFC 2104), shortened to 128 bits, in hex."""
    words = b"\0".join((_MARK_DOMAIN, instance, *sorted(told)))
    return hmac.digest(bytes.fromhex(federation), words, "sha256")[:_MARK_BYTES].hex().encode()


# -- when

FIRST_GAP_S: Final = 1.0
GAP_FACTOR: Final = 3.0
LONELY_GAP_S: Final = 60.0
"""Longest pause between the queries of a node without links."""
LINKED_GAP_S: Final = 300.0
"""Pause between the queries of a node that has links: it learns of others by their records."""
ANSWER_EVERY_S: Final = 1.0
"""A multicast answer is not repeated sooner on one interface (RFC 6762 section 6)."""


@dataclass(slots=True)
class QuerySchedule:
    """When to ask: at once, then after 1, 3, 9, 27, 60, 60 ... seconds; rarely while there are links.

    Times are seconds of any monotonic clock; `spread` is a number from 0.75 to 1.25, chosen by the caller at
    each step, so that devices switched on together do not go on asking together.
    """

    due: float
    linked: bool = False
    _gap_s: float = field(default=FIRST_GAP_S)

    def restart(self, now: float) -> None:
        """Ask at once and as often as at first: links are gone, or the network is another."""
        self.due = now
        self._gap_s = FIRST_GAP_S

    def asked(self, now: float, spread: float) -> None:
        """A query has gone out."""
        gap_s = LINKED_GAP_S if self.linked else self._gap_s
        self.due = now + gap_s * spread
        self._gap_s = min(self._gap_s * GAP_FACTOR, LONELY_GAP_S)

    def heard_query(self, now: float, spread: float) -> None:
        """Another asked, and all hear the answers (RFC 6762 section 7.3).

        Only who has links leaves it at that: otherwise whoever asks all the time could keep others apart.
        """
        if self.linked:
            self.due = max(self.due, now + LINKED_GAP_S * spread)

    def set_linked(self, linked: bool, now: float, spread: float) -> None:
        """Whether there are links now."""
        if linked and not self.linked:
            self.linked = True
            self.due = now + LINKED_GAP_S * spread
        elif self.linked and not linked:
            self.linked = False
            self.restart(now)
