from __future__ import annotations

import pytest

from fedd.api.errors import InvalidMessage
from fedd.core.run_signature import MAX_SIGNED_BYTES, signed_bytes


def test_what_is_signed_differs_by_federation_run_and_data() -> None:
    texts = {
        signed_bytes(federation, run, data)
        for federation in ("f", "fr")
        for run in ("r", "rr", "")
        for data in (b"", b"r", b"data")
    }
    assert len(texts) == 18
    assert all(b"fedd/run-signature/1" in text and b"fedd-sealed-1:" not in text for text in texts)


def test_only_short_texts_are_signed() -> None:
    signed_bytes("f", "r", bytes(MAX_SIGNED_BYTES))
    with pytest.raises(InvalidMessage, match="digest"):
        signed_bytes("f", "r", bytes(MAX_SIGNED_BYTES + 1))
