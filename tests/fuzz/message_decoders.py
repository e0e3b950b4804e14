"""Decoders of our own messages: values, presence, broadcasts, records, certificates, joining, commands."""

from __future__ import annotations

import base64
import random
from dataclasses import replace
from typing import Any

from fuzz.targets import ADMIN_KEY, FEDERATION, MEMBER_KEY, OTHER, PROTOCOL, ROOT, SIGNED, Target, fed

from fedd.api.errors import (
    Conflict,
    Denied,
    FeddError,
    InvalidMessage,
    InvalidParameter,
    NotFound,
    ProtocolError,
    Refused,
)
from fedd.core import broadcast_messages as broadcasts
from fedd.core import certificates, codec, command_messages
from fedd.core import presence_messages as presence
from fedd.core.identity import open_sealed, seal
from fedd.core.pipe import PipeDecoder, encode_frame
from fedd.core.records import RECORD_DOMAIN, Record, Row, open_row, sign_record
from fedd.core.revocation import REVOCATION_DOMAIN, open_list, sign_list, stay_digest
from fedd.net.approval import raise_if_refused, read_waiting
from fedd.net.join_messages import decode_message as decode_join
from fedd.net.join_messages import encode_message as encode_join
from fedd.net.join_messages import lists_in


def _command(data: bytes, rng: random.Random) -> None:
    """A command's parameters, its broadcast, its answer: an error that was sent is an answer as well."""
    readers = (
        command_messages.read_parameters,
        command_messages.read_broadcast,
        command_messages.read_answer,
    )
    told: FeddError | None = None
    try:
        rng.choice(readers)(data, 4096)
    except ProtocolError:
        raise
    except FeddError as error:
        told = error
    assert told is None or len(told.detail) <= 1000


_COMMAND = (
    codec.encode({"text": "hi", "count": 3}),
    command_messages.encode_broadcast("note", "1.0.0", {"text": "hi"}),
    command_messages.encode_value([1, {"array": codec.ArrayView("uint8", (2,), b"ab")}]),
    command_messages.encode_error(InvalidParameter("no", hint="yes", field="text")),
)


def _codec(data: bytes, rng: random.Random) -> None:
    canonical = rng.random() < 0.5
    value = codec.decode(data, canonical=canonical)
    if isinstance(value, codec.ArrayView) and value.size < 10_000:
        value.tolist()
    again = codec.encode(value)
    if canonical:
        assert again == data


_VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 2**63, 1.5, "text", b"bytes", [], {}, [1, [2, [3]]], {"a": 1, "b": {"c": [None]}},
    codec.ArrayView("float64", (2, 3), bytes(48)), codec.ArrayView("uint8", (0, 4), b""),
    {"x": codec.ArrayView("int32", (2,), bytes(8))},
)  # fmt: skip


def _pipe(data: bytes, rng: random.Random) -> None:
    fed(PipeDecoder(4096), data, rng)


def _row() -> Row:
    return sign_record(MEMBER_KEY, _RECORD).row


_CHAIN = certificates.make_chain(
    certificates.issue_certificate(
        ADMIN_KEY, federation=FEDERATION, name="plant7", peer_id=MEMBER_KEY.peer_id, serial=7
    ),
    certificates.make_chain(
        certificates.issue_certificate(
            ROOT,
            federation=FEDERATION,
            name="plant7",
            peer_id=ADMIN_KEY.peer_id,
            serial=1,
            roles=(certificates.MEMBER, certificates.ADMIN),
        )
    ),
)
_RECORD = Record(
    id=MEMBER_KEY.peer_id,
    epoch=3,
    seq=7,
    neighbours=frozenset({ADMIN_KEY.peer_id}),
    lost={OTHER.peer_id: "closed"},
    addresses=("/ip4/192.0.2.7/tcp/4001",),
    name="pump 3",
    version="0.1.0",
    chain=_CHAIN,
)
_RECORD_PAYLOAD = open_sealed(_row().sealed, RECORD_DOMAIN)[1]


def _record(data: bytes, rng: random.Random) -> None:
    sealed = seal(MEMBER_KEY, RECORD_DOMAIN, data[:8000]) if rng.random() < 0.5 else data
    open_row(
        Row(MEMBER_KEY.peer_id, _RECORD.stamp, sealed),
        lambda chain, peer: certificates.verify_chain(chain, FEDERATION, peer),
    )


_REVOCATIONS = sign_list(ROOT, FEDERATION, 3, {ADMIN_KEY.peer_id: [stay_digest(MEMBER_KEY.peer_id)]})
_REVOCATIONS_PAYLOAD = open_sealed(_REVOCATIONS, REVOCATION_DOMAIN)[1]


def _revocations(data: bytes, rng: random.Random) -> None:
    sealed = seal(ROOT, REVOCATION_DOMAIN, data[:12_000]) if rng.random() < 0.7 else data
    found = open_list(sealed, FEDERATION)
    assert found.issuer not in found.revoked


_HEADER = broadcasts.encode_header(FEDERATION, broadcasts.Header(1, 7, "note", True, 5, bytes(32)))
_POST = broadcasts.Post(
    MEMBER_KEY.peer_id, 1, 7, seal(MEMBER_KEY, broadcasts.BROADCAST_DOMAIN, _HEADER), b"hello"
)


def _broadcast_header(data: bytes, rng: random.Random) -> None:
    header = broadcasts.decode_header(FEDERATION, data)
    assert header.size <= broadcasts.MAX_PAYLOAD_BYTES


def _broadcast_items(data: bytes, rng: random.Random) -> None:
    seq, peers = broadcasts.decode_items(data)
    assert seq >= 0
    assert len(peers) < 1000


_STAMPS = tuple(sorted([(ADMIN_KEY.peer_id, (1, False, 2)), (OTHER.peer_id, (2**32 - 1, True, 0))]))
_PRESENCE = tuple(
    map(
        presence.encode_message,
        (
            presence.Hello(FEDERATION, _CHAIN, True),
            presence.Ping(7, 1500),
            presence.Pong(7),
            presence.Rows((_row(),)),
            presence.Digest(b"h" * 24),
            presence.Versions("", "", _STAMPS),
            presence.Want((ADMIN_KEY.peer_id, OTHER.peer_id)),
            presence.Refuse((_row(),)),
            presence.Pin(True),
            presence.Bye("shutdown"),
            presence.RevocationMarks(((ROOT.peer_id, 1), (ADMIN_KEY.peer_id, 7))),
            presence.Revocations(_REVOCATIONS),
            broadcasts.Bcast((_POST,)),
            broadcasts.Ihave((replace(_POST, body=b""),)),
            broadcasts.Iwant(OTHER.peer_id, 1, ((1, 2), (4, 2**32 - 1))),
            broadcasts.Gone(replace(_POST, body=b""), ((1, 6),)),
            broadcasts.Pull(OTHER.peer_id, 1, 2, 8192),
            broadcasts.Chunk(OTHER.peer_id, 1, 2, 8192, b"piece"),
            broadcasts.Marks(True, 1500, ((ADMIN_KEY.peer_id, 1, 2), (OTHER.peer_id, 2**32 - 1, 0))),
            broadcasts.Acks(OTHER.peer_id, 1, 2, ((MEMBER_KEY.peer_id, b"sealed"),)),
        ),
    )
)


def _presence(data: bytes, rng: random.Random) -> None:
    fed(presence.MessageDecoder(), data, rng)


def _framed_presence(data: bytes, rng: random.Random) -> None:
    """The body alone, so that mutations do not spend themselves on the length."""
    body = data[:16_000]
    fed(presence.MessageDecoder(), len(body).to_bytes(2, "big") + body, rng)


def _certificate(data: bytes, rng: random.Random) -> None:
    chain = data
    if rng.random() < 0.5:
        chain = codec.encode([seal(ROOT, "fedd/certificate/1", data[:1500])])
    certificates.verify_chain(chain, FEDERATION, MEMBER_KEY.peer_id)


_CERTIFICATE_PAYLOAD = open_sealed(
    certificates.issue_certificate(
        ROOT, federation=FEDERATION, name="plant7", peer_id=MEMBER_KEY.peer_id, serial=7
    ),
    "fedd/certificate/1",
)[1]


def _join_message(data: bytes, rng: random.Random) -> None:
    assert all(isinstance(sealed, bytes) for sealed in lists_in(decode_join(data, "peer")))


_JOIN_MESSAGES = tuple(
    encode_join(message)[2:]
    for message in (
        {"federation": FEDERATION, "secret": b"s" * 16, "name": "pump 3"},
        {"chain": _CHAIN, "lists": [_REVOCATIONS]},
        {"chain": None, "pending": True},
        {"accepted": True, "reason": ""},
    )
)

_TOKEN = certificates.InviteToken(
    FEDERATION, (f"/ip4/192.0.2.7/tcp/4001/p2p/{ADMIN_KEY.peer_id}",), b"s" * 16
)


def _token(data: bytes, rng: random.Random) -> None:
    token = certificates.parse_token(data.decode("utf-8", "surrogateescape"))
    assert certificates.parse_token(token.encode()) == token


def _token_content(data: bytes, rng: random.Random) -> None:
    certificates.parse_token("fedd1-" + base64.urlsafe_b64encode(data).rstrip(b"=").decode())


_WAITING = [OTHER.peer_id, "pump 3", "/ip4/192.0.2.7/tcp/4001", 3.5]


def _approval(data: bytes, rng: random.Random) -> None:
    """What another admin answers: who waits there, or that something was not done."""
    answer = decode_join(data, "peer")
    raise_if_refused(answer, "peer")
    assert all(len(waiting.name) <= 64 for waiting in read_waiting(answer, "peer"))


MESSAGE_TARGETS: dict[str, Target] = {
    "codec": Target(_codec, (InvalidMessage,), tuple(codec.encode(value) for value in _VALUES)),
    "command": Target(_command, PROTOCOL, _COMMAND),
    "pipe": Target(_pipe, PROTOCOL, (b"".join(encode_frame({"kind": "ready"}, [b"abc", b""])),)),
    "presence": Target(_presence, PROTOCOL, _PRESENCE),
    "broadcast-header": Target(_broadcast_header, PROTOCOL, (_HEADER,)),
    "broadcast-items": Target(_broadcast_items, PROTOCOL, (broadcasts.encode_items(7, [OTHER.peer_id]),)),
    "presence-body": Target(_framed_presence, PROTOCOL, tuple(message[2:] for message in _PRESENCE)),
    "record": Target(_record, SIGNED, (_RECORD_PAYLOAD, _row().sealed)),
    "certificate": Target(_certificate, (Denied,), (_CERTIFICATE_PAYLOAD, _CHAIN)),
    "revocations": Target(_revocations, SIGNED, (_REVOCATIONS, _REVOCATIONS_PAYLOAD)),
    "join-message": Target(_join_message, PROTOCOL, _JOIN_MESSAGES),
    "token": Target(_token, (InvalidParameter,), (_TOKEN.encode().encode(),)),
    "token-content": Target(
        _token_content,
        (InvalidParameter,),
        (codec.encode([bytes.fromhex(FEDERATION), list(_TOKEN.addresses), _TOKEN.secret]),),
    ),
    "approval": Target(
        _approval,
        (ProtocolError, Conflict, Denied, InvalidParameter, NotFound, Refused),
        (encode_join({"waiting": [_WAITING, _WAITING]})[2:],),
    ),
}
