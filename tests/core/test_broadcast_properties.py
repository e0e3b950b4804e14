"""Whatever links, losses, partitions and restarts do: exactly once, in order, or a gap; in bounded memory."""

from __future__ import annotations

import collections
import itertools
import random

from core.broadcast_world import PEERS, World
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fedd.api.errors import Unhealthy
from fedd.core.broadcast_messages import BroadcastMessage
from fedd.core.broadcast_origin import PENDING_BYTES, RETAINED, RETAINED_BYTES
from fedd.core.broadcast_types import BroadcastId, Deliver

SIZES = [3, 3, 3, 200, 1024, 1025, 9000, 20_000]


class Story:
    """A world in which things happen at random, and what was published in it."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.count = self.rng.randint(3, 6)
        self.world = World(self.count, seed)
        self.world.loses = self.loses
        self.world.records_known = self.rng.random() < 0.5
        self.loss = 0.0
        self.published: dict[BroadcastId, bytes] = {}
        self.restarted: set[str] = set()
        self.world.line(*range(self.count))

    def loses(self, a: str, b: str, message: BroadcastMessage) -> bool:
        """A queue that overflows: the sender knows."""
        if self.rng.random() >= self.loss:
            return False
        self.world.nodes[a].core.congested(b, self.world.now)
        return True

    def publish(self, index: int) -> None:
        node = self.world[index]
        payload = self.rng.randbytes(self.rng.choice(SIZES))
        if node.alive:
            try:
                self.published[node.publish(payload, wants_acks=self.rng.random() < 0.1)] = payload
            except Unhealthy:
                return

    def linked(self, a: int, b: int) -> bool:
        return frozenset((PEERS[a], PEERS[b])) in self.world.links

    def step(self) -> None:
        chance, index = self.rng.random(), self.rng.randrange(self.count)
        if chance < 0.6:
            for _ in range(self.rng.choice([1, 1, 3, 20])):
                self.publish(index)
        elif chance < 0.78:
            a, b = self.rng.sample(range(self.count), 2)
            if self.linked(a, b):
                self.world.cut(a, b)
            elif self.world[a].alive and self.world[b].alive:
                self.world.link(a, b)
        elif chance < 0.85:
            self.kill_or_start(index)
        else:
            self.loss = self.rng.choice([0, 0, 0.1, 0.3])
        self.world.run(self.rng.choice([0, 0.01, 0.05, 0.3, 2.0]))

    def kill_or_start(self, index: int) -> None:
        if self.world[index].alive:
            self.world.kill(index)
        else:
            self.world[index].start()
            self.restarted.add(PEERS[index])

    def calm(self) -> None:
        """Everybody is back, linked, and has had its time.

        Where all neighbours are newcomers without proof, several digests may pass until one of them has it.
        """
        self.loss = 0.0
        for index in range(self.count):
            if not self.world[index].alive:
                self.kill_or_start(index)
        for a, b in itertools.combinations(range(self.count), 2):
            if not self.linked(a, b) and (b == a + 1 or self.rng.random() < 0.5):
                self.world.link(a, b)
        self.world.run(120.0)

    def check_order(self) -> None:
        for node in self.world.nodes.values():
            streams = collections.defaultdict(list)
            for item in node.heard:
                streams[item.origin].append(item)
            for origin, items in streams.items():
                epochs = [item.epoch for item in items]
                assert epochs == sorted(epochs)
                for epoch in set(epochs):
                    self.check_stream(node.peer, origin, [item for item in items if item.epoch == epoch])

    def check_stream(self, peer: str, origin: str, items: list[object]) -> None:
        expected = None
        for item in items:
            first, last = (item.seq, item.seq) if isinstance(item, Deliver) else (item.first, item.last)
            # who was there all the time begins at the beginning
            assert first == expected or (expected is None and (first == 1 or peer in self.restarted))
            assert (origin, item.epoch, last) in self.published
            if isinstance(item, Deliver):
                assert self.published[origin, item.epoch, item.seq] == item.payload
            expected = last + 1

    def check_agreement(self) -> None:
        for node, other in itertools.permutations(self.world.nodes.values(), 2):
            last = max((n.seq for n in self.published if n[:2] == (other.peer, other.epoch)), default=0)
            mark = node.core.mark_of(other.peer)
            if last and not (node.peer in self.restarted and mark is None):
                assert mark is not None
                assert mark[0] == other.epoch
                assert mark[1] >= last
            assert not node.distrusted


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6))
@example(1989)  # newcomers among themselves
def test_exactly_once_in_order_or_a_gap(seed: int) -> None:
    story = Story(seed)
    for _ in range(40):
        story.step()
        for node in story.world.nodes.values():
            for origin in node.core._table.by_name.values():
                assert len(origin.retained) <= RETAINED
                assert origin.retained_bytes <= RETAINED_BYTES
                assert 0 <= origin.pending_bytes <= PENDING_BYTES + 65_536
    story.calm()
    story.check_order()
    story.check_agreement()


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**6))
def test_nothing_is_missed_while_all_stay_connected(seed: int) -> None:
    """Losses on the way alone make no gap while somebody still has what was lost."""
    story = Story(seed)
    for _ in range(30):
        story.loss = story.rng.choice([0, 0.2])
        for _ in range(3):
            story.publish(story.rng.randrange(story.count))
        story.world.run(story.rng.choice([0.01, 0.3]))
    story.calm()
    for node in story.world.nodes.values():
        assert not node.gaps()
        for other in story.world.nodes.values():
            sent = [payload for name, payload in story.published.items() if name.origin == other.peer]
            assert node.payloads(other.peer) == sent
