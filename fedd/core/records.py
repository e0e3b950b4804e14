"""The record by which a member says of itself who it is and whom it hears.

Link-state flooding in the manner of OSPF (RFC 2328, sections 12 and 13) and SWIM's owner-raised versions
(Das, Gupta, Motivala 2002): each member floods one record, signed by itself alone. Nobody can change, raise
or end another's record; whoever lies can only drop or keep its own edges.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import field, replace
from functools import lru_cache
from typing import Any, Literal, TypeAlias

from fedd.api.errors import FeddError, ProtocolError
from fedd.api.types import PeerId
from fedd.core import codec, identity
from fedd.core.dataclass import dataclass

LossReason: TypeAlias = Literal["closed", "silent"]
Stamp: TypeAlias = tuple[int, bool, int]
"""(epoch, left, seq), compared as a tuple: a goodbye ends its epoch, so nothing of that epoch follows it."""

RECORD_DOMAIN = "fedd/record/1"
FINGERPRINT_BYTES = 24
# 24 links is the most a member holds; pinned links of runs come on top, a complete graph of 64 at the worst.
MAX_NEIGHBOURS = 64
MAX_LOST = 64
MAX_ADDRESSES = 8
MAX_ADDRESS_CHARS = 320
MAX_NAME_CHARS = 64
MAX_CHAIN_BYTES = 2048
# What fits all of the above and still leaves room for the envelope in one 16 KiB frame.
MAX_SEALED_BYTES = 12 * 1024
# Beyond any honest counter: one start a second for 136 years.
MAX_COUNTER = 2**32 - 1

_KEYS = frozenset(
    {"epoch", "seq", "left", "neighbours", "closed", "silent", "addresses", "name", "version", "chain"}
)

# The same few ids come in every message; base58 of one costs 60 us. Pure functions, so a cache is no state.
peer_to_bytes = lru_cache(maxsize=8192)(identity.peer_id_to_bytes)
peer_from_bytes = lru_cache(maxsize=8192)(identity.peer_id_from_bytes)


@dataclass(frozen=True, slots=True)
class Record:
    """What one member says of itself, at one version.

    `neighbours` are the peers whose links it holds and hears; `lost` those that it no longer hears, with the
    reason: "closed" (the peer's end of the connection was closed: its process ended) or "silent".
    `addresses` are multiaddrs at which it can be dialled (none: it cannot). `version` is its software's.
    `chain` is its membership certificate chain. `sealed` is the signed envelope, empty until signed.
    """

    id: PeerId
    epoch: int
    seq: int
    neighbours: frozenset[PeerId] = frozenset()
    lost: Mapping[PeerId, LossReason] = field(default_factory=dict)
    addresses: tuple[str, ...] = ()
    name: str = ""
    version: str = ""
    left: bool = False
    chain: bytes = b""
    sealed: bytes = b""
    # Made once, because they are asked for with every copy that comes: what versions are compared by, the
    # form in which the record travels, its share of a database's hash, and its ends of edges: its neighbours,
    # and nobody once it has left.
    stamp: Stamp = field(init=False, compare=False, repr=False)
    row: Row = field(init=False, compare=False, repr=False)
    fingerprint: int = field(init=False, compare=False, repr=False)
    edges: frozenset[PeerId] = field(init=False, compare=False, repr=False)
    # What it says otherwise than the version that it was last compared with.
    _difference: Difference | None = field(init=False, compare=False, repr=False, default=None)

    def __post_init__(self) -> None:
        stamp = (self.epoch, self.left, self.seq)
        text = f"{self.id} {self.epoch} {self.left:d} {self.seq} ".encode() + self.sealed[-64:]
        fingerprint = int.from_bytes(hashlib.sha256(text).digest()[:FINGERPRINT_BYTES], "big")
        object.__setattr__(self, "stamp", stamp)
        object.__setattr__(self, "row", Row(self.id, stamp, self.sealed))
        object.__setattr__(self, "fingerprint", fingerprint)
        object.__setattr__(self, "edges", frozenset() if self.left else self.neighbours)

    def since(self, held: Record) -> Difference:
        """What this version says otherwise than `held`, an older one of the same member.

        Kept until another version is compared with it: whoever takes a record in and then judges asks twice.
        """
        known = self._difference
        if known is None or known.base != held.fingerprint:
            known = Difference(self, held)
            object.__setattr__(self, "_difference", known)
        return known


class Difference:
    """What one version of a record says otherwise than an older one of the same member.

    `base` is the older one's fingerprint; `new` and `gone` are ends of edges. `concerns` are those
    whose verdict may depend on it, whoever is reachable.
    """

    __slots__ = ("base", "concerns", "gone", "new")

    def __init__(self, record: Record, held: Record) -> None:
        self.base = held.fingerprint
        self.new = tuple(record.edges - held.edges)
        self.gone = tuple(held.edges - record.edges)
        lost, loses = held.lost, record.lost
        concerns = {other for other in {*lost, *loses} if lost.get(other) != loses.get(other)}
        # Who was reachable and still is has not left, and is alive as before if it is the same life.
        if record.epoch != held.epoch:
            concerns.add(record.id)
        self.concerns = tuple(concerns)


@dataclass(frozen=True, slots=True)
class Row:
    """A record on the wire: id and stamp in clear, so that a copy already held costs no signature check.

    Id and stamp are only a claim until `open_row` has compared them with the sealed ones.
    """

    id: PeerId
    stamp: Stamp
    sealed: bytes


def newer(candidate: Record, held: Record | None) -> Record:
    """The one of two records of a member to keep: a semilattice's join, so order and repetition matter not.

    Two different records with one stamp exist only if two machines hold one key; the larger envelope wins
    everywhere, so that databases agree.
    """
    if held is None or (candidate.stamp, candidate.sealed) > (held.stamp, held.sealed):
        return candidate
    return held


def sign_record(key: identity.PrivateKey, record: Record) -> Record:
    """`record` with its envelope, signed by `key`, whose peer id must be the record's.

    Raises:
        ProtocolError: the record is another's, or beyond the bounds of this file.
    """
    if record.id != key.peer_id:
        raise ProtocolError(f"a record of {record.id} cannot be signed by {key.peer_id}")
    lost = sorted(record.lost.items())
    payload: dict[str, Any] = {
        "epoch": record.epoch,
        "seq": record.seq,
        "left": record.left,
        "neighbours": [peer_to_bytes(peer) for peer in sorted(record.neighbours)],
        "closed": [peer_to_bytes(peer) for peer, reason in lost if reason == "closed"],
        "silent": [peer_to_bytes(peer) for peer, reason in lost if reason == "silent"],
        "addresses": list(record.addresses),
        "name": record.name,
        "version": record.version,
        "chain": record.chain,
    }
    _record_from_payload(record.id, payload)
    sealed = identity.seal(key, RECORD_DOMAIN, codec.encode(payload))
    return replace(record, sealed=sealed)


def open_row(row: Row, check_chain: Callable[[bytes, PeerId], object]) -> Record:
    """The verified record in `row`.

    `check_chain(chain, peer_id)` raises when the chain does not make that peer a member of this federation.

    Raises:
        ProtocolError: bad signature, bad content, or a row that claims another id or stamp than it holds.
        FeddError: whatever `check_chain` raises.
    """
    if len(row.sealed) > MAX_SEALED_BYTES:
        raise ProtocolError(
            f"a record of {row.id} has {len(row.sealed)} bytes; {MAX_SEALED_BYTES} is the most"
        )
    try:
        signer, data = identity.open_sealed(row.sealed, RECORD_DOMAIN, row.id)
        record = _record_from_payload(signer, codec.decode(data, canonical=True), bytes(row.sealed))
    except ProtocolError:
        raise
    except FeddError as error:
        raise ProtocolError(f"a record of {row.id} is not acceptable: {error}") from error
    if record.stamp != row.stamp:
        raise ProtocolError(f"a row announces version {row.stamp} of {row.id} and holds {record.stamp}")
    check_chain(record.chain, record.id)
    return record


def _record_from_payload(peer_id: PeerId, payload: object, sealed: bytes = b"") -> Record:
    if not isinstance(payload, dict) or payload.keys() != _KEYS:
        raise ProtocolError(f"a record of {peer_id} does not have the fields of a record")
    closed, silent = (_peers(payload, key, MAX_LOST) for key in ("closed", "silent"))
    addresses, left, chain = payload["addresses"], payload["left"], payload["chain"]
    if not isinstance(left, bool) or not isinstance(chain, bytes) or len(chain) > MAX_CHAIN_BYTES:
        raise ProtocolError(f"a record of {peer_id} holds a bad flag or chain")
    if not isinstance(addresses, list) or len(addresses) > MAX_ADDRESSES:
        raise ProtocolError(f"a record of {peer_id} holds more than {MAX_ADDRESSES} addresses")
    lost: dict[PeerId, LossReason] = dict.fromkeys(silent, "silent")
    lost.update(dict.fromkeys(closed, "closed"))
    return Record(
        id=peer_id,
        epoch=_counter(payload, "epoch"),
        seq=_counter(payload, "seq"),
        neighbours=frozenset(_peers(payload, "neighbours", MAX_NEIGHBOURS)) - {peer_id},
        lost=lost,
        addresses=tuple(_text(address, MAX_ADDRESS_CHARS) for address in addresses),
        name=_text(payload["name"], MAX_NAME_CHARS),
        version=_text(payload["version"], MAX_NAME_CHARS),
        left=left,
        chain=chain,
        sealed=sealed,
    )


def _peers(payload: dict[str, Any], key: str, most: int) -> list[PeerId]:
    items = payload[key]
    if not isinstance(items, list) or len(items) > most or not all(isinstance(item, bytes) for item in items):
        raise ProtocolError(f"a record's {key} must be at most {most} peer ids", field=key)
    return [peer_from_bytes(item) for item in items]


def _counter(payload: dict[str, Any], key: str) -> int:
    value = payload[key]
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MAX_COUNTER:
        raise ProtocolError(f"a record's {key} must be an integer from 0 to {MAX_COUNTER}", field=key)
    return value


def _text(value: object, most_chars: int) -> str:
    if not isinstance(value, str) or len(value) > most_chars or not value.isprintable():
        raise ProtocolError(f"a record's text must be printable and at most {most_chars} characters")
    return value
