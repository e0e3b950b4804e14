"""What is tried to get into a federation, or to stay in it: tokens, certificates, lists, records, messages.

The rows are those of docs/explanation/security.md; `pytest -s` shows the numbers.
"""

from __future__ import annotations

import os
import random
import secrets
import statistics
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
import trio
from faults.hostile import DATA, FIN, SYN, endpoint_of, frame, say
from faults.joining import Answers, ask, ask_once, meet
from federation.daemons import GUARD_S, Daemon, Federation, eventually, federation
from federation.processor import waited_for_processor_s
from host.worlds import Node as RunNode
from host.worlds import request, rounds_of, world
from net.federations import Node, form, full_mesh, nodes
from trio.testing import MockClock
from waiting import until

from fedd.core import codec
from fedd.core.certificates import (
    ADMIN,
    MEMBER,
    federation_id,
    issue_certificate,
    make_chain,
    parse_token,
)
from fedd.core.identity import PrivateKey, seal
from fedd.core.manifest import state_end
from fedd.core.multistream import Dialer
from fedd.core.presence_messages import PRESENCE_PROTOCOL, Hello, Revocations, Rows, encode_message
from fedd.core.records import Record, sign_record
from fedd.core.revocation import REVOCATION_DOMAIN, sign_list
from fedd.host.run_wire import Kind, encode_frame, encode_preamble, encode_round
from fedd.host.runs import RUN_PROTOCOL
from fedd.net.invitations import WRONG_BURST, WRONG_PER_S
from fedd.net.join_messages import JOIN_PROTOCOL
from fedd.net.join_messages import encode_message as encode_join


@pytest.fixture(scope="module")
def fed() -> Iterator[Federation]:
    with federation(2, names=["inviter", "member"]) as fed:
        yield fed


def door(daemon: Daemon) -> tuple[str, int]:
    return endpoint_of(daemon.ctl("status").ok()["addresses"][0])


def patience() -> float:
    """How much longer than on an idle machine things may take here, where others compute too."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


# ---- tokens ----------------------------------------------------------------------------------------


def test_row_22_whatever_is_wrong_with_a_token_the_answer_is_the_same(fed: Federation) -> None:
    inviter = fed[0]
    to = door(inviter)
    spent, fresh, expired = (
        parse_token(inviter.ctl("invite", *words).ok()["token"]) for words in ((), (), ("--expires", "1s"))
    )
    assert codec.decode(ask_once(to, {"federation": spent.federation, "secret": spent.secret})[2:])["chain"]
    with federation(1, names=["elsewhere"]) as other:
        foreign = parse_token(other[0].ctl("invite").ok()["token"])
    here = spent.federation
    requests: dict[str, dict[str, Any]] = {
        "no token": {"federation": here},
        "a wrong one": {"federation": here, "secret": bytes(16)},
        "an expired one": {"federation": here, "secret": expired.secret},
        "a used one": {"federation": here, "secret": spent.secret},  # another's, too: its user may ask again
        "a foreign one": {"federation": foreign.federation, "secret": foreign.secret},
        "a good one of here, said to be of elsewhere": {
            "federation": foreign.federation,
            "secret": fresh.secret,
        },
    }
    threading.Event().wait(1.1)  # until the one is expired
    replies: set[bytes] = set()
    times: dict[str, list[float]] = {kind: [] for kind in requests}
    rng = random.Random(22)
    for _ in range(40):
        link = meet(to)
        answers = Answers(link)
        ask(answers, 1, {"federation": here})  # the first on a link finds everything cold
        kinds = list(requests)
        rng.shuffle(kinds)
        for number, kind in enumerate(kinds):
            reply, took_s = ask(answers, 2 * number + 3, requests[kind])
            replies.add(reply)
            times[kind].append(took_s)
        link.close()
    medians = {kind: statistics.median(sample) * 1e3 for kind, sample in times.items()}
    every = sorted(took_s * 1e3 for sample in times.values() for took_s in sample)
    quarter = len(every) // 4
    spread = every[3 * quarter] - every[quarter]
    widest = max(medians.values()) - min(medians.values())
    say(
        22,
        f"six kinds of bad token, 40 times each: {len(replies)} reply of {len(next(iter(replies)))} bytes; "
        f"medians {min(medians.values()):.2f} to {max(medians.values()):.2f} ms, the middle half of all "
        f"{spread:.2f} ms wide",
    )
    assert replies == {encode_join({"chain": None})}
    # With 40 samples a median is known to about a fifth of the spread; six of them lie within one spread.
    assert widest <= max(spread, 0.1)


def test_row_23_ten_thousand_guesses(fed: Federation) -> None:
    inviter, member = fed[0], fed[1]
    inviter.kill()  # what was denied before would be in the same minute
    inviter.start().wait_ready()
    to = door(inviter)
    here = parse_token(inviter.ctl("invite").ok()["token"]).federation
    count: Counter[str] = Counter()
    lines_before = inviter.log.read_text().count("a join by")
    begun = time.monotonic()
    guesses = 0
    while guesses < 10_000:
        link = meet(to)
        answers = Answers(link)
        count["links"] += 1
        with suppress(EOFError, OSError):
            for batch in range(16):  # a stranger may open 128 streams at once, 8 fit its 16 seats twice
                ids = range(2 * 8 * batch + 1, 2 * 8 * (batch + 1), 2)
                for stream_id in ids:
                    words = Dialer([JOIN_PROTOCOL]).data_to_send()
                    words += encode_join({"federation": here, "secret": secrets.token_bytes(16)})
                    link.send(frame(DATA, SYN | FIN, stream_id, len(words), words))
                    guesses += 1
                link.raw.settimeout(2.0)
                while any(answers.answer(stream_id) is None for stream_id in ids):
                    answers.read()
        for stream_id in answers.streams:
            body = answers.answer(stream_id)
            said = codec.decode(body[2:]) if body else {}
            count["looked at" if said.keys() == {"chain"} else "told to wait"] += body is not None
            assert not said.get("chain")
        link.close()
    seconds = time.monotonic() - begun
    lines = inviter.log.read_text().count("a join by") - lines_before
    limits = {limit["name"]: limit for limit in inviter.ctl("limits").ok()}
    start = time.monotonic()
    late = fed.add("late")
    late.start().wait_ready()
    ready_s = time.monotonic() - start
    start = time.monotonic()
    late.ctl("join", inviter.ctl("invite").ok()["token"]).ok()
    join_s = time.monotonic() - start
    say(
        23,
        f"{guesses} guesses from {count['links']} identities in {seconds:.1f} s: {count['looked at']} looked "
        f"at, {limits['wrong_tokens']['reached']} told to wait, lines in the log: {lines}; then an honest "
        f"newcomer is in after {join_s:.2f} s",
    )
    assert count["looked at"] <= count["links"] * WRONG_BURST + WRONG_PER_S * seconds
    assert 1 <= lines <= 1 + seconds // 60
    assert limits["wrong_tokens"]["reached"] >= count["told to wait"]
    assert join_s < 5.0 * patience()
    assert ready_s > 0
    assert member.ctl("status").code == 0


def test_row_28_a_hundred_identities_and_one_token(fed: Federation) -> None:
    inviter = fed[0]
    to = door(inviter)
    token = parse_token(inviter.ctl("invite").ok()["token"])
    message = {"federation": token.federation, "secret": token.secret}
    links = [meet(to) for _ in range(30)]
    for link in links:
        link.open(JOIN_PROTOCOL, 1, encode_join(message))
    got = []
    for link in links:
        answers = Answers(link)
        while answers.answer(1) is None and 1 not in answers.reset:  # there are seats for sixteen at once
            answers.read()
        got.append(answers.answer(1) or ask(answers, 3, message)[0])
        link.close()
    got += [ask_once(to, message) for _ in range(70)]
    inside = sum(codec.decode(body[2:])["chain"] is not None for body in got)
    say(28, f"{len(got)} identities with one token, 30 of them at once: {inside} in")
    assert (len(got), inside) == (100, 1)


# ---- certificates ----------------------------------------------------------------------------------


def chains_that_do_not_hold(a: Node, admin: Node, revoked: Node, key: PrivateKey) -> dict[str, bytes]:
    """Chains for `key`, each wrong in one way. `admin` is an admin that is revoked, `revoked` a member."""
    mine = a.presence.federation
    assert mine is not None
    foreign = PrivateKey.from_seed(b"f" * 32)

    def signed(signer: PrivateKey, *roles: str, peer: str = key.peer_id, of: str = mine.id) -> bytes:
        return issue_certificate(signer, federation=of, name="plant7", peer_id=peer, serial=1, roles=roles)

    elsewhere = federation_id(foreign.public_key)
    admins = codec.decode(admin.store.files["federation"])["chain"]
    members = codec.decode(revoked.store.files["federation"]).get("chain", b"")
    root = a.admission.authority._root(mine)
    assert root is not None
    return {
        "another federation's": make_chain(signed(foreign, MEMBER, of=elsewhere)),
        "another federation's root": make_chain(signed(foreign, MEMBER)),
        "self-signed": make_chain(signed(key, MEMBER)),
        "self-signed admin": make_chain(signed(key, MEMBER, ADMIN)),
        "without the role": make_chain(signed(root, "guest")),
        "admin by an admin": make_chain(signed(a.key, MEMBER, ADMIN), mine.chain),
        "issuer no admin": codec.encode([signed(revoked.key, MEMBER), codec.decode(mine.chain)[0]]),
        "somebody else's": mine.chain,
        "issuer revoked": make_chain(signed(admin.key, MEMBER), admins),
        "nothing": b"",
        "a member's as the issuer": codec.encode([signed(revoked.key, MEMBER), codec.decode(members)[0]])
        if members
        else b"\x80",
    }


async def test_row_24_certificates_that_do_not_hold(autojump_clock: MockClock) -> None:
    async with nodes(5) as (a, b, admin, member, stranger):
        await form([a, b, admin, member])
        await full_mesh([a, b, admin, member])
        await a.admission.authority.grant(admin.id)
        await trio.sleep(1)
        files = dict(admin.store.files)
        a.admission.authority.revoke(admin.id)
        await trio.sleep(2)
        admin.store.files["federation"] = files["federation"]
        chains = chains_that_do_not_hold(a, admin, member, stranger.key)
        federation_ = a.presence.federation
        assert federation_ is not None
        denied: dict[str, list[str]] = {"greeting": [], "record": []}
        for kind, chain in chains.items():
            await stranger.swarm.dial(a.swarm.addresses)  # whoever shows a revoked one is hung up on
            stream = await stranger.swarm.open_stream(a.id, PRESENCE_PROTOCOL)
            await stream.send_all(encode_message(Hello(federation_.id, chain)))
            said = b""
            with suppress(trio.BrokenResourceError):
                while data := await stream.receive_some():
                    said += data
            assert b"hello" not in said, kind
            denied["greeting"].append(kind)
            # and the record that carries it, from a member in good standing
            refused = b.presence._core.rows_refused
            record = sign_record(stranger.key, Record(stranger.id, 1, len(denied["record"]), chain=chain))
            a.presence._table.send(b.id, Rows((record.row,)))
            await until(lambda n=refused: b.presence._core.rows_refused > n, 2.0)
            denied["record"].append(kind)
        assert all(not node.presence.is_member(stranger.id) for node in (a, b, member))
        assert all(stranger.id not in node.presence._core.records for node in (a, b, member))
        say(
            24,
            f"{len(chains)} certificates that do not hold: {len(denied['greeting'])} refused in greetings, "
            f"{len(denied['record'])} in records, none forwarded",
        )
        assert all(node.presence.is_linked(a.id) for node in (b, member))


# ---- revocation ------------------------------------------------------------------------------------


def test_row_25_a_member_is_revoked_while_it_is_connected() -> None:
    with federation(5, names=["a", "b", "c", "d", "thief"]) as fed:
        a, *others, thief = fed
        peer = thief.peer_id()

        def linked() -> bool:
            return all(peer in {one["peer_id"] for one in d.ctl("links").ok()} for d in (a, *others))

        eventually(linked, GUARD_S, "everybody is linked with everybody")
        waits = {daemon.name: waited_for_processor_s(daemon.pid) for daemon in fed}
        asked_at = time.time()
        a.ctl("revoke", "thief").ok()
        eventually(lambda: thief.ctl("status").ok()["revoked"], GUARD_S, "the revoked is told")
        # that it is revoked and that it is no member any more happen in one moment, told in either order
        marks = [
            event["unix_s"] for event in a.events() if "revoked" in (event.get("what"), event.get("reason"))
        ]
        revoked_at = min(marks)

        def when(daemon: Daemon, **fields: Any) -> float:
            def found() -> list[float]:
                wanted = fields | {"peer_id": peer}
                return [
                    event["unix_s"]
                    for event in daemon.events()
                    # others may tell of it a moment before the one that revokes has told of it itself
                    if event["unix_s"] >= asked_at and wanted.items() <= event.items()
                ]

            return float(min(eventually(found, GUARD_S, f"{daemon.name} tells of {fields}"))) - revoked_at

        told = {daemon.name: when(daemon, kind="member", state="left") for daemon in (a, *others)}
        cut = {daemon.name: when(daemon, kind="link", state="down") for daemon in (a, *others)}
        waited = {daemon.name: waited_for_processor_s(daemon.pid) - waits[daemon.name] for daemon in fed}
        for daemon in fed:
            daemon.kill()
        for daemon in fed:
            daemon.start()
        for daemon in fed:
            daemon.wait_ready()
        for daemon in (a, *others):
            eventually(
                lambda d=daemon: {n for n, s in d.states().items() if s == "alive"} == {"a", "b", "c", "d"},
                GUARD_S,
                "the others are back",
            )
        refused = thief.ctl("join", a.ctl("invite").ok()["token"]).code
        elsewhere = max(seconds for name, seconds in told.items() if name != "a")
        say(
            25,
            f"revoked while connected: not a member here after {told['a'] * 1e3:.0f} ms, elsewhere after "
            f"{elsewhere * 1e3:.0f} ms at most; connection cut after {cut['a'] * 1e3:.0f} ms here, "
            f"{max(cut.values()) * 1e3:.0f} ms at most elsewhere; still out after all restarted",
        )
        # others' load apart: a word goes from a, by the thief or not, to who cuts
        assert cut["a"] <= 1.0 + waited["a"] + waited["thief"]
        for name, seconds in cut.items():
            assert seconds <= 1.0 + waited["a"] + waited["thief"] + waited[name], name
        assert refused == 4


async def test_row_25_in_flood_rounds(autojump_clock: MockClock) -> None:
    """Twenty members with few links each: the list needs as many hops as the overlay is deep."""
    async with nodes(20, latency_s=0.002) as members:
        await form(members)
        await trio.sleep(20)
        victim = members[-1]
        start = trio.current_time()
        members[0].admission.authority.revoke(victim.id)
        rest = members[:-1]
        await until(lambda: all(n.presence.state_of(victim.id) == "left" for n in rest), 2.0)
        heard_s = trio.current_time() - start
        await until(lambda: not any(victim.id in node.swarm.connections for node in rest), 2.0)
        cut_s = trio.current_time() - start
        say(
            25,
            f"among 20 members: all have heard after {heard_s * 1e3:.0f} ms, cut after {cut_s * 1e3:.0f} ms",
        )
        assert heard_s <= 2 * 0.02 + 0.01  # two rounds of the flood of records, which is batched
        assert cut_s <= 1.0


async def test_row_26_older_and_unsigned_lists(autojump_clock: MockClock) -> None:
    async with nodes(4) as (a, b, c, d):
        await form([a, b, c, d])
        await full_mesh([a, b, c, d])
        mine = a.presence.federation
        assert mine is not None
        root = a.admission.authority._root(mine)
        assert root is not None
        foreign = PrivateKey.from_seed(b"f" * 32)
        fields = {"federation": bytes.fromhex(mine.id), "epoch": 9, "chain": mine.chain, "revoked": []}
        empty = codec.encode(fields)
        older = sign_list(root, mine.id, 1, {})
        a.admission.authority.revoke(d.id)
        a.admission.authority.undo(d.id)
        a.admission.authority.revoke(d.id)
        await trio.sleep(6)
        marks = b.presence.credentials.marks
        alarms: list[dict[str, Any]] = []
        b.admission.subscribe(lambda what, fields: alarms.append({"what": what, **fields}))
        bad = {
            "older": older,
            "unsigned": empty,
            "signature changed": older[:-1] + bytes([older[-1] ^ 1]),
            "by a member": seal(c.key, REVOCATION_DOMAIN, empty),
            "of another federation": sign_list(foreign, federation_id(foreign.public_key), 9, {d.id: ()}),
            "by another root": seal(foreign, REVOCATION_DOMAIN, empty),
        }
        for sealed in bad.values():
            c.presence._table.send(b.id, Revocations(sealed))
            await trio.sleep(61)  # an alarm of a kind is told once a minute
        assert b.presence.credentials.marks == marks
        assert set(b.presence.credentials.revocations.revoked()) == {d.id}
        assert {(alarm["what"], alarm["peer_id"]) for alarm in alarms} == {("revocation list ignored", c.id)}
        say(
            26,
            f"{len(bad)} lists that are older, unsigned or of nobody's right: all ignored, "
            f"{len(alarms)} alarms",
        )
        assert len(alarms) == len(bad)
        assert all(one.presence.is_linked(two.id) for one in (a, b, c) for two in (a, b, c) if one is not two)


# ---- run messages ----------------------------------------------------------------------------------


async def begin(members: list[RunNode], rounds: int, **more: Any) -> str:
    for node in members:
        node.workers.script = rounds_of(rounds)
    return str((await members[0].runs.start(request(pace_s=0.2, topology="complete", **more)))["run_id"])


async def test_row_27_run_messages_of_another_run_round_or_sender(autojump_clock: MockClock) -> None:
    async with world(3) as members:
        first = await begin(members, 5)
        sealed = members[1].runs.nodes[first].manifest.sealed
        for node in members:
            assert (await node.result(first))["state"] == "finished"
        second = await begin(members, 20)
        await until(lambda: members[0].round_of(second) >= 3)
        now = members[1].runs.nodes[second].manifest.sealed
        replayed = {
            "another run": encode_preamble(sealed) + encode_round(members[0].round_of(second), "", b"old")[0],
            "an old round": encode_preamble(now) + encode_round(0, "", b"replayed")[0],
            "the same round twice": encode_preamble(now)
            + encode_round(members[0].round_of(second) - 1, "", b"again")[0],
        }
        for words in replayed.values():
            stream = await members[1].swarm.open_stream(members[0].id, RUN_PROTOCOL)
            await stream.send_all(words)
            await trio.sleep(0.3)
        results = [await node.result(second) for node in members]
        assert all((result["state"], result["dropped"]) == ("finished", []) for result in results)
        assert {tuple(result["value"]) for result in results} == {(2,) * 20}

        third = await begin(members, 20)
        await until(lambda: members[0].round_of(third) >= 3)
        now = members[1].runs.nodes[third].manifest.sealed
        forged = {
            "an end in another's name": (Kind.END, state_end(members[2].key, third, 0, "not mine")),
            "an end of another run": (Kind.NOTICE, state_end(members[2].key, second, 0, "old")),
        }
        for kind, statement in forged.values():
            stream = await members[1].swarm.open_stream(members[0].id, RUN_PROTOCOL)
            await stream.send_all(encode_preamble(now) + encode_frame(kind, 0, statement.sealed))
            await trio.sleep(0.3)
        results = [await node.result(third) for node in members]
        assert all((result["state"], result["dropped"]) == ("finished", []) for result in results)
        assert tuple(results[2]["value"]) == (2,) * 20  # in whose name it was said
        say(
            27,
            f"{len(replayed)} messages of another run or round: ignored, the result is the same; "
            f"{len(forged)} in another's name: the edge to who sent them is cut, nobody is dropped",
        )
