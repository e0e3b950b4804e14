"""The decision machine of a run: what it is doing, what the members said, what comes next. Pure.

It knows no exchange, no array and no clock. Whoever drives it hands it the statements of an agreement, which
are the same on every member; so every member decides the same, and all make the same exchanges.
`TRANSITIONS` is the whole machine: a pair of state and event that is not in it cannot happen.
"""

from __future__ import annotations

import enum
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from fedd.api import FeddError, InvalidParameter, PeerId, ProtocolError
from fedd_learning.messages import (
    Metrics,
    ModelInitialized,
    ModelsAggregated,
    ModelsReady,
    ModelTrained,
    RunMessage,
    VoteTrainSet,
    entries,
    find,
    names,
)

MAX_COPIES = 3
"""How often the same members are sent the model in vain, each time by another holder."""

Statements = Mapping[PeerId, Sequence[RunMessage]]


class State(enum.StrEnum):
    """What the members are doing."""

    SYNC = "sync"
    CATCH_UP = "catch up"
    TRAIN = "train"
    OFFER = "offer"
    SPREAD = "spread"
    FINISHED = "finished"


class Event(enum.StrEnum):
    """What a state ends with."""

    BEHIND = "behind"
    TORN = "torn"
    READY = "ready"
    DONE = "done"
    COPIED = "copied"
    TRAINED = "trained"
    OFFERED = "offered"
    NOTHING = "nothing"
    SPREAD = "spread"


class Transition(NamedTuple):
    """One row of the machine: in `state`, `event` leads to `next`. `when` says it to people."""

    state: State
    event: Event
    next: State
    when: str


TRANSITIONS: tuple[Transition, ...] = (
    Transition(State.SYNC, Event.BEHIND, State.CATCH_UP, "somebody lacks the newest model"),
    Transition(
        State.SYNC, Event.TORN, State.SPREAD, "nobody could complete the round: again, without the dead"
    ),
    Transition(State.SYNC, Event.READY, State.TRAIN, "all hold the same model; the train set is known"),
    Transition(
        State.SYNC, Event.OFFERED, State.SPREAD, "the same, and the whole train set has trained on it already"
    ),
    Transition(State.SYNC, Event.DONE, State.FINISHED, "all hold the model of the last round"),
    Transition(State.CATCH_UP, Event.COPIED, State.SYNC, "who was behind has loaded what it got"),
    Transition(
        State.TRAIN, Event.TRAINED, State.OFFER, "this member has trained, or is not in the train set"
    ),
    Transition(State.OFFER, Event.OFFERED, State.SPREAD, "all know the contributors and their weights"),
    Transition(State.OFFER, Event.NOTHING, State.SYNC, "nobody has anything to offer: the model stays"),
    Transition(
        State.SPREAD, Event.SPREAD, State.SYNC, "this member has the round's model, or could not get it"
    ),
)

_NEXT = {(row.state, row.event): row.next for row in TRANSITIONS}


@dataclass(frozen=True)
class Plan:
    """What the run's parameters say: so many rounds, so many trainers in each (0: all), chosen how."""

    rounds: int
    train_set: int = 0
    train_set_by: str = "rendezvous"
    max_samples: int = 1 << 62
    crashes: int = 3


@dataclass(frozen=True)
class RoundRecord:
    """What is known everywhere of a round when all hold its model."""

    round: int
    digest: str
    members: tuple[PeerId, ...]
    contributors: tuple[PeerId, ...]
    earlier: tuple[PeerId, ...]
    """Who trained in earlier rounds, of those that did not in this one."""
    left_out: Mapping[PeerId, str]
    metrics: Mapping[PeerId, Mapping[str, float]]


@dataclass
class Workflow:
    """One member's machine. `members` are those that take part, sorted; `round` counts the finished ones."""

    me: PeerId
    plan: Plan
    seed: int
    quorum: int
    members: tuple[PeerId, ...]
    initiator: PeerId = ""
    state: State = State.SYNC
    round: int = 0
    digest: str = ""
    """Of the model that all hold."""
    holders: tuple[PeerId, ...] = ()
    behind: tuple[PeerId, ...] = ()
    target: ModelInitialized | None = None
    """What the holders say of the model that the others lack."""
    train_set: tuple[PeerId, ...] = ()
    weights: dict[PeerId, int] = field(default_factory=dict)
    """The contributors of the round under way, and their numbers of samples."""
    extras: str = ""
    left_out: dict[PeerId, str] = field(default_factory=dict)
    labels: dict[PeerId, dict[str, int]] = field(default_factory=dict)
    """Of how many samples of each label a member has told."""
    attempt: int = 0
    """How often the present round was spread, or the present copy begun."""
    repeats: int = 0
    """Copies in a row among the same members."""
    copied_among: tuple[tuple[PeerId, ...], ...] = ()
    excluded: set[PeerId] = field(default_factory=set)
    """Who would not take the model, or whose parts most members refused."""
    spread_among: tuple[tuple[PeerId, ...], dict[PeerId, int]] | None = None
    record: RoundRecord | None = None
    opened: bool = False

    @property
    def crashes(self) -> int:
        """How many deaths the next agreement bears: more than the quorum allows end the run anyway."""
        return max(0, min(self.plan.crashes, len(self.members) - self.quorum))

    @property
    def trains(self) -> bool:
        """Whether this member trains in this round."""
        return self.me in self.train_set

    def proceed(self, event: Event) -> None:
        """Take the transition. Raises ProtocolError for one that is not in the table."""
        following = _NEXT.get((self.state, event))
        if following is None:
            raise ProtocolError(f"learning: {event} cannot happen in {self.state}")
        self.state = following

    # ---- sync --------------------------------------------------------------------------------

    def conclude_sync(self, statements: Statements) -> Event:
        """Who holds what. Raises InvalidParameter when this member's model is not the others' kind."""
        held = {
            peer: found
            for peer in statements
            if peer not in self.excluded and (found := self._held(statements[peer])) is not None
        }
        if not self.opened:
            self._same_shapes(statements, held)
        if self.me not in held:
            raise ProtocolError("this member's own statement was lost")
        self.members = tuple(sorted(held))
        furthest = max(number for number, _ in held.values())
        digest = self._choose(furthest, held)
        self.holders = tuple(peer for peer in self.members if held[peer] == (furthest, digest))
        self.behind = tuple(peer for peer in self.members if held[peer] != (furthest, digest))
        if self.behind and self._is_hopeless():
            return self.conclude_sync(statements)  # among those who are left, which are fewer
        if self.behind:
            self.attempt += 1
            self.target = find(statements[self.holders[0]], ModelInitialized) or self.target
            return Event.BEHIND
        if find(statements[self.me], ModelsAggregated) is not None and self._again(statements):
            return Event.TORN
        return self._ready(furthest, digest, statements)

    def _is_hopeless(self) -> bool:
        """Whether those behind were sent the model in vain by each holder, or by some, though nobody died.

        One side has a fault. The smaller one is left alone, those behind if they are as many: nobody must
        hold up the others. Raises ProtocolError when this member is left alone.
        """
        among = (self.members, self.holders, self.behind)
        self.repeats = self.repeats + 1 if among == self.copied_among else 0
        self.copied_among = among
        if self.repeats < min(len(self.holders), MAX_COPIES):
            return False
        left_alone = self.behind if len(self.behind) <= len(self.holders) else self.holders
        if self.me in left_alone:
            raise ProtocolError("this member and the others could not give each other the model")
        self.excluded |= set(left_alone)
        return True

    def _held(self, statement: Sequence[RunMessage]) -> tuple[int, str] | None:
        """(finished rounds, digest) of the model that a member holds."""
        torn = find(statement, ModelsAggregated)
        if torn is not None:
            return (torn.round, self.digest)
        ready = find(statement, ModelInitialized)
        return None if ready is None else (ready.round, ready.digest)

    def _same_shapes(self, statements: Statements, held: dict[PeerId, tuple[int, str]]) -> None:
        """Go on with those whose models have the shapes that most have; the lowest peer id decides a tie."""
        shapes = {
            peer: found.shapes for peer in sorted(held) if (found := find(statements[peer], ModelInitialized))
        }
        count = Counter(shapes.values())
        common = max(
            count, key=lambda text: count[text]
        )  # the first of the largest, in the order of peer ids
        for peer, text in shapes.items():
            if text != common:
                if peer == self.me:
                    raise InvalidParameter(
                        f"the model here is {_short(text)}, {count[common]} members have {_short(common)}",
                        hint="configure the same model on all devices",
                        field="input",
                    )
                del held[peer]

    def _choose(self, furthest: int, held: Mapping[PeerId, tuple[int, str]]) -> str:
        """Whose model of the furthest round is taken, if they differ: what most have, or the initiator's."""
        found = {peer: digest for peer, (number, digest) in sorted(held.items()) if number == furthest}
        if furthest == 0 and self.initiator in found:
            return found[self.initiator]
        count = Counter(found.values())
        return max(count, key=lambda digest: count[digest])

    def _again(self, statements: Statements) -> bool:
        """Whether the round can be spread once more, without the dead and the refused."""
        accused = Counter(
            peer
            for statement in statements.values()
            if (torn := find(statement, ModelsAggregated)) is not None
            for peer, _ in entries(torn.refused)
        )
        refused = {peer for peer in self.members if 2 * accused[peer] > len(statements) - 1}
        if self.me in refused:
            raise ProtocolError("most members refuse what this one sends")
        self.excluded |= refused
        self.members = tuple(peer for peer in self.members if peer not in refused)
        for peer in self.weights:
            if peer not in statements:
                self.left_out[peer] = "it died before its training was with the others"
        for statement in statements.values():
            torn = find(statement, ModelsAggregated)
            for peer, reason in sorted(entries(torn.refused)) if torn is not None else ():
                if peer in self.weights:
                    self.left_out.setdefault(peer, reason)
        self.weights = {p: n for p, n in self.weights.items() if p in self.members and p not in self.left_out}
        self.attempt += 1
        # Among the same it would fail again. So there are no more attempts than members and contributors.
        return bool(self.weights) and (self.members, self.weights) != self.spread_among

    def _ready(self, furthest: int, digest: str, statements: Statements) -> Event:
        torn = find(statements[self.me], ModelsAggregated) is not None
        finished = None if torn else find(statements[self.holders[0]], ModelsReady)
        self.round = furthest + 1 if torn else furthest
        self.digest = digest
        self.record = RoundRecord(
            self.round,
            digest,
            self.members,
            tuple(names(finished.contributors)) if finished is not None else (),
            tuple(names(finished.earlier)) if finished is not None else (),
            dict(entries(finished.left_out)) if finished is not None else dict(self.left_out),
            {
                peer: dict(entries(told.values))
                for peer in self.members
                if (told := find(statements[peer], Metrics)) is not None
            },
        )
        self.opened = True
        self.attempt, self.repeats, self.copied_among = 0, 0, ()
        self.weights, self.left_out = {}, {}
        if self.round >= self.plan.rounds:
            return Event.DONE
        self.train_set = self._choose_train_set(statements)
        offers = self._offers(statements)
        ahead = all(peer in offers for peer in self.train_set)
        if ahead and self.conclude_offers(statements) is Event.OFFERED:
            return Event.OFFERED
        return Event.READY

    def _choose_train_set(self, statements: Statements) -> tuple[PeerId, ...]:
        size = self.plan.train_set or len(self.members)
        if size >= len(self.members):
            return self.members
        if self.plan.train_set_by == "vote":
            return tally(self.members, statements, size)
        return rendezvous(self.members, size, self.seed, self.round)

    # ---- offer -------------------------------------------------------------------------------

    def foresees_training(self, round: int) -> bool:
        """Whether this member will train after that many rounds, unless somebody dies before."""
        size = self.plan.train_set or len(self.members)
        if size >= len(self.members):
            return True
        return self.plan.train_set_by != "vote" and self.me in rendezvous(
            self.members, size, self.seed, round
        )

    def conclude_offers(self, statements: Statements) -> Event:
        """Who contributes, with which weight."""
        self.members = tuple(peer for peer in self.members if peer in statements)
        for peer, offer in self._offers(statements).items():
            if offer.labels:
                self.labels[peer] = {label: int(n) for label, n in entries(offer.labels)}
        self.left_out = {
            peer: "it died in the training" for peer in self.train_set if peer not in self.members
        }
        self.weights, self.extras, unfit = self._judged(statements)
        self.left_out.update(unfit)
        self.attempt = 0
        return Event.OFFERED if self.weights else Event.NOTHING

    def foreseen(self, statements: Statements) -> tuple[dict[PeerId, int], str] | None:
        """Weights and extras, if these are the statements that all agree on; None when some are missing."""
        if any(peer not in statements for peer in self.members):
            return None
        weights, extras, _ = self._judged(statements)
        return (weights, extras) if weights else None

    def foreseen_ahead(self, statements: Statements) -> tuple[dict[PeerId, int], str] | None:
        """The same of statements of sync, with which go the offers of those who trained ahead."""
        if any(peer not in statements for peer in self.members):
            return None
        trial = replace(
            self, labels=dict(self.labels), left_out=dict(self.left_out), excluded=set(self.excluded)
        )
        try:
            event = trial.conclude_sync(statements)
        except FeddError:  # the agreement may still come to something else
            return None
        return (trial.weights, trial.extras) if event is Event.OFFERED else None

    def _offers(self, statements: Statements) -> dict[PeerId, ModelTrained]:
        return {
            peer: offer
            for peer in self.members
            if (offer := find(statements[peer], ModelTrained)) is not None and offer.round == self.round
        }

    def _judged(self, statements: Statements) -> tuple[dict[PeerId, int], str, dict[PeerId, str]]:
        """The weights of those whose offers count, their extras, and why the others' do not."""
        offers = self._offers(statements)
        wanted = [peer for peer in self.train_set if peer in offers]
        unfit = {peer: reason for peer in wanted if (reason := self._unfit(offers[peer]))}
        fit = [peer for peer in wanted if peer not in unfit]
        count = Counter(offers[peer].extras for peer in fit)
        extras = max(count, key=lambda text: count[text]) if count else ""
        for peer in fit:
            if offers[peer].extras != extras:
                unfit[peer] = "its extra arrays have other shapes than the others'"
        return {peer: offers[peer].num_samples for peer in fit if peer not in unfit}, extras, unfit

    def _unfit(self, offer: ModelTrained) -> str:
        if offer.reason:
            return offer.reason
        if offer.num_samples < 1:
            return "it has no samples"
        if offer.num_samples > self.plan.max_samples:
            return f"it claims {offer.num_samples} samples, more than max_samples={self.plan.max_samples}"
        return ""

    # ---- spread ------------------------------------------------------------------------------

    def begin_spread(self) -> None:
        """Note among whom the round is spread: another attempt must be another one."""
        self.spread_among = (self.members, dict(self.weights))


def rendezvous(members: Sequence[PeerId], size: int, seed: int, round: int) -> tuple[PeerId, ...]:
    """`size` of the members, drawn without a message: those with the smallest hash of seed, round, name.

    A death changes the choice by the dead alone. Source: D. Thaler, C. Ravishankar, "Using name-based
    mappings to increase hit rates", IEEE/ACM Trans. Networking 6 (1998).
    """

    def rank(peer: PeerId) -> bytes:
        return hashlib.sha256(f"fedd/train-set/1\n{seed}\n{round}\n{peer}".encode()).digest()

    return tuple(sorted(sorted(members, key=rank)[:size]))


def tally(members: Sequence[PeerId], statements: Statements, size: int) -> tuple[PeerId, ...]:
    """P2PFL's vote: the `size` members with the largest sums of weights, the lower peer id first in a tie."""
    sums = dict.fromkeys(members, 0)
    for statement in statements.values():
        ballot = find(statement, VoteTrainSet)
        for peer, weight in entries(ballot.votes) if ballot is not None else ():
            if peer in sums:
                sums[peer] += weight
    return tuple(sorted(sorted(sums, key=lambda peer: (-sums[peer], peer))[:size]))


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."
