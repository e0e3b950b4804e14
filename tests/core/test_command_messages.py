"""What travels of a command comes back as it was, and nothing else is taken for one."""

from __future__ import annotations

from typing import Any

import pytest

from fedd.api.errors import Denied, FeddError, InvalidMessage, InvalidParameter, PluginFailed, ProtocolError
from fedd.core import codec
from fedd.core import command_messages as messages


@pytest.mark.parametrize(
    ("version", "protocol"), [("1.2", "/fedd/command/note/1.2"), ("", "/fedd/command/note")]
)
def test_protocol_ids(version: str, protocol: str) -> None:
    assert messages.protocol_of("note", version) == protocol
    assert messages.command_of(protocol) == ("note", version)


@pytest.mark.parametrize(
    ("one", "other", "talk"),
    [
        ("1.0.0", "1.9", True),
        ("1.0", "2.0", False),
        ("", "2.0", True),
        ("2.0", "", True),
        ("10.0", "1.0", False),
    ],
)
def test_versions(one: str, other: str, talk: bool) -> None:
    assert messages.compatible(one, other) is talk


def test_a_value_comes_back() -> None:
    array = codec.ArrayView("float64", (1,), b"\0" * 8)
    answer = messages.encode_value({"list": [1, None, "x"], "array": array})
    assert not messages.is_error(answer)
    assert messages.read_answer(answer, 1000) == {"list": [1, None, "x"], "array": array}
    with pytest.raises(InvalidMessage):
        messages.encode_value(object())


def test_an_error_comes_back_in_its_class() -> None:
    answer = messages.encode_error(InvalidParameter("no", hint="try", field="text"))
    assert messages.is_error(memoryview(answer))
    with pytest.raises(InvalidParameter) as caught:
        messages.read_answer(answer, 1000)
    assert (caught.value.detail, caught.value.hint, caught.value.field) == ("no", "try", "text")


def test_every_error_of_ours_is_known() -> None:
    for cls in (FeddError, *FeddError.__subclasses__()):
        if cls.__module__ == "fedd.api.errors":
            assert type(messages.error_of(messages.error_fields(cls("why")))) is cls


def test_long_and_broken_texts_are_cut() -> None:
    fields = messages.error_fields(Denied("x" * 5000 + "\ud800", hint="\ud800"))
    assert (len(fields["detail"]), fields["hint"]) == (1000, "?")


@pytest.mark.parametrize("fields", [None, [], {}, {"code": "zzz"}, {"code": None, "detail": ""}])
def test_an_error_without_a_meaning(fields: Any) -> None:
    error = messages.error_of(fields)
    assert type(error) is PluginFailed
    assert error.detail == "no reason was given"


@pytest.mark.parametrize(
    "answer",
    [b"", b"\xff", b"\x01", codec.encode({}), codec.encode({"value": 1, "error": {}}), codec.encode([1])],
)
def test_what_is_no_answer(answer: bytes) -> None:
    with pytest.raises(ProtocolError, match="answer"):
        messages.read_answer(answer, 1000)


def test_an_answer_has_a_bound() -> None:
    with pytest.raises(ProtocolError, match="longer"):
        messages.read_answer(messages.encode_value(b"x" * 6000), 1000)


def test_a_broadcast_comes_back() -> None:
    payload = messages.encode_broadcast("note", "1.0.0", {"text": "hi"})
    assert messages.read_broadcast(payload, 1000) == ("note", "1.0.0", {"text": "hi"})


@pytest.mark.parametrize(
    "found", [[], {}, {"command": 1, "version": "1", "parameters": {}}, {"command": "a", "version": "1"}]
)
def test_what_is_no_broadcast(found: Any) -> None:
    with pytest.raises(ProtocolError):
        messages.read_broadcast(codec.encode(found), 1000)


def test_parameters() -> None:
    assert messages.read_parameters(codec.encode({"a": 1}), 100) == {"a": 1}
    with pytest.raises(ProtocolError, match="no map"):
        messages.read_parameters(codec.encode([1]), 100)
