"""Examples of everything on the wire that is signed, hashed or framed, for docs/reference/wire-protocol.md.

python tests/interop/wire_vectors.py > docs/reference/wire-vectors.json
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from fedd.core import broadcast_messages as broadcasts
from fedd.core import certificates, codec, mdns, relay_messages
from fedd.core import presence_messages as presence
from fedd.core.database import Database
from fedd.core.dns_messages import Texts, decode_message
from fedd.core.epochs import FIRST
from fedd.core.identity import PrivateKey, peer_id_to_bytes, seal
from fedd.core.mail import Item, MailKind, Receipt
from fedd.core.manifest import state_cut, state_end, state_stop
from fedd.core.multistream import Dialer
from fedd.core.records import Record, sign_record
from fedd.core.revocation import sign_list, stay_digest
from fedd.core.run_signature import signed_bytes
from fedd.core.topology import build
from fedd.host.run_wire import Kind, encode_confirm, encode_frame, encode_mail, encode_preamble, encode_round

ROOT, ADMIN_KEY, MEMBER_KEY = (PrivateKey.from_seed(bytes([n]) * 32) for n in (1, 2, 3))
FEDERATION = certificates.federation_id(ROOT.public_key)


def identities() -> list[dict[str, Any]]:
    return [
        {
            "role": role,
            "seed": key.seed.hex(),
            "public_key_protobuf": key.public_key.to_protobuf().hex(),
            "multihash": peer_id_to_bytes(key.peer_id).hex(),
            "peer_id": key.peer_id,
        }
        for role, key in (("root", ROOT), ("admin", ADMIN_KEY), ("member", MEMBER_KEY))
    ]


def chains() -> tuple[bytes, bytes]:
    """The admin's chain and the member's."""
    admin = certificates.issue_certificate(
        ROOT,
        federation=FEDERATION,
        name="lab",
        peer_id=ADMIN_KEY.peer_id,
        serial=1,
        roles=(certificates.MEMBER, certificates.ADMIN),
    )
    member = certificates.issue_certificate(
        ADMIN_KEY, federation=FEDERATION, name="lab", peer_id=MEMBER_KEY.peer_id, serial=2
    )
    return certificates.make_chain(admin), certificates.make_chain(member, certificates.make_chain(admin))


def presence_examples(chain: bytes) -> dict[str, Any]:
    record = sign_record(
        MEMBER_KEY,
        Record(
            id=MEMBER_KEY.peer_id,
            epoch=7,
            seq=3,
            neighbours=frozenset({ADMIN_KEY.peer_id}),
            addresses=(f"/ip4/192.0.2.7/tcp/4001/p2p/{MEMBER_KEY.peer_id}",),
            name="lab-3",
            version="0.1.0",
            chain=chain,
        ),
    )
    database = Database(ADMIN_KEY.peer_id)
    database.merge(record, 0.0)
    # the admin is revoked, and the member that it let in stays
    revoked = sign_list(ROOT, FEDERATION, 3, {ADMIN_KEY.peer_id: [stay_digest(MEMBER_KEY.peer_id)]})
    messages: dict[str, presence.Message] = {
        "hello": presence.Hello(FEDERATION, chain),
        "ping": presence.Ping(41, 250),
        "pong": presence.Pong(41),
        "rows": presence.Rows((record.row,)),
        "digest": presence.Digest(database.digest),
        "versions": presence.Versions("", "", ((record.id, record.stamp),)),
        "want": presence.Want((record.id,)),
        "pin": presence.Pin(True),
        "bye": presence.Bye("left"),
        "revocation-marks": presence.RevocationMarks(((ROOT.peer_id, 3),)),
        "revocations": presence.Revocations(revoked),
        **broadcast_examples(),
    }
    frames = {name: presence.encode_message(message).hex() for name, message in messages.items()}
    return {"record": record.sealed.hex(), "digest": database.digest.hex(), "frames": frames}


def broadcast_examples() -> dict[str, presence.Message]:
    """A small broadcast of the member, and what is said about a large one."""
    me, payload = MEMBER_KEY.peer_id, b"to all"
    header = broadcasts.Header(7, 1, "note", True, len(payload), hashlib.sha256(payload).digest())
    large = broadcasts.Header(7, 2, "note", False, 9000, hashlib.sha256(bytes(9000)).digest())
    first, second = (
        broadcasts.Post(
            me,
            each.epoch,
            each.seq,
            seal(MEMBER_KEY, broadcasts.BROADCAST_DOMAIN, broadcasts.encode_header(FEDERATION, each)),
        )
        for each in (header, large)
    )
    ack = seal(ADMIN_KEY, broadcasts.ACK_DOMAIN, broadcasts.encode_ack(FEDERATION, me, 7, 1))
    return {
        "bcast": broadcasts.Bcast((replace(first, body=payload),)),
        "ihave": broadcasts.Ihave((second,)),
        "iwant": broadcasts.Iwant(me, 7, ((1, 2),)),
        "gone": broadcasts.Gone(second, ((1, 1),)),
        "pull": broadcasts.Pull(me, 7, 2, 8192),
        "chunk": broadcasts.Chunk(me, 7, 2, 8192, bytes(808)),
        "marks": broadcasts.Marks(True, 61_000, ((me, 7, 2),)),
        "acks": broadcasts.Acks(me, 7, 1, ((ADMIN_KEY.peer_id, ack),)),
    }


def graphs() -> list[dict[str, Any]]:
    members = sorted(PrivateKey.from_seed(bytes([n]) * 32).peer_id for n in range(1, 9))
    found = []
    for name, count, seed in (
        ("complete", 4, 0),
        ("ring", 5, 0),
        ("random-regular:4", 8, 12345),
        ("random-regular:3", 6, 1),
        ("one-peer-exponential", 5, 0),
        ("star@lazy", 4, 0),
        (f"edges:directed\n{members[1]},{members[0]},0.3\n{members[0]},{members[1]},0.25", 2, 0),
    ):
        graph = build(name, members[:count], seed)
        found.append(
            {
                "topology": name,
                "seed": seed,
                "members": list(graph.members),
                **graph.document(),
                "adjacency": graph.adjacency_hash().hex(),
            }
        )
    return found


def runs() -> dict[str, Any]:
    run_id = "00112233445566778899aabbccddeeff00112233"
    run: Any = SimpleNamespace(run_id=run_id, mark=FIRST)  # what a statement takes of a manifest
    question = Item(MailKind.QUESTION, 9, "mean", b"payload")
    return {
        "run_id": run_id,
        "end_statement": state_end(MEMBER_KEY, run_id, 12, "left: its worker died").sealed.hex(),
        "stop_statement": state_stop(MEMBER_KEY, run_id).hex(),
        "cut_statement": state_cut(
            MEMBER_KEY, run, ADMIN_KEY.peer_id, 12, "bad message: no number", fault=True
        ).sealed.hex(),
        "preamble": encode_preamble(b"sealed manifest").hex(),
        "frames": {
            "round": b"".join(encode_round(5, "average", b"payload")).hex(),
            "end": encode_frame(Kind.END, 6).hex(),
            "ack": encode_frame(Kind.ACK).hex(),
            "cut": encode_frame(Kind.CUT, 1, b"why").hex(),
            "mail": b"".join(encode_mail(4, question, Receipt(3, 2, 70))).hex(),
            "confirm": encode_confirm(Receipt(5, 2, 70, waiting=True)).hex(),
        },
        "signature": MEMBER_KEY.sign(signed_bytes(FEDERATION, run_id, b"yes")).hex(),
    }


def mdns_answer() -> dict[str, Any]:
    instance = b"0123456789abcdef0123456789abcdef"
    addresses = [f"/ip{kind}/tcp/4001/p2p/{MEMBER_KEY.peer_id}" for kind in ("6/2001:db8::7", "4/192.0.2.7")]
    answer = mdns.encode_answer(instance, addresses, 4001, [bytes((192, 0, 2, 7))], FEDERATION)
    (texts,) = [r.data for r in decode_message(answer).additional if isinstance(r.data, Texts)]
    strings = [string.decode() for string in texts.strings]
    return {"instance": instance.decode(), "strings": strings, "answer": answer.hex()}


def vectors() -> dict[str, Any]:
    """The whole document."""
    admin_chain, member_chain = chains()
    token = certificates.InviteToken(
        FEDERATION, (f"/ip4/192.0.2.7/tcp/4001/p2p/{ADMIN_KEY.peer_id}",), bytes(range(16))
    )
    array = codec.ArrayView("float64", (2, 2), b"".join(codec_doubles(1.0, 2.0, 3.0, 4.0)))
    return {
        "identities": identities(),
        "multistream_first_write": Dialer(["/noise"]).data_to_send().hex(),
        "envelope": {
            "domain": "fedd/example/1",
            "payload": b"hello".hex(),
            "signer": MEMBER_KEY.peer_id,
            "sealed": seal(MEMBER_KEY, "fedd/example/1", b"hello").hex(),
        },
        "federation": FEDERATION,
        "admin_chain": admin_chain.hex(),
        "member_chain": member_chain.hex(),
        "token": {"secret": bytes(range(16)).hex(), "text": token.encode()},
        "presence": presence_examples(member_chain),
        "graphs": graphs(),
        "run": runs(),
        "relay": {
            "request": relay_messages.encode_target(MEMBER_KEY.peer_id).hex(),
            "offer": relay_messages.encode_source(MEMBER_KEY.peer_id).hex(),
            "yes": relay_messages.encode_answer(None).hex(),
            "refused": relay_messages.encode_answer("the target is no member").hex(),
        },
        "mdns": mdns_answer(),
        "array": {"dtype": "float64", "rows": [[1.0, 2.0], [3.0, 4.0]], "cbor": codec.encode(array).hex()},
    }


def codec_doubles(*numbers: float) -> list[bytes]:
    import struct

    return [struct.pack("<d", number) for number in numbers]


if __name__ == "__main__":
    print(json.dumps(vectors(), indent=1))
