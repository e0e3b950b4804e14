"""This device's learner as a run borrows it: checked at every call, in a thread where that takes its time."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import trio

from fedd.api.errors import FeddError, InvalidMessage, InvalidParameter, PluginFailed
from fedd.api.learner import Learner, TrainResult
from fedd.api.types import Message
from fedd.worker.abilities import ABILITIES, abilities
from fedd.worker.failures import plugin_failure
from fedd.worker.parameters import build_learner
from fedd.worker.plugins import find_learner

if TYPE_CHECKING:
    import numpy as np

    from fedd.api.types import Array

_T = TypeVar("_T")

MAX_ARRAYS = 4096
"""Of one model: a ResNet-152 has about 900 arrays."""
MAX_METRICS = 32
"""Of one training or evaluation: they go into a node's metrics, of which there are 64."""


_SAME_MODEL = "all members of a run need the same kind of model: compare [inputs.NAME] on the devices"


class LentLearner:
    """`fedd.api.RunLearner` around a device's learner.

    With `threads` training and evaluation run in a thread, which a cancelled run leaves behind: until it has
    ended, the next call waits for it. Without, as on virtual time, they run where they are called.
    """

    def __init__(self, learner: Learner, *, threads: bool) -> None:
        self._learner = learner
        self._threads = threads
        self._abilities = abilities(type(learner))
        self._lock = threading.Lock()  # an abandoned training still writes to the model
        self._limiter = trio.CapacityLimiter(1)
        self._at_work = 0
        self._shapes: tuple[tuple[tuple[int, ...], str], ...] | None = None

    @property
    def name(self) -> str:
        """Of the learner's class."""
        return self._learner.name

    def require(self, *abilities: str) -> None:
        """Raise InvalidParameter unless this learner has all of these."""
        for ability in abilities:
            if ability not in ABILITIES:
                raise InvalidParameter(
                    f"no learner has the ability {ability!r:.40}", hint=f"there are {', '.join(ABILITIES)}"
                )
        missing = [ability for ability in abilities if ability not in self._abilities]
        if missing:
            raise InvalidParameter(
                f"the learner {self.name} of this device has no {' and no '.join(missing)}, "
                "which this algorithm needs",
                hint="name an input with another learner; fedctl learners shows what there is",
                field="input",
            )

    async def prepare(self, data: Message, rng: np.random.Generator) -> None:
        """Hand the data to the learner, before anything else. Raises InvalidMessage when it does not fit."""
        await self._aside("prepare", partial(self._learner.prepare, data, rng))

    def parameters(self) -> list[Array]:
        """A copy of the model. Raises PluginFailed when shapes or types are not what they were."""
        found = self._arrays("parameters", self._here("parameters", self._learner.parameters))
        shapes = tuple((array.shape, array.dtype.name) for array in found)
        if self._shapes is None:
            self._shapes = shapes
        elif shapes != self._shapes:
            raise self._fault(f"its parameters changed their shapes from {self._shapes} to {shapes}")
        return found

    def load(self, parameters: Sequence[Array]) -> None:
        """Replace the model. Raises InvalidMessage when shape or type differ or a value is not finite."""
        import numpy as np

        self._check_like_model("the model", parameters)
        # Copies: those of a message are read-only, and a learner may train in the arrays that it gets.
        self._here("load", partial(self._learner.load, [np.array(array) for array in parameters]))

    def gradient(self, *, batch: int = 0) -> list[Array]:
        """The gradient at the present model. Raises InvalidParameter when the learner has none."""
        self.require("gradient")
        if batch < 0:
            raise InvalidParameter(f"a batch of {batch} samples", field="batch")
        found = self._arrays("gradient", self._here("gradient", partial(self._learner.gradient, batch=batch)))
        expected = [shape for shape, _ in self._model_shapes()]
        if [array.shape for array in found] != expected:
            raise self._fault("its gradient has other shapes than its parameters")
        return found

    def objective(self) -> float:
        """The objective at the present model. Raises InvalidParameter when the learner has none."""
        self.require("objective")
        return self._number("objective", self._here("objective", self._learner.objective))

    async def train(
        self,
        *,
        epochs: int = 0,
        steps: int = 0,
        step: float | None = None,
        correction: Sequence[Array] | None = None,
        proximal: float = 0.0,
    ) -> TrainResult:
        """Train in a thread. Raises InvalidParameter or InvalidMessage for arguments that make no sense."""
        if epochs < 0 or steps < 0 or (epochs > 0) == (steps > 0):
            raise InvalidParameter(
                f"a training of {epochs} epochs and {steps} steps", hint="give one of the two, at least 1"
            )
        asked: dict[str, Any] = {}
        if step is not None:
            asked["step"] = step
            if not 0 < step < float("inf"):
                raise InvalidParameter(f"a training with the step size {step}", field="step")
        if correction is not None:
            self._check_like_model("the correction", correction)
            asked["correction"] = list(correction)
        if proximal != 0:
            asked["proximal"] = proximal
            if not 0 < proximal < float("inf"):
                raise InvalidParameter(f"a training with the proximal weight {proximal}", field="proximal")
        self.require(*asked)
        call = partial(self._learner.train, epochs=epochs, steps=steps, **asked)
        return self._checked_result(await self._aside("train", call))

    async def evaluate(self) -> dict[str, float]:
        """Evaluate in a thread."""
        return self._metrics("evaluate", await self._aside("evaluate", self._learner.evaluate))

    def _checked_result(self, result: object) -> TrainResult:
        if not isinstance(result, TrainResult):
            raise self._fault(f"its train returned {type(result).__name__}, not a TrainResult")
        for name in ("num_samples", "steps"):
            count = getattr(result, name)
            if isinstance(count, bool) or not hasattr(count, "__index__") or count < 0:
                raise self._fault(f"its train returned {name} {count!r:.40}")
        step = self._number("train", result.step)
        if not step >= 0:
            raise self._fault(f"its train returned the step size {step}")
        metrics = self._metrics("train", result.metrics)
        return TrainResult(int(result.num_samples), int(result.steps), step, metrics)

    async def _aside(self, what: str, call: Callable[[], _T]) -> _T:
        """Call it in a thread, or here where there are none."""
        if not self._threads:
            await trio.lowlevel.checkpoint()
            return self._here(what, call)
        in_thread: Any = trio.to_thread.run_sync  # the type stubs know an older trio's keywords
        self._at_work += 1
        try:
            result: _T = await in_thread(
                self._here, what, call, abandon_on_cancel=True, limiter=self._limiter
            )
        finally:
            self._at_work -= 1
        return result

    @property
    def at_work(self) -> bool:
        """Whether somebody waits for its thread: a long training is no hanging algorithm."""
        return self._at_work > 0

    def _here(self, what: str, call: Callable[[], _T]) -> _T:
        """Call it, one call at a time; what it raises is said to be the learner's."""
        with self._lock:
            try:
                return call()
            except FeddError as error:
                raise type(error)(
                    f"the learner {self.name}: {error.detail}", hint=error.hint, field=error.field
                ) from error
            except Exception as error:
                failure = plugin_failure(error)
                raise PluginFailed(
                    f"the learner {self.name} failed in {what}: {failure.detail}", hint=failure.hint
                ) from error

    def _model_shapes(self) -> tuple[tuple[tuple[int, ...], str], ...]:
        if self._shapes is None:
            self.parameters()
        return self._shapes or ()

    def _check_like_model(self, what: str, arrays: Sequence[Array]) -> None:
        """Raise InvalidMessage unless these are finite arrays like the parameters."""

        shapes = self._model_shapes()
        if len(arrays) != len(shapes):
            raise InvalidMessage(
                f"{what} for the learner {self.name} has {len(arrays)} arrays, its own has {len(shapes)}",
                hint=_SAME_MODEL,
            )
        for index, (array, (shape, dtype)) in enumerate(zip(arrays, shapes, strict=True)):
            given = (getattr(array, "shape", None), getattr(getattr(array, "dtype", None), "name", None))
            if given != (shape, dtype):
                raise InvalidMessage(
                    f"array {index} of {what} for the learner {self.name} is {given[1]}{given[0]}, "
                    f"its own is {dtype}{shape}",
                    hint=_SAME_MODEL,
                )
            if not _all_finite(array):
                raise InvalidMessage(
                    f"array {index} of {what} for the learner {self.name} holds values that are not finite",
                    hint="a training has diverged: a smaller step size helps",
                )

    def _arrays(self, what: str, found: object) -> list[Array]:
        import numpy as np

        if not isinstance(found, list | tuple) or not 0 < len(found) <= MAX_ARRAYS:
            raise self._fault(f"its {what} is no list of 1 to {MAX_ARRAYS} arrays")
        for array in found:
            if not isinstance(array, np.ndarray) or array.dtype.kind != "f" or array.dtype.itemsize > 8:
                said = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
                raise self._fault(f"its {what} holds {said}, not float16, float32 or float64 arrays")
        return list(found)

    def _metrics(self, what: str, found: object) -> dict[str, float]:
        if not isinstance(found, Mapping) or len(found) > MAX_METRICS:
            raise self._fault(f"its {what} returned no dictionary of up to {MAX_METRICS} numbers")
        return {str(name): self._number(f"{what}, {name}", value) for name, value in found.items()}

    def _number(self, what: str, value: Any) -> float:
        """A float, which may be infinite or NaN: a diverged training has such a loss."""
        try:
            return float(value)
        except (TypeError, ValueError):
            raise self._fault(f"its {what} is {value!r:.40}, no number") from None

    def _fault(self, detail: str) -> PluginFailed:
        return PluginFailed(f"the learner {self.name}: {detail}", hint="its plugin's author has to mend it")


def _all_finite(array: Array) -> bool:
    """Whether every value is finite: at once if the sum of all squares is, else by looking at each."""
    import numpy as np

    if array.dtype.char in "fd" and array.flags.c_contiguous and array.flags.aligned:
        with np.errstate(all="ignore"):
            if math.isfinite(np.vdot(array, array)):
                return True
    return bool(np.isfinite(array).all())


@dataclass(frozen=True)
class LearnerSource:
    """What a run makes this device's learner from: a new one in every epoch, over the same data."""

    make: Callable[[], Learner]
    data: Message
    threads: bool = True

    async def lend(self, rng: np.random.Generator) -> LentLearner:
        """A learner that has its data. Raises FeddError with what is wrong with it."""
        lent = LentLearner(self.make(), threads=self.threads)
        await lent.prepare(self.data, rng)
        return lent


def rng_name(epoch: int) -> str:
    """The name of the learner's generator (`RunContext.rng`) in this epoch of a run."""
    return f"learner/{epoch}"


def learner_source(handle: Mapping[str, Any] | None, data: Message) -> LearnerSource | None:
    """The learner of an input's handle of kind "learner" over that input's data, None for another kind.

    Raises FeddError when the plugin fails to import, has no such learner, or the options do not fit.
    """
    if not handle or handle.get("kind") != "learner":
        return None
    try:
        make = partial(
            build_learner, find_learner(handle["learner"], handle["plugin"]), handle.get("options") or {}
        )
        make()
    except FeddError:
        raise
    except (Exception, SystemExit) as error:
        raise plugin_failure(error) from error
    return LearnerSource(make, data)
