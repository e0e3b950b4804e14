from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fedd.api.errors import InvalidParameter, ProtocolError
from fedd.core import codec, manifest
from fedd.core.identity import PrivateKey, seal
from fedd.core.manifest import (
    Proposal,
    accept,
    check_acceptance,
    issue,
    open_cut,
    open_end,
    open_manifest,
    open_stop,
    printable,
    read_proposal,
    state_cut,
    state_end,
    state_stop,
)

KEYS = [PrivateKey.from_seed(bytes([number]) * 32) for number in range(6)]
ME, *OTHERS = KEYS


def proposal(**more: Any) -> Proposal:
    fields: dict[str, Any] = {
        "federation": "f",
        "initiator": ME.peer_id,
        "algorithm": "consensus",
        "plugin": "consensus",
        "distribution": "fedd",
        "version": "0.1.0",
        "parameters": {"iterations": 3, "tolerance": 1e-9, "word": "x", "flag": True},
        "input": "x",
        "topology": "",
        "contract": "survivors",
        "seed": 7,
        "quorum": 2,
        "pace_s": 0.0,
        "nonce": b"n" * 16,
    }
    return Proposal(**{**fields, **more})


def acceptances(offer: Proposal, keys: list[PrivateKey] = KEYS) -> dict[str, bytes]:
    return {key.peer_id: accept(key, offer) for key in keys}


def fields_of(sealed: bytes) -> dict[str, Any]:
    return dict(codec.decode(codec.decode(sealed)[1]))


def resealed(offer: Proposal, key: PrivateKey = ME, **more: Any) -> bytes:
    """A manifest whose fields were changed before the initiator signed it."""
    fields = fields_of(issue(ME, offer, acceptances(offer), {}, 1000).sealed)
    fields.update(more)
    return seal(key, "fedd/run-manifest/1", codec.encode(fields))


def test_a_proposal_survives_its_encoding() -> None:
    offer = proposal()
    assert Proposal.decode(offer.encode()) == offer
    assert len(offer.digest) == 32
    assert offer.digest != replace(offer, nonce=b"m" * 16).digest


def test_a_proposal_names_who_asked_for_it_only_if_somebody_did() -> None:
    offer = proposal(asker="somebody")
    assert Proposal.decode(offer.encode()) == offer
    assert offer.digest != proposal().digest
    assert "asker" not in codec.decode(proposal().encode())


@pytest.mark.parametrize(
    "more",
    [{"seed": True}, {"seed": "7"}, {"pace_s": -1.0}, {"pace_s": float("inf")}, {"pace_s": 1}, {"nonce": "n"},
     {"open": 1}, {"asker": 1}, {"parameters": {"a": [1]}}, {"parameters": {"a": None}}, {"algorithm": 3},
     {"quorum": None}],
)  # fmt: skip
def test_a_malformed_proposal_is_refused(more: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError):
        Proposal.decode(proposal(**more).encode())


def test_what_is_no_document_is_refused() -> None:
    for data in (b"", b"\xff", codec.encode([1]), codec.encode({})):
        with pytest.raises(ProtocolError):
            Proposal.decode(data)


def test_everybody_reads_the_same_manifest() -> None:
    offer = proposal()
    made = issue(ME, offer, acceptances(offer), {"peer": "no\x1b input " + "x" * 600}, 1000)
    assert made == open_manifest(made.sealed)
    assert read_proposal(made.sealed) == (offer, made.run_id)
    assert made.members == tuple(sorted(key.peer_id for key in KEYS))
    assert made.topology == "random-regular:4"
    assert made.graph.degree(ME.peer_id) == 4
    assert made.max_payload_bytes == 1000
    assert made.declined[0][0] == "peer"
    assert made.declined[0][1].startswith("no? input xxx")
    assert len(made.declined[0][1]) == 512
    assert len(made.run_id) == 40
    other = issue(ME, replace(offer, nonce=b"m" * 16), acceptances(replace(offer, nonce=b"m" * 16)), {}, 1000)
    assert made.run_id != other.run_id


def test_a_graph_that_cannot_be_is_refused_before_it_is_signed() -> None:
    offer = proposal(topology="random-regular:3")
    with pytest.raises(InvalidParameter):
        issue(ME, offer, acceptances(offer, KEYS[:5]), {}, 1000)


def test_an_acceptance_is_for_one_proposal_by_one_member() -> None:
    offer = proposal()
    word = accept(OTHERS[0], offer)
    check_acceptance(word, offer.digest, OTHERS[0].peer_id)
    with pytest.raises(ProtocolError, match="another proposal"):
        check_acceptance(word, replace(offer, seed=8).digest, OTHERS[0].peer_id)
    with pytest.raises(ProtocolError):
        check_acceptance(word, offer.digest, OTHERS[1].peer_id)


def test_a_manifest_that_does_not_hold_together_is_refused() -> None:
    offer = proposal()
    good = acceptances(offer)
    pairs = [[peer, good[peer]] for peer in sorted(good)]
    swapped = [[pairs[0][0], pairs[1][1]], *pairs[1:]]
    wrong: list[bytes] = [
        resealed(offer, key=OTHERS[0]),
        resealed(offer, acceptances=swapped),
        resealed(offer, acceptances=pairs[1:]),
        resealed(offer, acceptances=pairs[::-1]),
        resealed(offer, acceptances=pairs[:1]),
        resealed(offer, acceptances=[["x"]]),
        resealed(offer, acceptances=7),
        resealed(offer, topology="ring"),
        resealed(offer, topology="circle"),
        resealed(offer, adjacency=bytes(32)),
        resealed(offer, max_payload_bytes=0),
        resealed(offer, declined=[["x", 1]]),
        b"rubbish",
        state_stop(ME, "run"),
    ]
    for sealed in wrong:
        with pytest.raises(ProtocolError):
            open_manifest(sealed)
    assert open_manifest(resealed(offer)).members


def test_cut_statements_speak_of_an_edge_of_their_signers() -> None:
    offer = proposal(topology="line")
    made = issue(ME, offer, acceptances(offer), {}, 1000)
    near = made.graph.neighbors(ME.peer_id)[0]
    far = next(peer for peer in made.members if peer not in (ME.peer_id, *made.graph.neighbors(ME.peer_id)))
    said = state_cut(ME, made, near, 3, "bad message: \x07bell", fault=True)
    assert said.reason == "bad message: ?bell"
    read = open_cut(said.sealed, made)
    assert read == said
    assert (read.member, read.peer, read.round, read.fault) == (ME.peer_id, near, 3, True)
    with pytest.raises(ProtocolError, match="another run or epoch"):
        open_cut(said.sealed, replace(made, run_id="other"))
    with pytest.raises(ProtocolError, match="another run or epoch"):
        open_cut(said.sealed, replace(made, epoch=2))
    for signer, peer in ((ME, far), (ME, "nobody"), (PrivateKey.from_seed(b"s" * 32), near)):
        with pytest.raises(ProtocolError, match="has no edge to"):
            open_cut(state_cut(signer, made, peer, 3, "", fault=False).sealed, made)
    with pytest.raises(ProtocolError):
        open_cut(state_end(ME, made.run_id, 0, "").sealed, made)


def test_end_statements_speak_of_one_run() -> None:
    made = state_end(ME, "run", 3, "left: \x07bell")
    assert made.reason == "left: ?bell"
    read = open_end(made.sealed, "run")
    assert read == made
    assert (read.member, read.round) == (ME.peer_id, 3)
    with pytest.raises(ProtocolError, match="another run"):
        open_end(made.sealed, "other")
    with pytest.raises(ProtocolError):
        open_end(state_stop(ME, "run"), "run")


def test_stop_statements() -> None:
    assert open_stop(state_stop(OTHERS[2], "run")) == (OTHERS[2].peer_id, "run")
    with pytest.raises(ProtocolError):
        open_stop(state_end(ME, "run", 0, "").sealed)


def test_printable() -> None:
    assert printable("a\nb\x1b[31m\u202e") == "a?b?[31m?"
    assert len(printable("x" * 10_000)) == manifest.MAX_REASON_CHARS
