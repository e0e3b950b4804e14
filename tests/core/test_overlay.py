import random

from fedd.core.overlay import PINNED_ATTEMPTS, PINNED_PATIENT_S, Overlay


def pauses_of(overlay: Overlay, dials: int) -> list[float]:
    """Seconds from each failed dial of a pinned peer to the next."""
    now, pauses = 0.0, []
    for _ in range(dials):
        chosen, again = overlay.wanted({}, lambda peer: "alive", {}, now)
        if not chosen:
            assert again is not None
            pauses.append(again - now)
            now = again
            chosen, _ = overlay.wanted({}, lambda peer: "alive", {}, now)
        assert chosen == {"b": ("/memory/1",)}
        overlay.failed("b", now)
    return pauses


def test_a_pinned_peer_that_cannot_be_dialled_is_tried_ever_less_often() -> None:
    overlay = Overlay("a", True, random.Random(1))
    overlay.pin("b", ("/memory/1",))
    pauses = pauses_of(overlay, 40)
    assert pauses[0] < 0.3
    assert sum(pauses[:PINNED_ATTEMPTS]) < 40  # one that restarts is met soon
    assert min(pauses[PINNED_ATTEMPTS:]) >= 0.75 * PINNED_PATIENT_S


def test_a_new_pin_is_tried_at_once() -> None:
    overlay = Overlay("a", True, random.Random(1))
    overlay.pin("b", ("/memory/1",))
    pauses_of(overlay, 20)
    overlay.pin("b", ("/memory/1",))
    assert overlay.wanted({}, lambda peer: "alive", {}, 1e6)[0]
    overlay.failed("b", 1e6)
    chosen, again = overlay.wanted({}, lambda peer: "alive", {}, 1e6)
    assert not chosen
    assert again is not None
    assert again - 1e6 < 0.3
