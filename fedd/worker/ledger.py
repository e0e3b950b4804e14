"""The mass-conserving average and its safe stop, without any I/O.

Averaging. Node i holds x_i = x_i(0) - sum_j F_ij, with one entry F_ij for each neighbour. In a round it
sends (x_i, deg_i, F_ij) to neighbour j, and when the round is over books the transfer
F_ij += w (x_i - x_j), w = 1 / (1 + max(deg_i, deg_j)). Both ends compute the same number with opposite
signs, so the entries of an edge cancel to the last bit. When a neighbour is gone its entry is deleted:
what went over that edge comes back.

Source: P. Jesus, C. Baquero, P. S. Almeida, "Flow updating: fault-tolerant aggregation for dynamic
networks", J. Parallel Distrib. Comput. 78 (2015), in its pairwise form.

Safe stop. Exchanges come in windows of N - 1, N the members of the run, aligned on all nodes. What a node
knows when a window begins (who its neighbours are, its value, its magnitude) is merged along with every
exchange of the window; then every node decides from what it heard. If adjacent survivors i and i' differed
in an item, the one that has it got it in the last exchange, over a path of N - 1 hops between N distinct
nodes, and the other is one of those: a contradiction. So all survivors of a component decide the same.

Fresh start. Entries can be far larger than what is left to average: when a node with 1e6 dies among nodes
with 1, the entries it caused stay at 1e5, and their rounding (1e-11) alone keeps the others from ever
agreeing to 1e-12. So after a window in which somebody was lost, which all survivors of a component see
alike, everybody sets its entries to zero and starts again from x_i(0).

Message (little-endian): "FL1", flags (1: with a window), position in the window (u32), dimensions (u8),
3 bytes of padding, the shape (u64 each); then degree (u32) and members (u32); then with a window the
origins (N bits) and their adjacency (N x N bits), padded to 8 bytes; then float64: x, with a window the
highest, lowest and largest magnitude, and last the entry.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fedd.api.errors import InvalidMessage
from fedd.api.types import PeerId
from fedd.worker.reading import BadMessage

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from fedd.api.types import FloatArray

    Payload = bytes | memoryview

MAX_MAGNITUDE = 1e300
"""Start values beyond it are refused: sums of up to 1e8 of them stay finite."""

_MAX_HEARD = 1e305
"""What may come from a neighbour: beyond any sum of acceptable start values, and no difference overflows."""

_HEAD = struct.Struct("<3sBIB3x")
_COUNTS = struct.Struct("<II")
_WITH_WINDOW = 1


def start_value(x0: ArrayLike) -> FloatArray:
    """`x0` as a new float64 array.

    Raises InvalidMessage when it is not numeric, not finite, or larger than `MAX_MAGNITUDE`.
    """
    try:
        raw = np.asarray(x0)
    except ValueError:
        raise InvalidMessage("a ledger starts from an array, not from a ragged list") from None
    if raw.dtype.kind not in "buif":
        raise InvalidMessage(f"a ledger starts from numbers, not from {raw.dtype} values")
    value = np.array(raw, dtype=np.float64, order="C")
    if not (np.abs(value) <= MAX_MAGNITUDE).all():
        raise InvalidMessage(
            "a ledger starts from finite numbers",
            hint=f"look for NaN, infinity or more than {MAX_MAGNITUDE:g}",
        )
    value += 0.0  # turns -0.0 into 0.0, which would differ in bits and not in value
    return value


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a window said. `origins` is a bit mask over the run's members; `value` counts if `agreed`."""

    agreed: bool
    closed: bool
    origins: int
    residual: float
    value: FloatArray


class Window:
    """What a node has heard about the beginning of this window: merged, the same in any order."""

    __slots__ = ("_members", "adjacency", "highest", "lowest", "magnitude", "origins")

    def __init__(
        self, members: int, me: int, neighbors: int, value: FloatArray, magnitude: FloatArray
    ) -> None:
        """Begin with this node's own: its index, its neighbours as a bit mask, value and magnitude."""
        self._members = members
        self.origins = 1 << me
        self.adjacency = neighbors << (me * members)
        self.highest = value
        self.lowest = value
        self.magnitude = magnitude

    @property
    def residual(self) -> float:
        """The largest spread among the origins heard so far, relative to the largest magnitude."""
        spread = self.highest - self.lowest
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            relative = np.where(spread > 0, spread / self.magnitude, 0.0)
        return float(relative.max(initial=0.0))

    def verdict(self, tolerance: float) -> Verdict:
        """Decide: agreed if the origins are complete and their spread is within the relative tolerance."""
        closed = self._is_closed()
        spread = self.highest - self.lowest
        within = tolerance > 0 and bool((spread <= tolerance * self.magnitude).all())
        return Verdict(closed and within, closed, self.origins, self.residual, self.lowest + spread / 2)

    def _is_closed(self) -> bool:
        """Whether every origin's neighbours are origins and name it in return."""
        count = self._members
        mask = (1 << count) - 1
        rows = {
            index: self.adjacency >> (index * count) & mask
            for index in range(count)
            if self.origins >> index & 1
        }
        for index, row in rows.items():
            if row & ~self.origins:
                return False
            if any(row >> other & 1 and not rows[other] >> index & 1 for other in rows):
                return False
        return True


class LedgerCore:
    """One node's books. `messages` before each exchange, `apply` after it.

    `members` is sorted; `neighbors` arguments are those still in the run, sorted.
    """

    def __init__(
        self, me: PeerId, members: Sequence[PeerId], neighbors: Sequence[PeerId], start: FloatArray
    ) -> None:
        self._members = tuple(members)
        self._index = {peer: index for index, peer in enumerate(self._members)}
        self._me = me
        self.shape = start.shape
        self._start = start.reshape(-1)
        self._size = self._start.size
        self._x = self._start
        self._peers = tuple(neighbors)
        self._entries = np.zeros((len(self._peers), self._size))
        self.window: Window | None = None
        self._position = 0
        self._in_agreement = False
        self._known: int | None = None  # the origins of the window before
        self._settled = np.zeros(self._size)  # all that went to neighbours that have finished
        self.is_fresh = False
        bits = len(self._members)
        self._origin_bytes = (bits + 7) // 8
        self._adjacency_bytes = (bits * bits + 7) // 8
        self._degree = 0

    @property
    def value(self) -> FloatArray:
        """This node's estimate of the mean, shape of the start value. A copy."""
        return self._x.reshape(self.shape).copy()

    @property
    def window_length(self) -> int:
        """Exchanges in a window."""
        return max(1, len(self._members) - 1)

    def begin_agreement(self) -> None:
        """Begin a window with the next exchange; windows follow each other until `end_agreement`."""
        self._position = 0
        self._known = None
        self.window = None
        self._in_agreement = True

    def end_agreement(self) -> None:
        """Exchange without windows from now on."""
        self._in_agreement = False
        self.window = None

    def messages(self, neighbors: Sequence[PeerId]) -> dict[PeerId, bytes]:
        """What to send to each neighbour in the exchange that begins now."""
        self._keep(tuple(neighbors))
        self._degree = len(self._peers)
        if self._in_agreement and self._position == 0:
            mask = 0
            for peer in self._peers:
                mask |= 1 << self._index[peer]
            magnitude = np.maximum(np.abs(self._x), np.abs(self._start))
            self.window = Window(len(self._members), self._index[self._me], mask, self._x, magnitude)
        window = self.window
        parts = [self._head(), _COUNTS.pack(self._degree, len(self._members))]
        if window is None:
            parts.append(self._x.tobytes())
        else:
            packed = window.origins.to_bytes(self._origin_bytes, "little") + window.adjacency.to_bytes(
                self._adjacency_bytes, "little"
            )
            parts += [packed, bytes(-len(packed) % 8), self._x.tobytes()]
            parts += [window.highest.tobytes(), window.lowest.tobytes(), window.magnitude.tobytes()]
        common = b"".join(parts)
        return {peer: common + self._entries[row].tobytes() for row, peer in enumerate(self._peers)}

    def apply(
        self,
        messages: Mapping[PeerId, Payload],
        neighbors: Sequence[PeerId],
        finished: Collection[PeerId] = (),
    ) -> None:
        """Book the exchange: what came, who is still a neighbour after it, who ended well and is none.

        Raises BadMessage, naming the peer, when a message has another shape or layout, is not finite,
        or holds an entry that is not this node's with the opposite sign: in lock-step both ends have booked
        the same transfers, so anything else is a lie or a defect. The books are then as before.
        """
        rows = [row for row, peer in enumerate(self._peers) if peer in messages]
        if rows:
            self._book(rows, [messages[self._peers[row]] for row in rows])
        self._keep(tuple(neighbors), finished)
        self._x = self._from_the_books()

    def close_window(self, tolerance: float, *, last: bool = False) -> Verdict | None:
        """Count the exchange; at the end of a window say what it decided, else None.

        After the `last` one nobody starts afresh: what would be left is the start value.
        """
        self._position += 1
        window = self.window
        if window is None or self._position < self.window_length:
            return None
        verdict = window.verdict(tolerance)
        lost = not verdict.closed or self._known not in (None, verdict.origins)
        self.is_fresh = lost and not last
        if self.is_fresh:
            self._start_afresh()
        self._known = verdict.origins
        self._position = 0
        return verdict

    def peers_of(self, mask: int) -> tuple[PeerId, ...]:
        """The members in a bit mask, sorted."""
        return tuple(peer for index, peer in enumerate(self._members) if mask >> index & 1)

    def _start_afresh(self) -> None:
        self._entries = np.zeros_like(self._entries)
        self._x = self._from_the_books()

    def _keep(self, neighbors: tuple[PeerId, ...], finished: Collection[PeerId] = ()) -> None:
        """Delete the entries of those who are no neighbours any more, but not of those who finished.

        Theirs stay for ever: what went to them is in their answers.
        """
        if neighbors == self._peers:
            return
        rows = [row for row, peer in enumerate(self._peers) if peer in neighbors]
        for row, peer in enumerate(self._peers):
            if peer not in neighbors and peer in finished:
                self._settled = self._settled + self._entries[row]
        self._peers = tuple(self._peers[row] for row in rows)
        self._entries = self._entries[rows]
        self._x = self._from_the_books()

    def _from_the_books(self) -> FloatArray:
        value: FloatArray = self._start - self._settled - np.add.reduce(self._entries, axis=0)
        return value

    def _head(self) -> bytes:
        flags = 0 if self.window is None else _WITH_WINDOW
        head = _HEAD.pack(b"FL1", flags, self._position, len(self.shape))
        return head + struct.pack(f"<{len(self.shape)}Q", *self.shape)

    def _book(self, rows: list[int], payloads: list[Payload]) -> None:
        window = self.window
        head = self._head()
        size = self._size
        bitmap = self._origin_bytes + self._adjacency_bytes
        floats_at = len(head) + _COUNTS.size + (0 if window is None else bitmap + -bitmap % 8)
        vectors = 2 if window is None else 5
        length = floats_at + 8 * size * vectors
        degrees = []
        for row, payload in zip(rows, payloads, strict=True):
            if len(payload) != length or payload[: len(head)] != head:
                raise self._foreign(self._peers[row], payload)
            degree, members = _COUNTS.unpack_from(payload, len(head))
            if members != len(self._members) or degree >= members:
                raise BadMessage(self._peers[row], "it sent a ledger message of another run")
            degrees.append(degree)
        heard = np.frombuffer(b"".join([payload[floats_at:] for payload in payloads]), dtype="<f8")
        heard = heard.reshape(len(rows), vectors, size)
        finite = np.abs(heard) <= _MAX_HEARD
        if not finite.all():
            guilty = int(np.argmin(finite.all(axis=(1, 2))))
            raise BadMessage(self._peers[rows[guilty]], "it sent a value that is not finite")
        mine = self._entries[rows]
        if not (mine == -heard[:, -1]).all():
            guilty = next(at for at in range(len(rows)) if not (mine[at] == -heard[at, -1]).all())
            raise BadMessage(
                self._peers[rows[guilty]],
                "it claims transfers that never took place",
                hint="its books of the edge do not mirror this node's",
            )
        weights = 1.0 / (1.0 + np.maximum(np.array(degrees, dtype=np.float64), self._degree))
        booked = mine + weights[:, None] * (self._x - heard[:, 0])
        if window is not None:
            self._merge(window, rows, payloads, len(head) + _COUNTS.size, heard)
        self._entries[rows] = booked

    def _merge(
        self, window: Window, rows: list[int], payloads: list[Payload], bits_at: int, heard: FloatArray
    ) -> None:
        split = bits_at + self._origin_bytes
        end = split + self._adjacency_bytes
        everyone = (1 << len(self._members)) - 1
        origins, adjacency = window.origins, window.adjacency
        for row, payload in zip(rows, payloads, strict=True):
            heard_of = int.from_bytes(payload[bits_at:split], "little")
            if heard_of & ~everyone:
                raise BadMessage(self._peers[row], "it speaks of members that the run does not have")
            origins |= heard_of
            adjacency |= int.from_bytes(payload[split:end], "little")
        window.origins, window.adjacency = origins, adjacency
        window.highest = np.maximum(window.highest, heard[:, 1].max(axis=0))
        window.lowest = np.minimum(window.lowest, heard[:, 2].min(axis=0))
        window.magnitude = np.maximum(window.magnitude, heard[:, 3].max(axis=0))

    def _foreign(self, peer: PeerId, payload: Payload) -> BadMessage:
        """Say in what a message differs from this node's own."""
        here = f"{self.shape} at {self._me}"
        if len(payload) < _HEAD.size:
            return BadMessage(peer, f"it sent {len(payload)} bytes that are no ledger message")
        mark, flags, position, dimensions = _HEAD.unpack_from(payload)
        shape_end = _HEAD.size + 8 * dimensions
        if mark != b"FL1" or len(payload) < shape_end:
            return BadMessage(peer, f"it sent {len(payload)} bytes that are no ledger message")
        shape = struct.unpack_from(f"<{dimensions}Q", payload, _HEAD.size)
        if shape != self.shape:
            return BadMessage(
                peer,
                f"it holds a value of shape {shape}, against {here}",
                hint="give all members inputs of one shape",
            )
        if (flags, position) != (0 if self.window is None else _WITH_WINDOW, self._position):
            return BadMessage(peer, f"it is at another step of its ledger than {self._me}")
        return BadMessage(peer, "it sent a ledger message of another run")
