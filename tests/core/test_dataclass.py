"""Dataclasses with shared methods do what the standard library's do."""

from __future__ import annotations

import dataclasses
from dataclasses import FrozenInstanceError, field
from typing import Any

import pytest

from fedd.core.dataclass import dataclass


@dataclass(frozen=True, slots=True)
class Point:
    x: int
    y: int = 0
    note: str = field(default="", compare=False)
    secret: str = field(default="", repr=False)
    made: int = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "made", self.x + self.y)


@dataclasses.dataclass(frozen=True, slots=True)
class Reference:
    x: int
    y: int = 0
    note: str = field(default="", compare=False)
    secret: str = field(default="", repr=False)
    made: int = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "made", self.x + self.y)


@dataclass(frozen=True, slots=True)
class Other:
    x: int
    y: int = 0


@dataclass
class Basket:
    name: str
    items: list[Any] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Seat:
    number: int


@dataclass(frozen=True)
class Empty:
    pass


@dataclass(frozen=True)
class AlsoEmpty:
    pass


@dataclass(frozen=True)
class Deeper(Other):
    z: int = 0


@dataclass(frozen=True, slots=True)
class OwnWords:
    x: int

    def __repr__(self) -> str:
        return "words"

    def __eq__(self, other: object) -> bool:
        return other == "words"

    def __hash__(self) -> int:
        return 7


VALUES: list[tuple[Any, ...]] = [
    (1,),
    (1, 2),
    (2, 1),
    (1, 2, "n"),
    (1, 2, "m"),
    (1, 2, "n", "s"),
    (1, 2, "n", "t"),
]


@pytest.mark.parametrize("first", VALUES)
def test_it_prints_as_the_standard_librarys_does(first: tuple[Any, ...]) -> None:
    assert repr(Point(*first)) == repr(Reference(*first)).replace("Reference", "Point")


@pytest.mark.parametrize("first", VALUES)
@pytest.mark.parametrize("second", VALUES)
def test_what_is_equal_is_equal_and_has_the_same_hash(
    first: tuple[Any, ...], second: tuple[Any, ...]
) -> None:
    equal = Reference(*first) == Reference(*second)
    assert (Point(*first) == Point(*second)) is equal
    assert (Point(*first) != Point(*second)) is not equal
    assert (hash(Point(*first)) == hash(Point(*second))) is equal


def test_values_of_two_classes_are_never_equal() -> None:
    assert Point(1, 2) != Other(1, 2)
    assert Point(1, 2) != (1, 2)
    assert Other(1, 2) != Deeper(1, 2)
    assert Deeper(1, 2, 3) == Deeper(1, 2, 3) != Deeper(1, 2, 4)


def test_without_fields_all_of_a_class_are_equal() -> None:
    assert Empty() == Empty() != AlsoEmpty()
    assert hash(Empty()) == hash(Empty())
    assert repr(Empty()) == "Empty()"


def test_a_frozen_one_can_be_neither_changed_nor_stripped() -> None:
    point: Any = Point(1)
    with pytest.raises(FrozenInstanceError, match="cannot assign to 'x' of a Point"):
        point.x = 2
    with pytest.raises(FrozenInstanceError, match="cannot delete 'x' of a Point"):
        del point.x
    deeper: Any = Deeper(1)
    with pytest.raises(FrozenInstanceError):
        deeper.z = 2
    assert (point.x, deeper.z) == (1, 0)


def test_one_that_is_not_frozen_changes_and_has_no_hash() -> None:
    basket = Basket("a")
    basket.items.append(1)
    basket.name = "b"
    assert basket == Basket("b", [1])
    assert Basket("b").items == []
    with pytest.raises(TypeError, match="unhashable"):
        hash(basket)


def test_without_equality_each_is_itself() -> None:
    seat = Seat(1)
    assert seat == seat
    assert seat != Seat(1)
    assert {seat: 1}[seat] == 1
    assert repr(seat) == "Seat(number=1)"


def test_a_class_keeps_methods_of_its_own() -> None:
    assert repr(OwnWords(1)) == "words"
    assert OwnWords(1) == "words"
    assert hash(OwnWords(1)) == 7


def test_one_that_holds_itself_can_be_printed() -> None:
    basket = Basket("a")
    basket.items.append(basket)
    assert repr(basket) == "Basket(name='a', items=[...])"


def test_the_standard_librarys_functions_know_it() -> None:
    assert dataclasses.is_dataclass(Point)
    assert dataclasses.replace(Point(1, 2), y=5) == Point(1, 5)
    assert dataclasses.asdict(Other(1, 2)) == {"x": 1, "y": 2}
    assert Point.__match_args__ == Reference.__match_args__
    assert not hasattr(Point(1), "__dict__")


def test_classes_share_their_methods() -> None:
    names = ("__repr__", "__eq__", "__hash__", "__setattr__", "__delattr__")
    assert all(getattr(Point, name) is getattr(Other, name) for name in names)
    assert Basket.__repr__ is Seat.__repr__ is Point.__repr__
