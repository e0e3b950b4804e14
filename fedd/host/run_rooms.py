"""The rooms that only a node with runs needs: loaded and built when there is something to do for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from fedd.core.identity import PrivateKey
from fedd.host.plugins import PluginRegistry
from fedd.host.run_desk import RunDesk
from fedd.host.run_forecast import Forecaster
from fedd.host.run_gate import RunGate
from fedd.host.run_herald import RunHerald
from fedd.host.run_histories import RunHistories
from fedd.host.run_limits import RunLimits
from fedd.host.run_proposer import LinkPins, Proposer
from fedd.host.run_returns import Hooks, RunReturns
from fedd.host.run_surroundings import Surroundings
from fedd.host.run_workers import RunWorkers

if TYPE_CHECKING:
    from fedd.host.runs import Runs
    from fedd.net.presence import Presence
    from fedd.net.relay import Relay


class RunRooms:
    """Built once for the runs of a daemon, which they call back."""

    def __init__(
        self,
        runs: Runs,
        key: PrivateKey,
        presence: Presence,
        relay: Relay,
        registry: PluginRegistry,
        gate: RunGate,
        workers: RunWorkers,
        limits: RunLimits,
        clock: Callable[[], float],
    ) -> None:
        self.pins = LinkPins(presence)
        self.proposer = Proposer(runs.me, relay, presence, registry, limits)
        self.forecaster = Forecaster(self.proposer, gate, workers, limits)
        self.herald = RunHerald(runs.me, relay, limits, runs.nodes, runs.name_of, runs.running)
        self.around = Surroundings(
            key,
            limits,
            runs.open_run_stream,
            presence.state_of,
            runs.name_of,
            runs.on_change,
            runs.on_epoch,
            self.herald.tell_epoch,
            runs.keep_checkpoint,
            clock,
        )
        self.histories = RunHistories(runs.me, relay, runs.storage.keepsakes, runs.live_history, runs.name_of)
        self.returns = RunReturns(
            key,
            relay,
            gate,
            runs.storage.checkpoints,
            Hooks(runs.adopt, self.herald.tell_epoch, runs.store, presence.state_of, runs.name_of, clock),
            runs.sleeping,
        )
        self.desk = RunDesk(
            key,
            presence,
            gate,
            limits,
            runs.nodes,
            runs.adopt,
            self.histories,
            self.herald.tell_epoch,
            runs.state_of_ended,
            self.returns,
        )
