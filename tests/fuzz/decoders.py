"""Every decoder of bytes that strangers, members, workers or local users send, as a target of the fuzzer.

A target takes bytes and raises nothing but the errors that its decoder documents. Where a signature stands
before a parser, the target signs what was mutated: else nothing but the signature check would be tested.
"""

from __future__ import annotations

import base64
import contextlib
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any, cast

import h11
from fuzz.mutate import pieces

from fedd.api.errors import Denied, FeddError, InvalidMessage, InvalidParameter, ProtocolError
from fedd.control.http import HttpConnection, ServerLimits
from fedd.control.seats import Seat
from fedd.control.server import _check_request
from fedd.core import (
    codec,
    command_messages,
    dns_messages,
    epoch_manifest,
    manifest,
    mdns,
    multistream,
    protobuf,
    relay_messages,
    varint,
)
from fedd.core.broadcast_messages import (
    BROADCAST_DOMAIN,
    MAX_PAYLOAD_BYTES,
    Acks,
    Bcast,
    Chunk,
    Gone,
    Header,
    Ihave,
    Iwant,
    Marks,
    Post,
    Pull,
    decode_header,
    decode_items,
    encode_header,
    encode_items,
)
from fedd.core.certificates import (
    ADMIN,
    MEMBER,
    InviteToken,
    federation_id,
    issue_certificate,
    make_chain,
    parse_token,
    verify_chain,
)
from fedd.core.epochs import Next
from fedd.core.identity import PrivateKey, PublicKey, open_sealed, parse_peer_id, peer_id_from_bytes, seal
from fedd.core.mail import Item, Mail, MailKind, Receipt
from fedd.core.noise import HandshakeXX, KeyPair, NoiseTransport
from fedd.core.noise_handshake import NoiseHandshake
from fedd.core.pipe import PipeDecoder, encode_frame
from fedd.core.presence_messages import (
    Bye,
    Digest,
    Hello,
    MessageDecoder,
    Pin,
    Ping,
    Pong,
    Refuse,
    RevocationMarks,
    Revocations,
    Rows,
    Versions,
    Want,
    encode_message,
)
from fedd.core.records import RECORD_DOMAIN, Record, Row, open_row, sign_record
from fedd.core.revocation import REVOCATION_DOMAIN, open_list, sign_list, stay_digest
from fedd.core.yamux import Session
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
from fedd.net.identify import decode_identification
from fedd.net.join_messages import decode_message as decode_join
from fedd.net.join_messages import encode_message as encode_join
from fedd.net.join_messages import lists_in
from fedd.net.transport import multiaddr_from_bytes, parse_multiaddr

KEYS = [PrivateKey.from_seed(bytes([number]) * 32) for number in range(1, 5)]
ROOT, ADMIN_KEY, MEMBER_KEY, OTHER = KEYS
FEDERATION = federation_id(ROOT.public_key)

Run = Callable[[bytes, random.Random], object]


@dataclass(frozen=True)
class Target:
    """A decoder with valid inputs to begin from and the errors it may raise."""

    run: Run
    errors: tuple[type[Exception], ...]
    seeds: tuple[bytes, ...]


def _fed(machine: Any, data: bytes, rng: random.Random) -> None:
    """Give a machine the bytes in pieces; after an error it must stay an error or stay silent."""
    for piece in pieces(rng, data):
        machine.receive_data(piece)


# ---- the links --------------------------------------------------------------------------------


def _varint(data: bytes, rng: random.Random) -> None:
    value, end = varint.decode_uvarint(data, rng.randrange(3))
    assert 0 <= value < 2**63
    assert end <= len(data)


def _protobuf(data: bytes, rng: random.Random) -> None:
    message = protobuf.decode_message(data)
    for number in (1, 2, 4):
        try:
            protobuf.bytes_field(message, number)
            protobuf.int_field(message, number)
            protobuf.repeated_bytes(message, number)
        except ProtocolError:
            pass


def _public_key(data: bytes, rng: random.Random) -> None:
    key = PublicKey.from_protobuf(data)
    assert parse_peer_id(key.peer_id) == key.peer_id
    with contextlib.suppress(ProtocolError):
        key.verify(data, data)


def _peer_id(data: bytes, rng: random.Random) -> None:
    try:
        PublicKey.from_peer_id(peer_id_from_bytes(data))
    except ProtocolError:
        parse_peer_id(data.decode("utf-8", "surrogateescape"))


def _multistream(data: bytes, rng: random.Random) -> None:
    machine: multistream.Dialer | multistream.Listener = multistream.Dialer(["/noise", "/yamux/1.0.0"])
    if rng.random() < 0.5:
        machine = multistream.Listener(["/noise", "/yamux/1.0.0"], listed=["/noise"])
    for piece in pieces(rng, data):
        if machine.finished:
            return
        machine.receive_data(piece)
        assert len(machine.data_to_send()) <= 8192


def _handshake_pair() -> tuple[bytes, bytes, bytes]:
    """The three messages of a handshake between fixed keys, framed."""
    ours = NoiseHandshake(MEMBER_KEY, True, static_seed=b"\1" * 32, ephemeral_seed=b"\2" * 32)
    theirs = NoiseHandshake(OTHER, False, static_seed=b"\3" * 32, ephemeral_seed=b"\4" * 32)
    first = ours.data_to_send()
    theirs.receive_data(first)
    second = theirs.data_to_send()
    ours.receive_data(second)
    return first, second, ours.data_to_send()


_FIRST, _SECOND, _THIRD = _handshake_pair()


def _noise_handshake(data: bytes, rng: random.Random) -> None:
    """Mutated messages to either end; half of the time a payload that is mutated and sealed in good order."""
    if rng.random() < 0.3:
        _noise_payload(data)
        return
    if rng.random() < 0.5:
        machine = NoiseHandshake(MEMBER_KEY, True, static_seed=b"\1" * 32, ephemeral_seed=b"\2" * 32)
    else:
        machine = NoiseHandshake(OTHER, False, static_seed=b"\3" * 32, ephemeral_seed=b"\4" * 32)
    for piece in pieces(rng, data):
        if machine.receive_data(piece):
            return


_STATIC = KeyPair(b"\1" * 32).public
_PAYLOAD = protobuf.encode_message(
    [
        (1, MEMBER_KEY.public_key.to_protobuf()),
        (2, MEMBER_KEY.sign(b"noise-libp2p-static-key:" + _STATIC)),
        (4, protobuf.encode_message([(2, b"/yamux/1.0.0")])),
    ]
)


def _noise_payload(payload: bytes) -> None:
    """`payload` as the third message's, behind a Diffie-Hellman that holds."""
    dialler = HandshakeXX(initiator=True, static=b"\1" * 32, ephemeral=b"\2" * 32)
    listener = NoiseHandshake(OTHER, False, static_seed=b"\3" * 32, ephemeral_seed=b"\4" * 32)
    first = dialler.write_message(b"")
    listener.receive_data(len(first).to_bytes(2, "big") + first)
    dialler.read_message(listener.data_to_send()[2:])
    third = dialler.write_message(payload[:3900])
    listener.receive_data(len(third).to_bytes(2, "big") + third)


def _transport() -> bytes:
    sender = NoiseTransport(b"k" * 32, b"r" * 32)
    return sender.encrypt(b"hello") + sender.encrypt(bytes(100)) + sender.encrypt(b"")


def _noise_transport(data: bytes, rng: random.Random) -> None:
    transport = NoiseTransport(b"s" * 32, b"k" * 32)
    if rng.random() < 0.5:
        _fed(transport, data, rng)
        return
    used, written = transport.open_frames(memoryview(data), memoryview(bytearray(len(data) + 16)))
    assert used <= len(data)
    assert written <= used
    if transport.failure is not None:
        raise transport.failure


def _yamux(data: bytes, rng: random.Random) -> None:
    session = Session(rng.random() < 0.5)
    for _ in range(rng.randrange(3)):
        session.post(session.open(), memoryview(b"words"))
    for piece in pieces(rng, data):
        for event in session.receive_data(piece):
            stream, verb = event.stream, rng.randrange(8)
            if stream is None:
                continue
            if verb == 0:
                session.reset(stream)
            elif verb == 1:
                session.abandon(stream)
            elif verb == 2:
                session.finish(stream)
            elif verb > 5:
                session.read(stream, rng.choice((None, 1)), rng.random())
        session.data_to_send()
    unread = sum(stream.buffered_bytes for stream in session.streams.values())
    assert unread == session._buffered
    assert session._inbound >= 0
    assert session._unacknowledged >= 0
    session.close()
    if session.failure is not None:
        raise session.failure


def _frame(kind: int, flags: int, stream: int, length: int, payload: bytes = b"") -> bytes:
    return (
        b"\0"
        + bytes([kind])
        + flags.to_bytes(2, "big")
        + stream.to_bytes(4, "big")
        + length.to_bytes(4, "big")
        + payload
    )


_YAMUX = (
    _frame(1, 1, 1, 0) + _frame(0, 0, 1, 5, b"hello") + _frame(0, 4, 1, 2, b"!!"),
    _frame(0, 1, 2, 3, b"abc") + _frame(1, 0, 2, 4096) + _frame(1, 8, 2, 0),
    _frame(2, 1, 0, 7) + _frame(2, 2, 0, 7) + _frame(3, 0, 0, 0),
    _frame(1, 2, 1, 0) + _frame(1, 2, 3, 9) + _frame(0, 6, 3, 1, b"x") + _frame(0, 0, 99, 4, b"skip"),
)


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


def _circuit(data: bytes, rng: random.Random) -> None:
    """What a source, a relay and a target say to each other; the length is the shell's to read."""
    decode = rng.choice(
        (relay_messages.decode_target, relay_messages.decode_source, relay_messages.decode_answer)
    )
    if len(data) >= relay_messages.LENGTH.size and rng.random() < 0.5:
        (length,) = relay_messages.LENGTH.unpack_from(data)
        data = data[relay_messages.LENGTH.size :][: relay_messages.check_length(length)]
    decode(data)


_CIRCUIT = tuple(
    part
    for message in (
        relay_messages.encode_target(OTHER.peer_id),
        relay_messages.encode_source(OTHER.peer_id),
        relay_messages.encode_answer(None),
        relay_messages.encode_answer("the target is no member"),
    )
    for part in (message, message[relay_messages.LENGTH.size :])
)


def _identify(data: bytes, rng: random.Random) -> None:
    decode_identification(data, MEMBER_KEY.peer_id)


_IDENTIFY = protobuf.encode_message(
    [
        (1, MEMBER_KEY.public_key.to_protobuf()),
        (2, b"\x04\x7f\x00\x00\x01\x06\x0f\xa1"),
        (3, b"/ipfs/ping/1.0.0"),
        (4, b"\x04\x7f\x00\x00\x01\x06\x0f\xa1"),
        (5, b"ipfs/0.1.0"),
        (6, b"fedd/0.1.0"),
    ]
)


# ---- our own messages -------------------------------------------------------------------------


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
    _fed(PipeDecoder(4096), data, rng)


def _row() -> Row:
    return sign_record(MEMBER_KEY, _RECORD).row


_CHAIN = make_chain(
    issue_certificate(ADMIN_KEY, federation=FEDERATION, name="plant7", peer_id=MEMBER_KEY.peer_id, serial=7),
    make_chain(
        issue_certificate(
            ROOT,
            federation=FEDERATION,
            name="plant7",
            peer_id=ADMIN_KEY.peer_id,
            serial=1,
            roles=(MEMBER, ADMIN),
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
        lambda chain, peer: verify_chain(chain, FEDERATION, peer),
    )


_REVOCATIONS = sign_list(ROOT, FEDERATION, 3, {ADMIN_KEY.peer_id: [stay_digest(MEMBER_KEY.peer_id)]})
_REVOCATIONS_PAYLOAD = open_sealed(_REVOCATIONS, REVOCATION_DOMAIN)[1]


def _revocations(data: bytes, rng: random.Random) -> None:
    sealed = seal(ROOT, REVOCATION_DOMAIN, data[:12_000]) if rng.random() < 0.7 else data
    found = open_list(sealed, FEDERATION)
    assert found.issuer not in found.revoked


_HEADER = encode_header(FEDERATION, Header(1, 7, "note", True, 5, bytes(32)))
_POST = Post(MEMBER_KEY.peer_id, 1, 7, seal(MEMBER_KEY, BROADCAST_DOMAIN, _HEADER), b"hello")


def _broadcast_header(data: bytes, rng: random.Random) -> None:
    header = decode_header(FEDERATION, data)
    assert header.size <= MAX_PAYLOAD_BYTES


def _broadcast_items(data: bytes, rng: random.Random) -> None:
    seq, peers = decode_items(data)
    assert seq >= 0
    assert len(peers) < 1000


_STAMPS = tuple(sorted([(ADMIN_KEY.peer_id, (1, False, 2)), (OTHER.peer_id, (2**32 - 1, True, 0))]))
_PRESENCE = tuple(
    map(
        encode_message,
        (
            Hello(FEDERATION, _CHAIN, True),
            Ping(7, 1500),
            Pong(7),
            Rows((_row(),)),
            Digest(b"h" * 24),
            Versions("", "", _STAMPS),
            Want((ADMIN_KEY.peer_id, OTHER.peer_id)),
            Refuse((_row(),)),
            Pin(True),
            Bye("shutdown"),
            RevocationMarks(((ROOT.peer_id, 1), (ADMIN_KEY.peer_id, 7))),
            Revocations(_REVOCATIONS),
            Bcast((_POST,)),
            Ihave((replace(_POST, body=b""),)),
            Iwant(OTHER.peer_id, 1, ((1, 2), (4, 2**32 - 1))),
            Gone(replace(_POST, body=b""), ((1, 6),)),
            Pull(OTHER.peer_id, 1, 2, 8192),
            Chunk(OTHER.peer_id, 1, 2, 8192, b"piece"),
            Marks(True, 1500, ((ADMIN_KEY.peer_id, 1, 2), (OTHER.peer_id, 2**32 - 1, 0))),
            Acks(OTHER.peer_id, 1, 2, ((MEMBER_KEY.peer_id, b"sealed"),)),
        ),
    )
)


def _presence(data: bytes, rng: random.Random) -> None:
    _fed(MessageDecoder(), data, rng)


def _framed_presence(data: bytes, rng: random.Random) -> None:
    """The body alone, so that mutations do not spend themselves on the length."""
    body = data[:16_000]
    _fed(MessageDecoder(), len(body).to_bytes(2, "big") + body, rng)


def _certificate(data: bytes, rng: random.Random) -> None:
    chain = data
    if rng.random() < 0.5:
        chain = codec.encode([seal(ROOT, "fedd/certificate/1", data[:1500])])
    verify_chain(chain, FEDERATION, MEMBER_KEY.peer_id)


_CERTIFICATE_PAYLOAD = open_sealed(
    issue_certificate(ROOT, federation=FEDERATION, name="plant7", peer_id=MEMBER_KEY.peer_id, serial=7),
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

_TOKEN = InviteToken(FEDERATION, (f"/ip4/192.0.2.7/tcp/4001/p2p/{ADMIN_KEY.peer_id}",), b"s" * 16)


def _token(data: bytes, rng: random.Random) -> None:
    token = parse_token(data.decode("utf-8", "surrogateescape"))
    assert parse_token(token.encode()) == token


def _token_content(data: bytes, rng: random.Random) -> None:
    parse_token("fedd1-" + base64.urlsafe_b64encode(data).rstrip(b"=").decode())


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


def _statement(data: bytes, rng: random.Random) -> None:
    if rng.random() < 0.3:
        manifest.open_end(data, _MANIFEST.run_id)
    elif rng.random() < 0.5:
        manifest.open_end(seal(MEMBER_KEY, "fedd/run-end/1", data), _MANIFEST.run_id)
    else:
        manifest.open_stop(seal(MEMBER_KEY, "fedd/run-stop/1", data))


def _run_frames(data: bytes, rng: random.Random) -> None:
    if rng.random() < 0.2:
        preamble = PreambleDecoder()
        for piece in pieces(rng, data):
            if preamble.receive_data(piece) is not None:
                return
        return
    _fed(FrameDecoder(4096), data, rng)
    room = Mail([OTHER.peer_id], 4096)
    room.post(OTHER.peer_id, Item(MailKind.QUESTION, 9, "", b"?"))
    for frame in FrameDecoder(4096).receive_data(data):
        if frame.kind == Kind.MAIL:
            room.receive(OTHER.peer_id, *read_mail(frame))
        elif frame.kind == Kind.CONFIRM:
            room.confirm(OTHER.peer_id, read_confirm(frame))


def _dns(data: bytes, rng: random.Random) -> None:
    message = dns_messages.decode_message(data)
    for found in mdns.found_in(message, FEDERATION):
        assert len(found.addresses) <= mdns.MAX_ADDRESSES
    mdns.asks_for(message, _INSTANCE)
    written = dns_messages.encode_message(message)  # nothing that was read is longer than it may be written
    assert dns_messages.decode_message(written).questions == message.questions


_INSTANCE = b"0" * mdns.INSTANCE_CHARS
_TOLD = f"/ip4/192.0.2.7/tcp/4001/p2p/{OTHER.peer_id}"
_DNS = (
    mdns.encode_query(),
    mdns.encode_services(),
    mdns.encode_answer(_INSTANCE, [_TOLD], 4001, [bytes(4), bytes(16)], FEDERATION),
    # Compressed, as others write it: a question, and a record whose names point to it.
    bytes.fromhex("000084000001000100000000") + b"\4_p2p\4_udp\5local\0\0\x0c\0\1"
    b"\xc0\x0c\0\x0c\0\1\0\0\0\x78\0\6\3abc\xc0\x0c",
)


# ---- texts and the control socket --------------------------------------------------------------


def _multiaddr(data: bytes, rng: random.Random) -> None:
    if rng.random() < 0.3:
        multiaddr_from_bytes(data)
        return
    address = parse_multiaddr(data.decode("utf-8", "surrogateescape"))
    assert parse_multiaddr(str(address)) == address


class _NoMore(Exception):
    """The client sends nothing more."""


class _Silent:
    async def receive_some(self, max_bytes: int) -> bytes:
        raise _NoMore


def _http(data: bytes, rng: random.Random) -> None:
    """A request through h11, the table of routes and the checks of its fields; the way the server goes."""
    seat = cast(Seat, SimpleNamespace(last_heard=0.0))
    connection = HttpConnection(cast(Any, _Silent()), 0, seat, ServerLimits())
    try:
        for piece in pieces(rng, data):
            connection._early += piece
        reading = connection._read_request()
        reading.send(None)
    except StopIteration as done:
        if done.value is not None:
            _check_request(*done.value, 0, "request")
    except _NoMore:
        pass


_REQUESTS = (
    b"GET /v1/status HTTP/1.1\r\nHost: fedd\r\n\r\n",
    b"GET /v1/events?since=12 HTTP/1.1\r\nHost: fedd\r\n\r\n",
    b'POST /v1/federation/join HTTP/1.1\r\nHost: fedd\r\nContent-Length: 13\r\n\r\n{"token":"a"}',
    b'PUT /v1/inputs/x HTTP/1.1\r\nHost: fedd\r\nContent-Length: 20\r\n\r\n{"value":[1,2.5,[]]}',
    b"DELETE /v1/links/12D3Koo%57 HTTP/1.1\r\nHost: fedd\r\n\r\n",
    b"POST /v1/runs HTTP/1.1\r\nHost: fedd\r\nTransfer-Encoding: chunked\r\n\r\n"
    b'1a\r\n{"algorithm": "consensus"}\r\n0\r\n\r\n',
)

_PROTOCOL = (ProtocolError,)
_SIGNED = (ProtocolError, Denied)

TARGETS: dict[str, Target] = {
    "varint": Target(_varint, _PROTOCOL, tuple(varint.encode_uvarint(n) for n in (0, 127, 128, 2**63 - 1))),
    "protobuf": Target(_protobuf, _PROTOCOL, (_IDENTIFY, protobuf.encode_message([(1, 5), (4, b"abc")]))),
    "public-key": Target(_public_key, _PROTOCOL, tuple(key.public_key.to_protobuf() for key in KEYS[:2])),
    "peer-id": Target(
        _peer_id,
        (ProtocolError, InvalidParameter),
        (OTHER.peer_id.encode(), b"\x00\x24" + OTHER.public_key.to_protobuf()),
    ),
    "multistream": Target(
        _multistream,
        _PROTOCOL,
        (multistream.Dialer(["/noise"]).data_to_send(), b"\x13/multistream/1.0.0\n\x03na\n\x03ls\n"),
    ),
    "noise-handshake": Target(
        _noise_handshake, (ProtocolError, Denied), (_FIRST, _SECOND, _FIRST + _THIRD, _PAYLOAD)
    ),
    "noise-transport": Target(_noise_transport, _PROTOCOL, (_transport(),)),
    "yamux": Target(_yamux, _PROTOCOL, _YAMUX),
    "identify": Target(_identify, _PROTOCOL, (_IDENTIFY,)),
    "circuit": Target(_circuit, _PROTOCOL, _CIRCUIT),
    "codec": Target(_codec, (InvalidMessage,), tuple(codec.encode(value) for value in _VALUES)),
    "command": Target(_command, _PROTOCOL, _COMMAND),
    "pipe": Target(_pipe, _PROTOCOL, (b"".join(encode_frame({"kind": "ready"}, [b"abc", b""])),)),
    "presence": Target(_presence, _PROTOCOL, _PRESENCE),
    "broadcast-header": Target(_broadcast_header, _PROTOCOL, (_HEADER,)),
    "broadcast-items": Target(_broadcast_items, _PROTOCOL, (encode_items(7, [OTHER.peer_id]),)),
    "presence-body": Target(_framed_presence, _PROTOCOL, tuple(message[2:] for message in _PRESENCE)),
    "record": Target(_record, _SIGNED, (_RECORD_PAYLOAD, _row().sealed)),
    "certificate": Target(_certificate, (Denied,), (_CERTIFICATE_PAYLOAD, _CHAIN)),
    "revocations": Target(_revocations, _SIGNED, (_REVOCATIONS, _REVOCATIONS_PAYLOAD)),
    "join-message": Target(_join_message, _PROTOCOL, _JOIN_MESSAGES),
    "token": Target(_token, (InvalidParameter,), (_TOKEN.encode().encode(),)),
    "token-content": Target(
        _token_content,
        (InvalidParameter,),
        (codec.encode([bytes.fromhex(FEDERATION), list(_TOKEN.addresses), _TOKEN.secret]),),
    ),
    "manifest": Target(_manifest, _PROTOCOL, (_MANIFEST.sealed, _MANIFEST_PAYLOAD, _PROPOSAL.encode())),
    "epoch": Target(_epoch, _PROTOCOL, (_EPOCH, _EPOCH_PAYLOAD, _ADMISSION_PAYLOAD)),
    "statement": Target(_statement, _PROTOCOL, (_END, _END_PAYLOAD)),
    "run-frames": Target(
        _run_frames,
        _PROTOCOL,
        (
            b"".join(encode_round(3, "mean", b"payload")) + encode_run_frame(Kind.ACK, 4),
            encode_run_frame(Kind.END, 9, _END),
            encode_preamble(_MANIFEST.sealed),
            b"".join(encode_mail(0, Item(MailKind.ANSWER, 9, "", b"!"), Receipt(1)))
            + b"".join(encode_mail(1, Item(MailKind.LETTER, 0, "t", b"abc"), Receipt(1)))
            + encode_confirm(Receipt(1, waiting=True)),
        ),
    ),
    "multiaddr": Target(
        _multiaddr,
        (InvalidParameter,),
        (
            f"/ip4/192.0.2.7/tcp/4001/p2p/{OTHER.peer_id}".encode(),
            b"/ip6/2001:db8::1/tcp/4001",
            b"/dns4/a.example/tcp/1",
            b"/dnsaddr/a.example",
            b"/memory/7",
            b"\x04\x7f\x00\x00\x01\x06\x0f\xa1",
        ),
    ),
    "dns": Target(_dns, _PROTOCOL, _DNS),
    "http": Target(_http, (h11.RemoteProtocolError, FeddError), _REQUESTS),
}
