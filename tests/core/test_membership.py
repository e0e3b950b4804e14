"""What a federation sees when its members come, die, fall silent, pause, leave and return."""

from __future__ import annotations

from dataclasses import replace

import pytest
from core.membership_bench import Bench, federation

from fedd.core.presence_messages import Rows


@pytest.mark.parametrize("size", [2, 3, 6, 7, 12, 20])
def test_members_that_come_at_once_find_each_other(size: int) -> None:
    bench = Bench(size)
    names = [f"p{index:02d}" for index in range(size)]
    bench.add(*names, boot="p00")
    bench.run_until(bench.all_alive, 1.0)
    bench.run(10.0)
    degrees = [len(node.core.links) for node in bench.nodes.values()]
    assert min(degrees) >= min(5, size - 1)
    assert max(degrees) <= 24
    if size <= 6:
        assert degrees == [size - 1] * size
    assert len({node.core.digest for node in bench.nodes.values()}) == 1
    assert not bench.changes("dead", "left")


def test_members_that_come_one_after_the_other_find_each_other() -> None:
    bench = Bench(3)
    for index in range(12):
        bench.add(f"p{index:02d}", boot="p00")
        bench.run_until(bench.all_alive, 1.0)
    assert not bench.changes("dead", "suspect")


def test_forty_members_form_although_the_first_refuses_most() -> None:
    bench = Bench(1)
    bench.add(*(f"p{index:02d}" for index in range(40)), boot="p00")
    bench.run_until(bench.all_alive, 5.0)
    bench.run(20.0)
    degrees = [len(node.core.links) for node in bench.nodes.values()]
    assert min(degrees) >= 5
    assert max(degrees) <= 16
    assert not bench.changes("dead")


@pytest.mark.parametrize("size", [2, 5, 9, 20])
def test_a_process_that_ends_is_dead_in_little_more_than_a_second(size: int) -> None:
    bench = federation(size, seed=size)
    victim = f"p{size - 1:02d}"
    bench.kill(victim)
    took_s = bench.run_until(lambda: bench.everybody_says(victim, "dead"), 5.0, step_s=0.01)
    assert 1.0 <= took_s <= 1.4
    bench.run(10.0)
    assert {change.peer_id for _, _, change in bench.changes("dead", "suspect", "left")} == {victim}
    assert {change.reason for _, _, change in bench.changes("dead")} == {"closed"}


@pytest.mark.parametrize("size", [3, 6, 12])
def test_a_member_that_falls_silent_is_dead_in_about_six_seconds(size: int) -> None:
    bench = federation(size, seed=size)
    victim = f"p{size - 1:02d}"
    bench.kill(victim, fin=False)
    took_s = bench.run_until(lambda: bench.everybody_says(victim, "dead"), 8.0, step_s=0.01)
    assert 5.0 <= took_s <= 6.9
    bench.run(30.0)
    assert {change.peer_id for _, _, change in bench.changes("dead", "suspect", "left")} == {victim}
    assert {change.reason for _, _, change in bench.changes("dead")} == {"silent"}


def test_two_that_end_at_once_are_both_found() -> None:
    bench = federation(6)
    bench.kill("p04")
    bench.kill("p05")
    bench.run_until(
        lambda: bench.everybody_says("p04", "dead") and bench.everybody_says("p05", "dead"), 4.5, step_s=0.01
    )


@pytest.mark.parametrize("seed", range(6))
def test_a_pause_of_five_seconds_is_tolerated_and_accuses_nobody(seed: int) -> None:
    bench = federation(5, seed=seed)
    for _ in range(4):
        bench.pause("p02", 5.0)
        bench.run(12.0)
    assert not bench.changes("dead")
    assert bench.all_alive()


def test_a_longer_pause_is_dead_for_the_others_and_then_refuted() -> None:
    bench = federation(5)
    bench.pause("p02", 9.0)
    bench.run_until(
        lambda: all(n.core.state_of("p02") == "dead" for n in bench.living() if n.peer != "p02"), 8.0
    )
    bench.run_until(bench.all_alive, 6.0)
    assert {observer for _, observer, _ in bench.changes("dead")} == {"p00", "p01", "p03", "p04"}
    assert {change.peer_id for _, _, change in bench.changes("dead")} == {"p02"}


def test_everybody_paused_at_once_accuses_nobody() -> None:
    bench = federation(4)
    for peer in list(bench.nodes):
        bench.pause(peer, 30.0 + bench.rng.random() * 0.2)
    bench.run(45.0)
    assert not bench.changes("dead")
    assert bench.all_alive()


def test_a_node_that_wakes_from_a_pause_gives_no_verdict_of_before_it() -> None:
    bench = federation(5)
    bench.pause("p02", 4.5)
    observer = bench.nodes["p00"]
    bench.run_until(lambda: observer.core.state_of("p02") == "suspect", 4.5, step_s=0.01)
    bench.pause("p00", 20.0)
    bench.run(30.0)
    assert not [change for _, change in observer.changes if change.new == "dead"]
    assert bench.all_alive()


def test_leave_is_seen_at_once_by_all_and_ends_the_epoch() -> None:
    bench = federation(7)
    bench.leave("p03")
    took_s = bench.run_until(lambda: bench.everybody_says("p03", "left"), 1.0, step_s=0.01)
    assert took_s <= 0.1
    bench.run(20.0)
    assert not bench.changes("dead", "suspect")
    assert bench.nodes["p03"].core.state_of("p03") == "left"
    bench.restart("p03")
    bench.nodes["p03"].perform(bench.nodes["p03"].core.hint("p00", ("/at/p00",), bench.now))
    bench.run_until(bench.all_alive, 2.0)


def test_a_restarted_member_is_dead_once_and_alive_again_however_quick_it_was() -> None:
    bench = federation(5)
    known = tuple(bench.nodes["p01"].core.records.values())
    bench.kill("p01")
    bench.run(0.1)
    bench.restart("p01", known)
    bench.run_until(bench.all_alive, 2.0)
    bench.run(5.0)
    for node in bench.nodes.values():
        if node.peer != "p01":
            seen = [change.new for _, change in node.changes if change.peer_id == "p01"]
            assert seen.count("dead") == 1
            assert seen[-1] == "alive"
    assert {change.reason for _, _, change in bench.changes("dead")} == {"restarted"}


def test_a_restarted_member_without_memory_is_found_by_the_others() -> None:
    bench = federation(4)
    bench.kill("p01")
    bench.run(3.0)
    bench.restart("p01")
    bench.run_until(bench.all_alive, 13.0)


def test_a_whole_federation_restarts_from_what_it_remembers() -> None:
    bench = federation(8)
    known = {peer: tuple(node.core.records.values()) for peer, node in bench.nodes.items()}
    for peer in bench.nodes:
        bench.kill(peer)
    bench.run(1.0)
    for peer in bench.nodes:
        bench.restart(peer, known[peer])
    bench.run_until(bench.all_alive, 3.0)
    assert not bench.changes("dead")


def test_a_node_whose_state_was_lost_outbids_its_old_self() -> None:
    bench = federation(4)
    node = bench.nodes["p03"]
    bench.kill("p03")
    bench.run(3.0)
    node.epoch = 0
    bench.restart("p03")
    node.perform(node.core.hint("p00", ("/at/p00",), bench.now))
    bench.run_until(bench.all_alive, 3.0)
    assert node.core.epoch == 2
    assert node.epoch == 2


def test_a_partition_is_noticed_and_heals_by_itself() -> None:
    bench = federation(10)
    names = list(bench.nodes)
    sides = names[:4], names[4:]
    for a in sides[0]:
        for b in sides[1]:
            bench.sever(a, b)
    bench.run_until(
        lambda: all(
            bench.nodes[a].core.state_of(b) == bench.nodes[b].core.state_of(a) == "dead"
            for a in sides[0]
            for b in sides[1]
        ),
        12.0,
    )
    side_of = {peer: index for index, side in enumerate(sides) for peer in side}
    assert all(side_of[observer] != side_of[change.peer_id] for _, observer, change in bench.changes("dead"))
    bench.run(45.0)
    for a in sides[0]:
        for b in sides[1]:
            bench.mend(a, b)
    bench.run_until(bench.all_alive, 15.0)


def test_a_node_that_is_cut_off_holds_its_verdicts_and_says_so() -> None:
    bench = federation(4)
    for other in ("p00", "p01", "p02"):
        bench.sever("p03", other)
    bench.run(8.0)
    lonely = bench.nodes["p03"]
    assert set(lonely.states().values()) == {"suspect"}
    assert [kind for _, kind in lonely.notices] == ["isolated"]
    assert bench.everybody_says("p00", "alive") is False
    assert all(bench.nodes[peer].core.state_of("p03") == "dead" for peer in ("p00", "p01", "p02"))
    bench.run(12.0)
    assert set(lonely.states().values()) == {"dead"}
    assert [kind for _, kind in lonely.notices] == ["isolated"]


def test_one_bad_link_between_two_hurts_nobody() -> None:
    bench = federation(5)
    bench.sever("p00", "p01")
    bench.run(60.0)
    assert not bench.changes("dead", "suspect")
    assert "p01" not in bench.nodes["p00"].core.links
    bench.mend("p00", "p01")
    bench.run_until(lambda: "p01" in bench.nodes["p00"].core.links, 30.0)


def test_a_member_that_cannot_be_dialled_dials_others() -> None:
    bench = federation(3)
    bench.add("z", boot="p00", dialable=False)
    bench.run_until(bench.all_alive, 1.0)
    bench.run(2.0)
    assert bench.nodes["z"].core.links == ["p00", "p01", "p02"]


def test_one_key_on_two_machines_is_said_loudly() -> None:
    bench = federation(3)
    node = bench.nodes["p01"]
    for jump in range(4):
        clone = bench.seal(replace(node.core.records["p01"], epoch=node.core.epoch + 5, sealed=b""))
        bench.nodes["p00"].perform(bench.nodes["p00"].core.receive("p02", Rows((clone.row,)), bench.now))
        bench.run(1.0)
        assert bool(node.notices) == (jump == 3)
    assert {kind for _, kind in node.notices} == {"cloned_key"}
    # and it begins again when the minute is over
    epoch = node.core.epoch
    bench.run(90.0)
    assert node.core.epoch > epoch
    assert bench.all_alive()


def test_the_quiet_federation_says_little() -> None:
    bench = federation(6)
    before = bench.messages
    bench.run(60.0)
    links = 15
    per_node_second = (bench.messages - before) / 60 / 6
    assert per_node_second <= 1.1 * 1.5 * 2 * links / 6


def test_pinned_links_are_made_kept_and_let_go() -> None:
    bench = federation(20, seed=4)
    node = bench.nodes["p07"]
    others = [peer for peer in bench.nodes if peer not in ("p07", *node.core.links)]
    assert others
    for peer in others:
        node.perform(node.core.pin(peer, (), bench.now))
        assert node.core.is_pinned(peer)
    bench.run(1.0)
    assert set(others) <= set(node.core.links)
    bench.run(20.0)
    assert set(others) <= set(node.core.links)
    for peer in others:
        node.perform(node.core.unpin(peer, bench.now))
        node.perform(node.core.unpin(peer, bench.now))
    bench.run(20.0)
    assert len(node.core.links) <= 16


def test_a_pinned_link_is_redialled_at_once_when_it_breaks() -> None:
    bench = federation(8)
    node, other = bench.nodes["p00"], bench.nodes["p01"]
    node.perform(node.core.pin("p01", (), bench.now))
    bench.run(0.5)
    link = node.links.get("p01")
    bench.close(other, "p00", "closed")
    other.perform(other.core.link_down("p00", "closed", bench.now))
    bench.run(0.5)
    assert node.links["p01"] != link
    bench.run(1.0)
    assert not bench.changes("dead")


# -- one core by itself
