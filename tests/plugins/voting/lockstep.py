"""`flood` on members in lock-step, without time, processes or threads: thousands of deaths in seconds."""

from __future__ import annotations

import hashlib
from collections.abc import Coroutine, Generator, Iterable
from dataclasses import dataclass, field
from typing import Any

from fedd.api import Message, PeerId
from fedd_voting.ballots import Question
from fedd_voting.box import BallotBox
from fedd_voting.flooding import flood

QUESTION = Question("open the vent", ("yes", "no"), "plurality")


def signature(voter: PeerId, data: bytes) -> bytes:
    """What a voter's key makes of the data: known to all here, and nobody uses another's."""
    return hashlib.sha512(voter.encode() + data).digest()


def verify(voter: PeerId, data: bytes, signed: bytes) -> bool:
    return signed == signature(voter, data)


def signed_ballot(voter: PeerId, option: str) -> list[Message]:
    data = QUESTION.encode([option])
    empty = BallotBox(QUESTION, (), verify)
    return [voter, data, signature(voter, empty.signed_data(data))]


@dataclass(frozen=True)
class Death:
    """`node` dies while it sends exchange `round` (from 0), which reaches only `reaches`.

    `missed`: those whom its message of the exchange before did not reach either, though it had sent it
    and had everybody's: they know of the death an exchange earlier.
    """

    node: int
    round: int
    reaches: frozenset[int] = frozenset()
    missed: frozenset[int] = frozenset()


class _Exchange:
    def __init__(self, message: Message) -> None:
        self.message = message

    def __await__(self) -> Generator[Message, dict[PeerId, Message], dict[PeerId, Message]]:
        return (yield self.message)


class Member:
    """One node and what `flood` sees of a run's context."""

    def __init__(self, index: int, members: tuple[PeerId, ...], near: Iterable[PeerId]) -> None:
        self.me = members[index]
        self.members = members
        self.near = set(near)
        self.box = BallotBox(QUESTION, members, verify)
        self.exchanges: int | None = None
        self._flood: Coroutine[Any, Any, int] = flood(self, self.box, self.ballots(index))

    def ballots(self, index: int) -> list[Message]:
        return [signed_ballot(self.me, "yes" if index % 2 else "no")]

    @property
    def neighbors(self) -> dict[PeerId, float]:
        return dict.fromkeys(sorted(self.near), 0.1)

    def exchange(self, message: Message, tag: str) -> _Exchange:
        assert tag == "fedd.vote"
        return _Exchange(message)

    def resume(self, answers: dict[PeerId, Message] | None) -> Message:
        """The next message, None when it is done."""
        try:
            return self._flood.send(answers)
        except StopIteration as end:
            self.exchanges = end.value
            return None


@dataclass
class Lockstep:
    """Members on a graph (complete but for `cut` edges), and who dies when."""

    count: int
    deaths: Iterable[Death] = ()
    cut: frozenset[frozenset[int]] = frozenset()
    finished: dict[PeerId, tuple[bytes, int]] = field(default_factory=dict)
    make: type[Member] = Member

    def run(self) -> dict[PeerId, tuple[bytes, int]]:
        """Who finished, with its digest and number of exchanges: the later dead included."""
        names = tuple(f"n{index}" for index in range(self.count))
        near = {
            i: [names[j] for j in range(self.count) if j != i and frozenset((i, j)) not in self.cut]
            for i in range(self.count)
        }
        members = {names[i]: self.make(i, names, near[i]) for i in range(self.count)}
        deaths = {names[death.node]: death for death in self.deaths}
        messages = {peer: member.resume(None) for peer, member in members.items()}
        round = 0
        while True:
            for peer in [peer for peer, message in messages.items() if message is None]:
                del messages[peer]
                member = members[peer]
                self.finished[peer] = (member.box.digest(), member.exchanges or 0)
            if not messages:
                return self.finished
            messages = self._exchange(round, members, messages, deaths, names)
            round += 1

    def _exchange(
        self,
        round: int,
        members: dict[PeerId, Member],
        messages: dict[PeerId, Message],
        deaths: dict[PeerId, Death],
        names: tuple[PeerId, ...],
    ) -> dict[PeerId, Message]:
        following: dict[PeerId, Message] = {}
        for peer in messages:
            death = deaths.get(peer)
            if death is not None and death.round <= round:
                continue
            member = members[peer]
            answers: dict[PeerId, Message] = {}
            for other in sorted(member.near):
                if other in messages and reaches(deaths.get(other), round, names.index(peer)):
                    answers[other] = messages[other]
                else:
                    member.near.discard(other)
            following[peer] = member.resume(answers)
        return following


def reaches(death: Death | None, round: int, receiver: int) -> bool:
    """Whether a message of that exchange arrives: messages of one link arrive in order or not at all."""
    if death is None or round < death.round - 1:
        return True
    if round > death.round or receiver in death.missed:
        return False
    return round < death.round or receiver in death.reaches
