"""Whether this node takes part: proposals judged, acceptances remembered until their manifest comes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import trio

from fedd.api.errors import Conflict, Denied, InvalidParameter, NotFound, Unhealthy
from fedd.api.types import PeerId
from fedd.core.dataclass import dataclass
from fedd.core.identity import PrivateKey
from fedd.core.run_terms import CONTRACTS
from fedd.host.inputs import Inputs
from fedd.host.plugins import PluginRegistry
from fedd.host.policy import Policy
from fedd.host.run_limits import RunLimits

if TYPE_CHECKING:
    from fedd.core.manifest import Manifest, Proposal


@dataclass(frozen=True)
class _Accepted:
    proposal: Proposal
    until: float


class RunGate:
    """Accepts or refuses, with a reason, and keeps its word for `acceptance_s`."""

    def __init__(
        self,
        key: PrivateKey,
        registry: PluginRegistry,
        inputs: Inputs,
        policy: Policy,
        limits: RunLimits,
        active: Callable[[], int],
        clock: Callable[[], float] = trio.current_time,
        name_of: Callable[[PeerId], str] = str,
    ) -> None:
        self.policy = policy
        self._name_of = name_of
        self._key = key
        self._registry = registry
        self._inputs = inputs
        self._limits = limits
        self._active = active
        self._clock = clock
        self._accepted: dict[bytes, _Accepted] = {}
        self.refused = 0
        """How many runs were declined for being too many."""

    async def consider(self, proposal: Proposal, federation: str, initiator_name: str) -> bytes:
        """This node's signed acceptance. Raises the FeddError that is its reason to decline."""
        from fedd.core.manifest import accept  # here: a device that takes part in no run does not need it

        if proposal.federation != federation:
            raise Denied("the proposal is for another federation")
        if proposal.initiator != self._key.peer_id:
            self.policy.check_initiator(proposal.initiator, initiator_name)
        if proposal.asker not in ("", self._key.peer_id):
            self.policy.check_initiator(proposal.asker, self._name_of(proposal.asker))
        with trio.move_on_after(self._limits.propose_timeout_s * 0.8) as waited:
            await self._registry.ready()
        if waited.cancelled_caught:
            raise Unhealthy("the plugins here are still being inspected", hint="try again in some seconds")
        self._check_algorithm(proposal)
        if proposal.contract not in CONTRACTS:
            raise InvalidParameter(
                f"there is no contract {proposal.contract!r}",
                hint=f"known: {', '.join(CONTRACTS)}",
                field="contract",
            )
        if proposal.input:
            self.policy.check_input(proposal.input, proposal.algorithm)
            self._inputs.check(proposal.input)
        self._forget_the_old()
        if self.occupied >= self._limits.runs:
            self.refused += 1
            raise Unhealthy(
                f"runs are in progress here already, as many as may be ({self._limits.runs})",
                hint="wait for one to end, stop one, or raise runs in [limits]",
            )
        self._check_share(proposal.initiator)
        self.renew(proposal)
        return accept(self._key, proposal)

    def _check_share(self, initiator: PeerId) -> None:
        """One member's proposals, begun or not, leave places for the others'."""
        waiting = sum(kept.proposal.initiator == initiator for kept in self._accepted.values())
        if initiator != self._key.peer_id and waiting >= max(1, self._limits.runs // 2):
            self.refused += 1
            raise Unhealthy(
                f"{waiting} proposals of yours wait here for their manifests",
                hint=f"each is forgotten after {self._limits.acceptance_s:g} s",
            )

    @property
    def occupied(self) -> int:
        """Runs in progress, and those accepted that are to begin."""
        return self._active() + len(self._accepted)

    def renew(self, proposal: Proposal) -> None:
        """The acceptance counts from now. The initiator's own must outlast what it did since (its input)."""
        self._accepted[proposal.digest] = _Accepted(proposal, self._clock() + self._limits.acceptance_s)

    def check_expected(self, digest: bytes) -> None:
        """Raise Conflict unless this node has accepted the proposal and waits for its manifest."""
        self._forget_the_old()
        if digest not in self._accepted:
            raise Conflict("this node's acceptance is over: it was restarted, or the manifest came too late")

    def admit(self, manifest: Manifest) -> None:
        """Take the manifest of a run that this node accepted. Raises Denied or Conflict when it did not."""
        self.check_expected(manifest.proposal.digest)
        if self._key.peer_id not in manifest.members:
            raise Denied("this node is no member of that run")
        if manifest.max_payload_bytes > self._limits.payload_bytes:
            raise Denied(f"messages of {manifest.max_payload_bytes} bytes are more than this node takes")
        del self._accepted[manifest.proposal.digest]

    def withdraw(self, digest: bytes, initiator: PeerId) -> None:
        """The initiator does not go on with a proposal."""
        accepted = self._accepted.get(digest)
        if accepted is not None and accepted.proposal.initiator == initiator:
            del self._accepted[digest]

    def _check_algorithm(self, proposal: Proposal) -> None:
        info = self._registry.algorithm(proposal.algorithm)
        if (info.plugin, info.distribution, info.version) != (
            proposal.plugin,
            proposal.distribution,
            proposal.version,
        ):
            raise Conflict(
                f"{proposal.algorithm!r} is of {info.distribution} {info.version} here, "
                f"and of {proposal.distribution} {proposal.version} there",
                hint="install the same version on all members",
            )
        self.policy.check_algorithm(info.name, info.plugin, info.distribution)
        if self._registry.check_parameters(info.name, proposal.parameters) != dict(proposal.parameters):
            raise InvalidParameter("the parameters are not complete", field="parameters")

    def _forget_the_old(self) -> None:
        now = self._clock()
        self._accepted = {key: kept for key, kept in self._accepted.items() if kept.until > now}


def parse_quorum(given: int | str | None, proposed: int) -> int:
    """How many of `proposed` members must take part and stay: "3", "60%", or None for a majority.

    Raises InvalidParameter.
    """
    if given is None:
        return proposed // 2 + 1
    text = str(given).strip()
    share = text.endswith("%")
    digits = text.removesuffix("%")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 6):
        raise InvalidParameter(
            f"the quorum {text!r} is no number of members", hint="as in 3 or 60%", field="quorum"
        )
    quorum = -(-int(digits) * proposed // 100) if share else int(digits)
    if not 1 <= quorum <= proposed:
        raise InvalidParameter(
            f"the quorum {text} cannot be reached by {proposed} members",
            hint=f"between 1 and {proposed}, or a share between 1% and 100%",
            field="quorum",
        )
    return quorum


def check_members(asked: list[PeerId] | None, alive: list[PeerId], me: PeerId) -> list[PeerId]:
    """Whom to propose to, sorted, this node included: `asked`, else all `alive`. Raises NotFound."""
    if asked is None:
        return sorted({*alive, me})
    for peer in asked:
        if peer != me and peer not in alive:
            raise NotFound(f"{peer} is no member that is alive", hint="see fedctl members", field="members")
    return sorted({*asked, me})
