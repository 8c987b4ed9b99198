"""The programs of the demo in OHIF: told when they fail, asked past any proxy, ended with all that they wrote."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

from flrplan.demo.ohif import background
from flrplan.demo.ohif.direct import with_direct_loopback
from flrplan.errors import ServiceError

Start = Callable[..., background.Background]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    started: list[background.Background] = []

    def run(code: str) -> background.Background:
        program = background.start("the helper", [sys.executable, "-c", code], tmp_path / "helper.log", tmp_path)
        started.append(program)
        return program

    yield run
    for program in started:
        program.stop()


def test_a_program_that_ends_shows_the_end_of_its_log(start: Start) -> None:
    program = start("import sys; print('first'); print('no such disk', file=sys.stderr); sys.exit(3)")
    with pytest.raises(ServiceError, match=r"the helper ended with exit code 3 before it answered") as caught:
        program.wait_until_it_answers(f"http://127.0.0.1:{background.free_port()}/", 30, print)
    assert "  no such disk" in str(caught.value)


def test_a_slow_program_is_told_with_its_log(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "_TELL_EVERY_SECONDS", 0.2)
    program, said = start("import time; print('still loading', flush=True); time.sleep(60)"), []
    with pytest.raises(ServiceError, match=r"did not answer at http://127.* within 2 s; .*--start-seconds") as caught:
        program.wait_until_it_answers(f"http://127.0.0.1:{background.free_port()}/", 2, said.append)
    assert "  still loading" in str(caught.value)
    assert any("waiting for the helper: " in line for line in said)


def test_a_program_that_answers_and_is_stopped(start: Start) -> None:
    port = background.free_port()
    program = start(f"import http.server as h; h.HTTPServer(('127.0.0.1', {port}), h.SimpleHTTPRequestHandler).serve_forever()")
    program.wait_until_it_answers(f"http://127.0.0.1:{port}/", 30, print)
    assert not background.is_port_free(port)
    program.stop()
    assert background.is_port_free(port)
    with pytest.raises(requests.ConnectionError):
        requests.get(f"http://127.0.0.1:{port}/", timeout=5)


@pytest.mark.usefixtures("closed_proxy")
def test_loopback_is_asked_past_the_proxy_by_us_and_by_what_we_start(start: Start) -> None:
    port = background.free_port()
    url = f"http://127.0.0.1:{port}/"
    serve = f"import http.server as h; h.HTTPServer(('127.0.0.1', {port}), h.SimpleHTTPRequestHandler).serve_forever()"
    start(serve).wait_until_it_answers(url, 30, print)
    child = start(f"import requests; requests.get({url!r}, timeout=5).raise_for_status()")
    assert child.process.wait(60) == 0, child.log_end()


@pytest.mark.parametrize(
    ("said", "hosts"),
    [
        ({}, "127.0.0.1,localhost"),
        ({"NO_PROXY": ".hospital.example, 10.0.0.0/8"}, ".hospital.example,10.0.0.0/8,127.0.0.1,localhost"),
        ({"no_proxy": "a,localhost", "NO_PROXY": "b"}, "a,localhost,b,127.0.0.1"),
        ({"no_proxy": "*"}, "*"),
    ],
)
def test_no_proxy_keeps_what_it_said(said: dict[str, str], hosts: str) -> None:
    assert with_direct_loopback({"HTTP_PROXY": "http://p:1", **said}) == {
        "HTTP_PROXY": "http://p:1",
        "no_proxy": hosts,
        "NO_PROXY": hosts,
    }


def test_nothing_outlives_a_process_that_is_killed(tmp_path: Path) -> None:
    shell = "sleep 300 & echo a patient >data/patient; echo $$ $!; wait"
    code = (
        "from pathlib import Path; import time; from flrplan.demo.ohif.background import start; Path('demo/data').mkdir(parents=True);"
        f"start('it', ['sh', '-c', {shell!r}], Path('it.log'), Path('demo'), temporary=Path('demo')); time.sleep(300)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path)
    log, pids = tmp_path / "it.log", []
    until = time.monotonic() + 60
    while len(pids) < 2 and time.monotonic() < until:
        pids = log.read_text().split() if log.is_file() else []
        time.sleep(0.1)
    assert [is_alive(int(p)) for p in pids] == [True, True]
    assert (tmp_path / "demo" / "data" / "patient").is_file()
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    while (any(is_alive(int(p)) for p in pids) or (tmp_path / "demo").exists()) and time.monotonic() < until:
        time.sleep(0.1)
    assert [is_alive(int(p)) for p in pids] == [False, False]
    assert list(tmp_path.iterdir()) == [log]


def test_a_folder_that_goes_with_a_program_goes_when_it_is_stopped_not_when_it_fails(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    folder.mkdir()
    program = background.start("it", ["sh", "-c", "echo why >&2; exit 3"], folder / "it.log", folder, temporary=folder)
    assert program.process.wait(60) == 3
    assert "  why" in program.log_end()
    program.stop()
    program = background.start("it", ["sleep", "300"], folder / "it.log", folder, temporary=folder)
    program.stop()
    assert list(tmp_path.iterdir()) == []


DEMO_WITH_A_STAND_IN = """
import sys, tempfile
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from flrplan import cli
from flrplan.demo.ohif import background, run

@contextmanager
def running_demo(*_):
    with tempfile.TemporaryDirectory(dir=".") as name:
        program = background.start("it", ["sleep", "300"], Path(name, "it.log"), Path(name))
        try:
            yield SimpleNamespace(server=SimpleNamespace(process=program, ohif="there"))
        finally:
            program.stop()
            print("tidied up")

run.running_demo = running_demo
sys.exit(cli.main(["demo-ohif"]))
"""


def as_from_a_terminal() -> None:
    """Whoever started these tests in the background, or under nohup, made their children ignore these."""
    for number in (signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_to_end_tidies_up(number: signal.Signals, tmp_path: Path) -> None:
    command = [sys.executable, "-c", DEMO_WITH_A_STAND_IN]
    demo = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True, preexec_fn=as_from_a_terminal)
    assert demo.stdout is not None
    assert demo.stdout.readline() == "OHIF: there\n"
    demo.send_signal(number)
    if number != signal.SIGINT:
        demo.send_signal(number)  # as a closed terminal does
    said, _ = demo.communicate(timeout=60)
    assert said.endswith("tidied up\n")
    assert demo.returncode in (0, 130)  # 130 where it came before there was anything to wait for
    assert list(tmp_path.iterdir()) == []


def test_a_demo_under_nohup_stays_when_the_terminal_is_closed(tmp_path: Path) -> None:
    command = ["nohup", sys.executable, "-c", DEMO_WITH_A_STAND_IN]
    demo = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    assert demo.stdout is not None
    assert demo.stdout.readline() == "OHIF: there\n"
    demo.send_signal(signal.SIGHUP)
    with pytest.raises(subprocess.TimeoutExpired):
        demo.wait(2)
    demo.send_signal(signal.SIGTERM)
    assert demo.communicate(timeout=60)[0].endswith("tidied up\n")


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (OSError, IndexError):
        return False
