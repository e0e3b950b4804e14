"""The routes of admission, over rooms that note what they are asked."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from fedd.api.errors import Conflict, InvalidParameter, NotFound
from fedd.control.federation_routes import FEDERATION_ROUTES
from fedd.control.federation_service import FederationService
from fedd.control.server import Request
from fedd.core.identity import PrivateKey
from fedd.net.admission import Expulsion
from fedd.net.approval import WaitingAt
from fedd.net.authority import Named, Revocation
from fedd.net.events import EventLog
from fedd.net.invitations import Waiting

ME, B, C, D = (PrivateKey.from_seed(bytes([n]) * 32).peer_id for n in range(1, 5))


class Rooms:
    """What the service asks of the rooms below."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.observers: list[Any] = []
        self.events = EventLog()
        self.waiting = [WaitingAt(Waiting(C, "c", "/ip4/192.0.2.7/tcp/1", 1.23456), B)]
        self.presence = SimpleNamespace(
            federation=SimpleNamespace(name="plant7", id="f00", is_admin=False, allowed=None),
            name_of=lambda peer: {B: "b"}.get(peer, ""),
        )
        authority = SimpleNamespace(
            has_root=lambda: False,
            export_root=lambda: "PEM",
            import_root=lambda pem: self.calls.append(("import", pem)),
            remove_root=lambda pem: self.calls.append(("remove", pem)),
            grant=self.later("grant"),
            revoke=lambda peer: Revocation(peer, "root", 3, 1, 0),
            undo=lambda peer: Revocation(peer, "admin", 4, 0, 0),
            revoked=lambda: [Named(D, (ME,))],
        )
        self.admission = SimpleNamespace(
            authority=authority,
            expulsion=None,
            waits_for=None,
            subscribe=self.observers.append,
            leave=self.later("leave"),
            approvals=SimpleNamespace(
                waiting=self.who_waits, approve=self.later("approve"), deny=self.later("deny")
            ),
        )
        self.runs = SimpleNamespace(leave_all=self.later("leave_all"))

    def later(self, what: str) -> Any:
        async def call(*arguments: Any) -> None:
            self.calls.append((what, *arguments))

        return call

    async def who_waits(self, deadline_s: float = 3.0) -> list[WaitingAt]:
        return self.waiting

    def find(self, text: str) -> str:
        if text in ("b", B):
            return B
        raise NotFound(f"nobody here is called {text!r}")


@pytest.fixture
def rooms() -> Rooms:
    return Rooms()


@pytest.fixture
async def ask(rooms: Rooms) -> Any:
    service = FederationService(
        swarm=SimpleNamespace(peer_id=ME),
        presence=rooms.presence,
        admission=rooms.admission,
        runs=rooms.runs,
        events=rooms.events,
        find_peer=rooms.find,
    )

    async def call(operation: str, peer: str = "", **body: Any) -> Any:
        route = next(route for route in FEDERATION_ROUTES if route.operation == operation)
        request = Request(route, {"peer": peer}, body, {}, 0, "r1")
        return await service.operations()[operation](request)

    call.service = service
    return call


async def test_every_route_of_admission_has_its_operation(ask: Any) -> None:
    assert set(ask.service.operations()) == {route.operation for route in FEDERATION_ROUTES}


async def test_the_place_of_a_node(ask: Any, rooms: Rooms) -> None:
    place = {"federation": "plant7", "federation_id": "f00", "admin": False, "root_key": False}
    assert ask.service.place() == {**place, "waits_for": None, "revoked": None}
    rooms.presence.federation = None
    rooms.admission.expulsion = Expulsion("plant7", "because")
    rooms.admission.waits_for = B
    expected = {"waits_for": B, "revoked": {"federation": "plant7", "reason": "because"}}
    assert ask.service.place() == {
        **dict.fromkeys(place),
        "admin": False,
        "root_key": False,
        **expected,
    }


async def test_what_admission_notes_is_an_event(ask: Any, rooms: Rooms) -> None:
    rooms.observers[0]("revoked", {"peer_id": B, "epoch": 1})
    event = await anext(rooms.events.subscribe(0))
    assert {key: event[key] for key in ("kind", "what", "peer_id", "epoch")} == {
        "kind": "federation",
        "what": "revoked",
        "peer_id": B,
        "epoch": 1,
    }
    assert rooms.admission.before_leaving is rooms.runs.leave_all


async def test_granting_names_a_member_and_a_role(ask: Any, rooms: Rooms) -> None:
    granted = {"federation": "plant7", "peer_id": B, "name": "b", "role": "admin"}
    route = next(route for route in FEDERATION_ROUTES if route.operation == "grant")
    grant = ask.service.operations()["grant"]
    assert await grant(Request(route, {}, {"peer": "b", "role": "admin"}, {}, 0, "r1")) == granted
    assert rooms.calls == [("grant", B)]
    with pytest.raises(InvalidParameter, match="no role 'king'"):
        await grant(Request(route, {}, {"peer": "b", "role": "king"}, {}, 0, "r1"))


async def test_the_root_key_goes_in_and_out(ask: Any, rooms: Rooms) -> None:
    assert await ask("root") == {"federation": "plant7", "here": False}
    assert await ask("root_export") == {"federation": "plant7", "pem": "PEM"}
    assert await ask("root_import", pem="PEM") == {"federation": "plant7", "here": True}
    assert await ask("root_remove", pem="PEM") == {"federation": "plant7", "here": False}
    assert rooms.calls == [("import", "PEM"), ("remove", "PEM")]


async def test_revoking_takes_a_member_or_anybodys_whole_id(ask: Any) -> None:
    assert await ask("revoked") == [{"peer_id": D, "name": "", "by": [ME]}]
    done = {"by": "root", "epoch": 3, "stay": 1, "leave": 0, "federation": "plant7"}
    assert await ask("revoke", "b") == {**done, "peer_id": B, "name": "b"}
    assert await ask("revoke", C) == {**done, "peer_id": C, "name": ""}
    with pytest.raises(NotFound, match="nobody here is called 'x'"):
        await ask("revoke", "x")
    undone = await ask("unrevoke", D[:20])
    assert undone == {"federation": "plant7", "peer_id": D, "name": "", "by": "admin", "epoch": 4}
    assert (await ask("unrevoke", C))["peer_id"] == C


async def test_approving_goes_by_peer_id_alone(ask: Any, rooms: Rooms) -> None:
    (waiting,) = await ask("pending")
    told = {"peer_id": C, "name": "c", "address": "/ip4/192.0.2.7/tcp/1", "waiting_s": 1.235}
    assert waiting == {**told, "at": B, "at_name": "b"}
    assert await ask("approve", C[:20]) == {"federation": "plant7", "peer_id": C, "at": [B]}
    rooms.waiting.append(WaitingAt(Waiting(C, "c", "", 0.5), ME))
    assert await ask("deny", C) == {"federation": "plant7", "peer_id": C, "at": [B, ME]}
    assert rooms.calls == [("approve", C, [B]), ("deny", C, [B, ME])]
    with pytest.raises(NotFound):
        await ask("approve", "c")
    with pytest.raises(NotFound, match="does not wait to be approved"):
        await ask("approve", D)
    rooms.waiting.append(WaitingAt(Waiting(D, "c", "", 0.0), ME))
    with pytest.raises(InvalidParameter, match="can be"):
        await ask("approve", "12D3")


async def test_leaving_and_giving_up(ask: Any, rooms: Rooms) -> None:
    assert await ask("leave") == {"federation": "plant7"}
    assert [call[0] for call in rooms.calls] == ["leave_all", "leave"]
    rooms.presence.federation = None
    rooms.admission.waits_for = B
    assert await ask("leave") == {"federation": None}
    rooms.admission.waits_for = None
    with pytest.raises(Conflict, match="belongs to no federation"):
        await ask("leave")
