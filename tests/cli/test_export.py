"""What `fedctl export` writes can be read by those who read such files."""

from __future__ import annotations

import base64
import csv
import io
import itertools
import re

import numpy as np
import pytest

from fedd.cli import curves
from fedd.cli.curves import draw, panels
from fedd.cli.export import curves_csv
from fedd.cli.npz import numbers, value_entries, whole_numbers, write_npz

NODES = [
    {
        "peer_id": "P1",
        "name": "a,1",
        "rounds": [0, 5],
        "series": {"loss": [2.5, None], "accuracy.P1": [0.1, 0.2]},
    },
    {
        "peer_id": "P2",
        "name": "b",
        "rounds": [5],
        "series": {"loss": [1e-9], "accuracy.P1": [0.9], "accuracy.P3": [0.5]},
    },
]


def test_a_table_of_all_members_and_rounds() -> None:
    rows = list(csv.reader(io.StringIO(curves_csv(NODES))))
    assert rows == [
        ["name", "peer_id", "round", "loss", "accuracy.P1", "accuracy.P3"],
        ["a,1", "P1", "0", "2.5", "0.1", ""],
        ["a,1", "P1", "5", "", "0.2", ""],
        ["b", "P2", "5", "1e-09", "0.9", "0.5"],
    ]
    assert curves_csv([]) == "name,peer_id,round\n"


def test_every_number_comes_back_from_an_npz() -> None:
    large = np.arange(6, dtype=np.float32).reshape(2, 3)
    value = {
        "model": {"shape": [2, 3], "dtype": "float32", "base64": base64.b64encode(large.tobytes()).decode()},
        "flags": [True, False],
        "table": [[1, 2], [3, 4]],
        "ragged": [[1.5], [2, 3]],
        "name": "plant",
        "raw": {"base64": base64.b64encode(b"xyz").decode()},
        "nothing": None,
        "empty": [],
        "huge": 1 << 70,
        "text": "",
    }
    file = io.BytesIO()
    write_npz(
        file,
        [
            *value_entries("value", value),
            *value_entries("number", 2.5),
            numbers("b/loss", [1.0, None]),
            whole_numbers("b/round", [3, 4]),
        ],
    )
    file.seek(0)
    found = np.load(file, allow_pickle=False)
    assert found["value.model"].dtype == np.float32
    assert found["value.model"].tolist() == large.tolist()
    assert found["value.flags"].tolist() == [True, False]
    assert found["value.table"].tolist() == [[1, 2], [3, 4]]
    assert found["value.table"].dtype == np.int64
    assert found["value.ragged.1"].tolist() == [2, 3]
    assert found["value.name"] == "plant"
    assert found["value.text"] == ""
    assert found["value.raw"].tobytes() == b"xyz"
    assert found["value.empty"].shape == (0,)
    assert found["value.huge"] == float(1 << 70)
    assert found["number"] == 2.5
    assert np.isnan(found["b/loss"][1])
    assert found["b/round"].tolist() == [3, 4]
    assert "value.nothing" not in found


def test_a_member_is_drawn_as_it_saw_itself() -> None:
    found = panels(NODES, {"P1": "a,1", "P2": "b", "P3": "c"})
    assert [line.label for line in found["loss"]] == ["a,1", "b"]
    assert [(line.label, line.points) for line in found["accuracy"]] == [
        ("a,1", [(0, 0.1), (5, 0.2)]),
        ("c", [(5, 0.5)]),  # which reported nothing itself
    ]


def lines_of(picture: str) -> list[list[tuple[float, float]]]:
    found = re.findall(r'<polyline points="([^"]*)"', picture)
    return [[(float(x), float(y)) for x, y in (pair.split(",") for pair in path.split())] for path in found]


def test_a_picture_has_a_line_a_node_that_falls_when_the_numbers_fall() -> None:
    falling = {
        "peer_id": "P1",
        "name": "<a>",
        "rounds": list(range(9)),
        "series": {"loss": [10.0**-n for n in range(9)]},
    }
    picture = draw("a & b", panels([falling, {**falling, "name": "b"}], {}))
    (first, second) = lines_of(picture)
    assert first == second
    steps = {round(later[1] - earlier[1], 0) for earlier, later in itertools.pairwise(first)}
    assert len(steps) == 1  # even steps on a logarithmic scale
    assert steps.pop() > 0  # downwards
    assert "log scale" in picture
    assert "&lt;a&gt;" in picture


def test_constant_single_and_negative_numbers_have_a_scale() -> None:
    for values in ([3.0, 3.0, 3.0], [-1.0, 0.0, 1000.0], [0.0, 0.0, 0.0]):
        node = {"peer_id": "P", "name": "n", "rounds": [0, 1, 2], "series": {"m": values}}
        assert len(lines_of(draw("t", panels([node], {})))) == 1
    one = {"peer_id": "P", "name": "n", "rounds": [7], "series": {"m": [1.0]}}
    assert "<circle" in draw("t", panels([one], {}))
    assert "no member reported" in draw("t", {})


def test_many_nodes_and_points_stay_readable() -> None:
    rounds = list(range(10 * curves.MAX_POINTS))
    nodes = [
        {"peer_id": f"P{n}", "name": f"n{n}", "rounds": rounds, "series": {"m": [float(r) for r in rounds]}}
        for n in range(15)
    ]
    picture = draw("t", panels(nodes, {}))
    found = lines_of(picture)
    assert len(found) == 15
    assert len(found[0]) <= curves.MAX_POINTS + 1
    assert "and 3 more" in picture


@pytest.mark.parametrize("value", [{"a": object}, object()])
def test_what_no_array_holds_is_passed_over(value: object) -> None:
    assert list(value_entries("value", value)) == []
