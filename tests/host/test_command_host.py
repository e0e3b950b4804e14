"""The plugin host process: what a handler does to it, and what that does to the others."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import trio
from host.command_plugins import HANGS, TIMES, document_of, host_of, install, running
from waiting import until
from worker import strangers

from fedd.api.errors import (
    FeddError,
    InvalidMessage,
    InvalidParameter,
    PluginFailed,
    ProtocolError,
    TimedOut,
)
from fedd.core import codec
from fedd.core.command_messages import encode_value, read_answer
from fedd.host.command_call import Call, Page
from fedd.host.command_host import STRIKES, CommandHost, spawn_host
from fedd.host.plugins import PluginRegistry
from fedd.host.worker_process import WorkerProcess

ME, OTHER = "12D3me", "12D3other"


class Around:
    """The daemon around a plugin host."""

    def __init__(self) -> None:
        self.me = ME
        self.who = [(ME, "a", "alive"), (OTHER, "b", "suspect")]
        self.events: list[tuple[str, str, Any]] = []
        self.troubles: list[tuple[str, str]] = []
        self.asked: list[tuple[str | None, str, Any]] = []
        self.steered: list[tuple[str, str, Any]] = []

    def members(self) -> list[tuple[str, str, str]]:
        return self.who

    async def ask(self, peer: str | None, command: str, parameters: memoryview) -> bytes:
        self.asked.append((peer, command, codec.decode(parameters)))
        if command == "nothing":
            raise InvalidParameter("no", field="text")
        if command == "never":
            await trio.sleep_forever()
        return encode_value({"delivered": [ME], "missing": [OTHER]} if peer is None else "heard")

    async def steer(self, sender: str, what: str, fields: memoryview) -> bytes:
        given = codec.decode(fields)
        self.steered.append((sender, what, given))
        if given.get("input") == "nothing":
            raise InvalidParameter("no", field="input")
        answers = {"runs": [["f" * 40, "mean", "running"]], "inputs": {"x": "toy"}, "start": "f" * 40}
        return encode_value(answers.get(what))

    def event(self, call: Call, text: str, fields: Mapping[str, Any]) -> None:
        self.events.append((call.info.name, text, dict(fields)))

    def trouble(self, plugin: str, error: str) -> None:
        self.troubles.append((plugin, error))


class Bench:
    """A plugin host with the test's plugins."""

    def __init__(self, host: CommandHost, registry: PluginRegistry, around: Around) -> None:
        self.host = host
        self.registry = registry
        self.around = around

    async def call(self, command: str, /, sender: str = OTHER, **parameters: Any) -> Any:
        with trio.fail_after(30):
            answer = await self.host.call(self.registry.command(command), sender, codec.encode(parameters))
        return read_answer(answer, 1 << 24)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def document(site: Path) -> bytes:
    return document_of(site)


async def bench_of(site: Path, document: bytes, scratch: Path) -> Bench:
    async def inspector() -> bytes:
        return document

    registry = PluginRegistry(None, inspector)
    await registry.load()
    around = Around()
    return Bench(CommandHost(str(scratch), around, TIMES, host_of(site)), registry, around)


@pytest.fixture
async def bench(site: Path, document: bytes, tmp_path: Path) -> AsyncIterator[Bench]:
    made = await bench_of(site, document, tmp_path)
    async with running(made.host):
        yield made


async def test_a_handler_knows_who_sent_it_and_who_is_there(bench: Bench) -> None:
    assert not bench.host.running
    answer = await bench.call("echo", text="hi", times=2, mode="loud")
    assert answer == {"from": OTHER, "at": ME, "text": "HIHI", "states": ["alive", "suspect"]}
    bench.around.who[1] = (OTHER, "b", "dead")
    bench.host.members_changed()
    assert (await bench.call("echo", text="hi"))["states"] == ["alive", "dead"]
    assert bench.host.running


async def test_arrays_come_as_numpy(bench: Bench) -> None:
    ones = codec.ArrayView("float64", (2,), b"\0\0\0\0\0\0\xf0\x3f" * 2)
    answer = await bench.call("weights", arrays=[ones, ones], scale=[1, 2], contributors=[ME])
    assert (answer["sum"], answer["contributors"]) == (4.0, [ME])
    assert answer["scaled"].tolist() == [2, 4]


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("raise", "ValueError: the sensor is on fire"),
        ("deny", "not you"),
        ("exit", "SystemExit: 3"),
        ("group", "several"),
        ("object", "object cannot travel"),
        ("large", "its answer would have more than 65536 bytes"),
        ("deep", "nests deeper"),
        ("events", "up to 16 events"),
    ],
)
async def test_a_handler_that_fails_costs_its_own_call(bench: Bench, how: str, said: str) -> None:
    with pytest.raises(FeddError, match=said):
        await bench.call("bad", how=how)
    assert (await bench.call("echo", text="on"))["text"] == "on"
    assert bench.around.troubles == []
    assert len(bench.around.events) == (16 if how == "events" else 0)


async def test_parameters_are_judged_by_the_class(bench: Bench) -> None:
    with pytest.raises(InvalidParameter, match="times must be at least 1") as caught:
        await bench.call("echo", text="x", times=0)
    assert caught.value.field == "times"


async def test_a_handler_that_is_late_is_cancelled(bench: Bench) -> None:
    assert await bench.call("sleeps", seconds=0.01) == "rested"
    with pytest.raises(TimedOut, match="sleeps did not end in time"):
        await bench.call("sleeps")
    assert bench.around.troubles == []


@pytest.mark.parametrize(
    ("how", "error", "said", "told"),
    [
        ("_exit", PluginFailed, "ended with status 3", "ended with status 3"),
        ("segfault", PluginFailed, "was killed by SIGSEGV", "was killed by SIGSEGV"),
        ("_exit at once", PluginFailed, "ended with status 3", "ended with status 3"),
        (
            "block at once",
            TimedOut,
            "did not end within 0.5 s and was killed",
            "kept the plugin host to itself",
        ),
        ("loop", TimedOut, "did not end within 0.5 s and was killed", "kept the plugin host to itself"),
        ("block", TimedOut, "did not end within 0.5 s and was killed", "kept the plugin host to itself"),
        ("shield", TimedOut, "did not end within 0.5 s and was killed", "after it was cancelled"),
        ("garbage", PluginFailed, "send nonsense", "send nonsense"),
    ],
)
async def test_a_handler_that_takes_the_process_along_is_named(
    bench: Bench, how: str, error: type[FeddError], said: str, told: str
) -> None:
    command = "stuck" if error is TimedOut else "bad"
    with pytest.raises(error, match=said):
        await bench.call(command, how=how)
    ((plugin, trouble),) = bench.around.troubles
    assert plugin == "bad"
    assert told in trouble
    assert f"its command {command}" in trouble
    assert (await bench.call("echo", text="on"))["text"] == "on"


async def test_the_calls_beside_a_crash(bench: Bench) -> None:
    """One that had begun is told whose fault it is; one that had not is handled by the next process."""
    await bench.call("echo", text="warm")
    outcomes: dict[str, Any] = {}

    async def note(name: str, command: str, /, **parameters: Any) -> None:
        try:
            outcomes[name] = await bench.call(command, **parameters)
        except FeddError as error:
            outcomes[name] = error

    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: note("under way", "forward", peer=OTHER, command="never"))
        await until(lambda: bench.around.asked)
        nursery.start_soon(lambda: note("blocks", "stuck", how="block"))
        session = bench.host._session
        assert session is not None
        await until(lambda: len(session._calls) == 2 and all(call.begun for call in session._calls.values()))
        nursery.start_soon(lambda: note("waits", "echo", text="me too"))
    assert isinstance(outcomes["blocks"], FeddError)
    assert "kept the plugin host to itself" in str(outcomes["blocks"])
    assert isinstance(outcomes["under way"], PluginFailed)
    assert "a handler of the plugin bad" in outcomes["under way"].detail
    assert "send it again if that does no harm" in outcomes["under way"].hint
    assert outcomes["waits"]["text"] == "me too"
    assert len(bench.around.troubles) == 1


class Babbler:
    """A process that has done what it was told, and of which nothing is heard but nonsense."""

    last_line = ""

    def __init__(self) -> None:
        self._told = trio.Event()

    def send(self, header: Mapping[str, Any], body: Sequence[bytes]) -> None:
        if header["kind"] == "call":
            self._told.set()

    async def run(self, take: object) -> str:
        await self._told.wait()
        raise ProtocolError("garbage")


async def test_what_may_have_begun_before_nonsense_is_not_done_again(bench: Bench, tmp_path: Path) -> None:
    processes: list[Babbler] = []

    async def spawn(scratch: str, page: Page) -> Any:
        processes.append(Babbler())
        return processes[-1]

    bench.host = CommandHost(str(tmp_path), bench.around, TIMES, spawn)
    async with running(bench.host):
        with pytest.raises(PluginFailed, match="the handler of echo made the plugin host send nonsense"):
            await bench.call("echo", text="once")
    assert len(processes) == 1


async def test_three_crashes_in_a_row_disable_a_plugin(bench: Bench) -> None:
    for _ in range(STRIKES - 1):
        with pytest.raises(PluginFailed):
            await bench.call("bad", how="_exit")
    assert await bench.call("bad", how="well") == "good"  # not in a row any more
    for _ in range(STRIKES):
        with pytest.raises(PluginFailed, match="ended with status 3"):
            await bench.call("bad", how="_exit")
    assert "disabled until a reload" in bench.around.troubles[-1][1]
    with pytest.raises(PluginFailed, match="the plugin bad is disabled"):
        await bench.call("bad", how="well")
    assert (await bench.call("echo", text="on"))["text"] == "on"
    bench.host.reload()
    assert await bench.call("bad", how="well") == "good"


async def test_a_handler_can_send_and_broadcast(bench: Bench) -> None:
    assert await bench.call("forward", peer=OTHER, command="echo", text="hi") == "heard"
    assert await bench.call("forward", peer="all", command="echo", text="hi") == [[ME], [OTHER]]
    assert bench.around.asked == [(OTHER, "echo", {"text": "hi"}), (None, "echo", {"text": "hi"})]
    with pytest.raises(InvalidParameter, match="no"):
        await bench.call("forward", peer=OTHER, command="nothing")


async def test_a_handler_starts_and_stops_runs(bench: Bench) -> None:
    found = await bench.call("runner", input="x")
    assert found == {"started": "f" * 40, "runs": [["f" * 40, "mean", "running"]], "inputs": {"x": "toy"}}
    begun = {"algorithm": "mean", "parameters": {"rounds": 3}, "input": "x", "topology": "", "quorum": ""}
    assert bench.around.steered == [
        (OTHER, "start", begun),
        (OTHER, "runs", {}),
        (OTHER, "inputs", {}),
        (OTHER, "stop", {"run_id": "f" * 40}),
    ]
    with pytest.raises(InvalidParameter, match="no"):
        await bench.call("runner", input="nothing")
    with pytest.raises(InvalidMessage, match="65536 bytes"):
        await bench.call("runner", input="x" * 65_500)


async def test_a_handler_writes_events(bench: Bench) -> None:
    await bench.call("log", text="the pump runs", count=2)
    assert bench.around.events == [("log", "the pump runs", {"number": n}) for n in range(2)]


async def test_a_caller_that_gives_up_ends_the_handler(bench: Bench) -> None:
    await bench.call("echo", text="warm")
    with trio.move_on_after(0.2) as scope:
        await bench.call("sleeps")
    assert scope.cancelled_caught
    session = bench.host._session
    assert session is not None
    await until(lambda: not session._calls)
    assert bench.host.running


async def test_a_plugin_that_never_finishes_to_import(tmp_path: Path, site: Path, document: bytes) -> None:
    broken = tmp_path / "site"
    strangers.install(
        broken, {"good": "good_commands", "bad": "bad_commands"},
        {"good_commands": (site / "good_commands.py").read_text(), "bad_commands": HANGS},
    )  # fmt: skip
    bench = await bench_of(broken, document, tmp_path / "scratch")
    async with running(bench.host):
        outcomes: list[str] = []

        async def echo() -> None:
            outcomes.append((await bench.call("echo", text="on"))["text"])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(echo)
            with pytest.raises(PluginFailed, match="did not finish to import"):
                await bench.call("bad")
        assert outcomes == ["on"]
    assert bench.around.troubles[0][0] == "bad"


async def test_the_process_is_told_its_walls_when_it_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    page = Page()

    async def spawn(scratch: str, max_frame_bytes: int, fds: Sequence[int], command: Sequence[str]) -> None:
        told = ("-I", "-m", "fedd.worker", "--hide", "/state", "--own", scratch, "commands")
        assert (fds, command[1:]) == ((page.descriptor,), (*told, str(page.descriptor)))
        raise PluginFailed("seen")

    monkeypatch.setattr(WorkerProcess, "spawn", spawn)
    with pytest.raises(PluginFailed, match="seen"):
        await spawn_host("/own", page, lambda: ("--hide", "/state"))
    page.close()
