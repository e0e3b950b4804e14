"""What can be said of a method before its first iteration: steps that converge, iterations, bytes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from fedd_optimization.bounds import Curvature, StepBound, curvature
from fedd_optimization.modes import Modes, PushPullModes, iterations_to

if TYPE_CHECKING:
    from fedd.api import RunContext, Spectrum
    from fedd_optimization.iteration import Iterative
    from fedd_optimization.vectors import Vector

Metrics: TypeAlias = dict[str, float | int | str | bool | Mapping[str, float]]

LARGEST_SPECTRUM = 256
"""Members of a graph whose eigenvalues are worth computing on every device: a hundredth of a second."""

NEAR = 1e-6
"""Of the first distance: what predicted iterations lead to."""

SOLVED = "the largest step with which all modes of equal quadratic objectives shrink"
"""A bound without a formula: found by trying (`modes.Modes.largest_step`)."""


@dataclass(frozen=True)
class Theory:
    """What is known of a method.

    With `bound` None the largest step is that of the modes, with `push_pull` those of the run's own arcs;
    without any, `why` says why no step is known.
    """

    bound: StepBound | None = None
    modes: Modes | None = None
    push_pull: bool = False
    why: str = ""


@dataclass(frozen=True)
class _Limits:
    """The largest step, its formula, and the rate at the step that was asked for; None where not known."""

    step: float | None = None
    formula: str = ""
    rate: float | None = None


def foresee(ctx: RunContext, settings: Iterative, gradient: Callable[[Vector], Vector], x: Vector) -> Metrics:
    """The outlook as metrics, from this device's objective around `x` as if all devices had one like it.

    planned_bytes: of this node's vectors in all iterations; spectral_gap; mixing_rounds: in which plain
    averaging shrinks a disagreement to 1e-6; curvature (L) and strong_convexity (mu) of this device's
    objective; step_bound with step_bound_formula, or step_bound_unknown with the reason; where the objective
    is strongly convex predicted_iterations until the distance to where the method ends is 1e-6 of the first
    one, and predicted_bytes; warning when the step is beyond the bound.
    """
    each = settings.message_bytes(x) * settings.messages(len(ctx.out_neighbors))
    said: Metrics = {"planned_bytes": settings.iterations * each}
    if len(ctx.members) > LARGEST_SPECTRUM:
        return said
    spectrum = ctx.spectrum()
    said["spectral_gap"] = spectrum.gap
    if spectrum.second < 1:
        said["mixing_rounds"] = spectrum.rounds(NEAR)
    found = curvature(gradient, x, ctx.rng("curvature"))
    if math.isfinite(found.largest):
        said |= {"curvature": found.largest, "strong_convexity": found.smallest}
    theory = settings.theory()
    if theory.why:
        said["step_bound_unknown"] = theory.why
    if not 0 < found.largest < math.inf:
        return said
    limits = _limits(ctx, theory, spectrum, settings.step, found)
    if limits.step is None:
        said.setdefault("step_bound_unknown", "none is known on this topology")
    else:
        said |= {"step_bound": limits.step, "step_bound_formula": limits.formula}
        if settings.step > limits.step:
            said["warning"] = (
                f"step {settings.step:g} is beyond {limits.step:.3g} = {limits.formula} with this device's "
                f"curvature L = {found.largest:.3g}: it may diverge"
            )
    needed = None if limits.rate is None else iterations_to(NEAR, limits.rate)
    if needed is not None:
        said |= {"predicted_iterations": needed, "predicted_bytes": needed * each}
    return said


def _limits(ctx: RunContext, theory: Theory, spectrum: Spectrum, step: float, found: Curvature) -> _Limits:
    largest, smallest = found.largest, found.smallest
    if theory.push_pull:
        modes = PushPullModes.of(ctx.graph)
        if modes is None:
            return _Limits()
        rate = modes.rate(step, smallest, largest) if smallest else None
        return _Limits(modes.largest_step() / largest, SOLVED, rate)
    if not spectrum.symmetric or theory.modes is None:
        bound = theory.bound
        if bound is None or (bound.proven and not spectrum.symmetric):
            return _Limits()
        return _Limits(bound.of(spectrum.lower, largest), bound.formula)
    rate = theory.modes.rate(spectrum, step, smallest, largest) if smallest else None
    if theory.bound is None:
        return _Limits(theory.modes.largest_step(spectrum) / largest, SOLVED, rate)
    return _Limits(theory.bound.of(spectrum.lower, largest), theory.bound.formula, rate)
