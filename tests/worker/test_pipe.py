"""The worker's end of the socket, and a daemon's end played by the test."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from fedd.api.errors import NotConnected, Stopped
from fedd.core import codec
from fedd.core.identity import PrivateKey
from fedd.core.mail import SLACK_BYTES, TOLD_LETTERS, Item, MailKind
from fedd.core.pipe import Frame, PipeDecoder, encode_frame
from fedd.core.run_signature import signed_bytes
from fedd.core.topology import build
from fedd.worker.context import Context, RunStart
from fedd.worker.pipe import DaemonGone, Pipe

KEY = PrivateKey.from_seed(b"k" * 32)


class Daemon:
    """The other end: frames in, frames out."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
        self.decoder = PipeDecoder(1 << 24)
        self.frames: list[Frame] = []

    async def send(self, header: dict[str, Any], *body: bytes) -> None:
        await self.sock.send_all(b"".join(encode_frame(header, body)))

    async def next(self, kind: str) -> Frame:
        with trio.fail_after(20):
            while not self.frames:
                self.frames = self.decoder.receive_data(await self.sock.receive_some(1 << 16))
        frame = self.frames.pop(0)
        assert frame.header["kind"] == kind, frame.header
        return frame

    async def mail(self, kind: MailKind, message: Any, ref: int = 0, tag: str = "") -> None:
        header = {"kind": "mail", "from": "p1", "what": int(kind), "ref": ref, "tag": tag}
        await self.send(header, codec.encode(message))


@asynccontextmanager
async def pair(limit: int = 1 << 20) -> AsyncIterator[tuple[Daemon, Pipe, Context, trio.Nursery]]:
    ours, theirs = socket.socketpair()
    pipe = Pipe(theirs)
    graph = build("complete", ["p0", "p1", "p2"], 0)
    ctx = Context(RunStart("run", "p0", graph, 1, 7, 1, limit, federation="plant"), pipe, None)
    with theirs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pipe.watch, trio.CancelScope())
            yield Daemon(ours), pipe, ctx, nursery
            nursery.cancel_scope.cancel()


async def test_letters_that_came_with_the_start_are_read_before_later_ones() -> None:
    """Also when the algorithm reads before the watching task has had its first turn."""
    ours, theirs = socket.socketpair()
    pipe, daemon = Pipe(theirs), Daemon(ours)
    with theirs, trio.fail_after(20):
        frames = [encode_frame({"kind": "start"}, [])]
        for number in range(3):
            header = {"kind": "mail", "from": "p1", "what": int(MailKind.LETTER), "ref": 0, "tag": "t"}
            frames.append(encode_frame(header, [codec.encode(number)]))
        await daemon.sock.send_all(b"".join(part for frame in frames[:3] for part in frame))
        start = await pipe.receive()
        assert start is not None
        assert start.header["kind"] == "start"
        graph = build("complete", ["p0", "p1", "p2"], 0)
        ctx = Context(RunStart("run", "p0", graph, 1, 7, 1, 1 << 20, federation="plant"), pipe, None)
        await daemon.sock.send_all(b"".join(frames[3]))
        assert [(await ctx.receive("t")).message for _ in range(3)] == [0, 1, 2]


async def test_a_letter_that_is_waited_for() -> None:
    async with pair() as (daemon, _, ctx, nursery):
        found: list[Any] = []

        async def receive() -> None:
            found.append(await ctx.receive("t"))
            with pytest.raises(NotConnected):
                await ctx.receive("t", newest=True)
            found.append("nobody is left")

        nursery.start_soon(receive)
        await daemon.next("listen")
        assert (await daemon.next("wait")).header["seen"] == 0
        await daemon.mail(MailKind.LETTER, "other", tag="u")
        assert (await daemon.next("wait")).header["seen"] == 1  # it was not that one
        await daemon.mail(MailKind.LETTER, "first", tag="t")
        await daemon.next("wait")
        assert found[0].message == "first"
        await daemon.send({"kind": "left", "peer": "p2", "reason": "dead", "how": "gone"})
        await daemon.next("wait")
        assert ctx.out == {"p2": "dead"}
        await daemon.send({"kind": "left", "peer": "p1", "reason": "finished", "how": "finished"})
        with trio.fail_after(20):
            while len(found) < 2:
                await trio.testing.wait_all_tasks_blocked()


async def test_questions_are_answered_whatever_the_algorithm_does() -> None:
    """In an exchange at once; between two, when the socket is looked at."""
    async with pair() as (daemon, pipe, ctx, nursery):
        ctx.on_ask("add", lambda peer, message: [peer, message + 1])
        await daemon.mail(MailKind.QUESTION, 1, ref=5, tag="add")
        reply = await daemon.next("mail")
        assert (reply.header["what"], reply.header["ref"], reply.header["to"]) == (MailKind.ANSWER, 5, "p1")
        nursery.start_soon(ctx.exchange, "round")
        await daemon.next("exchange")
        await daemon.mail(MailKind.QUESTION, 2, ref=6, tag="add")
        assert codec.decode((await daemon.next("mail")).body[0]) == ["p1", 3]
        await daemon.mail(MailKind.QUESTION, 2, ref=7, tag="nobody")
        reply = await daemon.next("mail")
        assert reply.header["what"] == MailKind.REFUSAL
        assert codec.decode(reply.body[0])[0] == "not_found"
        assert not pipe.end


async def test_what_nobody_handles_is_refused_once_the_algorithm_waits() -> None:
    async with pair() as (daemon, pipe, ctx, nursery):
        await daemon.mail(MailKind.QUESTION, 1, ref=5, tag="late")
        await trio.testing.wait_all_tasks_blocked()
        pipe._read_now()
        nursery.start_soon(ctx.exchange, 0)
        assert (await daemon.next("mail")).header["what"] == MailKind.REFUSAL
        await daemon.next("exchange")


async def test_two_tasks_of_an_algorithm_share_the_socket() -> None:
    async with pair() as (daemon, _, ctx, nursery):
        found: dict[str, Any] = {}

        async def exchange() -> None:
            found["round"] = await ctx.exchange(0)

        async def ask(peer: str) -> None:
            found[peer] = await ctx.ask(peer, peer)

        nursery.start_soon(exchange)
        await daemon.next("exchange")
        nursery.start_soon(ask, "p1")
        await daemon.next("listen")
        refs = {"p1": (await daemon.next("mail")).header["ref"]}
        await daemon.next("wait")
        nursery.start_soon(ask, "p2")
        refs["p2"] = (await daemon.next("mail")).header["ref"]
        await daemon.next("wait")
        for peer in ("p2", "p1"):
            header = {"kind": "mail", "from": peer, "what": 3, "ref": refs[peer], "tag": ""}
            await daemon.send(header, codec.encode(f"of {peer}"))
        await daemon.send({"kind": "round", "round": 0, "from": ["p1"], "gone": []}, codec.encode(1))
        with trio.fail_after(20):
            while len(found) < 3:
                await trio.testing.wait_all_tasks_blocked()
        assert found == {"p1": "of p1", "p2": "of p2", "round": {"p1": 1}}


async def test_reading_is_told_after_many_letters_or_much() -> None:
    async with pair() as (daemon, _, ctx, nursery):
        for number in range(TOLD_LETTERS):
            await daemon.mail(MailKind.LETTER, number)
        await daemon.mail(MailKind.LETTER, bytes(SLACK_BYTES))

        async def read() -> None:
            for _ in range(TOLD_LETTERS + 1):
                await ctx.receive()

        nursery.start_soon(read)
        await daemon.next("listen")
        told = []
        while len(told) < 2:
            with trio.fail_after(20):
                while not daemon.frames:
                    daemon.frames = daemon.decoder.receive_data(await daemon.sock.receive_some(1 << 16))
            told += [frame.header for frame in daemon.frames if frame.header["kind"] == "read"]
            daemon.frames = []
        assert [header["letters"] for header in told] == [TOLD_LETTERS, 1]
        assert told[1]["bytes"] == SLACK_BYTES + 5


async def test_a_full_window_waits_for_room() -> None:
    async with pair() as (daemon, _, ctx, nursery):
        sent: list[int] = []

        async def send() -> None:
            for number in range(20):
                await ctx.send("p1", number)
                sent.append(number)

        nursery.start_soon(send)
        await daemon.next("listen")
        for _ in range(16):
            await daemon.next("mail")
        await daemon.next("wait")
        assert len(sent) == 16
        await daemon.send({"kind": "room", "to": "p1", "count": 8, "bytes": 8})
        for _ in range(4):
            await daemon.next("mail")


async def test_the_daemon_signs() -> None:
    async with pair() as (daemon, _, ctx, nursery):
        signatures: list[bytes] = []

        async def sign() -> None:
            signatures.append(await ctx.sign(b"yes"))

        for _ in range(2):
            nursery.start_soon(sign)
            frame = await daemon.next("sign")
            signature = KEY.sign(signed_bytes("plant", "run", bytes(frame.body[0])))
            await daemon.send({"kind": "signature"}, signature)
        with trio.fail_after(20):
            while len(signatures) < 2:
                await trio.testing.wait_all_tasks_blocked()
        graph = build("complete", ["p0", KEY.peer_id], 0)
        start = RunStart("run", "p0", graph, 1, 7, 1, 1000, federation="plant")
        verifier = Context(start, Pipe(socket.socketpair()[0]), None)
        assert verifier.verify(KEY.peer_id, b"yes", signatures[1])
        assert not verifier.verify(KEY.peer_id, b"no", signatures[1])
        assert not verifier.verify("p0", b"yes", signatures[1])


async def test_frames_larger_than_the_socket_go_out_whole_and_in_order() -> None:
    """Two tasks write, and a handler in between: no frame is torn by another."""
    async with pair(1 << 23) as (daemon, _, ctx, nursery):
        ctx.on_ask("size", lambda peer, message: bytes(1_000_000))
        nursery.start_soon(ctx.send, "p1", bytes(4_000_000))
        await daemon.next("listen")
        await daemon.mail(MailKind.QUESTION, None, ref=1, tag="size")
        nursery.start_soon(ctx.send, "p2", bytes(3_000_000))
        sizes = [len((await daemon.next("mail")).body[0]) for _ in range(3)]
        assert sorted(sizes) == [1_000_005, 3_000_005, 4_000_005]


async def test_questions_are_answered_at_once_while_a_learner_is_at_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("fedd.worker.pipe.LOOK_S", 1000.0)
    ours, theirs = socket.socketpair()
    pipe, daemon = Pipe(theirs), Daemon(ours)
    pipe.at_work = lambda: True
    graph = build("complete", ["p0", "p1"], 0)
    ctx = Context(RunStart("run", "p0", graph, 1, 7, 1, 1000), pipe, None)
    ctx.on_ask("add", lambda peer, message: message + 1)
    with theirs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pipe.watch, trio.CancelScope())
            for number in range(3):
                await daemon.mail(MailKind.QUESTION, number, ref=number, tag="add")
                assert codec.decode((await daemon.next("mail")).body[0]) == number + 1
            nursery.cancel_scope.cancel()


async def test_a_learner_at_work_gives_signs_of_life(autojump_clock: MockClock) -> None:
    """A minute of training is no stall; between trainings nothing is said."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        pipe = Pipe(theirs)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pipe.watch, trio.CancelScope())
            for at_work, signs in ((False, 0), (True, 13), (False, 0)):
                pipe.at_work = lambda at_work=at_work: at_work
                await trio.sleep(61)
                ours.setblocking(False)
                try:
                    data = ours.recv(1 << 16)
                except BlockingIOError:
                    data = b""
                frames = PipeDecoder(1 << 16).receive_data(data)
                assert [frame.header["kind"] for frame in frames] == ["ready"] * signs
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("gone", [True, False])
async def test_the_end_of_the_run_ends_every_wait(gone: bool) -> None:
    async with pair() as (daemon, pipe, ctx, nursery):
        ended: list[type] = []

        async def until_the_end(what: Any, *args: Any) -> None:
            with pytest.raises(Stopped) as raised:
                await what(*args)
            ended.append(raised.type)

        nursery.start_soon(until_the_end, ctx.receive)
        nursery.start_soon(until_the_end, ctx.sign, b"x")
        nursery.start_soon(until_the_end, ctx.ask, "p1", 1)
        await trio.testing.wait_all_tasks_blocked()
        if gone:
            await daemon.sock.aclose()
        else:
            await daemon.send({"kind": "stop", "reason": "stopped"})
        with trio.fail_after(20):
            while len(ended) < 3:
                await trio.testing.wait_all_tasks_blocked()
        assert set(ended) == {DaemonGone if gone else Stopped}
        if gone:
            pipe.answer("p1", Item(MailKind.ANSWER, 1, "", b""))  # nobody is there to miss it
            with pytest.raises(DaemonGone):
                await pipe.send({"kind": "ready"})
