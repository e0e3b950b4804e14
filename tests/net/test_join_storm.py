"""More devices than one member has room for links join it at the same moment."""

from __future__ import annotations

import trio
from net.federations import all_alive, nodes
from trio.testing import MockClock
from waiting import until

from fedd.core.overlay import CAP_DIALABLE


async def test_all_get_in_at_once_where_not_all_can_be_linked_with_the_inviter(
    autojump_clock: MockClock,
) -> None:
    async with nodes(CAP_DIALABLE + 6) as members:
        members[0].admission.init("plant7")
        token = members[0].admission.invite(uses=len(members) - 1).token
        started_at = trio.current_time()
        async with trio.open_nursery() as nursery:
            for member in members[1:]:
                nursery.start_soon(member.admission.join, token)
        assert trio.current_time() - started_at < 3.0
        await until(lambda: all_alive(members), 3.0)
