"""The history of a whole simulated federation: joins, deaths, a partition, healing, and what each took.

    cd tests && python -m core.simulated_history --nodes 1000 --not-dialable 0.7

prints one JSON line with what happened. The same arguments give the same history. `--brief` leaves out what
is between joins, mass death, partition and healing, and what comes after.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

from core.simulator import Simulation


class Story:
    """A history of a whole federation, told by what was measured in each of its chapters."""

    def __init__(self, nodes: int, not_dialable: float, seed: int) -> None:
        self.sim = Simulation(seed)
        self.size = nodes
        self.rng = random.Random(seed + 1)
        self.names = [f"n{index:04d}" for index in range(nodes)]
        self.boots = self.names[:3]
        self.hidden = set(self.rng.sample(self.names[3:], min(round(nodes * not_dialable), nodes - 3)))
        self.told: dict[str, Any] = {"nodes": nodes, "not_dialable": len(self.hidden), "seed": seed}
        self.clock = time.process_time

    def chapter(self, name: str, tell: Callable[[], dict[str, Any]]) -> None:
        cpu, events, now = self.clock(), self.sim.events, self.sim.now
        false_deaths = self.sim.false_deaths
        told = tell()
        self.told[name] = {
            **{key: round(value, 3) if isinstance(value, float) else value for key, value in told.items()},
            "false_deaths": self.sim.false_deaths - false_deaths,
            "simulated_s": round(self.sim.now - now, 2),
            "events": self.sim.events - events,
            "cpu_s": round(self.clock() - cpu, 2),
        }
        print(name, self.told[name], file=sys.stderr, flush=True)

    def join(self, within_s: float) -> dict[str, Any]:
        sim = self.sim
        for index, name in enumerate(self.names):
            sim.schedule(
                index / self.size * within_s,
                lambda name=name: sim.add(name, self.boots, dialable=name not in self.hidden),
            )
        sim.run(within_s)
        took_s = sim.run_until(sim.full_view, 120.0)
        return {"joined_within_s": within_s, "full_view_after_s": took_s, **self.shape()}

    def quiet(self, seconds: float) -> dict[str, Any]:
        sim = self.sim
        before = [(node, node.sent_messages, node.sent_bytes) for node in sim.living()]
        sim.run(seconds)
        per_link = [
            (node.sent_messages - messages) / seconds / len(node.core.links) for node, messages, _ in before
        ]
        return {
            "bytes_s_a_node_mean": statistics.mean((n.sent_bytes - size) / seconds for n, _, size in before),
            "bytes_s_a_node_p50": statistics.median((n.sent_bytes - size) / seconds for n, _, size in before),
            "messages_s_a_link_end": statistics.mean(per_link),
            **self.shape(),
        }

    def deaths(self, victims: list[str], *, fin: bool, within_s: float) -> dict[str, Any]:
        sim = self.sim
        began = sim.watch(*victims)
        for victim in victims:
            sim.kill(victim, fin=fin)
        expected = len(victims) * len(sim.living())
        sim.run_until(lambda: len(sim.detected) >= expected, within_s)
        full_s = sim.run_until(sim.full_view, 60.0)
        return {
            "victims": len(victims),
            "detected_p50_s": statistics.median(sim.detected) - began,
            "detected_last_s": max(sim.detected) - began,
            "full_view_s": sim.now - began if full_s else max(sim.detected) - began,
            **self.shape(),
        }

    def partition(self, cut_s: float) -> dict[str, Any]:
        sim = self.sim
        living = [node.peer for node in sim.living()]
        far = set(self.rng.sample(living, len(living) // 2))
        began = sim.watch(*living)
        sim.part(lambda peer: int(peer in far))
        sim.run(cut_s)
        detected = sim.detected
        return {
            "detected_p50_s": statistics.median(detected) - began,
            "detected_last_s": max(detected) - began,
            "detected_share": len(detected) / (2 * len(far) * (len(living) - len(far))),
            **self.shape(),
        }

    def heal(self) -> dict[str, Any]:
        self.sim.mend()
        took_s = self.sim.run_until(self.sim.full_view, 120.0)
        return {"full_view_s": took_s, **self.shape()}

    def shape(self) -> dict[str, Any]:
        degrees = self.sim.degrees()
        return {"degree_min": degrees[0], "degree_max": degrees[-1], "degree_mean": statistics.mean(degrees)}

    def tell(self, *, brief: bool = False) -> dict[str, Any]:
        started, cpu = time.perf_counter(), self.clock()
        # Nothing here makes cycles, and to look for them among so many objects takes longer than the rest.
        gc.disable()
        sim = self.sim
        others = [name for name in self.names if name not in self.boots]
        doomed = self.rng.sample(others, 2 + round(self.size * 0.3))
        self.chapter("join", lambda: self.join(min(5.0, self.size / 200)))
        if not brief:
            self.chapter("settle", lambda: self.quiet(10.0))
            self.chapter("quiet", lambda: self.quiet(10.0))
            self.chapter("kill", lambda: self.deaths(doomed[:1], fin=True, within_s=20.0))
            self.chapter("silent_death", lambda: self.deaths(doomed[1:2], fin=False, within_s=20.0))
        self.chapter("mass_death", lambda: self.deaths(doomed[2:], fin=False, within_s=60.0))
        self.chapter("partition", lambda: self.partition(15.0))
        self.chapter("heal", self.heal)
        if not brief:
            self.chapter("resettle", lambda: self.quiet(15.0))
            self.chapter("end", lambda: self.quiet(10.0))
            self.told["equal_databases"] = len({node.core.digest for node in sim.living()}) == 1
        gc.enable()
        self.told |= {
            "false_deaths": sim.false_deaths,
            "simulated_s": round(sim.now, 1),
            "events": sim.events,
            "cpu_s": round(self.clock() - cpu, 1),
            "wall_s": round(time.perf_counter() - started, 1),
        }
        return self.told


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--not-dialable", type=float, default=0.7, help="share of nodes behind a NAT")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--brief", action="store_true", help="joins, mass death, partition, healing only")
    options = parser.parse_args()
    story = Story(options.nodes, options.not_dialable, options.seed)
    print(json.dumps(story.tell(brief=options.brief)))


if __name__ == "__main__":
    main()
