"""A worker's end of the socket to its daemon: frames out, frames in, and the port of the run's context."""

from __future__ import annotations

import contextlib
import socket
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import trio

from fedd.api.errors import Dropped, FeddError, ProtocolError, QuorumLost, Stopped
from fedd.core.mail import Item, MailKind
from fedd.core.pieces import Arrived, Buffer
from fedd.core.pipe import BUFFERS_AT_ONCE, Frame, PipeDecoder, drop_written, encode_frame
from fedd.worker import arrays
from fedd.worker.metrics import Metric
from fedd.worker.port import MailSink, Outcome, Round
from fedd.worker.reports import Reports
from fedd.worker.signing import is_signed_by

if TYPE_CHECKING:
    from fedd.worker.port import Payload

MAX_FRAME_BYTES = 1 << 30
"""A round of 16 neighbours with 64 MiB each; the daemon has checked every payload before."""
REPORT_INTERVAL_S = 0.1
"""Metrics are shown to people."""
STOP_GRACE_S = 2.0
"""An algorithm that awaits something else than an exchange is cancelled this long after a stop."""
LOOK_S = 0.25
"""How often a stop is looked for while an algorithm is not in an exchange."""
LIFE_SIGN_S = 5.0
"""How often the daemon hears that a learner is at work: a tenth of what it takes for a stall at least."""
MAIL_LOOK_S = 0.005
"""The same after a question or a letter: another one may be on its way."""
_JOIN_BYTES = 64 * 1024
_RECEIVE_BYTES = 256 * 1024
_ROOM_BYTES = 64 * 1024
"""If a frame lacks so much, or more, the rest is read into its place; else with what comes behind it."""


class DaemonGone(Stopped):
    """The other end of the socket is closed."""

    def __init__(self) -> None:
        super().__init__("the daemon is gone")


class Pipe:
    """The socket to the daemon: frames out, frames in, and the port of the run's context."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._decoder = PipeDecoder(MAX_FRAME_BYTES)
        self._frames: list[Frame] = []
        self._unsent: deque[memoryview] = deque()
        self._draining = False
        self._drained = trio.Event()
        self._broken = False
        self._round = 0
        self._reading = False
        self._read = trio.Event()
        self._sink: MailSink | None = None
        self._seen = 0
        """Frames that came outside the rounds."""
        self._signatures: dict[int, bytes] = {}
        self._signatures_asked = self._signatures_got = 0
        self.at_work: Callable[[], bool] = lambda: False
        """Whether a thread works for the algorithm, which is no hanging then."""
        self._scope: trio.CancelScope | None = None
        self._completed: Round | None = None
        self._end: FeddError | None = None
        self._reports = Reports()
        self._reported_at = -REPORT_INTERVAL_S
        self._turn: trio.CancelScope | None = None
        self._next_epoch: dict[str, Any] | None = None
        self.state: Payload | None = None
        """What the algorithm last gave to `checkpoint`, here or before a restart of the daemon."""
        self._saving = False
        self._unsaved = False

    @property
    def end(self) -> FeddError | None:
        """Why the run has ended, None while it goes on."""
        return self._end

    async def send(self, header: dict[str, Any], body: Sequence[Arrived] = ()) -> None:
        """Write one frame, before it the metrics that are due."""
        buffers = encode_frame(header, body)
        now = trio.current_time()
        if self._reports and now - self._reported_at >= REPORT_INTERVAL_S:
            self._reported_at = now
            buffers[:0] = self._reports.take()
        self._put(buffers)
        while self._unsent:
            await self._drain()
        if self._broken:
            raise DaemonGone

    def _put(self, buffers: list[Buffer]) -> None:
        """Write at once if there is room: trio's own streams pass through the scheduler for every call."""
        if sum(map(len, buffers)) <= _JOIN_BYTES:
            buffers = [b"".join(buffers)]
        self._unsent += [memoryview(buffer) for buffer in buffers if len(buffer)]
        if not self._draining:
            self._flush()

    def _flush(self) -> None:
        try:
            while self._unsent:
                drop_written(self._unsent, self._sock.sendmsg(list(islice(self._unsent, BUFFERS_AT_ONCE))))
        except BlockingIOError:
            pass
        except OSError:
            self._unsent.clear()
            self._broken = True
            self._end = self._end or DaemonGone()

    async def _drain(self) -> None:
        """Write when there is room: one task does, those that have more to say wait for it."""
        if self._draining:
            await self._drained.wait()
            return
        self._draining = True
        try:
            await trio.lowlevel.wait_writable(self._sock.fileno())
            self._flush()
        finally:
            self._draining = False
            self._drained.set()
            self._drained = trio.Event()

    async def receive(self) -> Frame | None:
        """The next frame, None when the daemon has closed the socket."""
        while not self._frames:
            await trio.lowlevel.wait_readable(self._sock.fileno())
            try:
                count, self._frames = self._receive()
            except OSError:
                return None
            if not count:
                return None
        return self._frames.pop(0)

    def _receive(self) -> tuple[int, list[Frame]]:
        """How many bytes were there, and the frames that they complete. Raises OSError and ProtocolError."""
        room = self._decoder.room
        if room is not None and len(room) >= _ROOM_BYTES:
            count = self._sock.recv_into(room)
            return count, self._decoder.received(count)
        data = self._sock.recv(_RECEIVE_BYTES)
        return len(data), self._decoder.receive_data(data)

    async def watch(self, scope: trio.CancelScope) -> None:
        """Take the daemon's frames while the algorithm is between exchanges; cancel `scope` at their end.

        In an exchange the algorithm's own task reads: another one would cost each round a switch of tasks.
        """
        self._scope = scope
        self._take_received()
        look_s = LOOK_S
        told_at = trio.current_time()
        while not isinstance(self._end, DaemonGone | ProtocolError):
            if self.at_work():  # nobody else reads meanwhile, and others' questions are not to wait for it
                with trio.move_on_after(look_s):
                    await self._read_more()
            else:
                await trio.sleep(look_s)
            if not self._reading:
                seen = self._seen
                self._read_now()
                look_s = LOOK_S if seen == self._seen else MAIL_LOOK_S
            if self.at_work() and trio.current_time() - told_at >= LIFE_SIGN_S:
                told_at = trio.current_time()
                self._put(encode_frame({"kind": "ready"}))
            while self._unsent:
                await self._drain()
        scope.cancel()

    async def _read_more(self) -> None:
        """Take the daemon's next frames when they come: one task reads, the others wait for it."""
        if self._reading:
            await self._read.wait()
            return
        self._reading = True
        try:
            await trio.lowlevel.wait_readable(self._sock.fileno())
            self._read_now()
        finally:
            self._reading = False
            self._read.set()
            self._read = trio.Event()

    def _take_received(self) -> None:
        """Take the frames that came together with the start's."""
        frames, self._frames = self._frames, []
        for frame in frames:
            self._take(frame)

    def _read_now(self) -> None:
        """Take what is there, if anything is; after what came before it, which may be nobody's yet."""
        self._take_received()
        count = 0
        try:
            count, frames = self._receive()
            for frame in frames:
                self._take(frame)
        except BlockingIOError:
            return
        except OSError:
            pass  # as if it were closed
        except ProtocolError as error:
            self._end = error
        if not count:
            self._end = self._end or DaemonGone()

    def _take(self, frame: Frame) -> None:
        header = frame.header
        if header["kind"] == "round":
            self._completed = self._read_round(frame)
        elif header["kind"] == "stop":
            self._end = self._end or _end(str(header.get("reason") or "stopped"))
            if self._scope is not None:
                self._scope.deadline = trio.current_time() + STOP_GRACE_S
        elif header["kind"] == "epoch":
            self._next_epoch = header
            if self._turn is not None:
                self._turn.cancel()
        elif header["kind"] == "saved":
            self._saving = False
        elif header["kind"] in ("mail", "room", "left", "signature"):
            self._seen += 1
            self._take_aside(frame)

    def _take_aside(self, frame: Frame) -> None:
        header = frame.header
        match header["kind"]:
            case "signature":
                self._signatures[self._signatures_got] = bytes(frame.body[0])
                self._signatures_got += 1
            case _ if self._sink is None:
                pass
            case "mail":
                item = Item(MailKind(header["what"]), header["ref"], header["tag"], frame.body[0])
                self._sink.on_mail(header["from"], item)
            case "room":
                self._sink.on_room(header["to"], header["count"], header["bytes"])
            case _:
                self._sink.on_left(header["peer"], header["reason"], header["how"])

    async def exchange(self, tag: str, payloads: Mapping[Any, Arrived]) -> Round:
        """Hand one payload for each neighbour to the daemon, wait for the completed round."""
        if self._end is not None:  # whatever has arrived since is of no use
            raise self._end
        if self._unsaved:
            await self._save()
        body = list(payloads.values())
        same = len(body) > 1 and all(payload is body[0] for payload in body)
        header = {"kind": "exchange", "round": self._round, "tag": tag, "to": [*payloads], "same": same}
        await self.send(header, body[:1] if same else body)
        while self._completed is None:
            if self._end is not None:
                raise self._end
            await self._read_more()
        completed, self._completed = self._completed, None
        self._round += 1
        return completed

    def cut(self, peer: str, reason: str) -> None:
        """Have the daemon cut this neighbour off, now or when the socket has room."""
        self._put(encode_frame({"kind": "cut", "peer": peer, "reason": reason}))

    def report(self, metrics: Mapping[str, Metric]) -> None:
        """Keep the metrics for the next frame."""
        self._reports.note(self._round, metrics)

    # ---- epochs and checkpoints ----------------------------------------------------------

    def begin_epoch(self, turn: trio.CancelScope) -> None:
        """The algorithm begins, or begins anew; `turn` is cancelled when yet another epoch comes."""
        self._turn, self._next_epoch = turn, None
        self._round, self._completed, self._sink = 0, None, None
        self._signatures.clear()
        self._signatures_asked = self._signatures_got = self._seen = 0

    async def enter_epoch(self, entry: int) -> None:
        """Tell the daemon that what it gets from now on is of the epoch that it began by this number.

        That is not the epoch's own: of two epochs with one number the larger digest counts.
        """
        await self.send({"kind": "epoch", "entry": entry})

    @property
    def epoch_is_over(self) -> bool:
        """Whether another epoch has begun, so that this one's result is of no use."""
        return self._next_epoch is not None

    async def next_epoch(self) -> dict[str, Any] | None:
        """The header of the next epoch once it begins, None when the run ends instead."""
        while self._next_epoch is None and self._end is None:
            await self._read_more()
        return self._next_epoch

    async def checkpoint(self, state: Payload) -> None:
        """Keep the state here for the next epoch, and on disk unless the daemon is still writing another.

        The one that had to wait goes with a later checkpoint or exchange.
        """
        self.state = state
        self._unsaved = True
        await self._save()

    async def _save(self) -> None:
        if not self._saving and self.state is not None:
            self._unsaved, self._saving = False, True
            await self.send({"kind": "checkpoint"}, [self.state])

    # ---- messages outside the rounds ---------------------------------------------------

    def attach(self, sink: MailSink) -> None:
        """Hand letters, questions and answers to this sink."""
        self._sink = sink

    async def listen(self) -> None:
        """Have the daemon tell at once who leaves."""
        await self.send({"kind": "listen"})

    async def post(self, peer: str, item: Item) -> None:
        """Hand an item for a neighbour to the daemon."""
        await self.send(_mail_header(peer, item), [item.payload])

    def answer(self, peer: str, item: Item) -> None:
        """The same, now or when the socket has room."""
        self._put(encode_frame(_mail_header(peer, item), [item.payload]))

    def read(self, peer: str, letters: int, size: int) -> None:
        """The algorithm has taken so many letters of this neighbour."""
        self._put(encode_frame({"kind": "read", "from": peer, "letters": letters, "bytes": size}))

    async def wait(self, ready: Callable[[], bool]) -> None:
        """Until it is so. The daemon is told that the algorithm waits, and what it had seen by then."""
        told = -1
        while not ready():
            if self._end is not None:
                raise self._end
            if told != self._seen:
                told = self._seen
                await self.send({"kind": "wait", "seen": told})
            else:
                await self._read_more()

    async def sign(self, data: bytes) -> bytes:
        """Have the daemon sign it: its key is not here."""
        number = self._signatures_asked
        self._signatures_asked += 1
        await self.send({"kind": "sign"}, [data])
        while number not in self._signatures:
            if self._end is not None:
                raise self._end
            await self._read_more()
        return self._signatures.pop(number)

    def verify(self, peer: str, signed: bytes, signature: bytes) -> bool:
        """Whether it is that member's signature."""
        return is_signed_by(peer, signed, signature)

    # ---- the end -------------------------------------------------------------------------

    async def send_result(self, outcome: Outcome) -> None:
        """The last frame of a run that ended well."""
        value = arrays.encode(outcome.value)
        header = {
            "kind": "result",
            "contributors": list(outcome.contributors),
            "residual": outcome.residual,
            "rounds": outcome.rounds,
            "agreed": outcome.agreed,
        }
        self._reported_at = -REPORT_INTERVAL_S
        await self.send(header, [value])

    async def send_failure(self, error: FeddError) -> None:
        """The last frame of a run that did not; a daemon that is gone misses nothing."""
        header = {
            "kind": "failed",
            "code": error.code,
            "detail": error.detail[:4000],
            "hint": error.hint[:4000],
        }
        if error.field:
            header["field"] = error.field
        self._reported_at = -REPORT_INTERVAL_S
        with contextlib.suppress(DaemonGone):
            await self.send(header)

    def _read_round(self, frame: Frame) -> Round:
        header = frame.header
        if header["round"] != self._round:
            raise ProtocolError(f"the daemon completed round {header['round']}, this is {self._round}")
        return Round(
            messages=dict(zip(header["from"], frame.body, strict=True)),
            gone=dict(header.get("gone") or ()),
            cut=tuple(header.get("cut") or ()),
            finished=tuple(header.get("finished") or ()),
            other_tags=header.get("tags") or {},
        )


def _mail_header(peer: str, item: Item) -> dict[str, Any]:
    return {"kind": "mail", "to": peer, "what": int(item.kind), "ref": item.ref, "tag": item.tag}


def _end(reason: str) -> FeddError:
    """What a stopped algorithm's exchange raises."""
    if reason.startswith("dropped"):
        return Dropped(
            "the other members declared this node dead and went on without it",
            hint="its link was silent for too long; start the run again when the link is stable",
        )
    if reason.startswith("quorum"):
        return QuorumLost(reason)
    return Stopped("the run was stopped" if reason == "stopped" else f"the run was stopped: {reason}")
