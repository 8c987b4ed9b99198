"""Run as a script: starts a command and ends it, with its children, once standard input closes.

The pipe into this script closes whenever the process that started it ends, be it by ``kill -9``: so nothing is left behind.
Standard library only, since it runs as a process of its own.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress

PATIENCE_SECONDS = 10.0
"""From the polite signal to the other one."""


def end_group(leader: subprocess.Popen[bytes]) -> None:
    """SIGTERM to the process group of ``leader``; SIGKILL to whatever is left of it."""
    with suppress(ProcessLookupError):
        os.killpg(leader.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        leader.wait(PATIENCE_SECONDS)
    with suppress(ProcessLookupError):
        os.killpg(leader.pid, signal.SIGKILL)


def main(command: list[str]) -> int:
    """The exit code of the command; minus the signal where it was ended by one."""
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)

    def watch() -> None:
        while os.read(0, 1024):  # not sys.stdin: its lock would be held when the interpreter ends
            pass
        end_group(child)

    threading.Thread(target=watch, daemon=True).start()
    # In a thread: the main one holds the lock of wait() while the handler runs.
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=end_group, args=(child,), daemon=True).start())
    code = child.wait()
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
