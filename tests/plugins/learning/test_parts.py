"""The pieces that a run of learning is made of, each by itself: what is refused, and why."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from fedd.api import Denied, InvalidMessage, InvalidParameter, ProtocolError
from fedd.testing import Commands
from fedd_learning import Learning
from fedd_learning.agreement import Agreement
from fedd_learning.layout import Layout, digest, fault
from fedd_learning.messages import (
    MESSAGES,
    FullModel,
    Metrics,
    ModelInitialized,
    ModelsAggregated,
    ModelsReady,
    ModelTrained,
    PartialModel,
    VoteTrainSet,
    read,
    read_all,
)
from fedd_learning.node import options_of
from fedd_learning.spread import (
    BLOCK,
    CopySpread,
    MeanSpread,
    WholeSpread,
    goes_whole,
    mean_of_whole,
    weighted_mean,
)
from fedd_learning.workflow import TRANSITIONS, Event, Plan, State, Workflow, rendezvous, tally

MODEL = [np.arange(6, dtype=np.float32).reshape(2, 3), np.ones(4)]
LAYOUT = Layout.of(MODEL)
PEERS = ("a", "b", "c")


# ---- layout ------------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(
    st.lists(arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=7), min_size=1, max_size=5),
    st.integers(1, 9),
)
def test_parts_put_together_are_the_arrays(shapes: list[tuple[int, ...]], count: int) -> None:
    given_arrays = [np.random.default_rng(n).normal(size=shape) for n, shape in enumerate(shapes)]
    layout = Layout.of(given_arrays)
    assert Layout.read(layout.text, layout.nbytes) == layout
    rows, copy = layout.rows(given_arrays), layout.empty()
    for segments in layout.parts(count):
        assert fault(layout, segments, rows.part(segments)) == ""
        copy.put(segments, rows.part(segments))
    assert digest(copy.arrays()) == digest(given_arrays)
    sizes = [sum(end - begin for _, begin, end in part) for part in layout.parts(count)]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("text", ["f4", "f4:3x", "o8:3", "f4:3;", "f4:-1", "f3:1", "f4:1 2"])
def test_other_texts_are_no_layout(text: str) -> None:
    with pytest.raises(InvalidMessage, match="type and shape"):
        Layout.read(text, 100)


def test_layouts_are_bounded() -> None:
    assert Layout.read("", 0).specs == ()
    with pytest.raises(InvalidMessage, match="no array of the shape 0x9"):
        Layout.read("f4:0x" + "x".join(["999999999999"] * 31), 100)
    with pytest.raises(InvalidMessage, match="more than 100"):
        Layout.read("f8:4x4", 100)


def test_bits_and_shapes_make_the_digest() -> None:
    assert digest([np.zeros(4)]) != digest([np.zeros((2, 2))])
    assert digest([np.zeros(4)]) != digest([-np.zeros(4)])
    assert digest([np.zeros(4)], []) != digest([], [np.zeros(4)])


@pytest.mark.parametrize(
    ("pieces", "reason"),
    [
        (None, "another shape"),
        ([np.zeros(3, np.float32)], "another shape"),
        ([np.zeros(5, np.float32), np.zeros(0)], "another shape"),
        ([[0.0] * 6, np.zeros(4)], "another shape"),
        ([np.zeros(6), np.zeros(4)], "another type: float64"),
        ([np.zeros(6, np.float32), np.full(4, np.inf)], "not finite"),
    ],
)
def test_what_is_wrong_with_a_part(pieces: Any, reason: str) -> None:
    assert reason in fault(LAYOUT, LAYOUT.parts(1)[0], pieces)


# ---- messages ----------------------------------------------------------------------------------

GOOD = [
    ModelInitialized(0, "d" * 64, "f4:3"),
    ModelsReady(3, "d", "f4:3", "f8:3", ["a"], {"b": "late"}),
    ModelsAggregated(2, {"a": "nan"}),
    Metrics(1, {"loss": 0.5, "accuracy": 1}),
    VoteTrainSet(1, {"a": 3}),
    ModelTrained(1, 10, "f4:3", {"7": 12}),
    PartialModel(1, 0, [np.zeros(3)], ["a"], 10),
    FullModel(1, 0, [np.zeros(3)], ["a"], 10),
]


@pytest.mark.parametrize("message", GOOD, ids=lambda message: message.name)
def test_messages_survive_the_way(message: Any) -> None:
    again = read(message.to_wire())
    assert type(again) is type(message)
    assert again.name == message.name


BAD: list[tuple[Any, str]] = [
    (None, "no message"),
    ({"name": "rm"}, "no message"),
    ({"name": "metrics"}, "missing"),
    ({"name": "metrics", "round": 1, "values": {}, "more": 1}, "unexpected"),
    ({"name": "metrics", "round": -1, "values": {}}, "round is no number"),
    ({"name": "metrics", "round": True, "values": {}}, "round is no number"),
    ({"name": "metrics", "round": 1, "values": {"a": "b"}}, "no number"),
    ({"name": "metrics", "round": 1, "values": {1: 1}}, "no short text"),
    ({"name": "metrics", "round": 1, "values": dict.fromkeys(map(str, range(40)), 1)}, "up to 32"),
    ({"name": "model_initialized", "round": 0, "digest": 7, "shapes": ""}, "no text"),
    ({"name": "models_ready", "round": 0, "digest": "", "shapes": "", "contributors": [1]}, "list of peer"),
    ({"name": "models_ready", "round": 0, "digest": "", "shapes": "", "left_out": {"a": 1}}, "no text"),
    ({"name": "models_ready", "round": 0, "digest": "", "shapes": "", "earlier": "a"}, "earlier is no list"),
    ({"name": "models_aggregated", "round": 0, "refused": []}, "dictionary of reasons"),
    ({"name": "vote_train_set", "round": 0, "votes": {"a": 0.5}}, "whole number"),
    ({"name": "vote_train_set", "round": 0, "votes": {"a": 1 << 30}}, "whole number"),
    ({"name": "model_trained", "round": 0, "num_samples": -1}, "num_samples"),
    (
        {"name": "full_model", "round": 0, "part": 0, "arrays": 7, "contributors": [], "num_samples": 0},
        "list",
    ),
]


@pytest.mark.parametrize(("value", "reason"), BAD)
def test_other_things_are_no_messages(value: Any, reason: str) -> None:
    with pytest.raises(InvalidMessage, match=reason):
        read(value)


def test_a_statement_is_a_short_list() -> None:
    assert read_all([GOOD[3].to_wire()]) == (GOOD[3],)
    for wrong in (None, {}, [GOOD[3].to_wire()] * 20):
        with pytest.raises(InvalidMessage, match="statement"):
            read_all(wrong)


def test_what_travels_in_a_run_cannot_be_sent() -> None:
    commands = Commands(list(MESSAGES.values()))  # type: ignore[arg-type]
    for name in MESSAGES:
        with pytest.raises(Denied):
            commands.send(0, 1, name)
        with pytest.raises(Denied):
            commands.broadcast(0, name)


async def test_the_handler_of_a_message_refuses_whoever_calls_it() -> None:
    with pytest.raises(Denied):
        await MESSAGES["metrics"](1).handle(None)  # type: ignore[arg-type]


# ---- agreement ---------------------------------------------------------------------------------


def test_nonsense_counts_as_silence() -> None:
    agreement = Agreement("b", PEERS, 1, [Metrics(1, {"loss": 1.0})], "sync 1")
    for said in (None, 7, [[5, []]], [[True, []]], [[0]], [[0, "nonsense"]], {"a": 1}):
        good: Any = {"at": "sync 1", "said": [[2, [Metrics(1).to_wire()]]]}
        agreement.take({"a": {"at": "sync 1", "said": said}, "c": good})  # type: ignore[dict-item]
    agreement.take({"a": {"at": "offer 7", "said": [[0, []]]}})
    assert set(agreement.statements()) == {"b", "c"}


def test_what_is_known_is_passed_on_once() -> None:
    agreement = Agreement("a", PEERS, 2, [])
    assert agreement.exchanges == 3
    agreement.take({"b": {"at": "", "said": [[1, []]]}})
    assert agreement.message() == {"at": "", "said": [[1, []]]}
    agreement.take({"b": {"at": "", "said": [[1, ["other"]], [2, []]]}})
    assert agreement.message() == {"at": "", "said": [[2, []]]}
    assert agreement.statements() == {"a": (), "b": (), "c": ()}


# ---- spreads -----------------------------------------------------------------------------------

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
            return [FullModel(5, 2, [np.zeros(1)], [], 0).to_wire()]
        return message

    play(spreads, change)
    assert "as the root of a part" in spreads["a"].refused["c"]
    assert [spread.complete for spread in spreads.values()] == [False, True, True]


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


def test_a_mean_is_made_in_blocks_of_which_nothing_is_seen() -> None:
    rng = np.random.default_rng(3)
    rows = [rng.normal(size=2 * BLOCK + 5).astype(np.float32) for _ in range(3)]
    found = weighted_mean(rows, [5, 1, 7])
    exact = (
        rows[0].astype(np.float64) * 5 + rows[1].astype(np.float64) + rows[2].astype(np.float64) * 7
    ) / 13
    assert found.dtype == np.float32
    assert found.tobytes() == exact.astype(np.float32).tobytes()


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


# ---- workflow ----------------------------------------------------------------------------------


def test_the_table_is_the_machine() -> None:
    pairs = {(row.state, row.event): row.next for row in TRANSITIONS}
    assert len(pairs) == len(TRANSITIONS)
    assert {row.state for row in TRANSITIONS} == set(State) - {State.FINISHED}
    assert {row.event for row in TRANSITIONS} == set(Event)
    for state in State:
        for event in Event:
            flow = Workflow("a", Plan(1), 0, 1, PEERS, state=state)
            if (state, event) in pairs:
                flow.proceed(event)
                assert flow.state is pairs[state, event]
            else:
                with pytest.raises(ProtocolError, match="cannot happen"):
                    flow.proceed(event)


def test_agreements_bear_what_the_quorum_does() -> None:
    def crashes(members: int, quorum: int, most: int = 3) -> int:
        return Workflow("a", Plan(1, crashes=most), 0, quorum, ("a",) * members).crashes

    assert [crashes(2, 2), crashes(5, 3), crashes(10, 6), crashes(10, 6, 1), crashes(2, 5)] == [0, 2, 3, 1, 0]


def ready(round: int, digest: str, shapes: str = "f4:3") -> tuple[Any, ...]:
    return (ModelsReady(round, digest, shapes) if round else ModelInitialized(0, digest, shapes),)


def test_the_starters_model_is_the_first() -> None:
    said = {"a": ready(0, "one"), "b": ready(0, "two"), "c": ready(0, "one")}
    flow = Workflow("a", Plan(5), 0, 1, PEERS, initiator="b")
    assert flow.conclude_sync(said) is Event.BEHIND
    assert (flow.holders, flow.behind) == (("b",), ("a", "c"))
    flow = Workflow("a", Plan(5), 0, 1, PEERS, initiator="gone")
    assert flow.conclude_sync(said) is Event.BEHIND
    assert (flow.holders, flow.behind) == (("a", "c"), ("b",))


def test_the_furthest_has_the_model_and_the_odd_one_leaves() -> None:
    said = {"a": ready(2, "x"), "b": ready(3, "y"), "c": ready(3, "y", "f4:9")}
    flow = Workflow("a", Plan(5), 0, 1, PEERS)
    assert flow.conclude_sync(said) is Event.BEHIND
    assert (flow.holders, flow.behind, flow.members) == (("b",), ("a",), ("a", "b"))
    with pytest.raises(InvalidParameter, match="the model here is f4:9, 2 members have f4:3"):
        Workflow("c", Plan(5), 0, 1, PEERS).conclude_sync(said)


def test_an_own_statement_that_is_lost_ends_the_part() -> None:
    with pytest.raises(ProtocolError, match="own statement"):
        Workflow("c", Plan(5), 0, 1, PEERS).conclude_sync({"a": ready(0, "x")})


def spread_once(*, refused: Mapping[str, str] | None = None, dead: str = "") -> tuple[Workflow, Event]:
    flow = Workflow("a", Plan(5), 0, 1, PEERS)
    flow.conclude_sync({peer: ready(0, "x") for peer in PEERS})
    flow.conclude_offers({peer: (ModelTrained(0, 10),) for peer in PEERS})
    flow.begin_spread()
    torn = (ModelsAggregated(0, dict(refused or {})),)
    return flow, flow.conclude_sync({peer: torn for peer in PEERS if peer != dead})


def test_a_torn_round_is_spread_again_without_the_dead() -> None:
    flow, event = spread_once(dead="c")
    assert event is Event.TORN
    assert flow.weights == {"a": 10, "b": 10}
    assert "died" in flow.left_out["c"]


def test_a_torn_round_is_spread_again_without_the_refused() -> None:
    flow, event = spread_once(refused={"b": "it sent values that are not finite", "zzz": "who"})
    assert event is Event.TORN
    assert flow.weights == {"a": 10, "c": 10}
    assert flow.left_out == {"b": "it sent values that are not finite"}


def test_a_round_that_nobody_can_complete_is_passed_over() -> None:
    flow, event = spread_once()
    assert event is Event.READY
    assert flow.round == 1
    assert flow.record is not None
    assert flow.record.contributors == ()
    assert flow.record.digest == "x"


def test_offers_are_weighed() -> None:
    flow = Workflow("a", Plan(5, max_samples=100), 0, 1, PEERS)
    flow.conclude_sync({peer: ready(0, "x") for peer in PEERS})
    offers = {
        "a": (ModelTrained(0, 10, "f4:3", {"7": 10}),),
        "b": (ModelTrained(0, 20, "f4:4"),),
        "c": (ModelTrained(0, 30, "f4:3"),),
    }
    assert flow.conclude_offers(offers) is Event.OFFERED
    assert flow.weights == {"a": 10, "c": 30}
    assert "extra arrays" in flow.left_out["b"]
    assert flow.labels == {"a": {"7": 10}}
    nothing = {"a": (ModelTrained(0, 0),), "b": (ModelTrained(0, 200),), "c": (ModelTrained(9, 10),)}
    assert flow.conclude_offers(nothing) is Event.NOTHING


def test_train_sets_are_drawn_alike_everywhere() -> None:
    members = tuple(f"p{number}" for number in range(10))
    drawn = [rendezvous(members, 3, 7, round) for round in range(200)]
    assert all(len(names) == 3 and list(names) == sorted(names) for names in drawn)
    counts = [sum(peer in names for names in drawn) for peer in members]
    assert 30 < min(counts) <= max(counts) < 95
    without = rendezvous([m for m in members if m not in drawn[0][:1]], 3, 7, 0)
    assert set(drawn[0][1:]) <= set(without)


def test_votes_are_summed_and_ties_go_to_the_lower_id() -> None:
    said = {
        "a": (VoteTrainSet(0, {"b": 5, "c": 2, "stranger": 99}),),
        "b": (VoteTrainSet(0, {"c": 3}),),
        "c": (),
    }
    assert tally(PEERS, said, 1) == ("b",)
    assert tally(PEERS, said, 2) == ("b", "c")
    assert tally(PEERS, {}, 2) == ("a", "b")


# ---- parameters --------------------------------------------------------------------------------


def test_options_of_an_aggregator() -> None:
    assert options_of("f=1, beta=0.5") == {"f": "1", "beta": "0.5"}
    assert options_of("") == {}
    with pytest.raises(InvalidParameter, match="no option"):
        options_of("f")


@pytest.mark.parametrize(
    "wrong",
    [
        {"rounds": 0},
        {"epochs": 0},
        {"steps": -1},
        {"step": -0.1},
        {"train_set": -1},
        {"max_samples": 0},
        {"crashes": -1},
        {"chunk_bytes": 10},
        {"keep": -2},
    ],
)
def test_bad_parameters_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="an epoch or a step|" + next(iter(wrong))):
        Learning(**wrong)
