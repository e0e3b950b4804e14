"""The operations of the control API that say what can be done here: plugins, what they offer, inputs."""

from __future__ import annotations

from typing import Any

from fedd.control.server import Operation, Request
from fedd.host.inputs import Inputs
from fedd.host.plugins import PluginRegistry
from fedd.net.events import EventLog


class CatalogService:
    """What depends on plugins waits until they were inspected."""

    def __init__(self, registry: PluginRegistry, inputs: Inputs, events: EventLog) -> None:
        self._registry = registry
        self._inputs = inputs
        self._events = events

    def operations(self) -> dict[str, Operation]:
        """By the names in `schema.ROUTES`."""
        return {
            "plugins": self.plugins,
            "algorithms": self.algorithms,
            "algorithm": self.algorithm,
            "learners": self.learners,
            "learner": self.learner,
            "aggregators": self.aggregators,
            "aggregator": self.aggregator,
            "inputs": self.inputs,
            "set": self.set_input,
        }

    async def plugins(self, request: Request) -> list[dict[str, Any]]:
        """Plugins, those that failed included."""
        await self._registry.ready()
        return [{"plugin": plugin.name, **plugin.describe()} for plugin in self._registry.plugins()]

    async def algorithms(self, request: Request) -> list[dict[str, Any]]:
        """Algorithms with their parameters."""
        await self._registry.ready()
        return [algorithm.describe() for algorithm in self._registry.algorithms()]

    async def algorithm(self, request: Request) -> dict[str, Any]:
        """One algorithm."""
        await self._registry.ready()
        return self._registry.algorithm(request.path["name"]).describe()

    async def learners(self, request: Request) -> list[dict[str, Any]]:
        """Learners with their options."""
        await self._registry.ready()
        return [learner.describe() for learner in self._registry.learners()]

    async def learner(self, request: Request) -> dict[str, Any]:
        """One learner."""
        await self._registry.ready()
        return self._registry.learner(request.path["name"]).describe()

    async def aggregators(self, request: Request) -> list[dict[str, Any]]:
        """Aggregators with their options."""
        await self._registry.ready()
        return [aggregator.describe() for aggregator in self._registry.aggregators()]

    async def aggregator(self, request: Request) -> dict[str, Any]:
        """One aggregator."""
        await self._registry.ready()
        return self._registry.aggregator(request.path["name"]).describe()

    async def inputs(self, request: Request) -> list[dict[str, Any]]:
        """Inputs of this device, once it is known which learners there are."""
        if any("learner" in each for each in self._inputs.list()):
            await self._registry.ready()  # until then nobody knows what is wrong with a learner
        return self._inputs.list()

    async def set_input(self, request: Request) -> dict[str, Any]:
        """Make or replace a constant."""
        name, value = request.path["name"], request.body["value"]
        self._inputs.set(name, value)
        self._events.publish("input", input=name)
        return {"input": name, "value": value}
