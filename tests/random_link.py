"""A link between two protocol machines that splits and delays bytes as chance will have it."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, Protocol


class Machine(Protocol):
    """The shape of every byte protocol in fedd.core."""

    def data_to_send(self) -> bytes: ...

    def receive_data(self, data: bytes) -> list[Any]: ...


def converse(
    left: Machine,
    right: Machine,
    random: Random,
    on_event: Callable[[Machine, Any], None] = lambda machine, event: None,
) -> dict[str, list[Any]]:
    """Carry bytes both ways until nobody has any left; return the events of each end.

    Each step delivers a random number of bytes, at least one, of a randomly chosen direction.
    `on_event` may let a machine act at once; what it wants to write is then carried too.
    """
    ends = {"left": left, "right": right}
    towards = {"left": bytearray(), "right": bytearray()}
    events: dict[str, list[Any]] = {"left": [], "right": []}
    while True:
        towards["right"] += left.data_to_send()
        towards["left"] += right.data_to_send()
        waiting = [name for name, queue in towards.items() if queue]
        if not waiting:
            return events
        name = random.choice(waiting)
        queue = towards[name]
        amount = random.choice((1, random.randint(1, len(queue)), len(queue)))
        chunk = bytes(queue[:amount])
        del queue[:amount]
        for event in ends[name].receive_data(chunk):
            events[name].append(event)
            on_event(ends[name], event)
