from types import SimpleNamespace
from typing import Any

import pytest
import trio.testing

from fedd.api.errors import Conflict, InvalidParameter, NotConnected, NotFound, TimedOut
from fedd.control import service as service_module
from fedd.control.schema import ROUTES
from fedd.control.server import Request
from fedd.control.service import Service, resident_bytes
from fedd.core.yamux import Session
from fedd.net.admission import Invitation
from fedd.net.bounds import Bound
from fedd.net.events import EventLog
from fedd.net.identify import Identification
from fedd.net.links import LinkView
from fedd.net.presence import MemberView

ME = "12D3KooWAme1111111"
B, C, D = "12D3KooWB222", "12D3KooWC333", "12D3KooWC444"


def view(peer: str, name: str, state: str = "alive", link: str = "direct") -> MemberView:
    return MemberView(
        peer, name, state, (f"/ip4/1.2.3.4/tcp/1/p2p/{peer}",), 0.0012345, 0.5, link, "0.1.0", 9.0, ""
    )


TOKEN = {"token": "t", "deadline_s": 20.0}


SAID = Identification(B, "fedd/0.1.0", "ipfs/0.1.0", ("/ipfs/id/1.0.0",), (), "/ip4/5.6.7.8/tcp/9")


def bound(name: str) -> Any:
    """A room's `bounds` with one bound of that name."""
    return lambda: [Bound(name, 1, 10, 0, "of the test")]


class House:
    """The rooms below the service, as far as it asks them."""

    def __init__(self) -> None:
        self.views = [view(ME, "a", link="self"), view(B, "b"), view(C, "c", "dead"), view(D, "c")]
        self.calls: list[Any] = []
        self.events = EventLog()
        federation = SimpleNamespace(name="plant7", id="f00", is_admin=True, allowed=None)
        self.identifier = SimpleNamespace(
            known=lambda peer: SAID if peer == B else None, observed=lambda: {"/ip4/5.6.7.8": 2}
        )
        self.swarm = SimpleNamespace(
            peer_id=ME,
            addresses=["/ip4/1.2.3.4/tcp/9"],
            connections={B: None, "QmStranger": None},
            dial=self.dial,
        )
        self.presence = SimpleNamespace(
            federation=federation,
            members=lambda: self.views,
            is_member=lambda peer: peer == B,
            bounds=bound("pins"),
            revoking=SimpleNamespace(admins=lambda: {B}),
            name_of=lambda peer: {v.peer_id: v.name for v in self.views}.get(peer, ""),
            pin=lambda *a: self.calls.append(("pin", *a)),
            unpin=lambda *a: self.calls.append(("unpin", *a)),
            disconnect=self.note("disconnect"),
        )
        self.admission = SimpleNamespace(
            init=lambda name: SimpleNamespace(name=name, id="f00"),
            invite=lambda uses, expires_s, approve: Invitation("fedd1-x", uses, expires_s, approve),
            subscribe=lambda callback: None,
            expulsion=None,
            waits_for=None,
            authority=SimpleNamespace(has_root=lambda: True),
            join=self.note("join", federation),
            bounds=bound("invitations"),
            leave=self.note("leave"),
        )
        plugin = SimpleNamespace(name="p", error=None, describe=lambda: {"name": "p"})
        broken = SimpleNamespace(name="q", error="no", describe=lambda: {"name": "q", "error": "no"})
        algorithm = SimpleNamespace(describe=lambda: {"name": "consensus"})
        self.relay = SimpleNamespace(
            reach=self.reach, bounds=bound("relay.circuits"), carried_for=lambda peer: (2, 3000)
        )
        self.registry = SimpleNamespace(
            confinement=None,
            ready=self.note("ready"),
            plugins=lambda: [plugin, broken],
            algorithms=lambda: [algorithm],
            algorithm=lambda name: algorithm,
            learners=lambda: [SimpleNamespace(describe=lambda: {"name": "softmax"})],
            learner=lambda name: SimpleNamespace(describe=lambda: {"name": name}),
            aggregators=lambda: [SimpleNamespace(describe=lambda: {"name": "fedavg"})],
            aggregator=lambda name: SimpleNamespace(describe=lambda: {"name": name}),
        )
        self.inputs = SimpleNamespace(
            bounds=bound("constants"), list=list, set=lambda *a: self.calls.append(("set", *a))
        )
        self.runs = SimpleNamespace(
            active=1,
            bounds=bound("runs"),
            start=self.note("start", {"run_id": "r"}),
            predict=self.note("predict", {"seed": 3}),
            summaries=lambda: [{"run_id": "r"}],
            get=self.get_run,
            watch=lambda run_id: f"watching {run_id}",
            stop=self.note("stop", {"run_id": "r", "state": "running"}),
            enlist=self.note("enlist", {"run_id": "r", "peer_id": "p"}),
            leave_all=self.note("leave_all"),
        )

    def note(self, what: str, answer: Any = None) -> Any:
        async def call(*arguments: Any, **options: Any) -> Any:
            self.calls.append((what, *arguments, *options.values()))
            return answer

        return call

    async def dial(self, addresses: list[str]) -> Any:
        return SimpleNamespace(peer_id=B)

    async def reach(self, peer: str, deadline_s: float) -> Any:
        if peer == C:
            raise NotConnected("c cannot be reached: it has no address")
        return SimpleNamespace(relayed_by=None if peer == B else B)

    def get_run(self, run_id: str) -> dict[str, Any]:
        if run_id != "r":
            raise NotFound(f"there is no run {run_id!r} here")
        return {"run_id": "rrr"}


@pytest.fixture
def house() -> House:
    return House()


@pytest.fixture
async def ask(house: House) -> Any:
    service = Service(
        name="a",
        swarm=house.swarm,
        presence=house.presence,
        admission=house.admission,
        registry=house.registry,
        inputs=house.inputs,
        runs=house.runs,
        events=house.events,
        identifier=house.identifier,
        relay=house.relay,
    )

    async def call(operation: str, path: Any = None, query: Any = None, **body: Any) -> Any:
        route = next(route for route in ROUTES if route.operation == operation)
        request = Request(route, path or {}, body, query or {}, 0, "r1")
        return await service.operations()[operation](request)

    call.service = service
    return call


async def test_every_route_has_its_operation(ask: Any) -> None:
    routes = {route.operation for route in ROUTES if not route.path.startswith("/v1/commands")}
    assert set(ask.service.operations()) == routes  # those of commands: test_command_service


async def test_status_has_the_keys_that_scripts_know(ask: Any, house: House) -> None:
    status = await ask("status")
    keys = "peer_id name version federation addresses uptime_s rss_bytes members runs_active plugins"
    assert set(keys.split()) <= set(status)
    assert status["members"] == {"alive": 3, "suspect": 0, "dead": 1, "left": 0}
    assert (status["federation"], status["runs_active"], status["plugins"]) == ("plant7", 1, ["p"])
    assert status["confinement"] is None  # the plugins were not looked at
    assert status["rss_bytes"] == pytest.approx(resident_bytes(), rel=0.2)
    assert status["rss_bytes"] > 2**20
    assert status["observed_addresses"] == {"/ip4/5.6.7.8": 2}
    house.presence.federation = None
    assert (await ask("status"))["federation"] is None


async def test_links_are_told_with_what_peers_say(ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = Session(initiator=True).usage()
    views = [
        LinkView(
            peer, "/ip4/1.2.3.4/tcp/1", "out", 9.0, rtt_s, 10, 20, 1.04, 2.0, {"/p": 1}, usage, False, by
        )
        for peer, rtt_s, by in ((B, 0.0012345, None), ("QmStranger", None, B))
    ]

    async def view_links(swarm: Any) -> list[LinkView]:
        return views

    monkeypatch.setattr(service_module, "view_links", view_links)
    member, stranger = await ask("links")
    assert (member["name"], member["member"], member["rtt_ms"]) == ("b", True, 1.234)
    assert (member["bytes_in_per_s"], member["streams"]) == (1.0, {"/p": 1})
    assert (member["agent"], member["protocols"]) == ("fedd/0.1.0", ["/ipfs/id/1.0.0"])
    assert member["observed_address"] == "/ip4/5.6.7.8/tcp/9"
    assert set(member["windows"].values()) == {0}
    assert member["limits_reached"] == {}
    assert (member["relayed_by"], member["circuits"], member["circuit_bytes"]) == (None, 2, 3000)
    assert (stranger["relayed_by"], stranger["circuits"], stranger["circuit_bytes"]) == ("b", 0, 0)
    assert (stranger["name"], stranger["member"], stranger["rtt_ms"]) == ("", False, None)
    assert (stranger["agent"], stranger["protocols"], stranger["observed_address"]) == (None, [], None)


async def test_limits_of_every_room_are_told(ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_module, "swarm_bounds", lambda swarm: bound("connections")())
    ask.service.tell_bounds(bound("control_connections"))
    limits = {limit.pop("name"): limit for limit in await ask("limits")}
    assert set(limits) == {
        "connections",
        "relay.circuits",
        "pins",
        "invitations",
        "runs",
        "constants",
        "events",
        "control_connections",
    }
    assert limits["pins"] == {"present": 1, "maximum": 10, "reached": 0, "help": "of the test"}
    assert limits["events"]["maximum"] == 4096


async def test_members_are_told_in_milliseconds(ask: Any, house: House) -> None:
    members = await ask("members")
    assert members[1]["rtt_ms"] == 1.234
    assert [member["link"] for member in members] == ["self", "direct", "direct", "direct"]
    assert [member["admin"] for member in members] == [False, True, False, False]
    house.views = []
    (alone,) = await ask("members")
    assert set(alone) <= set(members[0])
    assert (alone["peer_id"], alone["link"], alone["state"]) == (ME, "self", "alive")


@pytest.mark.parametrize(
    ("text", "peer"),
    [("b", B), (B, B), ("12D3KooWB", B), ("c", D), ("a", ME), ("QmStr", "QmStranger"), ("12D3KooWC4", D)],
)
async def test_a_peer_is_found_by_name_or_prefix(ask: Any, text: str, peer: str) -> None:
    assert ask.service.find_peer(text) == peer


async def test_a_peer_that_is_nobody_or_several(ask: Any, house: House) -> None:
    with pytest.raises(InvalidParameter, match="can be"):
        ask.service.find_peer("12D3KooWC")
    with pytest.raises(NotFound, match="nobody here is called 'x'") as caught:
        ask.service.find_peer("x")
    assert caught.value.hint == "there are a, b, c, c"
    house.views = []
    with pytest.raises(NotFound) as caught:
        ask.service.find_peer("x")
    assert caught.value.hint == "join a federation"


async def test_other_spellings_of_a_peer_id_are_understood(ask: Any, house: House) -> None:
    base58 = "12D3KooWCQdKCjTSiHZLAbwdsqb1SrPiU1fMFVSz4D3kSVmWvjGy"
    house.swarm.connections[base58] = None
    import base64

    from fedd.core.identity import peer_id_to_bytes

    cid = "b" + base64.b32encode(b"\x01\x72" + peer_id_to_bytes(base58)).decode().lower().rstrip("=")
    assert ask.service.find_peer(cid) == base58
    del house.swarm.connections[base58]
    with pytest.raises(NotFound):
        ask.service.find_peer(cid)


async def test_links(ask: Any, house: House) -> None:
    address = "/ip4/1.2.3.4/tcp/1/p2p/12D3KooWCQdKCjTSiHZLAbwdsqb1SrPiU1fMFVSz4D3kSVmWvjGy"
    assert await ask("connect", address=address) == {"peer_id": B}
    assert house.calls == [("pin", B, [address])]
    with pytest.raises(InvalidParameter, match="does not name the peer's id"):
        await ask("connect", address="/ip4/1.2.3.4/tcp/1")
    assert await ask("disconnect", {"peer": "b"}) == {"peer_id": B}
    assert house.calls[-1] == ("disconnect", B)
    with pytest.raises(NotConnected, match="no link with c"):
        await ask("disconnect", {"peer": "c"})
    assert house.calls[-1] == ("unpin", D)


async def test_ping(
    ask: Any, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    async def pong(swarm: Any, peer: str, count: int) -> list[float]:
        if count > 2:
            await trio.sleep_forever()
        return [0.0012345] * count

    monkeypatch.setattr(service_module, "ping", pong)
    pinged = {"rtt_ms": [1.234, 1.234], "relayed_by": None}
    assert await ask("ping", peer="b", count=2) == {"peer_id": B, **pinged}
    assert await ask("ping", peer=D, count=2) == {"peer_id": D, **pinged, "relayed_by": "b"}
    with pytest.raises(TimedOut, match="b did not answer"):
        await ask("ping", peer="b", count=3)
    with pytest.raises(InvalidParameter, match="this node itself"):
        await ask("ping", peer="a", count=1)
    with pytest.raises(NotConnected, match="c cannot be reached"):
        await ask("ping", peer=C, count=1)


async def test_who_belongs(ask: Any, house: House) -> None:
    expected = {"federation": "plant7", "federation_id": "f00", "peer_id": ME}
    assert await ask("init", federation="plant7") == expected
    assert await ask("join", None, None, **TOKEN) == expected
    invited = await ask("invite", uses=2, expires_s=60.0, approve=True)
    assert invited == {"token": "fedd1-x", "uses": 2, "expires_s": 60.0, "approve": True}
    assert await ask("leave") == {"federation": "plant7"}
    assert [call[0] for call in house.calls] == ["join", "leave_all", "leave"]
    house.presence.federation = None
    with pytest.raises(Conflict, match="belongs to no federation"):
        await ask("leave")
    events = house.events.subscribe(0)
    assert [(await anext(events))["what"] for _ in range(3)] == ["begun", "joined", "left"]


async def test_the_catalogue_waits_for_the_inspector(ask: Any, house: House) -> None:
    assert await ask("plugins") == [{"plugin": "p", "name": "p"}, {"plugin": "q", "name": "q", "error": "no"}]
    assert await ask("algorithms") == [{"name": "consensus"}]
    assert await ask("algorithm", {"name": "consensus"}) == {"name": "consensus"}
    assert await ask("learners") == [{"name": "softmax"}]
    assert await ask("learner", {"name": "mlp"}) == {"name": "mlp"}
    assert await ask("aggregators") == [{"name": "fedavg"}]
    assert await ask("aggregator", {"name": "krum"}) == {"name": "krum"}
    assert house.calls == [("ready",)] * 7
    assert await ask("inputs") == []
    assert house.calls == [("ready",)] * 7
    house.inputs.list = lambda: [{"name": "digits", "learner": "net"}]
    assert await ask("inputs") == [{"name": "digits", "learner": "net"}]
    assert house.calls == [("ready",)] * 8
    assert await ask("set", {"name": "temp"}, value=[1]) == {"input": "temp", "value": [1]}
    assert house.calls[-1] == ("set", "temp", [1])
    assert (await anext(house.events.subscribe(0)))["input"] == "temp"


async def test_runs(ask: Any, house: House) -> None:
    rest = dict.fromkeys(("input", "topology", "quorum", "seed", "pace_s"))
    body = {
        "algorithm": "consensus",
        "parameters": {"a": "1"},
        "contract": "survivors",
        "open": False,
        **rest,
    }
    assert await ask("run", **body, members=["b", "c"]) == {"run_id": "r"}
    request = house.calls[-1][1]
    assert (request.algorithm, request.members, request.parameters) == ("consensus", [B, D], {"a": "1"})
    await ask("run", **body, members=None)
    assert house.calls[-1][1].members is None
    await ask("run", **{**body, "topology": "edges:b,c,0.5\nc,b,0.5"}, members=None)
    assert house.calls[-1][1].topology == f"edges:{B},{D},0.5\n{D},{B},0.5"
    assert house.calls[-1][1].members == [B, D]
    assert await ask("predict", **body, members=["b"]) == {"seed": 3}
    assert (house.calls[-1][0], house.calls[-1][1].members) == ("predict", [B])
    assert await ask("runs") == [{"run_id": "r"}]
    assert await ask("show", {"run": "r"}) == {"run_id": "rrr"}
    assert await ask("watch", {"run": "r"}) == "watching rrr"
    with pytest.raises(NotFound):
        await ask("watch", {"run": "x"})
    assert await ask("enlist", {"run": "r"}, peer="b") == {"run_id": "r", "peer_id": "p"}
    assert house.calls[-1] == ("enlist", "r", B)
    assert await ask("stop", {"run": "r"}) == {"run_id": "r", "state": "running"}


async def test_events_and_version(ask: Any, house: House) -> None:
    house.events.publish("node", what="one")
    assert (await anext(await ask("events", query={"since": 0})))["what"] == "one"
    assert (await ask("version"))["api"] == 1


def test_without_proc_memory_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_proc(*arguments: Any) -> Any:
        raise FileNotFoundError

    monkeypatch.setattr("builtins.open", no_proc)
    assert resident_bytes() == 0
