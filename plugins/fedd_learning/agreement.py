"""The same statements everywhere: FloodSet among members that exchange in lock-step.

Everybody sends what it knows, then in every exchange what was new in the one before. After f + 1 exchanges
all survivors know the same statements when at most f members died meanwhile: among f + 1 exchanges there is
one in which nobody dies, and after it all know the same (N. Lynch, "Distributed Algorithms", 1996, 6.2).
Nobody may stop earlier, though all went well: it would be at another exchange than those who saw a death
(C. Dwork, Y. Moses, "Knowledge and common knowledge in a Byzantine environment", Inf. Comput. 88, 1990).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fedd.api import InvalidMessage, Message, PeerId
from fedd_learning.messages import RunMessage, read_all


class Agreement:
    """One member's part of one agreement among `members` (sorted) that bears `crashes` deaths.

    `label` is the same for all who take part, and another one for each agreement: what somebody sends who has
    lost its way counts as silence.
    """

    def __init__(
        self,
        me: PeerId,
        members: Sequence[PeerId],
        crashes: int,
        statement: Sequence[RunMessage],
        label: str = "",
    ) -> None:
        self._label = label
        self._members = list(members)
        mine = self._members.index(me)
        self._known: dict[int, Any] = {mine: [message.to_wire() for message in statement]}
        self._news = dict(self._known)
        self._read: dict[int, tuple[RunMessage, ...] | None] = {}
        self.exchanges = crashes + 1

    def message(self, beside: Message = None) -> Message:
        """For everybody, in the next exchange; `beside` may be for one of them alone."""
        said: dict[str, Message] = {
            "at": self._label,
            "said": [[origin, statement] for origin, statement in sorted(self._news.items())],
        }
        return said if beside is None else {**said, "beside": beside}

    def beside(self, answers: Mapping[PeerId, Message]) -> dict[PeerId, Message]:
        """What went along with the statements of those who answered: None where nothing did."""
        return {
            peer: answer.get("beside")
            if isinstance(answer, dict) and answer.get("at") == self._label
            else None
            for peer, answer in answers.items()
        }

    def take(self, answers: Mapping[PeerId, Message]) -> None:
        """What came in that exchange. What is no message of an agreement counts as silence."""
        self._news = {}
        for answer in answers.values():
            for origin, statement in _pairs(answer, self._label, len(self._members)):
                if origin not in self._known:
                    self._known[origin] = self._news[origin] = statement

    def statements(self) -> dict[PeerId, tuple[RunMessage, ...]]:
        """What each member said, as far as it is known and readable; agreed on after all exchanges."""
        for origin in self._known.keys() - self._read.keys():
            self._read[origin] = _readable(self._known[origin])
        return {
            self._members[origin]: statement
            for origin, statement in sorted(self._read.items())
            if statement is not None
        }


def _readable(statement: Any) -> tuple[RunMessage, ...] | None:
    try:
        return read_all(statement)
    except InvalidMessage:
        return None


def _pairs(answer: Any, label: str, members: int) -> list[tuple[int, Any]]:
    if not isinstance(answer, dict) or answer.get("at") != label or not isinstance(answer.get("said"), list):
        return []
    return [
        (pair[0], pair[1])
        for pair in answer["said"]
        if isinstance(pair, list) and len(pair) == 2 and type(pair[0]) is int and 0 <= pair[0] < members
    ]
