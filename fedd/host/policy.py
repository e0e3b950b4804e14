"""What the owner of this device lets others do with it: what plugins offer, inputs, and who starts runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import field

from fedd.api.errors import Denied
from fedd.api.types import PeerId
from fedd.core.dataclass import dataclass

BUNDLED_DISTRIBUTION = "fedd"
"""What comes in fedd's own wheel is allowed without being listed."""


@dataclass(frozen=True)
class Policy:
    """`[policy]` of fedd.toml.

    `algorithms`, `commands` and `aggregators` name those, or plugins, that are welcome beside the bundled
    ones (a learner is welcome when an input of this device names it); `inputs`
    maps an input to the algorithms that may read it (an input not named is open to every allowed algorithm);
    `initiators` names peer ids or member names that may start runs here (empty: any member; the owner always
    may). `network` names plugins whose processes may use it, `writable` directories in which all may write.
    """

    algorithms: tuple[str, ...] = ()
    inputs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    initiators: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
    aggregators: tuple[str, ...] = ()
    network: tuple[str, ...] = ()
    writable: tuple[str, ...] = ()

    def check_algorithm(self, algorithm: str, plugin: str, distribution: str) -> None:
        """Raises Denied when the owner did not allow this algorithm."""
        if distribution == BUNDLED_DISTRIBUTION or algorithm in self.algorithms or plugin in self.algorithms:
            return
        raise Denied(
            f"the policy here does not allow the algorithm {algorithm!r} of {distribution}",
            hint=f"add it to algorithms in [policy] of fedd.toml: algorithms = [{algorithm!r}]",
            field="algorithm",
        )

    def allows_command(self, command: str, plugin: str, distribution: str) -> bool:
        """Whether the owner allowed this command."""
        return distribution == BUNDLED_DISTRIBUTION or command in self.commands or plugin in self.commands

    def check_command(self, command: str, plugin: str, distribution: str) -> None:
        """Raises Denied when the owner did not allow this command."""
        if not self.allows_command(command, plugin, distribution):
            raise Denied(
                f"the policy here does not allow the command {command!r} of {distribution}",
                hint=f"add it to commands in [policy] of fedd.toml: commands = [{command!r}]",
                field="command",
            )

    def allows_aggregator(self, aggregator: str, plugin: str, distribution: str) -> bool:
        """Whether the owner allowed this aggregator, which whoever starts a run may name."""
        listed = aggregator in self.aggregators or plugin in self.aggregators
        return distribution == BUNDLED_DISTRIBUTION or listed

    def check_input(self, name: str, algorithm: str) -> None:
        """Raises Denied when the owner keeps this input for other algorithms."""
        readers = self.inputs.get(name)
        if readers is None or algorithm in readers:
            return
        raise Denied(
            f"the policy here does not let {algorithm!r} read the input {name!r}",
            hint=f"add it to {name} in [policy] inputs of fedd.toml",
            field="input",
        )

    def check_initiator(self, peer: PeerId, name: str) -> None:
        """Raises Denied when this member may not start runs here."""
        if not self.initiators or peer in self.initiators or name in self.initiators:
            return
        raise Denied(
            f"the policy here does not let {name or peer} start runs",
            hint="add it to initiators in [policy] of fedd.toml",
        )

    def walls(self, hidden: Iterable[str], plugins: Iterable[str]) -> tuple[str, ...]:
        """What a worker process is told to give up (`fedd.worker`), as arguments of its command line.

        `hidden` are the directories of the daemon's own files, `plugins` those for which it is started. One
        that may use the network brings it to the others in its process.
        """
        options = [option for path in hidden for option in ("--hide", path)]
        options += [option for path in self.writable for option in ("--writable", path)]
        return (*options, *(["--network"] if set(plugins) & set(self.network) else []))
