"""Keys, peer ids and envelopes, against published examples and an independent reader."""

import subprocess
import sys

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fedd.api.errors import InvalidParameter, ProtocolError
from fedd.core import codec
from fedd.core.identity import (
    ECDSA,
    ED25519,
    SECP256K1,
    PrivateKey,
    PublicKey,
    open_sealed,
    parse_peer_id,
    peer_id_from_bytes,
    peer_id_to_bytes,
    seal,
)
from fedd.core.protobuf import encode_message

KEY = PrivateKey.from_seed(bytes(range(32)))
OTHER = PrivateKey.from_seed(bytes(32))

# The keys that the peer-ids specification publishes, in libp2p's protobuf form.
ED25519_PRIVATE = bytes.fromhex(
    "080112407e0830617c4a7de83925dfb2694556b12936c477a0e1feb2e148ec9da60fee7d"
    "1ed1e8fae2c4a144b8be8fd4b47bf3d3b34b871c3cacf6010f0e42d474fce27e"
)
ED25519_PUBLIC = bytes.fromhex("080112201ed1e8fae2c4a144b8be8fd4b47bf3d3b34b871c3cacf6010f0e42d474fce27e")
SECP256K1_PUBLIC = bytes.fromhex("08021221037777e994e452c21604f91de093ce415f5432f701dd8cd1a7a6fea0e630bfca99")
ECDSA_PUBLIC = bytes.fromhex(
    "0803125b3059301306072a8648ce3d020106082a8648ce3d03010703420004de3d300fa36ae0e8f5d530899d83abab"
    "44abf3161f162a4bc901d8e6ecda020e8b6d5f8da30525e71d6851510c098e5c47c646a597fb4dcec034e9f77c409e62"
)


def test_the_specifications_ed25519_key_pair() -> None:
    seed = ED25519_PRIVATE[4:36]
    assert PrivateKey.from_seed(seed).public_key.to_protobuf() == ED25519_PUBLIC
    assert PublicKey.from_protobuf(ED25519_PUBLIC) == PrivateKey.from_seed(seed).public_key


@pytest.mark.parametrize(
    ("encoded", "key_type", "inline"),
    [(ED25519_PUBLIC, ED25519, True), (SECP256K1_PUBLIC, SECP256K1, True), (ECDSA_PUBLIC, ECDSA, False)],
)
def test_published_public_keys_keep_their_bytes(encoded: bytes, key_type: int, inline: bool) -> None:
    key = PublicKey.from_protobuf(encoded)
    assert key.key_type == key_type
    assert key.to_protobuf() == encoded
    assert encoded.endswith(key.raw)
    multihash = peer_id_to_bytes(key.peer_id)
    if inline:
        assert multihash == bytes((0, len(encoded))) + encoded
        assert PublicKey.from_peer_id(key.peer_id) == key
    else:
        assert multihash[:2] == b"\x12\x20"
        with pytest.raises(ProtocolError, match="hash of its key"):
            PublicKey.from_peer_id(key.peer_id)


# "String representation" in the peer-ids specification: one id in its two spellings.
SPEC_CID = "bafzbeie5745rpv2m6tjyuugywy4d5ewrqgqqhfnf445he3omzpjbx5xqxe"
SPEC_BASE58 = "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N"
SPEC_ED25519 = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA"


@pytest.mark.parametrize(
    ("text", "peer_id"),
    [(SPEC_CID, SPEC_BASE58), (SPEC_BASE58, SPEC_BASE58), (SPEC_ED25519, SPEC_ED25519)],
)
def test_published_peer_ids_are_read(text: str, peer_id: str) -> None:
    assert parse_peer_id(text) == peer_id
    assert peer_id_from_bytes(peer_id_to_bytes(peer_id)) == peer_id


@pytest.mark.parametrize("base", ["z", "k", "b"])
def test_every_multibase_of_a_cid_is_read(base: str) -> None:
    cid = b"\x01\x72" + peer_id_to_bytes(KEY.peer_id)
    digits = {
        "z": "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz",
        "k": "0123456789abcdefghijklmnopqrstuvwxyz",
    }
    if base == "b":
        bits = "".join(f"{byte:08b}" for byte in cid)
        bits += "0" * (-len(bits) % 5)
        body = "".join(
            "abcdefghijklmnopqrstuvwxyz234567"[int(bits[i : i + 5], 2)] for i in range(0, len(bits), 5)
        )
    else:
        number, body = int.from_bytes(cid, "big"), ""
        while number:
            number, digit = divmod(number, len(digits[base]))
            body = digits[base][digit] + body
    assert parse_peer_id(base + body) == KEY.peer_id


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "Qm",
        "Qm0OIl",
        "12D3KooW",
        SPEC_ED25519[:-1],
        SPEC_ED25519 + "1",
        SPEC_CID[:-2],
        SPEC_CID.upper(),
        "b" + SPEC_CID[1:].upper(),
        "bafy",
        "z0",
        "k!",
        "b1",
        "x",
        "1" * 129,
        "b" + "a" * 200,
        "../../etc/passwd",
    ],
)
def test_texts_that_are_no_peer_id_are_refused(text: str) -> None:
    with pytest.raises(InvalidParameter, match="not a peer id"):
        parse_peer_id(text)
    with pytest.raises(InvalidParameter, match="not a peer id"):
        peer_id_to_bytes(text)


@pytest.mark.parametrize(
    "data", ["", "00", "0000", "0001", "1220" + "00" * 31, "002b" + "00" * 43, "1120" + "00" * 32]
)
def test_bytes_that_are_no_multihash_of_a_key_are_refused(data: str) -> None:
    with pytest.raises(ProtocolError, match="peer id"):
        peer_id_from_bytes(bytes.fromhex(data))


@given(st.binary(min_size=1, max_size=42))
@example(bytes(42))
@example(b"\x01")
def test_every_multihash_survives_its_text(content: bytes) -> None:
    multihash = bytes((0, len(content))) + content
    assert peer_id_to_bytes(peer_id_from_bytes(memoryview(multihash))) == multihash


@given(st.text(max_size=80))
def test_any_text_raises_nothing_but_invalid_parameter(text: str) -> None:
    try:
        assert peer_id_to_bytes(parse_peer_id(text))
    except InvalidParameter:
        return


def test_an_inlined_key_has_one_spelling() -> None:
    twin = encode_message([(2, KEY.public_key.raw), (1, ED25519)])  # fields in the other order
    assert PublicKey.from_protobuf(twin) == KEY.public_key
    with pytest.raises(ProtocolError, match="one allowed form"):
        PublicKey.from_peer_id(peer_id_from_bytes(bytes((0, len(twin))) + twin))


def _public_key(key_type: int, data: bytes) -> bytes:
    return encode_message([(1, key_type), (2, data)])


def _pkix(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


@pytest.mark.parametrize(
    ("encoded", "reason"),
    [
        (b"", "lacks its type"),
        (encode_message([(1, ED25519)]), "lacks its type or its data"),
        (encode_message([(2, bytes(32))]), "lacks its type"),
        (b"\xff", "ends inside"),
        (bytes(513), "longer than 512"),
        (_public_key(ED25519, bytes(31)), "not a valid Ed25519"),
        (_public_key(SECP256K1, b"\x05" + bytes(32)), "not a valid secp256k1"),
        (_public_key(SECP256K1, bytes(65)), "secp256k1 with 65 bytes is not supported"),
        (_public_key(0, bytes(100)), "RSA with 100 bytes is not supported"),
        (_public_key(9, bytes(32)), "type 9 with 32 bytes is not supported"),
        (_public_key(ECDSA, bytes(91)), "not a valid ECDSA"),
        (
            _public_key(ECDSA, bytes.fromhex("300a300506032a030403010 0".replace(" ", ""))),
            "not a valid ECDSA",
        ),
        (_public_key(ECDSA, _pkix(ec.generate_private_key(ec.SECP256K1()))), "NIST curve"),
        (_public_key(ECDSA, _pkix(rsa.generate_private_key(65537, 2048))), "NIST curve"),
    ],
    ids=lambda value: (
        value if isinstance(value, str) else ""
    ),  # some are made anew in each process: their bytes are no names
)
def test_bad_public_keys_are_refused_with_the_reason(encoded: bytes, reason: str) -> None:
    with pytest.raises(ProtocolError, match=reason):
        PublicKey.from_protobuf(encoded)


def test_an_ecdsa_key_with_a_compressed_point_is_another_spelling() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    point = key.public_key().public_bytes(
        serialization.Encoding.X962, serialization.PublicFormat.CompressedPoint
    )
    header = bytes.fromhex("3039301306072a8648ce3d020106082a8648ce3d030107032200")
    with pytest.raises(ProtocolError, match="one allowed form"):
        PublicKey.from_protobuf(_public_key(ECDSA, header + point))


@pytest.mark.parametrize("curve", [ec.SECP256K1(), ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()])
def test_signatures_on_other_curves_are_verified(curve: ec.EllipticCurve) -> None:
    private = ec.generate_private_key(curve)
    if isinstance(curve, ec.SECP256K1):
        point = private.public_key().public_bytes(
            serialization.Encoding.X962, serialization.PublicFormat.CompressedPoint
        )
        key = PublicKey.from_protobuf(_public_key(SECP256K1, point))
    else:
        key = PublicKey.from_protobuf(_public_key(ECDSA, _pkix(private)))
    signature = private.sign(b"data", ec.ECDSA(SHA256()))
    key.verify(signature, b"data")
    with pytest.raises(ProtocolError, match="not that of"):
        key.verify(signature, b"date")
    with pytest.raises(ProtocolError, match="not that of"):
        key.verify(b"", b"data")


def test_signatures_of_ed25519() -> None:
    # RFC 8032, 7.1, test 2
    key = PrivateKey.from_seed(
        bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
    )
    signature = key.sign(b"\x72")
    assert signature.hex().startswith("92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da")
    key.public_key.verify(signature, b"\x72")
    for bad in (signature[:-1], signature + b"\0", bytes(64), b"", bytes(300)):
        with pytest.raises(ProtocolError, match=key.peer_id):
            key.public_key.verify(bad, b"\x72")


def test_keys_compare_by_value_and_hide_the_secret() -> None:
    assert PrivateKey.from_seed(bytes(32)).public_key == OTHER.public_key
    assert OTHER.public_key != KEY.public_key
    assert OTHER.public_key != OTHER.peer_id
    assert len({OTHER.public_key, PrivateKey.from_seed(bytes(32)).public_key}) == 1
    assert repr(KEY) == f"PrivateKey({KEY.peer_id})"
    assert repr(KEY.public_key) == f"PublicKey({KEY.peer_id})"


def test_the_key_file_is_what_others_read() -> None:
    pem = KEY.to_pem()
    other_reader = serialization.load_pem_private_key(pem, None)
    assert isinstance(other_reader, Ed25519PrivateKey)
    assert other_reader.private_bytes_raw() == KEY.seed
    written = other_reader.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    assert written == pem
    assert PrivateKey.from_pem(written).seed == KEY.seed
    assert PrivateKey.from_pem(b"\r\n" + pem.replace(b"\n", b"\r\n")).peer_id == KEY.peer_id


def test_a_key_made_by_openssl_is_read() -> None:
    made = subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519"], capture_output=True, check=True)
    assert PrivateKey.from_pem(made.stdout).peer_id.startswith("12D3KooW")


def _pem_of(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "something else"),
        (b"hello", "something else"),
        (KEY.to_pem()[:-10], "something else"),
        (KEY.to_pem().replace(b" PRIVATE", b" ENCRYPTED PRIVATE"), "encrypted"),
        (KEY.to_pem().replace(b"MC4C", b"MC4!"), "damaged"),
        (KEY.to_pem().replace(b"MC4C", b"MC4"), "damaged"),
        (KEY.to_pem().replace(b"MC4C", b""), "no plain Ed25519"),
        (KEY.to_pem().replace(b"MC4C", b"MC5C"), "no plain Ed25519"),
        (_pem_of(ec.generate_private_key(ec.SECP256R1())), "no plain Ed25519"),
    ],
)
def test_bad_key_files_are_refused_with_the_reason(data: bytes, reason: str) -> None:
    with pytest.raises(InvalidParameter, match=reason) as caught:
        PrivateKey.from_pem(data)
    assert "openssl genpkey" in caught.value.hint


def test_a_seed_of_another_length_is_refused() -> None:
    with pytest.raises(InvalidParameter, match="32 bytes, not 31"):
        PrivateKey.from_seed(bytes(31))


@given(st.binary(max_size=200))
def test_envelopes_open_for_their_domain_alone(payload: bytes) -> None:
    sealed = seal(KEY, "fedd/record/1", payload)
    assert open_sealed(sealed, "fedd/record/1") == (KEY.peer_id, payload)
    assert open_sealed(sealed, "fedd/record/1", KEY.peer_id) == (KEY.peer_id, payload)
    with pytest.raises(ProtocolError, match="not that of"):
        open_sealed(sealed, "fedd/record/2")
    with pytest.raises(ProtocolError, match=f"not by {OTHER.peer_id}"):
        open_sealed(sealed, "fedd/record/1", OTHER.peer_id)


def test_an_envelope_is_signed_behind_a_prefix_of_its_own() -> None:
    signer, payload, signature = codec.decode(seal(KEY, "fedd/record/1", b"payload"))
    assert (signer, payload) == (peer_id_to_bytes(KEY.peer_id), b"payload")
    KEY.public_key.verify(signature, b"fedd-sealed-1:\x0dfedd/record/1\x07payload")


def test_a_domain_and_payload_cannot_be_cut_elsewhere() -> None:
    signature = codec.decode(seal(KEY, "ab", b"c"))[2]
    moved = codec.encode([peer_id_to_bytes(KEY.peer_id), b"bc", signature])
    with pytest.raises(ProtocolError, match="not that of"):
        open_sealed(moved, "a")


@settings(deadline=None)
@given(st.data())
def test_no_changed_envelope_opens(data: st.DataObject) -> None:
    sealed = bytearray(seal(KEY, "fedd/record/1", b"payload"))
    position = data.draw(st.integers(0, len(sealed) * 8 - 1))
    sealed[position // 8] ^= 1 << position % 8
    with pytest.raises(ProtocolError):
        open_sealed(bytes(sealed), "fedd/record/1")


def test_a_non_canonical_twin_of_an_envelope_is_refused() -> None:
    sealed = seal(KEY, "fedd/record/1", b"payload")
    twin = b"\x98\x03" + sealed[1:]  # the list's length in two bytes instead of one
    assert codec.decode(twin) == codec.decode(sealed)
    with pytest.raises(ProtocolError, match="canonical"):
        open_sealed(twin, "fedd/record/1")


def test_envelopes_of_hashed_peer_ids_are_refused() -> None:
    sealed = codec.encode([peer_id_to_bytes(SPEC_BASE58), b"payload", bytes(64)])
    with pytest.raises(ProtocolError, match="hash of its key"):
        open_sealed(sealed, "fedd/record/1")


@pytest.mark.parametrize("content", [None, [], [b"", b"", b"", b""], [b"", "", b""], {"a": b""}])
def test_other_values_than_envelopes_are_refused(content: object) -> None:
    with pytest.raises(ProtocolError, match="signer, payload, signature"):
        open_sealed(codec.encode(content), "fedd/record/1")


def test_an_envelopes_size_is_bounded() -> None:
    sealed = seal(KEY, "fedd/record/1", bytes(100))
    with pytest.raises(ProtocolError, match="longer than the 50"):
        open_sealed(sealed, "fedd/record/1", max_bytes=50)


@pytest.mark.parametrize("domain", ["", "é", "x" * 65])
def test_domains_are_short_ascii(domain: str) -> None:
    with pytest.raises(ValueError, match="domain"):
        seal(KEY, domain, b"")


def test_importing_keys_loads_neither_key_files_parsers_nor_other_curves() -> None:
    program = (
        "import sys, fedd.core.identity, fedd.core.noise\n"
        "loaded = [name for name in sys.modules if name.endswith(('.serialization', '.asymmetric.ec'))]\n"
        "print(loaded)"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"
