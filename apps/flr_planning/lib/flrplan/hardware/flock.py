"""A lock on an open file that belongs to whoever holds or inherits its descriptor, so that the system frees it however they end."""

from __future__ import annotations

from flrplan.errors import SettingsError


def flock(descriptor: int, *, shared: bool = False) -> bool:
    """Locks the file, and says whether it could: False where another process has it. A shared lock is waited for.

    Raises: SettingsError on Windows, whose locks no child inherits.
    """
    try:
        import fcntl  # absent on Windows, where everything else that this package needs is there
    except ImportError:
        raise SettingsError(
            "the benchmark's jobs and the sharing of GPUs between processes need Linux or macOS; on Windows start the commands one by one"
        ) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH if shared else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
