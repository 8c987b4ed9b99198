"""The GPUs of this machine, each for one job at a time: a job takes free ones and sees no others until its process ends.

    python -m flrplan.hardware.gpu_pool --gpus 1 --devices 0,1,2 -- COMMAND     # waits for a free device, then becomes COMMAND

A device is taken while a file of this machine is locked (flock). The lock belongs to the process that computes, so the system frees
the device however that process ends, and all jobs of a user share the devices, whatever started them. They are names as in
CUDA_VISIBLE_DEVICES, and "0" is not known to be the same as "GPU-<UUID>". Loads no torch: CUDA reads that variable once, when it starts.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from tempfile import gettempdir
from urllib.parse import quote

from flrplan.errors import OutputError, SettingsError
from flrplan.hardware.flock import flock

VARIABLE = "CUDA_VISIBLE_DEVICES"
"""What CUDA programs look at: numbers, UUIDs (``GPU-...``) or MIG instances (``MIG-...``), separated by commas."""
_NAME = re.compile(r"\d+|(GPU|MIG)-\S+")
_LOOK_AGAIN_SECONDS = 0.5


@dataclass(frozen=True)
class Lease:
    """Devices that are taken. descriptors: the open files that hold the locks; who inherits them holds the devices, too."""

    devices: tuple[str, ...]
    descriptors: tuple[int, ...]

    def environment(self) -> dict[str, str]:
        """The environment of this process, in which CUDA sees these devices only."""
        return {**os.environ, VARIABLE: ",".join(self.devices)}


class GpuPool:
    """Hands out devices of this machine.

    devices: names as in :data:`VARIABLE`. folder: where the lock files are, the same for all who share the devices (default: one of
    this user in the system's temporary folder; that of a network file system would be shared with other machines).
    Raises: OutputError where that folder cannot be made or is somebody else's.
    """

    def __init__(self, devices: Sequence[str], folder: Path | None = None) -> None:
        self.devices = tuple(devices)
        user = os.getuid() if hasattr(os, "getuid") else 0  # Windows has none; there no lock is taken in the end
        self.folder = folder or Path(gettempdir()) / f"flrplan-gpus-{user}"
        try:
            self.folder.mkdir(mode=0o700, exist_ok=True)
            owner = self.folder.lstat().st_uid
        except OSError as error:
            raise OutputError(f"{self.folder}: no folder for the locks of the GPUs: {error.strerror}; set TMPDIR") from error
        if owner != user:
            raise OutputError(f"{self.folder} belongs to user {owner}, so it cannot hold the locks of our GPUs; set TMPDIR")

    @contextmanager
    def take(self, count: int = 1) -> Iterator[Lease]:
        """Waits until so many devices are free, and holds them in the block. All or none are taken, so takers never block each other.

        For a process of its own: ``Popen(command, env=lease.environment(), pass_fds=lease.descriptors)`` lets it hold them as well.
        In this process ``os.environ.update(lease.environment())``, before torch looks for GPUs.

        Raises: SettingsError where the pool has fewer.
        """
        if not 1 <= count <= len(self.devices):
            raise SettingsError(f"{count} GPUs were asked for, of {len(self.devices)} ({', '.join(self.devices) or 'none'})")
        waited = False
        while (lease := self._free(count)) is None:
            if not waited:
                sys.stderr.write(f"waiting for {count} free GPU(s) of {', '.join(self.devices)}\n")
            waited = True
            time.sleep(_LOOK_AGAIN_SECONDS)
        try:
            yield lease
        finally:
            _close(lease.descriptors)

    def _free(self, count: int) -> Lease | None:
        """``count`` devices that nobody holds, locked; None where there are fewer.

        The folder is locked with them, or a cleaner of temporary files (systemd-tmpfiles) would delete files in use for days.
        """
        taken: list[str] = []
        descriptors = [_open(self.folder, os.O_RDONLY)]
        flock(descriptors[0], shared=True)
        for device in self.devices:
            descriptor = _open(self.folder / f"{quote(device, safe='')}.lock", os.O_RDWR | os.O_CREAT)
            if not flock(descriptor):
                os.close(descriptor)
                continue
            taken.append(device)
            descriptors.append(descriptor)
            if len(taken) == count:
                return Lease(tuple(taken), tuple(descriptors))
        _close(descriptors)
        return None

    def become(self, command: Sequence[str], count: int = 1) -> None:
        """Waits for devices, then turns this process into the command, which holds them until it ends. Does not return.

        It gets its share of the cores, too, as on a cluster: those of this process divided by the devices of the pool.
        Raises: SettingsError where the command cannot be run, or as :meth:`take`.
        """
        with self.take(count) as lease:
            cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_setaffinity") else []
            numbers = [self.devices.index(device) for device in lease.devices]
            share = [c for k, c in enumerate(cores) if k * len(self.devices) // len(cores) in numbers]
            if len(cores) >= len(self.devices):
                os.sched_setaffinity(0, share)
            for descriptor in lease.descriptors:
                os.set_inheritable(descriptor, True)
            try:
                os.execvpe(command[0], list(command), lease.environment())
            except OSError as error:
                raise SettingsError(f"{command[0]}: cannot be run: {error.strerror}") from error


def visible_gpus(environment: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """The devices that a CUDA program would see here: those of :data:`VARIABLE`, else all of the machine.

    As in CUDA, names after one that is no device (``-1``) do not count. Without the variable, UUIDs of ``nvidia-smi -L`` (MIG
    instances where a GPU has some), else numbers of ``/dev/nvidia<n>``.
    """
    given = (os.environ if environment is None else environment).get(VARIABLE)
    if given is not None:
        return tuple(dict.fromkeys(takewhile(_NAME.fullmatch, (name.strip() for name in given.split(",")))))
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return tuple(map(str, range(len(list(Path("/dev").glob("nvidia[0-9]*"))))))
    return listed_gpus(listed)


def listed_gpus(text: str) -> tuple[str, ...]:
    """The UUIDs in what ``nvidia-smi -L`` writes: a line ``GPU <n>: ...`` each, and below it a line ``MIG ...`` per instance."""
    found: list[str] = []
    for name in re.findall(r"\(UUID: ((?:GPU|MIG)-[^)\s]+)\)", text):
        if name.startswith("MIG-") and found and found[-1].startswith("GPU-"):
            found.pop()  # one that is divided cannot be used whole
        found.append(name)
    return tuple(found)


def choose_gpus(asked: str | None, visible: Sequence[str]) -> tuple[str, ...]:
    """Which of the visible devices are used. None: all. ``N``: the first N. ``0,2`` (or ``2,``): these, counted from 0 among the
    visible ones as CUDA does; or their names, ``GPU-...``.

    Raises: SettingsError for a device that is not visible, or a text that says none of these.
    """
    if asked is None:
        return tuple(visible)
    seen = f"{len(visible)} visible ({', '.join(visible)})" if visible else f"none (set {VARIABLE} where nvidia-smi is missing)"
    if asked.strip().isdecimal():
        if int(asked) > len(visible):
            raise SettingsError(f"--gpus {asked}: asks for {int(asked)} GPUs, of {seen}")
        return tuple(visible[: int(asked)])
    words = [word.strip() for word in asked.split(",") if word.strip()]
    if not words or not all(_NAME.fullmatch(word) for word in words):
        raise SettingsError(f"--gpus takes a number of GPUs, or a list such as 0,2 or GPU-<UUID>, got {asked!r}")
    wrong = [w for w in words if (int(w) >= len(visible) if w.isdecimal() else w not in visible)]
    if wrong:
        raise SettingsError(f"--gpus {asked}: no GPU {', '.join(wrong)}, of {seen}; numbers count from 0")
    return tuple(dict.fromkeys(visible[int(w)] if w.isdecimal() else w for w in words))


def _open(path: Path, flags: int) -> int:
    try:
        return os.open(path, flags, 0o600)
    except OSError as error:
        raise OutputError(f"{path}: a GPU cannot be locked with it: {error.strerror}; set TMPDIR to another folder") from error


def _close(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns only where it could not be run."""
    parser = argparse.ArgumentParser(
        prog="python -m flrplan.hardware.gpu_pool", description=(__doc__ or "").partition("\n\n")[0]
    )
    parser.add_argument("--gpus", type=int, default=1, help="how many the command takes (default: 1)")
    parser.add_argument("--devices", required=True, help="those of the pool, as in CUDA_VISIBLE_DEVICES")
    parser.add_argument("command", nargs="+", metavar="COMMAND")
    options = parser.parse_args(arguments)
    try:
        GpuPool(options.devices.split(",")).become(options.command, options.gpus)
    except KeyboardInterrupt:
        return 130
    except (SettingsError, OutputError) as error:
        sys.stderr.write(f"error: {error}\n")
    return 1


if __name__ == "__main__":
    raise SystemExit(main())
