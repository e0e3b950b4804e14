"""One case of NVFlare's own consensus in its own simulator, measured from outside and by its clock.

`ConsensusExecutor` of `nvflare.app_opt.p2p` runs unchanged; a subclass notes the monotonic time at
which each exchange has completed. All processes of the simulator count as its memory: the parent,
which also plays the server, is left out of the figure for one node.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from processes import children_of, pss_bytes, rss_bytes

NVFLARE = "nvflare==2.9.0"

Writer: TypeAlias = Callable[[Path, int, int, Path], None]
"""Writes a job: (folder, nodes, iterations, where the executors leave their notes)."""

EXECUTOR = '''
import time
from pathlib import Path

from nvflare.apis.event_type import EventType
from nvflare.app_opt.p2p.executors import ConsensusExecutor


class TimedConsensus(ConsensusExecutor):
    """The unchanged executor, with a note of when each of its exchanges has ended."""

    def __init__(self, folder):
        super().__init__(initial_value=0.0)
        self.folder, self.ended = folder, []

    def handle_event(self, event_type, fl_ctx):
        super().handle_event(event_type, fl_ctx)
        if event_type == EventType.START_RUN:
            self.current_value = float(self.id)

    def _exchange_values(self, *args, **kwargs):
        super()._exchange_values(*args, **kwargs)
        self.ended.append(time.monotonic())

    def _post_algorithm_run(self, *args, **kwargs):
        lines = [repr(self.current_value), *map(repr, self.ended)]
        Path(self.folder, f"{self.client_name}.txt").write_text("\\n".join(lines))
'''


def make_environment(folder: Path, torch: str) -> Path:
    """Return the interpreter of a virtual environment that has NVFlare, made on the first call."""
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
        install = [str(python), "-m", "pip", "install", "--quiet", NVFLARE, torch]
        subprocess.run(install, check=True, stdout=sys.stderr)
    return python


def write_job(folder: Path, nodes: int, iterations: int, notes: Path) -> None:
    """Write a job of the simulator: consensus on a ring of `nodes` clients."""
    write_ring(
        folder,
        nodes,
        {"iterations": iterations},
        ("timed_consensus", EXECUTOR, "TimedConsensus", {"folder": str(notes)}),
    )


def write_ring(
    folder: Path, nodes: int, extra: dict[str, float], executor: tuple[str, str, str, dict[str, object]]
) -> None:
    """Write a job on a ring: its parameters, and its executor's module, source, class and arguments."""
    module, source, class_name, arguments = executor
    names = [f"site-{i + 1}" for i in range(nodes)]
    network = {
        "nodes": [
            {
                "id": name,
                "neighbors": [{"id": names[(i + step) % nodes], "weight": 1 / 3} for step in (-1, 1)],
            }
            for i, name in enumerate(names)
        ]
    }
    config = {
        "path": "nvflare.app_opt.p2p.types.Config",
        "args": {"network": network, "extra": extra},
    }
    controller = {
        "id": "controller",
        "path": "nvflare.app_opt.p2p.controllers.DistOptController",
        "args": {"config": config},
    }
    task = {"tasks": ["*"], "executor": {"path": f"{module}.{class_name}", "args": arguments}}
    documents = {
        "meta.json": {
            "name": module,
            "resource_spec": {},
            "min_clients": nodes,
            "deploy_map": {"app": ["@ALL"]},
        },
        "app/config/config_fed_server.json": {"format_version": 2, "workflows": [controller]},
        "app/config/config_fed_client.json": {"format_version": 2, "executors": [task]},
    }
    for name, document in documents.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(document))
    custom = folder / "app" / "custom"
    custom.mkdir()
    (custom / f"{module}.py").write_text(source)


def measure(
    python: Path, nodes: int, iterations: int, attempts: int = 3, write: Writer = write_job
) -> dict[str, object]:
    """Run one ring and return its figures, with the number of attempts: the simulator hangs at times."""
    for attempt in range(1, attempts):
        try:
            return {**measure_once(python, nodes, iterations, write=write), "attempts": attempt}
        except TimeoutError as error:
            print(f"attempt {attempt}: {error}", file=sys.stderr)
    return {**measure_once(python, nodes, iterations, write=write), "attempts": attempts}


def measure_once(
    python: Path, nodes: int, iterations: int, deadline_s: float = 120.0, write: Writer = write_job
) -> dict[str, object]:
    """Run one ring and return its figures. Raises TimeoutError when it does not end in time.

    `iteration_s` is the median over iterations of the time between the moments at which the last
    node had completed it; `first_iteration_s` counts from the start of the simulator;
    `node_mib` is the largest mean resident size of a client's process seen while it ran.
    """
    with tempfile.TemporaryDirectory(prefix="fedd-bench-") as scratch:
        folder = Path(scratch)
        notes = folder / "notes"
        notes.mkdir()
        write(folder / "job", nodes, iterations, notes)
        command = [str(python), "-m", "nvflare.cli", "simulator", str(folder / "job")]
        command += ["-w", str(folder / "workspace"), "-n", str(nodes), "-t", str(nodes)]
        log = (folder / "log.txt").open("w+")
        started = time.monotonic()
        simulator = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
        rss = pss = 0
        try:
            while simulator.poll() is None:
                time.sleep(0.25)
                if time.monotonic() - started > deadline_s:
                    raise TimeoutError(f"the simulator did not end within {deadline_s:.0f} s")
                workers = [pid for pid in children_of(simulator.pid) if _is_client(pid)]
                if len(workers) == nodes:
                    rss = max(rss, sum(map(rss_bytes, workers)) // nodes)
                    pss = max(pss, sum(map(pss_bytes, workers)) // nodes)
        finally:
            if simulator.poll() is None:
                for pid in children_of(simulator.pid):
                    subprocess.run(["kill", "-9", str(pid)], check=False)
                simulator.kill()
                simulator.wait()
        written = sorted(notes.glob("site-*.txt"))
        if len(written) != nodes:
            log.seek(0)
            raise RuntimeError(f"{len(written)} of {nodes} clients finished:\n{log.read()[-4000:]}")
        columns = [[float(line) for line in path.read_text().split()] for path in written]
    ended = [max(column[k + 1] for column in columns) for k in range(iterations)]
    steps = sorted(after - before for before, after in itertools.pairwise(ended))
    return {
        "iteration_s": steps[len(steps) // 2],
        "first_iteration_s": ended[0] - started,
        "node_mib": rss / 2**20,
        "node_pss_mib": pss / 2**20,
        "iterations": iterations,
        "spread": max(column[0] for column in columns) - min(column[0] for column in columns),
    }


def _is_client(pid: int) -> bool:
    try:
        line = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    return b"simulator_worker" in line
