"""Ballots: how a device's input becomes one, and how it travels."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias, cast

from fedd.api import InvalidMessage, Message, PeerId

if TYPE_CHECKING:
    import numpy as np

Rule: TypeAlias = Literal["plurality", "approval", "borda", "train-set"]

Ballot: TypeAlias = Sequence[str | tuple[str, int]]
"""The chosen option; the approved ones in the order of the question; the ranked ones, best first; or
(member, weight), heaviest first, equal weights sorted by member."""

MAX_BALLOT_BYTES = 32 * 1024
"""A ranking of the most options that a question may have, or weights for some hundred members."""

MAX_WEIGHT = 10**9
"""Of one member on one ballot: sums over any federation stay exact in 64 bits."""


@dataclass(frozen=True)
class Question:
    """What is voted on: the same on all members. `options` are member ids for a train set."""

    text: str
    options: tuple[str, ...]
    rule: Rule

    def read(self, given: Message) -> Ballot:
        """This device's input as a ballot.

        An option; for approval or borda several, in a list or a text with commas; for a train set
        {member: weight}. True and False stand for yes and no. Raises InvalidMessage when it is none.
        """
        if self.rule == "train-set":
            return self._weights(given)
        several = self.rule != "plurality"
        parts = given.split(",") if several and isinstance(given, str) else given
        chosen = [self._option(part) for part in (parts if isinstance(parts, list) else [parts])]
        if not several and len(chosen) != 1:
            raise InvalidMessage(f"the ballot {given!r:.80} names {len(chosen)} options, it must name one")
        if len(set(chosen)) < len(chosen):
            raise InvalidMessage(f"the ballot {given!r:.80} names an option twice")
        return sorted(chosen, key=self.options.index) if self.rule == "approval" else chosen

    def encode(self, ballot: Ballot) -> bytes:
        """What is signed and sent. Raises InvalidMessage for more than `MAX_BALLOT_BYTES`."""
        data = json.dumps(ballot, ensure_ascii=False, separators=(",", ":")).encode()
        if len(data) > MAX_BALLOT_BYTES:
            raise InvalidMessage(f"the ballot has {len(data)} bytes, more than {MAX_BALLOT_BYTES}")
        return data

    def decode(self, data: bytes) -> Ballot:
        """The ballot of `encode`. Raises InvalidMessage for whatever `encode` would not have given."""
        if len(data) > MAX_BALLOT_BYTES:
            raise InvalidMessage(f"a ballot has {len(data)} bytes, more than {MAX_BALLOT_BYTES}")
        try:
            parsed = json.loads(data)
            given = dict(cast("list[tuple[str, int]]", parsed)) if self.rule == "train-set" else parsed
        except (ValueError, TypeError, RecursionError):
            raise InvalidMessage("a ballot is no list of options") from None
        ballot = self.read(given) if isinstance(given, dict | list) else []
        if self.encode(ballot) != data:
            raise InvalidMessage("a ballot is not written as it should be")
        return ballot

    def draw(self, size: int, rng: np.random.Generator) -> Ballot:
        """A ballot for a train set, by chance: `size` members, the k-th with floor(0..1000 / k)."""
        drawn = rng.permutation(len(self.options))[:size]
        return self._weights(
            {
                self.options[int(index)]: int(rng.integers(0, 1001)) // (place + 1)
                for place, index in enumerate(drawn)
            }
        )

    def _option(self, given: object) -> str:
        text = {True: "yes", False: "no"}[given] if isinstance(given, bool) else str(given).strip()
        if text not in self.options:
            raise InvalidMessage(
                f"the ballot {text!r:.80} is not on the list",
                hint=f"the options are {', '.join(self.options)}"[:300],
            )
        return text

    def _weights(self, given: Message) -> list[tuple[str, int]]:
        if not isinstance(given, dict):
            raise InvalidMessage(
                f"the ballot {given!r:.80} is no {{member: weight}}",
                hint="give every member voted for a weight",
            )
        weights: list[tuple[str, int]] = []
        for peer, weight in given.items():
            if peer not in self.options:
                raise InvalidMessage(f"the ballot names {peer!r:.80}, who is no member of this run")
            if type(weight) is not int or not 0 <= weight <= MAX_WEIGHT:
                raise InvalidMessage(
                    f"the weight {weight!r:.40} of {peer} is no whole number of 0 to {MAX_WEIGHT}"
                )
            weights.append((peer, weight))
        return sorted(weights, key=lambda pair: (-pair[1], pair[0]))


def options_of(text: str) -> tuple[str, ...]:
    """The options of a comma-separated text. Raises ValueError for fewer than two, or doubles."""
    options = tuple(part.strip() for part in text.split(","))
    if not 2 <= len(options) <= 64 or not all(0 < len(option.encode()) <= 100 for option in options):
        raise ValueError(f"options must be 2 to 64 words of up to 100 bytes, not {text!r:.80}")
    if len(set(options)) < len(options):
        raise ValueError(f"options must differ, not {text!r:.80}")
    return options


def candidates(members: Sequence[PeerId]) -> tuple[str, ...]:
    """The options of a vote for a train set: the members, sorted."""
    return tuple(sorted(members))
