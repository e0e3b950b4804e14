"""Fuzz a decoder: `python tests/fuzz/run.py DECODER --minutes N`, or `--count N`; `all` for every decoder.

Without arguments it lists the decoders. With the `atheris` package installed (it is not needed) `--atheris`
lets coverage guide the mutations. Ends with status 1 at the first input for which anything comes out but the
decoder's documented errors; that input is printed in hex: add it as a line to tests/fuzz/corpus/DECODER.hex,
which every run, and the tests, begin with.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from fuzz.decoders import TARGETS, Target
from fuzz.mutate import mutated

CORPUS = Path(__file__).parent / "corpus"
SLOW_S = 1.0
"""An input that takes longer is a finding too: nothing here is allowed to be large."""


class Finding(Exception):
    """An input for which something undocumented came out."""


def corpus_of(name: str) -> list[bytes]:
    """The valid inputs of a decoder, and those that were found to be interesting."""
    inputs = list(TARGETS[name].seeds)
    path = CORPUS / f"{name}.hex"
    if path.exists():
        for line in path.read_text().splitlines():
            text = line.partition("#")[0].strip()
            if text:
                inputs.append(bytes.fromhex(text))
    return inputs


def execute(target: Target, data: bytes, rng: random.Random) -> bool:
    """Run one input; whether it was accepted. Anything undocumented is a Finding."""
    start = time.process_time()
    try:
        target.run(data, rng)
        accepted = True
    except target.errors:
        accepted = False
    except Exception as error:
        raise Finding(f"{data.hex()}\n{''.join(traceback.format_exception(error))}") from error
    if time.process_time() - start > SLOW_S:
        raise Finding(f"{data.hex()}\ntook {time.process_time() - start:.1f} s of CPU")
    return accepted


def fuzz(name: str, *, count: int | None, seconds: float | None, seed: int = 0) -> dict[str, object]:
    """Run a decoder on its corpus and then on mutations, as many or as long as said; give the numbers.

    Inputs that are accepted although they were mutated join the corpus, up to 200: they lead further.
    """
    target = TARGETS[name]
    rng = random.Random(f"{name} {seed}")
    corpus = corpus_of(name)
    start = time.monotonic()
    executed = accepted = 0
    for data in corpus:
        for _ in range(8):  # a target may choose among several ways
            accepted += execute(target, data, rng)
            executed += 1
    while (count is None or executed < count) and (seconds is None or time.monotonic() - start < seconds):
        data = mutated(rng, corpus)
        executed += 1
        if execute(target, data, rng):
            accepted += 1
            if len(corpus) < 200 and rng.random() < 0.05:
                corpus.append(data)
    return {
        "decoder": name,
        "inputs": executed,
        "accepted": accepted,
        "seconds": round(time.monotonic() - start, 1),
        "other_exceptions": 0,
    }


def _with_atheris(name: str, seconds: float | None) -> None:
    import atheris

    atheris.instrument_all()
    target = TARGETS[name]
    for data in corpus_of(name):
        execute(target, data, random.Random(0))
    limits = [] if seconds is None else [f"-max_total_time={int(seconds)}"]
    atheris.Setup([name, *limits], lambda data: execute(target, data, random.Random(data)))
    atheris.Fuzz()


def main(arguments: Sequence[str]) -> int:
    """The command; gives its exit status."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("decoder", nargs="?", choices=[*TARGETS, "all"])
    parser.add_argument("--minutes", type=float, help="how long, for each decoder")
    parser.add_argument("--count", type=int, help="how many inputs, for each decoder")
    parser.add_argument("--seed", type=int, default=0, help="another seed makes other inputs")
    parser.add_argument("--atheris", action="store_true", help="guided by coverage, with the atheris package")
    options = parser.parse_args(arguments)
    if options.decoder is None:
        print("\n".join(TARGETS))
        return 0
    seconds = None if options.minutes is None else options.minutes * 60
    count = 100_000 if seconds is None and options.count is None else options.count
    for name in TARGETS if options.decoder == "all" else [options.decoder]:
        try:
            if options.atheris:
                _with_atheris(name, seconds)
            else:
                print(json.dumps(fuzz(name, count=count, seconds=seconds, seed=options.seed)), flush=True)
        except Finding as finding:
            print(f"{name}: {finding}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
