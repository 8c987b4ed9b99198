"""Many cases: what overlaps and what does not, errors and interrupts, a process for each GPU."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from flrplan.api import many
from flrplan.api.many import overlapped, part_of, run_on_gpus
from flrplan.cli import main
from flrplan.errors import OutputError
from flrplan.hardware import gpu_pool

SECONDS = 20


class Watched:
    """Objects of which it is known how many live."""

    alive = 0
    most = 0
    lock = threading.Lock()

    def __init__(self, case: int) -> None:
        self.case = case
        with self.lock:
            Watched.alive += 1
            Watched.most = max(Watched.most, Watched.alive)

    def __del__(self) -> None:
        with self.lock:
            Watched.alive -= 1


def test_the_next_case_is_read_and_the_last_one_written_while_one_is_computed() -> None:
    reading, computing, writing = ([threading.Event() for _ in range(5)] for _ in range(3))
    order: list[int] = []

    def read(case: int) -> int:
        reading[case].set()
        return 10 * case

    def compute(case: int, read: Callable[[], int]) -> int:
        computing[case].set()
        if case < 4:
            assert reading[case + 1].wait(SECONDS), "the next is not read meanwhile"
        assert not any(event.is_set() for event in reading[case + 2 :]), "more than one ahead"
        if case:
            assert writing[case - 1].wait(SECONDS), "the one before is not written meanwhile"
        return read() + 1

    def write(case: int, made: int) -> None:
        writing[case].set()
        if case < 4:
            assert computing[case + 1].wait(SECONDS), "writing keeps the next from being computed"
        order.append(made)

    overlapped(range(5), read, compute, write)
    assert order == [1, 11, 21, 31, 41]


def test_memory_does_not_grow_with_the_number_of_cases() -> None:
    def compute(case: int, read: Callable[[], Watched]) -> Watched:
        return read()

    Watched.most = 0
    overlapped(range(50), Watched, compute, lambda case, made: None)
    assert Watched.most <= 3
    assert Watched.alive == 0


def test_a_case_that_cannot_be_read_is_an_error_where_it_is_computed_and_what_makes_nothing_is_not_written() -> None:
    written, failed = list[int](), list[int]()

    def read(case: int) -> int:
        if case == 1:
            raise ValueError("broken")
        return case

    def compute(case: int, read: Callable[[], int]) -> int | None:
        try:
            return read()
        except ValueError:
            failed.append(case)
            return None

    overlapped(range(3), read, compute, lambda case, made: written.append(made))
    assert (written, failed) == ([0, 2], [1])


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OutputError("the disk is full")])
def test_what_is_being_written_is_written_to_its_end(error: BaseException) -> None:
    stopping, written, read = threading.Event(), list[int](), list[int]()

    def compute(case: int, read: Callable[[], None]) -> int:
        if case == 1:
            stopping.set()
            raise error
        return case

    def write(case: int, made: int) -> None:
        assert stopping.wait(SECONDS)
        written.append(made)

    with pytest.raises(type(error)):
        overlapped(range(9), read.append, compute, write)
    assert written == [0]
    assert len(read) <= 3


def test_a_disk_that_is_full_stops_the_rest() -> None:
    def write(case: int, made: int) -> None:
        raise OutputError("the disk is full")

    computed: list[int] = []
    with pytest.raises(OutputError, match="full"):
        overlapped(range(9), lambda case: case, lambda case, read: computed.append(case) or 1, write)
    assert len(computed) <= 2


def test_parts_hold_every_case_once() -> None:
    assert [part_of("abcdefg", (k, 3)) for k in (1, 2, 3)] == [["a", "d", "g"], ["b", "e"], ["c", "f"]]


def test_each_gpu_has_a_process_that_sees_it_alone_and_a_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, use_gpu: Callable[[Path, int], str]
) -> None:
    """Pretended GPUs, as in the workflow's tests: each job fails where its own is in use, and waits until both are."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    parts: list[str] = []

    def command(part: str) -> list[str]:
        parts.append(part)
        return ["sh", "-c", f"({use_gpu(tmp_path, 2)}) >> {tmp_path}/seen"]

    assert run_on_gpus(command, ["0", "GPU-b"], (2, 3)) == 0
    assert parts == ["2/6", "5/6"], "of the cases of part 2 of 3, that is 1, 4, 7, ..., every second"
    assert sorted((tmp_path / "seen").read_text().split()) == ["0", "GPU-b"]
    assert run_on_gpus(lambda part: ["sh", "-c", f"test {part} = 1/2"], ["0", "1"]) == 1


def test_the_command_gives_every_gpu_its_part_of_the_cases(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in "abc":
        (tmp_path / f"{name}.nii.gz").write_bytes(b"none")
    asked: list[list[str]] = []

    def run(command: Callable[[str], list[str]], gpus: tuple[str, ...], part: tuple[int, int]) -> int:
        asked.append([*gpus, *command("1/2")[2:]])
        return 0

    monkeypatch.setattr(many, "run_on_gpus", run)
    monkeypatch.setenv(gpu_pool.VARIABLE, "3,GPU-b,5")
    words = ["plan", str(tmp_path), "--out", str(tmp_path / "out"), "--device", "cpu"]
    assert main([*words, "--gpus", "2"]) == 0
    assert asked == [["3", "GPU-b", "flrplan.cli", *words, "--gpus", "2", "--part", "1/2", "--gpus", "1"]]
    assert main([*words, "--gpus", "7"]) == 1
    assert "--gpus 7: asks for 7 GPUs, of 3 visible" in capsys.readouterr().err
    assert main([*words, "--part", "2/3"]) == 1, "one broken case, and no GPU for it alone"
    printed = capsys.readouterr().err
    assert "[2/3] b\n" in printed
    assert "1 of 1 cases failed" in printed
    assert len(asked) == 1
    with pytest.raises(SystemExit):
        main([*words, "--part", "4/3"])
    assert "expected K/N with K from 1 to N, such as 2/4, got '4/3'" in capsys.readouterr().err
