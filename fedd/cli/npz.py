"""NumPy's .npz files without NumPy: fedctl starts in milliseconds and imports little.

Format: a zip archive of .npy files of version 1.0 (NumPy's documentation, numpy.lib.format).
"""

from __future__ import annotations

import base64
import struct
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any, Final

_CODES: Final = {
    "float16": "<f2",
    "float32": "<f4",
    "float64": "<f8",
    "int8": "|i1",
    "int16": "<i2",
    "int32": "<i4",
    "int64": "<i8",
    "uint8": "|u1",
    "uint16": "<u2",
    "uint32": "<u4",
    "uint64": "<u8",
}


@dataclass(frozen=True)
class Entry:
    """An array of the file: NumPy's type code, shape, and its bytes in C order, little-endian."""

    name: str
    code: str
    shape: tuple[int, ...]
    data: bytes


def write_npz(file: IO[bytes], entries: Sequence[Entry]) -> None:
    """Write the arrays, compressed. Names must differ."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for entry in entries:
            # a fixed date: equal results give equal files
            info = zipfile.ZipInfo(f"{entry.name}.npy", (1980, 1, 1, 0, 0, 0))
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, _header(entry) + entry.data)


def _header(entry: Entry) -> bytes:
    text = f"{{'descr': {entry.code!r}, 'fortran_order': False, 'shape': {entry.shape!r}, }}"
    start = b"\x93NUMPY\x01\x00"
    padding = -(len(start) + 2 + len(text) + 1) % 64
    body = text.encode() + b" " * padding + b"\n"
    return start + struct.pack("<H", len(body)) + body


def numbers(name: str, values: Sequence[float | None]) -> Entry:
    """A row of numbers as float64, NaN where there is none."""
    filled = [float("nan") if value is None else float(value) for value in values]
    return Entry(name, "<f8", (len(filled),), struct.pack(f"<{len(filled)}d", *filled))


def whole_numbers(name: str, values: Sequence[int]) -> Entry:
    """A row of integers as int64."""
    return Entry(name, "<i8", (len(values),), struct.pack(f"<{len(values)}q", *values))


def value_entries(name: str, value: Any) -> Iterator[Entry]:
    """A run's value as arrays: parts of a map are NAME.KEY, of a list that is no array NAME.INDEX.

    None, and what no array can hold, is passed over.
    """
    if isinstance(value, Mapping):
        if set(value) == {"shape", "dtype", "base64"} and value["dtype"] in _CODES:
            data = base64.b64decode(value["base64"])
            yield Entry(name, _CODES[value["dtype"]], tuple(value["shape"]), data)
        elif set(value) == {"base64"}:
            data = base64.b64decode(value["base64"])
            yield Entry(name, "|u1", (len(data),), data)
        else:
            for key, part in value.items():
                yield from value_entries(f"{name}.{key}", part)
    elif isinstance(value, str):
        yield Entry(name, f"<U{max(1, len(value))}", (), value.ljust(1, "\0").encode("utf-32-le"))
    elif isinstance(value, bool | int | float | list):
        shape, flat = _flatten(value)
        if shape is not None:
            yield _plain(name, shape, flat)
        elif isinstance(value, list):
            for index, part in enumerate(value):
                yield from value_entries(f"{name}.{index}", part)


def _plain(name: str, shape: tuple[int, ...], flat: list[Any]) -> Entry:
    if flat and all(isinstance(item, bool) for item in flat):
        return Entry(name, "|b1", shape, bytes(flat))
    if flat and all(isinstance(item, int) and -(1 << 63) <= item < 1 << 63 for item in flat):
        return Entry(name, "<i8", shape, struct.pack(f"<{len(flat)}q", *flat))
    return Entry(name, "<f8", shape, struct.pack(f"<{len(flat)}d", *map(float, flat)))


def _flatten(value: Any) -> tuple[tuple[int, ...] | None, list[Any]]:
    """(shape, elements in C order) of a number or nested lists of them; no shape when they are no array."""
    if not isinstance(value, list):
        if isinstance(value, bool | int | float):
            return (), [value]
        return None, []
    parts = [_flatten(item) for item in value]
    shapes = {shape for shape, _ in parts}
    if not parts:
        return (0,), []
    if len(shapes) != 1 or None in shapes:
        return None, []
    inner = parts[0][0] or ()
    return (len(parts), *inner), [item for _, flat in parts for item in flat]
