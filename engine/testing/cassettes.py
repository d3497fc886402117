"""Cassettes in tests: the server's answers of one day, every day after."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Literal

import trio

import engine
from engine.simulator import SimulatorDialer, memory_stream_pair
from engine.simulator.cassette import parse_cassette
from engine.simulator.frame_log import FrameLog, Redaction
from engine.simulator.front import Front
from engine.simulator.player import Player
from engine.testing.lazy import SessionOpener
from engine.testing.recorder import Recorder

__all__ = ["Cassette", "RecordMode"]

RecordMode = Literal["none", "once", "new_episodes", "all", "rewrite"]

_HOST: Final = "http://cassette.invalid"
_SERVICE: Final = "https://api.openai.com/v1"


class Cassette:
    """A file of one test's requests and their answers, served in memory; ``endpoint`` and ``dialer`` lead to it.

    Args:
        path: The file.
        mode: ``none`` replays, and records nothing; ``once`` records where there is no file yet, and replays otherwise;
            ``new_episodes`` replays what there is, and records the rest; ``all`` records everything again, behind what
            there is; ``rewrite`` in its place.
        redact: Regular expressions: what they find in what is said is not written.
        environment: Variables that name the server to record from, OPENAI_BASE_URL (by default the service) and
            OPENAI_API_KEY.

    Attributes:
        session: Opens sessions to it, as ``responses_session`` does.
        recording: Whether requests go to the server.
    """

    def __init__(
        self,
        path: Path,
        mode: RecordMode = "once",
        *,
        redact: tuple[str, ...] = (),
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        self.path = path
        self.recording: bool = mode in {"new_episodes", "all", "rewrite"} or (mode == "once" and not path.exists())
        self.dialer: SimulatorDialer = _Dialer(self)
        self.session: SessionOpener = SessionOpener(self)
        self._mode = mode
        self._redaction = Redaction(redact)
        self._upstream = environment.get("OPENAI_BASE_URL") or _SERVICE
        self._key = environment.get("OPENAI_API_KEY")
        self._stack = contextlib.ExitStack()
        self._player: Player | None = None
        self.front: Front | None = None

    def __repr__(self) -> str:
        return f"<Cassette {self.path}, {'recording' if self.recording else 'replaying'}>"

    def __enter__(self) -> Cassette:
        """Read the file, or open it for what is to be recorded.

        Raises:
            FileNotFoundError: there is none, and nothing is to be recorded.
            CassetteError: it is no cassette.
            ConfigurationError: something is to be recorded, and there is no key.
        """
        replays = not self.recording or self._mode == "new_episodes"
        lines = self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else []
        if not lines and not self.recording:
            raise FileNotFoundError(
                f"there is no cassette {self.path}; with OPENAI_API_KEY and --simulator-record=once it is recorded"
            )
        recorder = self._recorder() if self.recording else None
        if replays:
            tape = parse_cassette(lines or ['{"cassette": 1}'], str(self.path))
            self._player = Player(tape, redaction=self._redaction, upstream=recorder)
        backend = self._player or recorder
        assert backend is not None
        self.front = Front(backend)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the file."""
        self._stack.close()

    def _recorder(self) -> Recorder:
        if not self._key:
            raise engine.ConfigurationError("OPENAI_API_KEY", f"is needed to record {self.path.name}")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        adds = self._mode in {"all", "new_episodes"}
        file = self._stack.enter_context(self.path.open("a" if adds else "w", encoding="utf-8"))
        return Recorder(self._upstream, FrameLog(file, self._redaction, header={"upstream": self._upstream}))

    @property
    def endpoint(self) -> engine.Endpoint:
        """The endpoint that `engine.open_session` needs to reach it, beside the ``dialer``."""
        path = self._upstream.partition("://")[2].partition("/")[2].strip("/")
        return engine.Endpoint(base_url=f"{_HOST}/{path}", api_key=self._key or "sk-replayed", profile="openai")

    def problems(self) -> list[str]:
        """Return what is wrong at the end of a test: requests without an answer, and answers that were not used."""
        return [] if self._player is None or self.recording else self._player.problems()


class _Dialer(SimulatorDialer):
    def __init__(self, cassette: Cassette) -> None:
        self._cassette = cassette

    async def open_tcp(self, host: str, port: int) -> trio.abc.Stream:
        """Return a stream to the cassette. Cancelled, nothing stays open."""
        await trio.lowlevel.checkpoint()
        if self._cassette.front is None:
            raise ConnectionRefusedError("the cassette is not open")
        ours, theirs = memory_stream_pair()
        # A task of the run's own, which ends with the stream: the one that dials may end before.
        trio.lowlevel.spawn_system_task(self._cassette.front.serve, theirs)
        return ours
