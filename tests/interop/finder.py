"""fedd's discovery as a process of its own that says JSON lines, as the foreign peers do.

python finder.py ADDRESS      listen there, tell whom mDNS finds, until killed
"""

from __future__ import annotations

import json
import sys
import tempfile
from typing import Any

import trio

from fedd.core.identity import PrivateKey
from fedd.net.admission import Admission
from fedd.net.discovery import Discovery
from fedd.net.own_addresses import OwnAddresses
from fedd.net.presence import Presence
from fedd.net.swarm import Swarm
from fedd.state import StateDirectory


def say(document: dict[str, Any]) -> None:
    print(json.dumps(document), flush=True)


async def main(address: str, directory: str) -> None:
    state = StateDirectory(directory)
    key = PrivateKey.from_seed(bytes(range(32)))
    swarm = Swarm(key)
    presence = Presence(swarm, key, state)
    admission = Admission(swarm, presence, key, state)
    discovery = Discovery(swarm, presence)
    own_addresses = OwnAddresses(swarm, presence)
    own_addresses.subscribe(discovery.look)
    async with trio.open_nursery() as nursery:
        await nursery.start(swarm.run)
        addresses = await swarm.listen(address)
        await nursery.start(presence.run)
        admission.init("finder")
        nursery.start_soon(discovery.run)
        await nursery.start(own_addresses.run)
        say({"event": "listening", "peer_id": key.peer_id, "addresses": addresses})
        known: dict[str, tuple[str, ...]] = {}
        while True:
            await trio.sleep(0.02)
            for peer, where in discovery.found().items():
                if known.get(peer) != where:
                    known[peer] = where
                    say({"event": "found", "peer_id": peer, "addresses": where})


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        trio.run(main, sys.argv[1], scratch)
