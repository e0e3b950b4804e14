"""What an algorithm's class says about deaths and late members."""

from __future__ import annotations

from typing import Any, NamedTuple

from fedd.api.errors import InvalidParameter
from fedd.core.epochs import CONTRACTS, SURVIVORS


class Terms(NamedTuple):
    """`contract` is one of CONTRACTS; `joinable` says whether members may come in a later epoch."""

    contract: str
    joinable: bool


def terms(algorithm: type[Any]) -> Terms:
    """The class variables `contract` ("survivors" when there is none) and `joinable` (False).

    Raises InvalidParameter, saying what the plugin's author has to change, for other values.
    """
    contract = getattr(algorithm, "contract", SURVIVORS)
    joinable = getattr(algorithm, "joinable", False)
    if contract not in CONTRACTS:
        raise InvalidParameter(
            f"{algorithm.__name__}.contract is {contract!r:.40}", hint=f"one of {', '.join(CONTRACTS)}"
        )
    if not isinstance(joinable, bool):
        raise InvalidParameter(f"{algorithm.__name__}.joinable is {joinable!r:.40}", hint="True or False")
    return Terms(contract, joinable)
