"""``flrplan demo-ohif``: a synthetic CT in Orthanc, the MONAI Label server, and OHIF on it; or a browser that tries it all."""

from __future__ import annotations

import argparse
import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flrplan.cohort.settings import CaseSize
from flrplan.commands.say import note, say
from flrplan.errors import ServiceError, SettingsError

if TYPE_CHECKING:
    from flrplan.demo.ohif.run import Demo

SCREENSHOTS = Path("ohif-screenshots")


def add_parser(commands: Any) -> None:
    """Adds ``demo-ohif`` to the command line."""
    parser = commands.add_parser("demo-ohif", help="the app in OHIF on this machine (needs Orthanc)")
    parser.add_argument(
        "--dicom", type=Path, action="append", default=[], metavar="FOLDER", help="also load this CT series; repeatable"
    )
    parser.add_argument(
        "--size", choices=[s.value for s in CaseSize], default=CaseSize.MEDIUM.value, help="of the synthetic CT"
    )
    parser.add_argument(
        "--drive", action="store_true", help="let a headless Chromium run the cascade, check what it shows, stop"
    )
    parser.add_argument("--screenshots", type=Path, default=SCREENSHOTS, metavar="DIR", help=f"with --drive ({SCREENSHOTS})")
    parser.add_argument("--start-seconds", type=float, help="how long to wait for Orthanc, and for the server")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Starts everything, then waits for Ctrl-C or drives the browser; stops what it started."""
    from flrplan.demo.ohif.browser import find_chromium, require_playwright
    from flrplan.demo.ohif.run import running_demo
    from flrplan.demo.ohif.server import START_SECONDS
    from flrplan.files import make_writable

    seconds = START_SECONDS if arguments.start_seconds is None else arguments.start_seconds
    if not (math.isfinite(seconds) and seconds > 0):
        raise SettingsError(f"--start-seconds must be a number of seconds above 0, got {seconds}")
    if arguments.drive:
        make_writable(arguments.screenshots, "give another folder with --screenshots")
    with _tidying_up_when_told_to_end():
        if arguments.drive:
            find_chromium()
            require_playwright()
        with running_demo(note, arguments.dicom, CaseSize(arguments.size), seconds) as demo:
            if arguments.drive:
                _drive(demo, arguments.screenshots)
            else:
                _wait(demo)
    return 0


@contextmanager
def _tidying_up_when_told_to_end() -> Iterator[None]:
    """Within the block, ``kill`` and a terminal that is closed end it as Ctrl-C does. A signal that is ignored (nohup) stays so."""

    def end(number: int, frame: object) -> None:
        for other in before:
            signal.signal(other, signal.SIG_IGN)  # a terminal says it twice, by its shell and by the system
        raise KeyboardInterrupt

    asked = (signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in asked if signal.getsignal(number) is not signal.SIG_IGN}
    try:
        for number in before:
            signal.signal(number, end)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _drive(demo: Demo, screenshots: Path) -> None:
    from flrplan.demo.ohif.run import drive_demo

    for series, seen in zip(demo.series, drive_demo(demo, screenshots, note), strict=True):
        drawn = ", ".join(f"{name} {value:.2f}" for name, value in seen.agreement.items())
        say(f"{series.patient_id}: drawn as answered (Dice of pixels: {drawn})")
        for picture in seen.pictures:
            say(f"  {picture}")


def _wait(demo: Demo) -> None:
    say(f"OHIF: {demo.server.ohif}")
    say("Choose a study, MONAI Label, the round arrow (Connect), model cascade, Run. Only this machine reaches it, without a")
    say("password. Ctrl-C stops it; corrections that were not exported are lost.")
    try:
        while demo.server.process.runs:
            time.sleep(0.5)
    except KeyboardInterrupt:
        note("stopping")
        return
    raise ServiceError(f"the MONAI Label server ended; {demo.server.process.log_end()}")
