"""What is foreseen of a run before anybody is asked to take part: of its graph, and by its algorithm."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

from fedd.api.algorithm import Algorithm
from fedd.api.errors import FeddError, InvalidParameter
from fedd.core.graph import Graph
from fedd.worker.context import Context, Port, RunStart
from fedd.worker.failures import plugin_failure
from fedd.worker.learner import LearnerSource, rng_name
from fedd.worker.metrics import MAX_METRICS, Metric, checked
from fedd.worker.spectrum import graph_spectrum

MAX_MEMBERS = 256
"""Whose graph's spectrum takes no longer than a round."""

NEAR = 1e-6
"""Of a disagreement: what the rounds of averaging lead to."""


class _Nowhere:
    """The port of a context that has no run yet: nothing comes, and nobody hears."""

    def attach(self, sink: object) -> None:
        """Nothing will come."""

    def report(self, metrics: Mapping[str, Metric]) -> None:
        """What is foreseen is what `predict` returns."""

    def __getattr__(self, name: str) -> Any:
        raise InvalidParameter(f"an algorithm's predict can do nothing that needs the others, as {name}")


def of_graph(graph: Graph) -> dict[str, Metric]:
    """{edges, diameter, messages, spectral_gap, mixing_rounds}: as far as each is known.

    All nodes send `messages` in an exchange; `mixing_rounds` of plain averaging shrink a disagreement to
    1e-6.
    """
    found: dict[str, Metric] = {"edges": len(graph.edges), "messages": 2 * len(graph.edges)}
    if not 2 <= len(graph.members) <= MAX_MEMBERS:
        return found
    spectrum = graph_spectrum(graph)
    found |= {"diameter": graph.diameter(), "spectral_gap": spectrum.gap}
    if spectrum.second < 1:
        found["mixing_rounds"] = spectrum.rounds(NEAR)
    return found


async def of_algorithm(
    algorithm: Algorithm,
    start: RunStart,
    device: Callable[[], tuple[Any, LearnerSource | None]],
    aggregators: Mapping[str, str] | None,
) -> dict[str, Metric]:
    """What the algorithm's `predict` says, nothing without one. `device` reads the input and the learner.

    What goes wrong in it is the metric `error`, as the run can go on without; but InvalidParameter is
    raised: what the algorithm refuses now it would refuse in the run.
    """
    predict = getattr(algorithm, "predict", None)
    if predict is None:
        return {}
    try:
        data, source = device()
        context = Context(start, cast(Port, _Nowhere()), data, aggregators=aggregators)
        if source is not None:
            context.lend(await source.lend(context.rng(rng_name(start.epoch))))
        said = predict(context)
        return {name: checked(name, said[name]) for name in list(said)[:MAX_METRICS]}
    except InvalidParameter:
        raise
    except FeddError as error:
        return {"error": error.detail[:256]}
    except (Exception, SystemExit) as error:
        return {"error": plugin_failure(error).detail[:256]}
