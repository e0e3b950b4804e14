"""Dialling: from a peer's addresses to one connection."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final

import trio

from fedd.api.errors import Conflict, Denied, FeddError, InvalidParameter, NotConnected, TimedOut
from fedd.api.types import PeerId
from fedd.core.identity import PrivateKey
from fedd.net.connection import Connection
from fedd.net.names import Names
from fedd.net.transport import Address, Network, parse_multiaddr
from fedd.net.upgrade import DoorClosed, Secured, upgrade

DIAL_STAGGER_S: Final = 0.25
"""How long one address has to answer before the next is tried beside it (RFC 8305 section 5)."""

BUSY_DOOR_RETRY_S: Final = 0.1
"""First wait before a peer that closed at once is dialled again, doubled each time, with jitter."""


MAX_TRIED: Final = 32
"""Addresses of one peer that are tried at once; a record has 8, a name may stand for 16."""


class _Underway:
    """One peer that is being dialled: what is still to be tried, and what went wrong."""

    def __init__(self) -> None:
        self.over = trio.Event()
        self.errors: list[FeddError] = []
        self._left: deque[Address] = deque()
        self._seen: set[Address] = set()
        self._working = 0
        self._news = trio.Event()
        self.start: Callable[[], None] | None = None
        """Has the rest tried, while whoever does so is busy with an address that was the only one."""

    def add(self, addresses: Iterable[Address]) -> None:
        """Try these too, once."""
        for address in addresses:
            if address not in self._seen and len(self._seen) < MAX_TRIED:
                self._seen.add(address)
                self._left.append(address)
        if self._left and self.start is not None:
            self.start()
            self.start = None
        self._tell()

    @property
    def is_only_one(self) -> bool:
        """Whether nothing is known beside the address that `next` gave last."""
        return self._working == 1 and not self._left

    @property
    def has_more(self) -> bool:
        """Whether `next` has an address at once."""
        return bool(self._left)

    def end(self) -> None:
        """What was begun with an address that `next` gave has ended."""
        self._working -= 1
        self._tell()

    async def next(self) -> Address | None:
        """The next address, to be followed by `end`; None when all has been tried."""
        while not self._left and self._working:
            await self._news.wait()
        if not self._left:
            return None
        self._working += 1
        return self._left.popleft()

    def _tell(self) -> None:
        self._news.set()
        self._news = trio.Event()


class _Attempt:
    """One address that is being tried.

    Once it has answered, the next waits for its end: there is one handshake at a time, and it takes long
    where a processor is busy, which further connections would keep busier.
    """

    def __init__(self) -> None:
        self.answered = False
        self.stalled = trio.Event()
        """It has failed, or pauses before a closed door."""

    async def have_its_time(self) -> None:
        """Return when the next address is to be tried."""
        with trio.move_on_after(DIAL_STAGGER_S):
            await self.stalled.wait()
        if self.answered:
            await self.stalled.wait()


class Dialling:
    """Makes connections, one at a time to each peer.

    `network_of` says by which network an address is dialled, `begin` starts a connection from a
    wire that has shaken hands, `direct` gives the one in use with a peer if nobody relays it.
    """

    def __init__(
        self,
        key: PrivateKey,
        deadline_s: float,
        direct: Callable[[PeerId], Connection | None],
        network_of: Callable[[Address], Network],
        begin: Callable[[Secured], Awaitable[Connection]],
        names: Names | None = None,
    ) -> None:
        self._key = key
        self._deadline_s = deadline_s
        self._direct = direct
        self._network_of = network_of
        self._begin = begin
        self._random = random.Random(key.peer_id)
        self._names = names or Names()
        self._underway: dict[PeerId, _Underway] = {}

    async def dial(self, addresses: Sequence[str], peer_id: PeerId | None = None) -> Connection:
        """Connect as `Swarm.dial` says.

        While the same peer is being dialled, these addresses are tried beside those under way.
        """
        expected, parsed = _check(self._key.peer_id, addresses, peer_id)
        existing = self._direct(expected)
        if existing is not None:
            await trio.lowlevel.checkpoint()
            return existing
        deadline = trio.current_time() + self._deadline_s
        while (underway := self._underway.get(expected)) is not None:
            underway.add(parsed)
            with trio.move_on_at(deadline):
                await underway.over.wait()
            existing = self._direct(expected)
            if existing is not None:
                return existing
            if underway.errors:
                raise _best_of(underway.errors)
            if trio.current_time() >= deadline:
                raise self._too_slow(expected, parsed)
        return await self._dial_once(expected, parsed, deadline)

    def _too_slow(self, expected: PeerId, addresses: list[Address]) -> TimedOut:
        return TimedOut(
            f"{expected} did not answer at {', '.join(map(str, addresses))} in {self._deadline_s:g} s",
            hint="check the address, and that nothing between drops the packets",
        )

    async def _dial_once(self, expected: PeerId, addresses: list[Address], deadline: float) -> Connection:
        """Try the addresses side by side, each a little later than the one before."""
        underway = self._underway[expected] = _Underway()
        underway.add(addresses)
        won: list[Connection] = []
        one_handshake = trio.Lock()

        async def attempt(address: Address, going: _Attempt) -> None:
            try:
                secured = await self._secure(expected, address, one_handshake, going)
                won.append(await self._begin(secured))
                if nursery.child_tasks:
                    nursery.cancel_scope.cancel()
            except FeddError as error:
                underway.errors.append(error)
            finally:
                going.stalled.set()
                underway.end()

        async def resolve(name: Address) -> None:
            try:
                underway.add(await self._names.resolve(name))
            except FeddError as error:
                underway.errors.append(error)
            finally:
                underway.end()

        async def try_all() -> None:
            while (address := await underway.next()) is not None:
                if address.is_name:
                    nursery.start_soon(resolve, address)
                    continue
                if underway.is_only_one:  # as most peers have: it needs no task of its own
                    underway.start = lambda: nursery.start_soon(try_all)
                    await attempt(address, _Attempt())
                    underway.start = None
                    continue
                going = _Attempt()
                nursery.start_soon(attempt, address, going)
                if underway.has_more:
                    await going.have_its_time()

        try:
            async with trio.open_nursery() as nursery:
                nursery.cancel_scope.deadline = deadline
                await try_all()
        finally:
            del self._underway[expected]
            underway.over.set()
        existing = self._direct(expected)
        if existing is not None:
            return existing
        raise self._failure(expected, addresses, underway, won, late=nursery.cancel_scope.cancelled_caught)

    def _failure(
        self,
        expected: PeerId,
        addresses: list[Address],
        underway: _Underway,
        won: list[Connection],
        *,
        late: bool,
    ) -> FeddError:
        if won:  # it has ended again already
            return NotConnected(f"{expected} closed the connection at once: {won[0].close_reason}")
        return self._too_slow(expected, addresses) if late else _best_of(underway.errors)

    async def _secure(
        self, expected: PeerId, address: Address, one_handshake: trio.Lock, going: _Attempt
    ) -> Secured:
        pause_s = BUSY_DOOR_RETRY_S
        while True:
            wire = await self._network_of(address).connect(address)
            going.answered = True
            try:
                try:
                    one_handshake.acquire_nowait()  # two to one peer at once would make two connections
                except trio.WouldBlock:
                    await one_handshake.acquire()
                try:
                    with trio.move_on_after(self._deadline_s / 2):
                        return await upgrade(wire, self._key, initiator=True, expected_peer=expected)
                finally:
                    one_handshake.release()
                raise TimedOut(f"{address} accepts connections but does not answer")
            except DoorClosed:
                wire.close()
                if pause_s > 2.0:  # tried for about 4 s
                    raise
                going.stalled.set()
            except BaseException:
                wire.close()
                raise
            await trio.sleep(pause_s * self._random.uniform(0.5, 1.5))
            pause_s *= 2


def _check(me: PeerId, addresses: Sequence[str], peer_id: PeerId | None) -> tuple[PeerId, list[Address]]:
    """Give whom to dial and where; raise what is wrong with the request.

    Addresses that fedd cannot dial are passed over while there is one that it can: a peer of a later version
    may listen in ways not known here.
    """
    parsed: list[Address] = []
    unusable: list[InvalidParameter] = []
    for text in addresses:
        try:
            parsed.append(parse_multiaddr(text))
        except InvalidParameter as error:
            unusable.append(error)
    if unusable and not parsed:
        raise unusable[0]
    if not parsed:
        raise NotConnected(f"no address of {peer_id or 'the peer'} is known", hint="name one")
    for address in parsed:
        named = address.peer_id
        if named is None and peer_id is None:
            raise InvalidParameter(
                f"{address} does not say whose it is",
                hint="end it in /p2p/ID, as `fedctl status` there prints it",
            )
        if named is not None and peer_id is not None and named != peer_id:
            raise InvalidParameter(f"{address} names another peer than {peer_id}")
        peer_id = peer_id or named
    if peer_id is None:  # cannot be: each address or the argument named one
        raise InvalidParameter("no peer id")
    if peer_id == me:
        raise Conflict(f"{peer_id} is this node itself", hint="dial another member's address")
    return peer_id, parsed


def _best_of(errors: list[FeddError]) -> FeddError:
    """Give the failure that tells most: a refusal, else the last; with what all others said."""
    best = next((error for error in errors if isinstance(error, Denied)), errors[-1])
    if len(errors) == 1:
        return best
    details = dict.fromkeys(error.detail for error in errors)
    return type(best)("; ".join(details), hint=best.hint, field=best.field)
