import pytest
import trio
import trio.testing

from fedd.net.events import MAX_TEXT_CHARS, EventLog


def log_of(capacity: int = 4) -> EventLog:
    return EventLog(capacity, wall_clock=lambda: 1234.5678)


async def take(log: EventLog, count: int, since: int | None = 0) -> list[dict[str, object]]:
    subscription = log.subscribe(since)
    return [await subscription.__anext__() for _ in range(count)]


async def test_events_are_numbered_and_leave_out_what_is_none() -> None:
    log = log_of()
    assert log.last_seq == 0
    assert log.publish("member", peer_id="a", name=None) == 1
    assert log.publish("run", run_id="r") == 2
    assert log.last_seq == 2
    assert await take(log, 2) == [
        {"seq": 1, "kind": "member", "unix_s": 1234.568, "peer_id": "a"},
        {"seq": 2, "kind": "run", "unix_s": 1234.568, "run_id": "r"},
    ]


async def test_long_texts_are_cut() -> None:
    log = log_of()
    log.publish("member", name="x" * 5000)
    (event,) = await take(log, 1)
    assert event["name"] == "x" * MAX_TEXT_CHARS


def test_an_unknown_kind_is_a_mistake_of_ours() -> None:
    with pytest.raises(ValueError, match="unknown kind of event 'lunch'"):
        log_of().publish("lunch")


async def test_what_is_there_already_comes_without_waiting() -> None:
    log = log_of(capacity=3)
    for what in "abcde":
        log.publish("node", what=what)
    subscription = log.subscribe(1)
    first, *others = subscription.take_ready(3)
    assert first == {"kind": "lagged", "seq": 2, "missed": 1}
    assert [event["what"] for event in others] == ["c", "d"]
    assert [event["what"] for event in subscription.take_ready(3)] == ["e"]
    assert subscription.take_ready(3) == []
    log.publish("node", what="f")
    assert (await anext(subscription))["what"] == "f"


async def test_a_reader_waits_for_what_comes(autojump_clock: trio.testing.MockClock) -> None:
    log = log_of()
    log.publish("node", what="before")
    got: list[object] = []

    async def read() -> None:
        async for event in log.subscribe(None):
            got.append(event["what"])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        assert got == []
        log.publish("node", what="one")
        await trio.testing.wait_all_tasks_blocked()
        log.publish("node", what="two")
        log.close()
    assert got == ["one", "two"]


async def test_a_slow_reader_is_told_what_it_missed() -> None:
    log = log_of(capacity=3)
    for number in range(1, 11):
        log.publish("node", what=str(number))
    items = await take(log, 4)
    assert items[0] == {"kind": "lagged", "seq": 7, "missed": 7}
    assert [item["seq"] for item in items[1:]] == [8, 9, 10]


async def test_a_reader_from_before_a_restart_starts_at_the_oldest_kept() -> None:
    log = log_of()
    log.publish("node", what="one")
    items = await take(log, 2, since=500)
    assert items[0]["kind"] == "lagged"
    assert items[1]["seq"] == 1


async def test_readers_do_not_disturb_each_other() -> None:
    log = log_of()
    for number in range(3):
        log.publish("node", what=str(number))
    first, second = log.subscribe(0), log.subscribe(1)
    assert (await first.__anext__())["seq"] == 1
    assert (await second.__anext__())["seq"] == 2
    assert (await first.__anext__())["seq"] == 2


async def test_after_the_close_a_reader_ends() -> None:
    log = log_of()
    log.publish("node", what="one")
    log.close()
    assert [event["seq"] async for event in log.subscribe(0)] == [1]
    assert [event async for event in log.subscribe(None)] == []
