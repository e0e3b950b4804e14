"""Reports wait in bounded memory, and none is lost that fits."""

from __future__ import annotations

import pytest

from fedd.core.history import read_rows
from fedd.core.pipe import PipeDecoder
from fedd.worker import reports
from fedd.worker.reports import Reports


def taken(waiting: Reports) -> tuple[dict[str, object], list[tuple[int, dict[str, object]]]]:
    (frame,) = PipeDecoder(1 << 30).receive_data(b"".join(waiting.take()))
    return frame.header["metrics"], [(number, dict(row)) for number, row in read_rows(frame.body[0])]


def test_the_newest_of_each_and_all_by_round() -> None:
    waiting = Reports()
    assert not waiting
    waiting.note(0, {"loss": 2.0, "phase": "first"})
    waiting.note(1, {"loss": 1.0})
    assert waiting
    assert taken(waiting) == (
        {"loss": 1.0, "phase": "first"},
        [(0, {"loss": 2.0, "phase": "first"}), (1, {"loss": 1.0})],
    )
    assert not waiting
    assert taken(waiting) == ({}, [])


def test_whoever_reports_without_end_loses_every_second_one_but_the_newest() -> None:
    waiting = Reports()
    for number in range(100_000):
        waiting.note(number, {"a": number})
    _, rows = taken(waiting)
    assert 0.4 * reports.MAX_WAITING < len(rows) <= reports.MAX_WAITING
    assert rows[-1] == (99_999, {"a": 99_999})
    assert rows[0][0] < 200


def test_large_reports_are_thinned_to_what_a_frame_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports, "MAX_HISTORY_BYTES", 1000)
    waiting = Reports()
    for number in range(1000):
        waiting.note(number, {"a": 0.1})
    _, rows = taken(waiting)
    assert 20 < len(rows) < 150
    assert rows[-1][0] == 999
