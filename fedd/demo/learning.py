"""`fedctl demo --learning`: daemons that have seen a few digits each learn to read all ten, together.

Each daemon has the images of its own digits only, and one common set of test images to be measured by. Alone
each can tell its own digits apart and none of the others. Together they train one model, and no image leaves
its daemon. Then they do it again, and the one who started it is killed in the middle: the others go on, and
the result says which digits nobody has any more.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fedd.api.errors import InvalidParameter
from fedd.demo import digits
from fedd.demo.daemons import LocalDaemon, form_federation, local_daemons
from fedd.demo.digits import CLASSES, Images
from fedd.demo.picture import MemberRow, Picture
from fedd.demo.story import Story, conduct

DEADLINE_S = 48.0
"""For each daemon, everything included, against hanging."""

ROUNDS = 50
PARAMETERS = {"rounds": ROUNDS, "epochs": 3, "step": 0.2}
"""What a softmax regression needs to read the digits, chosen by hand."""

AT_LEAST = 0.93
"""The accuracy together, on the test images. Alone, with two digits of ten, it is about a fifth."""

AFTER_A_DEATH = 0.6
"""The survivors' accuracy: of their own digits, which are four fifths, they lose nothing."""

PACE_S = 0.004
"""Of an exchange in the run with a death, so that its middle is wide enough to aim at."""

MAX_NODES = 10
"""Each needs a digit of its own."""

INPUT = "digits"
CONFIGURATION = f'[inputs.{INPUT}]\nlearner = "numpy-softmax"\nfile = "digits.npz"\nclasses = {CLASSES}\n'


@dataclass
class Share:
    """One daemon, and the digits that only it has."""

    daemon: LocalDaemon
    classes: tuple[int, ...]
    images: Images


class LearningDemo(Story):
    """The steps of the demonstration, and what they showed."""

    def __init__(self, nodes: int, picture: Picture) -> None:
        train, self._test = digits.load()
        held = [tuple(range(number, CLASSES, nodes)) for number in range(nodes)]
        self._parts = [(classes, train.of(classes)) for classes in held]
        super().__init__(picture, nodes * DEADLINE_S)
        self._shares: list[Share] = []
        self.document.update(
            accuracy_alone=[], accuracy_together=None, accuracy_survivors=None, lost_classes=[], dropped=[]
        )

    def run(self) -> None:
        """Show everything. Raises DemoFailed when a figure is not what it must be."""
        names = [f"reader-{number + 1}" for number in range(len(self._parts))]
        with local_daemons(names) as daemons:
            self._shares = [
                Share(daemon, classes, images)
                for daemon, (classes, images) in zip(daemons, self._parts, strict=True)
            ]
            self._start()
            self._alone()
            self._together()
            self._with_a_death()
            started = time.monotonic()
        self._step("teardown", started)

    def _start(self) -> None:
        started = time.monotonic()
        for share in self._shares:
            digits.write_shares(share.daemon.directory / "digits.npz", share.images, self._test)
            share.daemon.start(CONFIGURATION)
            row = MemberRow(share.daemon.name, len(share.images.rows))
            row.note = f"has seen {', '.join(map(str, share.classes))}"
            self._picture.rows.append(row)
        for share in self._shares:
            share.daemon.wait_ready(self._deadline)
        form_federation([share.daemon for share in self._shares], "readers", self._deadline)
        for row in self._picture.rows:
            row.state = "alive"
        self._step("start", started, classes=[list(share.classes) for share in self._shares])

    def _alone(self) -> None:
        """What each can learn by itself: a run of which it is the only member."""
        started = time.monotonic()
        begun = [
            (share, self._begin(share, members=[share.daemon.peer_id], quorum=1)) for share in self._shares
        ]
        alone = [self._accuracy([self._result_of(share.daemon, run_id)]) for share, run_id in begun]
        for row, accuracy in zip(self._picture.rows, alone, strict=True):
            row.alone = f"{accuracy:.0%}"
        self.document["accuracy_alone"] = alone
        self._step("alone", started)
        self._picture.members()
        self._picture.say("\nalone each reads its own digits, measured on all of them")

    def _together(self) -> None:
        started = time.monotonic()
        words = " ".join(f"{name}={value}" for name, value in PARAMETERS.items())
        self._picture.say(
            f"\ntogether, no image leaves its daemon: fedctl run learning --input {INPUT} {words}", "bold"
        )
        run_id = self._begin(self._shares[0])
        self._watch(self._shares[-1].daemon, "learning", run_id)
        results = [self._result_of(share.daemon, run_id) for share in self._shares]
        accuracy = self._accuracy(results)
        self.document["accuracy_together"] = accuracy
        wall_s = results[0]["wall_s"]
        self._step(
            "together", started, run_id=run_id, rounds=ROUNDS, wall_s=wall_s, digest=_digest(results[0])
        )
        self._picture.say(
            f"  every member reads {accuracy:.1%} of the test images, all with one model", "green"
        )
        self._must(accuracy >= AT_LEAST, f"the accuracy is {accuracy:.3f}")

    def _with_a_death(self) -> None:
        """Again, and the one who started it is killed in the middle."""
        started = time.monotonic()
        victim, *survivors = self._shares
        self._picture.say(
            f"\nagain, and {victim.daemon.name}, who started it, gets kill -9 in the middle", "bold"
        )
        run_id = self._begin(victim, pace_s=PACE_S)
        killed_at = self._watch_and_kill(
            survivors[0].daemon,
            victim.daemon,
            "learning",
            run_id,
            middle=ROUNDS // 2,
            reached=lambda item, trace: int((item.get("metrics") or {}).get("learning_round") or 0),
            note="kill -9 after round {}",
        )
        results = [self._result_of(share.daemon, run_id) for share in survivors]
        accuracy = self._accuracy(results)
        lost = [int(label) for label in results[0]["value"]["lost_labels"]]
        dropped = self._dropped(results[0], [share.daemon for share in self._shares])
        self.document.update(accuracy_survivors=accuracy, lost_classes=lost, dropped=dropped)
        self._step(
            "survivors",
            started,
            run_id=run_id,
            killed=victim.daemon.name,
            killed_in_round=killed_at,
            wall_s=results[0]["wall_s"],
            digest=_digest(results[0]),
        )
        self._picture.members()
        self._picture.say(
            f"  the {len(survivors)} survivors finish by themselves and read {accuracy:.1%}; "
            f"nobody has images of {', '.join(map(str, lost))} any more",
            "green",
        )
        self._must(lost == list(victim.classes), f"the result names {lost} as lost")
        self._must([entry["name"] for entry in dropped] == [victim.daemon.name], "the wrong one was dropped")
        self._must(accuracy >= AFTER_A_DEATH, f"the survivors' accuracy is {accuracy:.3f}")

    def _begin(self, starter: Share, **options: Any) -> str:
        body = {"algorithm": "learning", "parameters": PARAMETERS, "input": INPUT, **options}
        return self._begin_run(starter.daemon, body)

    def _accuracy(self, results: Sequence[dict[str, Any]]) -> float:
        """Of the model that all hold, as each of them has measured it."""
        self._must(len({_digest(result) for result in results}) == 1, "the members hold different models")
        told: dict[str, float] = results[0]["value"]["metrics"]["accuracy"]
        return min(told.values())


def _digest(result: dict[str, Any]) -> str:
    return str(result["value"]["digest"])


def main(nodes: int, json_output: bool) -> int:
    """Run the demonstration with `nodes` daemons and return the exit code of `fedctl demo --learning`.

    Raises InvalidParameter for a number of nodes that is not possible, KeyboardInterrupt after a tidy end.
    """
    if not 3 <= nodes <= MAX_NODES:
        raise InvalidParameter(
            f"{nodes} nodes are not possible: each needs a digit of its own, and one dies",
            hint=f"choose 3 to {MAX_NODES}, they all run on this machine",
            field="nodes",
        )
    picture = Picture(quiet=json_output)
    closing = f"{nodes} daemons started, joined, learned, lost one and were stopped"
    return conduct(LearningDemo(nodes, picture), picture, nodes * DEADLINE_S, json_output, closing)
