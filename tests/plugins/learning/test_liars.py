"""A member that sends other things than it should: it hurts itself, and nobody stops."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from plugins.learning.test_deaths import toys_of

from fedd.api import Message, RunContext
from fedd.testing import Federation
from fedd_learning import Learning
from fedd_learning.node import Node

LIAR = "node-01"


class Twisted:
    """A context that changes what its member sends."""

    def __init__(self, ctx: RunContext, twist: Callable[[Any], Any]) -> None:
        self._ctx = ctx
        self._twist = twist

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ctx, name)

    async def exchange(self, message: Any, tag: str = "", *, lenient: bool = False) -> dict[str, Message]:
        def twisted(peer: str) -> Message:
            said: Message = self._twist(message(peer) if callable(message) else message)
            return said

        return await self._ctx.exchange(twisted, tag, lenient=lenient)


@dataclass(frozen=True)
class WithALiar(Learning):
    """Learning in which one member is not honest."""

    twist: Any = None

    async def run(self, ctx: RunContext) -> Message:
        """As Learning, with the liar's context twisted."""
        node = Node(self, ctx)
        if ctx.me == LIAR:
            twisted: Any = Twisted(ctx, lambda message: self.twist(str(node.workflow.state), message))
            node._ctx = twisted
        return await node.run()


def in_spread(change: Callable[[dict[str, Any]], Any]) -> Callable[[str, Any], Any]:
    """Change each message that carries arrays: those of spreading, of which the first go along with an
    agreement, and of handing a model on."""

    def changed(message: Any) -> Any:
        if message is None:
            return None
        if isinstance(message, list):
            return [change(dict(each)) for each in message]
        return change(dict(message))

    def twist(state: str, message: Any) -> Any:
        if state in ("sync", "offer") and isinstance(message, dict) and "beside" in message:
            return {**message, "beside": changed(message["beside"])}
        return changed(message) if state in ("spread", "catch up") else message

    return twist


def not_finite(message: dict[str, Any]) -> dict[str, Any]:
    return {**message, "arrays": [np.full_like(piece, np.inf) for piece in message["arrays"]]}


@pytest.mark.parametrize(("size", "chunk"), [(7, 4 * 1024 * 1024), (100, 1024)], ids=["whole", "in-parts"])
@pytest.mark.parametrize(
    ("twist", "reason"),
    [
        (in_spread(not_finite), "not finite"),
        (in_spread(lambda message: {**message, "arrays": []}), "another shape"),
        (in_spread(lambda message: {**message, "part": 10**6}), "another part|something else than its part"),
        (in_spread(lambda message: {"name": "nonsense"}), "no message"),
        (in_spread(lambda message: 7), "no message"),
    ],
    ids=["infinite", "shapeless", "misplaced", "unknown", "number"],
)
def test_what_a_liar_spreads_is_refused_with_it(
    twist: Callable[[str, Any], Any], reason: str, size: int, chunk: int
) -> None:
    learning = WithALiar(rounds=2, twist=twist, chunk_bytes=chunk)
    results = Federation(4, topology="complete").run(learning, toys_of(4, size))
    honest = [result for result in results if result.peer_id != LIAR]
    assert all(result.error is None for result in honest), [result.error for result in honest]
    told: Any = honest[0].value
    assert len({result.value["digest"] for result in honest}) == 1
    assert told["rounds"] == 2
    reasons = [entry["reason"] for entry in told["left_out"] if entry["peer_id"] == LIAR]
    assert all(re.search(reason, each) for each in reasons)
    assert reasons


@pytest.mark.parametrize("at", ["sync", "offer"])
@pytest.mark.parametrize("said", [None, 7, {"at": "sync 1", "said": [[1, ["nonsense"]]]}])
def test_who_says_nothing_readable_is_not_there(at: str, said: Any) -> None:
    def twist(state: str, message: Any) -> Any:
        return said if state == at else message

    results = Federation(4, topology="complete").run(WithALiar(rounds=2, twist=twist), toys_of(4))
    honest = [result for result in results if result.peer_id != LIAR]
    assert all(result.error is None for result in honest), [result.error for result in honest]
    told: Any = honest[0].value
    assert len({result.value["digest"] for result in honest}) == 1
    assert all(LIAR not in names for names in told["contributors_by_round"].values())
    assert all(len(names) == 3 for names in told["contributors_by_round"].values())
