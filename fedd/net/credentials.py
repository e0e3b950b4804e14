"""Who may take part: certificates or allow-list, less the revoked. Keeps the revocation lists on disk."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from fedd.api.errors import Denied, FeddError
from fedd.api.types import PeerId
from fedd.core import codec
from fedd.core.certificates import Certificate
from fedd.core.revocation import MAX_ISSUERS, MAX_LIST_BYTES, Mark, Revocations, Revoked, open_list
from fedd.net.bounds import Bound
from fedd.net.doors import TokenBucket
from fedd.net.federation import FederationIdentity, PresenceStore

logger = logging.getLogger("fedd.net.admission")

REVOCATIONS_FILE: Final = "revocations"
MAX_FILE_BYTES: Final = MAX_ISSUERS * (MAX_LIST_BYTES + 64) + 256
# Certificates that were verified once, one a member.
MAX_CHECKED: Final = 4096
# Lists that one neighbour hands over: all there can be when a link begins, then what an operator does in a
# row. Each that is news costs a write to disk and a flood, so an admin that turns hostile gets no further;
# what is dropped comes with the next comparison of marks.
LISTS_BURST, LISTS_PER_S = 2 * MAX_ISSUERS, 0.5
MAX_SOURCES: Final = 4096
# The same misbehaviour of the same peer is told once a minute.
ALARM_EVERY_S: Final = 60.0
# Lists may overtake each other on different ways through the federation; later, an old one is no accident.
OVERTAKEN_S: Final = 5.0
MAX_ALARMS: Final = 256


class Alarm(NamedTuple):
    """A peer sent a list that it should not have: `source` is who handed it over."""

    what: str
    source: PeerId
    reason: str


class Credentials:
    """The rule by which peers are members of the federation that this node is in, if it is in one."""

    def __init__(self, store: PresenceStore, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock
        self._certificates: dict[tuple[PeerId, bytes], Certificate | None] = {}
        self._buckets: dict[PeerId, TokenBucket] = {}
        self._taken: dict[PeerId, float] = {}
        self._alarmed: dict[tuple[PeerId, str], float] = {}
        self._refused = 0
        self.federation: FederationIdentity | None = None
        self.revocations = Revocations("")
        self.alarm: Callable[[Alarm], None] = lambda alarm: None
        """Told of lists that were refused, at most once a minute for each peer and kind."""

    def enter(self, federation: FederationIdentity, lists: Iterable[bytes] = ()) -> None:
        """Judge by the rule of `federation` from now on, with the lists that are kept of it, and `lists`.

        Raises:
            FeddError: the file of lists is damaged; without it the revoked would be let in again.
        """
        revocations = Revocations(federation.id)
        data = self._store.read(REVOCATIONS_FILE)
        if data and federation.allowed is None:
            try:
                content = codec.decode(data, max_bytes=MAX_FILE_BYTES)
                if content["federation"] == federation.id:
                    for sealed in content["lists"]:
                        revocations.merge(sealed)
            except (FeddError, KeyError, TypeError) as error:
                raise FeddError(
                    f"the file {REVOCATIONS_FILE!r} in the state directory is damaged: {error}",
                    hint="restore it; or remove it if the other members, who send theirs, were never revoked",
                ) from error
        self.revocations = revocations
        self.federation = federation
        self._certificates.clear()
        for sealed in lists:
            self.take(sealed, None)

    def renew(self, federation: FederationIdentity) -> None:
        """This node's place in the same federation has changed."""
        self.federation = federation
        self._certificates.clear()

    def leave(self) -> None:
        """This node is in no federation; the lists stay on disk, for whoever joins the same one again."""
        self.federation = None
        self.revocations = Revocations("")
        self._certificates.clear()

    def check(self, peer: PeerId, chain: bytes) -> Certificate | None:
        """The certificate by which `peer` is a member; None by allow-list.

        Raises:
            Denied: it is none. Revoked: it is one no longer.
        """
        if self.federation is None:
            raise Denied("this node has left its federation")
        if (peer, chain) not in self._certificates:
            if len(self._certificates) >= MAX_CHECKED:
                self._certificates.clear()
            self._certificates[peer, chain] = self.federation.check(peer, chain)
        certificate = self._certificates[peer, chain]
        if certificate is not None:
            self.revocations.check(certificate)
        return certificate

    def holds(self, peer: PeerId, chain: bytes) -> bool:
        """Whether `peer` is a member by `chain`."""
        try:
            self.check(peer, chain)
        except Denied:
            return False
        return True

    def refuses(self, peer: PeerId) -> bool:
        """Whether records of `peer` are not worth a look, whatever chain they carry."""
        allowed = self.federation.allowed if self.federation is not None else None
        if allowed is not None:
            return peer not in allowed
        return any(held.by_root and peer in held.revoked for held in self.revocations.lists.values())

    @property
    def marks(self) -> tuple[Mark, ...]:
        """Which lists are held."""
        return self.revocations.marks()

    def take(self, sealed: bytes, source: PeerId | None) -> bool:
        """Merge a list that `source` handed over, None for this node's own; True when it is news.

        What is news is on disk then, before anything is done about it.

        What is older, unsigned, forged or of no admin is ignored, and the operator told.
        """
        if self.federation is None or self.federation.allowed is not None:
            return False
        try:
            if source is not None and not self._has_room(sealed, source):
                self._refused += 1
                return False
            outcome = self.revocations.merge(sealed)
        except FeddError as error:
            self._raise_alarm("refused", source, error.detail)
            return False
        now = self._clock()
        if outcome == "older":
            issuer = open_list(sealed, self.federation.id).issuer
            if now >= self._taken.get(issuer, float("-inf")) + OVERTAKEN_S:
                self._raise_alarm("older", source, f"it is older than what is known of {issuer}")
        if outcome == "new":
            for issuer in self.revocations.lists:
                if self.revocations.lists[issuer].sealed == sealed:
                    self._taken[issuer] = now
            self._keep()
        return outcome == "new"

    def why_revoked(self, me: PeerId, sealed: bytes) -> Revoked | None:
        """How `sealed`, whoever handed it over, revokes this node; None when it does not."""
        federation = self.federation
        if federation is None or federation.allowed is not None:
            return None
        alone = Revocations(federation.id)
        try:
            alone.merge(sealed)
            certificate = federation.check(me, federation.chain)
            if certificate is not None:
                alone.check(certificate)
        except Revoked as revoked:
            return revoked
        except FeddError:
            return None
        return None

    def bounds(self) -> list[Bound]:
        """How many lists are held."""
        help = "issuers of revocation lists; refused are lists that came too fast"
        return [Bound("revocation_lists", len(self.revocations.lists), MAX_ISSUERS, self._refused, help)]

    def _has_room(self, sealed: bytes, source: PeerId) -> bool:
        """Whether another list by this neighbour may be looked at now. One that is held costs nothing."""
        if any(held.sealed == sealed for held in self.revocations.lists.values()):
            return True
        now = self._clock()
        if source not in self._buckets:
            if len(self._buckets) >= MAX_SOURCES:
                self._buckets.clear()
            self._buckets[source] = TokenBucket(LISTS_BURST, LISTS_PER_S, now)
        return self._buckets[source].take(now)

    def _keep(self) -> None:
        content = {"federation": self.revocations.federation, "lists": self.revocations.in_order()}
        try:
            self._store.write(REVOCATIONS_FILE, codec.encode(content))
        except FeddError as error:  # to let the revoked go on meanwhile would be worse
            logger.error("a revocation counts now, and is forgotten at the next start: %s", error)

    def _raise_alarm(self, what: str, source: PeerId | None, reason: str) -> None:
        now = self._clock()
        if source is None or now < self._alarmed.get((source, what), float("-inf")) + ALARM_EVERY_S:
            return
        if len(self._alarmed) >= MAX_ALARMS:
            self._alarmed.clear()
        self._alarmed[source, what] = now
        logger.warning("a revocation list from %s was ignored: %s", source, reason)
        self.alarm(Alarm(what, source, reason))
