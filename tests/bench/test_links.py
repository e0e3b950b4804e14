"""The links benchmark runs, and its numbers mean what they say; how good they are is not judged here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from bench import links


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    links.make_certificate(tmp_path)
    return tmp_path


@pytest.mark.parametrize("stack", ["tcp", "tls", "fedd"])
def test_every_case_runs(stack: str, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pairs = {stack: links.Pair(stack, directory)}
    patience = links.Patience(1.0, 0)
    counts = {"bulk": 3_000_000, "small": 20, "handshakes": 3, "hold": 3}
    if stack == "fedd":
        counts["streams"] = 10
    try:
        for case, count in counts.items():
            numbers = getattr(links, f"{case.removesuffix('s')}_numbers", None) or links.streams_numbers
            links.run_case(pairs, case, {stack: count}, 1, numbers, patience)
    finally:
        pairs[stack].close()
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["case"], line["stack"], line["count"]) for line in lines] == [
        (case, stack, count) for case, count in counts.items()
    ]
    found: dict[str, dict[str, Any]] = {line["case"]: line for line in lines}
    assert 1 < found["bulk"]["mb_per_s"] < 100_000
    assert 0 < found["small"]["p50_us"] <= found["small"]["p99_us"]
    assert 0.05 < found["handshakes"]["cpu_ms"] < 1000


def test_targets_are_judged_in_the_right_direction(capsys: pytest.CaptureFixture[str]) -> None:
    def medians(fast: float, cheap: float) -> dict[str, links.Medians]:
        ours = {"mb_per_s": fast, "cpu_s_per_gb": cheap, "p50_us": cheap, "streams_per_s": fast}
        ours |= {"cpu_ms": cheap, "listener_kib": cheap}
        return {
            case: {"fedd": ours, "tcp": dict.fromkeys(ours, 1.0)}
            for case in ("bulk", "small", "streams", "handshakes", "hold")
        }

    for numbers, met in ((medians(1.0, 1.0), True), (medians(0.1, 100.0), False)):
        links.judge(numbers)
        judged = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert len(judged) == 5  # those that need no other stack than raw TCP
        assert all(line["met"] is met for line in judged)
