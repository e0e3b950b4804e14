"""Learners as inputs of a simulated run."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TypeAlias, cast

from fedd.api.learner import Learner
from fedd.api.types import Message
from fedd.worker.context import Context
from fedd.worker.learner import LearnerSource, LentLearner, rng_name


@dataclass(frozen=True)
class Device:
    """A learner that gets this data at the beginning of the run, as a device of `[inputs.NAME]` with one.

    `learner` is used as a pattern: each run, and each epoch of it, prepares a copy. With the same peer ids
    and seed its randomness is that of real daemons.
    """

    learner: Learner
    data: Message


Input: TypeAlias = Message | Learner | Device
"""What one node of a simulated run has.

A value is `ctx.input`. A Device has a learner and its data. A bare learner object is lent as it is, without a
call of `prepare`: the test has done that, and sees afterwards what became of it.
"""


def data_of(given: Input) -> Message:
    """What `ctx.input` is."""
    if isinstance(given, Device):
        return given.data
    return None if is_learner(given) else cast(Message, given)


async def lend(given: Input, context: Context) -> None:
    """Give the context its learner, if the input is one. Raises FeddError when the data does not fit."""
    if isinstance(given, Device):
        source = LearnerSource(lambda: copy.deepcopy(given.learner), given.data, threads=False)
        context.lend(await source.lend(context.rng(rng_name(context.epoch))))
    elif is_learner(given):
        context.lend(LentLearner(cast(Learner, given), threads=False))


def is_learner(given: Input) -> bool:
    """Whether this has a learner's methods."""
    return all(callable(getattr(given, name, None)) for name in ("prepare", "parameters"))
