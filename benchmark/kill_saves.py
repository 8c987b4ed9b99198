"""Kills (SIGKILL) of a process that saves labels, and of the whole server under a saving client; says what was lost.

``python benchmark/kill_saves.py --saves 200 --servers 20 --folder W``, from the root of the repository, with ``apps/flr_planning/lib``
importable. Each label holds one value, which its name's index is as well, so that a label with another one's names is found; a save
counts once the datastore, or the server, has answered. What was answered must be there, as ``final`` or as a version.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import requests
import SimpleITK as sitk

from flrplan.demo.ohif.background import free_port
from flrplan.demo.ohif.server import running_server
from flrplan.image import Geometry, read_label_map, write_volume
from flrplan.server.studies import PlanningLocalDatastore
from script import at_least, run_script

CASES = ("a", "1.2.840.113")
GRID = Geometry((12, 10, 8), (0.8, 0.8, 2.5))
VALUES = 250
KILLS_A_FOLDER = 4
"""Then a new one, since all labels are read after each."""
ENDINGS = (".nii.gz", ".nii.gz", ".nrrd")


@dataclass
class Tally:
    """What a number of kills left."""

    kills: int = 0
    saved: int = 0
    killed_at_work: int = 0
    lost: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    did_not_start: int = 0

    def __str__(self) -> str:
        return (
            f"{self.kills} kills ({self.killed_at_work} within a save), {self.saved} labels saved: {len(self.lost)} lost, "
            f"{len(self.unreadable)} unreadable or with wrong names, {self.did_not_start} times it did not start"
        )


def make_studies(folder: Path) -> Path:
    """Two images."""
    for case in CASES:
        write_volume(folder / f"{case}.nii.gz", np.full(GRID.shape_zyx, -1000, np.int16), GRID)
    return folder


def write_label(path: Path, number: int) -> dict[str, object]:
    """The label of that number, and its names. The number is told by the value and by how many voxels have it."""
    value = 1 + number % VALUES
    array = np.zeros(GRID.shape_zyx, np.uint8)
    array.ravel()[: 1 + number // VALUES] = value
    image = GRID.image(array)
    sitk.WriteImage(image, str(path), useCompression=True)
    return {"label_info": [{"name": "liver", "idx": value}], "client_id": "annotator"}


def numbers_in(datastore: PlanningLocalDatastore, case: str, tally: Tally) -> set[int]:
    """The numbers of all labels of a case, each read and compared with its names."""
    found = set()
    for tag, info in datastore.labels_of(case).items():
        path = Path(datastore.get_label_uri(case, tag))
        try:
            array = read_label_map(path)[0]
            value = int(array.max())
            if info["label_info"] != [{"name": "liver", "idx": value}]:
                raise ValueError(f"value {value} is called {info['label_info']}")
            found.add((int((array > 0).sum()) - 1) * VALUES + value - 1)
        except Exception as error:
            tally.unreadable.append(f"{path}: {error}")
    return found


def kill_savers(folder: Path, kills: int, seed: int = 0, tell: Callable[[str], object] = lambda _: None) -> Tally:
    """Forks a process that saves one label after the other, and kills it at a random instant, again and again."""
    tally, moments = Tally(), random.Random(seed)
    number = 0
    for kill in range(kills):
        studies = folder / f"studies{kill // KILLS_A_FOLDER}"
        if kill % KILLS_A_FOLDER == 0:
            make_studies(studies)
            told: dict[str, set[int]] = {case: set() for case in CASES}
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            save_until_killed(studies, number, writer)
        os.close(writer)
        time.sleep(0.02 + moments.random() * 0.25)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        with os.fdopen(reader) as pipe:
            lines = [line.split() for line in pipe.read().splitlines()]
        for line in lines:
            if line[0] == "saved":
                told[CASES[int(line[1])]].add(int(line[2]))
        tally.killed_at_work += bool(lines) and lines[-1][0] == "begins"
        tally.saved += sum(line[0] == "saved" for line in lines)
        number = max([number, *(int(line[2]) + 1 for line in lines)])
        tally.kills += 1
        check(studies, told, tally)
        tell(str(tally))
    return tally


def save_until_killed(studies: Path, number: int, told: int) -> None:
    """Of the child: never returns."""
    try:
        datastore = PlanningLocalDatastore(str(studies))
        while True:
            which = number % len(CASES)
            file = studies.parent / f"upload-{os.getpid()}{ENDINGS[number % len(ENDINGS)]}"
            info = write_label(file, number)
            os.write(told, f"begins {which} {number}\n".encode())
            datastore.save_label(CASES[which], str(file), "final", info)
            os.write(told, f"saved {which} {number}\n".encode())
            number += 1
    finally:
        os._exit(1)


def check(studies: Path, told: dict[str, set[int]], tally: Tally) -> None:
    """Opens the studies as a server does; every label that was answered must be there."""
    try:
        datastore = PlanningLocalDatastore(str(studies))
    except Exception:
        tally.did_not_start += 1
        return
    for case, numbers in told.items():
        tally.lost += [f"{studies} {case}: {n}" for n in numbers - numbers_in(datastore, case, tally)]
    json.loads((studies / "datastore_v2.json").read_text())


def kill_servers(folder: Path, kills: int, seed: int = 0, tell: Callable[[str], object] = lambda _: None) -> Tally:
    """Kills ``monailabel start_server`` while a client saves labels; the next one starts on the same studies."""
    tally, moments = Tally(), random.Random(seed)
    studies = make_studies(folder / "studies")
    told: dict[str, set[int]] = {case: set() for case in CASES}
    number = 0
    for _ in range(kills):
        begun, stop = [number], threading.Event()
        try:
            with running_server(str(studies), folder / "server", lambda _: None, free_port()) as server:

                def save(url: str = server.url, begun: list[int] = begun, stop: threading.Event = stop) -> None:
                    while not stop.is_set():
                        which = begun[0] % len(CASES)
                        file = folder / f"upload{ENDINGS[begun[0] % len(ENDINGS)]}"
                        params = {"params": json.dumps(write_label(file, begun[0]))}
                        begun[0] += 1
                        try:
                            with file.open("rb") as label:
                                url_of = f"{url}/datastore/label?image={CASES[which]}&tag=final"
                                answer = requests.put(url_of, data=params, files={"label": (file.name, label)}, timeout=30)
                        except requests.RequestException:
                            return
                        if answer.ok:
                            told[CASES[which]].add(begun[0] - 1)

                client = threading.Thread(target=save)
                client.start()
                time.sleep(0.5 + 2 * moments.random())
                kill_listener(server.process.process.pid)
                stop.set()
                client.join()
        except Exception as error:
            tally.did_not_start += 1
            tell(f"it did not start: {error}")
        tally.kills += 1
        tally.killed_at_work += begun[0] - 1 not in told[CASES[(begun[0] - 1) % len(CASES)]]
        number = begun[0]
        tally.saved = sum(map(len, told.values()))
        check(studies, told, tally)
        tell(str(tally))
    return tally


def kill_listener(guard: int) -> None:
    """SIGKILL to every process of a server that the guard with this id has started."""
    import psutil

    for process in psutil.Process(guard).children(recursive=True):
        process.kill()


def main() -> int:
    """Runs both; 1 where anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--saves", type=at_least(0), default=200)
    parser.add_argument("--servers", type=at_least(0), default=20)
    parser.add_argument("--folder", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)

    def tell(line: str) -> None:
        sys.stdout.write(f"\r{line} ")
        sys.stdout.flush()

    failed = False
    for what, run, kills in (
        ("a saving process", kill_savers, arguments.saves),
        ("the server", kill_servers, arguments.servers),
    ):
        tally = run(arguments.folder / what.replace(" ", "-"), kills, tell=tell)
        sys.stdout.write(f"\n{what}: {tally}\n" + "".join(f"  {x}\n" for x in (*tally.lost, *tally.unreadable)))
        failed = failed or bool(tally.lost or tally.unreadable or tally.did_not_start)
    return int(failed)


if __name__ == "__main__":
    run_script(main)
