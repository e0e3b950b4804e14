"""`fedctl demo`: what fedd is for, shown on one machine with real daemons and checked as it is shown.

Several daemons hold parts of one table. Each can fit its own rows, badly. Together they find the fit of
all rows, though no row leaves its daemon. Then they do it again, one of them is killed in the middle, and
the others end with the fit of their own rows. Every figure is compared with an exact fit made here.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from fedd.api.errors import InvalidParameter
from fedd.demo import least_squares, table
from fedd.demo.daemons import LocalDaemon, form_federation, local_daemons
from fedd.demo.picture import MemberRow, Picture
from fedd.demo.story import Story, conduct
from fedd.demo.table import Table

TOLERANCE = 1e-9
"""The largest deviation from the exact fit that counts as equal, relative to the largest coefficient."""

RIDGE = Fraction(3, 10)
"""For a member with fewer rows than coefficients: enough to make its fit definite, chosen by hand."""

DEADLINE_S = 24.0
"""For each daemon, everything included, against hanging. A quiet machine of two cores needs less than three
seconds; a small board, or one that does much else, several times as long."""

KILLED_RUN_S = 1.0
"""How long the run with a death is stretched, so that its middle is wide enough to aim at."""

MAX_RING = 5
"""Up to this many members first form a ring, where the picture shows how agreement spreads between
neighbours. The exchanges that a ring needs grow with the square of its members, so more get fedd's default
graph, and so does the run with a death: what a death leaves of a ring is a line, twice as slow."""

INPUT = "patients"


@dataclass
class Share:
    """One daemon, and the rows that only it has."""

    daemon: LocalDaemon
    rows: Table


class Demo(Story):
    """The steps of the demonstration, and what they showed."""

    def __init__(self, nodes: int, picture: Picture, victim: int | None = None) -> None:
        self._whole = table.load()
        self._parts = table.split(self._whole, nodes)
        super().__init__(picture, nodes * DEADLINE_S)
        self._chosen = victim
        self._shares: list[Share] = []
        self.document.update(coefficients_max_error=None, survivors_max_error=None, dropped=[])

    def run(self) -> None:
        """Show everything. Raises DemoFailed when a figure is not what it must be."""
        names = [f"clinic-{i + 1}" for i in range(len(self._parts))]
        with local_daemons(names) as daemons:
            self._shares = [Share(d, part) for d, part in zip(daemons, self._parts, strict=True)]
            self._start()
            self._alone()
            self._meet()
            rounds = self._together()
            self._with_a_death(rounds)
            started = time.monotonic()
        self._step("teardown", started)

    def _start(self) -> None:
        started = time.monotonic()
        for share in self._shares:
            share.rows.write_csv(share.daemon.directory / "patients.csv")
            share.daemon.start(f'[inputs.{INPUT}]\nfile = "patients.csv"\n')
            self._picture.rows.append(MemberRow(share.daemon.name, len(share.rows.rows)))
        self._step("start", started, nodes=len(self._shares), rows=[len(s.rows.rows) for s in self._shares])

    def _alone(self) -> None:
        """What each could do by itself, scored on everybody's rows. The daemons get ready meanwhile."""
        started = time.monotonic()
        scores = {}
        for share, row in zip(self._shares, self._picture.rows, strict=True):
            enough = len(share.rows.rows) >= len(self._whole.columns)
            model = least_squares.fit(share.rows, Fraction(0) if enough else RIDGE)
            row.alone_r2 = scores[share.daemon.name] = model.r2(self._whole)
            if not enough:
                row.note = "fewer rows than coefficients: ridge"
        mean = sum(scores.values()) / len(scores)
        self._step("alone", started, r2=scores, mean_r2=mean)

    def _meet(self) -> None:
        started = time.monotonic()
        for share in self._shares:
            share.daemon.wait_ready(self._deadline)
        form_federation([share.daemon for share in self._shares], "clinics", self._deadline)
        for row in self._picture.rows:
            row.state = "alive"
        self._step("federation", started, members=[s.daemon.peer_id for s in self._shares])
        self._picture.members()
        mean = self.document["steps"][-2]["mean_r2"]
        self._picture.say(f"\nalone each explains, on average, {mean:.2f} of the variance (R2, on all rows)")

    def _together(self) -> int:
        """Let all fit all rows; returns about how many rounds the next run will have."""
        started = time.monotonic()
        topology = "ring" if len(self._shares) <= MAX_RING else None
        command = f"fedctl run regression --input {INPUT}" + (f" --topology {topology}" if topology else "")
        self._picture.say(f"\ntogether, no row leaves its daemon: {command}", "bold")
        run_id = self._begin(self._shares[0], topology=topology)
        self._watch(self._shares[-1].daemon, "regression", run_id)
        results = [self._result_of(share.daemon, run_id) for share in self._shares]
        exact = least_squares.fit(self._whole)
        error = self._compare(results, exact)
        r2 = self._agreed(results, "r2")
        rounds = int(results[0]["rounds"])
        self.document["coefficients_max_error"] = error
        self._step("together", started, run_id=run_id, r2=r2, rounds=rounds, wall_s=results[0]["wall_s"])
        self._picture.say(
            f"  R2 {r2:.3f} on every member, off the exact fit of all rows by {error:.0e}", "green"
        )
        self._must(error <= TOLERANCE, f"the coefficients are off by {error:.1e}")
        self._must(abs(r2 - exact.r2(self._whole)) <= 1e-6, f"R2 is {r2:.6f}")
        everybody = sorted(share.daemon.peer_id for share in self._shares)
        self._must(sorted(results[0]["contributors"]) == everybody, "not everybody contributed")
        # The next run is on fedd's default graph. If that is the complete one, each of the regression's four
        # stages takes one or two windows of as many exchanges as there are other members.
        return 6 * (len(self._shares) - 1) if topology else rounds

    def _with_a_death(self, rounds: int) -> None:
        """Run it again and kill somebody in the middle of about `rounds` rounds."""
        started = time.monotonic()
        count = len(self._shares)
        index = random.SystemRandom().randrange(count) if self._chosen is None else self._chosen
        victim, starter = self._shares[index], self._shares[random.SystemRandom().randrange(count)]
        survivors = [share for share in self._shares if share is not victim]
        role = "the one who started it" if starter is victim else "an ordinary member"
        self._picture.say(f"\nagain, and {victim.daemon.name}, {role}, gets kill -9 in the middle", "bold")
        run_id = self._begin(starter, pace_s=KILLED_RUN_S / max(1, rounds))
        killed_at = self._watch_and_kill(
            survivors[0].daemon,
            victim.daemon,
            "regression",
            run_id,
            middle=rounds // 2,
            reached=lambda item, trace: trace.round,
            note="kill -9 in round {}",
        )
        results = [self._result_of(share.daemon, run_id) for share in survivors]
        self._judge_survivors(results, victim, survivors, started, role, killed_at)

    def _judge_survivors(
        self,
        results: Sequence[dict[str, Any]],
        victim: Share,
        survivors: Sequence[Share],
        started: float,
        role: str,
        killed_at: int,
    ) -> None:
        contributors = set(results[0]["contributors"])
        counted = [share for share in self._shares if share.daemon.peer_id in contributors]
        rows = tuple(row for share in counted for row in share.rows.rows)
        exact = least_squares.fit(Table(self._whole.columns, rows))
        error = self._compare(results, exact)
        dropped = self._dropped(results[0], [share.daemon for share in self._shares])
        self.document["survivors_max_error"] = error
        self.document["dropped"] = dropped
        self._step(
            "survivors",
            started,
            run_id=results[0]["run_id"],
            killed=victim.daemon.name,
            role=role,
            killed_in_round=killed_at,
            r2=self._agreed(results, "r2"),
            rows=len(rows),
            contributors=[share.daemon.name for share in counted],
            rounds=results[0]["rounds"],
            wall_s=results[0]["wall_s"],
        )
        for entry in dropped:
            self._picture.say(
                f"  dropped: {entry['name']} in round {entry['round']}: {entry['reason']}", "red"
            )
        self._picture.members()
        self._picture.say(
            f"  the {len(survivors)} survivors finish by themselves and agree: the fit of {len(rows)} rows, "
            f"off by {error:.0e}",
            "green",
        )
        self._must(error <= TOLERANCE, f"the survivors' coefficients are off by {error:.1e}")
        self._must(
            [entry["peer_id"] for entry in dropped] == [victim.daemon.peer_id], "the wrong one was dropped"
        )
        living = {share.daemon.peer_id for share in survivors}
        self._must(contributors >= living, "a living member's rows were left out")

    def _begin(self, starter: Share, **options: Any) -> str:
        body = {
            "algorithm": "regression",
            "parameters": {"target": table.TARGET},
            "input": INPUT,
            **{name: value for name, value in options.items() if value is not None},
        }
        return self._begin_run(starter.daemon, body)

    def _compare(self, results: Sequence[dict[str, Any]], exact: least_squares.Model) -> float:
        """The largest error of any member's coefficients."""
        columns = self._whole.columns[:-1]
        errors = []
        for result in results:
            value = result["value"]
            coefficients = dict(zip(value["names"], value["coefficients"], strict=True))
            errors.append(exact.error_of({"intercept": value["intercept"], **coefficients}, columns))
        return max(errors)

    def _agreed(self, results: Sequence[dict[str, Any]], key: str) -> float:
        values = {result["value"][key] for result in results}
        self._must(len(values) == 1, f"the members hold different values of {key}: {sorted(values)}")
        return float(values.pop())


def main(nodes: int, json_output: bool) -> int:
    """Run the demonstration with `nodes` daemons and return the exit code of `fedctl demo`.

    Raises InvalidParameter for a number of nodes that is not possible, KeyboardInterrupt after a tidy end.
    """
    if not 3 <= nodes <= 20:
        raise InvalidParameter(
            f"{nodes} nodes are not possible: one dies, and a majority must be left",
            hint="choose 3 to 20, they all run on this machine",
            field="nodes",
        )
    picture = Picture(quiet=json_output)
    closing = f"{nodes} daemons started, joined, computed, lost one and were stopped"
    return conduct(Demo(nodes, picture), picture, nodes * DEADLINE_S, json_output, closing)
