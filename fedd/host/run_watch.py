"""What a run's node looks for now and then: a hanging worker, lost edges, letters that nobody reads."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import trio

from fedd.api.errors import PluginFailed

if TYPE_CHECKING:
    from fedd.host.run_node import RunNode

log = logging.getLogger("fedd.host")

_TICK_S = 0.5
"""How often stalls and lost edges are looked for."""

_PAUSE_S = 1.0

_LAST_LETTERS_S = 10.0
"""How long an ended node's last letters wait for a neighbour that reads none, and its end behind them."""


class RunWatch:
    """The clock of one node's run."""

    def __init__(self, node: RunNode) -> None:
        self._node = node

    async def run(self) -> None:
        """Look until no neighbour needs this node any more, or for `linger_s` after its end."""
        node = self._node
        limits = node.around.limits
        tick_s = min(_TICK_S, limits.edge_timeout_s / 4, limits.stall_timeout_s / 4)
        while not node.ended.is_set():
            before = node.around.clock()
            await trio.sleep(tick_s)
            paused_s = node.around.clock() - before - tick_s
            if paused_s > _PAUSE_S:  # this process was stopped or suspended: that was nobody's silence
                node.worker.forgive(paused_s)
                for link in node.links.values():
                    link.forgive(paused_s)
            node.worker.check_stall()
            self._check_unread(tick_s)
            self._check_edges()
        with trio.move_on_after(limits.linger_s):
            ended_at = node.around.clock()
            while True:
                await trio.sleep(tick_s)
                self._check_edges()
                if node.around.clock() - ended_at > _LAST_LETTERS_S:
                    self._give_up_letters()
        log.warning("run %s: not every neighbour confirmed our end", node.manifest.run_id)
        for link in node.links.values():
            link.settle()

    def _check_edges(self) -> None:
        node = self._node
        for peer, link in node.links.items():
            waits_for_verdict = node.around.state_of(peer) == "suspect"
            if not link.settled and node.departures.takes_part(peer) and not waits_for_verdict:
                down_s = link.down_s()
                if down_s > node.around.limits.edge_timeout_s:
                    node.departures.cut(peer, f"no link for {down_s:.0f} s")

    def _check_unread(self, passed_s: float) -> None:
        node = self._node
        peer, unread_s = node.mail.unread_s(passed_s, worker_waits=node.worker.waits)
        if unread_s > node.around.limits.stall_timeout_s:
            node.on_failed(
                PluginFailed.code,
                f"stall: it waits for others and has read no letter of {node.around.name_of(peer)} for "
                f"{unread_s:.0f} s, which waits for that",
                "an algorithm that is sent letters must receive them",
            )

    def _give_up_letters(self) -> None:
        node = self._node
        for peer, link in node.links.items():
            if not link.settled and node.mail.holds_back(peer):
                node.mail.give_up(peer)
                link.push([node.end_frame()])
