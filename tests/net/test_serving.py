"""A family of protocols has one handler, which the stream tells the id that was asked for."""

from __future__ import annotations

import pytest

from fedd.api.errors import Conflict
from fedd.net.doors import SwarmLimits
from fedd.net.serving import Services
from fedd.net.stream import Stream


async def handler(stream: Stream) -> None:
    """Serves nobody."""


@pytest.fixture
def services() -> Services:
    services = Services(SwarmLimits(), lambda peer: peer == "member")
    services.add_family("/x/command/", handler, "members")
    services.add("/x/command/own", handler, "anyone")
    return services


@pytest.mark.parametrize(
    ("peer", "protocol", "may"),
    [
        ("member", "/x/command/echo/1.0.0", True),
        ("member", "/x/command/", False),
        ("member", "/x/commands/echo", False),
        ("stranger", "/x/command/echo/1.0.0", False),
        ("stranger", "/x/command/own", True),
    ],
)
def test_who_may_speak_what(services: Services, peer: str, protocol: str, may: bool) -> None:
    assert services._may_speak(peer, protocol) is may


def test_a_family_is_not_listed(services: Services) -> None:
    assert services.of("member") == ["/x/command/own"]


def test_a_protocol_has_one_handler(services: Services) -> None:
    with pytest.raises(Conflict):
        services.add("/x/command/own", handler, "members")
