"""What an algorithm's class says about deaths and late members."""

from __future__ import annotations

from typing import Any

import pytest

from fedd.api import InvalidParameter
from fedd.worker.terms import Terms, terms


def algorithm(**variables: Any) -> type[Any]:
    return type("Mine", (), variables)


def test_a_class_that_says_nothing_counts_survivors_and_takes_in_nobody() -> None:
    assert terms(algorithm()) == Terms("survivors", False)


def test_what_a_class_says_is_taken() -> None:
    assert terms(algorithm(contract="restart", joinable=True)) == Terms("restart", True)


@pytest.mark.parametrize(
    "variables", [{"contract": "never"}, {"joinable": "yes"}, {"contract": None}, {"topology": 3}]
)
def test_anything_else_is_the_authors_mistake(variables: dict[str, Any]) -> None:
    with pytest.raises(InvalidParameter, match="Mine"):
        terms(algorithm(**variables))


def test_a_parameter_may_have_a_contract_of_its_own() -> None:
    cls = algorithm(contract="survivors", contracts={"method=fast": "restart"}, method="plain")
    found = terms(cls)
    assert found.contract_of(cls()) == "survivors"
    fast = cls()
    fast.method = "fast"
    assert found.contract_of(fast) == "restart"


@pytest.mark.parametrize("contracts", [{"method": "restart"}, {"method=fast": "never"}])
def test_a_contract_of_a_parameter_names_its_value(contracts: dict[str, str]) -> None:
    with pytest.raises(InvalidParameter, match=r"Mine\.contracts"):
        terms(algorithm(contracts=contracts))
