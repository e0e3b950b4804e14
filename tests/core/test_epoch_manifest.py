"""The signed documents of a run's later epochs: what is taken from whom, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from fedd.api.errors import ProtocolError
from fedd.core import codec
from fedd.core.epoch_manifest import admit, issue_epoch, open_any, read_any
from fedd.core.epochs import FIRST, MAX_EPOCHS, Next
from fedd.core.identity import PrivateKey, open_sealed, seal
from fedd.core.manifest import Manifest, Proposal, accept, issue

KEYS = sorted(
    (PrivateKey.from_seed(bytes([number]) * 32) for number in range(6)), key=lambda key: key.peer_id
)
FIRST_FOUR, LATE, STRANGER = KEYS[:4], KEYS[4], KEYS[5]
A, B, C, D = (key.peer_id for key in FIRST_FOUR)
PREFIX = b"fedd-epoch\x00"


def begun(topology: str = "ring") -> Manifest:
    offer = Proposal(
        "f", A, "total", "p", "d", "1", {}, "", topology, "restart", 7, 2, 0.0, b"n" * 16
    )  # fmt: skip
    return issue(FIRST_FOUR[0], offer, {key.peer_id: accept(key, offer) for key in FIRST_FOUR}, {}, 1000)


def second(manifest: Manifest) -> Manifest:
    return issue_epoch(FIRST_FOUR[1], manifest, Next(2, (A, B, D), ()), 17, lost={C: "dead\n"})


def resealed(later: Manifest, key: PrivateKey = FIRST_FOUR[1], **more: Any) -> bytes:
    """An epoch whose fields were changed before it was signed."""
    _, payload = open_sealed(later.sealed[len(PREFIX) :], "fedd/run-epoch/1", max_bytes=1 << 18)
    fields = codec.decode(payload)
    return PREFIX + seal(key, "fedd/run-epoch/1", codec.encode({**fields, **more}))


def test_an_epoch_says_all_that_a_member_needs() -> None:
    first = begun()
    assert (first.mark, first.epoch, first.round, first.initial) == (FIRST, 1, 0, first)
    later = second(first)
    assert (later.epoch, later.round, later.members, later.newcomers) == (2, 17, (A, B, D), ())
    assert (later.run_id, later.proposal, later.topology) == (first.run_id, first.proposal, "ring")
    assert later.graph.members == (A, B, D)
    assert later.lost == ((C, "dead?"),)
    assert later.max_payload_bytes == first.max_payload_bytes
    assert later.initial is first
    assert later.mark > first.mark
    assert len(later.mark.digest) == 32
    assert read_any(later.sealed) == (first.proposal, first.run_id)
    assert read_any(first.sealed) == (first.proposal, first.run_id)
    assert open_any(first.sealed) == first
    opened = open_any(later.sealed)  # without any knowledge
    assert (opened.members, opened.mark, opened.run_id) == (later.members, later.mark, first.run_id)
    other = open_any(later.sealed, begun("complete"))  # with knowledge of another run
    assert other.initial.sealed == first.sealed


def test_a_graph_that_does_not_fit_the_members_gives_way_to_the_default() -> None:
    assert second(begun("hypercube")).topology == "complete"


def test_a_newcomer_is_admitted_by_a_member_and_may_admit_others() -> None:
    first = begun()
    word = admit(FIRST_FOUR[2], first, LATE.peer_id, accept(LATE, first.proposal))
    later = issue_epoch(
        FIRST_FOUR[2], first, Next(2, tuple(sorted((A, C, LATE.peer_id))), (LATE.peer_id,)), 3, [word]
    )
    assert later.admitted == (LATE.peer_id,)
    another = admit(LATE, later, STRANGER.peer_id, accept(STRANGER, first.proposal))
    members = tuple(sorted((A, LATE.peer_id, STRANGER.peer_id)))
    last = issue_epoch(LATE, later, Next(3, members, (STRANGER.peer_id,)), 9, [another])
    assert last.members == members
    assert last.admissions == (word, another)
    assert open_any(last.sealed).admitted == tuple(sorted((LATE.peer_id, STRANGER.peer_id)))


def test_nobody_comes_in_without_an_admission() -> None:
    first = begun()
    members = tuple(sorted((A, LATE.peer_id)))
    with pytest.raises(ProtocolError, match="nobody admitted"):
        issue_epoch(FIRST_FOUR[0], first, Next(2, members, (LATE.peer_id,)), 0)
    with pytest.raises(ProtocolError, match="is no member"):
        issue_epoch(LATE, first, Next(2, (A, B), ()), 0)
    with pytest.raises(ProtocolError, match="accepted another proposal"):
        admit(FIRST_FOUR[0], first, LATE.peer_id, accept(LATE, begun("star").proposal))
    own = admit(LATE, first, LATE.peer_id, accept(LATE, first.proposal))
    with pytest.raises(ProtocolError, match="cannot admit"):
        issue_epoch(LATE, first, Next(2, members, (LATE.peer_id,)), 0, [own])
    elsewhere = begun("star")
    word = admit(FIRST_FOUR[0], elsewhere, LATE.peer_id, accept(LATE, elsewhere.proposal))
    with pytest.raises(ProtocolError, match="cannot admit"):
        issue_epoch(FIRST_FOUR[0], first, Next(2, members, (LATE.peer_id,)), 0, [word])


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"members": []}, "nobody admitted"),
        ({"members": [STRANGER.peer_id]}, "nobody admitted"),
        ({"newcomers": [C]}, "nobody admitted"),
        ({"epoch": 1}, "no epoch 1"),
        ({"epoch": MAX_EPOCHS + 1}, "no epoch"),
        ({"round": -1}, "from round -1"),
        ({"members": [1]}, "no str"),
        ({"admissions": ["x"]}, "no bytes"),
        ({"adjacency": bytes(32)}, "not the one derived here"),
        ({"members": [B, A]}, "not the one derived here"),
        ({"members": [A, B, C]}, "not the one derived here"),
        ({"manifest": b"x"}, "malformed"),
        ({"epoch": True}, "epoch is missing"),
        ({"lost": [C]}, "no pair"),
    ],
)
def test_a_document_that_is_not_right_is_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ProtocolError, match=said):
        open_any(resealed(second(begun()), **fields))


def test_what_was_changed_after_it_was_signed_is_refused() -> None:
    sealed = bytearray(second(begun()).sealed)
    sealed[-1] ^= 1
    for read in (open_any, read_any):
        with pytest.raises(ProtocolError):
            read(bytes(sealed))
