"""The initiator's part before a run: what is proposed, whom it is proposed to, and what they say."""

from __future__ import annotations

import logging
import math
import secrets
from collections import Counter
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import trio

from fedd.api.errors import Conflict, FeddError, InvalidParameter, ProtocolError, Refused
from fedd.api.types import PeerId
from fedd.core.dataclass import dataclass
from fedd.core.manifest import MAX_PACE_S, Proposal, check_acceptance, printable
from fedd.host.plugins import PluginRegistry
from fedd.host.run_control import Opener, ask
from fedd.host.run_gate import check_members, parse_quorum
from fedd.host.run_limits import RunLimits

if TYPE_CHECKING:
    from fedd.net.presence import Presence

log = logging.getLogger("fedd.host")


@dataclass(frozen=True)
class RunRequest:
    """What `fedctl run` asks for. `members` are peer ids (None: all that are alive, this node always);
    `quorum` is "3" or "60%" (None: a majority of those asked), `contract` one of CONTRACTS (None: the
    algorithm's own). `asker` is the member whose command asks for it, empty for this device's operator."""

    algorithm: str
    parameters: Mapping[str, Any]
    input: str | None = None
    topology: str | None = None
    members: list[PeerId] | None = None
    quorum: int | str | None = None
    contract: str | None = None
    seed: int | None = None
    pace_s: float | None = None
    open: bool = False
    asker: PeerId = ""


EDGES = "edges:"
"""How a topology begins whose edges are written out (`fedd.core.explicit_edges`)."""


def name_edges(topology: str, find: Callable[[str], PeerId]) -> tuple[str, list[PeerId]]:
    """A topology of written edges with `find(name)` for every name, and who is in it, sorted.

    Raises InvalidParameter for a malformed row, and what `find` raises.
    """
    from fedd.core.explicit_edges import edge_nodes, rename_edges  # here: few runs need it

    written = rename_edges(topology.removeprefix(EDGES), find)
    return EDGES + written, edge_nodes(written)


@dataclass
class Answers:
    """Who accepts (with the signed word), who declines (with the reason), and the largest message for all."""

    acceptances: dict[PeerId, bytes]
    declined: dict[PeerId, str]
    payload_bytes: int


class LinkPins:
    """Holds a link with a member for as long as some run here needs it."""

    def __init__(self, presence: Presence) -> None:
        self._presence = presence
        self._held: Counter[PeerId] = Counter()

    def hold(self, peer: PeerId) -> None:
        """One more run needs this link."""
        try:
            self._presence.pin(peer)
        except Conflict as error:
            log.warning("no link is held with %s: %s", peer, error.detail)
        else:
            self._held[peer] += 1

    def release(self, peer: PeerId) -> None:
        """One run less needs this link."""
        if self._held[peer]:
            self._held[peer] -= 1
            self._presence.unpin(peer)
        self._held += Counter()  # drops the zeros


def printable_name(presence: Presence, peer: PeerId) -> str:
    """A name for messages: the member's, else the beginning of its id."""
    return presence.name_of(peer) or peer[:12]


class Proposer:
    """Drafts proposals and puts them to the members."""

    def __init__(
        self,
        me: PeerId,
        opener: Opener,
        presence: Presence,
        registry: PluginRegistry,
        limits: RunLimits,
    ) -> None:
        self._me = me
        self._opener = opener
        self._presence = presence
        self._registry = registry
        self._limits = limits

    def draft(self, request: RunRequest) -> tuple[Proposal, list[PeerId]]:
        """The proposal, and whom to ask beside this node. Raises InvalidParameter, NotFound or Conflict."""
        federation = self._presence.federation
        if federation is None:
            raise Conflict(
                "this node belongs to no federation", hint="fedctl init NAME, or fedctl join TOKEN"
            )
        info = self._registry.algorithm(request.algorithm)
        parameters = self._registry.check_parameters(info.name, request.parameters)
        alive = [member.peer_id for member in self._presence.members() if member.state == "alive"]
        members = check_members(request.members, alive, self._me)
        if request.topology:
            from fedd.core.topology import build  # here: only a device with runs needs graphs

            build(request.topology, members, 0)
        pace_s = request.pace_s or 0.0
        if not (math.isfinite(pace_s) and 0 <= pace_s <= MAX_PACE_S):
            raise InvalidParameter(f"a pace of {pace_s} s", hint=f"0 to {MAX_PACE_S:g} s", field="pace_s")
        topology = request.topology or info.topology
        seed = _seed(topology, len(members)) if request.seed is None else request.seed
        if request.open and not info.joinable:
            raise InvalidParameter(
                f"{info.name} takes in nobody who comes later", hint="leave out --open", field="open"
            )
        if not 0 <= seed < 1 << 63:
            raise InvalidParameter(f"the seed {seed}", hint="0 to 2^63 - 1", field="seed")
        proposal = Proposal(
            federation=federation.id,
            initiator=self._me,
            algorithm=info.name,
            plugin=info.plugin,
            distribution=info.distribution,
            version=info.version,
            parameters=parameters,
            input=request.input or "",
            topology=topology,
            contract=request.contract or info.contract_of(parameters),
            seed=seed,
            quorum=parse_quorum(request.quorum, len(members)),
            pace_s=float(pace_s),
            nonce=secrets.token_bytes(16),
            open=request.open,
            asker=request.asker,
        )
        return proposal, [peer for peer in members if peer != self._me]

    async def ask_all(self, proposal: Proposal, others: list[PeerId]) -> Answers:
        """Ask everybody at once; each has `propose_timeout_s`, then counts as declining.

        Raises Refused, naming everyone who declined, when the quorum is not reached.
        """
        answers = Answers({}, {}, self._limits.payload_bytes)
        question = {"kind": "propose", "proposal": proposal.encode()}

        async def ask_one(peer: PeerId) -> None:
            try:
                reply = await ask(self._opener, peer, question, self._limits.propose_timeout_s)
                if reply["kind"] != "accepted":
                    answers.declined[peer] = printable(str(reply.get("reason") or "it does not say why"))
                    return
                acceptance, payload_bytes = reply.get("acceptance"), reply.get("max_payload_bytes")
                if not isinstance(acceptance, bytes) or not isinstance(payload_bytes, int):
                    raise ProtocolError("its answer is malformed")
                check_acceptance(acceptance, proposal.digest, peer)
                answers.acceptances[peer] = acceptance
                answers.payload_bytes = min(answers.payload_bytes, max(1, payload_bytes))
            except FeddError as error:
                answers.declined[peer] = printable(error.detail)

        async with trio.open_nursery() as nursery:
            for peer in others:
                nursery.start_soon(ask_one, peer)
        self._check_quorum(proposal, answers)
        return answers

    def _check_quorum(self, proposal: Proposal, answers: Answers) -> None:
        declined = answers.declined
        taking_part = 1 + len(answers.acceptances)
        if taking_part >= proposal.quorum:
            return
        reasons = "; ".join(
            f"{printable_name(self._presence, peer)}: {declined[peer]}" for peer in sorted(declined)
        )
        raise Refused(
            f"{taking_part} of {taking_part + len(declined)} members take part in "
            f"{proposal.algorithm}, the quorum is {proposal.quorum}: {reasons}",
            hint="mend what they say, or lower --quorum",
        )


def _seed(topology: str, members: int) -> int:
    """A seed of a run that names none: where the graph is drawn, the best of several."""
    from fedd.core.seeds import SEEDS, best_seed  # here: only a device with runs needs graphs
    from fedd.core.topology import default_topology

    seeds = [secrets.randbits(32) for _ in range(SEEDS)]
    return best_seed(topology or default_topology(members), members, seeds)
