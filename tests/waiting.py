"""Waiting in tests for what tells nobody that it has come."""

from __future__ import annotations

from collections.abc import Callable

import trio


async def until(condition: Callable[[], object], within_s: float = 60.0) -> float:
    """Wait for `condition`, looking every 10 ms of trio's clock, which may be virtual; how long it took.

    Raises TooSlowError after `within_s`.
    """
    start = trio.current_time()
    with trio.fail_after(within_s):
        while not condition():  # noqa: ASYNC110 - what is looked at is many objects' state, without one event
            await trio.sleep(0.01)
    return trio.current_time() - start
