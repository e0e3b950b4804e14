"""Alive, suspect, dead, left: one observer's verdict on every member, from records and reachability.

A member is alive while it is reachable over two-sided edges. Unreachable, it is suspect until a deadline and
then dead; being reachable again refutes either. Only its own record says that it left, or
a revocation does.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Literal, TypeAlias

from fedd.api.types import PeerId
from fedd.core.records import Record

State: TypeAlias = Literal["alive", "suspect", "dead", "left"]

# A member that is heard of before the record of the peer it is linked with has arrived is not worth an event.
SETTLE_S = 0.5


@dataclass(frozen=True, slots=True)
class MemberChange:
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


class Verdicts:
    """The verdict on each member but the observer itself."""

    def __init__(
        self, me: PeerId, *, confirm_s: float, confirm_closed_s: float, isolated_hold_s: float
    ) -> None:
        self._me = me
        self._confirm_s = confirm_s
        self._confirm_closed_s = confirm_closed_s
        self._isolated_hold_s = isolated_hold_s
        self._isolated_since: float | None = None
        self._deadlines: dict[PeerId, tuple[float, str]] = {}
        self.verdicts: dict[PeerId, Verdict] = {}

    def state_of(self, peer: PeerId) -> State | None:
        """The announced state, None for whoever is unknown."""
        verdict = self.verdicts.get(peer)
        return verdict.state if verdict is not None and verdict.announced else None

    def remember(self, peer: PeerId, now: float) -> None:
        """A member of earlier days, not yet heard of: given its time to be reachable, like everybody."""
        self.verdicts[peer] = Verdict("suspect", now, "unreachable", announced=False)
        self._deadlines[peer] = (now + self._confirm_s, "silent")

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
        self, records: Mapping[PeerId, Record], reachable: AbstractSet[PeerId], now: float
    ) -> list[MemberChange]:
        """Compare everybody with who is reachable now; accuses nobody of being dead."""
        changes = []
        for peer, record in records.items():
            if peer == self._me:
                continue
            state = self.verdicts[peer].state if peer in self.verdicts else None
            if record.left:
                if state != "left":
                    changes.append(self._change(peer, "left", "left", now))
            elif peer in reachable:
                if state != "alive":
                    changes.append(self._change(peer, "alive", "reachable", now))
            elif state is None:
                self.verdicts[peer] = Verdict("suspect", now, "unreachable", announced=False)
            elif state == "alive":
                changes.append(self._change(peer, "suspect", "unreachable", now))
            if peer in self.verdicts and self.verdicts[peer].state == "suspect":
                self._deadlines[peer] = self._deadline_of(
                    record, records, reachable, self.verdicts[peer].since
                )
        return changes

    def forget(self, peer: PeerId) -> None:
        """The peer's record is gone, so is the verdict."""
        self.verdicts.pop(peer, None)
        self._deadlines.pop(peer, None)

    def set_isolated(self, isolated: bool, now: float) -> None:
        """Say whether this node has no live link at all: then it is probably its own fault."""
        if not isolated:
            self._isolated_since = None
        elif self._isolated_since is None:
            self._isolated_since = now

    def holding(self, now: float) -> bool:
        """Whether a verdict is due that is held back because this node is isolated."""
        return any(
            deadline <= now < self._released_at(reason, deadline)
            for deadline, reason in self._deadlines.values()
        )

    def shift(self, gap_s: float) -> None:
        """This process slept for `gap_s`: nobody is accused for that time."""
        for peer, verdict in self.verdicts.items():
            if verdict.state == "suspect":
                verdict.since += gap_s
                deadline, reason = self._deadlines[peer]
                self._deadlines[peer] = (deadline + gap_s, reason)
        if self._isolated_since is not None:
            self._isolated_since += gap_s

    def next_deadline(self) -> float | None:
        """When `expire` has something to do, if ever."""
        due = [self._released_at(reason, deadline) for deadline, reason in self._deadlines.values()]
        due += [
            self.verdicts[peer].since + SETTLE_S
            for peer in self._deadlines
            if not self.verdicts[peer].announced
        ]
        return min(due, default=None)

    def expire(self, now: float) -> list[MemberChange]:
        """Announce the unreachable newcomers and call dead whose deadline has passed."""
        changes = []
        for peer, (deadline, reason) in list(self._deadlines.items()):
            verdict = self.verdicts[peer]
            if not verdict.announced and now >= verdict.since + SETTLE_S:
                verdict.announced = True
                changes.append(MemberChange(peer, None, "suspect", verdict.reason))
            if now >= self._released_at(reason, deadline):
                changes.append(self._change(peer, "dead", reason, now))
        return changes

    def _released_at(self, reason: str, deadline: float) -> float:
        # That a process closed its end was seen, not missed: nothing to wait for.
        if self._isolated_since is None or reason == "closed":
            return deadline
        return max(deadline, self._isolated_since + self._isolated_hold_s)

    def _deadline_of(
        self, record: Record, records: Mapping[PeerId, Record], reachable: AbstractSet[PeerId], since: float
    ) -> tuple[float, str]:
        witnesses = record.neighbours
        closed = bool(witnesses) and all(
            witness in reachable and witness in records and records[witness].lost.get(record.id) == "closed"
            for witness in witnesses
        )
        return (since + self._confirm_closed_s, "closed") if closed else (since + self._confirm_s, "silent")

    def _change(self, peer: PeerId, new: State, reason: str, now: float) -> MemberChange:
        old = self.verdicts.get(peer)
        lived = new == "alive" or (old is not None and old.lived)
        self.verdicts[peer] = Verdict(new, now, reason, lived=lived)
        if new != "suspect":
            self._deadlines.pop(peer, None)
        return MemberChange(peer, old.state if old is not None and old.announced else None, new, reason)
