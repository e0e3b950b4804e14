"""A short, repeatable pass of the fuzzer over every decoder; the long one is .ci/long's."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from fuzz import run
from fuzz.decoders import TARGETS, Target

from fedd.api.errors import ProtocolError


@pytest.mark.parametrize("name", TARGETS)
def test_nothing_but_documented_errors(name: str) -> None:
    numbers = run.fuzz(name, count=2000, seconds=None)
    assert numbers["inputs"] == 2000
    accepted = numbers["accepted"]
    assert isinstance(accepted, int)
    assert accepted, "no input was valid: the seeds are not what the decoder reads"


@pytest.mark.parametrize("name", TARGETS)
def test_every_way_begins_with_something_valid(name: str) -> None:
    """Else a mutation would never get behind the first check."""
    target = TARGETS[name]
    for seed in target.seeds:
        assert any(run.execute(target, seed, random.Random(way)) for way in range(30)), seed.hex()


def test_the_corpus_is_of_decoders_that_exist() -> None:
    names = {path.stem for path in Path(run.CORPUS).glob("*.hex")}
    assert names
    assert names <= set(TARGETS)
    assert len(run.corpus_of("codec")) > len(TARGETS["codec"].seeds)


def _breaks(data: bytes, rng: random.Random) -> None:
    raise ZeroDivisionError


def _refuses(data: bytes, rng: random.Random) -> None:
    raise ProtocolError("no")


def test_what_is_not_documented_is_found(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(TARGETS, "broken", Target(_breaks, (ProtocolError,), (b"\x01\x02",)))
    assert run.main(["broken", "--count", "10"]) == 1
    assert "0102" in capsys.readouterr().err
    monkeypatch.setitem(TARGETS, "strict", Target(_refuses, (ProtocolError,), (b"\x01\x02",)))
    assert run.main(["strict", "--minutes", "0.0001"]) == 0
    assert run.main(["strict", "--count", "10"]) == 0
    assert '"accepted": 0' in capsys.readouterr().out


def test_without_a_decoder_they_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main([]) == 0
    assert capsys.readouterr().out.split() == list(TARGETS)
