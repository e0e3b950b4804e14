from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedd.api.errors import Denied, ProtocolError
from fedd.core import codec, identity
from fedd.core.identity import PrivateKey
from fedd.core.records import (
    MAX_SEALED_BYTES,
    RECORD_DOMAIN,
    Record,
    Row,
    newer,
    open_row,
    sign_record,
)

KEYS = [PrivateKey.from_seed(bytes([number]) * 32) for number in range(1, 4)]
A, B, C = (key.peer_id for key in KEYS)
FULL = Record(
    id=A,
    epoch=3,
    seq=7,
    neighbours=frozenset({B, C}),
    lost={B: "closed", C: "silent"},
    addresses=("/ip4/192.0.2.7/tcp/4001",),
    name="pump 3",
    version="0.1.0",
    chain=b"chain",
)


def accept(chain: bytes, peer: str) -> None:
    """A certificate check that everybody passes."""


def payload_of(record: Record) -> dict[str, Any]:
    _, data = identity.open_sealed(sign_record(KEYS[0], record).sealed, RECORD_DOMAIN)
    payload = codec.decode(data)
    assert isinstance(payload, dict)
    return payload


def resealed(payload: object, key: PrivateKey = KEYS[0], domain: str = RECORD_DOMAIN) -> Row:
    return Row(A, FULL.stamp, identity.seal(key, domain, codec.encode(payload)))


def test_a_signed_record_comes_back_as_it_was() -> None:
    signed = sign_record(KEYS[0], FULL)
    opened = open_row(signed.row, accept)
    assert opened == signed
    assert replace(opened, sealed=b"") == FULL


def test_the_certificate_is_asked_for_and_its_refusal_passes_through() -> None:
    asked = []

    def refuse(chain: bytes, peer: str) -> None:
        asked.append((chain, peer))
        raise Denied("no member")

    with pytest.raises(Denied, match="no member"):
        open_row(sign_record(KEYS[0], FULL).row, refuse)
    assert asked == [(b"chain", A)]


def test_nobody_signs_for_another() -> None:
    with pytest.raises(ProtocolError, match="cannot be signed"):
        sign_record(KEYS[1], FULL)
    with pytest.raises(ProtocolError):
        open_row(resealed(payload_of(FULL), key=KEYS[1]), accept)


def test_an_envelope_of_another_purpose_is_no_record() -> None:
    with pytest.raises(ProtocolError):
        open_row(resealed(payload_of(FULL), domain="fedd/other/1"), accept)


def test_a_row_that_claims_another_version_is_refused() -> None:
    signed = sign_record(KEYS[0], FULL)
    with pytest.raises(ProtocolError, match="announces version"):
        open_row(Row(A, (3, False, 8), signed.sealed), accept)


def test_every_flipped_bit_is_noticed() -> None:
    signed = sign_record(KEYS[0], FULL)
    for index in range(len(signed.sealed)):
        damaged = bytearray(signed.sealed)
        damaged[index] ^= 1 << index % 8
        with pytest.raises(ProtocolError):
            open_row(Row(A, FULL.stamp, bytes(damaged)), accept)


def test_an_overlong_record_is_not_even_opened() -> None:
    with pytest.raises(ProtocolError, match="is the most"):
        open_row(Row(A, FULL.stamp, bytes(MAX_SEALED_BYTES + 1)), accept)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("epoch", -1),
        ("epoch", 2**32),
        ("epoch", True),
        ("seq", 1.0),
        ("left", 1),
        ("chain", "text"),
        ("chain", bytes(2049)),
        ("neighbours", None),
        ("neighbours", ["text"]),
        ("neighbours", [b"no peer id"]),
        ("neighbours", [identity.peer_id_to_bytes(B)] * 65),
        ("closed", [1]),
        ("silent", {}),
        ("addresses", "/ip4/192.0.2.7/tcp/1"),
        ("addresses", ["/a"] * 9),
        ("addresses", ["a" * 321]),
        ("addresses", [b"bytes"]),
        ("name", "bell\a"),
        ("name", "n" * 65),
        ("version", 1),
    ],
)
def test_a_field_beyond_its_bounds_is_refused_even_when_signed(key: str, value: object) -> None:
    with pytest.raises(ProtocolError):
        open_row(resealed({**payload_of(FULL), key: value}), accept)


@pytest.mark.parametrize("payload", [[], {}, None, {"epoch": 1}])
def test_signed_bytes_of_another_form_are_refused(payload: object) -> None:
    with pytest.raises(ProtocolError):
        open_row(resealed(payload), accept)


def test_unknown_fields_and_unreadable_content_are_refused() -> None:
    with pytest.raises(ProtocolError):
        open_row(resealed({**payload_of(FULL), "more": 1}), accept)
    with pytest.raises(ProtocolError):
        open_row(Row(A, FULL.stamp, identity.seal(KEYS[0], RECORD_DOMAIN, b"\xff")), accept)


def test_one_cannot_sign_what_others_would_refuse() -> None:
    with pytest.raises(ProtocolError, match="printable"):
        sign_record(KEYS[0], replace(FULL, name="x" * 65))


def test_nobody_is_its_own_neighbour() -> None:
    signed = sign_record(KEYS[0], replace(FULL, neighbours=frozenset({A, B})))
    assert open_row(signed.row, accept).neighbours == {B}


records = st.builds(
    Record,
    id=st.just("p"),
    epoch=st.integers(0, 3),
    seq=st.integers(0, 3),
    left=st.booleans(),
    sealed=st.sampled_from([b"a", b"b"]),
)


def merged(items: list[Record]) -> Record | None:
    held = None
    for item in items:
        held = newer(item, held)
    return held


@settings(deadline=None)
@given(st.lists(records, max_size=6), st.randoms(use_true_random=False))
def test_merge_is_commutative_associative_and_idempotent(items: list[Record], rng: Any) -> None:
    shuffled = items + items
    rng.shuffle(shuffled)
    assert merged(shuffled) == merged(items)
    for one in items:
        for two in items:
            for three in items:
                assert newer(newer(one, two), three) == newer(one, newer(two, three))


def test_a_goodbye_ends_its_epoch() -> None:
    left = Record("p", 2, 5, left=True)
    assert newer(Record("p", 2, 9), left) is left
    back = Record("p", 3, 1)
    assert newer(back, left) is back


def test_a_version_is_compared_with_another_once() -> None:
    first = Record(A, 1, 1, neighbours=frozenset({B}), lost={"x": "silent", "y": "closed"}, sealed=b"1")
    second = replace(
        first, seq=2, neighbours=frozenset({C}), lost={"x": "closed", "z": "silent"}, sealed=b"2"
    )
    said = second.since(first)
    assert (said.new, said.gone, {*said.concerns}) == ((C,), (B,), {"x", "y", "z"})
    assert second.since(replace(first)) is said
    third = replace(second, epoch=2, left=True, sealed=b"3")
    said = third.since(second)
    assert (said.new, said.gone, said.concerns) == ((), (C,), (A,))
    assert third.since(first).gone == (B,)
    assert {*third.since(first).concerns} == {A, "x", "y", "z"}
    assert second == replace(second)
