"""Who belongs to the federation and who is alive: link-state membership over a bounded-degree overlay.

A decision machine: every method takes the time (seconds, monotonic), changes the state and returns the
actions to perform, in order. `next_deadline` says when `handle_timeout` is due. Only `handle_timeout` accuses
anybody, so the caller drains its sockets before it calls it.

A member is alive iff it is reachable from here over edges that both ends list in their own signed records
(`fedd.core.records`). Whoever hears nothing on a link withdraws its edge; whoever hears something again lists
it again. Ideas from OSPF (RFC 2328: flooding, database exchange, bidirectionality) and from SWIM (Das, Gupta,
Motivala 2002: suspicion, refutation by the accused's own version counter).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from fedd.api.types import PeerId
from fedd.core.deadlines import NEVER
from fedd.core.heard_links import HeardLink
from fedd.core.membership_parts import MembershipParts
from fedd.core.membership_types import Action, Changed, Close, Dial, Notice, PresenceTiming, Send
from fedd.core.overlay import Dice
from fedd.core.own_record import CROWD_MEMBERS
from fedd.core.presence_messages import (
    Bye,
    Digest,
    Message,
    Pin,
    Ping,
    Pong,
    Refuse,
    Rows,
    Versions,
    Want,
)
from fedd.core.records import MAX_NEIGHBOURS, LossReason, Record, Row


class Membership(MembershipParts):
    """One node's view of its federation; see the module for the rules.

    `seal` signs this node's own record; `open_row` verifies another's and raises FeddError for what is not
    acceptable. `mine` gives id, epoch, addresses, name, version and certificate chain; `known` are verified
    records of earlier days: members to be found again.
    """

    __slots__ = ()

    def __init__(
        self,
        mine: Record,
        *,
        seal: Callable[[Record], Record],
        open_row: Callable[[Row], Record],
        rng: Dice,
        now: float,
        timing: PresenceTiming,
        known: Iterable[Record] = (),
    ) -> None:
        super().__init__(mine, seal=seal, open_row=open_row, rng=rng, now=now, timing=timing, known=known)
        for record in self._remembered.values():
            self._overlay.hint(record.id, record.addresses)
            self._verdicts.remember(record.id, now)
        self._publish(now)

    # -- what happens

    def link_up(self, peer: PeerId, needed_there: bool, now: float) -> list[Action]:
        """A link with the certified `peer` stands; `needed_there`: its end is pinned."""
        cap = MAX_NEIGHBOURS if self.is_pinned(peer) or needed_there else self._overlay.cap
        # Silent links are no edges: after a partition they must not keep those out who look for others.
        full = len(self._links.up) >= cap or len(self._links) >= min(2 * cap, MAX_NEIGHBOURS)
        if peer not in self._links and full:
            self._overlay.dialing.discard(peer)
            self._actions += [Send(peer, self._refusal(peer)), Close(peer, "refused")]
            return self._finish(now)
        self._overlay.linked(peer)
        if self._links.add(peer, needed_there, now):
            self._edge_added(now)
        self._exchange.linked(peer, now)
        self._actions.append(Send(peer, Rows((self.records[self.me].row,))))
        return self._finish(now)

    def link_down(self, peer: PeerId, reason: LossReason | None, now: float) -> list[Action]:
        """The link with `peer` is gone: "closed" by its end, "silent", or None when given up on purpose."""
        if self._unlink(peer, reason, now) and reason == "closed":
            self._dial(peer)
        return self._finish(now)

    def dial_failed(self, peer: PeerId, now: float) -> list[Action]:
        """What `Dial` asked for did not work."""
        self._overlay.failed(peer, now)
        self._overlay_due = now
        return self._finish(now)

    def heard(self, peer: PeerId, at: float, now: float) -> list[Action]:
        """Bytes of any kind came from `peer` at time `at`."""
        if not self._links.hear(peer, at, now):
            return []
        self._heard_again(peer, now)
        return self._finish(now)

    def receive(self, peer: PeerId, message: Message, now: float) -> list[Action]:
        """`peer`, with which a link stands, said `message`."""
        link = self._links.get(peer)
        if link is None:
            return []
        news = False
        if link.up:
            # As `hear` does it: nearly all that comes, comes here.
            if now > link.heard:
                link.heard = now
        else:
            self._links.hear(peer, now, now)
            self._heard_again(peer, now)
            news = True
        # By far the most are heartbeats and copies of records: nothing becomes due by them.

        if isinstance(message, Rows):
            news = self._accept(message.rows, peer, now) or news
        elif isinstance(message, Ping):
            link.rtt_s = message.rtt_us / 1e6 if message.rtt_us else link.rtt_s
            self._actions.append(Send(peer, Pong(message.number)))
        elif isinstance(message, Pong):
            if message.number == self._ping_number:
                link.rtt_s = now - link.pinged_at
        else:
            self._answer(peer, link, message, now)
            news = True
        if news:
            return self._finish(now)
        actions, self._actions = self._actions, []
        return actions

    def _answer(self, peer: PeerId, link: HeardLink, message: Message, now: float) -> None:
        """Do what a message other than a heartbeat or records asks for."""
        match message:
            case Digest() | Versions() | Want():
                answers = self._exchange.answer(peer, message, self._is_joined, now)
                self._actions += [Send(peer, answer) for answer in answers]
            case Pin(pinned):
                link.needed_there = pinned
                self._overlay_due = now
            case Refuse(rows):
                self._refused(peer, rows, now)
            case Bye(reason):
                self._unlink(peer, "closed" if reason == "shutdown" else None, now, told=True)
                self._overlay.trimmed(peer, now)
                self._actions.append(Close(peer, "bye"))

    def pin(self, peer: PeerId, addresses: tuple[str, ...], now: float) -> list[Action]:
        """Hold a link with `peer` from now on, whatever the degree."""
        self._overlay.pin(peer, addresses)
        self._overlay_due = now
        if peer in self._links:
            self._actions.append(Send(peer, Pin(True)))
        return self._finish(now)

    def unpin(self, peer: PeerId, now: float) -> list[Action]:
        """The link with `peer` is a link like any other again."""
        if self._overlay.pins.pop(peer, None) is not None and peer in self._links:
            self._actions.append(Send(peer, Pin(False)))
            self._overlay_due = now
        return self._finish(now)

    def hint(self, peer: PeerId, addresses: tuple[str, ...], now: float) -> list[Action]:
        """`peer` may be found at `addresses`: worth dialling while links are wanted."""
        if self._overlay.hint(peer, addresses) and peer in self._overlay.dialing:
            self._actions.append(Dial(peer, addresses))  # beside the older addresses, which may lead nowhere
        self._overlay_due = now
        return self._finish(now)

    def set_addresses(self, addresses: tuple[str, ...], now: float) -> list[Action]:
        """This node can be dialled at other addresses than before."""
        if self._own.set_addresses(addresses, now):
            self._overlay.dialable = bool(addresses)
        return self._finish(now)

    def drop_link(self, peer: PeerId, now: float) -> list[Action]:
        """Give the link with `peer` up on purpose; it is alive as before."""
        if peer in self._links:
            self._drop(peer, now)
        return self._finish(now)

    def expel(self, peers: Iterable[PeerId], now: float) -> list[Action]:
        """`peers` are members no longer, whatever they say: their records and links go, at once."""
        for peer in peers:
            record = self.record_of(peer)
            if record is not None:
                self._expelled[peer] = record
                self._actions += [Changed(change) for change in self._verdicts.expelled(peer, now)]
            self._remembered.pop(peer, None)
            self._exchange.forget([peer])
            self._overlay.forget(peer)
            self._overlay.hints.pop(peer, None)
            self._overlay.pins.pop(peer, None)
            if self._unlink(peer, None, now):
                self._actions.append(Close(peer, "revoked"))
        self._judge_soon()
        return self._finish(now)

    def renew(self, chain: bytes, now: float) -> list[Action]:
        """This node has another certificate chain: say so in its record, and keep all links."""
        self._own.renew(chain)
        self._publish(now)
        return self._finish(now)

    def leave(self, now: float) -> list[Action]:
        """Say goodbye for good: the last record, and no links any more."""
        self._ended = True
        self._overlay.pins.clear()
        self._publish(now)
        self._flush(now)
        for peer in list(self._links):
            self._actions += [Send(peer, Bye("left")), Close(peer, "left")]
        self._links.clear()
        return self._finish(now)

    # -- time

    def next_deadline(self) -> float:
        """When `handle_timeout` has something to do; at least once a heartbeat."""
        return self._due

    def handle_timeout(self, now: float) -> list[Action]:
        """Do whatever is due."""
        late_s = now - self._heartbeat_due
        if late_s > self._timing.heartbeat_s / 2:
            self._exchange.database.shift(late_s)
            self._wake(late_s, now)
        if now >= self._links.due:
            self._check_links(now)
        if now >= self._house_due:
            self._do_rounds(now)
        isolated = not self._links.any_up
        self._verdicts.set_isolated(isolated, now)
        if isolated:
            self._exchange.doubt()
        if self._judge_due != NEVER and now >= self._settled_at:
            # Before anybody is accused, when it is time, and among few, where it costs little, at any call.
            crowd = len(self.records) > CROWD_MEMBERS
            if not crowd or now >= self._judge_due or now >= self._verdicts.due:
                self._judge_now(now)
        if not self._warned and self._verdicts.holding(now):
            self._warned = True
            self._actions.append(Notice("isolated"))
        if now >= self._verdicts.due:
            self._actions += [Changed(change) for change in self._verdicts.expire(now)]
        return self._finish(now)

    def woke(self, gap_s: float, now: float) -> list[Action]:
        """The machine was suspended for `gap_s` seconds, which the clock of `now` does not show.

        That `handle_timeout` was called late, on that clock, is noticed without being told.
        """
        if gap_s > self._timing.heartbeat_s / 2:
            self._wake(gap_s, now)
        return self._finish(now)

    def _do_rounds(self, now: float) -> None:
        """What comes round again: heartbeats, healing, a comparison with somebody."""
        if now >= self._heartbeat_due:
            self._heartbeat_due = now + self._timing.heartbeat_s * self._rng.uniform(0.9, 1.0)
            self._ping(now)
            self._keep_house(now)
        if now >= self._heal_due:
            self._heal_due = now + self._timing.heal_s * self._rng.uniform(0.75, 1.25)
            self._heal()
        if now >= self._digest_due:
            self._digest_due = now + self._timing.digest_s * self._rng.uniform(0.75, 1.25)
            self._compare_with_one()
        self._house_due = min(self._heartbeat_due, self._heal_due, self._digest_due)
