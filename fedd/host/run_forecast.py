"""What is foreseen of a run before anybody is asked: this device's own worker says it."""

from __future__ import annotations

from typing import Any

from fedd.api.errors import TimedOut
from fedd.api.types import PeerId
from fedd.core.manifest import Proposal
from fedd.host.run_gate import RunGate
from fedd.host.run_limits import RunLimits
from fedd.host.run_proposer import Proposer, RunRequest
from fedd.host.run_workers import RunWorkers, Seat


class Forecaster:
    """Has workers look ahead."""

    def __init__(self, proposer: Proposer, gate: RunGate, workers: RunWorkers, limits: RunLimits) -> None:
        self._proposer = proposer
        self._gate = gate
        self._workers = workers
        self._limits = limits

    async def predict(self, request: RunRequest, my_name: str) -> dict[str, Any]:
        """What a run would be like if everybody took part whom it would ask; nobody is asked.

        Returns {algorithm, members, topology, seed, quorum, prediction}. Raises as `Runs.start` does before
        it asks anybody, and TimedOut.
        """
        from fedd.core.topology import default_topology  # here: only a device with runs needs graphs

        proposal, others = self._proposer.draft(request)
        members = sorted({*others, proposal.initiator})
        await self._gate.consider(proposal, proposal.federation, my_name)
        try:
            seat = await self._workers.prepare(proposal)
            try:
                await seat.check(proposal)
                prediction = await self._ask(seat, proposal, members, graph=True)
            finally:
                await seat.aclose()
        finally:
            self._gate.withdraw(proposal.digest, proposal.initiator)
        return {
            "algorithm": proposal.algorithm,
            "members": members,
            "topology": proposal.topology or default_topology(len(members)),
            "seed": proposal.seed,
            "quorum": proposal.quorum,
            "prediction": prediction,
        }

    async def foresee(
        self, seat: Seat, proposal: Proposal, others: list[PeerId]
    ) -> tuple[Seat, dict[str, Any]]:
        """The same of a run that is about to be proposed, by its own worker; empty when it foresees nothing.

        A worker that takes too long is replaced. Raises InvalidParameter when the algorithm would refuse.
        """
        members = sorted({*others, proposal.initiator})
        try:
            return seat, await self._ask(seat, proposal, members, graph=False)
        except TimedOut as error:
            await seat.aclose()
            return await self._workers.prepare(proposal), {"error": error.detail}

    async def _ask(
        self, seat: Seat, proposal: Proposal, members: list[PeerId], *, graph: bool
    ) -> dict[str, Any]:
        return await seat.predict(proposal, members, self._limits.payload_bytes, graph=graph)
