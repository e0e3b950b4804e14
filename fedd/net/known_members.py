"""What presence keeps on disk: the epoch counter, and records of members worth dialling after a restart."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable

import trio

from fedd.api.errors import Denied, FeddError
from fedd.api.types import PeerId
from fedd.core import codec
from fedd.core.identity import peer_id_from_bytes, peer_id_to_bytes
from fedd.core.membership import Membership
from fedd.core.records import MAX_SEALED_BYTES, Record, Row
from fedd.net.federation import PresenceStore

logger = logging.getLogger("fedd.net.presence")

EPOCH_FILE = "epoch"
MEMBERS_FILE = "members"
# Enough to find the federation again, however many of them are gone; 2 KiB each.
MAX_KEPT = 64
MAX_FILE_BYTES = MAX_KEPT * (MAX_SEALED_BYTES + 128)
# The first change is on disk at once. A burst of them costs one write more, and a crowd that comes together a
# single one: each takes the disk some milliseconds, in which this node does nothing else.
SAVE_EVERY_S = 3.0


def raise_epoch(store: PresenceStore, at_least: int = 0) -> int:
    """Count up the stored epoch, beyond `at_least`, and return it; it is on disk when this returns.

    Raises:
        FeddError: the counter is damaged: guessing one could make this node's records look old to others.
    """
    stored = store.read(EPOCH_FILE) or b"0"
    if not re.fullmatch(rb"[0-9]{1,10}\n?", stored):
        raise FeddError(
            f"the epoch counter {EPOCH_FILE!r} in the state directory is damaged",
            hint="write a number into it that is higher than any this node used before",
        )
    epoch = max(int(stored), at_least) + 1
    store.write(EPOCH_FILE, b"%d\n" % epoch)
    return epoch


class KnownMembers:
    """The file of records; damage in it costs only the knowledge of addresses."""

    def __init__(self, store: PresenceStore, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock
        self._due = trio.Event()
        self._saved_at = float("-inf")
        self._saved: dict[PeerId, tuple[int, tuple[str, ...]]] = {}

    def load(self, open_row: Callable[[Row], Record]) -> list[Record]:
        """The records kept that still verify."""
        data = self._store.read(MEMBERS_FILE)
        if not data:
            return []
        records = []
        try:
            for peer, epoch, left, seq, sealed in codec.decode(data, max_bytes=MAX_FILE_BYTES):
                row = Row(peer_id_from_bytes(peer), (epoch, left, seq), sealed)
                try:
                    records.append(open_row(row))
                except Denied as error:  # revoked, or off the allow-list, since the file was written
                    logger.info("a member of earlier days is one no longer: %s", error.detail)
        except (FeddError, TypeError, ValueError) as error:
            logger.warning(
                "the file of known members is not usable beyond %d of them: %s", len(records), error
            )
        return records

    def looks_old(self, core: Membership, peer: PeerId) -> bool:
        """Whether the file says something else of where `peer` is, or nothing while it has room."""
        record = core.records.get(peer)
        if record is None or peer == core.me or record.left or not record.addresses:
            return False
        if peer not in self._saved:
            return len(self._saved) < MAX_KEPT
        return self._saved[peer][1] != record.addresses

    def entered(self) -> None:
        """This node has entered a federation: many more may come in the same moment, so nothing is saved yet.

        After a power cut in that time it finds back by its inviter's address, which is kept with its
        certificate; the inviter is found by those that it let in.
        """
        self._saved_at = self._clock()

    def changed(self, core: Membership) -> None:
        """Something about members is new: save it now, or soon if the last time is hardly past."""
        if self._clock() < self._saved_at + SAVE_EVERY_S:
            self._due.set()
        else:
            self._try_save(core)

    async def keep_saving(self, core: Callable[[], Membership | None]) -> None:
        """Write what changed while the last write was still fresh; until cancelled."""
        while True:
            await self._due.wait()
            self._due = trio.Event()
            await trio.sleep(max(0.0, self._saved_at + SAVE_EVERY_S - self._clock()))
            self._try_save(core())

    def _try_save(self, core: Membership | None) -> None:
        self._saved_at = self._clock()
        if core is not None:
            try:
                self.save(core)
            except FeddError as error:
                logger.warning("cannot keep the known members: %s", error)

    def save(self, core: Membership) -> None:
        """Write the records of those who have not left, the living first, if anything in them has changed."""
        known = (*core.records.values(), *core.remembered.values())
        others = [r for r in known if r.id != core.me and not r.left and r.addresses]
        others.sort(key=lambda record: (core.state_of(record.id) != "alive", record.id))
        kept = others[:MAX_KEPT]
        wanted = {record.id: (record.epoch, record.addresses) for record in kept}
        if wanted == self._saved:
            return
        rows = [[peer_id_to_bytes(record.id), *record.stamp, record.sealed] for record in kept]
        self._store.write(MEMBERS_FILE, codec.encode(rows))
        self._saved = wanted

    def clear(self) -> None:
        """Forget everybody."""
        self._store.write(MEMBERS_FILE, b"")
        self._saved = {}
