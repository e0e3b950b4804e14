"""`fedd.testing.Commands` treats commands as daemons do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import trio

from fedd.api import (
    Audience,
    CommandContext,
    Conflict,
    Denied,
    InvalidMessage,
    InvalidParameter,
    Message,
    NotConnected,
    NotFound,
    PluginFailed,
    TimedOut,
)
from fedd.testing import Commands, StartedRun


@dataclass(frozen=True)
class Scale:
    """Scales an array, which must not be negative."""

    name: ClassVar[str] = "scale"
    max_payload_bytes: ClassVar[int] = 1000
    values: np.ndarray
    factor: float = 2.0

    async def handle(self, ctx: CommandContext) -> Message:
        if (self.values < 0).any():
            raise ValueError("negative")
        ctx.event("scaled", size=self.values.size, states=",".join(m.state for m in ctx.members.values()))
        return self.values * self.factor


@dataclass(frozen=True)
class Forward:
    """Lets another member scale, or all."""

    name: ClassVar[str] = "forward"
    peer: str = ""

    async def handle(self, ctx: CommandContext) -> Message:
        if self.peer:
            return await ctx.send(self.peer, "scale", values=np.ones(2))
        reached = await ctx.broadcast("scale", values=[1.0])
        return [list(reached.delivered), list(reached.missing)]


@dataclass(frozen=True)
class Own:
    """For the node itself."""

    name: ClassVar[str] = "own"
    audience: ClassVar[Audience] = "local"

    async def handle(self, ctx: CommandContext) -> Message:
        return ctx.sender == ctx.me


@dataclass(frozen=True)
class Sleepy:
    """Takes its time."""

    name: ClassVar[str] = "sleepy"
    timeout_s: ClassVar[float] = 5
    seconds: float = 60.0

    async def handle(self, ctx: CommandContext) -> Message:
        await trio.sleep(self.seconds)
        return "awake"


@dataclass(frozen=True)
class Runner:
    """Starts a run, or stops one."""

    name: ClassVar[str] = "runner"
    audience: ClassVar[Audience] = "direct"
    stop: str = ""

    async def handle(self, ctx: CommandContext) -> Message:
        if self.stop:
            await ctx.stop_run(self.stop)
            return [run.state for run in await ctx.runs()]
        (input,) = await ctx.inputs()
        return await ctx.start_run("mean", {"rounds": 2}, input=input, quorum="60%")


ALL = [Scale, Forward, Own, Sleepy, Runner]


def test_arrays_and_members() -> None:
    commands = Commands(ALL, nodes=["p", "q", "r"], states={2: "suspect"})
    answer = commands.send(0, 1, "scale", values=[[1, 2]], factor=3)
    assert isinstance(answer, np.ndarray)
    assert answer.tolist() == [[3.0, 6.0]]
    (event,) = commands.events
    assert (event.node, event.sender, event.command, event.text) == (1, "p", "scale", "scaled")
    assert event.fields == {"size": 2, "states": "alive,alive,suspect"}


def test_time_is_virtual() -> None:
    commands = Commands(ALL)
    assert commands.send(0, 1, "sleepy", seconds=4.9) == "awake"
    with pytest.raises(TimedOut, match="sleepy did not end in time"):
        commands.send(0, 1, "sleepy")


def test_who_may_send_what() -> None:
    commands = Commands(ALL, states={1: "dead"})
    assert commands.send(0, 0, "own") is True
    with pytest.raises(Denied):
        commands.send(1, 0, "own")
    with pytest.raises(Denied):
        commands.broadcast(0, "own")
    with pytest.raises(NotConnected, match="node-01 is dead"):
        commands.send(0, 1, "scale", values=1)
    with pytest.raises(NotFound, match="no member"):
        commands.send(0, 0, "forward", peer="stranger")
    with pytest.raises(NotFound) as caught:
        commands.send(0, 0, "slepy")
    assert "did you mean 'sleepy'" in caught.value.hint
    with pytest.raises(NotFound) as caught:
        commands.send(0, 0, "zzz")
    assert "there are forward, own, runner, scale, sleepy" in caught.value.hint


def test_runs_are_noted() -> None:
    commands = Commands(ALL, nodes=3, inputs={"x": ""})
    run_id = commands.send(0, 2, "runner")
    assert commands.runs == [
        StartedRun(str(run_id), 2, "node-00", "mean", {"rounds": 2}, input="x", quorum="60%")
    ]
    commands.send(0, 2, "runner")
    for wrong in ("fff", "0"):
        with pytest.raises(NotFound, match="there is no run"):
            commands.send(1, 1, "runner", stop=wrong)
    assert commands.send(1, 1, "runner", stop=run_id) == ["stopped", "running"]
    with pytest.raises(Conflict, match="has ended already"):
        commands.send(1, 1, "runner", stop=run_id)
    with pytest.raises(Denied, match="one device at a time"):
        commands.broadcast(0, "runner")


def test_what_is_too_large_or_missing() -> None:
    commands = Commands(ALL)
    with pytest.raises(InvalidMessage, match="more than 1000"):
        commands.send(0, 1, "scale", values=np.zeros(1000))
    with pytest.raises(InvalidMessage, match="its answer would have more than 1000"):
        commands.send(0, 1, "scale", values=np.zeros(900, dtype=np.uint8))
    with pytest.raises(InvalidParameter, match="scale needs values"):
        commands.broadcast(0, "scale")
    with pytest.raises(InvalidMessage, match="more than 65536"):
        commands.broadcast(0, "scale", values=b"x" * 70_000)


def test_handlers_send_and_broadcast() -> None:
    commands = Commands(ALL, nodes=3, states={2: "left"})
    answer = commands.send(0, 0, "forward", peer="node-01")
    assert isinstance(answer, np.ndarray)
    assert commands.send(0, 1, "forward") == [["node-00", "node-01"], ["node-02"]]
    assert [event.sender for event in commands.events] == ["node-00", "node-01", "node-01"]


def test_a_broadcast_that_fails_on_a_node_is_in_its_log() -> None:
    commands = Commands(ALL)
    assert commands.broadcast(0, "scale", values=[-1]).missing == ()
    assert [(event.node, type(event.error)) for event in commands.events] == [
        (0, PluginFailed),
        (1, PluginFailed),
    ]


@dataclass(frozen=True)
class Tell:
    """Tells."""

    name: ClassVar[str] = "tell"
    event_text: ClassVar[str] = "said"
    said: str
    level: int = 1


def test_a_notice_is_an_event() -> None:
    commands = Commands([Tell])
    assert commands.send(0, 1, "tell", said="hi", level=3) is None
    assert commands.broadcast(1, "tell", said="ho").missing == ()
    assert [(event.node, event.sender, event.text, event.fields) for event in commands.events] == [
        (1, "node-00", "hi", {"level": 3}),
        (0, "node-01", "ho", {"level": 1}),
        (1, "node-01", "ho", {"level": 1}),
    ]
    with pytest.raises(InvalidParameter, match="said has no characters but blanks"):
        commands.send(0, 1, "tell", said=" ")


def test_classes_that_are_no_commands() -> None:
    with pytest.raises(InvalidParameter, match="no dataclass"):
        Commands([int])
    with pytest.raises(InvalidParameter, match="two commands are called own"):
        Commands([Own, Own])
