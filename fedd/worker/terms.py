"""What an algorithm's class says about deaths and late members."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from fedd.api.errors import InvalidParameter
from fedd.core.run_terms import CONTRACTS, SURVIVORS


class Terms(NamedTuple):
    """`contract` is one of CONTRACTS; `joinable` says whether members may come in a later epoch.

    `topology` is the graph of runs that name none, empty for fedd's default. `contracts` has other contracts
    for values of parameters, each written `name=value`.
    """

    contract: str
    joinable: bool
    topology: str = ""
    contracts: Mapping[str, str] = {}

    def contract_of(self, algorithm: object) -> str:
        """The contract of an instance, with its parameters."""
        for written, contract in self.contracts.items():
            name, _, value = written.partition("=")
            if str(getattr(algorithm, name, None)) == value:
                return contract
        return self.contract


def terms(algorithm: type[Any]) -> Terms:
    """The class variables `contract`, `joinable`, `topology` and `contracts`, each with its default.

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
    contracts = getattr(algorithm, "contracts", {})
    for written, other in contracts.items():
        if "=" not in written or other not in CONTRACTS:
            raise InvalidParameter(
                f"{algorithm.__name__}.contracts has {written!r:.40}: {other!r:.40}",
                hint='as in {"method=chebyshev": "restart"}',
            )
    return Terms(contract, joinable, topology, dict(contracts))
