"""Who takes part no longer in one epoch of a run, as this node knows it, and why.

Dead (membership), left (its own signed word), finished, or cut off: the edge between two neighbours is cut
when there was no link for too long, or when one cannot use what the other sent. Each end of a cut edge signs
that it is, and everybody hands it on. A member to which no path is left is out. So nobody can put another
out of the run alone: as in membership, a liar can drop edges of its own and no others.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from fedd.api.errors import InvalidMessage, NotConnected
from fedd.api.types import PeerId
from fedd.core.cut_edges import lost_by_cuts
from fedd.core.epochs import End
from fedd.core.manifest import CutStatement, EndStatement, Manifest, state_cut
from fedd.core.rounds import Completed
from fedd.core.run_terms import RESTART
from fedd.host.run_wire import Kind, encode_frame

if TYPE_CHECKING:
    from fedd.host.run_node import RunNode

log = logging.getLogger("fedd.host")

_MAX_FRAME_REASON_BYTES = 512


class Departures:
    """The members and edges that one epoch has lost."""

    def __init__(self, node: RunNode, manifest: Manifest) -> None:
        self._node = node
        self._manifest = manifest
        self.out: dict[PeerId, str] = {}
        """Who takes part no longer and why; what came after our own end is not in the story."""
        self.cut_off: dict[PeerId, tuple[str, bool]] = {}
        """Neighbours without an edge to this node: why, and whether that was because of what they sent."""
        self.finished: set[PeerId] = set()
        self.ends: dict[PeerId, EndStatement] = {}
        self.cuts: dict[tuple[PeerId, PeerId], CutStatement] = {}
        """By signer and peer: two an edge at most."""
        self._blamed_by: dict[PeerId, str] = {}
        """Neighbours that cut the edge because of what this node sent, and what they said of it."""
        self._news: list[tuple[PeerId, str]] = []
        """Who is out and no neighbour: the algorithm hears of it with the next exchange."""

    def takes_part(self, peer: PeerId) -> bool:
        """Whether this neighbour still takes part beside this node."""
        return not (peer in self.out or peer in self.cut_off or peer in self.finished)

    def told_with(self, completed: Completed) -> tuple[list[list[str]], list[PeerId], list[PeerId]]:
        """What the algorithm hears with a completed exchange: ([[peer, why it is out]], finished, cut)."""
        dropped = self._node.story.dropped
        exchanging = self._node.rounds.neighbors  # who was released, and was ahead, is so once more
        gone = [[peer, reason] for peer, reason in self._news if peer not in exchanging]
        gone += [[peer, dropped[peer][1]] for peer in completed.gone if peer in dropped]
        self._news = [news for news in self._news if news[0] in exchanging]
        finished = [peer for peer in completed.gone if peer in self.finished]
        return gone, finished, [peer for peer in completed.gone if peer in self.cut_off]

    # ---- dead, left ------------------------------------------------------------------------

    def on_member(self, peer: PeerId, state: str, reason: str = "") -> None:
        """Membership says that this member is now `dead` or `left`; other states change nothing."""
        if state not in ("dead", "left"):
            return
        if peer in self.finished:
            self._node.links[peer].settle()
        elif peer in self._manifest.members:
            self.drop(peer, "dead" if state == "dead" else f"left: {reason or 'it left the federation'}")

    def drop(
        self, peer: PeerId, reason: str, statement: EndStatement | None = None, *, blamed: bool = False
    ) -> None:
        """This member is out of the run: dead, or by its own signed word. The first reason stays.

        `blamed`: with contract `restart`, because of what it sent to this node.
        """
        node = self._node
        if peer == node.me or peer in self.out or peer in self.finished:
            return
        self.out[peer] = reason
        if statement is not None:
            blame = self._blame(peer)  # its own word is then what came of that
            reason = f"{blame}; {reason}" if blame else reason
            self.ends[peer] = statement
            node.tell_all(encode_frame(Kind.NOTICE, 0, statement.sealed))
        if peer in node.links:
            node.links[peer].settle()
        if node.story.ending is not None:
            return
        node.story.dropped.setdefault(peer, (node.round, reason))
        log.info("run %s: %s is out: %s", self._manifest.run_id[:8], node.around.name_of(peer), reason)
        if peer not in node.links:
            self._news.append((peer, reason))
        node.epochs.lose(peer, blamed=blamed)
        if not node.epochs.machine.frozen:  # else the algorithm is to begin anew, and not to see this
            node.mail.depart(peer, reason, "gone")
        self._drop_the_unreachable()
        node.act(node.rounds.release(peer, reason))
        self._check_quorum()
        node.around.on_change(node.story)

    def _check_quorum(self) -> None:
        """With contract `restart` the algorithm does not see who is lost: it is judged here."""
        node = self._node
        if node.epochs.machine.lost and node.story.ending is None:
            left, quorum = len(node.epochs.machine.present), self._manifest.proposal.quorum
            of = len(self._manifest.members)
            node.on_failed("quorum_lost", f"{left} of {of} members are left, the quorum is {quorum}", "")

    # ---- cut -------------------------------------------------------------------------------

    def cut(self, peer: PeerId, reason: str, *, fault: bool = False) -> None:
        """Go on without the edge to this neighbour, `fault`: because of what it sent."""
        node = self._node
        if not self.takes_part(peer):
            return
        log.warning("run %s: the edge to %s is cut: %s", self._manifest.run_id[:8], peer, reason)
        self.cut_off[peer] = (reason, fault)
        node.links[peer].push([self._cut_frame(peer)])
        node.links[peer].settle()
        if node.story.ending is None and self._manifest.proposal.contract == RESTART:
            # The graph is part of what such an algorithm relies on: one of the two leaves.
            if fault:
                self.drop(peer, reason, blamed=True)
            elif node.me > peer:  # the same for both
                node.leave(NotConnected(f"the edge to {node.around.name_of(peer)} is cut: {reason}"))
            else:
                self.drop(peer, f"cut: {reason}")
            return
        if node.story.ending is None:
            self._keep(state_cut(node.around.key, self._manifest, peer, node.round, reason, fault=fault))
        self._drop_the_unreachable()
        node.mail.depart(peer, reason, "cut")
        node.act(node.rounds.release(peer, f"cut: {reason}"))

    def refusal(self, peer: PeerId) -> bytes | None:
        """What a neighbour is told that goes on sending although it is out here, None when it is not."""
        if peer in self.out and not (peer in self.cut_off and self.cut_off[peer][1]):
            return encode_frame(Kind.DROPPED, 0, self.out[peer].encode()[:_MAX_FRAME_REASON_BYTES])
        return self._cut_frame(peer) if peer in self.cut_off else None

    def _cut_frame(self, peer: PeerId) -> bytes:
        reason, fault = self.cut_off[peer]
        return encode_frame(Kind.CUT, int(fault), reason.encode()[:_MAX_FRAME_REASON_BYTES])

    def on_cut(self, peer: PeerId, reason: str, *, fault: bool) -> None:
        """A neighbour says that the edge to this node is cut, `fault`: because of what this node sent.

        With contract `restart` whoever is blamed, and blames not, leaves.
        """
        node = self._node
        if fault:
            self._blamed_by.setdefault(peer, reason)
        blamed = fault and self._manifest.proposal.contract == RESTART and self.takes_part(peer)
        if blamed and node.story.ending is None:
            node.leave(
                InvalidMessage(
                    f"{node.around.name_of(peer)} can make nothing of what this node sent: {reason}",
                    hint="do all members run the same version of the plugin, on inputs of one kind?",
                )
            )
        else:
            self.cut(peer, reason)

    def on_cut_statement(self, statement: CutStatement) -> None:
        """A member's signed word, verified, that an edge of its own is cut."""
        node = self._node
        if (statement.member, statement.peer) in self.cuts:
            return
        self._keep(statement)
        if statement.peer == node.me:
            self.on_cut(statement.member, statement.reason, fault=statement.fault)
        self._drop_the_unreachable()
        node.around.on_change(node.story)

    def _keep(self, statement: CutStatement) -> None:
        self.cuts[statement.member, statement.peer] = statement
        self._node.tell_all(encode_frame(Kind.CUT_NOTICE, 0, statement.sealed))

    def _drop_the_unreachable(self) -> None:
        node = self._node
        story = node.story
        if story.ending is not None:
            return
        edges = [*self.cuts, *((node.me, peer) for peer in self.cut_off)]
        for peer in sorted(lost_by_cuts(self._manifest.graph, node.me, story.dropped, edges)):
            reason = self._blame(peer) or self._why_no_path(peer)
            story.dropped[peer] = (node.round, reason)
            self._news.append((peer, reason))
            node.epochs.lose(peer)
            if not node.epochs.machine.frozen:
                node.mail.depart(peer, reason, "gone")
            if self.takes_part(peer) and peer in node.links:  # it hears this node, and nobody hears it
                self.cut(peer, reason)

    def _blame(self, peer: PeerId) -> str:
        """What a neighbour of this member could not use of what it sent, empty when nobody says so."""
        said = [cut for cut in self.cuts.values() if cut.peer == peer and cut.fault]
        return min(said, key=lambda cut: cut.member).reason if said else ""

    def _why_no_path(self, peer: PeerId) -> str:
        if peer in self._blamed_by:
            return f"cut: it can make nothing of what this node sent: {self._blamed_by[peer]}"
        return "cut: no path to it is left in the run's graph"

    # ---- ended -----------------------------------------------------------------------------

    def on_finished(self, peer: PeerId, digest: str) -> None:
        """A member has finished, in the epoch with this digest (in hexadecimal; empty for the first)."""
        node = self._node
        over = node.story.ending is not None
        end, mark = (End.NEIGHBOR, self._manifest.mark) if over else node.epochs.hear_end(peer, digest)
        if end is End.COMMIT:
            node.finish_in(mark)
        elif end is End.EXCLUDED:
            node.end_dropped(peer, "they finished")
        if peer in node.links and self.takes_part(peer):
            self.finished.add(peer)
            node.links[peer].settle()
            node.mail.depart(peer, "finished", "finished")
            node.act(node.rounds.release(peer, "finished"))
