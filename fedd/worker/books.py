"""The ledger that an algorithm sees: the ledger's core and the exchanges that feed it."""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING

from fedd.api.errors import InvalidParameter
from fedd.api.ledger import Agreement
from fedd.worker.ledger import LedgerCore
from fedd.worker.port import Exchanges
from fedd.worker.reading import BadMessage, reason_of

if TYPE_CHECKING:
    from fedd.api.types import FloatArray

LEDGER_TAG = "fedd.ledger"


class Books:
    """`fedd.api.Ledger` over a run's exchanges."""

    def __init__(self, exchanges: Exchanges, core: LedgerCore) -> None:
        self._exchanges = exchanges
        self._core = core

    @property
    def value(self) -> FloatArray:
        """This node's present estimate of the mean."""
        return self._core.value

    async def step(self) -> None:
        """One exchange with all neighbours, one update; whose message is none is cut off."""
        exchanges, core = self._exchanges, self._core
        answers = dict(await exchanges.swap(core.messages(exchanges.present), LEDGER_TAG))
        while True:
            try:
                core.apply(answers, exchanges.present, exchanges.finished)
                return
            except BadMessage as error:  # the books are as they were, and are closed without it
                del answers[error.peer]
                exchanges.cut(error.peer, reason_of(error))

    async def agree(self, *, tolerance: float, iterations: int) -> Agreement:
        """Step until all survivors are known to agree, or `iterations` steps were made."""
        if not tolerance >= 0 or iterations < 1:
            raise InvalidParameter(
                f"an agreement needs a tolerance of 0 or more and an iteration at least, not {tolerance} "
                f"and {iterations}",
                field="tolerance",
            )
        exchanges, core = self._exchanges, self._core
        known = exchanges.members
        residual = float("inf")
        core.begin_agreement()
        try:
            for made in range(1, iterations + 1):
                await self.step()
                verdict = core.close_window(tolerance, last=made == iterations)
                if verdict is None:
                    continue
                known = core.peers_of(verdict.origins)
                residual = float("inf") if core.is_fresh else verdict.residual
                if isfinite(residual):
                    exchanges.report(residual=residual)
                if verdict.agreed:
                    value = verdict.value.reshape(core.shape)
                    exchanges.name_contributors(known, residual)
                    return Agreement(value, known, made, residual, True)
        finally:
            core.end_agreement()
        left = tuple(peer for peer in known if peer not in exchanges.out)
        exchanges.name_contributors(left, residual if isfinite(residual) else None, agreed=False)
        return Agreement(core.value, left, iterations, residual, False)
