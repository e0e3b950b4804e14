"""What a learner can do beyond the least, read off its class."""

from __future__ import annotations

import inspect
from typing import Any

from fedd.api.learner import Learner

ABILITIES = ("gradient", "objective", "correction", "proximal", "step")


def abilities(learner: type[Any]) -> frozenset[str]:
    """What this class has of ABILITIES: its methods, and the keywords that its `train` takes."""
    found = {name for name in ("gradient", "objective") if _own_method(learner, name)}
    train = getattr(learner, "train", None)
    try:
        keywords = inspect.signature(train).parameters if callable(train) else {}
    except (TypeError, ValueError):  # a callable without a signature, written in C
        keywords = {}
    if any(each.kind is inspect.Parameter.VAR_KEYWORD for each in keywords.values()):
        return frozenset({*found, "correction", "proximal", "step"})
    return frozenset({*found, *({"correction", "proximal", "step"} & keywords.keys())})


def _own_method(learner: type[Any], name: str) -> bool:
    """Whether there is such a method: one inherited from the protocol itself does nothing."""
    method = getattr(learner, name, None)
    return callable(method) and method is not getattr(Learner, name)
