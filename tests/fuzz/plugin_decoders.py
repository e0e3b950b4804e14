"""Decoders of what members say inside runs: the ledger, floods, and the bundled plugins' own messages."""

from __future__ import annotations

import contextlib
import json
import random
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
from fuzz.targets import MEMBER_KEY, OTHER, Target

from fedd.api.errors import InvalidMessage
from fedd.core import codec
from fedd.worker import arrays
from fedd.worker.flooding import _pairs
from fedd.worker.ledger import LedgerCore
from fedd_consensus.codecs import NAMES, find_codec
from fedd_learning import messages
from fedd_learning.layout import Layout, checked
from fedd_voting.ballots import Question
from fedd_voting.box import BallotBox

ME, PEER = sorted((MEMBER_KEY.peer_id, OTHER.peer_id))
MEMBERS = (ME, PEER)


def _core(me: str, agreeing: bool) -> LedgerCore:
    core = LedgerCore(me, MEMBERS, [peer for peer in MEMBERS if peer != me], np.array([1.5, -2.0, 0.0]))
    if agreeing:
        core.begin_agreement()
    return core


def _ledger(data: bytes, rng: random.Random) -> None:
    """A neighbour's message, with and without a window; after an error the books are as they were."""
    core = _core(ME, rng.random() < 0.5)
    core.messages([PEER])
    before = core.value
    try:
        core.apply({PEER: data}, [PEER])
    except InvalidMessage:
        assert (core.value == before).all()
        raise
    assert np.isfinite(core.value).all()
    core.close_window(1e-9)


def _flood(data: bytes, rng: random.Random) -> None:
    exchanges = SimpleNamespace(members=MEMBERS, decode=lambda payload: arrays.decode(payload, 4096))
    for origin, item in _pairs(cast(Any, exchanges), data):
        assert 0 <= origin < 2
        assert isinstance(item, bytes)


_SHAPES = Layout((("f4", (3, 2)), ("f8", ())))
_PIECES = [np.zeros(6, "f4"), np.zeros(1, "f8")]


def _learning(data: bytes, rng: random.Random) -> None:
    """A member's statement, what it says of shapes, and the part of a model that it gives."""
    for message in messages.read_all(arrays.decode(data, 1 << 16)):
        for text in (getattr(message, "state_shapes", ""), getattr(message, "extras", "")):
            Layout.read(text, 1 << 16).empty().arrays()
        if isinstance(message, messages.Part):
            with contextlib.suppress(InvalidMessage):
                _SHAPES.empty().put(
                    _SHAPES.parts(1)[0], checked(_SHAPES, _SHAPES.parts(1)[0], message.arrays)
                )
        json.dumps(message.to_wire(), default=str)


_STATEMENTS: tuple[list[messages.RunMessage], ...] = (
    [messages.ModelInitialized(0, "0" * 64, _SHAPES.text, "f4:2")],
    [
        messages.ModelsReady(3, "0" * 64, _SHAPES.text, "", [ME], {PEER: "late"}),
        messages.Metrics(3, {"loss": 1.5}),
    ],
    [messages.VoteTrainSet(1, {ME: 3}), messages.ModelTrained(1, 7, "f8:2x2", {"cat": 5}, "")],
    [
        messages.ModelsAggregated(2, {PEER: "not finite"}),
        messages.PartialModel(2, 0, cast(Any, _PIECES), [ME], 9),
    ],
)


def _layout(data: bytes, rng: random.Random) -> None:
    layout = Layout.read(data.decode("utf-8", "surrogateescape"), 1 << 16)
    assert Layout.read(layout.text, 1 << 16) == layout
    rows = layout.empty()
    assert sum(len(layout.parts(3)[k]) for k in range(3)) >= 0
    assert Layout.of(rows.arrays()).text == layout.text


_QUESTIONS = (
    Question("who?", ("yes", "no"), "plurality"),
    Question("who?", ("a", "b", "c"), "approval"),
    Question("who?", ("a", "b", "c"), "borda"),
    Question("who?", MEMBERS, "train-set"),
)
_BALLOTS = (
    _QUESTIONS[0].encode(["yes"]),
    _QUESTIONS[1].encode(["a", "c"]),
    _QUESTIONS[3].encode([(ME, 7), (PEER, 3)]),
)


def _ballot(data: bytes, rng: random.Random) -> None:
    question = rng.choice(_QUESTIONS)
    assert question.encode(question.decode(data)) == data


def _box(data: bytes, rng: random.Random) -> None:
    """Whatever comes, ballots that cannot be read are left out and the others counted."""
    question = rng.choice(_QUESTIONS)
    box = BallotBox(question, MEMBERS, lambda voter, signed, signature: True)
    new = box.take(arrays.decode(data, 1 << 16))
    assert len(new) <= 4
    assert len(box.ballots) + len(box.void) <= 2
    assert len(box.digest()) == 32


_SIZE = 5
_CODECS = [find_codec(name if ":" not in name else "top-k:0.4") for name in NAMES]
_ARRAY = np.array([1.5, -2.0, 0.0, 1e-3, 4.0])


def _array_codec(data: bytes, rng: random.Random) -> None:
    found = rng.choice(_CODECS).decode(arrays.decode(data, 4096), _SIZE)
    assert found.shape == (_SIZE,)
    assert np.isfinite(found).all()


_INVALID = (InvalidMessage,)

PLUGIN_TARGETS: dict[str, Target] = {
    "ledger": Target(
        _ledger, _INVALID, tuple(_core(PEER, agreeing).messages([ME])[ME] for agreeing in (False, True))
    ),
    "flood": Target(_flood, _INVALID, (codec.encode([0, b"x", 1, b"y"]), codec.encode([]))),
    "learning": Target(
        _learning,
        _INVALID,
        tuple(arrays.encode([message.to_wire() for message in statement]) for statement in _STATEMENTS),
    ),
    "learning-layout": Target(_layout, _INVALID, (_SHAPES.text.encode(), b"", b"u1:0x7;i8:2x3x4")),
    "ballot": Target(_ballot, _INVALID, _BALLOTS),
    "ballots": Target(
        _box,
        _INVALID,
        tuple(
            arrays.encode([[voter, ballot, b"s" * 64] for voter in MEMBERS for ballot in chosen])
            for chosen in ([_BALLOTS[0]], [_BALLOTS[1], _BALLOTS[2]])
        ),
    ),
    "array-codec": Target(
        _array_codec, _INVALID, tuple(arrays.encode(each.encode(_ARRAY)) for each in _CODECS)
    ),
}
