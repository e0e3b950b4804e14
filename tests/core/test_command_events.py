"""What commands may leave in the event log: how long, and not nothing."""

from __future__ import annotations

import pytest

from fedd.api.errors import InvalidParameter
from fedd.core.command_events import check_length, check_said


def test_a_text_is_as_long_as_its_declaration_allows() -> None:
    check_length("reason", "x" * 5, 5)
    with pytest.raises(InvalidParameter, match="reason has 6 characters, write up to 5") as caught:
        check_length("reason", "x" * 6, 5)
    assert caught.value.field == "reason"


@pytest.mark.parametrize("text", ["", " ", "\t\n\u3000"])
def test_a_notice_of_blanks_says_nothing(text: str) -> None:
    check_said("text", f"{text}x")
    with pytest.raises(InvalidParameter, match="text has no characters but blanks") as caught:
        check_said("text", text)
    assert caught.value.field == "text"
