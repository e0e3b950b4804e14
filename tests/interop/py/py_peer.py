"""A py-libp2p peer of the interoperation tests: it listens, or dials and measures.

    python py_peer.py listen                           until standard input ends
    python py_peer.py dial ADDRESS [--pings N] [--bytes N]
    python py_peer.py find ADDRESS                     listen there, tell whom mDNS finds, until stdin ends

Runs in a virtual environment of its own. Every line on standard output is one JSON document with a key
"event".
"""

import argparse
import json
import sys
from typing import Any

import trio
from libp2p import new_host
from libp2p.abc import IHost, INetConn, INetwork, INotifee
from libp2p.discovery.events.peerDiscovery import peerDiscovery
from libp2p.host.ping import PingService
from libp2p.identity.identify.identify import ID as IDENTIFY
from libp2p.identity.identify.identify import parse_identify_response
from libp2p.peer.peerinfo import info_from_p2p_addr
from libp2p.perf.perf_service import PerfService
from libp2p.utils.varint import read_length_prefixed_protobuf
from multiaddr import Multiaddr


def say(document: dict[str, Any]) -> None:
    print(json.dumps(document), flush=True)


class Announcer(INotifee):
    """Says who is connected; everything else that can be notified is of no interest here."""

    async def connected(self, network: INetwork, conn: INetConn) -> None:
        addresses = [str(address) for address in conn.get_transport_addresses()]
        say(
            {
                "event": "connected",
                "peer_id": str(conn.muxed_conn.peer_id),
                "address": addresses[0] if addresses else None,
            }
        )

    async def disconnected(self, network: INetwork, conn: INetConn) -> None:
        pass

    async def opened_stream(self, network: INetwork, stream: Any) -> None:
        pass

    async def closed_stream(self, network: INetwork, stream: Any) -> None:
        pass

    async def listen(self, network: INetwork, multiaddr: Multiaddr) -> None:
        pass

    async def listen_close(self, network: INetwork, multiaddr: Multiaddr) -> None:
        pass


async def wait_for_the_end_of_stdin() -> None:
    async with trio.lowlevel.FdStream(sys.stdin.fileno()) as stdin:
        while await stdin.receive_some():
            pass


async def listen() -> None:
    host = new_host()
    perf = PerfService(host)
    async with host.run([Multiaddr("/ip4/127.0.0.1/tcp/0")]):
        host.get_network().register_notifee(Announcer())
        await perf.start()
        addresses = [str(address) for address in host.get_addrs()]
        say({"event": "listening", "peer_id": str(host.get_id()), "addresses": addresses})
        await wait_for_the_end_of_stdin()


async def find(address: str) -> None:
    early: list[dict[str, Any]] = []
    tell = early.append  # it begins to look before it says where it listens

    def found(peer: Any) -> None:  # called by a thread of zeroconf's
        addresses = [str(address) for address in peer.addrs]
        tell({"event": "found", "peer_id": str(peer.peer_id), "addresses": addresses})

    peerDiscovery.register_peer_discovered_handler(found)
    host = new_host(enable_mDNS=True)
    async with host.run([Multiaddr(address)]):
        addresses = [str(address) for address in host.get_addrs()]
        say({"event": "listening", "peer_id": str(host.get_id()), "addresses": addresses})
        tell = say
        for document in early:
            say(document)
        await wait_for_the_end_of_stdin()


async def identify(host: IHost, peer: Any) -> Any:
    stream = await host.new_stream(peer, [IDENTIFY])
    data = await read_length_prefixed_protobuf(stream, use_varint_format=True)
    await stream.close()
    return parse_identify_response(data)


async def dial(address: str, pings: int, byte_count: int) -> None:
    host = new_host()
    target = info_from_p2p_addr(Multiaddr(address))
    async with host.run([Multiaddr("/ip4/127.0.0.1/tcp/0")]):
        await host.connect(target)
        identified = await identify(host, target.peer_id)
        connection = host.get_network().get_connections(target.peer_id)[0]
        ping_ms = await PingService(host).ping(target.peer_id, pings)
        perf = PerfService(host)
        await perf.start()
        sent = received = 0
        async for progress in perf.measure_performance(Multiaddr(address), byte_count, byte_count):
            if progress["type"] == "final":
                sent, received = progress["upload_bytes"], progress["download_bytes"]
        observed = identified.observed_addr
        say(
            {
                "event": "done",
                "peer_id": str(host.get_id()),
                "remote_peer_id": str(connection.muxed_conn.peer_id),
                "remote_address": str(connection.get_transport_addresses()[0]),
                "agent": identified.agent_version,
                "protocols": list(identified.protocols),
                "addresses": [str(Multiaddr(item)) for item in identified.listen_addrs],
                "observed_address": str(Multiaddr(observed)) if observed else None,
                "ping_ms": ping_ms,
                "sent": sent,
                "received": received,
            }
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("listen")
    dialling = verbs.add_parser("dial")
    dialling.add_argument("address")
    dialling.add_argument("--pings", type=int, default=50)
    dialling.add_argument("--bytes", type=int, default=20_000_000)
    finding = verbs.add_parser("find")
    finding.add_argument("address")
    arguments = parser.parse_args()
    if arguments.verb == "listen":
        trio.run(listen)
    elif arguments.verb == "find":
        trio.run(find, arguments.address)
    else:
        trio.run(dial, arguments.address, arguments.pings, arguments.bytes)


if __name__ == "__main__":
    main()
