"""Dataclass fields as parameters: what fedctl can ask for, and what an author did wrong."""

from __future__ import annotations

from dataclasses import dataclass, field, make_dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import pytest
from numpy.typing import NDArray

from fedd.api import CommandContext, InvalidParameter, Message, RunContext
from fedd.worker.parameters import (
    Parameter,
    Terms,
    build,
    build_command,
    command_kind,
    command_schema,
    command_terms,
    schema,
)


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
    n: int = "three"


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


class Handles:
    name: ClassVar[str] = "handles"

    async def handle(self, ctx: CommandContext) -> Message:
        return None


@dataclass(frozen=True)
class Told(Handles):
    """It is told."""

    name: ClassVar[str] = "told"
    text: str
    weights: Message
    scale: np.ndarray
    count: int = 3
    more: Message = None
    mask: NDArray[np.float64] = field(default_factory=lambda: np.ones(2))


def test_a_commands_fields() -> None:
    found = {parameter.name: parameter for parameter in command_schema(Told)}
    assert {name: each.type for name, each in found.items()} == {
        "text": "str",
        "weights": "message",
        "scale": "array",
        "count": "int",
        "more": "message",
        "mask": "array",
    }
    assert [name for name, each in found.items() if each.required] == ["text", "weights", "scale"]
    assert command_terms(Told) == Terms("1.0.0", "members", 65_536, 10.0)


def test_a_command_of_values() -> None:
    told = build_command(
        command_kind(Told), {"text": "x", "weights": [{"a": 1}], "scale": [[1, 2], [3, 4]], "count": "7"}
    )
    assert isinstance(told, Told)
    assert (told.weights, told.count, told.scale.shape) == ([{"a": 1}], 7, (2, 2))
    for given, blamed in (
        ({"text": "x", "weights": 1}, "scale"),
        ({"text": "x", "weights": 1, "scale": [[1], [1, 2]]}, "scale"),
        ({"text": "x", "weights": 1, "scale": ["a"]}, "scale"),
        ({"text": "x", "weights": 1, "scale": 1, "wieghts": 2}, "wieghts"),
    ):
        with pytest.raises(InvalidParameter) as caught:
            build_command(command_kind(Told), given)
        assert caught.value.field == blamed


def test_annotations_that_are_no_texts() -> None:
    """Without `from __future__ import annotations` they are types already."""
    made = make_dataclass("Made", [("value", Message), ("size", int, 1)], bases=(Handles,), frozen=True)
    made.name = "made"
    assert [parameter.type for parameter in command_schema(made)] == ["message", "int"]


@pytest.mark.parametrize(
    ("terms", "said"),
    [
        ({"version": "one"}, "version"),
        ({"version": 1}, "version"),
        ({"audience": "all"}, "audience"),
        ({"max_payload_bytes": 0}, "max_payload_bytes"),
        ({"max_payload_bytes": 1 << 30}, "max_payload_bytes"),
        ({"max_payload_bytes": True}, "max_payload_bytes"),
        ({"timeout_s": 0}, "timeout_s"),
        ({"timeout_s": 31}, "timeout_s"),
        ({"timeout_s": "1"}, "timeout_s"),
    ],
)
def test_terms_that_make_no_sense(terms: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidParameter, match=said):
        command_terms(type("Odd", (Handles,), terms))


@dataclass(frozen=True)
class Tell:
    """Tells."""

    name: ClassVar[str] = "tell"
    event_text: ClassVar[str] = "said"
    said: str = field(metadata={"max_chars": 20})
    place: str = ""
    level: int = 1
    mode: Literal["loud", "quiet"] = "quiet"


def test_a_notice() -> None:
    found = {parameter.name: parameter for parameter in command_schema(Tell)}
    assert {name: each.max_chars for name, each in found.items()} == {
        "said": 20,
        "place": 512,
        "level": None,
        "mode": None,
    }
    assert command_terms(Tell).event_text == "said"
    kind = command_kind(Tell)
    assert build_command(kind, {"said": "x" * 20}) == Tell("x" * 20)
    for given, blamed in (
        ({"said": "x" * 21}, "said"),
        ({"said": "  "}, "said"),
        ({"said": "x", "place": "y" * 513}, "place"),
        ({"said": "x", "mode": "odd"}, "mode"),
    ):
        with pytest.raises(InvalidParameter) as caught:
            build_command(kind, given)
        assert caught.value.field == blamed


@pytest.mark.parametrize(
    ("fields", "more", "said"),
    [
        ([("said", str)], {"handle": Handles.handle}, "its handle is never called"),
        ([("said", str)], {"__post_init__": print}, "its __post_init__ is never called"),
        ([("text", str)], {}, "event_text is 'said'"),
        ([("said", int)], {}, "event_text is 'said'"),
        ([("said", Literal["a", "b"])], {}, "event_text is 'said'"),
        ([("said", str), ("more", Message)], {}, "more is a message"),
        ([("said", str), ("seq", int)], {}, "the event log itself writes 'seq'"),
        ([("said", str, field(metadata={"max_chars": 513}))], {}, "texts of up to 512"),
        ([("said", str, field(default="x" * 513))], {}, "said has 513 characters"),
        ([("said", str), *((f"f{n}", int) for n in range(17))], {}, "more than 16 fields"),
        ([("said", str)], {"audience": "run"}, "nobody could send"),
        ([("said", str)], {"event_text": 7}, "event_text is 7"),
    ],
)
def test_what_an_author_of_a_notice_gets_wrong(fields: list[Any], more: dict[str, Any], said: str) -> None:
    made = make_dataclass(
        "Made", fields, namespace={"name": "made", "event_text": "said", **more}, frozen=True
    )
    with pytest.raises(InvalidParameter, match=said):
        command_kind(made)


def test_a_notice_has_sixteen_fields_and_a_name_of_its_own_for_its_text() -> None:
    names = [("text", str), *((f"f{n}", int) for n in range(16))]
    made = make_dataclass("Made", names, namespace={"name": "made", "event_text": "text"}, frozen=True)
    assert len(command_schema(made)) == 17


def test_a_field_of_that_name_makes_no_notice() -> None:
    made = make_dataclass("Made", [("event_text", str, "x")], bases=(Handles,), frozen=True)
    made.name = "made"
    assert command_terms(made).event_text == ""
    assert [parameter.name for parameter in command_schema(made)] == ["event_text"]
    made.handle = None
    with pytest.raises(InvalidParameter, match="async def handle"):
        command_schema(made)


@pytest.mark.parametrize(("kind", "most"), [(int, 3), (str, 0), (str, "3"), (str, True)])
def test_a_longest_text_that_makes_no_sense(kind: type, most: object) -> None:
    made = make_dataclass("Made", [("x", kind, field(metadata={"max_chars": most}))], bases=(Handles,))
    with pytest.raises(InvalidParameter, match=r"Made\.x has max_chars="):
        command_schema(made)


def test_a_command_with_a_handler_has_long_texts_unless_it_says_otherwise() -> None:
    made = make_dataclass(
        "Made", [("short", str, field(metadata={"max_chars": 3})), ("long", str)], bases=(Handles,)
    )
    made.name = "made"
    kind = command_kind(made)
    assert build_command(kind, {"short": "abc", "long": "x" * 9999})
    with pytest.raises(InvalidParameter, match="short has 4 characters, write up to 3"):
        build_command(kind, {"short": "abcd", "long": ""})


def test_a_class_that_is_no_command() -> None:
    @dataclass(frozen=True)
    class Sync:
        name: ClassVar[str] = "sync"

        def handle(self, ctx: CommandContext) -> Message:
            return None

    @dataclass(frozen=True)
    class Odd(Handles):
        when: complex = 0j

    with pytest.raises(InvalidParameter, match="async def handle"):
        command_schema(Sync)
    with pytest.raises(InvalidParameter, match="complex") as caught:
        command_schema(Odd)
    assert "a NumPy array or a Message" in caught.value.hint
