"""The links benchmark: raw trio TCP, trio SSLStream, gRPC with TLS, py-libp2p and fedd in one run.

    python tests/bench/links.py [--repeat 9] [--bytes 100000000] [--stacks tcp,tls,...] [--quick]

Each stack has two processes that talk over loopback; every repetition of a case goes once through all
stacks before the next begins, so a noisy minute of the machine meets all of them. One JSON line a case
and stack with the median of all repetitions, then one line a target: what was wanted, what was
measured, whether it is met. gRPC and py-libp2p live in environments of their own
(tests/interop/environments.py); an absent one is left out and said so.

Every line says what share of the machine other programs used meanwhile (`others_cpu`, 1.0 is all of it).
With `--quiet-share 0.1` a measurement during which they used more is thrown away and done again, at once,
`--patience` times in all.
"""

from __future__ import annotations

import argparse
import datetime
import ipaddress
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from interop import environments

STACKS = ("tcp", "tls", "grpc", "grpc_threads", "py", "fedd")
Medians = dict[str, dict[str, float]]


class End:
    """One process of a stack."""

    def __init__(self, command: list[str]) -> None:
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.hello = self._answer()

    def _answer(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{' '.join(self.process.args)} ended with code {self.process.wait()}")
        return json.loads(line)

    def do(self, name: str, count: int = 0) -> dict[str, float]:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": name, "count": count}) + "\n")
        self.process.stdin.flush()
        answer: dict[str, float] = self._answer()
        return answer

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def busy_s() -> float:
    """CPU seconds that all programs and the kernel have used since the machine started."""
    fields = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
    idle = fields[3] + fields[4]  # idle, and waiting for a disk
    return (sum(fields) - idle) / os.sysconf("SC_CLK_TCK")


class Pair:
    """The listening and the calling process of one stack."""

    def __init__(self, stack: str, directory: Path) -> None:
        command = command_of(stack)
        self.server = End([*command, "serve", str(directory)])
        self.client = End([*command, "call", str(directory), self.server.hello["address"]])

    def measure(self, case: str, count: int) -> dict[str, float]:
        """What the caller measured, and what the case cost at both ends."""
        before = self.server.do("usage"), self.client.do("usage")
        start, busy = time.monotonic(), busy_s()
        result = self.client.do(case, count)
        elapsed, busy = time.monotonic() - start, busy_s() - busy
        after = self.server.do("usage"), self.client.do("usage")
        cpu = [b["cpu_s"] - a["cpu_s"] for a, b in zip(before, after, strict=True)]
        rss = [b["rss_bytes"] - a["rss_bytes"] for a, b in zip(before, after, strict=True)]
        return {
            **result,
            "cpu_s": sum(cpu),
            "others_cpu": max(0.0, busy - sum(cpu)) / elapsed / (os.cpu_count() or 1),
            "server_rss_bytes": rss[0],
            "client_rss_bytes": rss[1],
        }

    def close(self) -> None:
        self.client.close()
        self.server.close()


def command_of(stack: str) -> list[str]:
    """The command line of one end; raises environments.Absent when its environment was not made."""
    if stack in ("tcp", "tls"):
        return [sys.executable, str(HERE / "links_stream.py"), stack]
    python = sys.executable if stack == "fedd" else environments.python_of(stack.partition("_")[0])
    return [python, str(HERE / f"links_{stack}.py")]


def make_certificate(directory: Path) -> None:
    """A self-signed P-256 certificate for 127.0.0.1, for the two stacks that need one."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (directory / "certificate.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    form = serialization.PrivateFormat.PKCS8
    pem = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    (directory / "key.pem").write_bytes(pem)


def bulk_numbers(result: dict[str, float], count: int) -> dict[str, float]:
    return {"mb_per_s": count / result["seconds"] / 1e6, "cpu_s_per_gb": result["cpu_s"] / count * 1e9}


def small_numbers(result: dict[str, float], count: int) -> dict[str, float]:
    return {"p50_us": result["p50_s"] * 1e6, "p99_us": result["p99_s"] * 1e6}


def streams_numbers(result: dict[str, float], count: int) -> dict[str, float]:
    return {"streams_per_s": count / result["seconds"], "cpu_ms_each": result["cpu_s"] / count * 1e3}


def handshake_numbers(result: dict[str, float], count: int) -> dict[str, float]:
    return {"cpu_ms": result["cpu_s"] / count * 1e3}


def hold_numbers(result: dict[str, float], count: int) -> dict[str, float]:
    return {"listener_kib": result["server_rss_bytes"] / count / 1024}


Numbers = Callable[[dict[str, float], int], dict[str, float]]


class Patience:
    """How loud the machine may be, and how many measurements may be thrown away for it in all."""

    def __init__(self, quiet_share: float, times: int) -> None:
        self.quiet_share = quiet_share
        self.times = times

    def measure(self, pair: Pair, case: str, count: int) -> dict[str, float]:
        while True:
            result = pair.measure(case, count)
            # What is held stays, so it is not done twice.
            if case == "hold" or self.times <= 0 or result["others_cpu"] <= self.quiet_share:
                return result
            self.times -= 1


def run_case(
    pairs: dict[str, Pair],
    case: str,
    counts: dict[str, int],
    repeat: int,
    numbers: Numbers,
    patience: Patience,
) -> Medians:
    """Repeat one case, all stacks in turn; prints and returns the medians of each stack."""
    samples: dict[str, list[dict[str, float]]] = {stack: [] for stack in counts if stack in pairs}
    for stack, pair in pairs.items():
        if stack in samples:
            pair.client.do(case, max(1, counts[stack] // 10))  # the first time is warm-up
    for _ in range(repeat):
        for stack in samples:
            result = patience.measure(pairs[stack], case, counts[stack])
            found = {**numbers(result, counts[stack]), "others_cpu": result["others_cpu"]}
            samples[stack].append(found)
    medians = {}
    for stack, rows in samples.items():
        medians[stack] = {key: statistics.median(row[key] for row in rows) for key in rows[0]}
        best = {"mb_per_s": max(row["mb_per_s"] for row in rows)} if "mb_per_s" in rows[0] else {}
        line: dict[str, Any] = {"case": case, "stack": stack, "count": counts[stack], "repeat": repeat}
        line.update({key: round(value, 3) for key, value in medians[stack].items()})
        line.update({f"best_{key}": round(value, 3) for key, value in best.items()})
        print(json.dumps(line), flush=True)
    return medians


def run_again(pairs: dict[str, Pair], repeat: int, patience: Patience) -> Medians:
    """fedd's handshakes with a process that it has met, whose static key is known to be its own."""
    known = {stack: pair for stack, pair in pairs.items() if stack == "fedd"}
    for pair in known.values():
        pair.server.do("remember")
        pair.client.do("remember")
    return run_case(known, "handshakes_again", {"fedd": 100}, repeat, handshake_numbers, patience)


def judge(found: dict[str, Medians]) -> None:
    """One line a target; those whose stacks were not there are left out."""

    def ratio(case: str, key: str, other: str) -> float | None:
        medians = found[case]
        if "fedd" not in medians or other not in medians:
            return None
        return medians["fedd"][key] / medians[other][key]

    def own(case: str, key: str) -> float | None:
        return found[case].get("fedd", {}).get(key)

    at_least: list[tuple[str, float | None, float]] = [
        ("bulk rate / raw TCP", ratio("bulk", "mb_per_s", "tcp"), 0.40),
        ("bulk rate / py-libp2p", ratio("bulk", "mb_per_s", "py"), 4.0),
        ("bulk rate / gRPC + TLS", ratio("bulk", "mb_per_s", "grpc"), 1.0),
        ("bulk rate / gRPC + TLS, threads", ratio("bulk", "mb_per_s", "grpc_threads"), 1.0),
        ("bulk rate / SSLStream", ratio("bulk", "mb_per_s", "tls"), 1.7),
        ("streams a second / py-libp2p", ratio("streams", "streams_per_s", "py"), 4.0),
    ]
    at_most: list[tuple[str, float | None, float]] = [
        ("CPU a byte, both ends / raw TCP", ratio("bulk", "cpu_s_per_gb", "tcp"), 3.0),
        ("CPU a byte, both ends / py-libp2p", ratio("bulk", "cpu_s_per_gb", "py"), 0.25),
        ("CPU a byte, both ends / gRPC + TLS", ratio("bulk", "cpu_s_per_gb", "grpc"), 1.1),
        ("CPU a byte, both ends / gRPC + TLS, threads", ratio("bulk", "cpu_s_per_gb", "grpc_threads"), 1.1),
        ("64 byte round trip / raw TCP", ratio("small", "p50_us", "tcp"), 2.0),
        ("64 byte round trip / gRPC + TLS", ratio("small", "p50_us", "grpc"), 1 / 3),
        ("64 byte round trip / gRPC + TLS, threads", ratio("small", "p50_us", "grpc_threads"), 1 / 3),
        ("64 byte round trip / py-libp2p", ratio("small", "p50_us", "py"), 1 / 3),
        ("handshake, CPU ms, both ends", own("handshakes", "cpu_ms"), 2.5),
        ("idle connection end, KiB", own("hold", "listener_kib"), 20.0),
    ]
    for sign, rows in ((">=", at_least), ("<=", at_most)):
        for name, value, wanted in rows:
            if value is not None:
                met = value >= wanted if sign == ">=" else value <= wanted
                wish = f"{sign} {wanted:.3g}"
                print(
                    json.dumps({"target": name, "wanted": wish, "measured": round(value, 3), "met": met}),
                    flush=True,
                )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--repeat", type=int, default=9, help="repetitions of the bulk case; others take fewer"
    )
    parser.add_argument("--bytes", type=int, default=100_000_000, help="sent one way in the bulk case")
    parser.add_argument("--stacks", default=",".join(STACKS))
    parser.add_argument("--quick", action="store_true", help="3 repetitions of 20 MB: does it run?")
    parser.add_argument("--quiet-share", type=float, default=1.0)
    parser.add_argument("--patience", type=int, default=100)
    arguments = parser.parse_args()
    patience = Patience(arguments.quiet_share, arguments.patience)
    repeat, size = (3, 20_000_000) if arguments.quick else (arguments.repeat, arguments.bytes)
    print(
        json.dumps({"cpus": os.cpu_count(), "load": os.getloadavg(), "python": sys.version.split()[0]}),
        flush=True,
    )
    with tempfile.TemporaryDirectory() as directory:
        make_certificate(Path(directory))
        pairs: dict[str, Pair] = {}
        try:
            for stack in arguments.stacks.split(","):
                try:
                    pairs[stack] = Pair(stack, Path(directory))
                except environments.Absent as absent:
                    print(json.dumps({"stack": stack, "left_out": str(absent)}), flush=True)
            every = dict.fromkeys(STACKS, 1)
            fewer = max(3, repeat // 2)
            found = {
                "bulk": run_case(pairs, "bulk", dict.fromkeys(every, size), repeat, bulk_numbers, patience),
                "small": run_case(pairs, "small", dict.fromkeys(every, 1000), fewer, small_numbers, patience),
                "streams": run_case(
                    pairs,
                    "streams",
                    dict.fromkeys(("grpc", "grpc_threads", "py", "fedd"), 1000),
                    3,
                    streams_numbers,
                    patience,
                ),
                # py-libp2p refuses a caller that connects more often.
                "handshakes": run_case(
                    pairs,
                    "handshakes",
                    {s: 4 if s == "py" else 100 for s in every},
                    fewer,
                    handshake_numbers,
                    patience,
                ),
                "handshakes_again": run_again(pairs, fewer, patience),
                # Last: what is held stays.
                "hold": run_case(
                    pairs, "hold", {s: 20 if s == "py" else 100 for s in every}, 1, hold_numbers, patience
                ),
            }
        finally:
            for pair in pairs.values():
                pair.close()
    judge(found)


if __name__ == "__main__":
    main()
