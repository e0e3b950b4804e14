"""Many broadcast cores on one heap of events: virtual time, with latency, links that break, and restarts."""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable, Iterable

from fedd.api.errors import ProtocolError
from fedd.core.broadcast import Broadcasts
from fedd.core.broadcast_keys import BroadcastKeys
from fedd.core.broadcast_messages import BroadcastMessage
from fedd.core.broadcast_types import Acked, BroadcastAction, BroadcastId, Deliver, Distrust, Gap
from fedd.core.identity import PrivateKey
from fedd.core.membership_types import Send
from fedd.core.presence_messages import decode_message, encode_message

FEDERATION = "ab" * 32
PEERS = [PrivateKey.from_seed(bytes([number]) * 32).peer_id for number in range(1, 31)]


def cheap_keys(peer: str, federation: str = FEDERATION) -> BroadcastKeys:
    """Signatures that cost nothing: the signer's name in front."""

    def unseal(domain: str, sealed: bytes, signer: str) -> bytes:
        prefix = f"{domain} {signer}:".encode()
        if not sealed.startswith(prefix):
            raise ProtocolError("forged")
        return sealed[len(prefix) :]

    return BroadcastKeys(federation, lambda domain, data: f"{domain} {peer}:".encode() + data, unseal)


class Node:
    """One core with what it told."""

    def __init__(self, world: World, peer: str) -> None:
        self.world = world
        self.peer = peer
        self.epoch = 0
        self.heard: list[Deliver | Gap] = []
        self.acked: list[Acked] = []
        self.distrusted: list[Distrust] = []
        self.sent: list[tuple[str, BroadcastMessage]] = []
        self.timer = 0
        self.alive = False
        self.strangers: set[str] = set()

    def start(self) -> None:
        self.epoch += 1
        self.alive = True
        self.heard, self.acked, self.distrusted = [], [], []
        self.core = Broadcasts(
            self.peer,
            self.epoch,
            keys=cheap_keys(self.peer),
            certified=lambda peer: peer in self.world.nodes and peer not in self.strangers,
            rtt_of=lambda peer: 0.02,
            neighbours_of=self.world.neighbours_of,
            links_version=self.world.links_version,
            rng=random.Random(f"{self.world.seed} {self.peer} {self.epoch}"),
            now=self.world.now,
        )
        self.perform([])

    def publish(self, payload: bytes, channel: str = "note", *, wants_acks: bool = False) -> BroadcastId:
        name, actions = self.core.publish(channel, payload, self.world.now, wants_acks=wants_acks)
        self.perform(actions)
        return name

    def perform(self, actions: Iterable[BroadcastAction]) -> None:
        for action in actions:
            match action:
                case Send(peer, message):
                    self.sent.append((peer, message))
                    self.world.send(self, peer, message)
                case Deliver() | Gap():
                    self.heard.append(action)
                case Acked():
                    self.acked.append(action)
                case Distrust():
                    self.distrusted.append(action)
                    self.world.cut(self.peer, action.peer)
        self.timer += 1
        timer = self.timer
        self.world.at(self.core.next_deadline(), lambda: self.tick(timer))

    def tick(self, timer: int) -> None:
        if timer == self.timer and self.alive:
            self.perform(self.core.handle_timeout(self.world.now))

    def payloads(self, origin: str) -> list[bytes]:
        return [item.payload for item in self.heard if isinstance(item, Deliver) and item.origin == origin]

    def gaps(self) -> list[Gap]:
        return [item for item in self.heard if isinstance(item, Gap)]


class World:
    """The links and the clock. `loses(a, b, message)` says which messages vanish on the way."""

    def __init__(self, count: int, seed: int = 0, latency_s: tuple[float, float] = (0.001, 0.01)) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self.now = 0.0
        self.latency_s = latency_s
        self.loses: Callable[[str, str, BroadcastMessage], bool] = lambda a, b, message: False
        self.records_known = True
        self.links: dict[frozenset[str], int] = {}
        self.lives = itertools.count(1)
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._fifo: dict[tuple[str, str], float] = {}
        self.nodes = {peer: Node(self, peer) for peer in PEERS[:count]}
        for node in self.nodes.values():
            node.start()

    def __getitem__(self, index: int) -> Node:
        return self.nodes[PEERS[index]]

    def neighbours_of(self, peer: str) -> set[str]:
        """What the records of members say, as far as they are known."""
        return {
            other for pair in self.links for other in pair - {peer} if peer in pair and self.records_known
        }

    def links_version(self) -> object:
        """Equal as long as `neighbours_of` says the same."""
        return frozenset(self.links), self.records_known

    def at(self, when: float, call: Callable[[], None]) -> None:
        heapq.heappush(self._heap, (max(when, self.now), next(self._order), call))

    def run(self, seconds: float) -> None:
        until = self.now + seconds
        same, before = 0, -1.0
        while self._heap and self._heap[0][0] <= until:
            self.now, _, call = heapq.heappop(self._heap)
            same = same + 1 if self.now == before else 0
            before = self.now
            assert same < 20_000, "time stands still: a deadline that nothing moves"
            call()
        self.now = until

    def link(self, a: int | str, b: int | str) -> None:
        one, other = (PEERS[x] if isinstance(x, int) else x for x in (a, b))
        self.links[frozenset((one, other))] = next(self.lives)
        for node, peer in ((self.nodes[one], other), (self.nodes[other], one)):
            node.perform(node.core.link_up(peer, self.now))

    def line(self, *indices: int) -> None:
        for a, b in itertools.pairwise(indices):
            self.link(a, b)

    def mesh(self) -> None:
        for a, b in itertools.combinations(range(len(self.nodes)), 2):
            self.link(a, b)

    def cut(self, a: int | str, b: int | str) -> None:
        one, other = (PEERS[x] if isinstance(x, int) else x for x in (a, b))
        if self.links.pop(frozenset((one, other)), None) is None:
            return
        for node, peer in ((self.nodes[one], other), (self.nodes[other], one)):
            if node.alive:
                node.perform(node.core.link_down(peer, self.now))

    def kill(self, index: int) -> None:
        node = self[index]
        node.alive = False
        for pair in [pair for pair in self.links if node.peer in pair]:
            self.cut(*pair)

    def send(self, node: Node, peer: str, message: BroadcastMessage) -> None:
        pair = frozenset((node.peer, peer))
        life = self.links.get(pair)
        if life is None or self.loses(node.peer, peer, message):
            return
        frame = encode_message(message)
        assert len(frame) <= 16 * 1024 + 2
        assert decode_message(frame[2:]) == message
        other = self.nodes[peer]
        at = max(self.now + self.rng.uniform(*self.latency_s), self._fifo.get((node.peer, peer), 0.0))
        self._fifo[node.peer, peer] = at

        def arrive() -> None:
            if self.links.get(pair) == life:
                other.perform(other.core.receive(node.peer, message, self.now))

        self.at(at, arrive)
