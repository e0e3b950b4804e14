"""What the routes of the control API do: each operation asks the rooms below and shapes the reply."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import trio

from fedd import __version__
from fedd.api.errors import InvalidParameter, NotConnected, NotFound, TimedOut
from fedd.api.types import PeerId
from fedd.control.catalog_service import CatalogService
from fedd.control.federation_service import FederationService
from fedd.control.schema import API_VERSION
from fedd.control.server import Operation, Request
from fedd.core.identity import parse_peer_id
from fedd.host.inputs import Inputs
from fedd.host.plugins import PluginRegistry
from fedd.host.runs import Runs
from fedd.net.admission import Admission
from fedd.net.bounds import Bound, swarm_bounds
from fedd.net.events import EventLog
from fedd.net.identify_push import Identifier
from fedd.net.links import LinkView, view_links
from fedd.net.ping import ping
from fedd.net.presence import MemberView, Presence
from fedd.net.relay import Relay
from fedd.net.swarm import Swarm
from fedd.net.transport import parse_multiaddr

if TYPE_CHECKING:
    from fedd.host.run_proposer import RunRequest

_STATES = ("alive", "suspect", "dead", "left")

# Of one ping; a link that takes longer is as good as broken, and presence will say so.
PING_TIMEOUT_S = 10.0


class Service:
    """The operations of one daemon, by the names in `schema.ROUTES`."""

    def __init__(
        self,
        *,
        name: str,
        swarm: Swarm,
        presence: Presence,
        admission: Admission,
        registry: PluginRegistry,
        inputs: Inputs,
        runs: Runs,
        events: EventLog,
        identifier: Identifier,
        relay: Relay,
    ) -> None:
        self._name = name
        self._swarm = swarm
        self._presence = presence
        self._registry = registry
        self._runs = runs
        self._events = events
        self._identifier = identifier
        self._relay = relay
        self._bounds: list[Callable[[], list[Bound]]] = [
            lambda: swarm_bounds(swarm),
            relay.bounds,
            presence.bounds,
            admission.bounds,
            runs.bounds,
            inputs.bounds,
            events.bounds,
        ]
        self._federation = FederationService(
            swarm=swarm,
            presence=presence,
            admission=admission,
            runs=runs,
            events=events,
            find_peer=self.find_peer,
        )
        self._catalog = CatalogService(registry, inputs, events)
        self._started_at = trio.current_time()

    def operations(self) -> dict[str, Operation]:
        """Every operation of the table."""
        return {
            "version": self.version,
            "status": self.status,
            "members": self.members,
            "runs": self.runs,
            "show": self.show,
            "watch": self.watch,
            "history": self.history,
            "value": self.value,
            "events": self.events,
            "links": self.links,
            "limits": self.limits,
            "connect": self.connect,
            "disconnect": self.disconnect,
            "ping": self.ping,
            "run": self.run,
            "predict": self.predict,
            "stop": self.stop,
            "enlist": self.enlist,
            **self._catalog.operations(),
            **self._federation.operations(),
        }

    # -- this node and the others

    async def version(self, request: Request) -> dict[str, Any]:
        """Versions of the daemon and of the API."""
        return {"version": __version__, "api": API_VERSION}

    async def status(self, request: Request) -> dict[str, Any]:
        """This node."""
        return {
            "peer_id": self._swarm.peer_id,
            "name": self._name,
            "version": __version__,
            **self._federation.place(),
            "addresses": list(self._swarm.addresses),
            "observed_addresses": self._identifier.observed(),
            "uptime_s": round(trio.current_time() - self._started_at, 3),
            "rss_bytes": resident_bytes(),
            "cpu_s": round(time.process_time(), 3),
            "members": self.count_states(),
            "runs_active": self._runs.active,
            "plugins": [plugin.name for plugin in self._registry.plugins() if not plugin.error],
            "confinement": self._registry.confinement,
        }

    def count_states(self) -> dict[str, int]:
        """How many members are in each state, this node included."""
        counts = dict.fromkeys(_STATES, 0)
        for member in self._presence.members():
            counts[member.state] += 1
        return counts

    async def members(self, request: Request) -> list[dict[str, Any]]:
        """Everyone known; without a federation this node alone."""
        views = self._presence.members()
        if not views:
            return [
                {
                    "peer_id": self._swarm.peer_id,
                    "name": self._name,
                    "state": "alive",
                    "addresses": list(self._swarm.addresses),
                    "rtt_ms": None,
                    "last_heard_s": None,
                    "link": "self",
                    "version": __version__,
                    "admin": False,
                }
            ]
        admins = self._presence.revoking.admins()
        return [{**_member(view), "admin": view.peer_id in admins} for view in views]

    async def links(self, request: Request) -> list[dict[str, Any]]:
        """Every link, with rates over half a second."""
        return [self._link(view) for view in await view_links(self._swarm)]

    def _link(self, view: LinkView) -> dict[str, Any]:
        usage = view.usage
        said = self._identifier.known(view.peer_id)
        circuits, circuit_bytes = (0, 0) if view.relayed_by else self._relay.carried_for(view.peer_id)
        return {
            "peer_id": view.peer_id,
            "name": self._presence.name_of(view.peer_id),
            "member": self._presence.is_member(view.peer_id),
            "address": view.address,
            "direction": view.direction,
            "age_s": round(view.age_s, 3),
            "rtt_ms": None if view.rtt_s is None else round(view.rtt_s * 1000, 3),
            "bytes_in": view.bytes_in,
            "bytes_out": view.bytes_out,
            "bytes_in_per_s": round(view.rate_in, 1),
            "bytes_out_per_s": round(view.rate_out, 1),
            "streams": view.streams,
            "windows": {
                "receive_bytes": usage.receive_window,
                "send_bytes": usage.send_window,
                "largest_bytes": usage.largest_window,
                "extra_bytes": usage.extra_window,
                "buffered_bytes": usage.buffered,
                "blocked_streams": usage.blocked_streams,
            },
            "limits_reached": usage.reached,
            "agent": said.agent if said else None,
            "protocols": list(said.protocols) if said else [],
            "observed_address": said.observed_address if said else None,
            "retired": view.retired,
            "relayed_by": self._call(view.relayed_by) if view.relayed_by else None,
            "circuits": circuits,
            "circuit_bytes": circuit_bytes,
        }

    async def limits(self, request: Request) -> list[dict[str, Any]]:
        """Every bound of the daemon."""
        return [asdict(bound) for room in self._bounds for bound in room()]

    def tell_bounds(self, room: Callable[[], list[Bound]]) -> None:
        """Another room has bounds to show."""
        self._bounds.append(room)

    async def connect(self, request: Request) -> dict[str, Any]:
        """Dial, and hold the link from now on."""
        address = request.body["address"]
        if parse_multiaddr(address).peer_id is None:
            raise InvalidParameter(
                f"{address} does not name the peer's id", hint="append /p2p/ and the peer id", field="address"
            )
        connection = await self._swarm.dial([address])
        self._presence.pin(connection.peer_id, [address])
        return {"peer_id": connection.peer_id}

    async def disconnect(self, request: Request) -> dict[str, Any]:
        """Drop a link."""
        peer = self.find_peer(request.path["peer"])
        if peer not in self._swarm.connections:
            self._presence.unpin(peer)
            raise NotConnected(f"there is no link with {self._call(peer)}", hint="see `fedctl members`")
        await self._presence.disconnect(peer)
        return {"peer_id": peer}

    async def ping(self, request: Request) -> dict[str, Any]:
        """Round trips in milliseconds."""
        peer = self.find_peer(request.body["peer"])
        if peer == self._swarm.peer_id:
            raise InvalidParameter("that is this node itself", hint="name another one", field="peer")
        count = request.body["count"]
        with trio.move_on_after(PING_TIMEOUT_S * count):
            connection = await self._relay.reach(peer, PING_TIMEOUT_S)
            times = await ping(self._swarm, peer, count)
            relay = connection.relayed_by
            return {
                "peer_id": peer,
                "rtt_ms": [round(rtt_s * 1000, 3) for rtt_s in times],
                "relayed_by": self._call(relay) if relay else None,
            }
        raise TimedOut(f"{self._call(peer)} did not answer", hint="see `fedctl members`")

    def find_peer(self, text: str) -> PeerId:
        """The peer id of a member's name, or of an unambiguous prefix of a known or linked peer's id.

        Raises NotFound naming whom it could be, InvalidParameter when several fit.
        """
        views = {view.peer_id: view for view in self._presence.members()}
        known = {self._swarm.peer_id, *views, *self._swarm.connections}
        if text in known:
            return text
        named = [peer for peer, view in views.items() if view.name == text]
        # A replaced device may have left a dead member of its name behind.
        found = [peer for peer in named if views[peer].state == "alive"] or named
        if not found:
            found = [peer for peer in known if peer.startswith(text)]
        if len(found) == 1:
            return found[0]
        if found:
            raise InvalidParameter(
                f"{text!r} can be {' or '.join(sorted(found)[:4])}",
                hint="write more of the peer id",
                field="peer",
            )
        if text.startswith(("baf", "12D3", "Qm", "16Uiu2")):
            parsed = parse_peer_id(text)
            if parsed in known:
                return parsed
        names = ", ".join(sorted(view.name or view.peer_id for view in views.values())[:20])
        raise NotFound(
            f"nobody here is called {text!r}",
            hint=f"there are {names}" if names else "join a federation",
            field="peer",
        )

    # -- runs

    async def run(self, request: Request) -> dict[str, Any]:
        """Propose and start."""
        return await self._runs.start(await self._run_request(request.body))

    async def predict(self, request: Request) -> dict[str, Any]:
        """Say what would be."""
        return await self._runs.predict(await self._run_request(request.body))

    async def _run_request(self, body: Mapping[str, Any]) -> RunRequest:
        # here: a device that starts no run does not hold what that needs
        from fedd.host.run_proposer import EDGES, RunRequest, name_edges

        await self._registry.ready()
        members = None if body["members"] is None else [self.find_peer(text) for text in body["members"]]
        topology = body["topology"]
        if topology is not None and topology.startswith(EDGES):
            topology, named = name_edges(topology, self.find_peer)
            members = named if members is None else members
        return RunRequest(
            algorithm=body["algorithm"],
            parameters=body["parameters"],
            input=body["input"],
            topology=topology,
            members=members,
            quorum=body["quorum"],
            contract=body["contract"],
            open=body["open"],
            seed=body["seed"],
            pace_s=body["pace_s"],
        )

    async def runs(self, request: Request) -> list[dict[str, Any]]:
        """Runs known here."""
        return self._runs.summaries()

    async def show(self, request: Request) -> Mapping[str, Any]:
        """One run."""
        return self._runs.get(request.path["run"])

    async def history(self, request: Request) -> Mapping[str, Any]:
        """Every member's metrics, round by round."""
        return await self._runs.history(request.path["run"])

    async def value(self, request: Request) -> Mapping[str, Any]:
        """A run's value in full."""
        return self._runs.value(request.path["run"])

    async def watch(self, request: Request) -> AsyncIterator[Mapping[str, Any]]:
        """Progress of a run, then its result."""
        run_id = self._runs.get(request.path["run"])["run_id"]  # an unknown run is an error, not a stream
        return self._runs.watch(run_id)

    async def enlist(self, request: Request) -> dict[str, Any]:
        """Let another member into a run."""
        return await self._runs.enlist(request.path["run"], self.find_peer(request.body["peer"]))

    async def stop(self, request: Request) -> dict[str, Any]:
        """Stop a run everywhere."""
        return await self._runs.stop(request.path["run"])

    async def events(self, request: Request) -> AsyncIterator[Mapping[str, Any]]:
        """The event log."""
        return self._events.subscribe(request.query["since"])

    def _call(self, peer: PeerId) -> str:
        return self._presence.name_of(peer) or peer


def resident_bytes() -> int:
    """Resident memory of this process (proc(5), statm), 0 where the kernel does not tell."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


def _member(view: MemberView) -> dict[str, Any]:
    return {
        "peer_id": view.peer_id,
        "name": view.name,
        "state": view.state,
        "addresses": list(view.addresses),
        "rtt_ms": None if view.rtt_s is None else round(view.rtt_s * 1000, 3),
        "last_heard_s": None if view.last_heard_s is None else round(view.last_heard_s, 3),
        "link": view.link,
        "version": view.version,
        "since_s": round(view.since_s, 3),
        "reason": view.reason,
    }
