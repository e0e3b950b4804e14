"""What a worker says of a run that nobody was asked to join yet."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
from worker import strangers
from worker.lone_worker import Worker, workers

from fedd.api import InvalidMessage, InvalidParameter, Message, RunContext
from fedd.core import codec
from fedd.core.topology import build
from fedd.worker.context import RunStart
from fedd.worker.prediction import MAX_MEMBERS, of_algorithm, of_graph

SEER = '''
from dataclasses import dataclass
from typing import ClassVar
from fedd.api import hookimpl, InvalidParameter

@dataclass(frozen=True)
class Seer:
    """Sees its input."""
    name: ClassVar[str] = "seer"
    kind: str = ""

    def predict(self, ctx):
        if self.kind == "refuses":
            raise InvalidParameter("not on this graph", field="topology")
        if self.kind == "breaks":
            raise RuntimeError("the crystal is dull")
        return {"seen": ctx.input, "neighbors": len(ctx.neighbors), "first": ctx.me}

    async def run(self, ctx):
        return ctx.input

@hookimpl
def fedd_register_algorithms():
    return [Seer]
'''


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("site")
    strangers.install(
        directory,
        {"good": "good_plugin", "seer": "seer_plugin"},
        {"good_plugin": strangers.GOOD, "seer_plugin": SEER},
    )
    return directory


@pytest.fixture
def worker(site: Path) -> Any:
    with workers(site) as make:
        yield make


def test_a_worker_foresees_then_runs_on_what_it_has_read(worker: Callable[[], Worker]) -> None:
    one = worker().start("seer", "seer", kind="predict")
    assert one.next("predicted").header["prediction"] == {
        "edges": 2,
        "messages": 4,
        "diameter": 2,
        "spectral_gap": pytest.approx(1 / 3),
        "mixing_rounds": 35,
        "seen": 20.5,
        "neighbors": 2,
        "first": "p0",
    }
    one.start("seer", "seer", input={"kind": "value", "value": 1.0, "name": "x"})  # the first one counts
    assert codec.decode(one.next("result").body[0]) == 20.5
    one.end()


def test_without_a_word_of_the_algorithm_the_graph_is_told_if_asked_for(worker: Callable[[], Worker]) -> None:
    one = worker().start(kind="predict")
    assert one.next("predicted").header["prediction"] == {}
    one.start(kind="predict", graph=True)
    assert set(one.next("predicted").header["prediction"]) >= {"edges", "spectral_gap"}
    one.send({"kind": "stop"})
    one.end()


def test_a_broken_seer_hinders_no_run_and_a_refusing_one_does(worker: Callable[[], Worker]) -> None:
    broken = worker().start("seer", "seer", kind="predict", parameters={"kind": "breaks"})
    assert "the crystal is dull" in broken.next("predicted").header["prediction"]["error"]
    broken.start("seer", "seer")
    assert broken.next("result").header["contributors"]
    broken.end()
    refusing = worker().start("seer", "seer", kind="predict", parameters={"kind": "refuses"})
    failed = refusing.next("failed").header
    assert (failed["code"], failed["detail"], failed["field"]) == ("invalid", "not on this graph", "topology")
    refusing.end()


def test_an_input_that_cannot_be_read_is_told_both_times(worker: Callable[[], Worker]) -> None:
    bad = {"kind": "file", "fd": 0, "format": "csv", "path": "x.csv"}  # its standard input is empty
    one = worker().start("seer", "seer", kind="predict", input=bad)
    assert one.next("predicted").header["prediction"]["error"] == "x.csv is empty"
    one.start("seer", "seer", input=bad)
    assert one.next("failed").header["detail"] == "x.csv is empty"
    one.end()


@dataclass(frozen=True)
class Odd:
    """Says what it was told to."""

    name: ClassVar[str] = "odd"
    said: Any = None

    def predict(self, ctx: RunContext) -> Mapping[str, Any]:
        if self.said is None:
            raise SystemExit("enough")
        if callable(self.said):
            self.said(ctx)
        return {"x": self.said}

    async def run(self, ctx: RunContext) -> Message:
        raise AssertionError("nothing runs")


def start(members: int = 3) -> RunStart:
    names = [f"p{number}" for number in range(members)]
    return RunStart("r", "p0", build("ring", names, 0), 1, 0, 2, 1000)


async def foresee(algorithm: Any, device: Callable[[], Any] = lambda: (None, None)) -> Any:
    return await of_algorithm(algorithm, start(), device, None)


async def test_only_metrics_are_foreseen_and_nobody_is_reached() -> None:
    assert await foresee(Odd(1)) == {"x": 1}
    with pytest.raises(InvalidParameter, match="x is no number"):
        await foresee(Odd([1]))
    with pytest.raises(InvalidParameter, match="needs the others, as sign"):
        await foresee(Odd(lambda ctx: ctx.sign(b"x").send(None)))
    with pytest.raises(InvalidParameter, match="no learner"):
        await foresee(Odd(lambda ctx: ctx.learner))
    assert "x" in await foresee(Odd(7.5))
    assert "enough" in (await foresee(Odd()))["error"]
    assert await foresee(object()) == {}

    def unreadable() -> Any:
        raise InvalidMessage("row 3 is text")

    assert await foresee(Odd(1), unreadable) == {"error": "row 3 is text"}


def test_a_graph_says_what_is_known_of_it() -> None:
    swap = "edges:undirected\na,b,1.0"
    assert "mixing_rounds" not in of_graph(build(swap, ["a", "b"], 0))
    alone = of_graph(build("complete", ["a"], 0))
    assert alone == {"edges": 0, "messages": 0}
    many = of_graph(build("ring", [f"{number:04d}" for number in range(MAX_MEMBERS + 1)], 0))
    assert many == {"edges": MAX_MEMBERS + 1, "messages": 2 * MAX_MEMBERS + 2}
