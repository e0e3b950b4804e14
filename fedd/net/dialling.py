"""Dialling: from a peer's addresses to one connection."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

import trio

from fedd.api.errors import Conflict, Denied, FeddError, InvalidParameter, NotConnected, TimedOut
from fedd.api.types import PeerId
from fedd.core.identity import PrivateKey
from fedd.net.connection import Connection
from fedd.net.transport import Address, Network, parse_multiaddr
from fedd.net.upgrade import DoorClosed, Secured, upgrade

DIAL_STAGGER_S: Final = 0.25
"""How long one address has for itself before the next is tried beside it (RFC 8305 section 5)."""

BUSY_DOOR_RETRY_S: Final = 0.1
"""First wait before a peer that closed at once is dialled again, doubled each time, with jitter."""


class Dialling:
    """Makes connections, one at a time to each peer.

    `network_of` says by which network an address is dialled, `begin` starts a connection from a
    wire that has shaken hands, `connections` are those in use.
    """

    def __init__(
        self,
        key: PrivateKey,
        deadline_s: float,
        connections: Mapping[PeerId, Connection],
        network_of: Callable[[Address], Network],
        begin: Callable[[Secured], Awaitable[Connection]],
    ) -> None:
        self._key = key
        self._deadline_s = deadline_s
        self._connections = connections
        self._network_of = network_of
        self._begin = begin
        self._random = random.Random(key.peer_id)
        self._underway: dict[PeerId, trio.Event] = {}

    async def dial(self, addresses: Sequence[str], peer_id: PeerId | None = None) -> Connection:
        """Connect as `Swarm.dial` says."""
        expected, parsed = _check(self._key.peer_id, addresses, peer_id)
        await trio.lowlevel.checkpoint()
        try:
            with trio.fail_after(self._deadline_s):
                while True:
                    existing = self._connections.get(expected)
                    if existing is not None:
                        return existing
                    if expected not in self._underway:
                        break
                    await self._underway[expected].wait()
                return await self._dial_once(expected, parsed)
        except trio.TooSlowError:
            raise TimedOut(
                f"{expected} did not answer at {', '.join(map(str, parsed))} in {self._deadline_s:g} s",
                hint="check the address, and that nothing between drops the packets",
            ) from None

    async def _dial_once(self, expected: PeerId, addresses: list[Address]) -> Connection:
        """Try the addresses side by side, each a little later than the one before."""
        over = self._underway[expected] = trio.Event()
        errors: list[FeddError] = []
        won: list[Connection] = []
        one_handshake = trio.Lock()

        async def attempt(address: Address, scope: trio.CancelScope, failed: trio.Event) -> None:
            try:
                secured = await self._secure(expected, address, one_handshake)
                won.append(await self._begin(secured))
                scope.cancel()
            except FeddError as error:
                errors.append(error)
            finally:
                failed.set()

        try:
            async with trio.open_nursery() as nursery:
                for address in addresses:
                    failed = trio.Event()
                    nursery.start_soon(attempt, address, nursery.cancel_scope, failed)
                    with trio.move_on_after(DIAL_STAGGER_S):
                        await failed.wait()
        finally:
            del self._underway[expected]
            over.set()
        existing = self._connections.get(expected)
        if existing is not None:
            return existing
        if won:  # it has ended again already
            raise NotConnected(f"{expected} closed the connection at once: {won[0].close_reason}")
        raise _best_of(errors)

    async def _secure(self, expected: PeerId, address: Address, one_handshake: trio.Lock) -> Secured:
        pause_s = BUSY_DOOR_RETRY_S
        while True:
            wire = await self._network_of(address).connect(address)
            try:
                async with one_handshake:  # two to one peer at once would make two connections
                    with trio.fail_after(self._deadline_s / 2):
                        return await upgrade(wire, self._key, initiator=True, expected_peer=expected)
            except trio.TooSlowError:
                wire.close()
                raise TimedOut(f"{address} accepts connections but does not answer") from None
            except DoorClosed:
                wire.close()
                if pause_s > 2.0:  # tried for about 4 s
                    raise
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
