"""The doors: who may begin a handshake, and whose failures are held against where they come from.

Before a handshake ends nothing is known of a stranger but its address, so everything here is counted by
*prefix*: an IPv4 address, or the /56 of an IPv6 one, which is what one customer is given. A prefix
from which a member has come in is *proven*; a quarter of what all prefixes share is kept for those.

Pure bookkeeping: times are seconds of any monotonic clock, passed in.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from dataclasses import field
from typing import Final, Literal

from fedd.core.dataclass import dataclass
from fedd.core.yamux import YamuxLimits
from fedd.net.transport import Address

Refusal = Literal["pending", "prefix", "failures", "rate"]
"""Why a door stays shut: all seats for handshakes are taken, this prefix's are, too many of its handshakes
have failed, or too many handshakes were begun this second."""

SILENT_COST: Final = 0.125
"""What a connection costs that its dialler closed before it said a word: no cryptography was done for it.
Honest diallers do so too, with the second of two addresses that answer (RFC 8305 section 5)."""

MAX_PREFIXES: Final = 4096
"""Prefixes of which something is remembered, about 300 bytes each; the longest unseen is forgotten first."""
MAX_PROVEN: Final = 1024
"""Proven prefixes that are remembered. Only members can add to them."""


@dataclass(frozen=True)
class DoorLimits:
    """The doors' numbers. A quarter of all that strangers and members share is reserved for members."""

    pending_handshakes: int = 64
    """At 6 KiB each; more are closed at once."""
    pending_handshakes_per_address: int = 8
    """An address is an IPv4 address or an IPv6 /56: what one customer is given."""
    handshake_s: float = 10.0
    handshakes_per_s: float = 50.0
    """At 0.3 ms of CPU each: 1.5 % of a core. A second's worth may come at once."""
    failures_burst: int = 16
    failures_per_s: float = 0.2
    """What a prefix may fail by. Whoever turns out to be a member gets its allowance back."""


@dataclass(frozen=True)
class SwarmLimits(DoorLimits):
    """What all others together may take of this node."""

    dial_s: float = 10.0
    connections: int = 128
    negotiation_s: float = 10.0
    """How long a peer has to say which protocol a stream is for."""
    streams_per_stranger: int = 16
    """Identify, ping and join need one each."""
    stranger_idle_s: float = 15.0
    """A stranger that connected and has had no stream open for so long gives its seat back."""
    stranger_lease_s: float = 120.0
    """After so long a stranger that connected gives its seat back in any case: joining takes seconds."""
    stranger_streams_burst: int = 128
    stranger_streams_per_s: float = 32.0
    """Streams that a stranger may open; a stream costs 0.2 ms of CPU. js-libp2p opens one a ping."""
    streams: YamuxLimits = field(default_factory=YamuxLimits)
    """Streams of a member, unacknowledged ones, windows and control frames of a connection."""
    stranger_streams: YamuxLimits = field(
        default_factory=lambda: YamuxLimits(
            inbound_streams=16, max_window_bytes=256 * 1024, extra_window_bytes=0, buffered_bytes=512 * 1024
        )
    )
    """The same of a stranger, until it has shown a certificate: windows do not grow."""

    @property
    def strangers(self) -> int:
        """Connections beyond which only members are let in."""
        return self.connections - self.connections // 4


class TokenBucket:
    """At most `burst` at once, `per_s` in the long run; it begins full."""

    __slots__ = ("_at", "_burst", "_per_s", "_tokens")

    def __init__(self, burst: float, per_s: float, now: float) -> None:
        self._burst = burst
        self._per_s = per_s
        self._tokens = burst
        self._at = now

    def level(self, now: float) -> float:
        """How much there is now."""
        if now > self._at:
            self._tokens = min(self._burst, self._tokens + (now - self._at) * self._per_s)
            self._at = now
        return self._tokens

    def take(self, now: float, keep: float = 0.0) -> bool:
        """Take one, unless less than `keep` would be left."""
        if self.level(now) < 1.0 + keep:
            return False
        self._tokens -= 1.0
        return True

    def give_back(self, amount: float) -> None:
        """Undo a part of a `take`."""
        self._tokens = min(self._burst, self._tokens + amount)


class _Prefix:
    __slots__ = ("allowance", "pending")

    def __init__(self, limits: DoorLimits, now: float) -> None:
        self.pending = 0
        self.allowance = TokenBucket(limits.failures_burst, limits.failures_per_s, now)


@dataclass(slots=True, eq=False)
class Visit:
    """One inbound connection, from the door on."""

    prefix: str
    entry: _Prefix
    inside: bool = False
    charged: bool = True


class Doors:
    """Decides which inbound connections may begin a handshake."""

    def __init__(self, limits: DoorLimits, now: float) -> None:
        self._limits = limits
        self._prefixes: OrderedDict[str, _Prefix] = OrderedDict()  # longest unseen first
        self._proven: OrderedDict[str, None] = OrderedDict()
        self._all = TokenBucket(max(1.0, limits.handshakes_per_s), limits.handshakes_per_s, now)
        self.pending = 0
        """Handshakes that are under way."""
        self.refused: dict[Refusal, int] = {"pending": 0, "prefix": 0, "failures": 0, "rate": 0}
        """How many were turned away, by reason."""

    def enter(self, address: Address, now: float) -> Visit | None:
        """Let a connection begin its handshake, or turn it away (None)."""
        limits = self._limits
        prefix = prefix_of(address)
        known = self._prefixes.get(prefix)
        entry = known if known is not None else _Prefix(limits, now)
        proven = prefix in self._proven
        reserved = 0 if proven else limits.pending_handshakes // 4
        refusal: Refusal | None = None
        if entry.pending >= limits.pending_handshakes_per_address:
            refusal = "prefix"
        elif self.pending >= limits.pending_handshakes - reserved:
            refusal = "pending"
        elif entry.allowance.level(now) < 1.0:
            refusal = "failures"
        elif not self._all.take(now, 0.0 if proven else limits.handshakes_per_s / 4):
            refusal = "rate"
        if refusal is not None:
            self.refused[refusal] += 1
            return None
        entry.allowance.take(now)
        entry.pending += 1
        self.pending += 1
        self._remember(prefix, entry)
        return Visit(prefix, entry)

    def busiest(self, now: float) -> tuple[int, float, float]:
        """How near the limits are: handshakes under way from the prefix with most, handshakes begun of
        those that a second has, and failures held against the prefix with most.
        """
        entries = self._prefixes.values()
        failures = self._limits.failures_burst - min(
            (entry.allowance.level(now) for entry in entries), default=float(self._limits.failures_burst)
        )
        begun = max(1.0, self._limits.handshakes_per_s) - self._all.level(now)
        return max((entry.pending for entry in entries), default=0), begun, failures

    def _remember(self, prefix: str, entry: _Prefix) -> None:
        self._prefixes[prefix] = entry
        self._prefixes.move_to_end(prefix)
        if len(self._prefixes) > MAX_PREFIXES:  # a visit under way keeps its entry all the same
            self._prefixes.popitem(last=False)

    def leave(self, visit: Visit, *, silent: bool = False) -> None:
        """End a handshake, well or badly; `silent` when the peer closed without a word. Once a visit."""
        if visit.inside:
            raise ValueError("this visit has left the door already")
        visit.inside = True
        visit.entry.pending -= 1
        self.pending -= 1
        if silent:
            visit.charged = False
            visit.entry.allowance.give_back(1.0 - SILENT_COST)

    def vouch(self, visit: Visit) -> None:
        """The visitor is a member: give it its allowance back, and think well of where it comes from."""
        if visit.charged:
            visit.charged = False
            visit.entry.allowance.give_back(1.0)
        self._proven[visit.prefix] = None
        self._proven.move_to_end(visit.prefix)
        if len(self._proven) > MAX_PROVEN:
            self._proven.popitem(last=False)


def prefix_of(address: Address) -> str:
    """What counts as one address at the door: an IPv4 address, or the /56 of an IPv6 one."""
    if address.transport == "memory":
        return "memory"
    if address.transport == "ip6":
        return str(ipaddress.IPv6Network((int(ipaddress.IPv6Address(address.host)), 56), strict=False))
    return address.host
