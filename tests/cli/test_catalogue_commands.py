"""What fedctl shows of plugins, algorithms, learners, inputs and its own API; durations and values."""

from __future__ import annotations

from typing import Any

import pytest
from cli.test_commands import both

from fedd.api.errors import InvalidParameter
from fedd.cli.catalog import parse_value
from fedd.cli.federation import parse_duration
from fedd.cli.show import count_bytes, counted, escape, number, seconds, value_text


@pytest.mark.parametrize(
    ("text", "expected"), [("90", 90), ("90s", 90), ("1.5m", 90), ("2h", 7200), ("1d", 86_400)]
)
def test_durations(text: str, expected: float) -> None:
    assert parse_duration(text) == expected


@pytest.mark.parametrize("text", ["", "soon", "-1h", "1w", "1h30m", "h"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(InvalidParameter, match="no duration"):
        parse_duration(text)


def test_plugins(fedctl: Any) -> None:
    plugins = [
        {
            "plugin": "c",
            "name": "c",
            "distribution": "fedd",
            "version": "1",
            "algorithms": ["x", "y"],
            "allowed": True,
        },
        {
            "plugin": "s",
            "name": "s",
            "distribution": "s-dist",
            "version": "2",
            "algorithms": ["z"],
            "allowed": False,
        },
        {
            "plugin": "b",
            "name": "b",
            "distribution": "",
            "version": "",
            "algorithms": [],
            "error": "ImportError: no",
        },
    ]
    fedctl.answer("GET", "/v1/plugins", plugins)
    document, text = both(fedctl, "plugins")
    assert document == plugins
    assert "x, y" in text
    assert "z (not in [policy])" in text
    assert "failed: ImportError: no" in text
    assert "Plugins read what the daemon's user may read" in text


ALGORITHM = {
    "name": "consensus",
    "plugin": "consensus",
    "distribution": "fedd",
    "version": "1",
    "doc": "All end at the mean.",
    "parameters": [
        {"name": "tolerance", "type": "float", "default": 1e-12, "help": "how close"},
        {"name": "rule", "type": "str", "default": "a", "help": "", "choices": ["a", "b"]},
    ],
}


def test_algorithms(fedctl: Any) -> None:
    fedctl.answer("GET", "/v1/algorithms", [ALGORITHM])
    fedctl.answer("GET", "/v1/algorithms/consensus", ALGORITHM)
    assert "All end at the mean." in both(fedctl, "algorithms")[1]
    document, text = both(fedctl, "algorithms", "consensus")
    assert document == ALGORITHM
    assert "tolerance  float  1e-12    how close" in text
    assert 'a|b    "a"' in text
    fedctl.answer("GET", "/v1/algorithms/max", {**ALGORITHM, "contract": "restart", "joinable": False})
    assert "contract: restart; nobody joins later" in both(fedctl, "algorithms", "max")[1]
    fedctl.answer("GET", "/v1/algorithms/dgd", {**ALGORITHM, "contract": "survivors", "joinable": True})
    assert "contract: survivors; members may join later" in both(fedctl, "algorithms", "dgd")[1]


def test_learners_and_aggregators(fedctl: Any) -> None:
    learner = {**ALGORITHM, "name": "net", "doc": "Learns.", "abilities": ["step", "gradient"]}
    krum = {**ALGORITHM, "name": "krum", "doc": "Chooses one.", "parameters": [], "allowed": False}
    fedctl.answer("GET", "/v1/learners", [learner])
    fedctl.answer("GET", "/v1/learners/net", learner)
    fedctl.answer("GET", "/v1/aggregators", [krum])
    fedctl.answer("GET", "/v1/aggregators/krum", krum)
    assert "Learns." in both(fedctl, "learners")[1]
    document, text = both(fedctl, "learners", "net")
    assert document == learner
    assert "can do: step, gradient" in text
    assert "[inputs.NAME] in fedd.toml with learner = 'net'" in text
    assert "Chooses one. (not in [policy])" in both(fedctl, "aggregators")[1]
    assert "fedctl run learning aggregator=krum" in both(fedctl, "aggregators", "krum")[1]


def test_inputs(fedctl: Any) -> None:
    inputs = [
        {"name": "temp", "kind": "value", "source": "set", "value": 20.5},
        {"name": "rows", "kind": "file", "source": "configuration", "path": "/data/rows.csv"},
        {"name": "now", "kind": "command", "source": "configuration", "command": ["date", "+%s"]},
        {"name": "odd", "kind": "", "source": "configuration"},
        {
            "name": "digits",
            "kind": "learner",
            "source": "configuration",
            "path": "/d.npz",
            "learner": "net",
            "options": {"step": 0.5, "batch": 8},
        },
        {
            "name": "own",
            "kind": "learner",
            "source": "configuration",
            "learner": "nett",
            "options": {},
            "error": "no nett",
        },
    ]
    fedctl.answer("GET", "/v1/inputs", inputs)
    document, text = both(fedctl, "inputs")
    assert document == inputs
    lines = text.splitlines()[1:]
    assert [line.split(maxsplit=2)[2] for line in lines if not line.startswith("odd")] == [
        "20.5",
        "/data/rows.csv",
        '["date", "+%s"]',
        "net (step=0.5, batch=8), data: /d.npz",
        "nett, data: - - no nett",
    ]


def test_set(fedctl: Any) -> None:
    fedctl.answer("PUT", "/v1/inputs/temp", {"input": "temp", "value": -3.5})
    assert both(fedctl, "set", "temp", "-3.5")[1] == "temp = -3.5\n"
    assert fedctl.asked("PUT") == [("/v1/inputs/temp", {"value": -3.5})] * 2
    code, _, err = fedctl("set", "temp", "[1,")
    assert code == 2
    assert "no JSON value" in err


@pytest.mark.parametrize(
    ("text", "value"),
    [("1", 1), ("-2.5e3", -2500.0), ('"warm"', "warm"), ("warm", "warm"), ("[[1], [2]]", [[1], [2]])],
)
def test_values(text: str, value: object) -> None:
    assert parse_value(text) == value


@pytest.mark.parametrize(
    "text", ["", "[1", '"x', "1.2.3", "NaN", "Infinity", "-Infinity", "[" * 100_000, "{'a': 1}"]
)
def test_what_is_no_value(text: str) -> None:
    with pytest.raises(InvalidParameter):
        parse_value(text)


def test_api(fedctl: Any) -> None:
    fedctl.answer("PUT", "/v1/inputs/temp", {"input": "temp", "value": 1})
    fedctl.answer("GET", "/v1/events?since=0", [{"seq": 1}])
    assert fedctl("api", "put", "/v1/inputs/temp", '{"value": 1}')[1] == '{"input": "temp", "value": 1}\n'
    assert fedctl.asked("PUT")[-1][1] == {"value": 1}
    assert fedctl("api", "GET", "/v1/events?since=0")[1].splitlines() == ['{"seq": 1}', '{"kind": "end"}']
    for arguments, status in (
        (("GET", "/v1/nothing"), 5),
        (("GET", "/v1/ status"), 2),
        (("G T", "/v1/status"), 2),
        (("DELETE", "/v1/status"), 2),
        (("POST", "/v1/runs", "{"), 2),
    ):
        code, _, err = fedctl("api", *arguments)
        assert (code, err.count("\n")) == (status, 1)


def test_demo(fedctl: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    called = []
    monkeypatch.setattr("fedd.demo.run.main", lambda nodes, as_json: called.append((nodes, as_json)) or 3)
    assert fedctl("demo", "--nodes", "7", "--json")[0] == 3
    assert called == [(7, True)]
    assert fedctl("demo", "--nodes", "1")[0] == 2


def test_numbers_in_the_units_of_people() -> None:
    assert [seconds(value) for value in (None, 0.0123, 9.5, 61, 600, 8000, 200_000)] == [
        "-",
        "0.0123 s",
        "9.5 s",
        "61 s",
        "10 min",
        "2 h",
        "2 d",
    ]
    assert [counted(value, "round") for value in (0, 1, 2)] == ["0 rounds", "1 round", "2 rounds"]
    assert [count_bytes(value) for value in (0, 1023, 1024, 150 * 1024, 2**21, 2**33)] == [
        "0 B",
        "1023 B",
        "1.0 KiB",
        "150 KiB",
        "2.0 MiB",
        "8.0 GiB",
    ]
    assert [number(value) for value in (None, 3, 0.12345)] == ["-", "3", "0.123"]
    assert (
        value_text({"shape": [3, 4], "dtype": "float64", "sha256": "ab" * 32})
        == "array [3, 4] float64, sha256 abababababababab"
    )
    assert value_text(list(range(1000))).endswith("... (--json prints all)")
    model = {"model": [[[0.5] * 10] * 65, [1.0, 2.0]], "rounds": 3, "who": ["a", None]}
    assert value_text(model) == '{"model": [(65 x 10 numbers), [1.0, 2.0]], "rounds": 3, "who": ["a", null]}'
    assert value_text([[1, 2], [3]]) == "[[1, 2], [3]]"
    assert value_text([[], []]) == "[[], []]"
    assert (
        value_text({"w": {"shape": [70, 2], "dtype": "float32", "sha256": "ab"}}) == '{"w": (70 x 2 numbers)}'
    )
    assert escape("naïve\ttab") == "naïve\\ttab"
