"""multistream-select 1.0: two ends agree on the protocol of a stream.

Both ends send the header line, the dialer then proposes protocols one at a time until the listener
echoes one; `na` is a refusal. A line is a varint length, the text, and a newline that the length
counts. See https://github.com/multiformats/multistream-select.

Both machines are values: `receive_data` takes bytes and returns events, `data_to_send` hands out what
must be written. What follows a selection belongs to the selected protocol: see `trailing`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TypeAlias

from fedd.api.errors import ProtocolError
from fedd.core.dataclass import dataclass
from fedd.core.varint import encode_uvarint

HEADER = "/multistream/1.0.0"

MAX_LINE_BYTES = 1024
"""Longest line accepted, its newline included, as go-multistream has it."""

MAX_PROPOSALS = 64
"""Lines that a dialer may send before it settles on a protocol; honest ones need one to three."""

_NOT_AVAILABLE = "na"
_LIST = "ls"


@dataclass(frozen=True, slots=True)
class Selected:
    """Both ends agreed on `protocol`; the negotiation is over."""

    protocol: str


@dataclass(frozen=True, slots=True)
class Rejected:
    """To a dialer: none of `protocols` is spoken there, the negotiation is over.

    To a listener: the dialer proposed these in vain and may go on.
    """

    protocols: tuple[str, ...]


Event: TypeAlias = Selected | Rejected


class _Negotiation(ABC):
    """What both ends have in common: lines in, lines out, the header first."""

    def __init__(self) -> None:
        self._received = bytearray()
        self._outgoing = bytearray()
        self._header_seen = False
        self._error = ""
        self.finished = False
        """Whether the negotiation is over; bytes received since then are in `trailing`."""

    @property
    def trailing(self) -> bytes:
        """Bytes received after the selection: the first of the selected protocol."""
        return bytes(self._received) if self.finished else b""

    def data_to_send(self) -> bytes:
        """Return the bytes to write now and forget them."""
        data = bytes(self._outgoing)
        self._outgoing.clear()
        return data

    def receive_data(self, data: bytes | bytearray | memoryview) -> list[Event]:
        """Take bytes from the other end; return what was decided. ProtocolError on a broken line.

        After an error the machine is finished for good and raises it again.
        """
        if self._error:
            raise ProtocolError(self._error)
        if not (self._header_seen or self._received):
            selected = self._selected_at_once(bytes(data))
            if selected is not None:
                return [selected]
        self._received += data
        events: list[Event] = []
        try:
            while not self.finished and (line := self._next_line()) is not None:
                if self._header_seen:
                    events += self._receive_line(line)
                elif line == HEADER:
                    self._header_seen = True
                else:
                    raise ProtocolError(f"the other end speaks {line[:64]!r}, not {HEADER}")
        except ProtocolError as error:
            self._error = error.detail
            raise
        return events

    def receive_eof(self) -> None:
        """Tell that the other end sends no more: ProtocolError when nothing was agreed yet."""
        if not self.finished:
            raise ProtocolError("the other end closed the stream before a protocol was agreed on")

    @abstractmethod
    def _selected_at_once(self, data: bytes) -> Selected | None:
        """Take all of the first bytes if they decide everything, as they nearly always do; else nothing."""

    def _select(self, protocol: str, rest: bytes) -> Selected:
        self._header_seen = self.finished = True
        self._received += rest
        return Selected(protocol)

    @abstractmethod
    def _receive_line(self, line: str) -> list[Event]:
        """Take a line that is not the header; return what it decides."""

    def _send_line(self, text: str) -> None:
        self._outgoing += _line(text.encode())

    def _next_line(self) -> str | None:
        """Take one whole line from what was received; None when it is not all there."""
        buffer = self._received
        if not buffer or (buffer[0] >= 0x80 and len(buffer) < 2):
            return None
        length, start = buffer[0] & 0x7F, 1
        if buffer[0] >= 0x80:
            length, start = length | (buffer[1] & 0x7F) << 7, 2
            if buffer[1] >= 0x80 or length > MAX_LINE_BYTES:
                raise ProtocolError(f"a negotiation line is longer than {MAX_LINE_BYTES} bytes")
            if buffer[1] == 0:
                raise ProtocolError("a negotiation line's length is not in its shortest form")
        if length == 0:
            raise ProtocolError("a negotiation line is empty")
        end = start + length
        if len(buffer) < end:
            return None
        line = bytes(buffer[start:end])
        del buffer[:end]
        if not line.endswith(b"\n"):
            raise ProtocolError("a negotiation line does not end in a newline")
        try:
            return line[:-1].decode()
        except UnicodeDecodeError:
            raise ProtocolError("a negotiation line is not UTF-8") from None


class Dialer(_Negotiation):
    """The end that opened the stream: proposes `protocols` in their order of preference.

    The header and the first proposal are ready to be written at once, together.
    """

    def __init__(self, protocols: Sequence[str]) -> None:
        super().__init__()
        if not protocols:
            raise ValueError("a dialer proposes at least one protocol")
        self._protocols = tuple(protocols)
        self._proposed = 0
        self._opening = _HEADER_LINE + _line(self._protocols[0].encode())
        self._outgoing += self._opening

    def _selected_at_once(self, data: bytes) -> Selected | None:
        if not data.startswith(self._opening):
            return None
        return self._select(self._protocols[0], data[len(self._opening) :])

    def _receive_line(self, line: str) -> list[Event]:
        proposal = self._protocols[self._proposed]
        if line == proposal:
            self.finished = True
            return [Selected(proposal)]
        if line != _NOT_AVAILABLE:
            raise ProtocolError(f"the other end answered {line[:64]!r} to the proposal {proposal!r}")
        self._proposed += 1
        if self._proposed == len(self._protocols):
            self.finished = True
            return [Rejected(self._protocols)]
        self._send_line(self._protocols[self._proposed])
        return []


class Listener(_Negotiation):
    """The end that accepted the stream: agrees to the first proposal that it speaks.

    `protocols` is a list or a function that says whether a protocol is spoken; `listed` is then what
    an `ls` is answered with. The header is ready at once; since dialers speak first, it may be
    written together with the first answer.
    """

    def __init__(self, protocols: Sequence[str] | Callable[[str], bool], listed: Sequence[str] = ()) -> None:
        super().__init__()
        if callable(protocols):
            self._speaks, self._listed = protocols, tuple(listed)
        else:
            self._speaks, self._listed = protocols.__contains__, tuple(protocols)
        self._lines = 0
        self._outgoing += _HEADER_LINE

    def _selected_at_once(self, data: bytes) -> Selected | None:
        if not data.startswith(_HEADER_LINE):
            return None
        start = len(_HEADER_LINE)
        end = data.find(b"\n", start) + 1
        # a line whose length takes one byte and is what it says
        if not end or data[start] >= 0x80 or end != start + 1 + data[start]:
            return None
        try:
            protocol = data[start + 1 : end - 1].decode()
        except UnicodeDecodeError:
            return None
        if protocol == _LIST or not self._speaks(protocol):
            return None
        self._outgoing += data[start:end]
        return self._select(protocol, data[end:])

    def _receive_line(self, line: str) -> list[Event]:
        self._lines += 1
        if self._lines > MAX_PROPOSALS:
            raise ProtocolError(f"the other end made more than {MAX_PROPOSALS} proposals")
        if line == _LIST:
            self._outgoing += _line(b"".join(_line(protocol.encode()) for protocol in self._listed))
            return []
        if self._speaks(line):
            self.finished = True
            self._send_line(line)
            return [Selected(line)]
        self._send_line(_NOT_AVAILABLE)
        return [Rejected((line,))]


def _line(text: bytes) -> bytes:
    return encode_uvarint(len(text) + 1) + text + b"\n"


_HEADER_LINE = _line(HEADER.encode())
