"""What a run is, signed: proposals, acceptances, the manifest, and the statements that end a part in it.

The run's id is the hash of its manifest, which holds every member's signed acceptance of one proposal:
an initiator cannot tell two stories, and a member that missed the manifest can take it from any other.
All documents are canonical CBOR; signatures are domain-separated envelopes of `core.identity`.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from fedd.api.errors import FeddError, ProtocolError
from fedd.api.types import PeerId
from fedd.core import codec
from fedd.core.dataclass import dataclass
from fedd.core.epochs import FIRST, Mark
from fedd.core.identity import PrivateKey, open_sealed, seal
from fedd.core.run_terms import MAX_DOCUMENT_BYTES, Parameter

if TYPE_CHECKING:
    from fedd.core.graph import Graph

MAX_REASON_CHARS = 512
"""Reasons are shown to people; what a peer says about itself is cut here."""

MAX_PACE_S = 3600.0
"""A round an hour is the slowest anybody can want; more is a slip of the unit."""

RUN_ID_CHARS = 40
"""160 bits of SHA-256 in hexadecimal: long enough against collisions, short enough to read."""

_MANIFEST_DOMAIN = "fedd/run-manifest/1"
_ACCEPTANCE_DOMAIN = "fedd/run-acceptance/1"
_END_DOMAIN = "fedd/run-end/1"
_STOP_DOMAIN = "fedd/run-stop/1"
_CUT_DOMAIN = "fedd/run-cut/1"

_T = TypeVar("_T")


@dataclass(frozen=True)
class Proposal:
    """What the initiator asks of each member, before it is known who takes part.

    `topology` is empty for the default, `input` for none. `quorum` counts members; `pace_s` is the least
    time of a round. `open` lets in whoever comes to the federation later. `nonce` (16 bytes) makes two equal
    requests two runs. `asker` is the member for whom the initiator proposes, by a command of a plugin; empty
    when it does so for itself. Whoever may not start runs on a device may not have others start them there.
    """

    federation: str
    initiator: PeerId
    algorithm: str
    plugin: str
    distribution: str
    version: str
    parameters: Mapping[str, Parameter]
    input: str
    topology: str
    contract: str
    seed: int
    quorum: int
    pace_s: float
    nonce: bytes
    open: bool = False
    asker: PeerId = ""

    def encode(self) -> bytes:
        """Canonical bytes; `decode` inverts it."""
        fields = {**self.__dict__, "parameters": dict(self.parameters)}
        if not self.asker:
            del fields["asker"]
        return codec.encode(fields)

    @property
    def digest(self) -> bytes:
        """32 bytes that acceptances name."""
        return hashlib.sha256(self.encode()).digest()

    @classmethod
    def decode(cls, data: bytes) -> Proposal:
        """Raises ProtocolError for anything that is not a well-formed proposal."""
        fields = document(data, "proposal")
        pace_s = take(fields, "pace_s", float)
        parameters = take(fields, "parameters", dict)
        if not all(isinstance(value, bool | int | float | str) for value in parameters.values()):
            raise ProtocolError(
                "a proposal's parameters are numbers, texts and truth values", field="parameters"
            )
        if not (math.isfinite(pace_s) and 0 <= pace_s <= MAX_PACE_S):
            raise ProtocolError(f"a proposal's pace is {pace_s} s", field="pace_s")
        texts = {
            name: take(fields, name, str)
            for name in ("federation", "initiator", "algorithm", "plugin", "distribution", "version", "input",
                         "topology", "contract")
        }  # fmt: skip
        return cls(
            **texts,
            parameters=parameters,
            seed=take(fields, "seed", int),
            quorum=take(fields, "quorum", int),
            pace_s=pace_s,
            nonce=take(fields, "nonce", bytes),
            open=take(fields, "open", bool),
            asker=take(fields, "asker", str) if "asker" in fields else "",
        )


def accept(key: PrivateKey, proposal: Proposal) -> bytes:
    """This node's signed acceptance of `proposal`."""
    return seal(key, _ACCEPTANCE_DOMAIN, proposal.digest)


def check_acceptance(acceptance: bytes, proposal_digest: bytes, member: PeerId) -> None:
    """Raises ProtocolError when `acceptance` is not `member`'s signed word for this proposal."""
    _, accepted = open_sealed(acceptance, _ACCEPTANCE_DOMAIN, member)
    if accepted != proposal_digest:
        raise ProtocolError(f"{member} accepted another proposal")


@dataclass(frozen=True)
class Manifest:
    """A run that takes place: the proposal, who accepted, who declined and the graph they form.

    `sealed` is the signed document, as it is handed on unchanged. The initiator's begins epoch 1; those of
    later epochs (`core.epoch_manifest`) have other members, and in `first` the initiator's: `round` counts
    the exchanges of the epochs before, `newcomers` are the members that came with this one, `admissions`
    admit all members that the initiator did not ask: those `admitted`. `lost`
    are members of the epoch before that are not in this one, and why.
    """

    run_id: str
    proposal: Proposal
    members: tuple[PeerId, ...]
    declined: tuple[tuple[PeerId, str], ...]
    topology: str
    max_payload_bytes: int
    graph: Graph
    sealed: bytes
    epoch: int = 1
    round: int = 0
    newcomers: tuple[PeerId, ...] = ()
    admissions: tuple[bytes, ...] = ()
    admitted: tuple[PeerId, ...] = ()
    lost: tuple[tuple[PeerId, str], ...] = ()
    first: Manifest | None = None

    @property
    def mark(self) -> Mark:
        """By which epochs are ordered."""
        return FIRST if self.epoch == 1 else Mark(self.epoch, hashlib.sha256(self.sealed).digest())

    @property
    def initial(self) -> Manifest:
        """The initiator's manifest."""
        return self.first or self


def issue(
    key: PrivateKey,
    proposal: Proposal,
    acceptances: Mapping[PeerId, bytes],
    declined: Mapping[PeerId, str],
    max_payload_bytes: int,
) -> Manifest:
    """The initiator's manifest over those who accepted.

    Raises InvalidParameter when so many form no such graph.
    """
    from fedd.core.topology import build, default_topology  # here: only a device with runs needs graphs

    name = proposal.topology or default_topology(len(acceptances))
    graph = build(name, acceptances, proposal.seed)
    payload = codec.encode(
        {
            "proposal": proposal.encode(),
            "acceptances": [[member, acceptances[member]] for member in graph.members],
            "declined": [[peer, printable(declined[peer])] for peer in sorted(declined)],
            "topology": name,
            "adjacency": graph.adjacency_hash(),
            "max_payload_bytes": max_payload_bytes,
        }
    )
    return open_manifest(seal(key, _MANIFEST_DOMAIN, payload))


def read_proposal(sealed: bytes) -> tuple[Proposal, str]:
    """What a manifest is about, and its run id; only its initiator's signature is verified.

    Raises ProtocolError. Costs one verification, where `open_manifest` costs one a member.
    """
    proposal, payload, _ = _open_envelope(sealed)
    return proposal, _run_id(payload)


def _open_envelope(sealed: bytes) -> tuple[Proposal, bytes, dict[str, Any]]:
    signer, payload = open_sealed(sealed, _MANIFEST_DOMAIN, max_bytes=MAX_DOCUMENT_BYTES)
    fields = document(payload, "manifest")
    proposal = Proposal.decode(take(fields, "proposal", bytes))
    if signer != proposal.initiator:
        raise ProtocolError(f"the manifest of {proposal.initiator}'s run is signed by {signer}")
    return proposal, payload, fields


def _run_id(payload: bytes) -> str:
    return hashlib.sha256(payload).hexdigest()[:RUN_ID_CHARS]


def open_manifest(sealed: bytes) -> Manifest:
    """Verify a manifest: its initiator's signature, every acceptance, the graph.

    Raises ProtocolError. That the initiator and the members belong to the federation is for the caller to
    check, and that anybody waits for this manifest (`read_proposal`): do it first, it costs less.
    """
    proposal, payload, fields = _open_envelope(sealed)
    digest = proposal.digest
    acceptances = pairs(fields, "acceptances", bytes)
    for member, acceptance in acceptances:
        check_acceptance(acceptance, digest, member)
    members = tuple(member for member, _ in acceptances)
    name = take(fields, "topology", str)
    max_payload_bytes = take(fields, "max_payload_bytes", int)
    if max_payload_bytes < 1:
        raise ProtocolError("a manifest that allows no payload", field="max_payload_bytes")
    if not 1 <= proposal.quorum <= len(members):
        raise ProtocolError(
            f"a manifest of {len(members)} members with quorum {proposal.quorum}", field="quorum"
        )
    try:
        from fedd.core.topology import build  # here: only a device with runs needs graphs

        graph = build(name, members, proposal.seed)
    except FeddError as error:
        raise ProtocolError(f"the manifest's graph cannot be built: {error.detail}") from error
    check_graph(graph, members, take(fields, "adjacency", bytes))
    return Manifest(
        run_id=_run_id(payload),
        proposal=proposal,
        members=members,
        declined=tuple((peer, printable(reason)) for peer, reason in pairs(fields, "declined", str)),
        topology=name,
        max_payload_bytes=max_payload_bytes,
        graph=graph,
        sealed=bytes(sealed),
    )


def check_graph(graph: Graph, members: tuple[PeerId, ...], adjacency: bytes) -> None:
    """Raises ProtocolError unless this is the graph that the manifest's signer derived."""
    if graph.members != members or graph.adjacency_hash() != adjacency:
        raise ProtocolError(
            "the manifest's graph is not the one derived here",
            hint="do all members run the same version of fedd?",
        )


@dataclass(frozen=True)
class EndStatement:
    """A member's own word that it takes part in a run no longer, from which round on and why."""

    member: PeerId
    round: int
    reason: str
    sealed: bytes


def state_end(key: PrivateKey, run_id: str, round: int, reason: str) -> EndStatement:
    """This node leaves the run."""
    reason = printable(reason)
    payload = codec.encode({"run": run_id, "round": round, "reason": reason})
    return EndStatement(key.peer_id, round, reason, seal(key, _END_DOMAIN, payload))


def open_end(sealed: bytes, run_id: str) -> EndStatement:
    """Verify a statement about this run. Raises ProtocolError."""
    signer, payload = open_sealed(sealed, _END_DOMAIN)
    fields = document(payload, "end statement")
    if take(fields, "run", str) != run_id:
        raise ProtocolError(f"{signer} speaks of the end of another run")
    reason = printable(take(fields, "reason", str))
    return EndStatement(signer, take(fields, "round", int), reason, bytes(sealed))


@dataclass(frozen=True)
class CutStatement:
    """A member's word that the edge between it and a neighbour is cut, in one epoch of the run.

    `fault`: because of what the neighbour sent, and not because there was no link.
    """

    member: PeerId
    peer: PeerId
    round: int
    reason: str
    fault: bool
    sealed: bytes


def state_cut(
    key: PrivateKey, manifest: Manifest, peer: PeerId, round: int, reason: str, *, fault: bool
) -> CutStatement:
    """This node goes on without its edge to `peer`."""
    reason = printable(reason)
    fields = {
        "run": manifest.run_id,
        "epoch": manifest.mark.digest,
        "peer": peer,
        "round": round,
        "reason": reason,
        "fault": fault,
    }
    sealed = seal(key, _CUT_DOMAIN, codec.encode(fields))
    return CutStatement(key.peer_id, peer, round, reason, fault, sealed)


def open_cut(sealed: bytes, manifest: Manifest) -> CutStatement:
    """Verify a statement about an edge of this epoch's graph. Raises ProtocolError.

    Only the two ends of an edge can cut it: nobody can drop an edge of others.
    """
    signer, payload = open_sealed(sealed, _CUT_DOMAIN)
    fields = document(payload, "cut statement")
    if (take(fields, "run", str), take(fields, "epoch", bytes)) != (manifest.run_id, manifest.mark.digest):
        raise ProtocolError(f"{signer} speaks of an edge in another run or epoch")
    peer = take(fields, "peer", str)
    if signer not in manifest.members or peer not in manifest.graph.neighbors(signer):
        raise ProtocolError(f"{signer} has no edge to {peer:.80} that it could cut")
    reason = printable(take(fields, "reason", str))
    return CutStatement(
        signer, peer, take(fields, "round", int), reason, take(fields, "fault", bool), bytes(sealed)
    )


def state_stop(key: PrivateKey, run_id: str) -> bytes:
    """This node's signed word that the run shall end everywhere."""
    return seal(key, _STOP_DOMAIN, codec.encode({"run": run_id}))


def open_stop(sealed: bytes) -> tuple[PeerId, str]:
    """(who stopped, run id). Raises ProtocolError."""
    signer, payload = open_sealed(sealed, _STOP_DOMAIN)
    return signer, take(document(payload, "stop statement"), "run", str)


def printable(text: str) -> str:
    """What somebody else wrote, fit for a terminal and a log: cut, and without control characters."""
    return "".join(char if char.isprintable() else "?" for char in text[:MAX_REASON_CHARS])


def document(data: bytes, what: str) -> dict[str, Any]:
    """The fields of a signed document. Raises ProtocolError."""
    try:
        fields = codec.decode(data, max_bytes=MAX_DOCUMENT_BYTES, canonical=True)
    except FeddError as error:
        raise ProtocolError(f"not a {what}: {error.detail}") from error
    if not isinstance(fields, dict):
        raise ProtocolError(f"not a {what}: its document is no map")
    return fields


def take(fields: Mapping[str, Any], name: str, kind: type[_T]) -> _T:
    """A field of that type. Raises ProtocolError."""
    value = fields.get(name)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ProtocolError(f"{name} is missing or no {kind.__name__}", field=name)
    return value


def pairs(fields: Mapping[str, Any], name: str, kind: type[_T]) -> list[tuple[PeerId, _T]]:
    """A field that lists [peer, `kind`]. Raises ProtocolError."""
    found: list[tuple[PeerId, _T]] = []
    for pair in take(fields, name, list):
        if not (
            isinstance(pair, list)
            and len(pair) == 2
            and isinstance(pair[0], str)
            and isinstance(pair[1], kind)
        ):
            raise ProtocolError(
                f"{name} holds something that is no pair of a peer and {kind.__name__}", field=name
            )
        found.append((pair[0], pair[1]))
    return found
