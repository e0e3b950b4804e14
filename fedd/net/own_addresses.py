"""Where this node can be reached, kept true while interfaces come and go.

Devices get their address after the daemon has started, or another one when they are carried elsewhere. The
kernel would tell at once over netlink; looking is simpler, needs no permission, and costs 0.3 ms each time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

import trio

from fedd.core.records import MAX_ADDRESSES
from fedd.net.interfaces import Interface, interfaces
from fedd.net.swarm import Swarm

if TYPE_CHECKING:
    from trio_typing import TaskStatus

    from fedd.net.presence import Presence

log = logging.getLogger("fedd.net")

# As long as a silent link takes to be noticed: 0.01 % of a core.
LOOK_EVERY_S: Final = 3.0

_LOOPBACK: Final = ("/ip4/127.", "/ip6/::1/")


def tellable(addresses: Iterable[str]) -> tuple[str, ...]:
    """The addresses worth telling others, at most 8: those of the loopback only when there are no others."""
    found = list(addresses)
    outside = [address for address in found if not address.startswith(_LOOPBACK)]
    return tuple((outside or found)[:MAX_ADDRESSES])


class OwnAddresses:
    """Looks at the interfaces from time to time and tells who has to know."""

    def __init__(
        self, swarm: Swarm, presence: Presence, *, look: Callable[[], list[Interface]] = interfaces
    ) -> None:
        self._swarm = swarm
        self._presence = presence
        self._look = look
        self._callbacks: list[Callable[[list[Interface]], None]] = []
        self._hosts: set[str] = set()
        self._problem = ""

    def subscribe(self, callback: Callable[[list[Interface]], None]) -> None:
        """Call back, synchronously, after every look, with all interfaces that are up."""
        self._callbacks.append(callback)

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Look, until cancelled; started after the first look."""
        self.look()
        task_status.started()
        while True:
            await trio.sleep(LOOK_EVERY_S)
            self.look()

    def look(self) -> None:
        """Look now. When the kernel does not tell, what was known stays as it is."""
        try:
            found = self._look()
            changed = self._swarm.refresh_addresses()
        except OSError as error:
            if self._problem != str(error):
                self._problem = str(error)
                log.warning("cannot see this machine's network interfaces: %s", error)
            return
        if changed:
            log.info("this node's addresses are now %s", " ".join(self._swarm.addresses) or "none")
            self._presence.addresses_changed()
        self._hang_up({host for interface in found for host in (*interface.ipv4, *interface.ipv6)})
        for callback in self._callbacks:
            callback(found)

    def _hang_up(self, hosts: set[str]) -> None:
        """End the connections from addresses that this machine has no longer: no byte comes through them.

        Otherwise they would count as silent for 20 s, and nobody would dial anew.
        """
        gone, self._hosts = self._hosts - hosts, hosts
        for connection in self._swarm.all_connections:
            if connection.wire.local_address.host in gone:
                connection.end(f"error: this node is no longer at {connection.wire.local_address.host}")
