"""The benchmark of membership, as far as it needs neither root nor serf: what it reads, and how it judges."""

from __future__ import annotations

import io
import json
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import membership
import membership_table
from membership_cases import last_seen, spread
from membership_views import Views
from serf_rpc import SerfError, pack, unpack


@pytest.mark.parametrize(
    "value",
    [None, True, False, 0, 127, 128, 70_000, [], [1, [2]], {}, {"Seq": 7, "Tags": {"a": 1}}],
)
def test_what_serf_is_told_is_what_was_meant(value: Any) -> None:
    assert unpack(io.BytesIO(pack(value))) == value


def test_texts_come_back_as_bytes_whatever_their_length() -> None:
    for length in (0, 31, 32, 300):
        assert unpack(io.BytesIO(pack("x" * length))) == b"x" * length


def test_what_serf_replies_is_read() -> None:
    reply = bytes.fromhex("82a3536571ccc8a54572726f72d9026869") + b"\xcb" + bytes(8) + b"\xff"
    file = io.BytesIO(reply)
    assert [unpack(file), unpack(file), unpack(file)] == [{"Seq": 200, "Error": b"hi"}, 0.0, -1]
    with pytest.raises(SerfError):
        unpack(file)
    with pytest.raises(SerfError):
        unpack(io.BytesIO(b"\xc1"))


def test_views_know_who_sees_whom() -> None:
    views = Views(["a", "b"])
    assert not views.full()
    waiting: list[bool] = []
    thread = threading.Thread(target=lambda: waiting.append(views.wait(views.full, 10)))
    thread.start()
    views.note("a", "b", "alive", 1.0)
    views.note("b", "a", "alive", 2.0)
    views.note("b", "b", "dead", 2.0)  # nobody is asked about itself
    thread.join()
    assert waiting == [True]
    views.note("a", "b", "dead", 3.0)
    views.note("a", "b", "dead", 4.0)
    assert not views.full()
    assert [change.at_s for change in views.since(1.5)] == [2.0, 3.0]
    assert views.say("b", ("dead",), ["a"])
    views.forget("a")
    assert not views.say("b", ("dead",), ["a"])


def test_a_broadcast_has_reached_all_when_it_came_to_each_once() -> None:
    views = Views(["a", "b"])
    views.deliver("a", "m", 1.0)
    views.deliver("a", "m", 2.0)
    assert (views.doubles, views.reached(["m"])) == (1, False)
    views.deliver("b", "m", 3.0)
    assert views.reached(["m"])


def test_a_death_counts_when_the_last_survivor_has_noticed() -> None:
    views = Views(["a", "b", "c"])
    system: Any = type("System", (), {"views": views})()
    views.note("a", "c", "dead", 12.0)
    assert last_seen(system, 10.0, "c", ("dead",), ["a", "b"]) is None
    views.note("b", "c", "dead", 15.0)
    assert last_seen(system, 10.0, "c", ("dead",), ["a", "b"]) == 5.0
    assert spread([5.0, None, 1.0]) == {"trials": 3, "missed": 1, "p50_s": 3.0, "p90_s": 5.0, "max_s": 5.0}
    assert spread([None])["p50_s"] is None


def target(case: str, figure: str) -> membership.Target:
    return next(one for one in membership.TARGETS if (one.case, one.figure) == (case, figure))


@pytest.mark.parametrize(
    ("case", "figure", "fedd", "serf", "met"),
    [
        ("kill", "p50_s", {"p50_s": 1.0}, {"p50_s": 4.0}, True),
        ("kill", "p50_s", {"p50_s": 2.0}, {"p50_s": 4.0}, False),
        ("kill", "p50_s", {"p50_s": None}, {"p50_s": 4.0}, False),
        ("kill", "p50_s", {"p50_s": 2.0}, {"p50_s": None}, True),
        ("partition", "healed.p50_s", {"healed": {"p50_s": 5.0}}, {"healed": {"p50_s": 10.0}}, False),
        ("control", "dead_to_all", {"dead_to_all": 18, "trials": 20}, None, True),
        ("control", "dead_to_all", {"dead_to_all": 17, "trials": 20}, None, False),
        ("freeze", "full_view_s", {"full_view_s": [0.1, 1.2]}, None, False),
        ("freeze", "full_view_s", {"full_view_s": [0.1, None]}, None, False),
        ("pause", "called_dead", {"called_dead": 0}, None, True),
        ("pause", "called_dead", {"called_dead": 1}, None, False),
    ],
)
def test_targets(case: str, figure: str, fedd: Any, serf: Any, met: bool) -> None:
    line = membership.judge(target(case, figure), 10, fedd, serf)
    assert line is not None
    assert line["met"] is met


def test_a_comparison_without_serf_is_left_out() -> None:
    assert membership.judge(target("kill", "p50_s"), 10, {"p50_s": 1.0}, None) is None
    thirty = next(one for one in membership.TARGETS if one.nodes == 30)
    assert membership.judge(thirty, 10, {"p50_s": 1.0}, {"p50_s": 1.0}) is None


def test_traffic_of_a_link_must_not_grow_with_the_federation(capsys: pytest.CaptureFixture[str]) -> None:
    for most, good in ((164.0, True), (166.0, False)):
        report = membership.Report()
        quiet = {"bytes_per_s": 600.0, "cpu_percent": 0.3, "rss_mib": 40.0}
        report.add("idle", 10, {"fedd": {**quiet, "bytes_per_s_a_link": 150.0}})
        report.add("idle", 30, {"fedd": {**quiet, "bytes_per_s_a_link": most}})
        assert report.judge() is good
        last = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert (last["figure"], last["met"]) == ("bytes_per_s_a_link", good)


def test_a_case_that_failed_is_no_success() -> None:
    report = membership.Report()
    report.fail("kill", 10, RuntimeError("nobody came back"))
    assert not report.judge()


def test_the_table_is_made_of_what_was_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [
        {"load": [1, 2, 3]},
        {"case": "kill", "nodes": 10, "system": "fedd", "p50_s": 1.26},
        {"case": "kill", "nodes": 10, "system": "serf", "p50_s": None},
        {"case": "leave", "nodes": 10, "system": "fedd", "p50_s": 0.05, "seen_as_dead": 0, "trials": 5},
        {"target": "kill", "met": True},
    ]
    path = tmp_path / "measured.jsonl"
    path.write_text("\n".join(json.dumps(line) for line in lines))
    monkeypatch.setattr("sys.argv", ["membership_table.py", str(path)])
    assert membership_table.main() == 0
    assert capsys.readouterr().out.splitlines() == [
        "| | fedd, N=10 | serf, N=10 |",
        "|---|---|---|",
        "| `kill -9`: every survivor says dead, p50 | 1.3 s | never |",
        "| `leave` seen by all, p50 | 50 ms |  |",
        "| ... as something else | 0 of 5 |  |",
    ]
