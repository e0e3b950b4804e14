"""The shipped digits, read and divided without NumPy: fedctl stays light."""

from __future__ import annotations

import ast
import importlib.util
import io
import struct
import zipfile
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

CLASSES = 10
PIXELS = 64
LEVELS = 16.0
EVERY = 5
"""Each fifth image is for testing: 360 of 1797, as published figures have it."""

_MAGIC = b"\x93NUMPY\x01\x00"
_ALIGN = 64


@dataclass(frozen=True)
class Images:
    """Rows of 64 grey levels from 0 to 16, and what each shows."""

    rows: tuple[bytes, ...]
    labels: bytes

    def of(self, classes: Sequence[int]) -> Images:
        """Those that show one of these."""
        chosen = [i for i, label in enumerate(self.labels) if label in classes]
        return Images(tuple(self.rows[i] for i in chosen), bytes(self.labels[i] for i in chosen))


def load() -> tuple[Images, Images]:
    """(for training, for testing)."""
    spec = importlib.util.find_spec("fedd_learners")  # where its data lies; nothing of it is imported
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError("the plugin fedd_learners, which has the digits, is not installed")
    with zipfile.ZipFile(Path(spec.submodule_search_locations[0]) / "digits.npz") as archive:
        pixels = read_bytes(archive.read("x.npy"))
        labels = read_bytes(archive.read("y.npy"))
    rows = [pixels[i : i + PIXELS] for i in range(0, len(pixels), PIXELS)]
    parts: tuple[list[int], list[int]] = ([], [])
    for index in range(len(labels)):
        parts[index % EVERY == 0].append(index)
    train, test = (Images(tuple(rows[i] for i in part), bytes(labels[i] for i in part)) for part in parts)
    return train, test


def read_bytes(data: bytes) -> bytes:
    """The elements of a .npy file of bytes (NumPy's format 1.0). Raises ValueError for another file."""
    if not data.startswith(_MAGIC):
        raise ValueError("this is no .npy file of format 1.0")
    (length,) = struct.unpack_from("<H", data, len(_MAGIC))
    begin = len(_MAGIC) + 2
    header = ast.literal_eval(data[begin : begin + length].decode("latin-1"))
    if header["descr"] != "|u1" or header["fortran_order"]:
        raise ValueError(f"this .npy file holds {header['descr']}, not bytes")
    return data[begin + length :]


def write_shares(path: Path, train: Images, test: Images) -> None:
    """A .npz file with x, y, x_test and y_test, as a learner reads it: float32 from 0 to 1, int64."""
    arrays: Mapping[str, bytes] = {
        "x": _levels(train),
        "y": _labels(train),
        "x_test": _levels(test),
        "y_test": _labels(test),
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, data in arrays.items():
            archive.writestr(f"{name}.npy", data)


def _levels(images: Images) -> bytes:
    values = array("f", (level / LEVELS for row in images.rows for level in row))
    return _npy("<f4", (len(images.rows), PIXELS), values)


def _labels(images: Images) -> bytes:
    return _npy("<i8", (len(images.labels),), array("q", list(images.labels)))


def _npy(kind: str, shape: tuple[int, ...], values: array[float] | array[int]) -> bytes:
    header = repr({"descr": kind, "fortran_order": False, "shape": shape})
    used = len(_MAGIC) + 2 + len(header) + 1
    header += " " * (-used % _ALIGN) + "\n"
    out = io.BytesIO()
    out.write(_MAGIC + struct.pack("<H", len(header)) + header.encode("latin-1"))
    out.write(values.tobytes())
    return out.getvalue()
