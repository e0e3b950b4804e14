"""What fedctl says of a run before it is proposed."""

from __future__ import annotations

import json
from typing import Any

import pytest

RUN = "r" * 40
FORESEEN = {
    "edges": 8,
    "messages": 16,
    "diameter": 4,
    "spectral_gap": 0.195,
    "mixing_rounds": 64,
    "planned_bytes": 4096,
    "curvature": 2.5,
    "step_bound": 0.178,
    "step_bound_formula": "(1 + w) / L",
    "predicted_iterations": 310,
    "predicted_bytes": 1270,
    "warning": "step 3 is beyond\x1b 0.178",
}
TOLD = {
    "algorithm": "dgd",
    "members": [str(number) for number in range(8)],
    "topology": "ring",
    "seed": 7,
    "quorum": 5,
    "prediction": FORESEEN,
}
RESULT = {"run_id": RUN, "state": "finished", "algorithm": "dgd"}


@pytest.fixture
def started(fedctl: Any) -> Any:
    fedctl.answer("POST", "/v1/predictions", TOLD)
    fedctl.answer("POST", "/v1/runs", {"run_id": RUN, "declined": [], "prediction": FORESEEN})
    fedctl.answer("GET", f"/v1/runs/{RUN}/watch", [{**RUN_RESULT}])
    fedctl.answer("GET", "/v1/members", [])
    return fedctl


RUN_RESULT = {**RESULT, "kind": "result"}


def test_a_dry_run_starts_nothing(started: Any) -> None:
    code, out, err = started("run", "dgd", "step=3", "--topology", "ring", "--dry-run")
    assert code == 0
    assert err == "fedctl: warning: step 3 is beyond\\x1b 0.178\n"
    lines = [line.split(maxsplit=1) for line in out.splitlines()]
    assert out.startswith("dgd is foreseen, nothing is started\n")
    assert ["members", "8, quorum 5"] in lines
    assert "ring of 8 members: spectral gap 0.195, diameter 4, 64 rounds of averaging to 1e-6 (seed 7)" in out
    assert "16 in an exchange" in out
    assert "0.178 = (1 + w) / L, L the curvature here" in out
    assert ["iterations", "to", "1e-6", "310"] in [line.split() for line in out.splitlines()]
    assert "4.0 KiB from this node" in out
    assert started.asked("POST") == [
        ("/v1/predictions", {"algorithm": "dgd", "parameters": {"step": "3"}, "topology": "ring"})
    ]
    code, out, err = started("--json", "run", "dgd", "--dry-run")
    assert (code, json.loads(out)) == (0, TOLD)
    assert "warning" in err


def test_one_round_and_one_message_are_no_plural(fedctl: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    pair = {"spectral_gap": 1.0, "diameter": 1, "messages": 1, "mixing_rounds": 1.0}
    told = {**TOLD, "topology": "complete", "members": TOLD["members"][:2], "prediction": pair}
    fedctl.answer("POST", "/v1/predictions", told)
    fedctl.answer("POST", "/v1/runs", {"run_id": RUN, "declined": [], "prediction": pair})
    fedctl.answer("GET", f"/v1/runs/{RUN}/watch", [RUN_RESULT])
    fedctl.answer("GET", "/v1/members", [])
    line = fedctl("run", "consensus")[2].splitlines()[0]
    assert line.startswith("complete of 2 members: spectral gap 1, diameter 1, 1 round of averaging to 1e-6")
    assert line.endswith(", 1 message each")


def test_a_terminal_sees_it_before_the_run_is_proposed_and_keeps_the_seed(
    started: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    code, _, err = started("run", "dgd")
    assert code == 0
    lines = err.splitlines()
    assert lines[0].startswith("ring of 8 members: spectral gap 0.195")
    assert lines[0].endswith("16 messages each")
    assert lines[1].startswith("dgd: bytes planned 4.0 KiB from this node; curvature here 2.5; largest step")
    assert lines[2].startswith("fedctl: warning: step 3")
    assert err.count("warning") == 1
    paths = started.asked("POST")
    assert [path for path, _ in paths] == ["/v1/predictions", "/v1/runs"]
    assert paths[1][1]["seed"] == 7
    started("run", "dgd", "--seed", "9")
    assert started.asked("POST")[-1][1]["seed"] == 9


def test_a_graph_whose_averaging_never_ends_or_that_is_too_large_is_said_so(started: Any) -> None:
    turns = {"spectral_gap": 0.0, "diameter": 1, "messages": 2, "edges": 1, "error": "no luck"}
    started.answer("POST", "/v1/predictions", {**TOLD, "topology": "edges:a,b", "prediction": turns})
    _, out, err = started("run", "dgd", "--dry-run")
    assert "edges of a file of 8 members: spectral gap 0, diameter 1, averaging never ends" in out
    assert "not foreseen  no luck" in out
    assert err == ""
    started.answer("POST", "/v1/predictions", {**TOLD, "prediction": {}})
    assert started("run", "dgd", "--dry-run")[1].splitlines()[2].split() == ["graph", "ring"]


def test_nothing_foreseen_is_nothing_said(started: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    started.answer("POST", "/v1/predictions", {**TOLD, "prediction": {}})
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert "members" not in started("run", "dgd")[2]


def test_scripts_hear_the_warning_and_get_the_prediction_with_the_result(started: Any) -> None:
    code, out, err = started("--json", "run", "dgd")
    assert (code, err) == (0, "fedctl: warning: step 3 is beyond\\x1b 0.178\n")
    assert json.loads(out) == {**RESULT, "prediction": FORESEEN}
    assert [path for path, _ in started.asked("POST")] == ["/v1/runs"]
    code, out, err = started("--json", "run", "dgd", "--detach")
    assert json.loads(out) == {"run_id": RUN, "prediction": FORESEEN}
    assert "warning" in err
