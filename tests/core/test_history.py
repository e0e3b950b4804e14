"""Histories keep every report while there is room, then evenly spaced ones, and always the newest."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedd.api.errors import InvalidMessage, ProtocolError
from fedd.core import codec, history
from fedd.core.history import History, read_rows


def test_every_round_is_kept_with_its_newest_numbers() -> None:
    kept = History()
    kept.add(0, {"loss": 3.0})
    kept.add(0, {"loss": 2.0, "accuracy": 0.5})
    kept.add(3, {"accuracy": 1, "state": "fine", "ok": True})
    kept.add(4, {"state": "no number"})
    kept.add(1, {"loss": 9.0})  # a round that is long over
    assert kept.document() == {"rounds": [0, 3], "series": {"loss": [2.0, None], "accuracy": [0.5, 1.0]}}
    assert kept.names == ("loss", "accuracy")
    assert len(kept) == 2


def test_a_map_of_numbers_has_a_curve_a_key() -> None:
    kept = History()
    kept.add(1, {"accuracy": {"a": 0.5, "b": 1, "c": "none"}})
    assert kept.document()["series"] == {"accuracy.a": [0.5], "accuracy.b": [1.0]}


def test_names_beyond_the_bound_have_no_curve(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "MAX_SERIES", 2)
    kept = History()
    kept.add(1, {"a": 1, "b": 2, "c": 3})
    assert kept.names == ("a", "b")


def test_infinity_is_missing_in_the_document() -> None:
    kept = History()
    kept.add(1, {"a": float("inf")})
    assert kept.document()["series"] == {"a": [None]}


@settings(max_examples=100, deadline=None)
@given(rows=st.integers(1, 300), room=st.integers(2, 40), series=st.integers(1, 3))
def test_it_thins_evenly_and_keeps_the_newest(rows: int, room: int, series: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(history, "MAX_VALUES", room * series)
        kept = History()
        for number in range(rows):
            kept.add(number, {f"m{index}": number for index in range(series)})
            rounds = kept.document()["rounds"]
            assert len(rounds) <= max(room, 2)
            assert rounds[-1] == number
            assert rounds[:-1] == list(range(0, rounds[-1], kept.stride))
        assert all(column == rounds for column in kept.document()["series"].values())
        assert kept.stride == 1 or 2 * len(rounds) >= room - 1


def test_few_metrics_do_not_make_rows_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "MAX_ROWS", 10)
    kept = History()
    for number in range(100):
        kept.add(number, {"a": 1})
    assert len(kept) <= 10


def test_the_first_and_the_newest_row_stay_however_little_room_there_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(history, "MAX_VALUES", 1)
    kept = History()
    for number in range(9):
        kept.add(number, {"a": 1, "b": 2})
    assert kept.document()["rounds"] == [0, 8]


def test_what_is_encoded_comes_back() -> None:
    kept = History()
    kept.add(1, {"a": 1.5})
    kept.add(2, {"b": -2})
    assert History.decode(kept.encode()).document() == kept.document()


@pytest.mark.parametrize(
    "content",
    [
        1,
        {},
        {"rounds": b"1", "series": {}},
        {"rounds": bytes(8), "series": {"a": b"1"}},
        {"rounds": bytes(8), "series": {"a": 1}},
        {"rounds": bytes(8), "series": {}, "more": 1},
        {"rounds": bytes(8 * (history.MAX_ROWS + 1)), "series": {}},
        {"rounds": bytes(8), "series": {str(number): bytes(8) for number in range(history.MAX_SERIES + 1)}},
    ],
)
def test_what_is_no_history_is_refused(content: object) -> None:
    with pytest.raises(InvalidMessage):
        History.decode(codec.encode(content))


def test_reports_come_as_rows() -> None:
    assert read_rows(codec.encode([[0, {"a": 1}], [7, {}]])) == [(0, {"a": 1}), (7, {})]


@pytest.mark.parametrize("rows", [1, [1], [[1]], [[-1, {}]], [[True, {}]], [[1, 2]], [[1 << 62, {}]]])
def test_what_are_no_reports_is_refused(rows: object) -> None:
    with pytest.raises(ProtocolError):
        read_rows(codec.encode(rows))


def test_reports_that_cannot_be_read_are_refused() -> None:
    with pytest.raises(ProtocolError, match="malformed"):
        read_rows(b"\xff")
