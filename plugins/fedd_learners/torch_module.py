"""PyTorch modules as learners."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from fedd.api import InvalidParameter, Message, PluginFailed, TrainResult
from fedd_learners.samples import (
    check_share,
    check_sizes,
    check_step,
    class_count,
    count_labels,
    read_samples,
    split_off,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass
class TorchModule:
    """A PyTorch module, trained by minibatch gradient descent on this device's processor.

    `module` names what makes it, a class or function without arguments, in an installed package
    ("my_package.models:Net") or a file ("/etc/fedd/net.py:Net"). It maps (n, d) float32 to class scores
    (n, classes), or to (n, 1) or (n,) with the loss "mse".

    Its model is the parameters that require a gradient, then the floating-point buffers (running means of
    batch normalisation). Frozen parameters and integer buffers stay as the module made them. `gradient`,
    `objective` and `evaluate` are computed in evaluation mode, so that they are functions of the model:
    without dropout, with the running means; `train` alone is in training mode. Needs the extra `torch`.
    """

    name: ClassVar[str] = "torch"

    module: str = field(
        default="", metadata={"help": "what makes the module: package.module:Net or FILE.py:Net"}
    )
    loss: Literal["cross-entropy", "mse"] = field(
        default="cross-entropy", metadata={"help": "what is minimised"}
    )
    classes: int = field(
        default=0, metadata={"help": "how many classes there are; 0: as many as the labels here show"}
    )
    step: float = field(default=0.1, metadata={"help": "step size of training"})
    batch: int = field(default=32, metadata={"help": "samples of a training step; 0 takes all of them"})
    l2: float = field(default=0.0, metadata={"help": "weight of the penalty l2 / 2 |w|^2"})
    seed: int = field(default=0, metadata={"help": "of the first weights, the same on all members"})
    test: float = field(
        default=0.0,
        metadata={"help": "share of the samples kept for evaluation, if no test samples are given"},
    )
    target: str = field(default="", metadata={"help": "column of the targets (default: the last)"})

    def __post_init__(self) -> None:
        where, _, what = self.module.rpartition(":")
        if self.module and not (where and what.isidentifier()):
            raise InvalidParameter(
                f"module must not be {self.module!r}", hint="as in my_package.models:Net", field="module"
            )
        check_step("step", self.step)
        check_sizes(batch=self.batch, classes=self.classes, seed=self.seed, l2=self.l2)
        check_share("test", self.test)

    def prepare(self, data: Message, rng: np.random.Generator) -> None:
        """Take the samples and make the module.

        Raises InvalidMessage when the data is no samples, InvalidParameter when `module` names nothing
        usable, PluginFailed without PyTorch.
        """
        self._torch = torch = _import_torch()
        train, test = read_samples(data, self.target, np.float32)
        if test is None:
            train, test = split_off(train, self.test, rng)
        kind = torch.float32
        self._counts: dict[str, float] = {}
        if self.loss == "cross-entropy":
            count = class_count(train, self.classes)
            if test is not None:
                class_count(test, count)
            kind = torch.int64
            self._counts = count_labels(train)
        self._x, self._y = torch.tensor(train.x), torch.tensor(train.y, dtype=kind)
        shown = train if test is None else test
        self._shown = (torch.tensor(shown.x), torch.tensor(shown.y, dtype=kind))
        self._rng = rng
        torch.manual_seed(self.seed)
        self._net = self._made()
        torch.manual_seed(int(rng.integers(1 << 62)))  # from here on: dropout, which is this device's own
        self._weights = [each for each in self._net.parameters() if each.requires_grad]
        self._buffers = [each for each in self._net.buffers() if each.is_floating_point()]
        if not self._weights:
            raise InvalidParameter(f"{self.module} has no parameter to train", field="module")

    def parameters(self) -> list[NDArray[Any]]:
        """A copy of the trained parameters and the floating-point buffers."""
        return [each.detach().numpy().copy() for each in (*self._weights, *self._buffers)]

    def load(self, parameters: Sequence[NDArray[Any]]) -> None:
        """Write these arrays into parameters and buffers."""
        torch = self._torch
        with torch.no_grad():
            for own, given in zip((*self._weights, *self._buffers), parameters, strict=True):
                own.copy_(torch.from_numpy(np.array(given)))

    def train(
        self,
        *,
        epochs: int = 0,
        steps: int = 0,
        step: float | None = None,
        correction: Sequence[NDArray[Any]] | None = None,
        proximal: float = 0.0,
    ) -> TrainResult:
        """Minibatch gradient descent in training mode; buffers have neither correction nor proximal term."""
        torch = self._torch
        samples = len(self._y)
        size = min(self.batch or samples, samples)
        a_pass = -(-samples // size)
        steps = steps or epochs * a_pass
        length = self.step if step is None else step
        anchor = [each.detach().clone() for each in self._weights]
        added = [torch.from_numpy(np.array(each)) for each in correction or ()][: len(anchor)]
        order, total, last = torch.empty(0), 0.0, min(a_pass, steps)
        with self._mode(training=True):
            for made in range(steps):
                at = made % a_pass
                if at == 0:
                    order = torch.from_numpy(self._rng.permutation(samples))
                chosen = order[at * size : (at + 1) * size]
                loss, slopes = self._loss_and_slopes(self._x[chosen], self._y[chosen])
                with torch.no_grad():
                    for index, (weights, slope) in enumerate(zip(self._weights, slopes, strict=True)):
                        if added:
                            slope = slope + added[index]
                        if proximal:
                            slope = slope + proximal * (weights - anchor[index])
                        weights -= length * slope
                total += loss if made >= steps - last else 0.0
        return TrainResult(samples, steps, length, {"loss": total / last, **self._counts})

    def gradient(self, *, batch: int = 0) -> list[NDArray[Any]]:
        """Of the objective, exact or on `batch` samples; zero for the buffers."""
        x, y = self._x, self._y
        if 0 < batch < len(y):
            chosen = self._torch.from_numpy(self._rng.choice(len(y), batch, replace=False))
            x, y = x[chosen], y[chosen]
        with self._mode(training=False):
            slopes = self._loss_and_slopes(x, y)[1]
        zeros = [np.zeros(tuple(each.shape), each.numpy().dtype) for each in self._buffers]
        return [*(slope.numpy().copy() for slope in slopes), *zeros]

    def objective(self) -> float:
        """Mean loss over all training samples of this device, and the penalty."""
        with self._mode(training=False), self._torch.no_grad():
            return float(self._objective(self._x, self._y))

    def evaluate(self) -> dict[str, float]:
        """`loss` and, of classes, `accuracy` on the test samples, on the training samples without any."""
        x, y = self._shown
        with self._mode(training=False), self._torch.no_grad():
            told = {"loss": float(self._loss(x, y))}
            if self.loss == "cross-entropy":
                told["accuracy"] = float((self._net(x).argmax(dim=1) == y).double().mean())
        return told

    def _made(self) -> Any:
        make = _named(self.module)
        net = make()
        if not isinstance(net, self._torch.nn.Module):
            raise InvalidParameter(
                f"{self.module} made {type(net).__name__}, no torch.nn.Module", field="module"
            )
        return net.to(self._torch.float32)

    @contextmanager
    def _mode(self, *, training: bool) -> Iterator[None]:
        """Put the module into this mode, and each of its parts back into its own."""
        before = [(part, part.training) for part in self._net.modules()]
        self._net.train(training)
        try:
            yield
        finally:
            for part, was in before:
                part.training = was

    def _loss(self, x: Any, y: Any) -> Any:
        functional = self._torch.nn.functional
        found = self._net(x)
        if self.loss == "cross-entropy":
            return functional.cross_entropy(found, y)
        return functional.mse_loss(found.reshape(len(y)), y)

    def _objective(self, x: Any, y: Any) -> Any:
        loss = self._loss(x, y)
        if self.l2:
            loss = loss + self.l2 / 2 * sum((each * each).sum() for each in self._weights)
        return loss

    def _loss_and_slopes(self, x: Any, y: Any) -> tuple[float, list[Any]]:
        with self._torch.enable_grad():
            loss = self._objective(x, y)
            slopes = self._torch.autograd.grad(loss, self._weights, allow_unused=True)
        zeros = self._torch.zeros_like
        return float(loss.detach()), [
            zeros(each) if slope is None else slope for each, slope in zip(self._weights, slopes, strict=True)
        ]


def _import_torch() -> Any:
    try:
        torch: Any = importlib.import_module("torch")
    except ImportError as error:
        raise PluginFailed(
            f"PyTorch is needed and cannot be imported: {error}", hint="install fedd with the extra torch"
        ) from None
    torch.set_num_threads(1)  # as of NumPy in a worker: the device has other things to do
    return torch


def _named(where: str) -> Callable[[], Any]:
    """What `package.module:name` or `FILE.py:name` names. Raises InvalidParameter when it names nothing."""
    module, _, name = where.rpartition(":")
    if not where:
        raise InvalidParameter(
            "the option `module` is needed", hint="write module = 'my_package.models:Net'", field="module"
        )
    try:
        if module.endswith(".py"):
            loaded = ModuleType(Path(module).stem)
            SourceFileLoader(loaded.__name__, module).exec_module(loaded)
        else:
            loaded = importlib.import_module(module)
        found: Callable[[], Any] = getattr(loaded, name)
    except (ImportError, OSError, AttributeError) as error:
        raise InvalidParameter(
            f"{where} cannot be loaded: {error}",
            hint="workers see installed packages and absolute paths only",
            field="module",
        ) from None
    return found
