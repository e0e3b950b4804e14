import io
import json
import os
import pty
import sys
import termios
import time
from collections.abc import Iterator
from typing import Any

import pytest
from rich.console import Console, Group

from fedd.cli import top

A = "12D3KooWCQdKCjTSiHZLAbwdsqb1SrPiU1fMFVSz4D3kSVmWvjGy"
B = "12D3KooWGdvygq9fz4szfmiS9a4u8H3bmXXRQaav6a5g9z19VTxZ"
C = "12D3KooWHdvygq9fz4szfmiS9a4u8H3bmXXRQaav6a5g9z19VTxZ"

STATUS = {
    "name": "a\x1b[2J",
    "federation": "plant7",
    "uptime_s": 300.0,
    "rss_bytes": 40 * 2**20,
    "cpu_s": 3.0,
    "runs_active": 1,
}
FOR_NOBODY = {"rtt_ms": None, "last_heard_s": None, "since_s": 60.0, "reason": ""}
MEMBERS = [
    {"peer_id": A, "name": "a", "state": "alive", "link": "self", **FOR_NOBODY},
    {
        "peer_id": B,
        "name": "b",
        "state": "alive",
        "link": "direct",
        "rtt_ms": 0.25,
        "last_heard_s": 0.5,
        "since_s": 50.0,
        "reason": "reachable",
    },
    {**FOR_NOBODY, "peer_id": C, "name": "c", "state": "dead", "link": "indirect", "reason": "closed"},
]


def link(peer: str, name: str, streams: dict[str, int]) -> dict[str, Any]:
    return {
        "peer_id": peer,
        "name": name,
        "age_s": 9.0,
        "rtt_ms": 0.5,
        "bytes_in": 2048,
        "bytes_out": 4096,
        "bytes_in_per_s": 100.0,
        "bytes_out_per_s": 200.0,
        "streams": streams,
    }


LINKS = [link(B, "b", {"/fedd/presence/1.0.0": 1, "/x": 2}), link(B, "b", {}), link("12D3stranger", "", {})]
RUNS = [
    {
        "run_id": "0123abcdef",
        "algorithm": "mean",
        "state": "running",
        "round": 3,
        "rounds": 9,
        "members": [A, B],
        "started_s_ago": 5.0,
    }
]


@pytest.fixture(autouse=True)
def _daemon(fedctl: Any) -> None:
    fedctl.answer("GET", "/v1/status", STATUS)
    fedctl.answer("GET", "/v1/members", [dict(member) for member in MEMBERS])
    fedctl.answer("GET", "/v1/links", LINKS)
    fedctl.answer("GET", "/v1/runs", RUNS)


def test_one_look(fedctl: Any) -> None:
    code, out, err = fedctl("top", "--count", "1")
    assert (code, err) == (0, "")
    first, second, empty, heading, *rows = out.splitlines()
    assert first == ("a\\x1b[2J in plant7   up 5 min   memory 40.0 MiB   cpu -   in 300 B/s   out 600 B/s")
    assert second == "members: 1 dead, 2 alive, 1 stranger   links: 2   streams: 3   runs: 1 active"
    assert (empty, rows[4]) == ("", "")
    assert heading.split() == list(top.MEMBER_HEADINGS)
    found = [" ".join(row.split()) for row in rows]
    assert found[:4] == [
        f"a {A[:16]} alive 60 s - self - - - - - - -",
        f"c {C[:16]} dead 60 s its links were closed - - - - - - - -",
        f"b {B[:16]} alive 50 s - direct 0.25 ms 0.5 s 4.0 KiB 200 B 8.0 KiB 400 B 3",
        "- 12D3stranger stranger 9 s - direct 0.5 ms - 2.0 KiB 100 B 4.0 KiB 200 B 0",
    ]
    assert found[5:] == [
        "RUN ALGORITHM STATE ROUND MEMBERS STARTED",
        "0123abcd mean running 3/9 2 5 s ago",
    ]


def test_json_is_a_document_a_look(fedctl: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def later(pause_s: float) -> None:
        assert 0 < pause_s <= 3
        fedctl.answer("GET", "/v1/status", STATUS | {"uptime_s": 310.0, "cpu_s": 3.5})

    monkeypatch.setattr("fedd.cli.top.time.sleep", later)
    code, out, err = fedctl("top", "--count", "2", "--interval", "3", "--json")
    assert (code, err) == (0, "")
    first, second, end = [json.loads(line) for line in out.splitlines()]
    assert end == {"kind": "end"}
    assert first.keys() == {"status", "cpu_percent", "members", "runs"}
    assert (first["cpu_percent"], second["cpu_percent"]) == (None, 5.0)
    assert first["members"][2] == MEMBERS[1] | {
        "bytes_in": 4096,
        "bytes_out": 8192,
        "bytes_in_per_s": 200.0,
        "bytes_out_per_s": 400.0,
        "streams": 3,
    }
    assert first["members"][0]["bytes_in"] is None


def test_a_restarted_daemon_has_no_processor_time_yet(fedctl: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def restart(pause_s: float) -> None:
        fedctl.answer("GET", "/v1/status", STATUS | {"uptime_s": 1.0, "cpu_s": 0.5})

    monkeypatch.setattr("fedd.cli.top.time.sleep", restart)
    last = fedctl("top", "--count", "2", "--json")[1].splitlines()[1]
    assert json.loads(last)["cpu_percent"] is None


def test_it_goes_on_until_interrupted(fedctl: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(pause_s: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("fedd.cli.top.time.sleep", interrupt)
    code, out, err = fedctl("top")
    assert (code, err) == (130, "fedctl: interrupted\n")
    assert out.count("NAME") == 1


@pytest.mark.parametrize(
    ("option", "why"),
    [
        ("--interval=0.4", "--interval is 0.4 s - it is at least 0.5"),
        ("--interval=nan", "--interval is nan s - it is at least 0.5"),
        ("--count=0", "--count is 0 - it is at least 1"),
    ],
)
def test_what_it_does_not_do(fedctl: Any, option: str, why: str) -> None:
    assert fedctl("top", option) == (2, "", f"fedctl: {why}\n")


def test_a_picture_is_cut_to_the_terminal_and_says_so() -> None:
    members = [
        {**MEMBERS[0], "bytes_in": None, "streams": None, "name": f"m{number}"} for number in range(30)
    ]
    for member in members:
        member |= dict.fromkeys(["bytes_out", "bytes_in_per_s", "bytes_out_per_s"])
    picture = {"status": STATUS, "cpu_percent": 1.0, "members": members, "runs": []}
    console = Console(file=io.StringIO(), width=60, height=10, force_terminal=True)
    console.print(Group(top._drawn(picture, 10)))
    lines = console.file.getvalue().splitlines()
    assert len(lines) == 10
    assert "q quits   25 more lines do not fit" in lines[-1]
    assert "m4" in lines[-2]


def test_the_dead_are_red() -> None:
    client: Any = type("Client", (), {"request": lambda self, method, path: ANSWERS[path]})()
    console = Console(file=io.StringIO(), width=150, height=20, force_terminal=True, color_system="standard")
    console.print(top._drawn(top.look(client), 20))
    text = console.file.getvalue()
    assert f"\x1b[31mc     {C[:16]}  dead" in text


ANSWERS = {
    "/v1/status": STATUS,
    "/v1/members": [dict(member) for member in MEMBERS],
    "/v1/links": LINKS,
    "/v1/runs": RUNS,
}


@pytest.fixture
def keyboard(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """What is written there is typed."""
    typing, terminal = pty.openpty()
    with os.fdopen(terminal) as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        yield typing
    os.close(typing)


def test_q_quits(keyboard: int) -> None:
    with top._keys() as pause:
        os.write(keyboard, b"xyq")
        started_s = time.monotonic()
        assert pause(30.0)
        assert time.monotonic() - started_s < 10


def test_other_keys_do_not(keyboard: int) -> None:
    with top._keys() as pause:
        os.write(keyboard, b"x")
        assert not pause(0.01)


def test_the_keyboard_is_given_back_as_it_was(keyboard: int) -> None:
    before = termios.tcgetattr(sys.stdin)

    def interrupted() -> None:
        with top._keys():
            assert termios.tcgetattr(sys.stdin) != before
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert termios.tcgetattr(sys.stdin) == before


def test_on_a_terminal_it_draws_until_q(fedctl: Any, keyboard: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def look(*arguments: Any) -> top.Picture:
        os.write(keyboard, b"q")
        return really_look(*arguments)

    really_look = top.look
    monkeypatch.setattr("fedd.cli.top.look", look)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    code, out, err = fedctl("top", "--interval", "60")
    assert (code, err) == (0, "")
    assert "q quits" in out
