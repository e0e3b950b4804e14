"""What a plugin's author has to give a learner or an aggregator class."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest

from fedd.api import InvalidParameter
from fedd.worker.parameters import (
    aggregator_schema,
    build_aggregator,
    build_learner,
    learner_schema,
)


class Methods:
    """All methods of both kinds."""

    mean = False

    def prepare(self, data: Any, rng: Any) -> None: ...
    def parameters(self) -> None: ...
    def load(self, parameters: Any) -> None: ...
    def train(self, *, epochs: int = 0, steps: int = 0) -> None: ...
    def evaluate(self) -> None: ...
    def start(self, model: Any) -> None: ...
    def aggregate(self, model: Any, contributions: Any, state: Any) -> None: ...
    def before(self, model: Any, state: Any, own: Any) -> None: ...
    def after(self, model: Any, trained: Any, result: Any, state: Any, own: Any) -> None: ...


@dataclass
class Good(Methods):
    """Good."""

    name: ClassVar[str] = "good"
    rate: float = field(default=0.5, metadata={"help": "how fast"})
    kept: list[int] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        if self.rate > 1:
            raise ValueError("rate must be at most 1")


BOTH = pytest.mark.parametrize(
    ("schema", "build"), [(learner_schema, build_learner), (aggregator_schema, build_aggregator)]
)


@BOTH
def test_fields_are_options(schema: Any, build: Any) -> None:
    (option,) = schema(Good)
    assert (option.name, option.type, option.default, option.help) == ("rate", "float", 0.5, "how fast")
    assert build(Good, {"rate": 1}) == Good(rate=1.0)
    assert build(Good, {}).rate == 0.5
    for values, blamed in (({"rate": 2.0}, "rate"), ({"rat": 1.0}, "rat"), ({"rate": "x"}, "rate")):
        with pytest.raises(InvalidParameter) as caught:
            build(Good, values)
        assert caught.value.field == blamed


class NoDataclass(Methods):
    name = "x"


@dataclass
class NoName(Methods):
    rate: float = 0.5


@dataclass
class Awaited(Methods):
    name: ClassVar[str] = "awaited"

    async def train(self) -> None: ...
    async def start(self) -> None: ...


@dataclass
class Bare:
    name: ClassVar[str] = "bare"


@dataclass
class NoDefault(Methods):
    rate: float
    name: ClassVar[str] = "no-default"


@dataclass
class OddType(Methods):
    name: ClassVar[str] = "odd-type"
    sizes: tuple[int, ...] = ()


@BOTH
@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (int, "no dataclass"),
        (NoDataclass, "no dataclass"),
        (NoName, "name must be a word such as 'my-"),
        (Awaited, "must be `def"),
        (Bare, "must be `def"),
        (NoDefault, "rate has no default"),
        (OddType, "sizes has the type"),
    ],
)
def test_what_an_author_gets_wrong(schema: Any, build: Any, wrong: type, said: str) -> None:
    with pytest.raises(InvalidParameter, match=said):
        schema(wrong)


def test_an_aggregator_says_whether_the_mean_is_enough() -> None:
    @dataclass
    class Unclear(Good):
        mean: ClassVar[Any] = "yes"

    with pytest.raises(InvalidParameter, match="mean must be True or False"):
        aggregator_schema(Unclear)
    assert learner_schema(Unclear)
