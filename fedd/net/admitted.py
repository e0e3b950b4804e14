"""Who was admitted by this node, and with which certificate: for the operator and for revocation."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from fedd.api.errors import FeddError, Unhealthy
from fedd.api.types import PeerId
from fedd.core import codec
from fedd.core.identity import peer_id_to_bytes
from fedd.net.federation import PresenceStore

ADMITTED_FILE: Final = "admitted"
# 100 bytes each.
MAX_ADMITTED: Final = 4096


def record_admitted(store: PresenceStore, peer: PeerId, serial: int) -> None:
    """Note on disk that `peer` has a certificate with that serial; see `record_all`."""
    record_all(store, [(peer, serial)])


def record_all(store: PresenceStore, new: Collection[tuple[PeerId, int]]) -> None:
    """Note on disk that each of these peers has a certificate with that serial; all of them or none.

    Raises:
        FeddError: the list is damaged, or cannot be written. Unhealthy: it is full.
    """
    stored = store.read(ADMITTED_FILE)
    try:
        admitted = codec.decode(stored, max_bytes=1 << 20) if stored else []
    except FeddError as error:
        raise FeddError(f"the list of admitted nodes {ADMITTED_FILE!r} is damaged: {error.detail}") from error
    if len(admitted) + len(new) > MAX_ADMITTED:
        raise Unhealthy(f"this node has admitted {MAX_ADMITTED} others", hint="let another admin invite")
    store.write(
        ADMITTED_FILE, codec.encode([*admitted, *([peer_id_to_bytes(peer), serial] for peer, serial in new)])
    )
