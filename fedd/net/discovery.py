"""Finding peers on the local network by multicast DNS, and being found (libp2p's mDNS specification).

What is found is a hint for dialling and never makes anybody a member. Those who prove to know this
federation's id (`fedd.core.mdns`) are handed to presence; strangers are remembered, and never dialled.

This node speaks on those interfaces on which it can be dialled, and tells on each the addresses that it has
there: a daemon that listens on the loopback only is heard of on the loopback only.
"""

from __future__ import annotations

import ipaddress
import logging
import random
import secrets
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import field
from typing import TYPE_CHECKING, Final

import trio

from fedd.api.errors import InvalidParameter, ProtocolError
from fedd.api.types import PeerId
from fedd.core import mdns
from fedd.core.dataclass import dataclass
from fedd.core.dns_messages import decode_message
from fedd.net.bounds import Bound
from fedd.net.doors import TokenBucket
from fedd.net.interfaces import Interface
from fedd.net.multicast import Lan, MulticastDns
from fedd.net.transport import Address, parse_multiaddr

if TYPE_CHECKING:
    from fedd.net.presence import Presence
    from fedd.net.swarm import Swarm

log = logging.getLogger("fedd.net.discovery")

# A socket may join 20 groups (net.ipv4.igmp_max_memberships).
MAX_INTERFACES: Final = 16
# About 1 KiB each. Fellows are more than strangers: nobody outside can add to them.
MAX_FELLOWS: Final = 256
MAX_STRANGERS: Final = 64
# Messages about peers that are read: a network of 100 peers answers one query within a second or so.
READS_BURST, READS_PER_S = 200, 50.0
# Hints for presence; each may lead to a dial.
HINTS_BURST, HINTS_PER_S = 32, 4.0
# Who has links learns of others by their records, and who is in no federation looks for nobody: what is
# heard then is read so much later, once however often it came. When a crowd comes together most who speak are
# alive by then, and nothing more urgent waits for the processor. 256 KiB: 128 peers, each in both families.
PATIENT_S, MAX_UNREAD = 2.0, 256
# RFC 6762 section 6: those who are asked together do not answer together.
ANSWER_AFTER_S: Final = (0.02, 0.12)
# How soon it is noticed that there are links, or none.
NOTICE_S: Final = 0.5
# Who has just been let in is about to be linked with whoever did: so long nobody is asked for others.
NEWCOMER_S: Final = 0.5
_FOREVER: Final = float("inf")

# What everybody asks, word for word, and the bit by which answers are known (RFC 1035 section 4.1.1).
_QUERY: Final = mdns.encode_query()
_FLAGS_AT, _RESPONSE = 2, 0x80


@dataclass(slots=True)
class _Place:
    """One interface on which this node is heard; `answer_due` is when the answer goes out next."""

    interface: Interface
    addresses: tuple[Address, ...]
    answer: bytes
    answer_due: float = _FOREVER
    answered_at: float = -_FOREVER


@dataclass(slots=True)
class _Peer:
    """Where a peer says it can be dialled, by the interface on which it said so."""

    addresses: dict[int, tuple[str, ...]] = field(default_factory=dict)

    @property
    def everywhere(self) -> tuple[str, ...]:
        found = dict.fromkeys(address for told in self.addresses.values() for address in told)
        return tuple(found)[: mdns.MAX_ADDRESSES]


class Discovery:
    """mDNS beside a swarm and its presence: `look` tells it the interfaces, `run` does the rest."""

    def __init__(
        self,
        swarm: Swarm,
        presence: Presence,
        *,
        lan: Lan | None = None,
        clock: Callable[[], float] = trio.current_time,
        rng: random.Random | None = None,
    ) -> None:
        self._swarm = swarm
        self._presence = presence
        self._lan: Lan = lan if lan is not None else MulticastDns()
        self._clock = clock
        self._rng = rng or random.Random()
        self._instance = secrets.token_hex(mdns.INSTANCE_CHARS // 2).encode()
        self._places: dict[int, _Place] = {}
        self._fellows: OrderedDict[PeerId, _Peer] = OrderedDict()
        self._strangers: OrderedDict[PeerId, _Peer] = OrderedDict()
        # Of living fellows, the last words by interface: in a crowd they are repeated more than all else.
        self._said: dict[tuple[int, PeerId], bytes] = {}
        self._repeats: dict[tuple[int, bytes], PeerId] = {}
        # Answers that may wait, each with the time at which it is read.
        self._unhurried: dict[tuple[int, bytes], float] = {}
        self._federation: str | None = None
        # Since when others are looked for, if there are no links.
        self._looks_from = _FOREVER
        self._schedule = mdns.QuerySchedule(_FOREVER)
        self._reads = TokenBucket(READS_BURST, READS_PER_S, 0.0)
        self._hints = TokenBucket(HINTS_BURST, HINTS_PER_S, 0.0)
        self._unread = self._unhinted = 0
        self._changed = trio.Event()
        self._problem = ""

    # -- what is known

    def found(self) -> dict[PeerId, tuple[str, ...]]:
        """Everybody heard of, members of other federations and other programs too, and where."""
        return {peer: entry.everywhere for peer, entry in (*self._fellows.items(), *self._strangers.items())}

    def bounds(self) -> list[Bound]:
        """How much is remembered and read, and the most of it."""
        now = self._clock()
        return [
            Bound("mdns_fellows", len(self._fellows), MAX_FELLOWS, 0, "fellows found on the local network"),
            Bound("mdns_strangers", len(self._strangers), MAX_STRANGERS, 0, "other peers found there"),
            Bound(
                "mdns_messages",
                READS_BURST - self._reads.level(now),
                READS_BURST,
                self._unread,
                "messages about peers on the local network, at once",
            ),
            Bound(
                "mdns_hints",
                HINTS_BURST - self._hints.level(now),
                HINTS_BURST,
                self._unhinted,
                "peers of the local network to dial, at once",
            ),
        ]

    # -- where

    def look(self, interfaces: Sequence[Interface]) -> None:
        """Be heard on those of this machine's interfaces where this node can be dialled."""
        listening = [parse_multiaddr(address) for address in self._swarm.addresses]
        there = {
            interface.index: tuple(
                address for address in listening if address.host in (*interface.ipv4, *interface.ipv6)
            )
            for interface in interfaces
        }
        wanted = [
            interface
            for interface in interfaces
            # Who cannot be dialled looks for others all the same, but not on the loopback.
            if interface.can_multicast
            and (there[interface.index] or not (listening or interface.is_loopback))
        ][:MAX_INTERFACES]
        self._report(self._lan.use(wanted))
        before, self._places = self._places, {}
        for interface in wanted:
            index = interface.index
            old = before.get(index)
            if old is not None and (old.interface, old.addresses) == (interface, there[index]):
                self._places[index] = old
            else:
                self._places[index] = _Place(interface, there[index], b"")
                self._tell_soon(self._places[index])
                if self._federation is not None:
                    self._schedule.restart(self._clock())
        for index in before.keys() - self._places.keys():
            self._forget(index)
        self._wake()

    def _tell_soon(self, place: _Place) -> None:
        """Write the answer anew, and let everybody have it."""
        place.answer = self._answer(place.interface, place.addresses) if place.addresses else b""
        place.answered_at = -_FOREVER
        self._answer_soon(place)

    def _answer(self, interface: Interface, addresses: Sequence[Address]) -> bytes:
        hosts = dict.fromkeys(ipaddress.ip_address(address.host).packed for address in addresses)
        texts = [str(address) for address in addresses]
        return mdns.encode_answer(self._instance, texts, addresses[0].port, list(hosts), self._federation)

    def _forget(self, index: int) -> None:
        """An interface is gone, and with it what was heard there: its number may mean another one later."""
        for table in (self._fellows, self._strangers):
            for peer in list(table):
                table[peer].addresses.pop(index, None)
                if not table[peer].addresses:
                    del table[peer]

    # -- the loops

    async def run(self) -> None:
        """Ask, answer and hear until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._lan.run, self._heard)
            nursery.start_soon(self._speak)

    async def _speak(self) -> None:
        self._check_federation(self._clock())
        while True:
            now = self._clock()
            self._check_federation(now, NEWCOMER_S)
            self._schedule.set_linked(self._presence.has_links, now, self._spread())
            if now >= self._schedule.due:
                self._schedule.asked(now, self._spread())
                for index in self._places:
                    self._send(index, mdns.encode_query())
            for index, place in self._places.items():
                if now >= place.answer_due:
                    place.answer_due = _FOREVER
                    place.answered_at = now
                    self._send(index, place.answer)
            self._read_unhurried(now)
            due = min([self._schedule.due, *(place.answer_due for place in self._places.values())])
            with trio.move_on_after(max(0.0, min(due - self._clock(), NOTICE_S))):
                await self._changed.wait()
            self._changed = trio.Event()

    def _check_federation(self, now: float, rest_s: float = 0.0) -> None:
        """Who belongs together is another matter in another federation, and none without one.

        Others of a new one are asked for in `rest_s` seconds, if there is no link by then.
        """
        federation = self._presence.federation
        current = federation.id if federation is not None else None
        if current == self._federation:
            return
        self._federation = current
        self._said.clear()
        self._repeats.clear()
        self._strangers.clear()
        self._fellows.clear()
        self._looks_from = _FOREVER if current is None else now + rest_s
        self._schedule = mdns.QuerySchedule(self._looks_from)
        for place in self._places.values():
            self._tell_soon(place)

    def _spread(self) -> float:
        return self._rng.uniform(0.75, 1.25)

    def _wake(self) -> None:
        self._changed.set()

    def _send(self, index: int, data: bytes) -> None:
        try:
            self._lan.send(index, data)
        except OSError as error:
            name = self._places[index].interface.name
            log.debug("no multicast on %s: %s", name, error)

    def _report(self, problems: list[str]) -> None:
        """One line when it stops to work and one when it works again; it is tried on in any case."""
        problem = "; ".join(problems)
        if problem != self._problem:
            if problem:
                log.warning("peers on the local network cannot be found: %s; trying on", problem)
            else:
                log.info("peers on the local network can be found again")
            self._problem = problem

    # -- what is heard

    def _heard(self, index: int, data: bytes) -> None:
        place = self._places.get(index)
        lower = data.lower()
        # Most of what is said there is about printers; it is not worth taking apart.
        if place is None or not any(word in lower for word in (b"\x04_p2p", b"_dns-sd", self._instance)):
            return
        now = self._clock()
        is_answer = len(data) > _FLAGS_AT and bool(data[_FLAGS_AT] & _RESPONSE)
        if not is_answer or self._is_looking(now):
            self._take(place, data, now)
        elif len(self._unhurried) < MAX_UNREAD:
            self._unhurried.setdefault((index, data), now + PATIENT_S)
        elif (index, data) not in self._unhurried:
            self._unread += 1

    def _is_looking(self, now: float) -> bool:
        """Whether this node needs somebody to link with."""
        return now >= self._looks_from and not self._presence.has_links

    def _read_unhurried(self, now: float) -> None:
        """Read what has waited long enough, or may wait no longer because the links are gone."""
        in_haste = self._is_looking(now)
        due = [words for words, at in self._unhurried.items() if in_haste or now >= at]
        for index, data in due:
            del self._unhurried[index, data]
            place = self._places.get(index)
            if place is not None:
                self._take(place, data, now)

    def _take(self, place: _Place, data: bytes, now: float) -> None:
        """Read a message unless it is a repetition, or one too many."""
        if self._is_old_news(place.interface.index, data):
            return
        if not self._reads.take(now):
            self._unread += 1
            return
        try:
            self._read(place, data, now)
        except ProtocolError as error:
            log.debug("a message on %s is not multicast DNS: %s", place.interface.name, error)
        except Exception:  # a mistake of ours must cost no more than this message
            log.exception("a message on %s could not be taken", place.interface.name)

    def _read(self, place: _Place, data: bytes, now: float) -> None:
        index = place.interface.index
        if data == _QUERY:
            self._asked(place, now)
            return
        message = decode_message(data)
        if mdns.asks_for_peers(message):
            self._asked(place, now)
        elif mdns.asks_for(message, self._instance):
            self._answer_soon(place)
        elif mdns.asks_for_services(message) and place.answer:
            self._send(index, mdns.encode_services())
        found = mdns.found_in(message, self._federation)
        if message.is_response and len(found) == 1 and found[0].is_fellow:
            self._remember(index, found[0].peer_id, data)
        for peer in found:
            if peer.instance != self._instance and peer.peer_id != self._swarm.peer_id:
                self._found(place.interface, peer, now)

    def _asked(self, place: _Place, now: float) -> None:
        """Somebody wants to know who is there."""
        self._schedule.heard_query(now, self._spread())
        self._answer_soon(place)

    def _is_old_news(self, index: int, data: bytes) -> bool:
        """Whether a fellow says word for word what it said last, and is alive."""
        peer = self._repeats.get((index, data))
        return peer is not None and peer in self._fellows and self._presence.state_of(peer) == "alive"

    def _remember(self, index: int, peer: PeerId, data: bytes) -> None:
        last = self._said.pop((index, peer), None)
        if last is not None:
            self._repeats.pop((index, last), None)
        elif len(self._said) >= MAX_FELLOWS:
            (oldest_index, oldest), last = next(iter(self._said.items()))
            del self._said[oldest_index, oldest]
            self._repeats.pop((oldest_index, last), None)
        self._said[index, peer] = data
        self._repeats[index, data] = peer

    def _answer_soon(self, place: _Place) -> None:
        if not place.answer:
            return
        pause_s = self._rng.uniform(*ANSWER_AFTER_S)
        at = max(self._clock(), place.answered_at + mdns.ANSWER_EVERY_S) + pause_s
        place.answer_due = min(place.answer_due, at)
        self._wake()

    def _found(self, interface: Interface, peer: mdns.Found, now: float) -> None:
        addresses = tuple(text for text in peer.addresses if _is_usable(text, interface))
        if not addresses:
            return
        table, most = self._strangers, MAX_STRANGERS
        if peer.is_fellow:
            table, most = self._fellows, MAX_FELLOWS
            self._strangers.pop(peer.peer_id, None)
        elif peer.peer_id in self._fellows:  # somebody else speaks in its name, or it has left
            return
        if peer.peer_id not in table:
            kind = "a fellow" if peer.is_fellow else "a stranger"
            log.log(
                logging.INFO if peer.is_fellow else logging.DEBUG,
                "found %s on %s: %s at %s", kind, interface.name, peer.peer_id, " ".join(addresses),
            )  # fmt: skip
        entry = table.setdefault(peer.peer_id, _Peer())
        table.move_to_end(peer.peer_id)
        entry.addresses[interface.index] = addresses
        if len(table) > most:
            table.popitem(last=False)
        # Where the living are is known from their records.
        if peer.is_fellow and self._presence.state_of(peer.peer_id) != "alive":
            if self._hints.take(now):
                self._presence.hint(peer.peer_id, entry.everywhere)
            else:
                self._unhinted += 1


def _is_usable(text: str, interface: Interface) -> bool:
    """Whether this is a numeric address that can be meant for those who hear it on this interface."""
    try:
        address = parse_multiaddr(text)
    except (InvalidParameter, ProtocolError):
        return False
    if address.transport not in ("ip4", "ip6") or not address.port:
        return False
    host = ipaddress.ip_address(address.host)
    if host.is_unspecified or host.is_multicast or (host.version == 6 and host.is_link_local):
        return False
    return interface.is_loopback or not host.is_loopback
