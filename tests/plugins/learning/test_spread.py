"""How arrays get to everybody: each way by itself, and what is refused on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import pytest
from plugins.learning.test_parts import LAYOUT, MODEL, PEERS

from fedd_learning.agreement import Agreement
from fedd_learning.along import Along, Offers, together
from fedd_learning.layout import Layout, digest
from fedd_learning.means import mean_of_whole, weighted_mean
from fedd_learning.messages import (
    FullModel,
    Metrics,
    PartialModel,
)
from fedd_learning.spread import CopySpread, MeanSpread, WholeSpread, goes_whole

Change = Callable[[str, str, int, Any], Any]


def play(
    spreads: Mapping[str, Any], change: Change = lambda sender, receiver, number, message: message
) -> None:
    """All exchanges, each message as `change` makes it."""
    for number in range(spreads["a"].exchanges):
        sent = {
            receiver: {
                sender: change(sender, receiver, number, spreads[sender].message(number, receiver))
                for sender in PEERS
                if sender != receiver
            }
            for receiver in PEERS
        }
        for receiver in PEERS:
            spreads[receiver].take(number, sent[receiver])


def means(chunk_bytes: int = 1024) -> dict[str, MeanSpread]:
    weights = {"a": 1, "c": 3}
    own = {"a": MODEL, "b": None, "c": [array * 2 for array in MODEL]}
    return {p: MeanSpread(p, PEERS, weights, LAYOUT, 1, own[p], 5, chunk_bytes) for p in PEERS}


@pytest.mark.parametrize("chunk_bytes", [16, 64, 1024])
def test_the_mean_is_everybodys(chunk_bytes: int) -> None:
    spreads = means(chunk_bytes)
    play(spreads)
    first = weighted_mean([MODEL[0], MODEL[0] * 2], [1, 3])
    assert first.shape == MODEL[0].shape
    second = weighted_mean([MODEL[1], MODEL[1] * 2], [1, 1])  # beyond the first array, without weights
    for spread in spreads.values():
        assert spread.complete
        assert spread.refused == {}
        assert digest(spread.arrays()) == digest([first, second])


@pytest.mark.parametrize("chunk_bytes", [16, 1024])
def test_what_goes_to_all_alike_is_one_object(chunk_bytes: int) -> None:
    """So that it is encoded, and handed to the daemon, once."""
    spreads = means(chunk_bytes)
    alike: set[tuple[str, int]] = set()
    seen: dict[tuple[str, int], Any] = {}

    def look(sender: str, receiver: str, number: int, message: Any) -> Any:
        if seen.setdefault((sender, number), message) is message and receiver != min({*PEERS} - {sender}):
            alike.add((sender, number))
        return message

    play(spreads, look)
    last = spreads["a"].exchanges - 1
    # b has nothing to contribute, the others send different parts but in the last exchange.
    assert alike == {("b", number) for number in range(last)} | {(peer, last) for peer in PEERS}
    agreement = Agreement("a", PEERS, 0, [])
    for spread, same in ((spreads["a"], last), (spreads["a"], 0), (spreads["b"], 0)):
        along = Along(lambda offers, spread=spread: spread, ({"a": 1}, ""))
        told = together(agreement, along, same)
        one, another = told("a"), told("c")
        assert (one is another) == (spread is spreads["b"] or same == last)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ("nonsense", "something else"),
        ([{"name": "rm"}], "no message"),
        ([PartialModel(5, 77, [], ["c"], 3).to_wire()], "another part"),
        ([PartialModel(5, 0, [np.zeros(1)], ["c"], 3).to_wire()], "shape"),
        ([PartialModel(5, 0, [np.full(3, np.nan, np.float32)], ["c"], 3).to_wire()], "not finite"),
        ([PartialModel(5, 0, [np.zeros(3, np.float32)], ["c"], 99).to_wire()], "number of samples"),
        ([FullModel(5, 2, [np.zeros(1)], ["c"], 3).to_wire()], "not its own"),
    ],
)
def test_a_bad_part_is_refused_with_its_sender(wrong: Any, reason: str) -> None:
    spreads = means()

    def change(sender: str, receiver: str, number: int, message: Any) -> Any:
        return wrong if (sender, receiver, number) == ("c", "a", 0) else message

    play(spreads, change)
    assert reason in spreads["a"].refused["c"]
    assert spreads["a"].complete is False


def test_a_bad_mean_is_refused_with_its_root() -> None:
    spreads = means()

    def change(sender: str, receiver: str, number: int, message: Any) -> Any:
        if (sender, receiver, number) == ("c", "a", 1):
            return [FullModel(5, 2, [np.zeros(1)], ["a", "c"], 4).to_wire()]
        return message

    play(spreads, change)
    assert "as the root of a part" in spreads["a"].refused["c"]
    assert [spread.complete for spread in spreads.values()] == [False, True, True]


def test_a_mean_of_others_is_not_taken_and_nobodys_fault() -> None:
    spreads = means()

    def change(sender: str, receiver: str, number: int, message: Any) -> Any:
        if (sender, receiver, number) == ("c", "a", 1):
            return [{**message[0], "contributors": ["a", "b", "c"]}]
        return message

    play(spreads, change)
    assert spreads["a"].refused == {}
    assert [spread.complete for spread in spreads.values()] == [False, True, True]


@pytest.mark.parametrize("size", [3, 300], ids=["whole", "in-parts"])
@pytest.mark.parametrize("heard", ["all", "too few", "others"])
def test_what_went_along_with_the_offers_counts_if_they_are_agreed(size: int, heard: str) -> None:
    """`others`: a root made its mean of other offers than all agreed on in the end."""
    models = {peer: [np.full(size, number, np.float32)] for number, peer in enumerate(PEERS)}
    layout, agreed = Layout.of(models["a"]), ({"a": 1, "b": 2, "c": 1}, "")

    def making(me: str) -> Callable[[Offers], MeanSpread | WholeSpread]:
        def new_spread(offers: Offers) -> MeanSpread | WholeSpread:
            own = models[me] if me in offers[0] else None
            if size == 3:
                return WholeSpread(me, PEERS, offers[0], layout, own, 5, 1024)
            return MeanSpread(me, PEERS, offers[0], layout, 1, own, 5, 4096)

        return new_spread

    ways = {peer: Along(making(peer), ({peer: agreed[0][peer]}, "")) for peer in PEERS}
    seen: dict[str, Offers | None] = dict.fromkeys(PEERS, agreed)
    if heard != "all":
        seen["b"] = None if heard == "too few" else ({"a": 1, "b": 2}, "")
    for number in range(2):
        sent = {p: {q: ways[q].message(number, p) for q in PEERS if q != p} for p in PEERS}
        for peer in PEERS:
            ways[peer].take(sent[peer], partial(seen.get, peer))
    found = {peer: way.agreed(agreed) for peer, way in ways.items()}
    assert {following for _, following in found.values()} == {1 if size == 3 else 2}
    complete = {peer: spread.complete for peer, (spread, _) in found.items()}
    assert all(spread.refused == {} for spread, _ in found.values())
    if size == 3 or heard == "all":
        assert all(complete.values())
    else:  # the others lack what b is the root of, and b itself has all
        assert complete == {"a": False, "b": True, "c": False}


def test_messages_of_another_round_do_not_count() -> None:
    spreads = means()
    stale = [PartialModel(4, 0, [np.zeros(3, np.float32)], ["c"], 3).to_wire()]
    play(spreads, lambda s, r, n, message: stale if (s, r) == ("c", "a") else message)
    assert not spreads["a"].complete


@pytest.mark.parametrize("chunk_bytes", [16, 1024])
def test_everybodys_model_comes_to_everybody(chunk_bytes: int) -> None:
    own = {"a": MODEL, "b": None, "c": [array * 2 for array in MODEL]}
    spreads = {p: WholeSpread(p, PEERS, {"a": 1, "c": 3}, LAYOUT, own[p], 5, chunk_bytes) for p in PEERS}
    play(spreads)
    for spread in spreads.values():
        assert spread.complete
        assert {p: digest(found) for p, found in spread.contributions().items()} == {
            p: digest(own[p] or []) for p in ("a", "c")
        }
        # The mean of it has the bits of the one that is made on its way.
        ways = means(chunk_bytes)
        play(ways)
        mean = mean_of_whole(spread.contributions(), {"a": 1, "c": 3}, 1)
        assert digest(mean) == digest(ways["b"].arrays())


def test_small_models_go_whole() -> None:
    small, large = Layout((("f4", (10_000,)),)), Layout((("f4", (100_000,)),))
    assert [goes_whole(small, members, 1 << 22) for members in (1, 2, 7, 8)] == [True, True, True, False]
    assert not goes_whole(large, 2, 1 << 22)
    assert not goes_whole(small, 2, 1024)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ("nonsense", "no message"),
        (Metrics(5).to_wire(), "something else"),
        (PartialModel(5, 0, [], ["c"], 99).to_wire(), "number of samples"),
        (PartialModel(5, 0, [], ["c"], 3).to_wire(), "shape"),
    ],
)
def test_a_bad_model_is_refused_with_its_sender(wrong: Any, reason: str) -> None:
    own = {"a": MODEL, "b": None, "c": MODEL}
    spreads = {p: WholeSpread(p, PEERS, {"a": 1, "c": 3}, LAYOUT, own[p], 5, 16) for p in PEERS}

    def change(sender: str, receiver: str, number: int, message: Any) -> Any:
        return wrong if (sender, receiver, number) == ("c", "a", 0) else message

    play(spreads, change)
    assert reason in spreads["a"].refused["c"]
    assert [spread.complete for spread in spreads.values()] == [False, True, True]


@pytest.mark.parametrize("round", [0, 4])
def test_who_is_behind_gets_the_model(round: int) -> None:
    old = [array * 0 for array in MODEL]
    own = {"a": MODEL, "b": old, "c": MODEL}
    for attempt in (0, 1):
        spreads = {p: CopySpread(p, ("a", "c"), ("b",), attempt, LAYOUT, own[p], round, 16) for p in PEERS}
        play(spreads)
        assert all(spread.complete for spread in spreads.values())
        assert digest(spreads["b"].arrays()) == digest(MODEL)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ("nonsense", "no message"),
        (Metrics(5).to_wire(), "something else"),
        (FullModel(4, 0, [], [], 0).to_wire(), "shape"),
        (None, ""),
    ],
)
def test_a_bad_copy_is_refused(wrong: Any, reason: str) -> None:
    spreads = {p: CopySpread(p, ("a", "c"), ("b",), 0, LAYOUT, MODEL, 4, 1024) for p in PEERS}
    play(spreads, lambda s, r, n, message: wrong if (s, r) == ("a", "b") else message)
    assert reason in spreads["b"].refused.get("a", "")
    assert not spreads["b"].complete
