"""Membership certificates and invite tokens: who is let in, and the reason for everybody else."""

import base64
import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedd.api.errors import Denied, InvalidMessage, InvalidParameter
from fedd.core import certificates, codec
from fedd.core.certificates import (
    ADMIN,
    MAX_CHAIN_BYTES,
    MEMBER,
    TOKEN_PREFIX,
    Certificate,
    InviteToken,
    federation_id,
    issue_certificate,
    make_chain,
    parse_token,
    secret_hash,
    secret_matches,
    verify_chain,
)
from fedd.core.identity import PrivateKey, peer_id_to_bytes, seal

ROOT, FOUNDER, NEWCOMER, STRANGER = (PrivateKey.from_seed(bytes([n]) * 32) for n in (1, 2, 3, 4))
FEDERATION = federation_id(ROOT.public_key)


def certificate(signer: PrivateKey, holder: PrivateKey, *roles: str, federation: str = FEDERATION) -> bytes:
    return issue_certificate(
        signer, federation=federation, name="home", peer_id=holder.peer_id, serial=7, roles=roles or (MEMBER,)
    )


FOUNDERS_CHAIN = make_chain(certificate(ROOT, FOUNDER, MEMBER, ADMIN))
NEWCOMERS_CHAIN = make_chain(certificate(FOUNDER, NEWCOMER), FOUNDERS_CHAIN)


def test_the_founder_is_an_admin_by_the_root_key() -> None:
    found = verify_chain(FOUNDERS_CHAIN, FEDERATION, FOUNDER.peer_id)
    expected = Certificate(
        FEDERATION, "home", FOUNDER.peer_id, (MEMBER, ADMIN), 7, issuer=ROOT.peer_id, root=ROOT.peer_id
    )
    assert found == expected
    assert found.is_admin


def test_a_newcomer_is_a_member_by_an_admins_key() -> None:
    found = verify_chain(NEWCOMERS_CHAIN, ROOT.public_key, NEWCOMER.peer_id)
    assert (found.issuer, found.root) == (FOUNDER.peer_id, ROOT.peer_id)
    assert not found.is_admin
    assert len(NEWCOMERS_CHAIN) < MAX_CHAIN_BYTES


def test_a_federation_is_known_by_its_root_key() -> None:
    assert hashlib.sha256(b"\x08\x01\x12\x20" + ROOT.public_key.raw).hexdigest() == FEDERATION
    assert federation_id(FOUNDER.public_key) != FEDERATION


def denied(chain: bytes, holder: PrivateKey, reason: str, federation: str = FEDERATION) -> None:
    with pytest.raises(Denied, match=reason):
        verify_chain(chain, federation, holder.peer_id)


def test_another_federations_certificate_is_denied() -> None:
    foreign = federation_id(STRANGER.public_key)
    denied(make_chain(certificate(STRANGER, NEWCOMER, federation=foreign)), NEWCOMER, "another federation")
    denied(NEWCOMERS_CHAIN, NEWCOMER, "another federation", federation=foreign)


def test_an_admin_of_another_federation_vouches_for_nobody_here() -> None:
    foreign = federation_id(STRANGER.public_key)
    foreign_admin = make_chain(certificate(STRANGER, FOUNDER, MEMBER, ADMIN, federation=foreign))
    denied(make_chain(certificate(FOUNDER, NEWCOMER), foreign_admin), NEWCOMER, "another federation")


def test_another_peers_certificate_is_denied() -> None:
    denied(NEWCOMERS_CHAIN, STRANGER, f"showed the certificate of {NEWCOMER.peer_id}")


def test_a_self_signed_certificate_is_denied() -> None:
    denied(make_chain(certificate(STRANGER, STRANGER)), STRANGER, "root key")


def test_a_chain_under_a_false_root_is_denied() -> None:
    false_admin = make_chain(certificate(STRANGER, FOUNDER, MEMBER, ADMIN))
    denied(make_chain(certificate(FOUNDER, NEWCOMER), false_admin), NEWCOMER, "root key")


def test_a_plain_member_cannot_issue_certificates() -> None:
    plain = make_chain(certificate(ROOT, FOUNDER, MEMBER))
    denied(make_chain(certificate(FOUNDER, NEWCOMER), plain), NEWCOMER, "not an admin")


def test_somebody_elses_admin_certificate_is_no_help() -> None:
    denied(make_chain(certificate(STRANGER, NEWCOMER), FOUNDERS_CHAIN), NEWCOMER, "not an admin")


def test_an_admin_cannot_make_admins() -> None:
    chain = make_chain(certificate(FOUNDER, NEWCOMER, MEMBER, ADMIN), FOUNDERS_CHAIN)
    denied(chain, NEWCOMER, "only the root key")


def test_an_admins_certificate_without_membership_gives_none() -> None:
    denied(make_chain(certificate(ROOT, FOUNDER, ADMIN)), FOUNDER, "does not make it a member")


def test_chains_have_one_admin_in_between() -> None:
    with pytest.raises(InvalidParameter, match="only an admin"):
        make_chain(certificate(NEWCOMER, STRANGER), NEWCOMERS_CHAIN)
    three = codec.encode([b"", b"", b""])
    denied(three, STRANGER, "one or two certificates")
    with pytest.raises(InvalidMessage):
        make_chain(certificate(NEWCOMER, STRANGER), three)


@pytest.mark.parametrize(
    ("chain", "reason"),
    [
        (b"", "malformed"),
        (codec.encode([]), "one or two"),
        (codec.encode("chain"), "one or two"),
        (codec.encode(["a"]), "something else than certificates"),
        (codec.encode([b"a"]), "malformed"),
        (codec.encode([bytes(MAX_CHAIN_BYTES)]), "longer than"),
    ],
)
def test_malformed_chains_are_denied_with_the_reason(chain: bytes, reason: str) -> None:
    denied(chain, NEWCOMER, reason)


GOOD = {
    "federation": bytes.fromhex(FEDERATION),
    "name": "home",
    "peer": peer_id_to_bytes(NEWCOMER.peer_id),
    "roles": ["member"],
    "serial": 1,
}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"extra": 1}, "other fields"),
        ({"federation": "x"}, "not bytes"),
        ({"federation": b"x"}, "64 hex digits"),
        ({"peer": NEWCOMER.peer_id}, "not bytes"),
        ({"peer": b"xyz"}, "peer id"),
        ({"name": ""}, "name"),
        ({"name": "x" * 65}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"name": "  "}, "name"),
        ({"name": 5}, "name"),
        ({"roles": "member"}, "not a list"),
        ({"roles": []}, "roles"),
        ({"roles": ["member"] * 9}, "roles"),
        ({"roles": [1]}, "roles"),
        ({"roles": ["a b"]}, "roles"),
        ({"roles": ["é"]}, "roles"),
        ({"roles": ["x" * 33]}, "roles"),
        ({"serial": -1}, "serial"),
        ({"serial": 2**63}, "serial"),
        ({"serial": True}, "serial"),
    ],
)
def test_certificates_with_bad_fields_are_denied(change: dict[str, object], reason: str) -> None:
    sealed = seal(ROOT, "fedd/certificate/1", codec.encode({**GOOD, **change}))
    denied(codec.encode([sealed]), NEWCOMER, reason)


def test_the_same_fields_unchanged_are_a_certificate() -> None:
    sealed = seal(ROOT, "fedd/certificate/1", codec.encode(GOOD))
    assert verify_chain(codec.encode([sealed]), FEDERATION, NEWCOMER.peer_id).serial == 1


@pytest.mark.parametrize(("name", "serial"), [("x", 0), ("x" * 64, 2**63 - 1)])
def test_certificates_at_the_edge_of_their_bounds(name: str, serial: int) -> None:
    issued = issue_certificate(
        ROOT, federation=FEDERATION, name=name, peer_id=FOUNDER.peer_id, serial=serial, roles=("member",) * 8
    )
    found = verify_chain(make_chain(issued), FEDERATION, FOUNDER.peer_id)
    assert (found.name, found.serial, len(found.roles)) == (name, serial, 8)


def test_other_signed_things_are_no_certificate() -> None:
    denied(codec.encode([seal(ROOT, "fedd/record/1", codec.encode(GOOD))]), NEWCOMER, "signature")
    denied(codec.encode([seal(ROOT, "fedd/certificate/1", codec.encode([1]))]), NEWCOMER, "other fields")


@pytest.mark.parametrize("federation", ["", "ab", "A" * 64, "g" * 64])
def test_certificates_are_issued_for_a_federations_id(federation: str) -> None:
    with pytest.raises(InvalidParameter, match="64 hex digits"):
        certificate(ROOT, FOUNDER, federation=federation)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_changed_chain_is_accepted(data: st.DataObject) -> None:
    changed = bytearray(NEWCOMERS_CHAIN)
    bit = data.draw(st.integers(0, len(changed) * 8 - 1))
    changed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(Denied):
        verify_chain(bytes(changed), FEDERATION, NEWCOMER.peer_id)


ADDRESS = f"/ip4/192.0.2.7/tcp/4001/p2p/{FOUNDER.peer_id}"
TOKEN = InviteToken(FEDERATION, (ADDRESS, f"/dns4/box.example/tcp/1/p2p/{FOUNDER.peer_id}"), bytes(range(16)))


def test_a_token_survives_its_line() -> None:
    line = TOKEN.encode()
    assert line.startswith(TOKEN_PREFIX)
    assert "=" not in line
    assert line.isascii()
    assert parse_token(line) == TOKEN
    assert parse_token(f"  {line}\n") == TOKEN


def test_a_token_hides_its_secret_from_logs() -> None:
    assert "secret" not in repr(TOKEN)
    assert str(TOKEN.secret) not in repr(TOKEN)


def test_a_token_cut_anywhere_is_refused() -> None:
    line = TOKEN.encode()
    for end in range(len(line)):
        with pytest.raises(InvalidParameter) as caught:
            parse_token(line[:end])
        assert "fedctl invite" in caught.value.hint
        assert caught.value.field == "token"
        assert line[:12] not in str(caught.value)


@given(st.text(max_size=60))
def test_any_text_raises_nothing_but_invalid_parameter(text: str) -> None:
    for candidate in (text, TOKEN_PREFIX + text):
        with pytest.raises(InvalidParameter):
            parse_token(candidate)


def line_of(value: object) -> str:
    return TOKEN_PREFIX + base64.urlsafe_b64encode(codec.encode(value)).rstrip(b"=").decode()


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("fedd2-abc", "begins with fedd1-"),
        (TOKEN_PREFIX + "ab!c", "not base64"),
        (TOKEN_PREFIX + "a", "not base64"),
        (TOKEN_PREFIX + "é", "not base64"),
        (TOKEN.encode() + "=", "not base64|one form"),
        (TOKEN_PREFIX + "A" * 5000, "too long"),
        (line_of([1, 2, 3]), "not \\[federation"),
        (line_of([bytes(31), [ADDRESS], bytes(16)]), "64 hex"),
        (line_of([bytes(32), [], bytes(16)]), "1 to 8 addresses"),
        (line_of([bytes(32), [ADDRESS] * 9, bytes(16)]), "1 to 8 addresses"),
        (line_of([bytes(32), [ADDRESS], bytes(15)]), "16 bytes"),
        (line_of([bytes(32), [5], bytes(16)]), "/p2p/"),
        (line_of([bytes(32), ["/ip4/192.0.2.7/tcp/4001"], bytes(16)]), "/p2p/"),
        (line_of([bytes(32), ["x" + ADDRESS], bytes(16)]), "/p2p/"),
        (line_of([bytes(32), ["/" + "x" * 300 + ADDRESS], bytes(16)]), "/p2p/"),
        (line_of([bytes(32), [ADDRESS + "x"], bytes(16)]), "not a peer id"),
    ],
)
def test_damaged_tokens_are_refused_with_the_reason(line: str, reason: str) -> None:
    with pytest.raises(InvalidParameter, match=reason):
        parse_token(line)


def test_a_token_has_one_spelling() -> None:
    line = TOKEN.encode()
    digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    spare_bits = {0: 0, 2: 4, 3: 2}[len(line.removeprefix(TOKEN_PREFIX)) % 4]
    assert spare_bits, "choose another address: this token's last digit has no bits to spare"
    twin = line[:-1] + digits[digits.index(line[-1]) + 1]
    with pytest.raises(InvalidParameter, match="one form"):
        parse_token(twin)


def test_a_secret_is_known_by_its_hash() -> None:
    kept = secret_hash(TOKEN.secret)
    assert kept == hashlib.sha256(b"fedd-invite-1:" + TOKEN.secret).digest()
    assert TOKEN.secret not in kept
    assert secret_matches(TOKEN.secret, kept)
    assert not secret_matches(bytes(16), kept)
    assert not secret_matches(b"", kept)


def test_an_issuers_certificate_is_verified_once_for_all_that_it_let_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened: list[bytes] = []
    open_sealed = certificates.open_sealed

    def noting(sealed: bytes, domain: bytes) -> tuple[str, bytes]:
        opened.append(sealed)
        return open_sealed(sealed, domain)

    monkeypatch.setattr(certificates, "open_sealed", noting)
    issuer = PrivateKey.from_seed(bytes([9]) * 32)
    chain = make_chain(certificate(ROOT, issuer, MEMBER, ADMIN))
    for holder in (NEWCOMER, STRANGER):
        verify_chain(make_chain(certificate(issuer, holder), chain), FEDERATION, holder.peer_id)
    assert len(opened) == 3  # two newcomers, one issuer
    broken = make_chain(certificate(issuer, NEWCOMER), codec.encode([certificate(ROOT, issuer, ADMIN)[:-1]]))
    for _ in range(2):
        denied(broken, NEWCOMER, "not valid")
    assert len(opened) == 7  # what does not verify is looked at again
