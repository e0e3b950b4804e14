"""Letters, questions and answers of one run on this node, as its algorithm sees them.

What carries them, and sends them again when a link breaks, is the port's affair; here are the mailbox, the
window to each neighbour as far as it is known, and the handlers of questions.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from fedd.api.errors import FeddError, InvalidMessage, NotConnected, NotFound, PluginFailed
from fedd.api.types import PeerId
from fedd.core import codec
from fedd.core.mail import QUESTIONS, SLACK_BYTES, TOLD_LETTERS, WINDOW, Item, MailKind, window_fits
from fedd.worker.failures import plugin_failure
from fedd.worker.port import MailPort, Payload

_MAX_REFUSAL_CHARS = 1000


@dataclass(slots=True)
class _Neighbor:
    room: int = WINDOW
    unconfirmed_bytes: int = 0
    letters_read: int = 0
    bytes_read: int = 0
    open_questions: int = 0


class Mailroom:
    """One node's mail in a run.

    Who is out of the run, or has finished, is told by `on_departed(peer, reason, how)` as soon as the
    algorithm waits here; `how` is gone, finished or cut.
    """

    def __init__(
        self,
        port: MailPort,
        neighbors: Iterable[PeerId],
        max_payload_bytes: int,
        on_departed: Callable[[PeerId, str, str], None],
    ) -> None:
        self._port = port
        self._near = {peer: _Neighbor() for peer in neighbors}
        self._max_payload_bytes = max_payload_bytes
        self._on_departed = on_departed
        self._departed: dict[PeerId, str] = {}
        self._cut: set[PeerId] = set()
        self._untold: list[tuple[PeerId, str, str]] = []
        self._box: dict[str, deque[tuple[PeerId, Payload]]] = {}
        self._handlers: dict[str, Callable[[PeerId, Payload], bytes]] = {}
        self._early: list[tuple[PeerId, Item]] = []
        self._asked: dict[int, tuple[PeerId, Item | None]] = {}
        self._next_question = 0
        self._listens = False
        self.settled = False
        """Whether the algorithm has awaited its context: by then it has set its handlers."""

    # ---- the port (`fedd.worker.port.MailSink`) --------------------------------------------

    def on_mail(self, peer: PeerId, item: Item) -> None:
        """A neighbour's item has arrived; a question is answered here and now."""
        if item.kind is MailKind.LETTER:
            self._box.setdefault(item.tag, deque()).append((peer, item.payload))
        elif item.kind is MailKind.QUESTION:
            if item.tag in self._handlers or self.settled:
                self._answer(peer, item)
            else:
                self._early.append((peer, item))
        elif item.ref in self._asked:
            self._asked[item.ref] = (peer, item)

    def on_room(self, peer: PeerId, count: int, size: int) -> None:
        """A neighbour has confirmed `count` items, of `size` bytes together."""
        self._near[peer].room += count
        self._near[peer].unconfirmed_bytes -= size

    def on_left(self, peer: PeerId, reason: str, how: str) -> None:
        """A member is out of the run, has finished, or its edge was cut: who was cut off may still go."""
        if peer not in self._departed or (how == "gone" and peer in self._cut):
            self._departed[peer] = reason
            self._cut = {*self._cut, peer} if how == "cut" else self._cut - {peer}
            self._untold.append((peer, reason, how))

    # ---- the algorithm ---------------------------------------------------------------------

    async def send(self, peer: PeerId, tag: str, payload: Payload) -> None:
        """Send a letter. Raises what `on_departed` and the port raise."""
        await self._begin()
        await self._post(peer, Item(MailKind.LETTER, 0, tag, payload))

    async def receive(self, tag: str, *, newest: bool) -> tuple[PeerId, Payload]:
        """The next letter with this tag. Raises NotConnected when nobody can send one any more."""
        await self._begin()
        while tag not in self._box:
            if not self._correspondents():
                raise NotConnected(
                    f"no message tagged {tag!r} can come: every neighbour is out of the run or has finished"
                )
            await self._wait(lambda: tag in self._box)
        letters = self._box[tag]
        sender, payload = letters.popleft()
        self._note_read(sender, payload)
        if newest and any(other == sender for other, _ in letters):
            kept = deque(letter for letter in letters if letter[0] != sender)
            for other, later in letters:
                if other == sender:
                    payload = later
                    self._note_read(sender, later)
            letters = self._box[tag] = kept
        if not letters:
            del self._box[tag]
        return sender, payload

    async def ask(self, peer: PeerId, tag: str, payload: Payload) -> Payload:
        """Ask a question and return the answer. Raises as `RunContext.ask`."""
        await self._begin()
        near = self._near[peer]
        while near.open_questions >= QUESTIONS and peer not in self._departed:
            await self._wait(lambda: near.open_questions < QUESTIONS)
        ref = self._next_question
        self._next_question = (ref + 1) % 2**32
        self._asked[ref] = (peer, None)
        near.open_questions += 1
        try:
            await self._post(peer, Item(MailKind.QUESTION, ref, tag, payload))
            while (answer := self._asked[ref][1]) is None:
                if peer in self._departed:
                    raise NotConnected(f"{peer} does not answer: {self._departed[peer]}")
                await self._wait(lambda: self._asked[ref][1] is not None)
        finally:
            del self._asked[ref]
            near.open_questions -= 1
        if answer.kind is MailKind.REFUSAL:
            raise _read_refusal(peer, tag, answer.payload)
        return answer.payload

    def on_ask(self, tag: str, handler: Callable[[PeerId, Payload], bytes]) -> None:
        """Answer questions with this tag from now on, those that came early at once."""
        self._handlers[tag] = handler
        early, self._early = self._early, []
        for peer, item in early:
            self.on_mail(peer, item)

    def settle(self) -> None:
        """The algorithm awaits its context: questions that nobody answers by now are refused."""
        self.settled = True
        early, self._early = self._early, []
        for peer, item in early:
            self._answer(peer, item)

    # ---- inside ----------------------------------------------------------------------------

    async def _begin(self) -> None:
        if not self.settled:
            self.settle()
        if not self._listens:
            self._listens = True
            await self._port.listen()
        self._tell_departed()

    async def _wait(self, ready: Callable[[], bool]) -> None:
        """Until it is so, or somebody has left, which may make it impossible."""
        await self._port.wait(lambda: ready() or bool(self._untold))
        self._tell_departed()

    def _tell_departed(self) -> None:
        while self._untold:
            self._on_departed(*self._untold.pop(0))

    def _correspondents(self) -> bool:
        return any(peer not in self._departed for peer in self._near)

    async def _post(self, peer: PeerId, item: Item) -> None:
        near, size = self._near[peer], len(item.payload)

        def fits() -> bool:
            return near.room > 0 and window_fits(near.unconfirmed_bytes, size, self._max_payload_bytes)

        while not fits() and peer not in self._departed:
            await self._wait(fits)
        if peer not in self._departed:
            near.room -= 1
            near.unconfirmed_bytes += size
            await self._port.post(peer, item)

    def _note_read(self, sender: PeerId, payload: Payload) -> None:
        near = self._near[sender]
        near.letters_read += 1
        near.bytes_read += len(payload)
        if near.letters_read >= TOLD_LETTERS or near.bytes_read >= SLACK_BYTES:
            self._port.read(sender, near.letters_read, near.bytes_read)
            near.letters_read = near.bytes_read = 0

    def _answer(self, peer: PeerId, item: Item) -> None:
        handler = self._handlers.get(item.tag)
        try:
            if handler is None:
                raise NotFound(f"it has no handler for questions tagged {item.tag!r}")
            answer = Item(MailKind.ANSWER, item.ref, item.tag, handler(peer, item.payload))
        except Exception as error:  # whatever the plugin raises is the asker's affair, and no end of the run
            failure = error if isinstance(error, FeddError) else plugin_failure(error)
            detail = failure.detail[:_MAX_REFUSAL_CHARS]
            payload = codec.encode([failure.code, detail, failure.hint[:_MAX_REFUSAL_CHARS]])
            answer = Item(MailKind.REFUSAL, item.ref, item.tag, payload)
        self._port.answer(peer, answer)


def _read_refusal(peer: PeerId, tag: str, payload: Payload) -> FeddError:
    try:
        code, detail, hint = codec.decode(payload, max_bytes=16 * _MAX_REFUSAL_CHARS)
    except (InvalidMessage, ValueError, TypeError):
        code, detail, hint = "", "a refusal that cannot be read", ""
    if code == NotFound.code:
        return NotFound(f"{peer}: {detail!s:.1000}", hint="register it by ctx.on_ask before anything else")
    return PluginFailed(f"{peer} failed to answer {tag!r}: {detail!s:.1000}", hint=f"{hint!s:.1000}")
