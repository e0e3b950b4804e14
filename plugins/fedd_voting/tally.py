"""Counting: pure functions of the question and the ballots."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from fedd.api import PeerId
from fedd_voting.ballots import Ballot, Question


@dataclass(frozen=True)
class Quorum:
    """`needed` votes of `of` members (0: of as many as there are). Nothing is needed by default."""

    needed: int = 0
    of: int = 0

    @classmethod
    def read(cls, text: str) -> Quorum:
        """From "5/7", "5" or "". Raises ValueError for anything else."""
        if not text:
            return cls()
        found = re.fullmatch(r"(\d{1,4})(?:/(\d{1,4}))?", text)
        if found is None:
            raise ValueError(f"quorum must be like 5/7 (votes needed, of members) or 5, not {text!r:.40}")
        quorum = cls(int(found[1]), int(found[2] or 0))
        if quorum.needed < 1 or (found[2] is not None and quorum.needed > quorum.of):
            raise ValueError(f"quorum must be at least 1 and no more than there are members, not {text}")
        return quorum


def count(question: Question, ballots: Mapping[PeerId, Ballot]) -> dict[str, int]:
    """How many votes, points or how much weight each option has, in the order of the question.

    plurality, approval: one for each ballot that names it. borda: of k options, k - 1 points for the first on
    a ballot, one less for each place, none for those it does not rank. train-set: the sum of the weights, of
    those who have been voted for.

    Sources: J. C. de Borda, "Memoire sur les elections au scrutin", 1781; S. Brams, P. Fishburn, "Approval
    voting", 1978; the train set's as in P2PFL's vote_train_set_stage.
    """
    sums = dict.fromkeys(question.options, 0)
    voted: set[str] = set()
    for ballot in ballots.values():
        for place, choice in enumerate(ballot):
            if isinstance(choice, str):
                sums[choice] += len(question.options) - 1 - place if question.rule == "borda" else 1
            else:
                sums[choice[0]] += choice[1]
                voted.add(choice[0])
    shown = voted if question.rule == "train-set" else question.options
    return {option: votes for option, votes in sums.items() if option in shown}


def winner(
    question: Question, ballots: Mapping[PeerId, Ballot], quorum: Quorum, size: int
) -> str | list[str] | None:
    """Who won: an option, or for a train set up to `size` members; None without quorum or ballots.

    The most votes win. Of equal ones the option that the question names first; of members the one whose id
    is sorted last, as in P2PFL. A member without a ballot here cannot be in the train set: it fell out before
    it had voted. For plurality and approval the winner itself needs the quorum's votes, for borda and
    train-set so many must have voted.
    """
    sums = count(question, ballots)
    if question.rule == "train-set":
        able = sorted((member for member in sums if member in ballots), reverse=True)
        best = sorted(able, key=lambda member: -sums[member])[:size]
        return best if best and len(ballots) >= quorum.needed else None
    first = max(question.options, key=lambda option: sums[option])  # max keeps the first of equal ones
    support = len(ballots) if question.rule == "borda" else sums[first]
    return first if sums[first] > 0 and support >= quorum.needed else None
