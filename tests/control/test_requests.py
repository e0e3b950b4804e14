import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedd.api.errors import FeddError, InvalidParameter, NotFound
from fedd.control.plain_http import encode_segment
from fedd.control.requests import (
    MethodNotAllowed,
    check_body,
    check_query,
    decode_segment,
    match,
)
from fedd.control.schema import ERRORS, ROUTES, error_document, error_kind


def route(operation: str):
    return next(route for route in ROUTES if route.operation == operation)


def test_operations_and_routes_are_unique() -> None:
    assert len({r.operation for r in ROUTES}) == len(ROUTES)
    assert len({(r.method, r.path) for r in ROUTES}) == len(ROUTES)


def test_every_error_of_the_plugin_api_has_a_row() -> None:
    def kinds(kind: type[FeddError]) -> set[str]:
        return {kind.code}.union(
            *(kinds(child) for child in kind.__subclasses__() if "fedd.api" in child.__module__)
        )

    assert kinds(FeddError) == set(ERRORS)
    for route_ in ROUTES:
        assert set(route_.errors) <= set(ERRORS), route_


def test_exit_codes_are_those_that_scripts_rely_on() -> None:
    expected = {"invalid": 2, "denied": 4, "not_found": 5, "timeout": 6, "conflict": 7, "unhealthy": 8}
    for code, kind in ERRORS.items():
        assert kind.exit_code == expected.get(code, 1)
    assert error_kind("from the future") == ERRORS["failed"]


def test_an_error_document_names_everything() -> None:
    error = NotFound("no such run", hint="see `fedctl runs`", field="run")
    assert error_document(error, "r1") == {
        "code": "not_found",
        "title": "Not found",
        "detail": "no such run",
        "hint": "see `fedctl runs`",
        "field": "run",
        "request_id": "r1",
    }


@pytest.mark.parametrize("wanted", ROUTES, ids=lambda r: r.operation)
def test_each_route_is_found_by_its_path(wanted) -> None:
    path = wanted.path.format(peer="b", name="temp", run="3f%2F9a")
    found, variables = match(wanted.method, path)
    assert found is wanted
    assert variables == {
        name: value
        for name, value in {"peer": "b", "name": "temp", "run": "3f/9a"}.items()
        if f"{{{name}}}" in wanted.path
    }


def test_a_wrong_method_tells_the_right_ones() -> None:
    with pytest.raises(MethodNotAllowed) as caught:
        match("PUT", "/v1/runs")
    assert caught.value.allowed == ("GET", "POST")


@pytest.mark.parametrize("path", ["/v2/status", "/v1", "/v1/status/x", "/v1/nothing/at/all/here"])
def test_an_unknown_path_is_not_found(path: str) -> None:
    with pytest.raises(NotFound, match="there is no route"):
        match("GET", path)


def test_a_misspelt_path_is_told_the_nearest() -> None:
    with pytest.raises(NotFound) as caught:
        match("GET", "/v1/stats")
    assert caught.value.hint == "did you mean /v1/status?"


@pytest.mark.parametrize(
    "path",
    ["", "/", "status", "/v1//status", "/v1/../v1/status", "/v1/runs/%2e%2e", "/v1/runs/a%00b", "/v1/runs/%"],
)
def test_a_path_with_tricks_is_refused(path: str) -> None:
    with pytest.raises(FeddError):
        match("GET", path)


def test_the_root_is_told_where_routes_begin() -> None:
    for path in ("", "/"):
        with pytest.raises(NotFound) as caught:
            match("GET", path)
        assert "/v1/status" in caught.value.hint


def test_what_is_no_text_has_no_place_in_a_path() -> None:
    with pytest.raises(InvalidParameter, match="not UTF-8"):
        encode_segment("\udcff")


def test_a_refused_number_is_told_its_exact_bounds_and_its_meaning() -> None:
    with pytest.raises(InvalidParameter, match="from 0 to 9223372036854775807") as caught:
        check_body(route("run"), {"algorithm": "consensus", "seed": -1})
    assert caught.value.hint == "seed means: of everything random in the run"


def test_bad_escapes_are_refused() -> None:
    for text in ("%zz", "%f", "%ff"):
        with pytest.raises(InvalidParameter):
            decode_segment(text)


@given(st.text(max_size=40))
@settings(max_examples=100, deadline=None)
def test_segments_survive_encoding(text: str) -> None:
    encoded = encode_segment(text)
    assert encoded.isascii()
    assert not set(encoded) & set("/?& ")
    assert decode_segment(encoded) == text


def test_defaults_are_filled_in_and_types_made() -> None:
    assert check_body(route("invite"), {"expires_s": 60}) == {
        "uses": 1,
        "expires_s": 60.0,
        "approve": False,
    }
    body = check_body(route("run"), {"algorithm": "consensus", "members": None})
    assert body["contract"] is None
    assert body["members"] is None
    assert body["parameters"] == {}


@pytest.mark.parametrize(
    ("operation", "body", "field", "said"),
    [
        ("invite", {"usess": 2}, "usess", "unknown key"),
        ("invite", {"uses": 0}, "uses", "whole number from 1 to 10000"),
        ("invite", {"uses": True}, "uses", "whole number"),
        ("invite", {"uses": "2"}, "uses", "whole number"),
        ("invite", {"expires_s": float("nan")}, "expires_s", "seconds"),
        ("invite", {"expires_s": "1h"}, "expires_s", "seconds"),
        ("invite", {"approve": 1}, "approve", "true or false"),
        ("init", {}, "federation", "is missing"),
        ("init", {"federation": None}, "federation", "is missing"),
        ("init", {"federation": ""}, "federation", "not a text"),
        ("init", {"federation": 3}, "federation", "not a text"),
        ("init", {"federation": "x" * 70_000}, "federation", "..."),
        ("set", {}, "value", "is missing"),
        ("run", {"algorithm": "a", "parameters": []}, "parameters", "an object"),
        ("run", {"algorithm": "a", "members": "a,b"}, "members", "a list of texts"),
        ("run", {"algorithm": "a", "members": [1]}, "members", "a list of texts"),
        ("run", {"algorithm": "a", "quorum": "most"}, "quorum", "a share"),
        ("run", {"algorithm": "a", "quorum": 0}, "quorum", "a share"),
        ("run", {"algorithm": "a", "quorum": True}, "quorum", "a share"),
        ("run", {"algorithm": "a", "pace_s": -1}, "pace_s", "seconds"),
        ("status", {"verbose": True}, "verbose", "unknown key"),
    ],
)
def test_a_bad_field_is_named(operation: str, body: object, field: str, said: str) -> None:
    with pytest.raises(InvalidParameter, match=said) as caught:
        check_body(route(operation), body)
    assert caught.value.field == field


def test_a_misspelt_field_is_told_the_nearest() -> None:
    with pytest.raises(InvalidParameter) as caught:
        check_body(route("run"), {"algoritm": "consensus"})
    assert caught.value.hint == "did you mean algorithm?"


@pytest.mark.parametrize("body", [[], "x", 3, None])
def test_a_body_is_an_object(body: object) -> None:
    with pytest.raises(InvalidParameter, match="no JSON object"):
        check_body(route("invite"), body)


@pytest.mark.parametrize("value", [0, 20.5, "warm", None, False, [1, [2]], {"a": 1}])
def test_an_input_may_be_any_json_value(value: object) -> None:
    assert check_body(route("set"), {"value": value}) == {"value": value}


def test_quorums_are_numbers_or_shares() -> None:
    for quorum in (3, "3", "60%"):
        assert check_body(route("run"), {"algorithm": "a", "quorum": quorum})["quorum"] == quorum


def test_queries_are_texts_turned_into_their_types() -> None:
    assert check_query(route("events"), {}) == {"since": None}
    assert check_query(route("events"), {"since": "7"}) == {"since": 7}
    for bad in ({"since": "x"}, {"since": "-1"}, {"since": "7" * 30}, {"until": "7"}):
        with pytest.raises(InvalidParameter):
            check_query(route("events"), bad)
