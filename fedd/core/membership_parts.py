"""How membership carries out its rules: what an event or a deadline leads to, link by link."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from fedd.api.types import PeerId
from fedd.core.database import MAX_RECORDS
from fedd.core.deadlines import NEVER
from fedd.core.membership_types import Action, Changed, Close, Dial, Notice, Persist, PresenceTiming, Send
from fedd.core.membership_view import MembershipView
from fedd.core.overlay import Dice
from fedd.core.presence_messages import (
    Bye,
    Digest,
    Ping,
    Refuse,
    split_rows,
)
from fedd.core.records import MAX_COUNTER, LossReason, Record, Row

# How many records go with a refusal.
REFUSAL_ROWS = 32
# What a member lost is told for so long: a verdict takes a few seconds, and late ones find it without.
LOSS_TOLD_S = 60.0
# Records of the dead and of those who left; the longest gone go first, and some room is kept for newcomers.
MAX_TOMBSTONES = 4096
SPARE_RECORDS = 64
# Honest members pass on only what they have verified; a liar costs this many signature checks a link.
MAX_BAD_ROWS = 32
# Who wakes finds that the others have withdrawn their edges to it: so long for them to list it again, before
# it takes anybody for unreachable.
WAKE_SETTLE_S = 0.5


class MembershipParts(MembershipView):
    """The steps of which `Membership` composes what it does; each notes actions and what is due."""

    __slots__ = (
        "_actions",
        "_digest_due",
        "_due",
        "_heal_due",
        "_heartbeat_due",
        "_house_due",
        "_judge_due",
        "_judged_at",
        "_long_gap_s",
        "_new",
        "_overlay_due",
        "_ping_number",
        "_settled_at",
        "_unjudged",
        "_warned",
    )

    def __init__(
        self,
        mine: Record,
        *,
        seal: Callable[[Record], Record],
        open_row: Callable[[Row], Record],
        rng: Dice,
        now: float,
        timing: PresenceTiming,
        known: Iterable[Record],
    ) -> None:
        super().__init__(mine, seal=seal, open_row=open_row, rng=rng, timing=timing, known=known)
        self._actions: list[Action] = []
        self._judged_at = float("-inf")
        # Nobody has been reachable in this life.
        self._new = True
        # In a pause of this length others may have taken this node for silent.
        self._long_gap_s = timing.link_silent_s - timing.heartbeat_s
        self._settled_at = float("-inf")
        # Whose verdict is to be given again whatever their records say.
        self._unjudged: set[PeerId] = set()
        # When verdicts are to be given, of what has changed since.
        self._judge_due = NEVER
        self._judge_soon()
        self._overlay_due = now
        self._heartbeat_due = now + timing.heartbeat_s
        self._heal_due = now + timing.heal_s * rng.uniform(0.2, 1.0)
        self._digest_due = now + timing.digest_s * rng.uniform(0.2, 1.0)
        # The earliest of the three.
        self._house_due = min(self._heartbeat_due, self._heal_due, self._digest_due)
        # The earliest of all that is due. What moves it ends in `_finish`, which finds it out.
        self._due = now
        self._ping_number = 0
        self._warned = False

    # -- links

    def _edge_added(self, now: float) -> None:
        self._own.new_edge(len(self.records), now)
        self._verdicts.set_isolated(False, now)
        self._overlay_due = now

    def _heard_again(self, peer: PeerId, now: float) -> None:
        self._edge_added(now)
        self._exchange.linked(peer, now)

    def _unlink(self, peer: PeerId, reason: LossReason | None, now: float, *, told: bool = False) -> bool:
        """The link is gone, by the peer's own word if `told`; False when there was none."""
        if not self._links.remove(peer, reason, now):
            return False
        self._exchange.unlinked(peer)
        if reason is not None:
            self._own.lost_edge(reason, now)
        elif told:
            self._own.told_of_end(now)
        else:
            self._own.gave_up_edge(now)
        self._overlay_due = now
        return True

    def _drop(self, peer: PeerId, now: float) -> None:
        """This end gives the link up."""
        self._unlink(peer, None, now)
        self._overlay.trimmed(peer, now)
        self._actions += [Send(peer, Bye("trim")), Close(peer, "trim")]

    def _refused(self, peer: PeerId, rows: tuple[Row, ...], now: float) -> None:
        """The peer has links enough, and told of others to try."""
        self._accept(rows, peer, now)
        for row in rows:
            if row.id in self.records:
                self._overlay.recommend(row.id, self.records[row.id].addresses, now)
        self._unlink(peer, None, now, told=True)
        self._overlay.failed(peer, now)
        self._actions.append(Close(peer, "refused"))

    def _dial(self, peer: PeerId) -> None:
        addresses = self.addresses_of(peer)
        if addresses and peer not in self._overlay.dialing and not self._ended:
            self._overlay.dialing.add(peer)
            self._actions.append(Dial(peer, addresses))

    def _refusal(self, peer: PeerId) -> Refuse:
        others = self._overlay.others(
            self.records, self._verdicts.opinion_on, set(self._links), REFUSAL_ROWS - 1
        )
        # Its own record first: it says how many links there are.
        rows = [record.row for record in (self.records[self.me], *others) if record.id != peer]
        # As many as one frame holds.
        return Refuse(next(split_rows(rows), ()))

    def _check_links(self, now: float) -> None:
        silent, given_up = self._links.check(now)
        if silent:
            self._own.lost_edge("silent", now)
            self._overlay_due = now
        for peer in given_up:
            self._exchange.unlinked(peer)
            self._actions.append(Close(peer, "silent"))
            self._overlay_due = now

    def _ping(self, now: float) -> None:
        self._ping_number = self._ping_number % MAX_COUNTER + 1
        for peer, link in self._links.items():
            if self.me < peer:
                link.pinged_at = now
                rtt_us = min(MAX_COUNTER, round(link.rtt_s * 1e6)) if link.rtt_s is not None else 0
                self._actions.append(Send(peer, Ping(self._ping_number, rtt_us)))

    def _heal(self) -> None:
        peer = self._overlay.healing(self.records, self._verdicts.opinion_on, self._links)
        if peer is not None:
            self._dial(peer)

    def _maintain(self, now: float) -> None:
        self._overlay_due = NEVER
        heard = len(self._links.up)
        if self._ended or (self._overlay.content_with(heard) and not self._overlay.pins):
            return
        links = {peer: link.up for peer, link in self._links.items()}
        wanted, later = self._overlay.wanted(self.records, self._verdicts.opinion_on, links, now)
        if later is not None:
            self._overlay_due = later
        self._actions += [Dial(peer, addresses) for peer, addresses in wanted.items()]
        needed = [peer for peer, link in self._links.items() if link.needed_there]
        shed, again = self._overlay.shed(self.edges.degree, links, needed, now)
        for peer in shed:
            self._drop(peer, now)
        if again is not None:
            self._maintain_by(again)

    def _maintain_by(self, at: float) -> None:
        if at < self._overlay_due:
            self._overlay_due = at

    # -- records

    def _accept(self, rows: Collection[Row], source: PeerId, now: float) -> bool:
        """Take what is new in `rows`; False when all of it is held already."""
        intake = self._exchange.accept(rows, source, MAX_BAD_ROWS - self._links.bad_rows(source), now)
        if intake is None:
            return False
        for record, held in intake.anew:
            self._learn(record, held, now)
        for record in intake.own:
            self._outbid(record, now)
        if intake.news:
            self._judge_soon()
            self._maintain_by(now + self._timing.judge_s)
        if intake.forged and self._links.blame(source, intake.forged) > MAX_BAD_ROWS:
            # It sends what no honest member passes on: no more of it for a while.
            self._unlink(source, None, now)
            self._overlay.trimmed(source, now)
            self._actions.append(Close(source, "refused"))
        return True

    def _learn(self, record: Record, held: Record | None, now: float) -> None:
        """Note that a member is new, or lives anew, or can be dialled elsewhere."""
        peer = record.id
        if held is None:
            self._remembered.pop(peer, None)
            self._expelled.pop(peer, None)
            if record.addresses:
                self._overlay.met(peer, now)
                self._overlay.learn(record)
            return
        if record.epoch > held.epoch:
            self._actions += [Changed(change) for change in self._verdicts.restarted(peer, now)]
        if record.addresses != held.addresses:
            self._overlay.learn(record)

    def _outbid(self, record: Record, now: float) -> None:
        outcome = self._own.outbid(record, now)
        if outcome:
            self._actions.append(Persist(self._own.epoch))
            self._publish(now)
        elif outcome is False:
            self._actions.append(Notice("cloned_key"))

    def _publish_unless_idle(self, now: float) -> None:
        heard = self._links.up
        if self._own.says(heard, self._links.lost):
            self._own.settle()
        elif not self._own.may_wait(heard, self._is_found, self.edges.adjacent(self.me), now):
            self._publish(now)

    def _is_found(self, peer: PeerId) -> bool:
        """Whether `peer` is reachable without its link with this node, or about to be.

        That is so of newcomers, be it this node or the peer, that have told of another link before. Of those
        whom a newcomer lists and who are reachable the lowest id tells of it: else all would wait for each
        other, when its first links came together.
        """
        reachable = self.edges.reachable
        if peer in reachable or (self._new and self._own.lists_any(self._links.up)):
            return True
        verdict, record = self._verdicts.verdicts.get(peer), self.records.get(peer)
        if record is None or (verdict is not None and verdict.lived):
            return False
        listed = record.neighbours
        mine = self.me in listed
        return any(other in reachable and (other < self.me if mine else other != self.me) for other in listed)

    def _publish(self, now: float) -> None:
        self._links.forget_losses(now - LOSS_TOLD_S)
        self._unjudged.update(self._links.lost)
        record = self._own.publish(self._links.up, self._links.lost, len(self.records), now, left=self._ended)
        self._exchange.publish(record, now)
        self._judge_soon()
        self._maintain_by(now)

    def _is_joined(self, peer: PeerId) -> bool:
        """Whether records of `peer` reach this node by others too."""
        return peer in self.edges.reachable and any(o != self.me for o in self.edges.adjacent(peer))

    def _compare_with_one(self) -> None:
        heard = self._links.up
        if heard:
            self._actions.append(Send(self._rng.choice(heard), Digest(self.digest)))

    # -- verdicts

    def _wake(self, gap_s: float, now: float) -> None:
        """This process did not run for a while (stopped, suspended, starved): nobody else is to blame."""
        self._links.excuse(now)
        self._verdicts.woke(gap_s, now)
        self._ping(now)  # hear soon who is there
        if gap_s >= self._long_gap_s:
            self._settled_at = now + WAKE_SETTLE_S
            # Others may have withdrawn their edges meanwhile: say that this node is here. Not after less, in
            # which they cannot: where a crowd starves everybody, ever more versions would starve them more.
            self._publish(now)

    def _judge_soon(self) -> None:
        at = self._judged_at + self._timing.judge_s
        self._judge_due = at if at > self._settled_at else self._settled_at

    def _judge_now(self, now: float) -> None:
        self._judge_due = NEVER
        self._judged_at = now
        unjudged, gained, lost = self._exchange.database.update()
        self._new = self._new and not gained
        self._own.look_again(now)
        unjudged |= self._unjudged
        self._unjudged.clear()
        records = self.records
        for moved in (gained, lost):
            unjudged.update(moved)
            for peer in moved:
                # It counts as a witness of those it has lost only while it is reachable itself.
                record = records.get(peer)
                if record is not None and record.lost:
                    unjudged.update(record.lost)
        if self._ended:
            return
        changes = self._verdicts.judge(sorted(unjudged), records, self.edges.reachable, now)
        if changes:
            self._actions += [Changed(change) for change in changes]
            self._overlay_due = now
            self._warned = False
            suspects = {change.peer_id for change in changes if change.new == "suspect"}
            if not suspects.isdisjoint(self._links.up):
                self._own.hurry(now)

    def _keep_house(self, now: float) -> None:
        """Refresh what others would let expire, and let go what is old."""
        refresh_s = self._timing.refresh_s * max(1.0, len(self.records) / 100)
        if now >= self._own.published_at + refresh_s:
            self._publish(now)
        if self._exchange.database.expire(now - 3 * refresh_s):
            self._judge_soon()
        gone = self._verdicts.gone
        spare = max(len(gone) - MAX_TOMBSTONES, len(self.records) + SPARE_RECORDS - MAX_RECORDS)
        forgotten: list[PeerId] = []
        for peer, since in gone.items():
            if since >= now - self._timing.tombstone_s and len(forgotten) >= spare:
                break
            forgotten.append(peer)
        self._exchange.forget(forgotten)
        for peer in forgotten:
            self._verdicts.forget(peer)
            self._overlay.forget(peer)
            self._links.forget_loss(peer)
            self._remembered.pop(peer, None)
            self._expelled.pop(peer, None)

    def _finish(self, now: float) -> list[Action]:
        """Publish, flood, judge and maintain whatever is due, and hand the actions over."""
        if now >= self._own.due:
            self._publish_unless_idle(now)
        # What has piled up in a long pause is no news: `handle_timeout` comes first.
        if now >= self._judge_due and now < self._heartbeat_due + self._long_gap_s:
            self._judge_now(now)
        if now >= self._overlay_due:
            self._maintain(now)
        exchange = self._exchange
        if now >= exchange.compare_due:
            self._actions += exchange.compare(self._is_joined, now)
        if now >= exchange.due:
            self._flush(now)
        # One by one, because it is asked with every message: `min` of eight takes three times as long.
        due = self._house_due
        if self._judge_due < due:
            due = self._judge_due
        if self._own.due < due:
            due = self._own.due
        if self._overlay_due < due:
            due = self._overlay_due
        if self._links.due < due:
            due = self._links.due
        if self._verdicts.due < due:
            due = self._verdicts.due
        if exchange.due < due:
            due = exchange.due
        if exchange.compare_due < due:
            due = exchange.compare_due
        self._due = due
        actions, self._actions = self._actions, []
        return actions

    def _flush(self, now: float) -> None:
        # Nothing piles up on the way to whoever is silent: databases are compared when it is heard again.
        self._actions += self._exchange.flood(self._links.up, now)
