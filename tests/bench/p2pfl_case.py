"""Rounds of P2PFL without any training, each node a process, measured from inside by the monotonic clock.

Its settings are its defaults, without Ray, which would cost it more, or with its waiting cut to the limit
(`TUNED`). Its learner is told to do nothing.
"""

from __future__ import annotations

import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from processes import rss_bytes

TUNED = {
    "gossip": {
        "PERIOD": 0.005,
        "MODELS_PERIOD": 0.005,
        "MODELS_PER_ROUND": 4,
        "EXIT_ON_X_EQUAL_ROUNDS": 1000,
        "MESSAGES_PER_PERIOD": 10_000,
    },
    "heartbeat": {"WAIT_CONVERGENCE": 0.2},
}
"""Its periods, as short as they still help: its threads sleep that long between two looks at what there is to
send. At 0 they would spin. It gives a model up when nothing has changed for so many looks: many, then."""

P2PFL = ("p2pfl==0.4.4", "opendp>=0.13", "pyarrow==21.0.0", "huggingface_hub==0.34.4")

NODE = """
import json, os, sys, time
from pathlib import Path

import numpy as np
from p2pfl.settings import Settings

Settings.general.DISABLE_RAY = True
Settings.general.LOG_LEVEL = "ERROR"

from p2pfl.learning.frameworks.learner import Learner
from p2pfl.learning.frameworks.p2pfl_model import P2PFLModel
from p2pfl.node import Node

Settings.set_from_dict(json.loads(sys.argv[6]))


class Model(P2PFLModel):
    def get_parameters(self):
        return self.model

    def set_parameters(self, params):
        if isinstance(params, bytes):
            params, info = self.decode_parameters(params)
            self.additional_info.update(info)
        self.model = params

    def get_framework(self):
        return "pytorch"


class Idle(Learner):
    began = []

    def fit(self):
        self.began.append(time.monotonic())
        self.get_model().set_contribution([self.addr], 1)
        return self.get_model()

    def interrupt_fit(self):
        pass

    def evaluate(self):
        return {"loss": 0.0}

    def get_framework(self):
        return "pytorch"


class Nothing:
    dataset_name = "nothing"
    batch_size = 1


def wait_for(condition):
    while not condition():
        time.sleep(0.05)


folder, number, nodes, size, rounds = Path(sys.argv[1]), *map(int, sys.argv[2:6])
node = Node(Model([np.zeros(size, np.float32)]), Nothing(), addr="127.0.0.1", learner=Idle())
node.start()
(folder / f"{number}.part").write_text(node.addr)
(folder / f"{number}.part").rename(folder / f"{number}.address")
wait_for(lambda: len(list(folder.glob("*.address"))) == nodes)
for other in range(number):
    node.connect((folder / f"{other}.address").read_text())
wait_for(lambda: len(node.get_neighbors(only_direct=True)) == nodes - 1)
(folder / f"{number}.linked").touch()
wait_for(lambda: len(list(folder.glob("*.linked"))) == nodes)
if number == 0:
    (folder / "idle").touch()
    time.sleep(1)
    node.set_start_learning(rounds=rounds, epochs=1, trainset_size=nodes)
wait_for(lambda: len(Idle.began) == rounds)
wait_for(lambda: node.state.round is None)
(folder / f"{number}.result").write_text(json.dumps(Idle.began))
wait_for(lambda: len(list(folder.glob("*.result"))) == nodes)
os._exit(0)  # its stop() may wait for ever for its gossiper
"""


def make_environment(folder: Path) -> Path:
    """Return the interpreter of a virtual environment that has P2PFL, made on the first call."""
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", *P2PFL], check=True, stdout=sys.stderr)
    return python


def measure(
    python: Path,
    nodes: int,
    size: int,
    rounds: int = 5,
    deadline_s: float = 120.0,
    settings: Mapping[str, object] = MappingProxyType({}),
) -> dict[str, object]:
    """Rounds of `nodes` nodes with a model of `size` float32 and these settings, else the defaults.

    `round_s` is the median time between the beginnings of two rounds' trainings, over nodes and rounds;
    `idle_mib` the mean resident size of a node before the learning, `node_mib` the largest while it lasts.
    """
    with tempfile.TemporaryDirectory(prefix="fedd-bench-") as scratch:
        folder = Path(scratch)
        (folder / "node.py").write_text(NODE)
        log = (folder / "log.txt").open("w+")
        options = [str(nodes), str(size), str(rounds), json.dumps(dict(settings))]
        command = [str(python), str(folder / "node.py"), str(folder)]
        processes = [
            subprocess.Popen([*command, str(number), *options], stdout=log, stderr=log, cwd=folder)
            for number in range(nodes)
        ]
        idle = largest = 0
        deadline = time.monotonic() + deadline_s
        try:
            while any(process.poll() is None for process in processes):
                time.sleep(0.25)
                sizes = sum(rss_bytes(process.pid) for process in processes) // nodes
                if (folder / "idle").exists() and not idle:
                    idle = sizes
                largest = max(largest, sizes)
                if time.monotonic() > deadline:
                    log.seek(0)
                    raise TimeoutError(f"P2PFL did not end within {deadline_s:.0f} s: {log.read()[-1000:]}")
        finally:
            for process in processes:
                process.kill()
                process.wait()
        results = sorted(folder.glob("*.result"))
        if len(results) != nodes:
            log.seek(0)
            raise RuntimeError(f"{len(results)} of {nodes} nodes finished:\n{log.read()[-4000:]}")
        begun = [json.loads(path.read_text()) for path in results]
    steps = [later - earlier for times in begun for earlier, later in itertools.pairwise(times)]
    return {
        "round_s": statistics.median(steps),
        "rounds": rounds,
        "idle_mib": idle / 2**20,
        "node_mib": largest / 2**20,
    }
