"""Revocation lists: whose word counts against whom, what is newer, and who stays when an admin goes."""

from __future__ import annotations

from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedd.api.errors import Denied, InvalidParameter, ProtocolError
from fedd.core import codec
from fedd.core.certificates import (
    ADMIN,
    MEMBER,
    Certificate,
    federation_id,
    issue_certificate,
    make_chain,
    verify_chain,
)
from fedd.core.identity import PrivateKey, peer_id_to_bytes, seal
from fedd.core.revocation import (
    MAX_EPOCH,
    MAX_ISSUERS,
    MAX_LIST_BYTES,
    MAX_REVOKED,
    REVOCATION_DOMAIN,
    Revocations,
    Revoked,
    open_list,
    sign_list,
    stay_digest,
)

ROOT, FOUNDER, SECOND, ONE, TWO, STRANGER = (PrivateKey.from_seed(bytes([n]) * 32) for n in range(1, 7))
FEDERATION = federation_id(ROOT.public_key)


def chain_of(holder: PrivateKey, issuer: PrivateKey | None = None, issuer_chain: bytes = b"") -> bytes:
    """An admin's chain by the root, or a member's by an admin."""
    roles = (MEMBER, ADMIN) if issuer is None else (MEMBER,)
    signed = issue_certificate(
        issuer or ROOT, federation=FEDERATION, name="home", peer_id=holder.peer_id, serial=7, roles=roles
    )
    return make_chain(signed, issuer_chain or None)


FOUNDERS, SECONDS = chain_of(FOUNDER), chain_of(SECOND)
ONES, TWOS = chain_of(ONE, FOUNDER, FOUNDERS), chain_of(TWO, SECOND, SECONDS)


def proof(chain: bytes, holder: PrivateKey) -> Certificate:
    return verify_chain(chain, FEDERATION, holder.peer_id)


def by_root(epoch: int, *peers: PrivateKey, stays: tuple[PrivateKey, ...] = ()) -> bytes:
    kept = [stay_digest(key.peer_id) for key in stays]
    return sign_list(ROOT, FEDERATION, epoch, {key.peer_id: kept for key in peers})


def by_admin(admin: PrivateKey, chain: bytes, epoch: int, *peers: PrivateKey) -> bytes:
    return sign_list(admin, FEDERATION, epoch, {key.peer_id: () for key in peers}, chain)


def test_nobody_is_revoked_without_a_list() -> None:
    revocations = Revocations(FEDERATION)
    revocations.check(proof(ONES, ONE))
    assert revocations.revoked() == {}
    assert revocations.marks() == ()


def test_an_admins_list_counts_against_a_member_whoever_let_it_in() -> None:
    revocations = Revocations(FEDERATION)
    assert revocations.merge(by_admin(SECOND, SECONDS, 1, ONE)) == "new"
    with pytest.raises(Revoked, match=f"{ONE.peer_id} was revoked by {SECOND.peer_id}") as caught:
        revocations.check(proof(ONES, ONE))
    assert open_list(caught.value.sealed, FEDERATION).issuer == SECOND.peer_id
    revocations.check(proof(TWOS, TWO))
    assert revocations.revoked() == {ONE.peer_id: (SECOND.peer_id,)}


def test_an_admins_list_has_no_effect_on_an_admin_and_the_roots_has() -> None:
    revocations = Revocations(FEDERATION)
    revocations.merge(by_admin(SECOND, SECONDS, 1, FOUNDER))
    revocations.check(proof(FOUNDERS, FOUNDER))
    revocations.merge(by_root(1, FOUNDER))
    with pytest.raises(Revoked, match="with the root key"):
        revocations.check(proof(FOUNDERS, FOUNDER))


def test_who_was_let_in_by_a_revoked_admin_stays_only_if_the_list_says_so() -> None:
    revocations = Revocations(FEDERATION)
    revocations.merge(by_root(1, FOUNDER, stays=(ONE,)))
    revocations.check(proof(ONES, ONE))
    later = chain_of(STRANGER, FOUNDER, FOUNDERS)
    with pytest.raises(Revoked, match=f"let in by {FOUNDER.peer_id}, who is revoked"):
        revocations.check(proof(later, STRANGER))
    revocations.check(proof(TWOS, TWO))


def test_a_revoked_admins_list_is_void_before_and_after() -> None:
    revocations = Revocations(FEDERATION)
    revocations.merge(by_admin(FOUNDER, FOUNDERS, 1, TWO))
    revocations.merge(by_root(1, FOUNDER))
    revocations.check(proof(TWOS, TWO))
    assert revocations.merge(by_admin(FOUNDER, FOUNDERS, 2, TWO)) == "void"
    assert [held.by_root for held in revocations.counting()] == [True]
    assert revocations.marks() == ((ROOT.peer_id, 1),)
    assert set(revocations.revoked()) == {FOUNDER.peer_id}
    revocations.merge(by_root(2))
    with pytest.raises(Revoked):  # what it had said counts again
        revocations.check(proof(TWOS, TWO))
    assert revocations.merge(by_admin(FOUNDER, FOUNDERS, 2)) == "new"
    revocations.check(proof(TWOS, TWO))


def test_no_older_list_of_an_admin_counts_when_its_revocation_is_undone() -> None:
    revocations = Revocations(FEDERATION)
    revocations.merge(by_admin(FOUNDER, FOUNDERS, 3))
    revocations.merge(by_root(1, FOUNDER))
    again = Revocations(FEDERATION)  # as after a restart
    for sealed in revocations.in_order():
        again.merge(sealed)
    for one in (revocations, again):
        one.merge(by_root(2))
        assert one.merge(by_admin(FOUNDER, FOUNDERS, 1, TWO)) == "older"
        one.check(proof(TWOS, TWO))


def test_only_a_newer_epoch_changes_anything() -> None:
    revocations = Revocations(FEDERATION)
    old, new = by_root(1), by_root(2, ONE)
    assert revocations.merge(new) == "new"
    assert revocations.merge(new) == "held"
    assert revocations.merge(old) == "older"
    with pytest.raises(Revoked):
        revocations.check(proof(ONES, ONE))
    assert revocations.merge(by_root(3)) == "new"
    revocations.check(proof(ONES, ONE))


def test_two_lists_of_one_epoch_come_out_alike_everywhere() -> None:
    lists = [by_root(1, ONE), by_root(1, TWO)]
    results = set()
    for order in permutations(lists):
        revocations = Revocations(FEDERATION)
        for sealed in order:
            revocations.merge(sealed)
        results.add(tuple(revocations.revoked()))
    assert len(results) == 1


POOL = [
    by_root(1, FOUNDER, stays=(ONE,)),
    by_root(2, TWO),
    by_root(2, ONE),
    by_admin(FOUNDER, FOUNDERS, 1, ONE),
    by_admin(FOUNDER, FOUNDERS, 3),
    by_admin(SECOND, SECONDS, 1, TWO),
]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(POOL), max_size=12))
def test_the_epoch_held_of_an_issuer_never_falls(order: list[bytes]) -> None:
    revocations = Revocations(FEDERATION)
    highest: dict[str, int] = {}
    for sealed in order:
        revocations.merge(sealed)
        root = revocations.lists.get(ROOT.peer_id)
        for issuer, epoch in revocations.marks():
            assert epoch >= highest.get(issuer, 0)
            highest[issuer] = epoch
            assert root is None or issuer not in root.revoked
        assert revocations.merge(sealed) in ("held", "older", "void")


def test_marks_tell_what_another_lacks() -> None:
    mine, theirs = Revocations(FEDERATION), Revocations(FEDERATION)
    mine.merge(by_root(2, ONE))
    mine.merge(by_admin(SECOND, SECONDS, 1, TWO))
    theirs.merge(by_root(1))
    for sealed in mine.missing(theirs.marks()):
        assert theirs.merge(sealed) == "new"
    assert theirs.marks() == mine.marks()
    assert mine.missing(theirs.marks()) == []


@pytest.mark.parametrize(
    ("sealed", "error", "reason"),
    [
        (b"nonsense", ProtocolError, "malformed"),
        (by_root(1, ONE)[:-1] + b"\0", ProtocolError, "signature"),
        (seal(ROOT, REVOCATION_DOMAIN, b"\xff"), ProtocolError, "not readable"),
        (seal(ROOT, "fedd/certificate/1", b"x"), ProtocolError, "signature"),
        (seal(ROOT, REVOCATION_DOMAIN, codec.encode([1])), ProtocolError, "other fields"),
    ],
    ids=["nonsense", "signature", "unreadable", "domain", "list"],
)
def test_what_is_no_list_is_refused(sealed: bytes, error: type[Exception], reason: str) -> None:
    with pytest.raises(error, match=reason):
        Revocations(FEDERATION).merge(sealed)


GOOD = {
    "federation": bytes.fromhex(FEDERATION),
    "epoch": 1,
    "chain": b"",
    "revoked": [[peer_id_to_bytes(ONE.peer_id), b""]],
}
ENTRY = GOOD["revoked"][0]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"epoch": 0}, "other fields"),
        ({"epoch": MAX_EPOCH + 1}, "other fields"),
        ({"epoch": True}, "other fields"),
        ({"extra": 1}, "other fields"),
        ({"federation": bytes(32)}, "another federation"),
        ({"revoked": [ENTRY, ENTRY]}, "twice"),
        ({"revoked": [[peer_id_to_bytes(ROOT.peer_id), b""]]}, "its issuer"),
        ({"revoked": [[peer_id_to_bytes(ONE.peer_id), b"123"]]}, "something else"),
        ({"revoked": ["x"]}, "something else"),
        ({"revoked": [[b"x", b""]]}, "neither a key nor"),
        ({"revoked": [ENTRY] * (MAX_REVOKED + 1)}, "more than"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_signed_list_with_bad_content_is_refused(change: dict[str, object], reason: str) -> None:
    open_list(seal(ROOT, REVOCATION_DOMAIN, codec.encode(GOOD)), FEDERATION)
    with pytest.raises(ProtocolError, match=reason):
        open_list(seal(ROOT, REVOCATION_DOMAIN, codec.encode({**GOOD, **change})), FEDERATION)


def test_members_and_strangers_revoke_nobody() -> None:
    revocations = Revocations(FEDERATION)
    foreign = federation_id(STRANGER.public_key)
    for key, chain in ((ONE, ONES), (ONE, FOUNDERS), (STRANGER, b""), (STRANGER, FOUNDERS)):
        fields = {**GOOD, "chain": chain, "revoked": [[peer_id_to_bytes(TWO.peer_id), b""]]}
        with pytest.raises(Denied):
            revocations.merge(seal(key, REVOCATION_DOMAIN, codec.encode(fields)))
    elsewhere = sign_list(STRANGER, foreign, 1, {TWO.peer_id: ()})
    with pytest.raises(ProtocolError, match="another federation"):
        revocations.merge(elsewhere)
    revocations.check(proof(TWOS, TWO))


def test_what_cannot_be_signed_is_said() -> None:
    many = {PrivateKey.from_seed(n.to_bytes(32, "big")).peer_id: () for n in range(MAX_REVOKED + 1)}
    with pytest.raises(InvalidParameter, match="too long"):
        sign_list(ROOT, FEDERATION, 1, many)
    stays = [n.to_bytes(16, "big") for n in range(1000)]
    with pytest.raises(InvalidParameter, match="too long"):
        sign_list(ROOT, FEDERATION, 1, {ONE.peer_id: stays})
    with pytest.raises(InvalidParameter, match="not acceptable"):
        sign_list(ONE, FEDERATION, 1, {TWO.peer_id: ()}, ONES)
    del many[next(iter(many))]
    some = [n.to_bytes(16, "big") for n in range(250)]
    full = sign_list(ROOT, FEDERATION, MAX_EPOCH, {**many, ONE.peer_id: ()} if len(many) < 200 else many)
    assert len(full) < MAX_LIST_BYTES - 16 * len(some)


def test_the_number_of_issuers_is_bounded() -> None:
    revocations = Revocations(FEDERATION)
    admins = [PrivateKey.from_seed(bytes([100 + n]) * 32) for n in range(MAX_ISSUERS + 1)]
    *some, last = [by_admin(admin, chain_of(admin), 1, ONE) for admin in admins]
    for sealed in some:
        revocations.merge(sealed)
    with pytest.raises(Denied, match="issuers already"):
        revocations.merge(last)
    assert revocations.merge(by_admin(admins[0], chain_of(admins[0]), 2, TWO)) == "new"
