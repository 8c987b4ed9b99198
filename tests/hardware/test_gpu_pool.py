"""Which GPUs are there, and that no two jobs ever have the same one: real processes, pretended devices."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from flrplan.errors import OutputError, SettingsError
from flrplan.hardware import GpuPool, choose_gpus, visible_gpus
from flrplan.hardware.gpu_pool import VARIABLE, listed_gpus


@pytest.mark.parametrize(
    ("value", "names"),
    [
        ("0,1", ["0", "1"]),
        (" 4, 2", ["4", "2"]),
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
        ("0,-1,2", ["0"]),
        ("1,1,0", ["1", "0"]),
        ("GPU-8932f937-d72c,MIG-GPU-5c89852c/1/0", ["GPU-8932f937-d72c", "MIG-GPU-5c89852c/1/0"]),
    ],
)
def test_an_inherited_variable_says_what_is_visible(value: str, names: list[str]) -> None:
    assert list(visible_gpus({VARIABLE: value})) == names


LISTED = """GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-5d5ba0d6-d33d-2b2c-524d-9e3d8d2b8a77)
  MIG 1g.5gb      Device  0: (UUID: MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f)
  MIG 1g.5gb      Device  1: (UUID: MIG-cba663e8-9bed-5b25-b243-5985ef7c9beb)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-e86cb44c-6756-fd30-cd4a-1e6da3caf9b0)
GPU 2: NVIDIA A100-SXM4-40GB (UUID: GPU-aaaaaaaa-6756-fd30-cd4a-1e6da3caf9b0)
  MIG 3g.20gb     Device  0: (UUID: MIG-GPU-aaaaaaaa-6756-fd30-cd4a-1e6da3caf9b0/1/0)
"""


def test_without_it_nvidia_smi_is_asked_and_a_divided_gpu_is_its_instances(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n[ $1 = -L ] || exit 9\necho '{LISTED}'")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert visible_gpus({}) == (
        "MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f",
        "MIG-cba663e8-9bed-5b25-b243-5985ef7c9beb",
        "GPU-e86cb44c-6756-fd30-cd4a-1e6da3caf9b0",
        "MIG-GPU-aaaaaaaa-6756-fd30-cd4a-1e6da3caf9b0/1/0",
    )
    assert listed_gpus("No devices were found\n") == ()


@pytest.mark.parametrize(
    ("asked", "names"),
    [
        (None, "4 GPU-a MIG-b"),
        ("0", ""),
        ("2", "4 GPU-a"),
        ("2,0", "MIG-b 4"),
        ("1,", "GPU-a"),
        ("MIG-b", "MIG-b"),
        ("0,MIG-b,0", "4 MIG-b"),
    ],
)
def test_a_number_a_list_or_names_choose_among_the_visible(asked: str | None, names: str) -> None:
    assert list(choose_gpus(asked, ("4", "GPU-a", "MIG-b"))) == names.split()


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("4", r"--gpus 4: asks for 4 GPUs, of 3 visible \(4, GPU-a, MIG-b\)"),
        ("0,4", r"--gpus 0,4: no GPU 4, of 3 visible \(4, GPU-a, MIG-b\); numbers count from 0"),
        ("GPU-x", "no GPU GPU-x"),
        ("all", "--gpus takes a number of GPUs, or a list such as 0,2"),
        ("-1", "--gpus takes a number"),
        (",", "--gpus takes a number"),
    ],
)
def test_a_gpu_that_is_not_there_is_told(asked: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        choose_gpus(asked, ("4", "GPU-a", "MIG-b"))
    with pytest.raises(SettingsError, match=r"of none \(set CUDA_VISIBLE_DEVICES where nvidia-smi is missing\)"):
        choose_gpus("1", ())


def start(folder: Path, devices: str, script: str, *options: str) -> subprocess.Popen[str]:
    words = [sys.executable, "-m", "flrplan.hardware.gpu_pool", "--devices", devices, *options, "--", "sh", "-c", script]
    environment = {**os.environ, "TMPDIR": str(folder)}
    return subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_more_jobs_than_devices_wait_and_each_has_its_own(tmp_path: Path, use_gpu: Callable[[Path, int], str]) -> None:
    devices = ("5", "GPU-a", "MIG-GPU-b/1/0")
    jobs = [start(tmp_path, ",".join(devices), use_gpu(tmp_path, 3)) for _ in range(5)]
    said = [job.communicate(timeout=60) for job in jobs]
    assert [job.returncode for job in jobs] == [0] * 5, said
    assert {out.strip() for out, _ in said} == set(devices)


def test_a_job_that_is_killed_frees_its_device(tmp_path: Path) -> None:
    first = start(tmp_path, "0", "echo $CUDA_VISIBLE_DEVICES; exec sleep 60")
    assert first.stdout is not None
    assert first.stdout.readline() == "0\n"
    second = start(tmp_path, "0", "echo $CUDA_VISIBLE_DEVICES")
    assert second.stderr is not None
    assert second.stderr.readline().startswith("waiting"), "the command itself holds the device"
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert second.communicate(timeout=30)[0] == "0\n"


def test_who_wants_two_holds_none_while_it_waits(tmp_path: Path) -> None:
    pool = GpuPool(["0", "1"], tmp_path)
    got: list[tuple[str, ...]] = []

    def take_both() -> None:
        with pool.take(2) as lease:
            got.append(lease.devices)

    with pool.take() as one:
        assert one.devices == ("0",)
        assert one.environment()[VARIABLE] == "0"
        thread = threading.Thread(target=take_both)
        thread.start()
        time.sleep(0.2)
        with pool.take() as other:
            assert (other.devices, got) == (("1",), [])
    thread.join(30)
    assert got == [("0", "1")]
    with pytest.raises(SettingsError, match=r"3 GPUs were asked for, of 2 \(0, 1\)"), pool.take(3):
        pass


@pytest.mark.skipif(len(getattr(os, "sched_getaffinity", lambda _: ())(0)) < 2, reason="one core")
def test_each_job_has_its_share_of_the_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flrplan.hardware.gpu_pool.gettempdir", lambda: str(tmp_path))
    script = f"exec {sys.executable} -c 'import os; print(*os.sched_getaffinity(0))'"

    def cores(count: int = 1) -> set[int]:
        return set(map(int, start(tmp_path, "0,1", script, "--gpus", str(count)).communicate(timeout=60)[0].split()))

    first = cores()
    with GpuPool(["0", "1"]).take():
        second = cores()
    assert first | second == cores(2) == os.sched_getaffinity(0)
    assert not first & second


def test_a_command_that_is_not_there_is_told(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "flrplan.hardware.gpu_pool", "--devices", "0", "--", "/no/such"]
    done = subprocess.run(words, env={**os.environ, "TMPDIR": str(tmp_path)}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "error: /no/such: cannot be run: No such file or directory\n")


@contextmanager
def seen_as_user(number: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setattr(os, "getuid", lambda: number)
        yield


def test_a_folder_for_the_locks_that_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with seen_as_user(os.getuid() + 1, monkeypatch), pytest.raises(OutputError, match=r"belongs to user .* set TMPDIR"):
        GpuPool(["0"], tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="no folder for the locks of the GPUs: File exists"):
        GpuPool(["0"], tmp_path / "file")
    (tmp_path / "0.lock").mkdir()
    with pytest.raises(OutputError, match=r"0\.lock: a GPU cannot be locked with it"), GpuPool(["0"], tmp_path).take():
        pass
