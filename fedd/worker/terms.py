"""What an algorithm's class says about deaths and late members."""

from __future__ import annotations

from typing import Any, NamedTuple

from fedd.api.errors import InvalidParameter
from fedd.core.epochs import CONTRACTS, SURVIVORS


class Terms(NamedTuple):
    """`contract` is one of CONTRACTS; `joinable` says whether members may come in a later epoch.

    `topology` is the graph of runs that name none, empty for fedd's default.
    """

    contract: str
    joinable: bool
    topology: str = ""


def terms(algorithm: type[Any]) -> Terms:
    """The class variables `contract` ("survivors" when there is none), `joinable` (False), `topology` ("").

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
    topology = getattr(algorithm, "topology", "")
    if not isinstance(topology, str) or len(topology) > 64:
        raise InvalidParameter(f"{algorithm.__name__}.topology is {topology!r:.40}", hint="a topology's name")
    return Terms(contract, joinable, topology)
