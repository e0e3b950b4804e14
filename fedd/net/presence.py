"""Presence: drives the membership core over the links of a swarm, and tells who is there.

Protocol `/fedd/presence/1.0.0`, one stream a link. Whoever dialled opens it and shows its certificate first.
Each stream has its reader and its writer; nothing here waits for one peer on behalf of another.
"""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Final

import trio

from fedd.api.errors import Conflict, Denied, FeddError, TimedOut
from fedd.api.types import PeerId
from fedd.core.broadcast_messages import BROADCAST_MESSAGES
from fedd.core.identity import PrivateKey
from fedd.core.membership import Membership
from fedd.core.membership_types import Action, Changed, Close, Dial, Notice, Persist, PresenceTiming, Send
from fedd.core.presence_messages import PRESENCE_PROTOCOL, Bye, Digest, Hello, Message, Rows
from fedd.core.records import MAX_ADDRESSES, MAX_NAME_CHARS, LossReason, Record, Row, open_row, sign_record
from fedd.core.verdicts import MemberChange
from fedd.net.alarm import Alarm
from fedd.net.connection import Connection
from fedd.net.credentials import Credentials
from fedd.net.federation import FederationIdentity, PresenceStore
from fedd.net.known_members import KnownMembers, raise_epoch
from fedd.net.link_table import LinkEvents, LinkTable
from fedd.net.link_user import LinkUser
from fedd.net.member_view import MemberView as MemberView
from fedd.net.pins import Pins
from fedd.net.presence_link import PresenceLink
from fedd.net.presence_view import PresenceView
from fedd.net.revoking import Revoking
from fedd.net.suspension import SuspensionWatch, suspended_s
from fedd.net.swarm import Swarm

if TYPE_CHECKING:
    from trio_typing import TaskStatus

logger = logging.getLogger("fedd.net.presence")

# A timer this late means that the process did not run: let the readers drain the sockets before any verdict.
LATE_S: Final = 0.25
DRAIN_S: Final = 0.05
GOODBYE_S: Final = 1.0

_NOTICES: Final = {
    "isolated": "no live link is left: this node is probably cut off; verdicts on others are held back",
    "cloned_key": "another machine uses this node's identity key: give one of them a key of its own",
}


class Presence(PresenceView):
    """Who is in the federation and alive, as far as this node can know.

    Default deny: with no federation entered, nobody is a member and every presence stream is refused.
    """

    def __init__(
        self,
        swarm: Swarm,
        key: PrivateKey,
        store: PresenceStore,
        *,
        timing: PresenceTiming | None = None,
        name: str = "",
        version: str = "",
        announce: Sequence[str] = (),
        clock: Callable[[], float] = trio.current_time,
        rng: random.Random | None = None,
        suspended_s: Callable[[], float] = suspended_s,
    ) -> None:
        self._swarm = swarm
        self._key = key
        self._store = store
        self._timing = timing or PresenceTiming.lan()
        self._name = "".join(c for c in name if c.isprintable())[:MAX_NAME_CHARS]
        self._version = version
        self._announce = tuple(
            address if "/p2p/" in address else f"{address}/p2p/{key.peer_id}" for address in announce
        )[:MAX_ADDRESSES]
        self._clock = clock
        self._rng = rng or random.Random()
        self._suspensions = SuspensionWatch(suspended_s)
        self._core = None
        self._entered_at = 0.0
        self.credentials = Credentials(store, clock)
        self._table = LinkTable(
            swarm,
            LinkEvents(
                hello=self._hello,
                check=self.credentials.check,
                up=self._link_up,
                message=self._received,
                down=self._link_down,
                dial_failed=self._dial_failed,
                told=lambda peer, sealed: self.revoking.told(peer, sealed),
            ),
        )
        self.revoking = Revoking(
            swarm, self.credentials, self._table, lambda: self._core, self._perform, clock
        )
        """Carries revocations, and makes them count."""
        self._pins = Pins()
        self._observers: list[Callable[[MemberChange], None]] = []
        self._notice_observers: list[Callable[[str], None]] = []
        self._waiting: list[Dial] = []
        self._alarm = Alarm(clock)
        self._news = trio.Event()
        self._known = KnownMembers(store, clock)
        self._users: list[LinkUser] = []
        swarm.member_check = self.is_member
        swarm.handle(PRESENCE_PROTOCOL, self._table.accept, access="anyone")
        swarm.subscribe(self._connection_changed)

    def subscribe(self, callback: Callable[[MemberChange], None]) -> None:
        """Call back, synchronously, at every change of a member's state."""
        self._observers.append(callback)

    def subscribe_notices(self, callback: Callable[[str], None]) -> None:
        """Call back with "isolated" (no live link is left) or "cloned_key" (another machine has this key)."""
        self._notice_observers.append(callback)

    # -- the links' other users

    def attach(self, user: LinkUser) -> None:
        """Let `user` know of links, and of what comes on them that is not presence's own."""
        self._users.append(user)

    def send_bulk(self, peer: PeerId, message: Message) -> bool:
        """Queue a message behind presence's own; False when it was thrown away because too much waits."""
        return self._table.send_bulk(peer, message)

    def distrust(self, peer: PeerId, reason: str) -> None:
        """Give the link with `peer` up for a while: it sends what no honest member passes on."""
        logger.warning("gave the link with %s up: %s", peer, reason)
        if self._core is not None:
            self._perform(self._core.drop_link(peer, self._clock()))

    # -- verbs

    def enter(self, federation: FederationIdentity, lists: Iterable[bytes] = ()) -> None:
        """Take this node's place in `federation`, in an epoch above all before.

        `lists` are revocation lists to begin with, beside those kept from earlier.

        Raises:
            Conflict: it is in one already. Revoked: it is a member of that one no longer.
        """
        if self._core is not None:
            raise Conflict("this node is in a federation already", hint="`fedctl leave` first")
        now = self._clock()
        self.credentials.enter(federation, lists)
        try:
            self.credentials.check(self._key.peer_id, federation.chain)
        except Denied:
            self.credentials.leave()
            raise
        self._entered_at = now
        mine = Record(
            id=self._key.peer_id,
            epoch=raise_epoch(self._store),
            seq=0,
            addresses=self.own_addresses,
            name=self._name,
            version=self._version,
            chain=federation.chain,
        )
        self._core = Membership(
            mine,
            seal=lambda record: sign_record(self._key, record),
            open_row=self._open_row,
            rng=self._rng,
            now=now,
            timing=self._timing,
            known=self._known.load(self._open_row),
        )
        self._known.entered()
        for peer, where in self._pins.items():
            self._perform(self._core.pin(peer, where, now))
        for user in self._users:
            user.entered()
        self._alarm.set(now)
        for peer, connection in self._swarm.connections.items():
            if connection.direction == "out" and connection.relayed_by is None:
                self._table.start(self._table.open, peer)

    def renew(self, federation: FederationIdentity) -> None:
        """This node's place in its federation has changed: another certificate, or another allow-list."""
        core = self._core
        if core is None:
            raise Conflict("this node is in no federation")
        self.credentials.renew(federation)
        if core.records[core.me].chain != federation.chain:
            self._perform(core.renew(federation.chain, self._clock()))
        self.revoking.enforce()

    async def leave(self) -> None:
        """Say goodbye for good; afterwards nobody is a member here."""
        core = self._core
        if core is None:
            raise Conflict("this node is in no federation")
        peers = core.links
        self._perform(core.leave(self._clock()))
        self._core = None
        for user in self._users:
            user.left()
        self.credentials.leave()
        self._pins.clear()
        await self._table.drain(GOODBYE_S)
        self._known.clear()
        for peer in peers:
            await self._table.hang_up(peer)

    async def goodbye(self) -> None:
        """Tell the linked that this process ends, so that they need not wait for its death to show."""
        core, self._core = self._core, None
        if core is None:
            return
        for user in self._users:
            user.left()
        self._known.save(core)
        for peer in list(self._table.links):
            self._table.send(peer, Bye("shutdown"))
            self._table.retire(peer)
        await self._table.drain(GOODBYE_S)

    def hint(self, peer: PeerId, addresses: Sequence[str]) -> None:
        """`peer` may be found at `addresses` (multiaddrs)."""
        if self._core is not None and peer != self._core.me:
            self._perform(self._core.hint(peer, tuple(addresses), self._clock()))

    def addresses_changed(self) -> None:
        """Look at this node's addresses again, and tell the others where it is now."""
        if self._core is not None:
            self._perform(self._core.set_addresses(self.own_addresses, self._clock()))

    def pin(self, peer: PeerId, addresses: Sequence[str] = ()) -> None:
        """Hold a link with `peer`: dial it, redial it, never shed it, until as many calls of `unpin`.

        Raises:
            Conflict: `peer` is this node, or too many links are pinned.
        """
        if peer == self._key.peer_id:
            raise Conflict("a node has no link with itself")
        where = self._pins.add(peer, addresses)
        if self._core is not None:
            self._perform(self._core.pin(peer, where, self._clock()))

    def is_pinned(self, peer: PeerId) -> bool:
        """Whether a link with `peer` is held."""
        return peer in self._pins

    def unpin(self, peer: PeerId) -> None:
        """One who pinned the link with `peer` needs it no more; after the last it is like all others."""
        if self._pins.drop(peer) and self._core is not None:
            self._perform(self._core.unpin(peer, self._clock()))

    async def disconnect(self, peer: PeerId) -> None:
        """Unpin and drop the link with `peer`, politely: it is not taken for dead."""
        self._pins.remove(peer)
        if self._core is not None:
            self._perform(self._core.unpin(peer, self._clock()))
            self._perform(self._core.drop_link(peer, self._clock()))
            await self._table.drain(GOODBYE_S)
        await self._table.hang_up(peer)

    async def wait_linked(self, peer: PeerId, deadline_s: float) -> None:
        """Return when this node is linked with `peer`, or with others that `peer` is linked with.

        A peer that has links enough refuses more.

        Raises:
            TimedOut: not within `deadline_s` seconds.
        """
        with trio.move_on_after(deadline_s) as scope:
            while self.state_of(peer) != "alive":
                await self._news.wait()
        if scope.cancelled_caught:
            raise TimedOut(f"there was no link with {peer} within {deadline_s:g} s")

    # -- the loop

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Drive membership until cancelled."""
        async with trio.open_nursery() as nursery:
            self._table.nursery = nursery
            nursery.start_soon(self._known.keep_saving, lambda: self._core)
            waiting, self._waiting = self._waiting, []
            for dial in waiting:
                nursery.start_soon(self._table.dial, dial.peer, dial.addresses)
            try:
                task_status.started()
                await self._drive()
            finally:
                self._table.nursery = None

    async def _drive(self) -> None:
        while True:
            core = self._core
            self._alarm.set(core.next_deadline() if core is not None else math.inf)
            await self._alarm.wait()
            if core is None or core is not self._core:
                continue
            gap_s = self._suspensions.gap_s()
            if self._clock() > self._alarm.due + LATE_S or gap_s > LATE_S:
                await trio.sleep(DRAIN_S)
            if core is self._core:
                self._perform(core.woke(gap_s, self._clock()))
                self._check_streams(core)
                self._perform(core.handle_timeout(self._clock()))

    def _check_streams(self, core: Membership) -> None:
        """Any byte of a connection is life; and a stream moves to the connection that both ends keep."""
        for peer, link in list(self._table.links.items()):
            connection = link.stream.connection
            self._perform(core.heard(peer, connection.last_received, self._clock()))
            kept = self._swarm.direct(peer)
            if link.opened_here and kept is not None and kept is not connection:
                self._table.reopen(peer)

    def _perform(self, actions: list[Action]) -> None:
        """Do what the core asks for; nothing here waits."""
        for action in actions:
            match action:
                case Send(peer, message):
                    self._table.send(peer, message)
                    if isinstance(message, Digest):  # databases are compared, so are lists
                        self.revoking.compare(peer)
                case Close(peer, reason):
                    self._table.retire(peer, abrupt=reason == "silent")
                    for user in self._users:
                        user.link_down(peer)
                case Persist(epoch):
                    self._persist(epoch)
                case Changed(change):
                    self._tell(change)
                case Notice(kind):
                    logger.warning("%s", _NOTICES[kind])
                    for observer in self._notice_observers:
                        observer(kind)
                case Dial(peer, addresses):
                    if self._table.nursery is None:
                        self._waiting.append(action)
                    else:
                        self._table.start(self._table.dial, peer, addresses)
        if actions:
            self._news.set()
            self._news = trio.Event()
        if self._core is not None:
            self._alarm.advance(self._core.next_deadline())

    def _persist(self, epoch: int) -> None:
        try:
            raise_epoch(self._store, at_least=epoch - 1)
        except FeddError as error:  # after the next start others outbid this epoch again: nothing is lost
            logger.error("cannot store this node's epoch: %s", error)

    def _tell(self, change: MemberChange) -> None:
        if self._core is not None:
            self._known.changed(self._core)
        for observer in self._observers:
            try:
                observer(change)
            except Exception:  # an observer's mistake must not cost the federation
                logger.exception("an observer of members failed at %s", change)

    # -- what the links tell

    def _hello(self, peer: PeerId) -> Hello | None:
        if self._core is None or self.federation is None:
            return None
        return Hello(self.federation.id, self.federation.chain, self._core.is_pinned(peer))

    def _open_row(self, row: Row) -> Record:
        return open_row(row, lambda chain, peer: self.credentials.check(peer, chain))

    def _link_up(self, link: PresenceLink) -> None:
        if self._core is not None:
            self.revoking.greet(link.peer_id)  # before anything else
            self._perform(self._core.link_up(link.peer_id, link.needed_there, self._clock()))
            if self._table.links.get(link.peer_id) is link:
                for user in self._users:
                    user.link_up(link.peer_id)

    def _received(self, peer: PeerId, message: Message) -> None:
        core, now = self._core, self._clock()
        if core is not None and isinstance(message, BROADCAST_MESSAGES):
            self._perform(core.heard(peer, now, now))
            for user in self._users:
                user.received(peer, message)
            return
        rest = self.revoking.receive(peer, message)
        if core is None or rest is None:
            return
        self._perform(core.receive(peer, rest, now))
        # Who has moved is as alive as before, but no longer to be found where the file says.
        if isinstance(rest, Rows) and any(self._known.looks_old(core, row.id) for row in rest.rows):
            self._known.changed(core)

    def _link_down(self, peer: PeerId, reason: LossReason | None) -> None:
        for user in self._users:
            user.link_down(peer)
        if self._core is not None:
            self._perform(self._core.link_down(peer, reason, self._clock()))

    def _dial_failed(self, peer: PeerId) -> None:
        if self._core is not None:
            self._perform(self._core.dial_failed(peer, self._clock()))

    def _connection_changed(self, kind: str, connection: Connection, reason: str) -> None:
        # Whoever dialled opens the stream. The end of a connection shows as the end of its stream, after all
        # that had arrived on it. A relayed connection is no link: it says of the relay that it lives.
        direct = connection.relayed_by is None
        if kind == "up" and direct and connection.direction == "out" and self._core is not None:
            self._table.start(self._table.open, connection.peer_id)
