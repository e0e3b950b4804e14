"""What the daemon writes to standard error: text, lines for the journal, or one JSON object a line."""

from __future__ import annotations

import json
import logging
import sys
import time

# One line must not fill a log: peers choose some of the words in it.
MAX_LINE_CHARS = 4000

# syslog's priorities (RFC 5424, 6.2.1) as sd-daemon(3) reads them off the beginning of a line.
_PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))


class TextFormatter(logging.Formatter):
    """`12:03:04 warning fedd.net: message`, control characters escaped."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, and a traceback below it when there is one."""
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        line = f"{clock} {record.levelname.lower()} {record.name}: {plain(record.getMessage())}"
        return line + self._traceback(record)

    def _traceback(self, record: logging.LogRecord) -> str:
        return "\n" + self.formatException(record.exc_info) if record.exc_info else ""


class JournalFormatter(TextFormatter):
    """As text without the time, which the journal knows; every line with its priority in front."""

    def format(self, record: logging.LogRecord) -> str:
        """One or more lines."""
        priority = next((number for level, number in _PRIORITIES if record.levelno >= level), 7)
        text = f"{record.name}: {plain(record.getMessage())}{self._traceback(record)}"
        return "\n".join(f"<{priority}>{line}" for line in text.splitlines())


class JsonFormatter(logging.Formatter):
    """`{"unix_s", "level", "logger", "message", "traceback"?}` on one line."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        document = {
            "unix_s": round(record.created, 3),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage()[:MAX_LINE_CHARS],
        }
        if record.exc_info:
            document["traceback"] = self.formatException(record.exc_info)
        return json.dumps(document)


def plain(text: str) -> str:
    """`text` cut to a bound and without control characters: a log line is a line."""
    text = text[:MAX_LINE_CHARS]
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def set_up(style: str, journal: bool, level: int = logging.INFO) -> None:
    """Send all logging to standard error in `style`, text or json; the journal has a text form of its own."""
    formatter: logging.Formatter = JournalFormatter() if journal else TextFormatter()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if style == "json" else formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    logging.raiseExceptions = False  # a full or closed standard error must not take the daemon down
