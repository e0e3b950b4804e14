"""Messages between neighbours: once, in order, within bounds, whatever the link does."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedd.api.errors import ProtocolError
from fedd.core.mail import (
    CONFIRM_EVERY,
    MAILBOX_LETTERS,
    QUESTIONS,
    SLACK_BYTES,
    WINDOW,
    Action,
    Carry,
    Confirm,
    Deliver,
    Emptied,
    Item,
    Mail,
    MailKind,
    Receipt,
    Room,
    window_fits,
)

LARGEST = 200_000


def letter(text: str | bytes = b"x", tag: str = "") -> Item:
    return Item(MailKind.LETTER, 0, tag, text.encode() if isinstance(text, str) else text)


def question(ref: int) -> Item:
    return Item(MailKind.QUESTION, ref, "", b"?")


def answer(ref: int, kind: MailKind = MailKind.ANSWER) -> Item:
    return Item(kind, ref, "", b"!")


def mail() -> Mail:
    return Mail(["p", "q"], LARGEST)


def test_an_item_goes_out_at_once_and_is_delivered_once() -> None:
    one, other = mail(), mail()
    assert one.post("p", letter("a")) == [Carry("p", 0, letter("a"))]
    assert other.receive("q", 0, one.receipt("p"), letter("a")) == [Deliver("q", letter("a"))]
    assert other.receive("q", 0, one.receipt("p"), letter("a")) == []
    assert other.receipt("q") == Receipt(arrived=1)


def test_what_is_not_confirmed_is_sent_again() -> None:
    one = mail()
    assert not one.has_mail("p")
    for number in range(3):
        one.post("p", letter(str(number)))
    assert one.has_mail("p")
    assert [carry.number for carry in one.unsent_for("p")] == [0, 1, 2]
    one.confirm("p", Receipt(arrived=2))
    assert one.unsent_for("p") == [Carry("p", 2, letter("2"))]
    one.confirm("p", Receipt(arrived=1))  # an older one, of a broken link
    assert one.unsent_for("p") == [Carry("p", 2, letter("2"))]
    assert one.unsent_for("q") == one.unsent_for("nobody") == []


def test_a_confirmation_goes_by_itself_when_nothing_carries_it() -> None:
    one = mail()
    actions = [one.receive("p", number, Receipt(), letter()) for number in range(2 * CONFIRM_EVERY)]
    confirmed = [number for number, done in enumerate(actions, 1) if Confirm("p") in done]
    assert confirmed[0] == CONFIRM_EVERY
    other = mail()
    for number in range(CONFIRM_EVERY):
        other.receive("p", number, Receipt(), letter())
        other.receipt("p")  # an answer has carried it
    assert other.receive("p", CONFIRM_EVERY, Receipt(), letter()) == [Deliver("p", letter())]


def test_the_window_is_told_in_halves_and_kept() -> None:
    one = mail()
    for _ in range(WINDOW):
        one.post("p", letter())
    with pytest.raises(ProtocolError, match="unconfirmed"):
        one.post("p", letter())
    assert one.confirm("p", Receipt(arrived=CONFIRM_EVERY - 1)) == []
    told = Room("p", CONFIRM_EVERY + 1, CONFIRM_EVERY + 1)
    assert one.confirm("p", Receipt(arrived=CONFIRM_EVERY + 1)) == [told]
    for _ in range(CONFIRM_EVERY + 1):
        one.post("p", letter())
    with pytest.raises(ProtocolError):
        one.post("p", letter())


def test_the_window_is_bounded_in_bytes_too() -> None:
    one = mail()
    one.post("p", letter(bytes(SLACK_BYTES)))
    one.post("p", letter(bytes(LARGEST)))  # waits
    with pytest.raises(ProtocolError, match="too large ones"):
        one.post("p", question(1))
    assert one.confirm("p", Receipt(1, 1, SLACK_BYTES))[-1] == Room("p", 1, SLACK_BYTES)
    with pytest.raises(ProtocolError, match="too large ones"):
        one.post("p", question(1))
    one.confirm("p", Receipt(2, 1, SLACK_BYTES))
    one.post("p", question(1))


def fill(one: Mail, count: int, size: int = 1) -> list[Action]:
    """Post letters that all arrive and are not read; the last one's actions."""
    actions: list[Action] = []
    for number in range(count):
        actions = one.post("p", letter(bytes(size)))
        if any(isinstance(action, Carry) for action in actions):
            one.confirm("p", Receipt(arrived=number + 1))
    return actions


def test_a_full_mailbox_holds_letters_back_and_questions_behind_them() -> None:
    one = mail()
    assert isinstance(fill(one, MAILBOX_LETTERS)[0], Carry)
    assert not one.has_waiting("p")
    assert one.post("p", letter("late")) == [Confirm("p")]  # it says that letters wait
    assert one.post("p", question(1)) == []
    assert one.has_waiting("p")
    assert one.receipt("p").waiting
    assert one.confirm("p", Receipt(MAILBOX_LETTERS, 0, 0)) == []
    assert one.confirm("p", Receipt(MAILBOX_LETTERS, 1, 1)) == [
        Carry("p", MAILBOX_LETTERS, letter("late")),
        Carry("p", MAILBOX_LETTERS + 1, question(1)),
        Emptied("p"),
    ]
    assert not one.receipt("p").waiting


def test_large_letters_wait_by_their_bytes_and_one_may_always_follow_a_little() -> None:
    one = mail()
    fill(one, 1, SLACK_BYTES)
    assert isinstance(one.post("p", letter(bytes(LARGEST)))[0], Carry)
    one.confirm("p", Receipt(arrived=2))
    assert one.post("p", letter()) == [Confirm("p")]
    one.drop_waiting("p")
    assert not one.has_waiting("p")
    assert not one.has_waiting("nobody")
    one.drop_waiting("nobody")


def test_answers_pass_a_full_mailbox() -> None:
    one = mail()
    fill(one, MAILBOX_LETTERS + 1)
    one.receive("p", 0, one.receipt("q"), question(4))
    (carry,) = one.post("p", answer(4))
    assert carry == Carry("p", MAILBOX_LETTERS, answer(4))
    one.confirm("p", Receipt(arrived=MAILBOX_LETTERS + 1))  # and take nothing of the window
    assert one.has_waiting("p")


def test_who_waits_for_me_is_known() -> None:
    one = mail()
    one.confirm("q", Receipt(waiting=True))
    one.confirm("p", Receipt(waiting=True))
    assert one.kept_waiting == ("p", "q")
    one.confirm("p", Receipt())
    assert one.kept_waiting == ("q",)


def test_reading_is_told() -> None:
    one = mail()
    for number in range(3):
        one.receive("p", number, Receipt(), letter("abc"))
    assert one.read("p", 2, 6) == [Confirm("p")]
    assert one.receipt("p") == Receipt(3, 2, 6)
    for letters, size in ((2, 3), (1, 4), (-1, 0), (0, -1)):
        with pytest.raises(ProtocolError, match="not there to be read"):
            one.read("p", letters, size)
    assert one.read("nobody", 1, 1) == []


def test_questions_are_bounded_on_both_sides() -> None:
    one = mail()
    for ref in range(QUESTIONS):
        one.post("p", question(ref))
    with pytest.raises(ProtocolError, match="open questions"):
        one.post("p", question(99))
    one.receive("p", 0, Receipt(), answer(2))
    with pytest.raises(ProtocolError, match="one twice"):
        one.post("p", question(1))
    one.post("p", question(99))
    with pytest.raises(ProtocolError, match="answered the question 2, which nobody asked"):
        one.receive("p", 1, Receipt(), answer(2, MailKind.REFUSAL))

    other = mail()
    for ref in range(QUESTIONS):
        other.receive("p", ref, Receipt(), question(ref))
    for bad in (question(77), question(1)):
        with pytest.raises(ProtocolError, match="questions at once"):
            other.receive("p", QUESTIONS, Receipt(), bad)
    other.post("p", answer(0))
    with pytest.raises(ProtocolError, match="questions at once"):  # its answer was not confirmed
        other.receive("p", QUESTIONS, Receipt(), question(77))
    assert other.receive("p", QUESTIONS, Receipt(arrived=1), question(77)) == [Deliver("p", question(77))]
    with pytest.raises(ProtocolError, match="asked no question 0"):
        other.post("p", answer(0))


def test_a_neighbour_that_keeps_no_bound_is_refused() -> None:
    one = mail()
    with pytest.raises(ProtocolError, match="item 1 before item 0"):
        one.receive("p", 1, Receipt(), letter())
    with pytest.raises(ProtocolError, match="more than the run's"):
        one.receive("p", 0, Receipt(), letter(bytes(LARGEST + 1)))
    with pytest.raises(ProtocolError, match="more than the run's"):
        one.post("p", letter(bytes(LARGEST + 1)))
    for receipt in (Receipt(arrived=1), Receipt(read_letters=1), Receipt(read_bytes=1)):
        with pytest.raises(ProtocolError, match="confirms more than was sent"):
            one.confirm("p", receipt)
    one.receive("p", 0, Receipt(), letter(bytes(LARGEST)))
    with pytest.raises(ProtocolError, match="more letters than the mailbox"):
        one.receive("p", 1, Receipt(), letter(bytes(SLACK_BYTES + 1)))
    other = mail()
    for number in range(MAILBOX_LETTERS):
        other.receive("p", number, Receipt(), letter())
    with pytest.raises(ProtocolError, match="more letters than the mailbox"):
        other.receive("p", MAILBOX_LETTERS, Receipt(), letter())


def test_nothing_goes_to_or_comes_from_one_who_is_out() -> None:
    one = mail()
    one.post("p", letter())
    one.release("p")
    one.release("p")
    assert one.post("p", letter()) == one.receive("p", 0, Receipt(), letter()) == []
    assert one.confirm("p", Receipt(arrived=1)) == one.unsent_for("p") == []
    assert one.receipt("p") == Receipt()
    assert not one.has_mail("p")


LARGE = 3 * SLACK_BYTES


class Side:
    """One end of a link that breaks: its mail, what its algorithm got and has not read."""

    def __init__(self) -> None:
        self.mail = Mail(["other"], LARGE)
        self.got: list[Item] = []
        self.unread: deque[Item] = deque()
        self.wire: deque[tuple[int, Receipt, Item | None]] = deque()
        self.room = WINDOW
        self.bytes = 0
        self.open: set[int] = set()
        self.posted: list[Item] = []

    def act(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Carry(_, number, item):
                    self.wire.append((number, self.mail.receipt("other"), item))
                case Confirm():
                    self.wire.append((0, self.mail.receipt("other"), None))
                case Deliver(_, item):
                    self.got.append(item)
                    if item.kind is MailKind.LETTER:
                        self.unread.append(item)
                    elif item.kind is MailKind.QUESTION:
                        self.act(self.mail.post("other", answer(item.ref)))
                    else:
                        self.open.discard(item.ref)
                case Room(_, count, size):
                    self.room += count
                    self.bytes -= size

    def post(self, item: Item) -> None:
        size = len(item.payload)
        if self.room < 1 or not window_fits(self.bytes, size, LARGE):
            return
        if item.kind is MailKind.QUESTION and len(self.open) >= QUESTIONS:
            return
        self.room -= 1
        self.bytes += size
        if item.kind is MailKind.QUESTION:
            self.open.add(item.ref)
        self.posted.append(item)
        self.act(self.mail.post("other", item))

    def read(self) -> None:
        if self.unread:
            self.act(self.mail.read("other", 1, len(self.unread.popleft().payload)))

    def take(self, from_other: Side) -> None:
        if from_other.wire:
            number, receipt, item = from_other.wire.popleft()
            if item is None:
                self.act(self.mail.confirm("other", receipt))
            else:
                self.act(self.mail.receive("other", number, receipt, item))

    def renew(self) -> None:
        self.wire.clear()
        for carry in self.mail.unsent_for("other"):
            self.wire.append((carry.number, self.mail.receipt("other"), carry.item))
        self.wire.append((0, self.mail.receipt("other"), None))


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["letter", "question", "read", "take", "take", "take", "break"]), st.booleans()
    ),
    max_size=150,
)


@settings(max_examples=100, deadline=None)
@given(
    steps=STEPS,
    sizes=st.lists(st.sampled_from([1, 100, 20_000, SLACK_BYTES, LARGE]), min_size=1, max_size=10),
)
def test_all_arrives_once_and_in_order_over_any_link(steps: list[tuple[str, bool]], sizes: list[int]) -> None:
    sides = Side(), Side()
    for number, (what, first) in enumerate(steps):
        one, other = sides if first else sides[::-1]
        match what:
            case "letter":
                one.post(letter(bytes(sizes[number % len(sizes)])))
            case "question":
                one.post(question(number))
            case "read":
                one.read()
            case "take":
                one.take(other)
            case _:
                one.renew()
    for _ in range(4 * len(steps) + 10):
        for one, other in (sides, sides[::-1]):
            one.read()
            one.take(other)
    for one, other in (sides, sides[::-1]):
        asked_of_it = [item for item in one.got if item.kind < MailKind.ANSWER]
        assert asked_of_it == other.posted
        assert not one.open
        assert not one.wire
        assert not one.mail.has_waiting("other")
        assert one.room > WINDOW - CONFIRM_EVERY
        assert len(one.mail.unsent_for("other")) < CONFIRM_EVERY
