"""Learners as inputs of a simulated run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fedd.api import Message, RunContext
from fedd.testing import Device, Federation, Kill
from fedd_learners import NumpySoftmax, Softmax

RNG = np.random.default_rng(0)
DATA: Message = {"x": RNG.normal(size=(40, 3)), "y": RNG.integers(0, 2, 40)}


@dataclass(frozen=True)
class Averaged:
    """Trains, averages, evaluates."""

    name: ClassVar[str] = "averaged"

    async def run(self, ctx: RunContext) -> Message:
        result = await ctx.learner.train(epochs=2)
        models = await ctx.exchange(ctx.learner.parameters())
        mine = ctx.learner.parameters()
        ctx.learner.load([
            np.mean([own, *(model[index] for model in models.values())], axis=0, dtype=own.dtype)
            for index, own in enumerate(mine)
        ])  # fmt: skip
        told = await ctx.learner.evaluate()
        return {"samples": result.num_samples, "loss": told["loss"], "model": ctx.learner.parameters()[0]}


def test_a_device_is_prepared_for_each_run_and_left_as_it_was() -> None:
    devices = [Device(NumpySoftmax(), DATA), Device(NumpySoftmax(), DATA)]
    first, second, other = (Federation(2, seed=seed).run(Averaged(), devices) for seed in (1, 1, 2))
    for result in first:
        assert result.error is None
        assert result.value["samples"] == 40
    assert first[0].value["model"].tobytes() == first[1].value["model"].tobytes()
    assert first[0].value["model"].tobytes() == second[0].value["model"].tobytes()  # the seed decides
    assert first[0].value["model"].tobytes() != other[0].value["model"].tobytes()
    assert not hasattr(devices[0].learner, "_model")


def test_a_bare_learner_is_used_as_it_is() -> None:
    learner = Softmax()
    learner.prepare(DATA, np.random.default_rng(0))
    (result,) = Federation(1).run(Averaged(), [learner])
    assert np.array_equal(result.value["model"], learner.parameters()[0])
    assert learner.parameters()[0].any()


def test_without_a_learner_the_algorithm_is_told_how_to_get_one() -> None:
    (result,) = Federation(1).run(Averaged(), [5.0])
    assert "this run's input names no learner" in str(result.error)
    assert "[inputs.NAME]" in str(result.error)


def test_a_devices_data_is_the_runs_input() -> None:
    @dataclass(frozen=True)
    class Shows:
        name: ClassVar[str] = "shows"

        async def run(self, ctx: RunContext) -> Message:
            return ctx.input["y"]

    (result,) = Federation(1).run(Shows(), [Device(Softmax(), DATA)])
    assert np.array_equal(result.value, DATA["y"])


def test_each_epoch_begins_with_a_learner_of_its_own() -> None:
    @dataclass(frozen=True)
    class Restarts:
        name: ClassVar[str] = "restarts"
        contract: ClassVar[str] = "restart"

        async def run(self, ctx: RunContext) -> Message:
            start = ctx.learner.parameters()[0]
            for _ in range(4):
                await ctx.learner.train(epochs=1)
                await ctx.exchange(None)
            return [ctx.epoch, start, ctx.learner.parameters()[0]]

    federation = Federation(4, topology="complete", kills=[Kill(3, 2)])
    survivors = federation.run(Restarts(), [Device(NumpySoftmax(), DATA)] * 4)[:3]
    for epoch, start, end in (result.value for result in survivors):
        assert epoch == 2
        assert not start.any()
        assert end.any()
