"""The pieces that a run of learning is made of, each by itself: what is refused, and why."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from fedd.api import Denied, InvalidMessage, InvalidParameter
from fedd.testing import Commands
from fedd_learning import Learning
from fedd_learning.agreement import Agreement
from fedd_learning.layout import Layout, checked, digest
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
        copy.put(segments, checked(layout, segments, rows.part(segments)))
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
    with pytest.raises(InvalidMessage, match=reason):
        LAYOUT.empty().put(LAYOUT.parts(1)[0], checked(LAYOUT, LAYOUT.parts(1)[0], pieces))


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
    commands = Commands(list(MESSAGES.values()))
    for name in MESSAGES:
        with pytest.raises(Denied):
            commands.send(0, 1, name)
        with pytest.raises(Denied):
            commands.broadcast(0, name)


async def test_the_handler_of_a_message_refuses_whoever_calls_it() -> None:
    with pytest.raises(Denied):
        await MESSAGES["metrics"](1).handle(None)


# ---- agreement ---------------------------------------------------------------------------------


def test_nonsense_counts_as_silence() -> None:
    agreement = Agreement("b", PEERS, 1, [Metrics(1, {"loss": 1.0})], "sync 1")
    for said in (None, 7, [[5, []]], [[True, []]], [[0]], [[0, "nonsense"]], {"a": 1}):
        good: Any = {"at": "sync 1", "said": [[2, [Metrics(1).to_wire()]]]}
        agreement.take({"a": {"at": "sync 1", "said": said}, "c": good})
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


def test_statements_may_be_asked_for_before_all_are_there() -> None:
    agreement = Agreement("a", PEERS, 1, [])
    assert agreement.statements() == {"a": ()}
    said = [Metrics(1, {"loss": 1.0})]
    agreement.take({"b": {"at": "", "said": [[1, [said[0].to_wire()]], [2, "nonsense"]]}})
    assert agreement.statements() == {"a": (), "b": tuple(said)}
    assert agreement.statements() == {"a": (), "b": tuple(said)}


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
