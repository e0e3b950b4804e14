"""A worker process with this device's learner, and the aggregators that its owner allows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from worker import strangers
from worker.lone_worker import MEMBERS, Worker, workers

from fedd.core import codec
from fedd.testing import Device, Federation

LEARNING = '''
import threading
from dataclasses import dataclass
from typing import ClassVar
import numpy as np
from fedd.api import Aggregate, InvalidMessage, LocalTraining, TrainResult, hookimpl

@dataclass
class Net:
    """Counts its training."""
    name: ClassVar[str] = "net"
    rate: float = 0.5
    slow: str = ""

    def __post_init__(self):
        if self.rate > 1:
            raise ValueError("rate must be at most 1")

    def prepare(self, data, rng):
        if data == "bad":
            raise InvalidMessage("bad data")
        self.w = np.array([float(data), rng.random()])

    def parameters(self): return [self.w.copy()]
    def load(self, parameters): self.w = parameters[0].copy()
    def train(self, *, epochs=0, steps=0):
        if self.slow:
            open(self.slow, "w").close()
            threading.Event().wait()
        self.w[0] += epochs * self.rate
        return TrainResult(3, epochs)
    def evaluate(self): return {"loss": float(self.w[0])}

@dataclass(frozen=True)
class First:
    """Takes the first."""
    name: ClassVar[str] = "first"
    mean: ClassVar[bool] = False
    index: int = 0

    def start(self, model): return []
    def aggregate(self, model, contributions, state): return Aggregate(list(contributions[self.index].model))
    def before(self, model, state, own): return LocalTraining()
    def after(self, model, trained, result, state, own): return [], []

@dataclass(frozen=True)
class Learns:
    """Trains once."""
    name: ClassVar[str] = "learns"
    aggregator: str = ""

    async def run(self, ctx):
        if self.aggregator:
            return ctx.aggregator(self.aggregator, {"index": 2}).index
        result = await ctx.learner.train(epochs=2)
        return [result.num_samples, ctx.learner.parameters()[0], await ctx.learner.evaluate(), ctx.input]

@hookimpl
def fedd_register_algorithms(): return [Learns]
@hookimpl
def fedd_register_learners(): return [Net]
@hookimpl
def fedd_register_aggregators(): return [First]
'''


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("site")
    points = {"good": "good_plugin", "learning": "learning_plugin", "broken": "broken_plugin"}
    modules = {
        "good_plugin": strangers.GOOD,
        "learning_plugin": LEARNING,
        "broken_plugin": "import sys; sys.exit(7)",
    }
    strangers.install(directory, points, modules)
    return directory


@pytest.fixture
def spawn(site: Path) -> Iterator[Callable[[], Worker]]:
    with workers(site) as spawned:
        yield spawned


def learner(data: Any = 4.0, **more: Any) -> dict[str, Any]:
    return {"kind": "learner", "name": "x", "learner": "net", "plugin": "learning", "options": {},
            "data": {"kind": "value", "name": "x", "value": data}, **more}  # fmt: skip


def test_a_run_gets_this_devices_learner_and_data(spawn: Callable[[], Worker]) -> None:
    values = []
    for options in ({"rate": 0.25}, {}):
        worker = spawn().start("learns", "learning", input=learner(options=options))
        values.append(codec.decode(worker.next("result").body[0], max_bytes=1000))
        worker.end()
    for (samples, model, metrics, given), expected in zip(values, (4.5, 5.0), strict=True):
        weights = np.frombuffer(model.data)
        assert (samples, weights[0], metrics, given) == (3, expected, {"loss": expected}, 4.0)
    drawn = {value[1].data[8:] for value in values}
    assert len(drawn) == 1  # the randomness of run, node and epoch

    class Draws:
        name = "draws"

        def prepare(self, data: object, rng: np.random.Generator) -> None:
            self.drawn = rng.random()

        def parameters(self) -> list[Any]:
            return [np.array([self.drawn])]

    class Shows:
        name = "shows"

        async def run(self, ctx: Any) -> Any:
            return ctx.learner.parameters()[0]

    simulated = Federation(MEMBERS, seed=5).run(Shows(), [Device(Draws(), None)] * 3)
    assert drawn == {simulated[0].value.tobytes()}  # the same in a simulated run


@pytest.mark.parametrize(
    ("given", "code", "said"),
    [
        (learner("bad"), "invalid_message", "the learner net: bad data"),
        (learner("x"), "plugin_failed", "the learner net failed in prepare: ValueError"),
        (learner(options={"rate": 2.0}), "invalid", "net: rate must be at most 1"),
        (learner(options={"rat": 2.0}), "invalid", "net has no parameter 'rat'"),
        (learner(learner="nett"), "not_found", "the plugin learning has no learner nett"),
        (learner(plugin="broken"), "plugin_failed", "SystemExit"),
        ({"kind": "value", "value": 3}, "invalid", "this run's input names no learner"),
    ],
)
def test_a_learner_that_does_not_fit(
    spawn: Callable[[], Worker], given: dict[str, Any], code: str, said: str
) -> None:
    worker = spawn().start("learns", "learning", input=given)
    failed = worker.next("failed").header
    assert failed["code"] == code, failed
    assert said in failed["detail"]
    worker.end()


def test_a_learners_options_are_checked_before_anybody_is_asked(spawn: Callable[[], Worker]) -> None:
    worker = spawn().start("learns", "learning", kind="check", input=learner(options={"rate": 2.0}))
    assert worker.next("failed").header["field"] == "rate"
    worker.end()
    worker = spawn().start("learns", "learning", kind="check", input=learner(data="bad"))
    worker.next("checked")
    worker.start("learns", "learning", input=learner())
    worker.next("result")
    worker.end()


@pytest.mark.parametrize(
    ("allowed", "said"),
    [
        (None, ""),
        ({"first": "learning"}, ""),
        ({"last": "learning"}, "no aggregator 'first' here that the policy allows"),
        ({"fist": "learning"}, "no aggregator 'first' here that the policy allows"),
        ({"first": "good"}, "the plugin good has no aggregator first"),
    ],
)
def test_the_aggregators_that_the_owner_allows(
    spawn: Callable[[], Worker], allowed: dict[str, str] | None, said: str
) -> None:
    worker = spawn().start("learns", "learning", parameters={"aggregator": "first"}, aggregators=allowed)
    if said:
        failed = worker.next("failed").header
        assert failed["code"] == "not_found"
        assert said in failed["detail"]
    else:
        assert codec.decode(worker.next("result").body[0], max_bytes=100) == 2
    worker.end()


def test_a_stopped_run_does_not_wait_for_its_training(spawn: Callable[[], Worker], tmp_path: Path) -> None:
    began = tmp_path / "began"
    worker = spawn().start("learns", "learning", input=learner(options={"slow": str(began)}))
    while not began.exists():
        assert worker.process.poll() is None
    worker.send({"kind": "stop", "reason": "stopped"})
    assert worker.next("failed").header["code"] == "stopped"
    worker.end()
