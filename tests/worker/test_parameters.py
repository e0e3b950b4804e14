"""Dataclass fields as parameters: what fedctl can ask for, and what an author did wrong."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import pytest

from fedd.api import InvalidParameter, Message, RunContext
from fedd.worker.parameters import Parameter, build, schema


class Runs:
    name: ClassVar[str] = "runs"

    async def run(self, ctx: RunContext) -> Message:
        return None


@dataclass(frozen=True)
class Good(Runs):
    """It is good."""

    name: ClassVar[str] = "good-one"
    flag: bool = False
    count: int = field(default=3, metadata={"help": "how many"})
    rate: float = 1
    label: str = "x"
    mode: Literal["fast", "exact"] = "fast"
    made: str = field(default_factory=lambda: "here")
    derived: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError("count must be at least 1")


def test_the_fields_are_the_schema() -> None:
    assert schema(Good) == (
        Parameter("flag", "bool", False, "", None),
        Parameter("count", "int", 3, "how many", None),
        Parameter("rate", "float", 1.0, "", None),
        Parameter("label", "str", "x", "", None),
        Parameter("mode", "str", "fast", "", ("fast", "exact")),
        Parameter("made", "str", "here", "", None),
    )
    assert type(schema(Good)[2].default) is float


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, Good()),
        ({"flag": "yes", "count": "7", "rate": "1e-3", "label": "7"}, Good(True, 7, 0.001, "7")),
        ({"flag": True, "count": 7, "rate": 2, "mode": "exact"}, Good(True, 7, 2.0, mode="exact")),
        ({"flag": "False", "count": 7.0}, Good(False, 7)),
    ],
)
def test_texts_and_typed_values_become_fields(given: dict[str, object], expected: Good) -> None:
    built = build(Good, given)
    assert built == expected
    assert isinstance(built, Good)
    assert type(built.rate) is float or "rate" not in given


@pytest.mark.parametrize(
    ("given", "said", "blamed"),
    [
        ({"cuont": 1}, "no parameter 'cuont' (did you mean count?)", "cuont"),
        ({"zzz": 1}, "it has flag, count", "zzz"),
        ({"count": "many"}, "count must be a whole number, not 'many'", "count"),
        ({"count": 1.5}, "whole number", "count"),
        ({"count": True}, "whole number", "count"),
        ({"count": 2**70}, "whole number", "count"),
        ({"count": float("inf")}, "whole number", "count"),
        ({"count": [1]}, "whole number", "count"),
        ({"rate": "nan"}, "finite number", "rate"),
        ({"rate": "1e999"}, "finite number", "rate"),
        ({"rate": None}, "finite number", "rate"),
        ({"flag": "perhaps"}, "true or false", "flag"),
        ({"flag": 1}, "true or false", "flag"),
        ({"label": 5}, "a text", "label"),
        ({"mode": "slow"}, "one of fast, exact", "mode"),
        ({"count": 0}, "good-one: count must be at least 1", "count"),
        ({"derived": 1}, "no parameter 'derived'", "derived"),
    ],
)
def test_what_a_user_gets_wrong(given: dict[str, object], said: str, blamed: str) -> None:
    with pytest.raises(InvalidParameter) as raised:
        build(Good, given)
    assert said in str(raised.value)
    assert raised.value.field == blamed


def test_an_error_of_fedds_own_kind_passes_as_it_is() -> None:
    @dataclass(frozen=True)
    class Picky(Runs):
        n: int = 0

        def __post_init__(self) -> None:
            raise InvalidParameter("not today", field="n")

    with pytest.raises(InvalidParameter, match=r"^not today$"):
        build(Picky, {})


@dataclass(frozen=True)
class NoDefault(Runs):
    n: int


@dataclass(frozen=True)
class OddType(Runs):
    n: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class OddLiteral(Runs):
    n: Literal[1, 2] = 1


@dataclass(frozen=True)
class WrongDefault(Runs):
    n: int = "three"  # type: ignore[assignment]


@dataclass(frozen=True)
class Nameless(Runs):
    name: ClassVar[str] = "two words"


@dataclass(frozen=True)
class NotAsync:
    name: ClassVar[str] = "sync"

    def run(self, ctx: RunContext) -> Message:
        return None


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (Runs, "no dataclass"),
        (Good(), "no dataclass"),
        (NoDefault, "NoDefault.n has no default"),
        (OddType, "OddType.n has the type"),
        (OddLiteral, "OddLiteral.n has the type"),
        (WrongDefault, "n must be a whole number, not 'three'"),
        (Nameless, "Nameless.name must be a word"),
        (NotAsync, "NotAsync.run must be `async def"),
    ],
)
def test_what_an_author_gets_wrong(wrong: type, said: str) -> None:
    with pytest.raises(InvalidParameter, match=said.split("(")[0]):
        schema(wrong)
