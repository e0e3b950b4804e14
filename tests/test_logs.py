import json
import logging
import sys

import pytest

from fedd.logs import MAX_LINE_CHARS, JournalFormatter, JsonFormatter, TextFormatter, plain, set_up


def record(level: int = logging.WARNING, message: str = "%s left", *arguments: object, error: bool = False):
    exc_info = None
    if error:
        try:
            raise ValueError("because")
        except ValueError:
            exc_info = sys.exc_info()
    return logging.LogRecord("fedd.net", level, "f", 1, message, arguments or ("b",), exc_info)


def test_text_is_one_line_with_level_and_room() -> None:
    line = TextFormatter().format(record())
    assert line[2] == line[5] == ":"
    assert line[8:] == " warning fedd.net: b left"


@pytest.mark.parametrize(
    ("level", "priority"),
    [(logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6), (logging.DEBUG, 7)],
)
def test_the_journal_reads_priorities_off_each_line(level: int, priority: int) -> None:
    assert JournalFormatter().format(record(level)) == f"<{priority}>fedd.net: b left"
    lines = JournalFormatter().format(record(level, error=True)).splitlines()
    assert len(lines) > 3
    assert all(line.startswith(f"<{priority}>") for line in lines)


def test_json_is_one_object_a_line() -> None:
    document = json.loads(JsonFormatter().format(record()))
    assert (document["level"], document["logger"], document["message"]) == ("warning", "fedd.net", "b left")
    assert "traceback" not in document
    line = JsonFormatter().format(record(error=True))
    assert "\n" not in line
    assert "ValueError: because" in json.loads(line)["traceback"]


def test_what_peers_say_stays_on_its_line() -> None:
    line = TextFormatter().format(record(logging.INFO, "%s", "evil\n12:00:00 info fedd: all is well\x1b[2J"))
    assert "\n" not in line
    assert "\x1b" not in line
    assert len(plain("x" * 100_000)) == MAX_LINE_CHARS


def test_setting_up_replaces_the_handlers(monkeypatch: pytest.MonkeyPatch) -> None:
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", list(root.handlers))
    monkeypatch.setattr(root, "level", root.level)
    monkeypatch.setattr(logging, "raiseExceptions", True)
    for style, journal, formatter in (
        ("text", False, TextFormatter),
        ("text", True, JournalFormatter),
        ("json", True, JsonFormatter),
    ):
        set_up(style, journal)
        assert [type(handler.formatter) for handler in root.handlers] == [formatter]
    assert root.level == logging.INFO
