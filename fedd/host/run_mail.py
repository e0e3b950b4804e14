"""A run's messages outside its exchanges: between the worker's pipe and the neighbours' streams.

The worker's frames: `mail` (an item to a neighbour), `read` (letters that its algorithm has taken), `listen`
(it wants to know at once who leaves). To the worker: `mail`, `room` (it may post so many more), `left`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from fedd.api.errors import ProtocolError
from fedd.api.types import PeerId
from fedd.core.mail import Action, Carry, Confirm, Deliver, Emptied, Item, Mail, MailKind, Room
from fedd.core.pieces import Payload
from fedd.host.run_wire import RunFrame, encode_confirm, encode_mail, read_confirm, read_mail


class RunMail:
    """One node's mail in a run. `push` sends to a neighbour, `deliver` to the worker, both in order."""

    def __init__(
        self,
        neighbors: Iterable[PeerId],
        max_payload_bytes: int,
        push: Callable[[PeerId, Sequence[Payload]], None],
        deliver: Callable[[dict[str, Any], list[Payload]], None],
        on_emptied: Callable[[PeerId], None],
    ) -> None:
        self._mail = Mail(neighbors, max_payload_bytes)
        self._push = push
        self._deliver = deliver
        self._on_emptied = on_emptied
        self._listening = False
        self._departed: dict[PeerId, dict[str, Any]] = {}
        self._waited_s: dict[PeerId, float] = {}
        self._read_lately: set[PeerId] = set()

    # ---- the worker -----------------------------------------------------------------------

    def on_worker(self, header: Mapping[str, Any], body: Sequence[Payload]) -> None:
        """Take the worker's frame of kind mail, read or listen. Raises ProtocolError."""
        match header:
            case {"kind": "mail", "to": str(peer), "what": int(kind), "ref": int(ref), "tag": str(tag)}:
                if len(body) != 1 or kind not in list(MailKind) or not 0 <= ref < 2**32:
                    raise ProtocolError("its worker sent a malformed message")
                self._act(self._mail.post(peer, Item(MailKind(kind), ref, tag, body[0])))
            case {"kind": "read", "from": str(peer), "letters": int(letters), "bytes": int(size)}:
                self._read_lately.add(peer)
                self._act(self._mail.read(peer, letters, size))
            case {"kind": "listen"}:
                self._listening = True
                for left in self._departed.values():
                    self._deliver(left, [])
            case _:
                raise ProtocolError("its worker sent a malformed message")

    def depart(self, peer: PeerId, reason: str, how: str) -> None:
        """A member is `gone` from the run or has `finished`, or its edge was `cut`.

        The first word stays, but that one who was cut off is gone.
        """
        self._mail.release(peer)
        before = self._departed.get(peer)
        if before is None or (before["how"], how) == ("cut", "gone"):
            self._departed[peer] = {"kind": "left", "peer": peer, "reason": reason, "how": how}
            if self._listening:
                self._deliver(self._departed[peer], [])

    # ---- the neighbours -------------------------------------------------------------------

    def on_mail(self, peer: PeerId, frame: RunFrame) -> None:
        """Take a neighbour's MAIL frame. Raises ProtocolError."""
        self._act(self._mail.receive(peer, *read_mail(frame)))

    def on_confirm(self, peer: PeerId, frame: RunFrame) -> None:
        """Take a neighbour's CONFIRM frame. Raises ProtocolError."""
        self._act(self._mail.confirm(peer, read_confirm(frame)))

    def backlog(self, peer: PeerId) -> list[Payload]:
        """What a renewed stream to this neighbour carries again, with the receipt that may have been lost."""
        buffers: list[Payload] = []
        for carry in self._mail.unsent_for(peer):
            buffers += encode_mail(carry.number, carry.item, self._mail.receipt(peer))
        if self._mail.has_mail(peer):
            buffers.append(encode_confirm(self._mail.receipt(peer)))
        return buffers

    def holds_back(self, peer: PeerId) -> bool:
        """Whether letters wait here until this neighbour has read others: our end goes behind them."""
        return self._mail.has_waiting(peer)

    def give_up(self, peer: PeerId) -> None:
        """Drop what waits for this neighbour."""
        self._mail.drop_waiting(peer)

    # ---- who reads no letters -------------------------------------------------------------

    def unread_s(self, passed_s: float, *, worker_waits: bool) -> tuple[PeerId, float]:
        """For how long a neighbour has waited for the worker here to read any of its letters, and which.

        Called every `passed_s`. Only time counts in which the worker itself waits for others: these might
        wait for it, round in a circle and for ever.
        """
        if not worker_waits:
            return "", 0.0
        waiting = self._mail.kept_waiting
        self._waited_s = {
            peer: 0.0 if peer in self._read_lately else self._waited_s.get(peer, 0.0) + passed_s
            for peer in waiting
        }
        self._read_lately.clear()
        return max(self._waited_s.items(), key=lambda item: item[1], default=("", 0.0))

    # ---- inside ---------------------------------------------------------------------------

    def _act(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Carry(peer, number, item):
                    self._push(peer, encode_mail(number, item, self._mail.receipt(peer)))
                case Confirm(peer):
                    self._push(peer, [encode_confirm(self._mail.receipt(peer))])
                case Deliver(peer, item):
                    header = {"kind": "mail", "from": peer, "what": int(item.kind), "ref": item.ref}
                    self._deliver({**header, "tag": item.tag}, [item.payload])
                case Room(peer, count, size):
                    self._deliver({"kind": "room", "to": peer, "count": count, "bytes": size}, [])
                case Emptied(peer):
                    self._on_emptied(peer)
