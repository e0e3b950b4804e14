"""Later epochs of a run, signed: who takes part from now on, over which graph, and who admitted newcomers.

The document of an epoch holds the initiator's manifest, so whoever missed everything before can begin with
it. A member may sign one that the initiator asked, or that was admitted: an admission is the signed word of a
member, about a peer and its own signed acceptance of the run's proposal. Which of two epochs counts
is for `core.epochs` to say; whether anybody awaits the run is for the caller.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from fedd.api.errors import ProtocolError
from fedd.api.types import PeerId
from fedd.core import codec
from fedd.core.epochs import MAX_EPOCHS, Next, epoch_graph
from fedd.core.identity import PrivateKey, open_sealed, seal
from fedd.core.manifest import (
    Manifest,
    Proposal,
    check_acceptance,
    check_graph,
    document,
    open_manifest,
    pairs,
    printable,
    read_proposal,
    take,
)
from fedd.core.run_terms import MAX_DOCUMENT_BYTES

_T = TypeVar("_T")

_EPOCH_DOMAIN = "fedd/run-epoch/1"
_ADMISSION_DOMAIN = "fedd/run-admission/1"

_PREFIX = b"fedd-epoch\x00"
"""Before the document, so that nobody verifies a signature to know what it is."""

MAX_ROUND = 1 << 62
"""Beyond what anybody counts to; it travels as an integer of 64 bits."""


def admit(key: PrivateKey, manifest: Manifest, peer: PeerId, acceptance: bytes) -> bytes:
    """This member's word that `peer`, which accepted the run's proposal, may take part.

    Raises ProtocolError when `acceptance` is not its word.
    """
    check_acceptance(acceptance, manifest.proposal.digest, peer)
    payload = codec.encode({"run": manifest.run_id, "peer": peer, "acceptance": acceptance})
    return seal(key, _ADMISSION_DOMAIN, payload)


def issue_epoch(
    key: PrivateKey,
    manifest: Manifest,
    following: Next,
    round: int,
    admissions: Sequence[bytes] = (),
    lost: Mapping[PeerId, str] | None = None,
) -> Manifest:
    """The next epoch's manifest; `admissions` are those of newcomers who were never in the run.

    `lost` says why members of `manifest` are not in it.

    Raises InvalidParameter when there is no graph over its members, ProtocolError when somebody is not
    admitted.
    """
    topology = manifest.initial.topology
    _, graph = epoch_graph(topology, following.members, manifest.proposal.seed)
    payload = codec.encode(
        {
            "manifest": manifest.initial.sealed,
            "epoch": following.number,
            "round": round,
            "members": list(graph.members),
            "newcomers": list(following.newcomers),
            "admissions": [*manifest.admissions, *admissions],
            "lost": [[peer, printable(reason)] for peer, reason in sorted((lost or {}).items())],
            "adjacency": graph.adjacency_hash(),
        }
    )
    return open_any(_PREFIX + seal(key, _EPOCH_DOMAIN, payload), manifest.initial)


def read_any(sealed: bytes) -> tuple[Proposal, str]:
    """What a manifest of any epoch is about, and its run id; the members' signatures are not verified.

    Raises ProtocolError.
    """
    if not sealed.startswith(_PREFIX):
        return read_proposal(sealed)
    _, payload = _open(sealed)
    return read_proposal(take(document(payload, "epoch"), "manifest", bytes))


def open_any(sealed: bytes, known: Manifest | None = None) -> Manifest:
    """Verify a manifest of any epoch; `known`, one of the same run, saves verifying its beginning again.

    Raises ProtocolError. What is left to the caller is what `open_manifest` leaves to it.
    """
    if not sealed.startswith(_PREFIX):
        return open_manifest(sealed)
    signer, payload = _open(sealed)
    fields = document(payload, "epoch")
    first = take(fields, "manifest", bytes)
    initial = known.initial if known is not None and known.initial.sealed == first else open_manifest(first)
    admissions = _listed(fields, "admissions", bytes)
    entitled = _entitled(initial, admissions)
    members = _listed(fields, "members", str)
    newcomers = _listed(fields, "newcomers", str)
    number, round = take(fields, "epoch", int), take(fields, "round", int)
    if signer not in entitled:
        raise ProtocolError(f"{signer}, who tells of an epoch, is no member of that run")
    if not set(members) <= entitled or not set(newcomers) <= set(members) or not members:
        raise ProtocolError("an epoch has members that nobody admitted", field="members")
    if not (1 < number <= MAX_EPOCHS and 0 <= round <= MAX_ROUND):
        raise ProtocolError(f"there is no epoch {number} from round {round}", field="epoch")
    topology, graph = epoch_graph(initial.topology, members, initial.proposal.seed)
    check_graph(graph, members, take(fields, "adjacency", bytes))
    return Manifest(
        run_id=initial.run_id,
        proposal=initial.proposal,
        members=members,
        declined=initial.declined,
        topology=topology,
        max_payload_bytes=initial.max_payload_bytes,
        graph=graph,
        sealed=bytes(sealed),
        epoch=number,
        round=round,
        newcomers=newcomers,
        admissions=admissions,
        admitted=tuple(sorted(entitled.difference(initial.members))),
        lost=tuple((peer, printable(reason)) for peer, reason in pairs(fields, "lost", str)),
        first=initial,
    )


def _open(sealed: bytes) -> tuple[PeerId, bytes]:
    return open_sealed(sealed[len(_PREFIX) :], _EPOCH_DOMAIN, max_bytes=MAX_DOCUMENT_BYTES)


def _entitled(initial: Manifest, admissions: Sequence[bytes]) -> set[PeerId]:
    """Who may be in the run's epochs and sign them."""
    entitled = set(initial.members)
    for sealed in admissions:
        sponsor, payload = open_sealed(sealed, _ADMISSION_DOMAIN)
        fields = document(payload, "admission")
        peer = take(fields, "peer", str)
        if sponsor not in entitled or take(fields, "run", str) != initial.run_id:
            raise ProtocolError(f"{sponsor} cannot admit {peer} to this run")
        check_acceptance(take(fields, "acceptance", bytes), initial.proposal.digest, peer)
        entitled.add(peer)
    return entitled


def _listed(fields: Mapping[str, Any], name: str, kind: type[_T]) -> tuple[_T, ...]:
    items = take(fields, name, list)
    if not all(isinstance(item, kind) for item in items):
        raise ProtocolError(f"{name} holds something that is no {kind.__name__}", field=name)
    return tuple(items)
