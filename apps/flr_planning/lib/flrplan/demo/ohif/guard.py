"""Run as a script: ``guard.py FOLDER COMMAND...`` starts a command; once standard input closes, ends it and removes the folder.

The pipe into this script closes whenever the process that started it ends, be it by ``kill -9``: so nothing is left behind, no
child of the command and no file in the folder (none is removed where ``FOLDER`` is empty). A command that ends by itself leaves
the folder to who started it: its log is in there.

Standard library only, since it runs as a process of its own.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
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


def remove(folder: str) -> None:
    """Removes a folder with all that is in it, be others removing it or just dying in it."""
    until = time.monotonic() + PATIENCE_SECONDS
    while os.path.lexists(folder) and time.monotonic() < until:
        shutil.rmtree(folder, ignore_errors=True)
        time.sleep(0.05)


def main(folder: str, command: list[str]) -> int:
    """The exit code of the command; minus the signal where it was ended by one."""
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    closed = threading.Event()

    def watch() -> None:
        while os.read(0, 1024):  # not sys.stdin: its lock would be held when the interpreter ends
            pass
        closed.set()
        end_group(child)

    threading.Thread(target=watch, daemon=True).start()
    # In a thread: the main one holds the lock of wait() while the handler runs.
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=end_group, args=(child,), daemon=True).start())
    code = child.wait()
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    if folder and closed.is_set():
        remove(folder)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
