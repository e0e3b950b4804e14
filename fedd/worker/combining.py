"""Combining neighbours' values by an algorithm's own function, which may find that one does not fit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fedd.api.types import Message, PeerId
from fedd.worker.reading import Cutter, reason_of


class Combiner:
    """`combine` and this node's `own` message, to tell a value that does not fit from a broken function."""

    def __init__(self, cutter: Cutter, combine: Callable[[Any, Any], Message], own: Message) -> None:
        self._cutter = cutter
        self._combine = combine
        self._own = own

    def add(self, value: Any, peer: PeerId, theirs: Any) -> tuple[bool, Any]:
        """(whether it fits, the combined value): who sent one that does not is cut off, `value` stays.

        Raises what the function raises when it cannot even combine this node's message with itself.
        """
        try:
            return True, self._combine(value, theirs)
        except Exception as error:
            self._combine(self._own, self._own)
            self._cutter.cut(peer, reason_of(error))
            return False, value
