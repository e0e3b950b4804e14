"""The ballot box: every signed ballot that a node knows, and its digest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from typing import TypeAlias

from fedd.api import InvalidMessage, Message, PeerId
from fedd_voting.ballots import Ballot, Question

Verify: TypeAlias = Callable[[PeerId, bytes, bytes], bool]
"""Whether the signature (last) is that member's for the data."""

MOST_OF_A_VOTER = 2
"""Two different ballots of one voter show that both are void; a third would add nothing."""


class BallotBox:
    """Ballots of the members `voters`, each with its voter's signature.

    What was not signed by its voter, or is no ballot, is never taken in, on any node: so a bad one hurts its
    sender alone. A voter with two different ballots has none.
    """

    def __init__(self, question: Question, voters: Iterable[PeerId], verify: Verify) -> None:
        self._question = question
        self._verify = verify
        self._signed: dict[PeerId, dict[bytes, bytes]] = {voter: {} for voter in sorted(voters)}

    def signed_data(self, ballot: bytes) -> bytes:
        """What a voter signs beside run and federation: the question and the encoded ballot."""
        asked = [self._question.text, list(self._question.options), self._question.rule]
        return b"fedd/ballot/1\n" + json.dumps(asked).encode() + b"\n" + ballot

    def take(self, items: Message) -> list[Message]:
        """Take in what another node knows: [[voter, ballot, signature], ...]; returns what was new.

        Whatever is no signed ballot is left out.
        """
        new: list[Message] = []
        for item in items[: MOST_OF_A_VOTER * len(self._signed)] if isinstance(items, list) else []:
            match item:
                case [str(voter), bytes(ballot), bytes(signature)] if self._is_new(voter, ballot, signature):
                    self._signed[voter][ballot] = signature
                    new.append([voter, ballot, signature])
        return new

    def _is_new(self, voter: PeerId, ballot: bytes, signature: bytes) -> bool:
        known = self._signed.get(voter)
        if known is None or ballot in known or len(known) >= MOST_OF_A_VOTER:
            return False
        try:
            self._question.decode(ballot)
        except InvalidMessage:
            return False
        return self._verify(voter, self.signed_data(ballot), signature)

    @property
    def ballots(self) -> dict[PeerId, Ballot]:
        """The ballots that count, sorted by voter."""
        return {
            voter: self._question.decode(next(iter(signed)))
            for voter, signed in self._signed.items()
            if len(signed) == 1
        }

    @property
    def void(self) -> tuple[PeerId, ...]:
        """The voters with two different ballots, sorted."""
        return tuple(voter for voter, signed in self._signed.items() if len(signed) > 1)

    def digest(self) -> bytes:
        """32 bytes: SHA-256 over the question, and every voter's ballot or that it is void."""
        known = {
            voter: next(iter(signed)).decode() if len(signed) == 1 else None
            for voter, signed in self._signed.items()
            if signed
        }
        asked = [self._question.text, list(self._question.options), self._question.rule]
        text = json.dumps(["fedd/ballots/1", asked, known], sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).digest()
