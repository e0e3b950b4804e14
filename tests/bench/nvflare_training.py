"""NVFlare's descent and gradient tracking on its own two-moons example, measured as `nvflare_case` does.

`DGDExecutor` and `GTExecutor` of `nvflare.app_opt.p2p` run unchanged with the example's network (67,074
parameters), data and minibatches of 64; a subclass notes when each exchange has completed. The data
comes in a file, so that the environment needs no scikit-learn.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import nvflare_case

EXECUTORS = '''
import time
from pathlib import Path

import numpy as np
import torch
from nvflare.app_opt.p2p.executors import DGDExecutor, GTExecutor
from torch.utils.data import DataLoader, TensorDataset


def network():
    layers = [torch.nn.Linear(2, 256), torch.nn.ReLU(), torch.nn.Linear(256, 256), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers, torch.nn.Linear(256, 2))


class Timed:
    """The unchanged executor, with a note of when each of its exchanges has ended."""

    def __init__(self, folder, data):
        arrays = np.load(data)
        train = TensorDataset(torch.from_numpy(arrays["x"]).float(), torch.from_numpy(arrays["y"]).long())
        super().__init__(
            model=network(),
            loss=torch.nn.CrossEntropyLoss(),
            train_dataloader=DataLoader(train, batch_size=64, shuffle=True),
            test_dataloader=DataLoader(train, batch_size=64),
        )
        self.folder, self.ended = folder, []

    def _exchange_values(self, *args, **kwargs):
        super()._exchange_values(*args, **kwargs)
        self.ended.append(time.monotonic())

    def _post_algorithm_run(self, *args, **kwargs):
        Path(self.folder, f"{self.client_name}.txt").write_text("\\n".join(["0.0", *map(repr, self.ended)]))


class TimedDGD(Timed, DGDExecutor):
    pass


class TimedGT(Timed, GTExecutor):
    pass
'''


def measure(python: Path, class_name: str, nodes: int, iterations: int, data: Path) -> dict[str, object]:
    """The figures of `nvflare_case.measure` for TimedDGD or TimedGT over the samples in `data` (.npz)."""
    write = partial(_write, class_name, data)
    return nvflare_case.measure(python, nodes, iterations, write=write)


def _write(class_name: str, data: Path, folder: Path, nodes: int, iterations: int, notes: Path) -> None:
    extra: dict[str, float] = {"iterations": iterations, "stepsize": 0.01}
    arguments: dict[str, object] = {"folder": str(notes), "data": str(data)}
    nvflare_case.write_ring(folder, nodes, extra, ("timed_training", EXECUTORS, class_name, arguments))
