"""What a long run remembers of itself: it stays a message that can travel."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fedd.worker import arrays
from fedd_learning.history import MAX_CURVES, MAX_NAMES_TOLD, History
from fedd_learning.workflow import Plan, RoundRecord, Workflow

PEERS = tuple(f"peer-{number:02d}" for number in range(20))
FLOW = Workflow(PEERS[0], Plan(1), 0, 1, PEERS)


def record(number: int, members: tuple[str, ...] = PEERS, **more: Any) -> RoundRecord:
    fields: dict[str, Any] = {
        "round": number,
        "digest": "d",
        "members": members,
        "contributors": tuple(peer for place, peer in enumerate(members) if (place + number) % 3),
        "earlier": (),
        "left_out": {},
        "metrics": {peer: {"loss": number + place / 100} for place, peer in enumerate(members)},
    }
    return RoundRecord(**{**fields, **more})


def value(history: History) -> Any:
    return history.value(PEERS, {}, FLOW, [])


def travelled(message: Any) -> Any:
    return arrays.decode(arrays.encode(message), 16 * 1024 * 1024)


def test_thousands_of_rounds_of_many_members_can_be_kept_and_told() -> None:
    history = History()
    for number in range(4000):
        history.add(record(number))
    again = History.restored(travelled(history.kept()))
    for each in (history, again):
        told = travelled(value(each))
        assert told["curves"]["loss"].shape == (4000, 20)
        assert told["curves"]["loss"][1234, 7] == 1234.07
        assert told["curves"]["round"].tolist() == list(range(4000))
        by_round = told["contributors_by_round"]
        assert len(by_round) == MAX_NAMES_TOLD // 20
        assert by_round["3999"] == list(record(3999).contributors) == told["contributors"]
        assert told["trained"]["peer-00"] == sum(number % 3 > 0 for number in range(4000))
        assert each.latest() == {"loss": {peer: 3999 + n / 100 for n, peer in enumerate(PEERS)}}


def test_members_that_come_and_go_have_gaps() -> None:
    history = History()
    history.add(record(0, PEERS[:2]))
    history.add(record(1, PEERS[1:3], left_out={PEERS[0]: "it died"}))
    history = History.restored(travelled(history.kept()))
    history.add(record(2, PEERS[1:9], metrics={PEERS[8]: {"accuracy": 0.5}}))
    told = value(history)
    loss, accuracy = told["curves"]["loss"], told["curves"]["accuracy"]
    assert np.isnan(loss[:, 0]).tolist() == [False, True, True]
    assert np.isnan(loss[:, 2]).tolist() == [True, False, True]
    assert np.isnan(accuracy[:, 8]).tolist() == [True, True, False]
    assert told["curves"]["members"] == list(PEERS)
    assert told["left_out"] == [{"peer_id": PEERS[0], "round": 1, "reason": "it died"}]
    assert told["metrics"] == {"accuracy": {PEERS[8]: 0.5}}


def test_the_round_that_a_new_epoch_begins_with_counts_once() -> None:
    history = History()
    history.add(record(0))
    history.add(record(1, PEERS[:3]))
    history.add(record(1, PEERS[:2], metrics={PEERS[0]: {"loss": 9.0}}))
    told = value(history)
    assert told["curves"]["round"].tolist() == [0, 1]
    assert told["curves"]["loss"][1, 0] == 9
    assert np.isnan(told["curves"]["loss"][1, 1:]).all()
    assert told["trained"][PEERS[0]] == 1


def test_names_without_end_are_cut() -> None:
    history = History()
    for number in range(10):
        metrics = {PEERS[0]: {f"m{number}.{index}": 1.0 for index in range(20)}}
        history.add(record(number, metrics=metrics))
    kept: Any = history.kept()
    assert len(kept["curves"]) == MAX_CURVES
    assert value(History())["contributors"] == []


@pytest.mark.parametrize("peer", [PEERS[0], PEERS[19]])
def test_a_member_without_metrics_is_in_the_table(peer: str) -> None:
    history = History()
    history.add(record(0, metrics={}))
    told = value(history)
    assert told["curves"]["members"] == list(PEERS)
    assert peer in told["curves"]["members"]
