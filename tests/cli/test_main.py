import io
import os
import subprocess
import sys
from typing import Any

import pytest

from fedd.api.errors import Conflict, Denied, FeddError, InvalidParameter, NotFound, TimedOut, Unhealthy
from fedd.cli import main as cli
from fedd.cli.parser import build_parser
from fedd.cli.table import COMMANDS
from fedd.control.client import NoDaemon
from fedd.control.schema import ROUTES

STATUS = {
    "peer_id": "12D3KooWCQdKCjTS",
    "name": "a",
    "version": "0.1.0",
    "federation": None,
    "addresses": ["/ip4/127.0.0.1/tcp/1"],
    "uptime_s": 3.0,
    "rss_bytes": 40 * 2**20,
    "members": {"alive": 3, "suspect": 0, "dead": 1, "left": 0},
    "runs_active": 0,
    "plugins": ["consensus"],
}


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (FeddError("it broke"), 1),
        (InvalidParameter("wrong"), 2),
        (NoDaemon("nobody"), 3),
        (Denied("no"), 4),
        (NotFound("none"), 5),
        (TimedOut("late"), 6),
        (Conflict("twice"), 7),
        (Unhealthy("ill"), 8),
        (KeyboardInterrupt(), 130),
    ],
)
def test_each_error_has_its_exit_status_and_one_line(fedctl: Any, error: BaseException, status: int) -> None:
    fedctl.answer("GET", "/v1/status", error)
    code, out, err = fedctl("status")
    assert (code, out) == (status, "")
    assert err.startswith("fedctl: ")
    assert err.count("\n") == 1


def test_the_hint_follows_the_detail(fedctl: Any) -> None:
    fedctl.answer("GET", "/v1/status", NotFound("no run 'x'", hint="see `fedctl runs`"))
    assert fedctl("status")[2] == "fedctl: no run 'x' - see `fedctl runs`\n"


def test_what_a_peer_says_cannot_steer_the_terminal(fedctl: Any) -> None:
    fedctl.answer("GET", "/v1/status", NotFound("evil\x1b[2J\nname"))
    assert fedctl("status")[2] == "fedctl: evil\\x1b[2J\\nname\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "COMMAND"),
        (("staus",), "did you mean status?"),
        (("xyzzy",), "there is no command 'xyzzy'"),
        (("status", "--jsn"), "--jsn"),
        (("--sockt", "x", "status"), "--sockt"),
        (("status", "more"), "status does not understand more - see `fedctl status --help`"),
        (("set", "x", "1e999"), "1e999 is too large"),
        (("show", ""), "'' is no name"),
        (("show", "\udcff"), "is not UTF-8"),
        (("invite", "--uses", "two"), "invalid int value: 'two'"),
        (("run",), "required: ALGORITHM - see `fedctl run --help`"),
        (("run", "consensus", "--topologie", "ring"), "--topologie"),
        (("run", "consensus", "--input", "x", "word"), "word"),
        (("stat",), "there is no command 'stat'"),
    ],
)
def test_wrong_usage_is_two_and_one_line(fedctl: Any, arguments: tuple[str, ...], said: str) -> None:
    code, out, err = fedctl(*arguments)
    assert (code, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1


def test_the_socket_and_json_may_stand_before_or_after_the_command(fedctl: Any) -> None:
    fedctl.answer("GET", "/v1/status", STATUS)
    _, out, _ = fedctl("--socket", "x.sock", "--json", "status")
    assert fedctl("status", "--json", "--socket", "x.sock")[1] == out
    assert fedctl("--socket=x.sock", "status", "--json")[1] == out
    assert fedctl.client.asked[0] == ("CONNECT", "x.sock", None, 5.0)
    fedctl("status")
    assert fedctl.client.asked[-2][3] == 0.0


def test_the_environment_names_the_socket(fedctl: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDD_SOCKET", "/y.sock")
    fedctl.answer("GET", "/v1/status", STATUS)
    fedctl("status")
    assert fedctl.client.asked[0][1] == "/y.sock"


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_the_help_of_every_command_teaches_by_examples_that_parse(fedctl: Any, command: Any) -> None:
    code, out, _ = fedctl(command.name, "--help")
    assert code == 0
    assert "examples:" in out
    examples = [
        line for line in command.examples.splitlines() if line.strip().startswith(f"fedctl {command.name}")
    ]
    assert examples
    for example in examples:
        words = [word.strip("'") for word in example.split("#")[0].split("|")[0].split()[1:]]
        build_parser(words).parse_known_args(words)


def test_the_help_names_every_command(fedctl: Any) -> None:
    _, out, _ = fedctl("--help")
    for command in COMMANDS:
        assert f" {command.name} " in out
    assert "130 interrupted" in out


def test_the_short_parser_and_the_whole_one_agree() -> None:
    for command in COMMANDS:
        whole = build_parser().parse_known_args
        words = [command.name] + [
            argument.options.get("choices", ["1"])[0]
            for argument in command.arguments
            if not argument.flags[0].startswith("-") and "nargs" not in argument.options
        ]
        for argument in command.arguments:
            words += [argument.flags[0], "1"] if argument.options.get("required") else []
        assert build_parser(words).parse_known_args(words) == whole(words)


def test_every_route_is_reached_by_a_command() -> None:
    options = {"pending", "revoked", "unrevoke", "root_export", "root_import", "root_remove"}
    options |= {"predict"}  # fedctl run --dry-run
    reached = {command.name for command in COMMANDS} | options
    one_each = {"algorithm", "command", "learner", "aggregator"}
    exported = {"history", "value"}
    operations = {route.operation for route in ROUTES} - {"version"} - one_each - exported
    assert operations <= reached


def test_a_poor_locale_shows_what_it_can(fedctl: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(raw, encoding="ascii"))
    fedctl.answer("GET", "/v1/inputs", [{"name": "\u65e5", "kind": "value", "value": 1}])
    assert cli.main(["inputs"]) == 0
    assert b"\\u65e5" in raw.getvalue()


def test_a_closed_pipe_is_the_end() -> None:
    script = """
import sys
from fedd.cli import main as cli
class Client:
    def __init__(self, *a, **k): pass
    def __enter__(self): return self
    def __exit__(self, *a): pass
    def request(self, *a, **k): return []
    def stream(self, *a, **k):
        while True: yield {"seq": 1, "kind": "node", "unix_s": 0.0, "what": "x" * 1000}
cli.Client = Client
sys.exit(cli.main(["events"]))
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline().startswith("    1 ")
    process.stdout.close()
    assert process.wait(60) == 0
    assert process.stderr.read() == ""
    process.stderr.close()


def test_status_loads_nothing_heavy() -> None:
    script = """
import sys
from fedd.cli.main import main
main(["status"])
heavy = {"trio", "rich", "numpy", "pluggy", "cbor2", "cryptography", "difflib", "asyncio", "http", "email"}
heavy |= {"shutil", "subprocess", "logging", "h11", "dataclasses", "inspect", "ast", "fedd.control.requests"}
print(sorted(heavy & set(sys.modules)))
"""
    environ = {**os.environ, "FEDD_SOCKET": "/nowhere/fedd.sock"}
    environ.pop("COVERAGE_PROCESS_START", None)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environ
    )
    assert done.stdout == "[]\n"
