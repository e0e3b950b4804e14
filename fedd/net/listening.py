"""Where this node listens: at the ports of the last time, so that others find it again."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import replace

from fedd.api.errors import FeddError
from fedd.net.federation import PresenceStore
from fedd.net.swarm import Swarm
from fedd.net.transport import parse_multiaddr

logger = logging.getLogger("fedd.net")

PORTS_NAME = "ports.json"


async def listen(swarm: Swarm, addresses: Sequence[str], store: PresenceStore) -> None:
    """Listen at every address; for port 0, at the port of the last time if it is free.

    Others keep this node's address: with a new port at every start, a federation whose members all restart
    would not find together again. Raises Conflict when an address is in use.
    """
    remembered = _read_ports(store)
    ports: dict[str, int] = {}
    for text in addresses:
        address = parse_multiaddr(text)
        if address.port == 0 and text in remembered:
            try:
                listening = await swarm.listen(str(replace(address, port=remembered[text])))
            except FeddError:
                listening = await swarm.listen(text)
        else:
            listening = await swarm.listen(text)
        if address.port == 0:
            ports[text] = parse_multiaddr(listening[0]).port
    if ports != remembered:
        store.write(PORTS_NAME, json.dumps(ports).encode())


def _read_ports(store: PresenceStore) -> dict[str, int]:
    try:
        found = json.loads(store.read(PORTS_NAME) or b"{}")
        return {str(text): int(port) for text, port in found.items() if 0 < int(port) < 65_536}
    except (ValueError, TypeError, AttributeError):
        logger.warning("the remembered ports in %s are damaged; taking free ones", PORTS_NAME)
        return {}
