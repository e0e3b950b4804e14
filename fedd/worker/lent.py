"""What a device lends to its part of a run: its input, its learner, aggregators, random numbers."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

from fedd.api.errors import InvalidParameter
from fedd.api.types import Message
from fedd.worker.parameters import build_aggregator
from fedd.worker.plugins import find_aggregator
from fedd.worker.port import RunStart

if TYPE_CHECKING:
    import numpy as np

    from fedd.api.aggregator import Aggregator
    from fedd.api.learner import RunLearner


class Lent:
    """`aggregators` are {name: plugin} that may be used, None for all that there are."""

    def __init__(
        self,
        start: RunStart,
        input: Message,
        learner: RunLearner | None,
        aggregators: Mapping[str, str] | None,
    ) -> None:
        self._seeded_by = f"{start.seed}\n{start.me}"
        self._input = input
        self._learner = learner
        self._aggregators = aggregators

    @property
    def input(self) -> Message:
        """What this device's owner configured for this run."""
        return self._input

    @property
    def learner(self) -> RunLearner:
        """This device's model and data. Raises InvalidParameter when the run's input names no learner."""
        if self._learner is None:
            raise InvalidParameter(
                "this run's input names no learner on this device, and the algorithm needs one",
                hint="write learner = '...' into [inputs.NAME] of fedd.toml; "
                "fedctl learners shows what there is",
                field="input",
            )
        return self._learner

    def lend(self, learner: RunLearner) -> None:
        """Set the learner, which needs this context's `rng` before it is ready."""
        self._learner = learner

    def aggregator(self, name: str, options: Mapping[str, Message] | None = None) -> Aggregator:
        """The aggregator of that name with these options."""
        return build_aggregator(find_aggregator(name, self._aggregators), options or {})

    def rng(self, name: str) -> np.random.Generator:
        """A generator seeded by the run's seed, this node and `name`."""
        import numpy as np  # numpy.random adds 7 MiB: only for those who ask

        digest = hashlib.sha256(f"fedd/rng/1\n{self._seeded_by}\n{name}".encode()).digest()
        return np.random.default_rng(int.from_bytes(digest, "little"))
