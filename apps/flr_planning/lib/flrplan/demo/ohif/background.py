"""A program in the background that answers HTTP on loopback, and that never outlives this process."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import requests

from flrplan.demo.ohif import guard
from flrplan.demo.ohif.direct import LOOPBACK, ask, with_direct_loopback
from flrplan.errors import ServiceError

Tell = Callable[[str], object]
"""Takes one line about what is going on."""

_TELL_EVERY_SECONDS = 5.0
_LOG_LINES = 12


def free_port() -> int:
    """A loopback port that is free now."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def is_port_free(port: int) -> bool:
    """True where a server could listen on this loopback port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: an old connection does not matter
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


@dataclass(frozen=True)
class Background:
    """A running program, started by :func:`start`; what it says goes into ``log``."""

    name: str
    log: Path
    process: subprocess.Popen[bytes]

    @property
    def runs(self) -> bool:
        """False once it has ended."""
        return self.process.poll() is None

    def wait_until_it_answers(self, url: str, seconds: float, tell: Tell) -> None:
        """Returns once ``url`` answers 2xx or 3xx. Raises: ServiceError with the end of the log where it ends first, or is slow."""
        start = told = time.monotonic()
        while True:
            if not self.runs:
                raise ServiceError(
                    f"{self.name} ended with exit code {self.process.returncode} before it answered; {self.log_end()}"
                )
            with suppress(requests.RequestException):
                if ask("GET", url, 20).ok:
                    return
            now = time.monotonic()
            if now - start > seconds:
                raise ServiceError(
                    f"{self.name} did not answer at {url} within {seconds:.0f} s; on a slow or busy machine give it more with "
                    f"--start-seconds; {self.log_end()}"
                )
            if now - told > _TELL_EVERY_SECONDS:
                told = now
                tell(f"  waiting for {self.name}: {now - start:.0f} s")
            time.sleep(0.3)

    def log_end(self) -> str:
        """The last lines of its log, with an introduction."""
        text = self.log.read_text(errors="replace") if self.log.is_file() else ""
        lines = [line for line in text.splitlines() if line.strip()][-_LOG_LINES:]
        return f"the log of {self.name} ends with:\n" + ("\n".join(f"  {line}" for line in lines) or "  (nothing)")

    def stop(self) -> None:
        """Ends it and its children: politely, then not. Does nothing where it has ended."""
        if self.process.stdin is not None:
            self.process.stdin.close()
        try:
            self.process.wait(2 * guard.PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def start(
    name: str,
    command: Sequence[str],
    log: Path,
    cwd: Path,
    environment: Mapping[str, str] | None = None,
    temporary: Path | None = None,
) -> Background:
    """Starts ``command`` under :mod:`flrplan.demo.ohif.guard`; ``environment`` comes on top of this process's own.

    It reaches loopback directly (:mod:`flrplan.demo.ohif.direct`). ``temporary`` is a folder that goes with it: removed, with all
    in it, once it has been stopped, or this process has ended in any way.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-I", str(Path(guard.__file__)), str(temporary.absolute()) if temporary else "", *command],
            cwd=cwd,
            env=with_direct_loopback({**os.environ, **(environment or {})}),
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return Background(name, log, process)
