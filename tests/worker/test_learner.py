"""A run's learner: everything it is given and gives is checked, and what it raises is said to be its own."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
import pytest
import trio

from fedd.api import InvalidMessage, InvalidParameter, Message, NotFound, PluginFailed, TrainResult
from fedd.api.learner import Learner
from fedd.worker import learner as module
from fedd.worker.abilities import abilities
from fedd.worker.inputs import read_input
from fedd.worker.learner import LearnerSource, LentLearner, learner_source, rng_name


@dataclass
class Mean:
    """Learns the mean of its data."""

    name: ClassVar[str] = "mean"
    rate: float = 0.5
    answers: dict[str, Any] = field(default_factory=dict, init=False)

    def prepare(self, data: Message, rng: np.random.Generator) -> None:
        if not isinstance(data, list):
            raise InvalidMessage("a list is needed", hint="give one", field="value")
        self.data = np.array(data, float)
        self.rng = rng
        self.w = np.zeros(1)

    def _answer(self, what: str, good: Any) -> Any:
        found = self.answers.get(what, good)
        if isinstance(found, BaseException):
            raise found
        return found

    def parameters(self) -> list[Any]:
        return self._answer("parameters", [self.w.copy()])

    def load(self, parameters: Sequence[Any]) -> None:
        self.w = parameters[0].copy()

    def train(
        self,
        *,
        epochs: int = 0,
        steps: int = 0,
        step: float | None = None,
        correction: Sequence[Any] | None = None,
        proximal: float = 0.0,
    ) -> TrainResult:
        self.asked = {"epochs": epochs, "steps": steps, "step": step, "proximal": proximal}
        for _ in range(epochs + steps):
            self.w += (step or self.rate) * (self.data.mean() - self.w)
        good = TrainResult(len(self.data), epochs + steps, self.rate, {"loss": np.float32(0.5)})
        return self._answer("train", good)

    def gradient(self, *, batch: int = 0) -> list[Any]:
        return self._answer("gradient", [self.w - self.data.mean()])

    def objective(self) -> float:
        return self._answer("objective", float(((self.w - self.data) ** 2).mean()))

    def evaluate(self) -> dict[str, float]:
        return self._answer("evaluate", {"loss": 1})


@dataclass
class Plain:
    """Can do the least."""

    name: ClassVar[str] = "plain"

    def prepare(self, data: Message, rng: np.random.Generator) -> None:
        pass

    def parameters(self) -> list[Any]:
        return [np.zeros(2, np.float32)]

    def load(self, parameters: Sequence[Any]) -> None:
        pass

    def train(self, *, epochs: int = 0, steps: int = 0) -> TrainResult:
        return TrainResult(1, epochs)

    def evaluate(self) -> dict[str, float]:
        return {}


class Anything(Plain):
    def train(self, **asked: Any) -> TrainResult:
        return TrainResult(1, 1)


async def lent(threads: bool = False, **answers: Any) -> LentLearner:
    made = LentLearner(Mean(), threads=threads)
    made._learner.answers.update(answers)
    await made.prepare([1.0, 3.0], np.random.default_rng(0))
    return made


def test_abilities_are_read_off_the_class() -> None:
    assert abilities(Mean) == {"gradient", "objective", "correction", "proximal", "step"}
    assert abilities(Plain) == frozenset()
    assert abilities(Anything) == {"correction", "proximal", "step"}

    class Inherits(Learner):
        name: ClassVar[str] = "inherits"

    assert abilities(Inherits) == {
        "correction",
        "proximal",
        "step",
    }  # of the protocol's train, not its methods
    assert abilities(int) == frozenset()

    class InC:
        train = int

    assert abilities(InC) == frozenset()


async def test_what_is_missing_is_said() -> None:
    plain = LentLearner(Plain(), threads=False)
    plain.require()
    with pytest.raises(InvalidParameter, match="plain of this device has no gradient and no step") as caught:
        plain.require("gradient", "step")
    assert "fedctl learners" in caught.value.hint
    with pytest.raises(InvalidParameter, match="no learner has the ability 'magic'"):
        plain.require("magic")
    for call in (plain.gradient, plain.objective):
        with pytest.raises(InvalidParameter, match=f"has no {call.__name__}"):
            call()
    with pytest.raises(InvalidParameter, match="has no step"):
        await plain.train(epochs=1, step=0.1)
    with pytest.raises(InvalidParameter, match="has no correction"):
        await plain.train(epochs=1, correction=[np.zeros(2, np.float32)])
    with pytest.raises(InvalidParameter, match="has no proximal"):
        await plain.train(epochs=1, proximal=0.1)
    assert (await plain.train(epochs=3)).steps == 3
    assert plain.name == "plain"


@pytest.mark.parametrize("threads", [False, True])
async def test_a_learner_learns(threads: bool) -> None:
    made = await lent(threads)
    result = await made.train(steps=1, step=1.0)
    assert (result.num_samples, result.steps, result.step, result.metrics) == (2, 1, 0.5, {"loss": 0.5})
    assert made.parameters()[0].tolist() == [2.0]
    assert made.gradient()[0].tolist() == [0.0]
    assert made.objective() == 1.0
    made.load([np.array([5.0])])
    assert made.gradient(batch=1)[0].tolist() == [3.0]
    assert await made.evaluate() == {"loss": 1.0}
    await made.train(epochs=2, correction=[np.ones(1)], proximal=0.25)
    assert made._learner.asked == {"epochs": 2, "steps": 0, "step": None, "proximal": 0.25}


async def test_a_learner_may_train_in_the_arrays_that_it_gets() -> None:
    class Keeps(Mean):
        def load(self, parameters: Sequence[Any]) -> None:
            self.w = parameters[0]

    made = LentLearner(Keeps(), threads=False)
    await made.prepare([1.0, 3.0], np.random.default_rng(0))
    given = np.zeros(1)
    given.flags.writeable = False  # as one that came in a message
    made.load([given])
    await made.train(epochs=1)
    assert made.parameters()[0].tolist() == [1.0]
    assert given.tolist() == [0.0]


@pytest.mark.parametrize("value", [1e300, -1e308, 5e-324])
async def test_a_value_may_be_so_large_that_its_square_is_none(value: float) -> None:
    made = await lent()
    with np.errstate(all="raise"):
        made.load([np.array([value])])
    assert made.parameters()[0].tolist() == [value]


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ([], "has 0 arrays, its own has 1"),
        ([np.zeros(2)], r"is float64\(2,\), its own is float64\(1,\)"),
        ([np.zeros(1, np.float32)], r"is float32\(1,\), its own is float64\(1,\)"),
        ([[0.0]], r"is NoneNone, its own"),
        ([np.array([np.nan])], "not finite"),
        ([np.array([np.inf])], "not finite"),
    ],
)
async def test_a_model_of_another_shape_or_without_sense_is_refused(model: Any, said: str) -> None:
    made = await lent()
    with pytest.raises(InvalidMessage, match=said) as caught:
        made.load(model)
    assert caught.value.hint
    with pytest.raises(InvalidMessage, match=said):
        await made.train(epochs=1, correction=model)
    assert made.parameters()[0].tolist() == [0.0]


@pytest.mark.parametrize(
    "asked",
    [{}, {"epochs": 1, "steps": 1}, {"epochs": -1}, {"steps": -1}, {"epochs": 1, "steps": -1},
     {"epochs": 1, "step": 0.0}, {"epochs": 1, "step": float("nan")}, {"epochs": 1, "step": float("inf")},
     {"epochs": 1, "proximal": -1.0}, {"epochs": 1, "proximal": float("nan")},
     {"epochs": 1, "proximal": float("inf")}],
)  # fmt: skip
async def test_a_training_that_makes_no_sense_is_refused(asked: dict[str, Any]) -> None:
    made = await lent()
    with pytest.raises(InvalidParameter, match="a training"):
        await made.train(**asked)
    with pytest.raises(InvalidParameter, match="a batch of -1"):
        made.gradient(batch=-1)


async def call(made: LentLearner, what: str) -> None:
    if what == "train":
        await made.train(epochs=1)
    elif what == "evaluate":
        await made.evaluate()
    else:
        getattr(made, what)()


@pytest.mark.parametrize(
    ("what", "answer", "said"),
    [
        ("train", None, "its train returned NoneType, not a TrainResult"),
        ("train", TrainResult(-1, 1), "num_samples -1"),
        ("train", TrainResult(True, 1), "num_samples True"),
        ("train", TrainResult(2, 1.5), "steps 1.5"),
        ("train", TrainResult(2, 1, -0.1), "step size -0.1"),
        ("train", TrainResult(2, 1, float("nan")), "step size nan"),
        ("train", TrainResult(2, 1, "x"), "its train is 'x', no number"),
        ("train", TrainResult(2, 1, metrics=[]), "no dictionary"),
        ("train", TrainResult(2, 1, metrics={"loss": "x"}), "its train, loss is 'x', no number"),
        ("train", ValueError("too wild"), "failed in train: ValueError: too wild"),
        ("evaluate", [], "no dictionary"),
        ("evaluate", {str(n): n for n in range(99)}, "up to 32 numbers"),
        ("evaluate", {"loss": None}, "its evaluate, loss is None"),
        ("evaluate", KeyError("gone"), "failed in evaluate: KeyError: 'gone'"),
        ("gradient", [], "no list of 1 to"),
        ("gradient", 3, "no list of 1 to"),
        ("gradient", [np.zeros(3)], "other shapes than its parameters"),
        ("gradient", [np.zeros(1, int)], "holds int64"),
        ("gradient", [1.0], "holds float"),
        ("gradient", ZeroDivisionError(), "failed in gradient: ZeroDivisionError"),
        ("objective", "low", "its objective is 'low', no number"),
        ("objective", RuntimeError("no"), "failed in objective: RuntimeError: no"),
        ("parameters", [], "no list of 1 to"),
        ("parameters", [np.zeros(1)] * 5000, "no list of 1 to 4096"),
        ("parameters", [np.zeros(1, np.longdouble)], "holds float128"),
    ],
)
async def test_what_a_learner_does_wrong_is_its_authors(what: str, answer: Any, said: str) -> None:
    made = await lent(**{what: answer})
    with pytest.raises(PluginFailed, match="the learner mean") as caught:
        await call(made, what)
    assert said in caught.value.detail
    assert caught.value.hint


async def test_a_model_that_changes_its_shape_is_its_authors_fault() -> None:
    made = await lent()
    made.parameters()
    made._learner.answers["parameters"] = [np.zeros(2)]
    with pytest.raises(PluginFailed, match="changed their shapes"):
        made.parameters()


@pytest.mark.parametrize("threads", [False, True])
async def test_data_that_does_not_fit_is_not_the_plugins_fault(threads: bool) -> None:
    source = LearnerSource(Mean, "rows", threads=threads)
    with pytest.raises(InvalidMessage) as caught:
        await source.lend(np.random.default_rng(0))
    assert str(caught.value) == "the learner mean: a list is needed (give one)"
    assert caught.value.field == "value"


async def test_each_loan_is_a_learner_of_its_own() -> None:
    source = LearnerSource(Mean, [1.0, 2.0], threads=False)
    first, second = [await source.lend(np.random.default_rng(0)) for _ in range(2)]
    await first.train(epochs=1)
    assert second.parameters()[0].tolist() == [0.0]
    assert (rng_name(1), rng_name(2)) == ("learner/1", "learner/2")


class Slow(Plain):
    """Trains until it is told to end."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.may_end = threading.Event()
        self.running = 0

    def train(self, *, epochs: int = 0, steps: int = 0) -> TrainResult:
        self.running += 1
        self.begun.set()
        assert self.may_end.wait(30)
        self.running -= 1
        return TrainResult(1, 1)

    def evaluate(self) -> dict[str, float]:
        return {"running": self.running}


async def test_a_stopped_run_does_not_wait_for_a_training() -> None:
    slow = Slow()
    made = LentLearner(slow, threads=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: made.train(epochs=1))
        await trio.to_thread.run_sync(slow.begun.wait, 30)
        nursery.cancel_scope.cancel()
    assert slow.running == 1  # it goes on in its thread, and nobody waits for it

    async with trio.open_nursery() as nursery:
        found: list[dict[str, float]] = []

        async def evaluate() -> None:
            found.append(await made.evaluate())

        nursery.start_soon(evaluate)
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert not found
        slow.may_end.set()
    assert found == [{"running": 0.0}]  # one call at a time


async def test_the_loop_goes_on_while_it_trains() -> None:
    slow = Slow()
    made = LentLearner(slow, threads=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: made.train(epochs=1))
        await trio.to_thread.run_sync(slow.begun.wait, 30)
        assert made.at_work
        slow.may_end.set()
    assert not made.at_work


@dataclass
class Choosy(Plain):
    """Has options."""

    name: ClassVar[str] = "choosy"
    rate: float = 0.5
    mode: Literal["a", "b"] = "a"

    def __post_init__(self) -> None:
        if self.rate > 1:
            raise ValueError("rate must be at most 1")


def handle(**more: Any) -> dict[str, Any]:
    return {"kind": "learner", "name": "x", "learner": "choosy", "plugin": "p", "options": {},
            "data": {"kind": "value", "value": [1, 2]}, **more}  # fmt: skip


def test_the_daemons_handle_becomes_a_source(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []

    def find(name: str, plugin: str) -> type[Any]:
        asked.append((name, plugin))
        return Choosy

    monkeypatch.setattr(module, "find_learner", find)
    given = handle(options={"rate": 0.25, "mode": "b"})
    assert read_input(given) == [1, 2]
    source = learner_source(given, [1, 2])
    assert source is not None
    assert source.make() == Choosy(rate=0.25, mode="b")
    assert (source.data, source.threads, asked) == ([1, 2], True, [("choosy", "p")])
    for options in ({"rate": 2.0}, {"mode": "c"}, {"rat": 1}):
        with pytest.raises(InvalidParameter, match=r"choosy|mode"):
            learner_source(handle(options=options), None)
    assert learner_source(None, None) is None
    assert learner_source({"kind": "value", "value": 1}, 1) is None
    assert read_input(handle(data={"kind": "none"})) is None


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (NotFound("no such plugin"), NotFound),
        (ImportError("no module"), PluginFailed),
        (SystemExit(1), PluginFailed),
    ],
)
def test_a_plugin_that_does_not_import(
    monkeypatch: pytest.MonkeyPatch, raised: BaseException, expected: type[Exception]
) -> None:
    def find(name: str, plugin: str) -> type[Any]:
        raise raised

    monkeypatch.setattr(module, "find_learner", find)
    with pytest.raises(expected):
        learner_source(handle(), None)
