"""What goes over a run's streams in one epoch: a neighbour's frames, and all that a renewed one carries."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING

from fedd.api.errors import ProtocolError
from fedd.api.types import PeerId
from fedd.core.epochs import CLOSING_TAG
from fedd.core.manifest import EndStatement, Manifest, open_cut, open_end, printable
from fedd.core.pieces import Arrived, Payload
from fedd.host.run_wire import Kind, RunFrame, encode_frame, encode_preamble, encode_round

if TYPE_CHECKING:
    from fedd.host.run_node import RunNode
    from fedd.net.stream import Stream


class Side:
    """A node's end of the streams of one epoch: what comes when that is over is no more its business."""

    def __init__(self, node: RunNode, manifest: Manifest) -> None:
        self._node = node
        self._manifest = manifest

    @property
    def _is_current(self) -> bool:
        return self._node.manifest is self._manifest

    def open_stream(self, peer: PeerId, /) -> Awaitable[Stream]:
        """`LinkOwner` of `fedd.host.run_link`."""
        return self._node.open_stream(peer)

    def backlog(self, peer: PeerId) -> list[Payload]:
        """`LinkOwner`: manifest, letters, the last two rounds, statements, our end."""
        node = self._node
        buffers: list[Payload] = [encode_preamble(node.manifest.sealed)]
        if not self._is_current:
            return buffers
        buffers += node.mail.backlog(peer)  # first: a closing round means that no letter comes after it
        for send in node.rounds.unsent_for(peer):
            buffers += encode_round(send.round, send.tag, send.payload)
        for member, statement in node.departures.ends.items():
            if member not in (node.me, peer):
                buffers.append(encode_frame(Kind.NOTICE, 0, statement.sealed))
        for cut in node.departures.cuts.values():
            buffers.append(encode_frame(Kind.CUT_NOTICE, 0, cut.sealed))
        if node.stop_statement is not None:
            buffers.append(encode_frame(Kind.STOP, 0, node.stop_statement))
        if node.story.ending is not None and not node.holds_end(peer):
            buffers.append(node.end_frame())
        return buffers

    def on_reply(self, peer: PeerId, frame: RunFrame) -> None:
        """`LinkOwner`: a neighbour answered on our stream to it."""
        if not self._is_current:
            return
        node = self._node
        if frame.kind == Kind.ACK:
            node.links[peer].settle()
        elif frame.kind == Kind.DROPPED:
            node.end_dropped(peer, _text(frame.payload))
        elif frame.kind == Kind.CUT:
            node.departures.on_cut(peer, _text(frame.payload), fault=frame.number == 1)
        elif frame.kind == Kind.END:
            self._on_end(peer, frame)
            if peer in node.links:
                node.links[peer].settle()
        else:
            raise ProtocolError(f"{frame.kind.name} is no answer")

    def on_settled(self) -> None:
        """`LinkOwner`."""
        if self._is_current:
            self._node.on_settled()

    def on_frame(self, peer: PeerId, frame: RunFrame) -> bytes | None:
        """`FrameTaker`: take a neighbour's frame; what is returned goes back on its stream."""
        if not self._is_current:
            return None
        node = self._node
        if frame.kind in (Kind.ROUND, Kind.MAIL):
            refusal = node.departures.refusal(peer)
            if refusal is not None:
                return refusal
            if node.story.ending is not None:
                pass
            elif frame.kind == Kind.ROUND:
                if frame.tag == CLOSING_TAG:  # its algorithm has returned, and reads no letters
                    node.mail.depart(peer, "finished", "finished")
                node.act(node.rounds.receive(peer, frame.number, frame.tag, frame.payload))
            else:
                node.mail.on_mail(peer, frame)
        elif frame.kind == Kind.CONFIRM:
            node.mail.on_confirm(peer, frame)
        elif frame.kind == Kind.END:
            self._on_end(peer, frame)
            return encode_frame(Kind.ACK)
        elif frame.kind == Kind.NOTICE:
            self._on_statement(open_end(bytes(frame.payload), node.manifest.run_id))
        elif frame.kind == Kind.CUT_NOTICE:
            node.departures.on_cut_statement(open_cut(bytes(frame.payload), node.manifest))
        elif frame.kind == Kind.STOP:
            node.on_stop(bytes(frame.payload))
        elif frame.kind == Kind.CUT:
            node.departures.on_cut(peer, _text(frame.payload), fault=frame.number == 1)
        else:
            raise ProtocolError(f"{frame.kind.name} is no frame of this direction")
        return None

    def count_in(self, peer: PeerId, received_bytes: int) -> None:
        """`FrameTaker`."""
        self._node.count_in(peer, received_bytes)

    def _on_end(self, peer: PeerId, frame: RunFrame) -> None:
        node = self._node
        if frame.payload:
            statement = open_end(bytes(frame.payload), node.manifest.run_id)
            if statement.member != peer:
                raise ProtocolError(f"{peer} sent {statement.member}'s end as its own")
            self._on_statement(statement)
        else:
            node.departures.on_finished(peer, frame.tag)

    def _on_statement(self, statement: EndStatement) -> None:
        node = self._node
        if statement.member not in node.manifest.members:
            raise ProtocolError(f"{statement.member} is no member of this run")
        node.departures.drop(statement.member, statement.reason, statement)


def _text(payload: Arrived) -> str:
    return printable(bytes(payload).decode("utf-8", "replace"))
