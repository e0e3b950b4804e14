"""SCAFFOLD: the corrections take effect, and end at the optimum where FedAvg does not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from plugins.aggregators.members import contribution, trained

from fedd.api import Aggregator, Contribution, InvalidParameter, TrainResult
from fedd_aggregators import FedAvg, Scaffold

STEP = 0.05
MEMBERS = [(1.0, -3.0, 10, 3), (6.0, 2.0, 30, 8), (0.3, 11.0, 20, 5)]
"""f_i(w) = a / 2 (w - b)^2: (a, b, number of samples, steps in a round)."""
OPTIMUM = sum(n * a * b for a, b, n, _ in MEMBERS) / sum(n * a for a, _, n, _ in MEMBERS)


def run(aggregator: Aggregator, rounds: int, *, premixed: bool = False) -> float:
    """Rounds of exact gradient steps; with `premixed` as a run does it for aggregators of means."""
    model: list[Any] = [np.array([0.0])]
    state = aggregator.start(model)
    own: list[list[Any]] = [[] for _ in MEMBERS]
    for _ in range(rounds):
        contributions = []
        for index, (a, b, n, steps) in enumerate(MEMBERS):
            wanted = aggregator.before(model, state, own[index])
            w = model[0].copy()
            for _ in range(steps):
                w -= STEP * (a * (w - b) + (0 if wanted.correction is None else wanted.correction[0]))
            own[index], extra = aggregator.after(model, [w], TrainResult(n, steps, STEP), state, own[index])
            contributions.append(Contribution(f"n{index}", [w], n, extra))
        if premixed:
            contributions = [mixed(contributions)]
        aggregate = aggregator.aggregate(model, contributions, state)
        model, state = aggregate.model, aggregate.state
    return float(model[0][0])


def mixed(contributions: list[Contribution]) -> Contribution:
    weights = [each.num_samples for each in contributions]
    model = np.average([each.model[0] for each in contributions], axis=0, weights=weights)
    extras = zip(*(each.extra for each in contributions), strict=True)
    extra = [np.mean(np.stack(parts), axis=0) for parts in extras]
    return Contribution("mean", [model], sum(weights), extra)


@pytest.mark.parametrize("premixed", [False, True])
def test_it_ends_at_the_optimum_where_fedavg_drifts_off(premixed: bool) -> None:
    assert abs(run(FedAvg(), 400, premixed=premixed) - OPTIMUM) > 0.05
    assert run(Scaffold(), 400, premixed=premixed) == pytest.approx(OPTIMUM, abs=1e-9)


def test_half_of_the_way_and_half_of_the_members_end_there_too() -> None:
    assert run(Scaffold(rate=0.5, participation=0.5), 2000) == pytest.approx(OPTIMUM, abs=1e-6)


def test_one_round_by_hand() -> None:
    """x = 1, c = 0.5, c_i = 0.2, K = 2, eta = 0.1, y = 0.7: c_i' = 0.2 - 0.5 + 0.3 / 0.2 = 1.2."""
    x, y, c, c_i = ([np.array([value])] for value in (1.0, 0.7, 0.5, 0.2))
    scaffold = Scaffold()
    correction = scaffold.before(x, c, c_i).correction
    assert correction is not None
    assert correction[0] == pytest.approx(0.3)
    kept, extras = scaffold.after(x, y, trained(samples=4, steps=2, step=0.1), c, c_i)
    assert kept[0] == pytest.approx(1.2)
    assert [float(array[0]) for array in extras] == pytest.approx([4.0, 4.0])
    aggregate = scaffold.aggregate(x, [contribution(0, y[0], samples=4, extra=extras)], c)
    assert aggregate.model[0] == pytest.approx(0.7)
    assert aggregate.state[0] == pytest.approx(1.5)


def test_the_correction_has_the_models_types() -> None:
    model = [np.zeros((2, 2), np.float16), np.zeros(3, np.float32)]
    scaffold = Scaffold()
    state = scaffold.start(model)
    assert [array.dtype for array in state] == [np.float32, np.float32]
    wanted = scaffold.before(model, state, []).correction
    assert wanted is not None
    assert [(a.shape, a.dtype) for a in wanted] == [(a.shape, a.dtype) for a in model]


@pytest.mark.parametrize("result", [trained(step=0.0), trained(steps=0)])
def test_a_learner_without_steps_is_refused(result: TrainResult) -> None:
    model = [np.zeros(1)]
    with pytest.raises(InvalidParameter, match="needs steps and their size"):
        Scaffold().after(model, model, result, model, [])


def test_control_variates_that_do_not_fit_are_left_out() -> None:
    model = [np.zeros(2)]
    sound = contribution(1, np.ones(2), extra=[np.zeros(2), np.ones(1)])
    bad = [
        contribution(0, np.ones(2)),
        contribution(2, np.ones(2), extra=[np.zeros(3), np.ones(1)]),
        contribution(3, np.ones(2), extra=[np.zeros(2), np.zeros(1)]),
    ]
    aggregate = Scaffold().aggregate(model, [bad[0], sound, *bad[1:]], Scaffold().start(model))
    assert sorted(aggregate.left_out) == ["n00", "n02", "n03"]
    assert all("control variates" in why for why in aggregate.left_out.values())
    with pytest.raises(InvalidParameter, match="there is none"):
        Scaffold().aggregate(model, bad, Scaffold().start(model))


@pytest.mark.parametrize("options", [{"rate": 0.0}, {"rate": 11.0}, {"participation": 0.0}])
def test_options_that_make_no_sense_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        Scaffold(**options)
