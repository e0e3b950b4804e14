"""Decoders of what members send in runs: documents, frames, mail, reports; and what is kept of them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
import struct
from typing import Any, cast

import numpy as np
from fuzz.mutate import pieces
from fuzz.targets import ADMIN_KEY, FEDERATION, MEMBER_KEY, OTHER, PROTOCOL, Target, fed

from fedd.api.errors import FeddError, InvalidMessage
from fedd.core import (
    codec,
    epoch_manifest,
    manifest,
)
from fedd.core.epochs import Next
from fedd.core.history import MAX_ROUND, History, read_rows
from fedd.core.identity import open_sealed, seal
from fedd.core.mail import Deliver, Item, Mail, MailKind, Receipt
from fedd.host.checkpoints import _read as read_checkpoint
from fedd.host.run_control import read_message
from fedd.host.run_histories import exported
from fedd.host.run_result import read_value
from fedd.host.run_wire import (
    FrameDecoder,
    Kind,
    PreambleDecoder,
    encode_confirm,
    encode_mail,
    encode_preamble,
    encode_round,
    read_confirm,
    read_mail,
)
from fedd.host.run_wire import encode_frame as encode_run_frame
from fedd.worker import arrays
from fedd.worker.mail import _read_refusal

_PROPOSAL = manifest.Proposal(
    federation=FEDERATION,
    initiator=MEMBER_KEY.peer_id,
    algorithm="consensus",
    plugin="consensus",
    distribution="fedd",
    version="0.1.0",
    parameters={"iterations": 10, "tolerance": 1e-9},
    input="x",
    topology="",
    contract="survivors",
    seed=7,
    quorum=2,
    pace_s=0.0,
    nonce=b"n" * 16,
)
_MANIFEST = manifest.issue(
    MEMBER_KEY,
    _PROPOSAL,
    {key.peer_id: manifest.accept(key, _PROPOSAL) for key in (MEMBER_KEY, ADMIN_KEY)},
    {OTHER.peer_id: "busy"},
    1 << 20,
)
_MANIFEST_PAYLOAD = open_sealed(_MANIFEST.sealed, "fedd/run-manifest/1", max_bytes=1 << 18)[1]
_END = manifest.state_end(MEMBER_KEY, _MANIFEST.run_id, 3, "left: stall").sealed
_END_PAYLOAD = open_sealed(_END, "fedd/run-end/1")[1]


def _manifest(data: bytes, rng: random.Random) -> None:
    way = rng.randrange(4)
    if way == 0:
        manifest.open_manifest(data)
    elif way == 1:
        manifest.open_manifest(seal(MEMBER_KEY, "fedd/run-manifest/1", data))
    elif way == 2:
        manifest.Proposal.decode(data)
    else:
        fields = {**codec.decode(_MANIFEST_PAYLOAD), "proposal": data}
        manifest.open_manifest(seal(MEMBER_KEY, "fedd/run-manifest/1", codec.encode(fields)))


_ACCEPTED = manifest.accept(OTHER, _PROPOSAL)
_ADMISSION = epoch_manifest.admit(ADMIN_KEY, _MANIFEST, OTHER.peer_id, _ACCEPTED)
_EPOCH = epoch_manifest.issue_epoch(
    MEMBER_KEY,
    _MANIFEST,
    Next(2, tuple(sorted((MEMBER_KEY.peer_id, OTHER.peer_id))), (OTHER.peer_id,)),
    17,
    [_ADMISSION],
).sealed
_EPOCH_PREFIX = _EPOCH[: _EPOCH.index(b"\0") + 1]
_EPOCH_PAYLOAD = open_sealed(_EPOCH[len(_EPOCH_PREFIX) :], "fedd/run-epoch/1", max_bytes=1 << 18)[1]
_ADMISSION_PAYLOAD = open_sealed(_ADMISSION, "fedd/run-admission/1")[1]


def _epoch(data: bytes, rng: random.Random) -> None:
    way = rng.randrange(3)
    if way == 0:
        epoch_manifest.open_any(data)
    elif way == 1:
        sealed = seal(MEMBER_KEY, "fedd/run-epoch/1", data)
        epoch_manifest.open_any(_EPOCH_PREFIX + sealed, _MANIFEST)
    else:
        admissions = [seal(ADMIN_KEY, "fedd/run-admission/1", data)]
        fields = {**codec.decode(_EPOCH_PAYLOAD), "admissions": admissions}
        sealed = seal(MEMBER_KEY, "fedd/run-epoch/1", codec.encode(fields))
        epoch_manifest.open_any(_EPOCH_PREFIX + sealed, _MANIFEST)


_CUT = manifest.state_cut(MEMBER_KEY, _MANIFEST, ADMIN_KEY.peer_id, 3, "no link", fault=False).sealed
_CUT_PAYLOAD = open_sealed(_CUT, "fedd/run-cut/1")[1]


def _statement(data: bytes, rng: random.Random) -> None:
    way = rng.randrange(5)
    if way == 0:
        manifest.open_end(data, _MANIFEST.run_id)
    elif way == 1:
        manifest.open_end(seal(MEMBER_KEY, "fedd/run-end/1", data), _MANIFEST.run_id)
    elif way == 2:
        manifest.open_stop(seal(MEMBER_KEY, "fedd/run-stop/1", data))
    elif way == 3:
        manifest.open_cut(data, _MANIFEST)
    else:
        cut = manifest.open_cut(seal(MEMBER_KEY, "fedd/run-cut/1", data), _MANIFEST)
        assert {cut.member, cut.peer} <= set(_MANIFEST.members)


def _run_frames(data: bytes, rng: random.Random) -> None:
    if rng.random() < 0.2:
        preamble = PreambleDecoder()
        for piece in pieces(rng, data):
            if preamble.receive_data(piece) is not None:
                return
        return
    fed(FrameDecoder(4096), data, rng)
    room = Mail([OTHER.peer_id], 4096)
    room.post(OTHER.peer_id, Item(MailKind.QUESTION, 9, "", b"?"))
    for frame in FrameDecoder(4096).receive_data(data):
        if frame.kind == Kind.MAIL:
            room.receive(OTHER.peer_id, *read_mail(frame))
        elif frame.kind == Kind.CONFIRM:
            room.confirm(OTHER.peer_id, read_confirm(frame))


_LETTER = Item(MailKind.LETTER, 0, "t", b"abc")
_ANSWER = Item(MailKind.ANSWER, 9, "", b"!")
_REFUSAL = Item(MailKind.REFUSAL, 9, "t", codec.encode(["not_found", "nothing here", ""]))


def _payload_of(frame: list[bytes | memoryview]) -> bytes:
    """What a frame of mail carries, without the frame."""
    (found,) = FrameDecoder(4096).receive_data(b"".join(frame))
    return bytes(found.payload)


def _mail(data: bytes, rng: random.Random) -> None:
    """Frames whose heads hold, so that mutations reach the mail itself; and what a refusal says."""
    if rng.random() < 0.2:
        said = _read_refusal(OTHER.peer_id, "t", data)
        assert len(said.detail) <= 1000
        return
    room = Mail([OTHER.peer_id, ADMIN_KEY.peer_id], 4096)
    room.post(OTHER.peer_id, Item(MailKind.QUESTION, 9, "", b"?"))
    for number in range(rng.randrange(1, 4)):
        kind = rng.choice((Kind.MAIL, Kind.MAIL, Kind.CONFIRM))
        (frame,) = FrameDecoder(4096).receive_data(encode_run_frame(kind, number, data[:4000], "t"))
        if kind == Kind.CONFIRM:
            room.confirm(OTHER.peer_id, read_confirm(frame))
        else:
            for action in room.receive(OTHER.peer_id, *read_mail(frame)):
                if isinstance(action, Deliver) and action.item.kind is MailKind.LETTER:
                    room.read(OTHER.peer_id, 1, len(action.item.payload))


class _Arrived:
    """A stream whose other end has sent `data` and closed."""

    peer_id = OTHER.peer_id

    def __init__(self, data: bytes) -> None:
        self._data = data

    async def receive_exactly(self, size: int) -> bytes:
        if len(self._data) < size:
            raise EOFError
        found, self._data = self._data[:size], self._data[size:]
        return found


def _run_message(data: bytes, rng: random.Random) -> None:
    """A question or an answer about runs: proposals, acceptances, histories."""
    if rng.random() < 0.8:
        data = len(data).to_bytes(4, "big") + data
    reading = read_message(cast(Any, _Arrived(data)))
    with contextlib.suppress(StopIteration):
        reading.send(None)


def _history(data: bytes, rng: random.Random) -> None:
    history = History.decode(data)
    document = history.document()
    assert all(len(column) == len(document["rounds"]) for column in document["series"].values())
    assert History.decode(history.encode()).document() == document
    if history.names:
        history.add(MAX_ROUND, {"loss": 1.0})


def _reports(data: bytes, rng: random.Random) -> None:
    history = History()
    for number, metrics in read_rows(data):
        history.add(number, metrics)
    json.dumps(history.document(), allow_nan=False)


def _value(data: bytes, rng: random.Random) -> None:
    """A run's value: what an algorithm works with, and what the control API shows and exports of it."""
    way = rng.randrange(3)
    if way == 0:
        arrays.encode(arrays.decode(data, 1 << 16))
    elif way == 1:
        json.dumps(read_value(data, 1 << 16))
    else:
        json.dumps(exported(data), default=str)


_HISTORY = History()
for _number in range(9):
    _HISTORY.add(_number, {"loss": 1.0 / (1 + _number), "accuracy": {"a": 0.5, "b": _number}})

_REPORTS = codec.encode(
    [[0, {"loss": 1.5}], [3, {"loss": 1, "by": {"a": 2.0}, "text": "x"}]], canonical=False
)


def _checkpoint(data: bytes, rng: random.Random) -> None:
    """What is on disk, half of the time with a header that was mutated alone."""
    if rng.random() < 0.5:
        data = len(data).to_bytes(4, "big") + data + b"state"
    read_checkpoint(data)


_CHECKPOINT_HEADER = codec.encode(
    {
        "manifest": b"sealed",
        "round": 7,
        "started_unix_s": 1.5,
        "sha256": hashlib.sha256(b"state").digest(),
    }
)


RUN_TARGETS: dict[str, Target] = {
    "manifest": Target(_manifest, PROTOCOL, (_MANIFEST.sealed, _MANIFEST_PAYLOAD, _PROPOSAL.encode())),
    "epoch": Target(_epoch, PROTOCOL, (_EPOCH, _EPOCH_PAYLOAD, _ADMISSION_PAYLOAD)),
    "statement": Target(_statement, PROTOCOL, (_END, _END_PAYLOAD, _CUT, _CUT_PAYLOAD)),
    "run-frames": Target(
        _run_frames,
        PROTOCOL,
        (
            b"".join(encode_round(3, "mean", b"payload")) + encode_run_frame(Kind.ACK, 4),
            encode_run_frame(Kind.END, 9, _END),
            encode_preamble(_MANIFEST.sealed),
            b"".join(encode_mail(0, Item(MailKind.ANSWER, 9, "", b"!"), Receipt(1)))
            + b"".join(encode_mail(1, Item(MailKind.LETTER, 0, "t", b"abc"), Receipt(1)))
            + encode_confirm(Receipt(1, waiting=True)),
        ),
    ),
    "mail": Target(
        _mail,
        PROTOCOL,
        (
            _payload_of(encode_mail(0, _LETTER, Receipt(0))),
            _payload_of(encode_mail(1, _ANSWER, Receipt(1))),
            _payload_of(encode_mail(1, _REFUSAL, Receipt(1))),
            _payload_of([encode_confirm(Receipt(1, waiting=True))]),
            _REFUSAL.payload,
        ),
    ),
    "run-message": Target(
        _run_message,
        PROTOCOL,
        tuple(
            codec.encode(message)
            for message in (
                {"kind": "propose", "proposal": _PROPOSAL.encode()},
                {"kind": "history", "run": _MANIFEST.run_id},
                {"kind": "history", "history": _HISTORY.encode()},
            )
        ),
    ),
    "history": Target(_history, (InvalidMessage,), (_HISTORY.encode(), History().encode())),
    "reports": Target(_reports, PROTOCOL, (_REPORTS, codec.encode([]))),
    "value": Target(
        _value,
        (InvalidMessage,),
        tuple(
            arrays.encode(value)
            for value in (
                [1, 2.5, None, "text", b"bytes"],
                {"mean": np.arange(6.0).reshape(2, 3), "n": np.zeros((0, 2), "u1")},
                np.float32(1.5),
            )
        ),
    ),
    "checkpoint": Target(
        _checkpoint,
        (FeddError, ValueError, TypeError, KeyError, struct.error),
        (
            _CHECKPOINT_HEADER,
            len(_CHECKPOINT_HEADER).to_bytes(4, "big") + _CHECKPOINT_HEADER + b"state",
        ),
    ),
}
