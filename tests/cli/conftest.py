"""fedctl against a client that answers from a table."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fedd.cli import main as cli

Answer = Any | BaseException | Callable[[Any], Any]


class FakeClient:
    """Answers `request` and `stream` by (method, path); an exception among the answers is raised."""

    answers: dict[tuple[str, str], Answer]
    asked: list[tuple[str, str, Any, Any]]

    def __init__(self, socket_path: str = "", patience_s: float = 0.0) -> None:
        self.asked.append(("CONNECT", socket_path, None, patience_s))

    def __enter__(self) -> FakeClient:
        return self

    def __exit__(self, *exc_info: object) -> None:
        pass

    def request(self, method: str, path: str, body: Any = None, query: Any = None) -> Any:
        self.asked.append((method, path, body, query))
        answer = self.answers[method, path]
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def stream(self, method: str, path: str, body: Any = None, query: Any = None) -> Iterator[Any]:
        self.asked.append((method, path, body, query))
        for answer in self.answers[method, path]:
            if isinstance(answer, BaseException):
                raise answer
            yield answer


class Fedctl:
    """Runs fedctl's main in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str], client: type[FakeClient]) -> None:
        self._capsys = capsys
        self.client = client

    def answer(self, method: str, path: str, answer: Answer) -> None:
        self.client.answers[method, path] = answer

    def asked(self, method: str) -> list[tuple[str, Any]]:
        return [(path, body) for kind, path, body, _ in self.client.asked if kind == method]

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        """Exit status, standard output, standard error."""
        try:
            status = cli.main(arguments)
        except SystemExit as exit_:
            status = int(exit_.code or 0)
        out, err = self._capsys.readouterr()
        return status, out, err


@pytest.fixture
def fedctl(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Fedctl:
    client = type("Client", (FakeClient,), {"answers": {}, "asked": []})
    monkeypatch.setattr(cli, "Client", client)
    monkeypatch.delenv("FEDD_SOCKET", raising=False)
    return Fedctl(capsys, client)
