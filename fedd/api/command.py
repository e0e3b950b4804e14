"""What a command is, and what a call lends to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol, TypeAlias

from fedd.api.types import Message, PeerId

Audience: TypeAlias = Literal["local", "direct", "members", "run"]
"""Who may send a command: this device's operator and plugins alone (`local`), any member too, to one member
at a time (`direct`) or also to all by a broadcast (`members`), or nobody: a command of the audience `run` is
there to be read about, and travels inside the runs of an algorithm."""


@dataclass(frozen=True)
class Member:
    """A member of the federation as this node sees it. `state` is alive, suspect, dead or left."""

    peer_id: PeerId
    name: str
    state: str


@dataclass(frozen=True)
class Reached:
    """Where a broadcast came to within its time: members whose daemons confirmed it, and those that did not.

    Both are sorted. `delivered` says that the message is there, not what the handler made of it; who died
    or left meanwhile is `missing`.
    """

    delivered: tuple[PeerId, ...]
    missing: tuple[PeerId, ...]


@dataclass(frozen=True)
class KnownRun:
    """A run that this node knows. `state` is running, waiting, finished, stopped or failed."""

    run_id: str
    algorithm: str
    state: str


class CommandContext(Protocol):
    """What one call lends to a command."""

    @property
    def me(self) -> PeerId:
        """This node."""
        ...

    @property
    def sender(self) -> PeerId:
        """Who sent the command, proven by the handshake of its link or its signature; `me` when local."""
        ...

    @property
    def members(self) -> Mapping[PeerId, Member]:
        """Everyone known, this node included, sorted by peer id. It changes as members come and go."""
        ...

    async def send(self, peer: PeerId, command: str, /, **parameters: Message) -> Message:
        """Send a command to a member and return its handler's answer.

        Raises NotFound for an unknown member or a command that it does not have, InvalidParameter, Denied,
        NotConnected or TimedOut, PluginFailed when the handler there raised, Unhealthy when it has too much
        to do; each says which end it speaks of. Ends with this call's own time at the latest.
        """
        ...

    async def broadcast(self, command: str, /, **parameters: Message) -> Reached:
        """Send a command of at most 64 KiB to every member, this node included, in the order of the calls.

        Each member handles it exactly once; handlers' answers go nowhere. Raises NotFound when this node does
        not have the command itself, InvalidParameter, Conflict without a federation, and Unhealthy when
        earlier broadcasts of this node are still under way.
        """
        ...

    async def start_run(
        self,
        algorithm: str,
        parameters: Mapping[str, bool | int | float | str],
        *,
        input: str = "",
        topology: str = "",
        quorum: str = "",
    ) -> str:
        """Propose a run to all members that are alive, this node its initiator, and return its id.

        `input` names an input of each device, `topology` and `quorum` are as for `fedctl run`; empty: the
        default. The command's sender starts the run, as far as policies are concerned: each device's owner,
        this one's too, must let both the sender and this node start runs there. Raises Denied, NotFound
        (algorithm, input), InvalidParameter (with the field), Conflict without a federation, Unhealthy,
        PluginFailed, and Refused, naming who declined, when too few accept. It takes as long as the slowest
        member's answer: a handler that starts runs declares a `timeout_s` of 30.
        """
        ...

    async def stop_run(self, run_id: str) -> None:
        """Stop a run on all its members; `run_id` may be the beginning of an id.

        The command's sender must be this node or a member of the run. Raises Denied, NotFound,
        InvalidParameter for the beginning of several ids, Conflict when the run has ended here.
        """
        ...

    async def runs(self) -> tuple[KnownRun, ...]:
        """The runs that this node knows, oldest first, those in progress last."""
        ...

    async def inputs(self) -> Mapping[str, str]:
        """The names of this device's inputs, and the learner of each; an empty text for one without."""
        ...

    def event(self, text: str, /, **fields: bool | int | float | str) -> None:
        """Write a line into this node's event log, for `fedctl events`.

        At most 512 characters of text, 16 fields and 16 events a call. Raises InvalidParameter beyond that
        and for fields whose names the log uses itself.
        """
        ...


class Command(Protocol):
    """A frozen dataclass with a name and a coroutine; its fields are the message's parameters.

    A field is a bool, int, float, str or Literal of strings, a NumPy array, or a `Message` (anything that can
    travel). A field without a default must be given by the sender. The class docstring's first line is the
    command's help, a field's help is `field(metadata={"help": ...})`, the longest text that it takes
    `field(metadata={"max_chars": ...})`. A `__post_init__` that raises ValueError refuses bad parameters.
    Further class variables, all optional:

    | name | default | meaning |
    |---|---|---|
    | `version` | `"1.0.0"` | members talk to each other when its first number is the same |
    | `audience` | `"members"` | who may send it: `"members"`, `"direct"` (to one), `"local"`, `"run"` |
    | `max_payload_bytes` | 65536 | of the parameters and of the answer, each; at most 16 MiB |
    | `timeout_s` | 10 | how long a handler may take; at most 30 |
    """

    name: ClassVar[str]

    async def handle(self, ctx: CommandContext) -> Message:
        """Do what the message asks for, on the node that got it, and return the answer."""
        ...


class Notice(Protocol):
    """A command that only leaves a line in the event log: the daemon writes it, no code of the class runs.

    A frozen dataclass with a name and no `handle`. `event_text` names the field, a str, that becomes the
    event's text and may not be blank; the others, up to 16 of bool, int, float, str or Literal of strings,
    become the event's fields. All that can be refused is declared: types, choices, and `max_chars`, which is
    512 at most and when it is not given. So there is no `__post_init__`, the answer is None, and a device
    starts no plugin host for it. Help and the class variables are as for `Command`, but for the audience
    `"run"`.
    """

    name: ClassVar[str]
    event_text: ClassVar[str]
