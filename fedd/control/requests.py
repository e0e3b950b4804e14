"""Requests against the table of routes: which one is meant, and are its fields acceptable. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from fedd.api.errors import InvalidParameter, NotFound
from fedd.control.schema import ROUTES, Field, Route


class MethodNotAllowed(InvalidParameter):
    """The path exists, with other methods: `allowed` names them."""

    def __init__(self, method: str, path: str, allowed: tuple[str, ...]) -> None:
        super().__init__(f"{method} is not possible on {path}", hint=f"it understands {', '.join(allowed)}")
        self.allowed = allowed


class UnknownRoute(NotFound):
    """No route has that path."""


def match(method: str, path: str) -> tuple[Route, dict[str, str]]:
    """The route and the path's variable segments, percent-decoded.

    Raises UnknownRoute, MethodNotAllowed, or InvalidParameter when the path has a NUL, `..` or bad escapes.
    """
    if path in ("", "/"):
        raise UnknownRoute(f"there is no route {path!r}", hint="routes begin with /v1/, such as /v1/status")
    segments = [decode_segment(segment) for segment in path.split("/")[1:]] if path.startswith("/") else []
    if any(segment in ("", ".", "..") or "\x00" in segment for segment in segments):
        raise InvalidParameter(f"the path {path!r} has an empty, dotted or unprintable part", field="path")
    allowed: list[str] = []
    for route in ROUTES:
        found = _match_path(route.path, segments)
        if found is not None:
            if route.method == method:
                return route, found
            allowed.append(route.method)
    if allowed:
        raise MethodNotAllowed(method, path, tuple(allowed))
    near = _nearest(path, [route.path for route in ROUTES])
    raise UnknownRoute(f"there is no route {path!r}", hint=near or "routes begin with /v1/")


def check_body(route: Route, body: Any) -> dict[str, Any]:
    """The request's fields, each present with its final type, defaults filled in.

    Raises InvalidParameter that names the field.
    """
    if not isinstance(body, dict):
        raise InvalidParameter("the request's body is no JSON object", hint=f"send {_shape(route.fields)}")
    return _check_fields(route.fields, body)


def check_query(route: Route, query: Mapping[str, str]) -> dict[str, Any]:
    """As `check_body`, of the query's texts."""
    typed: dict[str, Any] = dict(query)
    for field in route.query:
        text = typed.get(field.name)
        if field.type == "integer" and isinstance(text, str) and re.fullmatch(r"-?[0-9]{1,19}", text):
            typed[field.name] = int(text)
    return _check_fields(route.query, typed)


def decode_segment(text: str) -> str:
    """Undo percent-encoding. Raises InvalidParameter on bad escapes and on bytes that are not UTF-8."""
    if "%" not in text:
        return text
    if re.search(r"%(?![0-9A-Fa-f]{2})", text):
        raise InvalidParameter(f"{text!r} has a bad percent escape", field="path")
    raw = re.sub(
        rb"%([0-9A-Fa-f]{2})", lambda found: bytes([int(found[1], 16)]), text.encode("ascii", "replace")
    )
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidParameter(f"{text!r} is not UTF-8", field="path") from error


def _match_path(template: str, segments: list[str]) -> dict[str, str] | None:
    parts = template.split("/")[1:]
    if len(parts) != len(segments):
        return None
    found: dict[str, str] = {}
    for part, segment in zip(parts, segments, strict=True):
        if part.startswith("{"):
            found[part[1:-1]] = segment
        elif part != segment:
            return None
    return found


def _check_fields(fields: tuple[Field, ...], given: Mapping[str, Any]) -> dict[str, Any]:
    known = {field.name for field in fields}
    for name in given:
        if name not in known:
            hint = _nearest(str(name), sorted(known)) or f"send {_shape(fields)}"
            raise InvalidParameter(f"unknown key {name!r}", hint=hint, field=str(name))
    checked: dict[str, Any] = {}
    for field in fields:
        value = given.get(field.name)
        if field.type == "any":
            if field.name not in given:
                raise InvalidParameter(f"{field.name} is missing", hint=field.help, field=field.name)
        elif value is None:
            if field.required:
                raise InvalidParameter(f"{field.name} is missing", hint=field.help, field=field.name)
            value = field.default
        else:
            value = _check_value(field, value)
        checked[field.name] = value
    return checked


def _check_value(field: Field, value: Any) -> Any:
    good = False
    wanted = field.type
    if field.type == "text":
        good, wanted = isinstance(value, str) and 0 < len(value) <= 65_536, "a text of 1 to 65536 characters"
    elif field.type == "integer":
        good = isinstance(value, int) and not isinstance(value, bool) and field.low <= value <= field.high
        wanted = f"a whole number from {int(field.low)} to {int(field.high)}"
    elif field.type == "seconds":
        good = isinstance(value, int | float) and not isinstance(value, bool)
        good = good and math.isfinite(value) and field.low <= value <= field.high
        wanted = f"a number of seconds from {field.low:g} to {field.high:.10g}"
        value = float(value) if good else value
    elif field.type == "flag":
        good, wanted = isinstance(value, bool), "true or false"
    elif field.type == "texts":
        good = isinstance(value, list) and all(isinstance(item, str) and item for item in value)
        wanted = "a list of texts"
    elif field.type == "object":
        good, wanted = isinstance(value, dict), "an object"
    elif field.type == "quorum":
        is_count = isinstance(value, int) and not isinstance(value, bool) and value >= 1
        is_text = isinstance(value, str) and re.fullmatch(r"[0-9]{1,6}%?", value) is not None
        good, wanted = is_count or is_text, "a number of members, or a share like '60%'"
    if not good:
        shown = repr(value)
        shown = shown if len(shown) <= 60 else shown[:57] + "..."
        raise InvalidParameter(
            f"{field.name} is {shown}, not {wanted}",
            hint=f"{field.name} means: {_lower(field.help)}",
            field=field.name,
        )
    return value


def _lower(sentence: str) -> str:
    """A sentence of the table as the end of another."""
    return sentence[:1].lower() + sentence[1:].rstrip(".")


def _shape(fields: tuple[Field, ...]) -> str:
    return "{" + ", ".join(field.name if field.required else f"{field.name}?" for field in fields) + "}"


def _nearest(name: str, known: list[str]) -> str:
    import difflib  # here, because fedctl pays for every import and needs this one for mistakes only

    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {near[0]}?" if near else ""
