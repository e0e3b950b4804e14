"""Federated learning without a server: members train on their own data, and all end with one model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from fedd.api import Algorithm, Command, Message, RunContext, hookimpl
from fedd_learning.commands import LISTED


@dataclass(frozen=True)
class Learning:
    """Trains one model on everybody's data, which stays where it is; the model is the same on all members.

    In each round the train set trains on its own data, the aggregator makes one model of what came out, and
    all have it, bit for bit. Members that die cost their own contribution of that round. The first model is
    that of who started the run. The result names who trained, who was left out and why.

    Source: B. McMahan, E. Moore, D. Ramage, S. Hampson, B. Aguera y Arcas, "Communication-efficient learning
    of deep networks from decentralized data", AISTATS (2017), with a reduce-scatter in place of the server.
    """

    name: ClassVar[str] = "learning"
    contract: ClassVar[str] = "contributed"
    topology: ClassVar[str] = "complete"
    joinable: ClassVar[bool] = True

    rounds: int = field(default=10, metadata={"help": "how many"})
    epochs: int = field(default=1, metadata={"help": "passes over a device's own data in each round"})
    steps: int = field(default=0, metadata={"help": "minibatches in each round, instead of epochs"})
    step: float = field(default=0.0, metadata={"help": "step size (default: what each learner is set to)"})
    aggregator: str = field(default="fedavg", metadata={"help": "how models become one; see aggregators"})
    options: str = field(default="", metadata={"help": "the aggregator's options: name=value,name=value"})
    train_set: int = field(default=0, metadata={"help": "how many train in each round (0: all)"})
    train_set_by: Literal["rendezvous", "vote"] = field(
        default="rendezvous", metadata={"help": "drawn without a message, or by everybody's random votes"}
    )
    max_samples: int = field(default=10_000_000, metadata={"help": "who claims more does not count"})
    crashes: int = field(
        default=3, metadata={"help": "deaths within one agreement that it bears, as far as the quorum does"}
    )
    keep: int = field(
        default=0,
        metadata={"help": "for restarts, keep the model every so many rounds (0: by its size, -1: never)"},
    )
    chunk_bytes: int = field(
        default=4 * 1024 * 1024, metadata={"help": "largest message; larger models travel in parts"}
    )

    def __post_init__(self) -> None:
        if not 1 <= self.rounds <= 10_000:
            raise ValueError(f"rounds must be between 1 and 10000, not {self.rounds}")
        if self.steps < 0 or self.epochs < 0 or (self.steps == 0 and self.epochs == 0):
            raise ValueError(f"a round needs an epoch or a step, not {self.epochs} and {self.steps}")
        if not 0 <= self.step < float("inf"):
            raise ValueError(f"step must be 0 or more, not {self.step}")
        if self.train_set < 0:
            raise ValueError(f"train_set must be 0 (all) or more, not {self.train_set}")
        if self.max_samples < 1:
            raise ValueError(f"max_samples must be at least 1, not {self.max_samples}")
        if not 0 <= self.crashes <= 100:
            raise ValueError(f"crashes must be between 0 and 100, not {self.crashes}")
        if self.keep < -1:
            raise ValueError(f"keep must be -1 (never), 0 (by the model's size) or more, not {self.keep}")
        if not 1024 <= self.chunk_bytes <= 16 * 1024 * 1024:
            raise ValueError(f"chunk_bytes must be between 1024 and 16777216, not {self.chunk_bytes}")

    async def run(self, ctx: RunContext) -> Message:
        """Return {rounds, digest, model, metrics, contributors, trained, left_out, lost_labels, curves}."""
        from fedd_learning.node import Node  # here, because a daemon lists algorithms without NumPy

        return await Node(self, ctx).run()


@hookimpl
def fedd_register_algorithms() -> list[type[Algorithm]]:
    """Register it."""
    return [Learning]


@hookimpl
def fedd_register_commands() -> list[type[Command]]:
    """Register what starts and stops its runs, and the messages in them, so that they are listed."""
    return list(LISTED.values())


__all__ = ["Learning", "fedd_register_algorithms", "fedd_register_commands"]
