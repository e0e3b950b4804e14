"""How many rounds a method makes that does not ask the others whether they agree."""

from __future__ import annotations

import math

from fedd.api import InvalidParameter, PeerId, RunContext, Spectrum

REPORT_EVERY = 10
"""Rounds between two reports of the disagreement: a table is not read faster."""

_AFTER_A_DEATH = 4
"""A ring that loses a member is a line, which needs four times as many rounds."""


class Countdown:
    """Rounds until the end: as many as are `needed`, `iterations` at most.

    When somebody dies, its neighbours take back what went over their edges, and the disagreement is as large
    as in the beginning: it counts from there again, four times as many. With `needed` None it is
    exactly `iterations`, whoever dies.
    """

    def __init__(self, ctx: RunContext, needed: int | None, iterations: int) -> None:
        self._iterations = iterations
        self._again = None if needed is None else needed * _AFTER_A_DEATH
        self._end = iterations if needed is None else min(needed, iterations)
        self.made = 0
        ctx.report(rounds_predicted=self._end)
        ctx.on_leave(self._somebody_left)

    def begin(self) -> bool:
        """Whether there is another round; counts it."""
        if self.made >= self._end:
            return False
        self.made += 1
        return True

    @property
    def ended(self) -> bool:
        """Whether this round is the last, as far as is known."""
        return self.made >= self._end

    @property
    def shows(self) -> bool:
        """Whether this round's disagreement is worth a report: the last one, and every tenth."""
        return self.ended or self.made % REPORT_EVERY == 0

    def _somebody_left(self, peer: PeerId, reason: str) -> None:
        if self._again is not None:
            self._end = min(self.made + self._again, self._iterations)


def needed_rounds(second: float, period: int, tolerance: float) -> int | None:
    """Rounds after which the disagreement's norm is `tolerance` of what it was: second^k <= tolerance.

    So its root mean square is at most `tolerance` of the largest magnitude. None for a tolerance of 0.
    Raises InvalidParameter when averaging never converges.
    """
    if not tolerance:
        return None
    rounds = Spectrum(second, second, -second, period).rounds(tolerance)
    if math.isinf(rounds):
        raise InvalidParameter(
            "averaging on this topology never converges: an eigenvalue of its matrix has modulus 1",
            hint="use lazy weights, as in ring@lazy, or another topology",
            field="topology",
        )
    return int(rounds)
