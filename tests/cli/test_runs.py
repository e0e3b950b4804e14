import io
import json
from typing import Any

import pytest
from rich.console import Console

from fedd.api.errors import NotFound, Unhealthy
from fedd.cli.live import BARS, MAX_CURVES, Picture, follow, sparkline

RUN = "3f9a" * 16
WATCH = f"/v1/runs/{RUN}/watch"
A, B, C = (letter * 44 for letter in "abc")
RESULT = {
    "run_id": RUN,
    "algorithm": "consensus",
    "state": "finished",
    "value": 21.5,
    "contributors": [A, B],
    "dropped": [{"peer_id": C, "round": 12, "reason": "dead"}],
    "joined": [],
    "rounds": 24,
    "residual": 0.0,
    "epoch": 1,
    "degraded": False,
    "bytes_in": 4096,
    "bytes_out": 100,
    "wall_s": 0.5,
    "metrics": {"residual": 0.0, "loss": 0.25},
}
PROGRESS = {
    "kind": "progress",
    "round": 3,
    "residual": 1e-3,
    "members": [A, B, C],
    "dropped": [],
    "metrics": {},
}


@pytest.fixture
def started(fedctl: Any) -> Any:
    fedctl.answer("POST", "/v1/runs", {"run_id": RUN, "members": [A, B, C], "declined": []})
    fedctl.answer("GET", WATCH, [PROGRESS, {**RESULT, "kind": "result"}])
    fedctl.answer("GET", "/v1/members", [{"peer_id": A, "name": "alice"}, {"peer_id": B, "name": ""}])
    return fedctl


def test_run_prints_the_result_and_nothing_else(started: Any) -> None:
    assert started("--json", "run", "consensus", "--input", "temp") == (0, json.dumps(RESULT) + "\n", "")
    code, out, err = started("run", "consensus", "--input", "temp")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "consensus finished - run 3f9a3f9a3f9a"
    assert lines[1].split() == ["value", "21.5"]
    assert lines[2].split(maxsplit=1) == ["contributors", f"2: alice, {B[:16]}"]
    assert lines[3].split(maxsplit=1) == ["dropped", f"{C[:16]} in round 12: dead"]
    assert "loss          0.25" in lines
    assert out.count("residual") == 1
    assert started.asked("POST")[0][1] == {"algorithm": "consensus", "parameters": {}, "input": "temp"}


def test_every_option_reaches_the_daemon(started: Any) -> None:
    code, _, _ = started(
        *("run", "consensus", "a=1", "--input", "x", "b=x=y", "--topology", "ring", "--members", "a, b,"),
        *("--quorum", "60%", "--contract", "survivors", "--seed", "7", "--pace", "0.5", "--open", "c="),
    )
    assert code == 0
    assert started.asked("POST")[0][1] == {
        "algorithm": "consensus",
        "parameters": {"a": "1", "b": "x=y", "c": ""},
        "input": "x",
        "topology": "ring",
        "members": ["a", "b"],
        "quorum": "60%",
        "contract": "survivors",
        "open": True,
        "seed": 7,
        "pace_s": 0.5,
    }
    started("run", "consensus", "--quorum", "3")
    assert started.asked("POST")[1][1]["quorum"] == 3


@pytest.mark.parametrize(
    "arguments", [("x",), ("=1",), ("a=1", "a=2"), ("--members", ","), ("a=1", "--seed", "x")]
)
def test_what_cannot_be_asked_is_wrong_usage(started: Any, arguments: tuple[str, ...]) -> None:
    code, out, err = started("run", "consensus", *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert started.asked("POST") == []


def test_detached_only_the_id_is_printed(started: Any) -> None:
    assert started("run", "consensus", "--detach") == (0, RUN + "\n", "")
    assert json.loads(started("run", "consensus", "--detach", "--json")[1]) == {"run_id": RUN}
    assert WATCH not in dict(started.asked("GET"))


def test_who_declined_is_told_on_standard_error(started: Any) -> None:
    started.answer(
        "POST", "/v1/runs", {"run_id": RUN, "declined": [{"peer_id": C, "reason": "no input 'x'"}]}
    )
    code, out, err = started("--json", "run", "consensus")
    assert (code, err) == (0, f"fedctl: {C[:16]} declined: no input 'x'\n")
    assert json.loads(out) == RESULT


def test_a_failed_run_is_exit_one_with_result_and_reason(started: Any) -> None:
    failed = {**RESULT, "state": "failed", "value": None, "error": "no sensor; plug it in", "kind": "result"}
    started.answer("GET", WATCH, [failed])
    code, out, err = started("--json", "run", "consensus")
    assert (code, json.loads(out)["error"]) == (1, "no sensor; plug it in")
    assert err == "fedctl: run 3f9a3f9a3f9a failed: no sensor; plug it in\n"
    _, out, err = started("run", "consensus")
    assert "no sensor" not in out  # said once, on stderr
    assert err == "fedctl: run 3f9a3f9a3f9a failed: no sensor; plug it in\n"
    started.answer("GET", WATCH, [{**RESULT, "state": "stopped", "degraded": True, "kind": "result"}])
    code, out, err = started("run", "consensus")
    assert (code, "degraded" in out, err) == (
        1,
        True,
        "fedctl: run 3f9a3f9a3f9a stopped: a member ended it with `fedctl stop`\n",
    )


def test_a_watch_without_result_asks_for_it(started: Any) -> None:
    started.answer("GET", WATCH, [PROGRESS])
    started.answer("GET", f"/v1/runs/{RUN}", RESULT)
    assert json.loads(started("--json", "run", "consensus")[1]) == RESULT


def test_an_interrupted_run_goes_on(started: Any) -> None:
    started.answer("GET", WATCH, [PROGRESS, KeyboardInterrupt()])
    code, out, err = started("run", "consensus")
    assert (code, out) == (130, "")
    assert err == (
        "fedctl: interrupted; run 3f9a3f9a3f9a goes on - "
        "`fedctl stop 3f9a3f9a3f9a` ends it, `fedctl watch 3f9a3f9a3f9a` follows it\n"
    )
    started.answer("POST", "/v1/runs", KeyboardInterrupt())
    code, _, err = started("run", "consensus")
    assert (code, "withdrawn" in err) == (130, True)


def test_watch_prints_each_item_for_scripts(started: Any) -> None:
    started.answer("GET", "/v1/runs/3f/watch", [PROGRESS, {**RESULT, "kind": "result"}])
    code, out, _ = started("watch", "3f", "--json")
    items = [json.loads(line) for line in out.splitlines()]
    assert (code, [item["kind"] for item in items]) == (0, ["progress", "result", "end"])
    code, out, _ = started("watch", "3f")
    assert (code, out.splitlines()[0]) == (0, "consensus finished - run 3f9a3f9a3f9a")
    started.answer("GET", "/v1/runs/3f/watch", [PROGRESS, Unhealthy("the daemon is gone")])
    assert started("watch", "3f", "--json")[0] == 8


def test_runs_show_and_stop(started: Any) -> None:
    runs = [
        {
            "run_id": RUN,
            "algorithm": "max",
            "state": "running",
            "round": 3,
            "rounds": 3,
            "members": 3,
            "started_s_ago": 4,
        },
        {
            "run_id": RUN,
            "algorithm": "min",
            "state": "failed",
            "round": None,
            "rounds": 0,
            "members": [A],
            "started_s_ago": None,
        },
    ]
    started.answer("GET", "/v1/runs", runs)
    started.answer("GET", "/v1/runs/3f", RESULT)
    started.answer("GET", "/v1/runs/none", NotFound("there is no run 'none' here"))
    started.answer("POST", "/v1/runs/3f/stop", {"run_id": RUN, "state": "stopping"})
    assert json.loads(started("runs", "--json")[1]) == runs
    lines = started("runs")[1].splitlines()
    assert lines[1].split() == ["3f9a3f9a3f9a", "max", "running", "3", "3", "4", "s", "ago"]
    assert lines[2].split() == ["3f9a3f9a3f9a", "min", "failed", "-", "1", "-"]
    assert json.loads(started("show", "3f", "--json")[1]) == RESULT
    assert "21.5" in started("show", "3f")[1]
    assert started("show", "none")[0] == 5
    started.answer("POST", "/v1/runs/3f/members", {"run_id": RUN, "peer_id": B})
    assert json.loads(started("enlist", "3f", "bob", "--json")[1]) == {"run_id": RUN, "peer_id": B}
    assert started("enlist", "3f", "bob")[1] == "bob is let into run 3f9a3f9a3f9a\n"
    assert json.loads(started("stop", "3f", "--json")[1]) == {"run_id": RUN, "state": "stopping"}
    assert started("stop", "3f")[1] == "run 3f9a3f9a3f9a is stopping\n"


def test_on_a_terminal_the_run_is_shown_as_it_goes(started: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    told = {"algorithm": "consensus", "members": [A], "topology": "ring", "seed": 1, "prediction": {}}
    started.answer("POST", "/v1/predictions", told)
    code, out, _ = started("run", "consensus")
    assert code == 0
    assert "finished" in out
    assert "1.00e-03" in out


def text_of(picture: Picture) -> str:
    file = io.StringIO()
    Console(file=file, width=100).print(picture.draw())
    return file.getvalue()


def test_the_picture_shows_round_residual_members_and_metrics() -> None:
    picture = Picture({C: "carol"})
    assert "waiting for the first round" in text_of(picture)
    picture.add({**PROGRESS, "residual": None})
    assert "residual" not in text_of(picture)
    for number in range(100):
        picture.add({**PROGRESS, "round": number, "residual": 10.0**-number})
    picture.add(
        {
            **PROGRESS,
            "round": 100,
            "members": 2,
            "residual": "inf",
            "dropped": [{"peer_id": C, "round": 12, "reason": "dead\x1b[2J"}],
            "metrics": {"loss": 0.25, "residual": 7.5},
        }
    )
    text = text_of(picture)
    assert "round     100" in text
    assert "1.00e-99" in text
    assert "2 in" in text
    assert "out: carol in round 12 (dead\\x1b[2J)" in text
    assert "loss 0.25" in text
    assert "7.5" not in text


def test_each_metric_has_a_curve_and_members_of_one_are_named() -> None:
    picture = Picture({C: "carol"})
    for number in range(20):
        accuracy = {C: number / 20, "12D3KooWunknown": 0.5}
        metrics = {"loss": 2.0**-number, "accuracy": accuracy, "ok": True, "phase": "train", "empty": {}}
        picture.add({**PROGRESS, "round": number, "residual": None, "metrics": metrics})
    text = text_of(picture)
    assert "loss      1.91e-06  ██" in text
    assert "accuracy  0.725     ▁" in text
    assert "carol 0.95  12D3KooWunknown 0.5" in text
    assert "phase train" in text
    assert "residual" not in text


def test_a_run_with_many_metrics_has_few_curves() -> None:
    picture = Picture({})
    for number in range(3):
        metrics = {f"m{index}": 1.0 + number for index in range(40)}
        picture.add({**PROGRESS, "round": number, "residual": None, "metrics": metrics})
    assert text_of(picture).count("▁") == MAX_CURVES
    assert "m39 3" in text_of(picture).replace("\n", " ")


def test_following_returns_the_result() -> None:
    console = Console(file=io.StringIO())
    items = [{"kind": "lagged"}, PROGRESS, {**RESULT, "kind": "result"}]
    assert follow(items, {}, console) == RESULT
    assert follow([], {}, console) == {}


def test_sparklines_are_logarithmic() -> None:
    assert sparkline([1.0, 1e-4, 1e-8]) == BARS[8] + BARS[5] + BARS[1]
    assert sparkline([float("inf"), 1.0, 0.0, float("nan")]) == BARS[8] + BARS[1] + BARS[0] + BARS[8]
    assert sparkline([0.0, 0.0]) == "  "
    assert sparkline([]) == ""


def test_epochs_and_who_joined_are_shown(started: Any) -> None:
    joined = [{"peer_id": A, "epoch": 2, "round": 7}]
    started.answer("GET", "/v1/runs/3f", {**RESULT, "epoch": 3, "joined": joined})
    shown = started("show", "3f")[1]
    assert "alice in round 7, epoch 2" in shown
    assert f"{RESULT['rounds']} in 3 epochs" in shown
