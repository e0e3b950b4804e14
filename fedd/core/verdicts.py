"""Alive, suspect, dead, left: one observer's verdict on every member, from records and reachability.

A member is alive while it is reachable over two-sided edges. Unreachable, it is suspect until a deadline and
then dead; being reachable again refutes either. Only its own record says that it left, or
a revocation does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from typing import Literal, NamedTuple, TypeAlias

from fedd.api.types import PeerId
from fedd.core.dataclass import dataclass
from fedd.core.deadlines import NEVER
from fedd.core.records import Record

State: TypeAlias = Literal["alive", "suspect", "dead", "left"]

# A member that is heard of before the record of the peer it is linked with has arrived is not worth an event.
SETTLE_S = 0.5


class MemberChange(NamedTuple):
    """One member went from `old` (None: unknown) to `new`, and why."""

    peer_id: PeerId
    old: State | None
    new: State
    reason: str


@dataclass(slots=True)
class Verdict:
    """What is thought of one member since when (seconds, monotonic).

    `announced` tells whether anybody has been told; `lived` whether it was alive in this observer's life.
    """

    state: State
    since: float
    reason: str
    announced: bool = True
    lived: bool = False


@dataclass(slots=True)
class _Suspicion:
    """When a suspect is to be called dead, and why; `counted` from when (this process may have slept).

    `announced_at` is when others are to be told of it, never when they have been.
    """

    counted: float
    deadline: float
    reason: str
    announced_at: float


class Verdicts:
    """The verdict on each member but the observer itself."""

    __slots__ = (
        "_closed_counts_at",
        "_confirm_closed_s",
        "_confirm_s",
        "_isolated_hold_s",
        "_isolated_since",
        "_me",
        "_suspicions",
        "due",
        "gone",
        "verdicts",
    )

    def __init__(
        self, me: PeerId, *, confirm_s: float, confirm_closed_s: float, isolated_hold_s: float
    ) -> None:
        self._me = me
        self._confirm_s = confirm_s
        self._confirm_closed_s = confirm_closed_s
        self._isolated_hold_s = isolated_hold_s
        self._isolated_since: float | None = None
        # Closed connections prove nothing before then: this process was away for so long that its peers
        # may have given it up.
        self._closed_counts_at = float("-inf")
        self._suspicions: dict[PeerId, _Suspicion] = {}
        self.due = NEVER
        """Before then `expire` finds nothing."""
        self.verdicts: dict[PeerId, Verdict] = {}
        self.gone: dict[PeerId, float] = {}
        """Who is dead or has left, and since when, the longest first."""

    def state_of(self, peer: PeerId) -> State | None:
        """The announced state, None for whoever is unknown."""
        verdict = self.verdicts.get(peer)
        return verdict.state if verdict is not None and verdict.announced else None

    def opinion_on(self, peer: PeerId) -> State | None:
        """The state, whether announced or not; None for whoever is unknown."""
        verdict = self.verdicts.get(peer)
        return verdict.state if verdict is not None else None

    def remember(self, peer: PeerId, now: float) -> None:
        """A member of earlier days, not yet heard of: given its time to be reachable, like everybody."""
        self.verdicts[peer] = Verdict("suspect", now, "unreachable", announced=False)
        suspicion = _Suspicion(now, now + self._confirm_s, "silent", now + SETTLE_S)
        self._suspicions[peer] = suspicion
        self.due = min(self.due, self._asks_at(suspicion))

    def restarted(self, peer: PeerId, now: float) -> list[MemberChange]:
        """The peer's record says that a new life of it has begun: the one that was known is over.

        Whoever holds state of the old process (a run) must hear so, however quick the restart was.
        """
        verdict = self.verdicts.get(peer)
        if verdict is None or not verdict.lived or verdict.state not in ("alive", "suspect"):
            return []
        return [self._change(peer, "dead", "restarted", now)]

    def expelled(self, peer: PeerId, now: float) -> list[MemberChange]:
        """The peer is a member no longer, by others' decision: it has left, and the reason says how."""
        verdict = self.verdicts.get(peer)
        if verdict is not None and verdict.state == "left":
            return []
        return [self._change(peer, "left", "revoked", now)]

    def judge(
        self,
        peers: Iterable[PeerId],
        records: Mapping[PeerId, Record],
        reachable: AbstractSet[PeerId],
        now: float,
    ) -> list[MemberChange]:
        """Look at `peers`, of whom something has changed; accuses nobody of being dead.

        A member's verdict depends on its record, on whether it and those that it listed last are reachable,
        and on what these say they have lost: whoever calls names all for whom any of that has changed.
        """
        changes: list[MemberChange] = []
        verdicts = self.verdicts
        for peer in peers:
            record = records.get(peer)
            if record is None or peer == self._me:
                continue
            verdict = verdicts.get(peer)
            state = verdict.state if verdict is not None else None
            if record.left:
                if state != "left":
                    changes.append(self._change(peer, "left", "left", now))
            elif peer in reachable:
                if state != "alive":
                    changes.append(self._change(peer, "alive", "reachable", now))
            else:
                if state is None:
                    verdicts[peer] = Verdict("suspect", now, "unreachable", announced=False)
                elif state == "alive":
                    changes.append(self._change(peer, "suspect", "unreachable", now))
                if verdicts[peer].state == "suspect":
                    self._suspect(record, records, reachable, now)
        return changes

    def forget(self, peer: PeerId) -> None:
        """The peer's record is gone, so is the verdict."""
        self.verdicts.pop(peer, None)
        self._suspect_no_more(peer)
        self.gone.pop(peer, None)

    def set_isolated(self, isolated: bool, now: float) -> None:
        """Say whether this node has no live link at all: then it is probably its own fault.

        When it hears somebody again, there is time to be told about all others before any is called dead.
        """
        if isolated and self._isolated_since is None:
            self._isolated_since = now
        elif not isolated and self._isolated_since is not None:
            self._isolated_since = None
            for suspicion in self._suspicions.values():
                if suspicion.reason != "closed":
                    suspicion.deadline = max(suspicion.deadline, now + self._confirm_closed_s)
            self.due = self._earliest()

    def holding(self, now: float) -> bool:
        """Whether a verdict is due that is held back because this node is isolated."""
        return self._isolated_since is not None and any(
            suspicion.deadline <= now < self._released_at(suspicion)
            for suspicion in self._suspicions.values()
        )

    def woke(self, gap_s: float, now: float) -> None:
        """This process stood still for `gap_s`: nobody is accused for that time.

        After more than a moment every suspect has the whole of its time again. That a connection was closed
        counts as ever, unless the gap was so long that the peer may have closed it for this node's silence.
        """
        if gap_s >= self._confirm_s:
            self._closed_counts_at = now + self._confirm_s
        for suspicion in self._suspicions.values():
            passed_s = now - suspicion.counted
            moved_s = passed_s if gap_s >= self._confirm_closed_s else min(gap_s, passed_s)
            suspicion.counted += moved_s
            suspicion.deadline += moved_s
            if suspicion.reason == "closed":
                suspicion.deadline = max(suspicion.deadline, self._closed_counts_at)
        if self._isolated_since is not None:
            self._isolated_since = now

    def expire(self, now: float) -> list[MemberChange]:
        """Announce the unreachable newcomers and call dead whose deadline has passed."""
        if now < self.due:
            return []
        changes = []
        due = NEVER
        for peer, suspicion in list(self._suspicions.items()):
            if now >= suspicion.announced_at:
                verdict = self.verdicts[peer]
                verdict.announced, suspicion.announced_at = True, NEVER
                changes.append(MemberChange(peer, None, "suspect", verdict.reason))
            if suspicion.deadline <= now and now >= self._released_at(suspicion):
                changes.append(self._change(peer, "dead", suspicion.reason, now))
            elif (at := self._asks_at(suspicion)) < due:
                due = at
        self.due = due
        return changes

    def _suspect_no_more(self, peer: PeerId) -> None:
        if self._suspicions.pop(peer, None) is not None and not self._suspicions:
            self.due = NEVER

    def _earliest(self) -> float:
        return min(map(self._asks_at, self._suspicions.values()), default=NEVER)

    def _asks_at(self, suspicion: _Suspicion) -> float:
        """When something is to be told of a suspect."""
        at = suspicion.deadline if self._isolated_since is None else self._released_at(suspicion)
        return at if at < suspicion.announced_at else suspicion.announced_at

    def _released_at(self, suspicion: _Suspicion) -> float:
        # That a process closed its end was seen, not missed: nothing to wait for.
        if self._isolated_since is None or suspicion.reason == "closed":
            return suspicion.deadline
        return max(suspicion.deadline, self._isolated_since + self._isolated_hold_s)

    def _suspect(
        self, record: Record, records: Mapping[PeerId, Record], reachable: AbstractSet[PeerId], now: float
    ) -> None:
        """Set the deadline: a short one if all whom the member listed last are here and say it closed.

        Whoever does not list it either, and has not lost it, is no witness: the two had parted before.
        """
        closed = False
        for witness in record.neighbours:
            theirs = records.get(witness)
            lost = theirs.lost.get(record.id) if theirs is not None else None
            if lost == "closed" and witness in reachable:
                closed = True
            elif theirs is None or lost is not None or record.id in theirs.neighbours:
                closed = False
                break
        known = self._suspicions.get(record.id)
        if known is not None and not closed and known.reason == "silent":
            return
        verdict = self.verdicts[record.id]
        counted = known.counted if known is not None else verdict.since
        if closed:
            deadline = max(counted + self._confirm_closed_s, self._closed_counts_at)
        else:
            deadline = counted + self._confirm_s
        announced_at = NEVER if verdict.announced else verdict.since + SETTLE_S
        suspicion = _Suspicion(counted, deadline, "closed" if closed else "silent", announced_at)
        self._suspicions[record.id] = suspicion
        self.due = min(self.due, self._asks_at(suspicion))

    def _change(self, peer: PeerId, new: State, reason: str, now: float) -> MemberChange:
        verdict = self.verdicts.get(peer)
        old: State | None = None
        if verdict is None:
            self.verdicts[peer] = Verdict(new, now, reason, True, new == "alive")
        else:
            if verdict.announced:
                old = verdict.state
            verdict.state, verdict.since, verdict.reason, verdict.announced = new, now, reason, True
            if new == "alive":
                verdict.lived = True
            if new != "suspect":
                self._suspect_no_more(peer)
            self.gone.pop(peer, None)
        if new == "dead" or new == "left":
            self.gone[peer] = now
        return MemberChange(peer, old, new, reason)
