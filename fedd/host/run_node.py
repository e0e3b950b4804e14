"""One run on this node: rounds between the neighbours' streams and the worker's pipe.

Every wait in a run, and what ends it:

- for a neighbour's message: the message, or the neighbour's release: dead (membership), left (its own signed
  word), finished, or the edge cut (no streams for `edge_timeout_s` although alive);
- for a neighbour's confirmation of our end: the confirmation, the same four, or `linger_s`;
- for a neighbour to read letters, or to answer: that, the same four, or the end of the run here;
- for the worker: its answer, its process's end, or silence for `stall_timeout_s` (on this node alone);
- for a stopped worker to go: `grace_s`.

Frames are handled as they arrive; a round spawns no task.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import trio

from fedd.api.errors import FeddError, ProtocolError
from fedd.api.types import PeerId
from fedd.core.epochs import CLOSING_TAG, Mark
from fedd.core.history import Row
from fedd.core.manifest import Manifest, open_stop, printable, state_end
from fedd.core.pieces import Payload
from fedd.core.rounds import Action, Completed, Rounds, Send
from fedd.core.run_signature import signed_bytes
from fedd.host.run_departures import Departures
from fedd.host.run_epochs import RunEpochs
from fedd.host.run_link import RunLink, serve
from fedd.host.run_mail import RunMail
from fedd.host.run_result import Ending, Story, failure, is_cut, read_value
from fedd.host.run_side import Side
from fedd.host.run_surroundings import Surroundings, start_header
from fedd.host.run_watch import RunWatch
from fedd.host.run_wire import Kind, encode_frame, encode_preamble, encode_round
from fedd.host.run_worker import WorkerSeat
from fedd.host.worker_process import WorkerProcess

if TYPE_CHECKING:
    from fedd.net.stream import Stream

log = logging.getLogger("fedd.host")

_MAX_INBOUND = 8
"""Streams of one neighbour at a time: one, and those on connections that it has lost and we have not noticed.
Each may hold one message of the largest size."""


class RunNode:
    """This node's part in one run, from its manifest to the last confirmation."""

    def __init__(
        self,
        manifest: Manifest,
        around: Surroundings,
        joinable: bool = False,
        state: Payload | None = None,
    ) -> None:
        """`state` is a checkpoint of an earlier life of this daemon, `joinable` the algorithm's own word."""
        self.me = around.key.peer_id
        self.around = around
        self._state = state
        self.story = Story(manifest, self.me, started_at=around.clock())
        self.epochs = RunEpochs(self, manifest, around, joinable)
        self.open_stream = around.open_stream
        self.stop_statement: bytes | None = None
        self._sent_before: dict[PeerId, int] = {}
        """Bytes to each neighbour in epochs that are over."""
        self.worker = WorkerSeat(self, around.limits, manifest.proposal.pace_s, around.clock)
        self._begin(manifest)
        self.ended = trio.Event()
        """Set once the story has an ending; the neighbours may not know it yet."""
        self._finished_in: Mark | None = None
        self._worker_gone = False
        self._over = trio.Event()
        self._nursery: trio.Nursery | None = None

    def _begin(self, manifest: Manifest) -> None:
        """Everything that an epoch has of its own."""
        self.manifest = manifest
        near = manifest.graph.neighbors(self.me)
        self._side = Side(self, manifest)
        self.rounds = Rounds(near, manifest.max_payload_bytes)
        self.links = {peer: RunLink(peer, self._side, self.around.clock) for peer in near}
        self.departures = Departures(self, manifest)
        self.mail = RunMail(
            near, manifest.max_payload_bytes, self._push, self.worker.deliver_aside, self._on_mail_emptied
        )

    @property
    def round(self) -> int:
        """Exchanges completed, in all epochs."""
        return self.manifest.round + self.rounds.round

    # ---- life ----------------------------------------------------------------------------

    async def run(self, get_worker: Callable[[], Awaitable[tuple[WorkerProcess, Mapping[str, Any]]]]) -> None:
        """Take part until every neighbour knows how this node ended. Raises no FeddError.

        `get_worker()` gives the worker and what its start message says about algorithm and input; the
        FeddError it may raise is this node's reason to leave.
        """
        self._look_at_members()
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(self.worker.run, get_worker, self._start_header(), self._state)
            self._state = None
            nursery.start_soon(RunWatch(self).run)
            nursery.start_soon(self.epochs.run)
            for link in self.links.values():
                nursery.start_soon(link.run)
            await self._over.wait()
            nursery.cancel_scope.cancel()

    def _start_header(self) -> dict[str, Any]:
        return start_header(self.manifest, self.me, self.epochs.machine.closes)

    def _look_at_members(self) -> None:
        for peer in self.manifest.members:
            state = self.around.state_of(peer)
            # of those who have just come, membership may not have heard yet
            if peer != self.me and state is not None and peer not in self.manifest.newcomers:
                self.departures.on_member(peer, state)

    def enter(self, manifest: Manifest) -> None:
        """Go on in this epoch: with its members, its graph, new rounds; the worker begins anew."""
        before = self.links
        self._sent_before = self._sent()
        self.story.enter(manifest)
        self._begin(manifest)
        for link in before.values():
            link.settle()
        self.around.on_epoch(self, before)
        if self._nursery is not None:
            for link in self.links.values():
                self._nursery.start_soon(link.run)
        self.worker.begin_epoch(self._start_header())
        self._look_at_members()
        self.around.on_change(self.story)

    # ---- the worker ----------------------------------------------------------------------

    def on_exchange(self, number: int, tag: str, payloads: Mapping[PeerId, Payload]) -> None:
        """The algorithm here begins exchange `number`."""
        if number != self.rounds.round:
            raise ProtocolError(f"its worker began exchange {number} when {self.rounds.round} is the next")
        self.act(self.rounds.begin(tag, payloads))

    def on_report(self, metrics: Mapping[str, Any], rows: Sequence[Row]) -> None:
        """The algorithm here reported."""
        self.story.note_metrics(metrics)
        for number, reported in rows:
            self.story.history.add(self.manifest.round + number, reported)
        self.around.on_change(self.story)

    def on_mail(self, header: Mapping[str, Any], body: Sequence[Payload]) -> None:
        """The algorithm here sends, or has read, letters, questions and answers."""
        self.mail.on_worker(header, body)

    def on_cut(self, peer: PeerId, reason: str) -> None:
        """The algorithm here cannot use what this neighbour sent."""
        if peer not in self.links:
            raise ProtocolError(f"its worker cut {peer:.80}, who is no neighbour")
        self.departures.cut(peer, f"bad message: {printable(reason)}", fault=True)

    def on_sign(self, data: Payload) -> None:
        """The algorithm here wants this node's signature."""
        signature = self.around.key.sign(
            signed_bytes(self.manifest.proposal.federation, self.manifest.run_id, bytes(data))
        )
        self.worker.deliver_aside({"kind": "signature"}, [signature])

    def on_result(self, header: Mapping[str, Any], payload: Payload) -> None:
        """The algorithm here returned."""
        residual = header.get("residual")
        contributors = header.get("contributors")
        if not isinstance(contributors, list):
            raise ProtocolError("its worker sent a malformed result")
        value = read_value(payload, self.manifest.max_payload_bytes)
        ending = Ending(
            "finished",
            value=value,
            large_value=bytes(payload) if is_cut(value) else b"",
            contributors=self._known(contributors),
            residual=float(residual) if isinstance(residual, int | float) else None,
            agreed=bool(header.get("agreed", True)),
        )
        if self.epochs.machine.closes:
            self.epochs.keep(ending)
            self._close()
        else:
            self._end(ending)

    def _known(self, contributors: list[Any]) -> tuple[PeerId, ...]:
        """Those who are, or were, members of the run: what a member gave may outlive it."""
        manifest = self.manifest
        return tuple(
            sorted(peer for peer in {*manifest.initial.members, *manifest.admitted} if peer in contributors)
        )

    def _close(self) -> None:
        """The algorithm has returned here: make sure that everybody's has, then end."""
        if self.rounds.in_progress or any(self.mail.holds_back(peer) for peer in self.links):
            return
        if self.epochs.close_one():
            self.act(self.rounds.begin(CLOSING_TAG, dict.fromkeys(self.rounds.neighbors, b"")))
        else:
            self.finish_in(self.manifest.mark)

    def finish_in(self, mark: Mark) -> None:
        """Everybody has a result of this epoch: end with this node's."""
        ending = self.epochs.ending_in(mark)
        if ending is not None:
            self._finished_in = mark
            self.story.ended_in = mark.number
            self._end(ending)

    def on_checkpoint(self, state: Payload) -> None:
        """The algorithm here wants this kept."""
        self.around.keep(self, state)

    def checkpoint_kept(self) -> None:
        """It is on disk, or cannot be."""
        self.worker.saved()

    def on_failed(self, code: str, detail: str, hint: str) -> None:
        """The algorithm here failed, or its process did."""
        if code == "quorum_lost":
            names = (
                (self.around.name_of(peer), why) for peer, (_, why) in sorted(self.story.dropped.items())
            )
            # The algorithm knows peer ids; people know names.
            hint = f"out: {', '.join(f'{name} ({why})' for name, why in names)}"
        self._leave(Ending("failed", code, detail, hint))

    def on_worker_gone(self) -> None:
        """The worker's process is no more."""
        self._worker_gone = True
        self.on_settled()

    # ---- rounds --------------------------------------------------------------------------

    def act(self, actions: list[Action]) -> None:
        """Do what the rounds say."""
        for action in actions:
            if isinstance(action, Send):
                self.links[action.peer].push(encode_round(action.round, action.tag, action.payload))
            elif self.story.ending is None and not self.epochs.machine.frozen:
                self._complete(action)

    def _complete(self, completed: Completed) -> None:
        if self.epochs.closing:
            self._close()
            return
        gone, finished, cut = self.departures.told_with(completed)
        self.story.rounds = self.round
        header: dict[str, Any] = {
            "kind": "round",
            "round": completed.round,
            "from": list(completed.messages),
            "gone": gone,
        }
        if finished:
            header["finished"] = finished
        if cut:
            header["cut"] = cut
        if completed.other_tags:
            header["tags"] = completed.other_tags
        body = list(completed.messages.values())
        self.worker.deliver(header, body)
        self.around.on_change(self.story)

    # ---- the end -------------------------------------------------------------------------

    def leave(self, error: FeddError) -> None:
        """This node takes part no longer and tells everybody why. Does nothing once it has ended."""
        self._leave(failure(error))

    def _leave(self, ending: Ending) -> None:
        if self.story.ending is None:
            detail = ending.detail
            if ending.code == "quorum_lost":  # who hears this first learns of the cause too
                detail = f"{detail}; {ending.hint}"
            reason = detail if detail.startswith("stall: ") else f"left: {detail}"
            end = state_end(self.around.key, self.manifest.run_id, self.round, reason)
            self.departures.ends[self.me] = end
            self._end(ending)

    def stop(self, statement: bytes) -> None:
        """Somebody stopped the run by this signed statement."""
        if self.story.ending is None:
            self.stop_statement = statement
            signer, _ = open_stop(statement)
            self.tell_all(encode_frame(Kind.STOP, 0, statement))
            by = f"{self.around.name_of(signer)} stopped it"
            self._end(Ending("stopped", "stopped", by))

    def progress(self) -> dict[str, Any]:
        """How it stands, for whoever watches."""
        self.story.sent = self._sent()
        return self.story.progress()

    def result(self) -> dict[str, Any]:
        """The story as it stands, with what it has cost so far."""
        if self.story.ending is None:
            self._take_stock()
        return self.story.result()

    def _take_stock(self) -> None:
        self.story.wall_s = self.around.clock() - self.story.started_at
        self.story.sent = self._sent()

    def _sent(self) -> dict[PeerId, int]:
        sent = dict(self._sent_before)
        for peer, link in self.links.items():
            sent[peer] = sent.get(peer, 0) + link.bytes_out
        return sent

    def _end(self, ending: Ending) -> None:
        story = self.story
        story.ending = ending
        story.rounds = self.round
        self._take_stock()
        more = "finished" if self.epochs.machine.closes else ""  # a worker that waits for another epoch
        self.worker.end(more if ending.state == "finished" else ending.code)
        for peer, link in self.links.items():
            if not self.holds_end(peer):
                link.push([self.end_frame()])
        self.ended.set()
        self.around.on_change(self.story)
        self.on_settled()

    def _on_mail_emptied(self, peer: PeerId) -> None:
        """The last letters to this neighbour are on their way: our end goes behind them."""
        if self.story.ending is not None:
            self.links[peer].push([self.end_frame()])
        elif self.epochs.closing:
            self._close()

    def end_frame(self) -> bytes:
        """How this node ended, for a neighbour."""
        mine = self.departures.ends.get(self.me)
        sealed = b"" if mine is None else mine.sealed
        return encode_frame(Kind.END, self.round, sealed, self.finished_digest or "")

    @property
    def finished_digest(self) -> str | None:
        """The digest of the epoch in which this node has finished, in hexadecimal; None when it has not."""
        if self.story.ending is None or self.story.ending.state != "finished":
            return None
        return (self._finished_in or self.manifest.mark).digest.hex()

    def on_settled(self) -> None:
        """A link needs nothing more, or the worker is gone: is the run over here?"""
        settled = all(link.settled for link in self.links.values())
        if settled and self.ended.is_set() and self._worker_gone:
            self._over.set()

    # ---- streams -------------------------------------------------------------------------

    def holds_end(self, peer: PeerId) -> bool:
        """Whether letters that wait for this neighbour keep our end back."""
        ending = self.story.ending
        return ending is not None and ending.state == "finished" and self.mail.holds_back(peer)

    async def take_stream(self, stream: Stream, early: bytes) -> None:
        """Read a neighbour's stream to its end; `early` came with the preamble. Raises ProtocolError."""
        peer, side = stream.peer_id, self._side
        link = self.links.get(peer)
        if link is None:
            raise ProtocolError(f"{peer} is no neighbour in the run {self.manifest.run_id}")
        if link.inbound >= _MAX_INBOUND:
            raise ProtocolError(f"{peer} has {link.inbound} streams open for the run {self.manifest.run_id}")
        link.inbound += 1
        self.count_in(peer, len(encode_preamble(self.manifest.sealed)))
        try:
            await serve(stream, early, side, self.manifest.max_payload_bytes)
        except ProtocolError as error:
            if side is self._side:
                self.departures.cut(peer, f"it broke the protocol: {error.detail}", fault=True)
            raise
        finally:
            link.inbound -= 1

    def count_in(self, peer: PeerId, received_bytes: int) -> None:
        """So many bytes came from this neighbour."""
        received = self.story.received
        received[peer] = received.get(peer, 0) + received_bytes

    def renew(self, peer: PeerId) -> None:
        """There is a new connection to this peer."""
        if peer in self.links:
            self.links[peer].renew()

    def _push(self, peer: PeerId, buffers: Sequence[Payload]) -> None:
        self.links[peer].push(buffers)

    def tell_all(self, frame: bytes) -> None:
        """Send this to all neighbours."""
        for link in self.links.values():
            link.push([frame])

    def on_stop(self, sealed: bytes) -> None:
        """A member's signed word that the run shall end. Raises ProtocolError for anybody else's."""
        signer, run_id = open_stop(sealed)
        if signer not in self.manifest.members or run_id != self.manifest.run_id:
            raise ProtocolError(f"{signer} cannot stop this run")
        self.stop(sealed)

    def exclude(self, peer: PeerId) -> None:
        """This member tells of an epoch that this node is not in."""
        self.end_dropped(peer, "a new epoch began")

    def end_dropped(self, peer: PeerId, why: str) -> None:
        """This member says that the run goes on, or ended, without this node."""
        name = self.around.name_of(peer)
        self._leave(
            Ending(
                "failed",
                "dropped",
                f"dropped: {name} and others went on without this node ({why})",
                "it was unreachable for longer than the federation waits",
            )
        )
        for link in self.links.values():  # nobody there waits for our end
            link.settle()
