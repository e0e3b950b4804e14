from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import trio
from federation.daemons import GUARD_S
from stores import MemoryStore

from fedd.api.errors import Conflict, FeddError, InvalidParameter, NotFound, TimedOut
from fedd.host import input_command
from fedd.host import inputs as module
from fedd.host.input_command import MAX_OUTPUT_BYTES
from fedd.host.inputs import Inputs
from fedd.host.plugin_schema import LearnerInfo


def inputs(store: MemoryStore | None = None, **configured: dict[str, Any]) -> Inputs:
    return Inputs(configured, store or MemoryStore())


async def opened(made: Inputs, name: str) -> tuple[dict[str, Any], bytes]:
    with await made.open(name) as handle:
        content = b"".join(os.read(fd, 1 << 20) for fd in handle.fds)
    handle.close()
    return handle.description, content


async def test_a_constant_set_here_wins_and_survives() -> None:
    store = MemoryStore()
    made = inputs(store, temp={"value": 1.0})
    assert await opened(made, "temp") == ({"kind": "value", "name": "temp", "value": 1.0}, b"")
    made.set("temp", [[20.5]])
    assert (await opened(made, "temp"))[0]["value"] == [[20.5]]
    again = inputs(store, temp={"value": 1.0}, hum={"file": "/h.csv"}, cmd={"command": ("a", "b")})
    assert again.list() == [
        {"name": "cmd", "kind": "command", "source": "configuration", "command": ["a", "b"]},
        {"name": "hum", "kind": "file", "source": "configuration", "path": "/h.csv"},
        {"name": "temp", "kind": "value", "source": "set", "value": [[20.5]]},
    ]
    again.reload({"new": {"value": 2}})
    assert [item["name"] for item in again.list()] == ["new", "temp"]


@pytest.mark.parametrize(
    ("name", "value", "field"),
    [("", 1, "input"), ("a b", 1, "input"), ("-x", 1, "input"), ("x" * 65, 1, "input"),
     ("x", 1 << 70, "value"), ("x", {1: 2}, "value"), ("x", "y" * 70_000, "value")],
)  # fmt: skip
def test_what_cannot_be_set(name: str, value: Any, field: str) -> None:
    made = inputs()
    with pytest.raises(InvalidParameter) as caught:
        made.set(name, value)
    assert caught.value.field == field
    assert made.list() == []


def test_constants_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_CONSTANTS", 2)
    made = inputs()
    made.set("a", 1)
    made.set("b", 1)
    made.set("a", 2)
    with pytest.raises(InvalidParameter, match="2 constants"):
        made.set("c", 1)


@pytest.mark.parametrize("content", [b"{", b"[1]", b"\xff"])
def test_damaged_constants_are_set_aside(content: bytes) -> None:
    store = MemoryStore()
    store.files["inputs.json"] = content
    made = inputs(store)
    assert made.list() == []
    assert store.files["inputs.json.damaged"] == content


async def test_an_unknown_input_names_the_known() -> None:
    made = inputs(temp={"value": 1}, hum={"value": 2})
    with pytest.raises(NotFound, match="'tmp'") as caught:
        await made.open("tmp")
    assert "did you mean 'temp'? there are hum, temp" in caught.value.hint
    with pytest.raises(NotFound) as caught:
        inputs().check("x")
    assert "none is configured; make one with fedctl set x VALUE" in caught.value.hint


async def test_a_file_is_opened_here(tmp_path: Path) -> None:
    path = tmp_path / "table.CSV"
    path.write_bytes(b"1,2\n")
    made = inputs(rows={"file": str(path)})
    made.check("rows")
    description, content = await opened(made, "rows")
    assert content == b"1,2\n"
    assert description.pop("fd") > 2
    assert description == {"kind": "file", "name": "rows", "format": "csv", "path": str(path)}


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: None, "No such file"),
        (lambda path: path.mkdir(), "no regular file"),
        (lambda path: os.mkfifo(path), "no regular file"),
    ],
)
async def test_a_file_that_cannot_be_read(tmp_path: Path, make: Any, said: str) -> None:
    path = tmp_path / "x.csv"
    make(path)
    made = inputs(rows={"file": str(path)})
    for call in (made.open("rows"), trio.to_thread.run_sync(made.check, "rows")):
        with pytest.raises(InvalidParameter, match=said):
            await call


async def test_an_unknown_ending(tmp_path: Path) -> None:
    path = tmp_path / "rows.xlsx"
    path.touch()
    with pytest.raises(InvalidParameter, match="ending") as caught:
        await inputs(rows={"file": str(path)}).open("rows")
    assert ".csv" in caught.value.hint


@pytest.mark.parametrize(
    ("program", "kind", "content"),
    [
        ("print('[1, 2]')", "json", b"[1, 2]\n"),
        ("print('20.5')", "json", b"20.5\n"),
        ("print('1.5,2'); print('1,2')", "csv", b"1.5,2\n1,2\n"),
        ("print(' {' + ' ' * 5000 + '}')", "json", b" {" + b" " * 5000 + b"}\n"),
        ("print('1\\n' * 3000)", "csv", b"1\n" * 3000 + b"\n"),
        ("print('a,b'); print('1,2')", "csv", b"a,b\n1,2\n"),
        ("import sys; sys.stdout.buffer.write(b'\\x93NUMPY1')", "npy", b"\x93NUMPY1"),
    ],
)
async def test_a_command_is_run_to_its_end(program: str, kind: str, content: bytes) -> None:
    made = inputs(probe={"command": (sys.executable, "-c", program)})
    made.check("probe")
    description, output = await opened(made, "probe")
    assert output == content
    assert description["kind"] == "command"
    assert description["format"] == kind


@pytest.mark.parametrize(
    ("program", "error", "said"),
    [
        ("import sys; sys.exit('no sensor')", InvalidParameter, "status 1: no sensor"),
        ("import os; os._exit(7)", InvalidParameter, "status 7: it said nothing"),
        ("import time; time.sleep(60)", TimedOut, "did not end"),
        ("import os\nwhile True: os.write(1, bytes(1 << 20))", TimedOut, "did not end"),
    ],
)
async def test_a_command_that_fails(
    monkeypatch: pytest.MonkeyPatch, program: str, error: type[FeddError], said: str
) -> None:
    if error is TimedOut:  # the others need the time to start
        monkeypatch.setattr(input_command, "COMMAND_TIMEOUT_S", 1.0)
    made = inputs(probe={"command": (sys.executable, "-c", program)})
    with trio.fail_after(GUARD_S), pytest.raises(error, match=said):
        await made.open("probe")


async def test_a_command_that_says_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(input_command, "MAX_OUTPUT_BYTES", 10)
    made = inputs(probe={"command": (sys.executable, "-c", "print('x' * 1000)")})
    with pytest.raises(InvalidParameter, match="more than 10 bytes"):
        await made.open("probe")
    assert MAX_OUTPUT_BYTES > 10


async def test_a_program_that_does_not_exist() -> None:
    made = inputs(probe={"command": ("/no/such/program",)})
    with pytest.raises(NotFound, match="no program"):
        made.check("probe")
    with pytest.raises(InvalidParameter, match="cannot be run"):
        await made.open("probe")


class Known:
    """A registry with one learner."""

    def learner(self, name: str) -> LearnerInfo:
        if name != "net":
            raise NotFound(f"there is no learner {name!r} here", hint="did you mean 'net'?", field="learner")
        return LearnerInfo("net", "nets", "acme", "1", "", ())

    def check_options(self, learner: str, given: Mapping[str, Any]) -> dict[str, Any]:
        self.learner(learner)
        if {*given} - {"step"}:
            raise InvalidParameter("net has no option 'stpe'", hint="did you mean 'step'?", field="stpe")
        return dict(given)


def learning(learners: Any = None, **source: Any) -> Inputs:
    configured = {"digits": {"learner": "net", "options": {"step": 0.5}, **source}}
    return Inputs(configured, MemoryStore(), learners or Known())


async def test_a_learner_is_opened_with_its_data(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("1,2")
    found = learning(file=str(path))
    found.check("digits")
    with await found.open("digits") as handle:
        data = handle.description.pop("data")
        assert handle.description == {
            "kind": "learner", "name": "digits", "learner": "net", "plugin": "nets", "options": {"step": 0.5}
        }  # fmt: skip
        assert (data["kind"], data["format"]) == ("file", "csv")
        assert handle.fds == (data["fd"],)
        assert os.read(data["fd"], 9) == b"1,2"
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(data["fd"])
    assert found.list() == [
        {"name": "digits", "kind": "learner", "source": "configuration", "path": str(path), "learner": "net",
         "options": {"step": 0.5}}
    ]  # fmt: skip
    assert list(found.problems()) == []


async def test_a_learner_may_have_a_value_or_no_data() -> None:
    opened = await learning(value=[1, 2]).open("digits")
    assert opened.description["data"] == {"kind": "value", "name": "digits", "value": [1, 2]}
    opened = await learning().open("digits")
    assert opened.description["data"] == {"kind": "none"}
    assert learning().list()[0]["kind"] == "learner"


async def test_a_learner_that_cannot_be_used_says_so_everywhere(tmp_path: Path) -> None:
    for source, said, field in (
        ({"learner": "nett"}, "no learner 'nett'", "learner"),
        ({"options": {"stpe": 1}}, "no option 'stpe'", "stpe"),
    ):
        found = learning(value=1, **source)
        with pytest.raises((NotFound, InvalidParameter), match=said) as caught:
            found.check("digits")
        assert caught.value.detail.startswith("the input 'digits': ")
        with pytest.raises((NotFound, InvalidParameter), match=said):
            await found.open("digits")
        ((name, error),) = found.problems()
        assert (name, error.field) == ("digits", field)
        assert said in found.list()[0]["error"]
        assert "did you mean" in found.list()[0]["error"]
    with pytest.raises(InvalidParameter, match="cannot be opened"):
        learning(file=str(tmp_path / "missing.csv")).check("digits")


def test_no_constant_takes_the_place_of_a_learner() -> None:
    store = MemoryStore()
    Inputs({}, store).set("digits", 3)
    found = Inputs({"digits": {"learner": "net", "options": {}, "value": [1]}}, store, Known())
    assert found.list()[0]["kind"] == "learner"
    with pytest.raises(Conflict, match="'digits' is a learner"):
        found.set("digits", 4)


def test_without_a_registry_there_are_no_learners() -> None:
    found = Inputs({"digits": {"learner": "net", "options": {}}}, MemoryStore())
    with pytest.raises(NotFound, match="no learner is known here"):
        found.check("digits")
