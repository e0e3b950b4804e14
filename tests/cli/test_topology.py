"""`fedctl topology`, and the edges of a file on their way to the daemon."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from fedd.cli import topology
from fedd.cli.topology import drawing
from fedd.worker.topology import describe_topology


def test_a_ring_is_described_and_drawn(fedctl: Any, tmp_path: Path) -> None:
    picture = tmp_path / "ring.svg"
    code, out, err = fedctl("topology", "ring", "--nodes", "32", "-o", str(picture))
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "ring of 32 nodes"
    assert lines[3].split() == ["diameter", "16"]
    assert lines[5].split() == ["spectral", "gap", "0.0128098"]
    assert lines[6].split() == ["rounds", "to", "1e-06", "1072"]
    assert lines[7].split() == ["74", "with", "method=chebyshev"]
    drawn = picture.read_text()
    assert drawn.count("<circle ") == drawn.count("<line ") == drawn.count("<text ") == 32
    assert "nan" not in drawn


def test_arcs_that_take_turns_are_told(fedctl: Any) -> None:
    code, out, _ = fedctl("topology", "one-peer-exponential", "--nodes", "8")
    assert code == 0
    assert "20, directed, arcs take turns over 3 rounds" in out
    assert "chebyshev" not in out


def test_one_document_for_scripts(fedctl: Any, tmp_path: Path) -> None:
    edges = tmp_path / "plant.csv"
    edges.write_text("directed\npump,valve\nvalve,<tank>\n<tank>,pump\n")
    code, out, _ = fedctl("--json", "topology", f"edges:{edges}", "--tolerance", "1e-3")
    found = json.loads(out)
    assert code == 0
    assert found["members"] == ["<tank>", "pump", "valve"]
    assert found["topology"] == f"edges:{edges}"
    assert found["directed"]
    assert "&lt;tank&gt;" in drawing(found)


def test_arrows_point_where_messages_go() -> None:
    both = describe_topology("edges:directed\na,b\nb,a\nc,b\na,c", 0, 0, 1e-6)
    lines = [line for line in drawing(both).splitlines() if line.startswith("<line ")]
    ends = [("marker-start" in line, "marker-end" in line) for line in lines]
    assert sorted(ends) == [(False, True), (True, False), (True, True)]


def test_many_members_have_no_labels() -> None:
    assert "<text " not in drawing(describe_topology("ring", 65, 0, 1e-6))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("ring",), "how many nodes"),
        (("rung", "--nodes", "4"), "no topology 'rung'"),
        (("ring", "--nodes", "-4"), "no negative"),
        (("ring", "--nodes", "4", "-o", "ring.png"), "no .svg"),
        (("ring", "--nodes", "4", "-o", "/nowhere/ring.svg"), "cannot be written"),
        (("edges:/nowhere/file",), "cannot be read"),
        (("edges:",), "no file"),
    ],
)
def test_what_cannot_be_shown_is_said(fedctl: Any, arguments: tuple[str, ...], said: str) -> None:
    code, out, err = fedctl("topology", *arguments)
    assert (code, out) == (1 if "written" in said else 2, "")
    assert said in err


def test_a_child_that_fails_or_hangs_is_said(fedctl: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(command: list[str], **options: Any) -> Any:
        return subprocess.CompletedProcess(command, 1, b"", b"Traceback\nImportError: no numpy\n")

    monkeypatch.setattr(topology.subprocess, "run", failing)
    assert "ImportError: no numpy" in fedctl("topology", "ring", "--nodes", "4")[2]

    def hanging(command: list[str], **options: Any) -> Any:
        raise subprocess.TimeoutExpired(command, 1)

    monkeypatch.setattr(topology.subprocess, "run", hanging)
    assert fedctl("topology", "ring", "--nodes", "4")[0] == 6


def test_a_run_takes_the_edges_of_a_file(fedctl: Any, tmp_path: Path) -> None:
    edges = tmp_path / "plant.csv"
    edges.write_text("undirected\npump,valve\n")
    fedctl.answer("POST", "/v1/runs", {"run_id": "r" * 64, "members": [], "declined": []})
    assert fedctl("run", "consensus", "--topology", f"edges:{edges}", "--detach")[0] == 0
    assert fedctl.asked("POST")[0][1]["topology"] == "edges:undirected\npump,valve\n"
    edges.write_bytes(b"\xff")
    assert "no text" in fedctl("run", "consensus", "--topology", f"edges:{edges}")[2]
    edges.write_text("#" * 60_001)
    assert "60000" in fedctl("run", "consensus", "--topology", f"edges:{edges}")[2]
