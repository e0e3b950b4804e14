"""Messages between a run's neighbours outside its exchanges: once, in order, and never too many.

To each neighbour goes one numbered sequence of items. What is not confirmed is sent again on a renewed link;
a number that comes twice is dropped. Three bounds hold memory in:

- `WINDOW` items of the own algorithm, and the bytes of a run's largest message, that a neighbour has not
  confirmed or that wait here to be sent;
- `MAILBOX_LETTERS` letters, and the bytes of a run's largest message, that lie unread at a neighbour:
  then the next ones wait here, and with them their sender;
- `QUESTIONS` that a neighbour has not answered. An answer is bounded by its question and waits for nothing.

The last two are checked on arrival too. How much has arrived and how much was read travels with every item,
and by itself where no item goes that way.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Iterable
from dataclasses import field
from typing import TypeAlias

from fedd.api.errors import ProtocolError
from fedd.api.types import PeerId
from fedd.core.dataclass import dataclass
from fedd.core.pieces import Payload

WINDOW = 16
"""Items in flight: a link is kept busy, and a renewed one need not carry much again."""

MAILBOX_LETTERS = 256
"""Unread letters of one neighbour: gossip for a minute of training."""

SLACK_BYTES = 64 * 1024
"""Up to so many unread bytes a letter may always follow, else a reader that tells of each small letter would
cost more than the letters."""

TOLD_LETTERS = 32
"""A reader tells at last after so many letters, or after `SLACK_BYTES`."""

QUESTIONS = 4
"""Unanswered questions to one neighbour: an algorithm asks one, or a few at a time."""

CONFIRM_EVERY = 8
"""Half a window: the sender never stands still for want of a confirmation."""


class MailKind(enum.IntEnum):
    """What an item is."""

    LETTER = 1
    QUESTION = 2
    ANSWER = 3
    REFUSAL = 4
    """An answer that says why there is none: a code and a text."""


@dataclass(frozen=True, slots=True)
class Item:
    """One message. `ref` is its question's number, given by who asks; 0 for a letter."""

    kind: MailKind
    ref: int
    tag: str
    payload: Payload


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a node says to a neighbour about its items.

    `arrived` counts all items and `read_letters`, `read_bytes` the letters that the algorithm has taken,
    since the beginning. With `waiting` letters wait here until the neighbour has read others.
    """

    arrived: int = 0
    read_letters: int = 0
    read_bytes: int = 0
    waiting: bool = False


@dataclass(frozen=True, slots=True)
class Carry:
    """Send this item to a neighbour, with a receipt (`Mail.receipt`)."""

    peer: PeerId
    number: int
    item: Item


@dataclass(frozen=True, slots=True)
class Confirm:
    """Send a neighbour a receipt by itself."""

    peer: PeerId


@dataclass(frozen=True, slots=True)
class Deliver:
    """Hand an item to the own algorithm."""

    peer: PeerId
    item: Item


@dataclass(frozen=True, slots=True)
class Room:
    """The own algorithm may post `count` more items to this neighbour, `size` more bytes."""

    peer: PeerId
    count: int
    size: int


@dataclass(frozen=True, slots=True)
class Emptied:
    """Nothing waits here for this neighbour any more."""

    peer: PeerId


Action: TypeAlias = Carry | Confirm | Deliver | Room | Emptied


def window_fits(used_bytes: int, size: int, max_payload_bytes: int) -> bool:
    """Whether so many bytes may follow those in a window, of which each end knows `SLACK_BYTES` late."""
    return used_bytes <= SLACK_BYTES or used_bytes + size <= max_payload_bytes


@dataclass(slots=True)
class _Outbound:
    """My items to a neighbour."""

    next_number: int = 0
    unconfirmed: deque[Carry] = field(default_factory=deque)
    waiting: deque[Item] = field(default_factory=deque)
    questions: set[int] = field(default_factory=set)
    used: int = 0
    used_bytes: int = 0
    """Of the window: letters and questions that wait or are unconfirmed."""
    freed: int = 0
    freed_bytes: int = 0
    """Of the window, and the algorithm was not told yet."""
    letters: int = 0
    bytes: int = 0
    """Of all letters sent."""


@dataclass(slots=True)
class _Inbound:
    """A neighbour's items to me."""

    receipt: Receipt = field(default_factory=Receipt)
    """The last of the neighbour's, about my items."""
    arrived: int = 0
    confirmed: int = 0
    letters: int = 0
    bytes: int = 0
    read_letters: int = 0
    read_bytes: int = 0
    questions: set[int] = field(default_factory=set)


@dataclass(slots=True)
class _Box:
    out: _Outbound = field(default_factory=_Outbound)
    into: _Inbound = field(default_factory=_Inbound)


class Mail:
    """One node's mail in a run. Every method returns what to do next; there is no clock and no waiting."""

    def __init__(self, neighbors: Iterable[PeerId], max_payload_bytes: int) -> None:
        self._boxes = {peer: _Box() for peer in neighbors}
        self._max_payload_bytes = max_payload_bytes

    # ---- the own algorithm ----------------------------------------------------------------

    def post(self, peer: PeerId, item: Item) -> list[Action]:
        """Send an item of the own algorithm; to one that is out of the run it goes nowhere.

        Raises ProtocolError, and changes nothing, when it is too large, does not fit the bounds, or answers
        no question.
        """
        box = self._boxes.get(peer)
        if box is None:
            return []
        self._check_size(item, f"an item to {peer}")
        if item.kind in (MailKind.ANSWER, MailKind.REFUSAL):
            if item.ref not in box.into.questions:
                raise ProtocolError(f"an answer to {peer}, which asked no question {item.ref}")
            box.into.questions.discard(item.ref)
            return [self._carry(peer, box.out, item)]
        size = len(item.payload)
        if box.out.used >= WINDOW or not window_fits(box.out.used_bytes, size, self._max_payload_bytes):
            raise ProtocolError(f"more than {WINDOW} unconfirmed items to {peer}, or too large ones")
        if item.kind is MailKind.QUESTION:
            if len(box.out.questions) >= QUESTIONS or item.ref in box.out.questions:
                raise ProtocolError(f"more than {QUESTIONS} open questions to {peer}, or one twice")
            box.out.questions.add(item.ref)
        box.out.used += 1
        box.out.used_bytes += size
        if box.out.waiting or not self._fits(box, item):
            box.out.waiting.append(item)
            return [Confirm(peer)] if len(box.out.waiting) == 1 else []
        return [self._carry(peer, box.out, item)]

    def read(self, peer: PeerId, letters: int, size: int) -> list[Action]:
        """The own algorithm has taken so many letters of this neighbour, of `size` bytes together.

        Raises ProtocolError when there were not so many.
        """
        box = self._boxes.get(peer)
        if box is None:
            return []
        into = box.into
        if not (
            0 <= letters <= into.letters - into.read_letters and 0 <= size <= into.bytes - into.read_bytes
        ):
            raise ProtocolError(f"{letters} letters of {peer} with {size} bytes were not there to be read")
        into.read_letters += letters
        into.read_bytes += size
        return [Confirm(peer)]

    # ---- the neighbours -------------------------------------------------------------------

    def receive(self, peer: PeerId, number: int, receipt: Receipt, item: Item) -> list[Action]:
        """Take a neighbour's item `number`, counted from 0, and its receipt.

        One that comes twice, or from somebody who is no neighbour any more, is ignored. Raises ProtocolError,
        and takes nothing, when the neighbour keeps no order or no bound.
        """
        box = self._boxes.get(peer)
        if box is None:
            return []
        actions = self.confirm(peer, receipt)
        into = box.into
        if number < into.arrived:
            return actions
        if number > into.arrived:
            raise ProtocolError(f"{peer} sent item {number} before item {into.arrived}")
        self._check_size(item, f"an item of {peer}")
        self._take(peer, box, item)
        into.arrived += 1
        actions.append(Deliver(peer, item))
        if into.arrived - into.confirmed >= CONFIRM_EVERY:
            actions.append(Confirm(peer))
        return actions

    def confirm(self, peer: PeerId, receipt: Receipt) -> list[Action]:
        """Take a neighbour's receipt; an older one changes nothing.

        Raises ProtocolError when it speaks of items that were never sent.
        """
        box = self._boxes.get(peer)
        if box is None:
            return []
        out, old = box.out, box.into.receipt
        if (
            receipt.arrived > out.next_number
            or receipt.read_letters > out.letters
            or receipt.read_bytes > out.bytes
        ):
            raise ProtocolError(f"{peer} confirms more than was sent")
        box.into.receipt = Receipt(
            max(old.arrived, receipt.arrived),
            max(old.read_letters, receipt.read_letters),
            max(old.read_bytes, receipt.read_bytes),
            receipt.waiting,
        )
        while out.unconfirmed and out.unconfirmed[0].number < receipt.arrived:
            done = out.unconfirmed.popleft()
            if done.item.kind in (MailKind.LETTER, MailKind.QUESTION):
                size = len(done.item.payload)
                out.used -= 1
                out.freed += 1
                out.used_bytes -= size
                out.freed_bytes += size
        actions: list[Action] = []
        waited = bool(out.waiting)
        while out.waiting and self._fits(box, out.waiting[0]):
            actions.append(self._carry(peer, out, out.waiting.popleft()))
        if waited and not out.waiting:
            actions.append(Emptied(peer))
        if out.freed >= CONFIRM_EVERY or out.freed_bytes >= SLACK_BYTES:
            actions.append(Room(peer, out.freed, out.freed_bytes))
            out.freed = out.freed_bytes = 0
        return actions

    def release(self, peer: PeerId) -> None:
        """This neighbour is out of the run or has finished: nothing more goes to it or is taken from it."""
        self._boxes.pop(peer, None)

    def drop_waiting(self, peer: PeerId) -> None:
        """Give up what was not sent yet."""
        box = self._boxes.get(peer)
        if box is not None:
            box.out.waiting.clear()

    def receipt(self, peer: PeerId) -> Receipt:
        """What to tell this neighbour now, which counts as told."""
        box = self._boxes.get(peer)
        if box is None:
            return Receipt()
        into = box.into
        into.confirmed = into.arrived
        return Receipt(into.arrived, into.read_letters, into.read_bytes, bool(box.out.waiting))

    def unsent_for(self, peer: PeerId) -> list[Carry]:
        """What to send again on a renewed link, oldest first: all that is not confirmed."""
        box = self._boxes.get(peer)
        return [] if box is None else list(box.out.unconfirmed)

    def has_mail(self, peer: PeerId) -> bool:
        """Whether anything ever went to or came from this neighbour."""
        box = self._boxes.get(peer)
        return box is not None and (box.out.next_number > 0 or box.into.arrived > 0)

    def has_waiting(self, peer: PeerId) -> bool:
        """Whether items wait here until this neighbour has read others."""
        box = self._boxes.get(peer)
        return box is not None and bool(box.out.waiting)

    @property
    def kept_waiting(self) -> tuple[PeerId, ...]:
        """The neighbours whose letters wait until the own algorithm has read others of theirs, sorted."""
        return tuple(sorted(peer for peer, box in self._boxes.items() if box.into.receipt.waiting))

    # ---- inside ---------------------------------------------------------------------------

    def _fits(self, box: _Box, item: Item) -> bool:
        """Whether the neighbour's mailbox has room for it."""
        if item.kind is not MailKind.LETTER:
            return True
        letters = box.out.letters - box.into.receipt.read_letters
        unread = box.out.bytes - box.into.receipt.read_bytes
        return letters < MAILBOX_LETTERS and window_fits(unread, len(item.payload), self._max_payload_bytes)

    def _carry(self, peer: PeerId, out: _Outbound, item: Item) -> Carry:
        carry = Carry(peer, out.next_number, item)
        out.next_number += 1
        out.unconfirmed.append(carry)
        if item.kind is MailKind.LETTER:
            out.letters += 1
            out.bytes += len(item.payload)
        return carry

    def _take(self, peer: PeerId, box: _Box, item: Item) -> None:
        """Count an item in. Raises ProtocolError when it does not fit the bounds."""
        into = box.into
        if item.kind is MailKind.LETTER:
            unread = into.bytes - into.read_bytes + len(item.payload)
            if (
                into.letters - into.read_letters >= MAILBOX_LETTERS
                or unread > self._max_payload_bytes + SLACK_BYTES
            ):
                raise ProtocolError(f"{peer} sent more letters than the mailbox here holds")
            into.letters += 1
            into.bytes += len(item.payload)
        elif item.kind is MailKind.QUESTION:
            # Answers that it has not confirmed count as well: who reads none gets no more of them.
            answers = sum(carry.item.kind >= MailKind.ANSWER for carry in box.out.unconfirmed)
            if item.ref in into.questions or len(into.questions) + answers >= QUESTIONS:
                raise ProtocolError(f"{peer} asked more than {QUESTIONS} questions at once, or one twice")
            into.questions.add(item.ref)
        else:
            if item.ref not in box.out.questions:
                raise ProtocolError(f"{peer} answered the question {item.ref}, which nobody asked")
            box.out.questions.discard(item.ref)

    def _check_size(self, item: Item, what: str) -> None:
        if len(item.payload) > self._max_payload_bytes:
            raise ProtocolError(
                f"{what} has {len(item.payload)} bytes, more than the run's {self._max_payload_bytes}"
            )
