from fedd.control.seats import BUSY, STREAMING, Seat, Seats


def taken(seats: Seats, owner: bool, now: float) -> Seat:
    seat = seats.take(owner, now)
    assert seat is not None
    return seat


async def test_the_connection_silent_longest_gives_way() -> None:
    seats = Seats(total=3, reserved=1)
    first, second, third = (taken(seats, True, now) for now in (1.0, 2.0, 3.0))
    first.last_heard = 9.0
    taken(seats, True, 10.0)
    assert [seat.scope.cancel_called for seat in (first, second, third)] == [False, True, False]
    assert len(seats) == 3


async def test_streams_give_way_only_when_nobody_is_idle() -> None:
    seats = Seats(total=2, reserved=0)
    stream, idle = taken(seats, True, 1.0), taken(seats, True, 2.0)
    stream.state = STREAMING
    taken(seats, True, 3.0).state = STREAMING
    assert idle.scope.cancel_called
    assert not stream.scope.cancel_called
    taken(seats, True, 4.0)
    assert stream.scope.cancel_called


async def test_work_is_never_interrupted() -> None:
    seats = Seats(total=2, reserved=0)
    for now in (1.0, 2.0):
        taken(seats, True, now).state = BUSY
    assert seats.take(True, 3.0) is None


async def test_strangers_never_take_the_owners_seats() -> None:
    seats = Seats(total=4, reserved=2)
    strangers = [taken(seats, False, float(now)) for now in range(3)]
    assert strangers[0].scope.cancel_called
    assert len(seats) == 2
    owner = taken(seats, True, 5.0)
    taken(seats, True, 6.0)
    taken(seats, False, 7.0)
    assert not owner.scope.cancel_called
    assert strangers[1].scope.cancel_called


async def test_an_owner_who_took_all_seats_is_not_evicted_by_strangers() -> None:
    seats = Seats(total=2, reserved=1)
    owners = [taken(seats, True, float(now)) for now in range(2)]
    assert seats.take(False, 3.0) is None
    assert not any(seat.scope.cancel_called for seat in owners)


async def test_a_seat_given_back_is_free() -> None:
    seats = Seats(total=1, reserved=0)
    seat = taken(seats, True, 1.0)
    seats.give_back(seat)
    seats.give_back(seat)
    taken(seats, True, 2.0)
    assert not seat.scope.cancel_called
