"""Inputs: every format, and where in the file it is wrong."""

from __future__ import annotations

import io
import os
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedd.api import InvalidMessage
from fedd.core.codec import ArrayView
from fedd.worker import inputs
from fedd.worker.inputs import parse, parse_csv, read_input


def handle(content: bytes, format: str) -> dict[str, Any]:
    source = tempfile.TemporaryFile()  # noqa: SIM115 - read_input closes a duplicate
    source.write(content)
    source.seek(0)
    return {
        "kind": "file",
        "fd": os.dup(source.fileno()),
        "format": format,
        "path": "/data/table",
        "name": "t",
    }


def test_no_input_is_none() -> None:
    assert read_input(None) is None
    assert read_input({}) is None
    assert read_input({"kind": "none"}) is None


def test_a_value_is_itself_and_arrays_become_numpy() -> None:
    view = ArrayView("float64", (2,), np.array([1.0, 2.0]).tobytes())
    value = read_input({"kind": "value", "name": "x", "value": {"a": [1, view]}})
    assert value["a"][0] == 1
    assert value["a"][1].tolist() == [1.0, 2.0]


def test_a_csv_without_header_is_an_array() -> None:
    value = read_input(handle(b"1,2\n3, 4e1\n\n-5,6\n", "csv"))
    assert value.tolist() == [[1, 2], [3, 40], [-5, 6]]
    assert value.dtype == np.float64


def test_a_csv_with_header_is_columns() -> None:
    value = read_input(handle('\ufeffage, "b,c"\r\n1,2\r\n3, 4\r\n'.encode(), "csv"))
    assert {name: column.tolist() for name, column in value.items()} == {"age": [1, 3], "b,c": [2, 4]}
    assert value["age"].dtype == np.float64
    assert parse_csv(b"a,b\n", "t")["a"].shape == (0,)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "t is empty"),
        (b"\n \n", "t is empty"),
        (b"1,2\n3,x\n", "t, row 2, column 2: 'x' is no number"),
        (b"a,b\n1,2\n3,warm\n", "t, row 3, column 2 (b): 'warm' is no number"),
        (b"1,2\n\n3,\n", "t, row 3, column 2: '' is no number"),
        (b"1,2\n3\n", "t, row 2: 1 values where 2 are expected"),
        (b"a,b\n1,2,3\n", "t, row 2: 3 values where 2 are expected"),
        (b"a,a\n1,2\n", "t, row 1, column 2: a column 'a' twice"),
        (b"a,\n1,2\n", "t, row 1, column 2: a column without a name"),
        (b"\xff\xfe1,2\n", "no UTF-8 text (byte 0)"),
        (b'1,"2\n', "no CSV file"),
    ],
)
def test_a_csv_that_is_no_table(content: bytes, said: str) -> None:
    with pytest.raises(InvalidMessage) as raised:
        parse(content, "csv", "t")
    assert said in str(raised.value)


def saved(array: Any, **more: Any) -> bytes:
    buffer = io.BytesIO()
    if more:
        np.savez_compressed(buffer, x=array, **more)
    else:
        np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def test_npy_and_npz() -> None:
    array = np.arange(6, dtype=np.int16).reshape(2, 3)
    value = read_input(handle(saved(array), "npy"))
    assert (value.dtype, value.tolist()) == (np.int16, array.tolist())
    value = read_input(handle(saved(array, y=np.ones(2)), "npz"))
    assert value["x"].tolist() == array.tolist()
    assert value["y"].tolist() == [1, 1]


@pytest.mark.parametrize(
    ("content", "format", "said"),
    [
        (saved(np.array([object()], dtype=object)), "npy", "no .npy file"),
        (saved(np.array(["text"])), "npy", "holds <U4 values"),
        (saved(np.ones(2), z=np.array([b"x"])), "npz", "[z] holds"),
        (saved(np.ones(2, dtype=np.complex128)), "npy", "holds complex128"),
        (b"rubbish", "npy", "no .npy file"),
        (saved(np.ones(9))[:-8], "npy", "no .npy file"),
        (b"PK\x03\x04rubbish", "npz", "no .npz file"),
        (b"[1, 2", "json", "no JSON value"),
        (b"[" * 100_000, "json", "no JSON value"),
        (b"1", "xlsx", "unknown format 'xlsx'"),
    ],
)
def test_files_that_are_not_what_they_say(content: bytes, format: str, said: str) -> None:
    with pytest.raises(InvalidMessage) as raised:
        parse(content, format, "t")
    assert said in str(raised.value)


def test_json_is_a_value() -> None:
    assert read_input(handle(b'{"a": [1, 2.5]}', "json")) == {"a": [1, 2.5]}
    described = handle(b"20.5\n", "json")
    assert read_input({**described, "kind": "command"}) == 20.5


def test_what_is_too_large_is_refused_before_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "MAX_INPUT_BYTES", 1000)
    with pytest.raises(InvalidMessage, match="larger than 1000 bytes"):
        read_input(handle(b"1\n" * 501, "csv"))
    reader, writer = os.pipe()
    os.write(writer, b"1\n" * 501)
    os.close(writer)
    with pytest.raises(InvalidMessage, match="larger than 1000 bytes"):
        read_input({"kind": "command", "fd": reader, "format": "csv", "name": "c"})
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", bytes(100_000))
    assert len(bomb.getvalue()) < 1000
    with pytest.raises(InvalidMessage, match="expands to 100000 bytes"):
        read_input(handle(bomb.getvalue(), "npz"))


def test_the_descriptor_is_closed(tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    file.write_bytes(b"1")
    descriptor = os.open(file, os.O_RDONLY)
    assert read_input({"kind": "file", "fd": descriptor, "format": "json", "path": str(file)}) == 1
    with pytest.raises(OSError):
        os.fstat(descriptor)
