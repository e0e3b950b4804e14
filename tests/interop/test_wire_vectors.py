"""The examples beside docs/reference/wire-protocol.md are those of the code and of the page."""

from __future__ import annotations

import hashlib
import hmac
import json
import struct
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from interop import wire_vectors

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"


@pytest.fixture(scope="module")
def published() -> Any:
    return json.loads((REFERENCE / "wire-vectors.json").read_text())


def test_the_published_examples_are_those_of_the_code(published: Any) -> None:
    assert published == wire_vectors.vectors(), "run tests/interop/wire_vectors.py and publish what it prints"


def test_an_envelope_is_signed_as_the_page_says(published: Any) -> None:
    envelope = published["envelope"]
    sealed, payload = bytes.fromhex(envelope["sealed"]), bytes.fromhex(envelope["payload"])
    domain = envelope["domain"].encode()
    signed = b"fedd-sealed-1:" + bytes([len(domain)]) + domain + bytes([len(payload)]) + payload
    (member,) = (entry for entry in published["identities"] if entry["peer_id"] == envelope["signer"])
    multihash = bytes.fromhex(member["multihash"])
    key = Ed25519PublicKey.from_public_bytes(multihash[6:])
    key.verify(sealed[-64:], signed)
    # [bytes(38), bytes(5), bytes(64)] in CBOR
    assert sealed[:-64] == b"\x83\x58\x26" + multihash + b"\x45" + payload + b"\x58\x40"


def test_the_adjacency_is_hashed_as_the_page_says(published: Any) -> None:
    for graph in published["graphs"]:
        members, edges = graph["members"], graph["edges"]
        near: dict[int, list[str]] = {index: [] for index in range(len(members))}
        for low, high in edges:
            near[low].append(members[high])
            near[high].append(members[low])
        text = "fedd/graph/1\n" + "".join(f"{members[i]}:{','.join(sorted(near[i]))}\n" for i in near)
        for number, arcs in enumerate(graph.get("arcs", [])):
            text += "".join(f"{number}:{members[a]}>{members[b]}\n" for a, b in arcs)
        data = (text + (f"{graph['rule']}\n" if "rule" in graph else "")).encode()
        for a, b, weight in graph.get("weights", []):
            data += f"{members[a]}>{members[b]}=".encode() + struct.pack("<d", weight)
        assert hashlib.sha256(data).hexdigest() == graph["adjacency"]


def test_the_digest_is_computed_as_the_page_says(published: Any) -> None:
    (member,) = (entry for entry in published["identities"] if entry["role"] == "member")
    record = bytes.fromhex(published["presence"]["record"])
    text = f"{member['peer_id']} 7 0 3 ".encode() + record[-64:]
    assert hashlib.sha256(text).digest()[:24].hex() == published["presence"]["digest"]


def test_every_message_of_the_page_has_an_example(published: Any) -> None:
    page = (REFERENCE / "wire-protocol.md").read_text()
    table = page.partition("| message | fields | meaning |")[2].partition("An *entry*")[0]
    named = {line.split("`")[1] for line in table.splitlines() if line.startswith("| `")}
    assert named - {"refuse"} == set(published["presence"]["frames"])


def test_fellows_are_marked_as_the_page_says(published: Any) -> None:
    example = published["mdns"]
    *told, mark = [string.encode() for string in example["strings"]]
    words = b"\0".join((b"fedd/mdns/1", example["instance"].encode(), *sorted(told)))
    digest = hmac.digest(bytes.fromhex(published["federation"]), words, "sha256")
    assert mark.decode() == f"fedd={digest[:16].hex()}"
    assert told != sorted(told)  # the order matters, so the example shows it
    assert mark.hex() in example["answer"]
