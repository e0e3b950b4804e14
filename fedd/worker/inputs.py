"""A device's inputs, parsed where NumPy is: numbers, tables and arrays from what the daemon opened."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from fedd.api.errors import InvalidMessage
from fedd.worker import arrays

if TYPE_CHECKING:
    from fedd.api.types import FloatArray

MAX_INPUT_BYTES = 256 * 1024 * 1024
"""A worker on a small board has 512 MiB; larger tables belong to a learner, which streams them."""
_MAX_CELL = 64
"""Characters of a cell that an error message repeats."""


def read_input(handle: Mapping[str, Any] | None) -> Any:
    """The value of an input, from the handle that came with the run's start.

    `{"kind": "value", "value": ...}` is the value; kinds "file" and "command" have an open descriptor
    "fd", a "format" (csv, npy, npz, json) and a "path" or "name" for messages; "learner" has its data as a
    handle of another kind in "data". None for no input.

    Raises InvalidMessage, saying where in the file, when the content is not what the format says.
    """
    if not handle or handle.get("kind") in (None, "none"):
        return None
    if handle["kind"] == "learner":
        return read_input(handle.get("data"))
    if handle["kind"] == "value":
        return arrays.from_wire(handle["value"])
    label = str(handle.get("path") or handle.get("name") or "the input")
    return parse(read_bounded(handle["fd"], label), handle.get("format") or "", label)


def read_bounded(descriptor: int, label: str) -> bytes:
    """Everything from a descriptor, which is then closed. InvalidMessage beyond MAX_INPUT_BYTES."""
    with open(descriptor, "rb", buffering=0) as source:
        if os.fstat(source.fileno()).st_size > MAX_INPUT_BYTES:
            raise InvalidMessage(f"{label} is larger than {MAX_INPUT_BYTES} bytes")
        content = bytearray()
        while part := source.read(1 << 20):
            content += part
            if len(content) > MAX_INPUT_BYTES:
                raise InvalidMessage(f"{label} is larger than {MAX_INPUT_BYTES} bytes")
    return bytes(content)


def parse(content: bytes, format: str, label: str) -> Any:
    """The value in a file's content. InvalidMessage when it is not of that format."""
    match format:
        case "csv":
            return parse_csv(content, label)
        case "npy" | "npz":
            return _parse_numpy(content, format, label)
        case "json" | "":
            return _parse_json(content, label)
    raise InvalidMessage(f"{label} has the unknown format {format!r}", hint="use .csv, .npy, .npz or .json")


def parse_csv(content: bytes, label: str) -> FloatArray | dict[str, FloatArray]:
    """A table of numbers, float64: {column: values} when the first row holds a name, else (rows, columns).

    Raises InvalidMessage with row and column, both counted from 1, for text, a missing value or a row of
    another length.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidMessage(f"{label} is no UTF-8 text (byte {error.start})") from None
    rows: list[tuple[int, list[str]]] = []
    try:
        for number, row in enumerate(
            csv.reader(io.StringIO(text), strict=True, skipinitialspace=True), start=1
        ):
            if any(cell.strip() for cell in row):
                rows.append((number, row))
    except csv.Error as error:
        raise InvalidMessage(f"{label} is no CSV file: {error}") from None
    if not rows:
        raise InvalidMessage(f"{label} is empty")
    header = None if all(_number(cell) is not None for cell in rows[0][1]) else _header(rows.pop(0)[1], label)
    width = len(header) if header is not None else len(rows[0][1])
    table = np.empty((len(rows), width))
    for index, (number, row) in enumerate(rows):
        if len(row) != width:
            raise InvalidMessage(f"{label}, row {number}: {len(row)} values where {width} are expected")
        numbers = [_number(cell) for cell in row]
        for column, value in enumerate(numbers):
            if value is None:
                where = f"{label}, row {number}, column {column + 1}"
                name = f" ({header[column]})" if header else ""
                raise InvalidMessage(f"{where}{name}: {row[column][:_MAX_CELL]!r} is no number")
        table[index] = numbers
    return table if header is None else {name: table[:, at].copy() for at, name in enumerate(header)}


def _header(row: list[str], label: str) -> list[str]:
    names = [cell.strip() for cell in row]
    for column, name in enumerate(names):
        if not name or names.index(name) != column:
            said = f"{name[:_MAX_CELL]!r} twice" if name else "without a name"
            raise InvalidMessage(f"{label}, row 1, column {column + 1}: a column {said}")
    return names


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None


def _parse_numpy(content: bytes, format: str, label: str) -> Any:
    """An array, or {name: array} of a .npz; objects (pickles) are refused, so is more than the bound."""
    try:
        loaded = np.load(io.BytesIO(content), allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return _numeric(loaded, label)
        with loaded:
            expanded = sum(member.file_size for member in loaded.zip.infolist())
            if expanded > MAX_INPUT_BYTES:
                raise InvalidMessage(f"{label} expands to {expanded} bytes, more than {MAX_INPUT_BYTES}")
            return {name: _numeric(loaded[name], f"{label}[{name}]") for name in loaded.files}
    except InvalidMessage:
        raise
    except Exception as error:  # zipfile, zlib, struct and numpy each have errors of their own
        raise InvalidMessage(f"{label} is no .{format} file of numbers: {error}") from None


def _numeric(array: Any, label: str) -> Any:
    if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
        raise InvalidMessage(f"{label} holds {array.dtype} values", hint="store float or integer arrays")
    return array


def _parse_json(content: bytes, label: str) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InvalidMessage(f"{label} is no JSON value: {error}") from None
