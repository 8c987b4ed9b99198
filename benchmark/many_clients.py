"""Many annotators at one server for some minutes: every answer right, no two of them on one case; and ``/info`` during an inference.

``python benchmark/many_clients.py --clients 32 --minutes 3 --folder W``, from the root of the repository, with ``apps/flr_planning/lib`` importable.

Each client asks for its next case, for ``/info`` and for inferences of the liver, saves a label that only it could have drawn, reads it back, and
deletes it, so that the case is free again. Wrong is: a case that another client holds, a label that is not the one saved, a volume of the liver other
than the first answer for that image, a status but 200 (503, "inferences are waiting already", is an answer and counted apart). Then ``/info`` is asked
while the cascade runs, of ``flrplan serve`` and of the plain ``monailabel start_server``. It ends with 1 where anything was wrong.
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
import statistics
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import requests
import SimpleITK as sitk

from flrplan.anatomy import Structure, structure_mask
from flrplan.cohort import make_case
from flrplan.demo.ohif.background import free_port, start
from flrplan.demo.ohif.server import APP, running_server
from flrplan.image import read_label_map, write_volume
from script import at_least, run_script

SECONDS = 600
INFER_EVERY = 8
"""A client asks for an inference with every so many labels."""


class Clients:
    """What all clients of one server have seen."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.folder = folder
        self.done: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.info_seconds: list[float] = []
        self._held: dict[str, str] = {}
        self._liver_ml: dict[str, float] = {}
        self._lock = threading.Lock()

    def run(self, clients: int, seconds: float) -> None:
        """So many clients at once, for so long."""
        until = time.monotonic() + seconds
        threads = [threading.Thread(target=self._client, args=(f"annotator{k}", k, until)) for k in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _client(self, name: str, number: int, until: float) -> None:
        turn = number  # so that not all ask for an inference at the same time
        while time.monotonic() < until:
            try:
                self._annotate(name, number, turn)
            except Exception as error:
                self._note(f"{name}: {type(error).__name__}: {error}")
                time.sleep(1)
            turn += 1

    def _annotate(self, name: str, number: int, turn: int) -> None:
        sample = self._ask("post", "next", "/activelearning/random", json={"client_id": name}).json()
        case = sample.get("id")
        if not case:
            self.done["next: no case is free"] += 1
            time.sleep(0.5)
            return
        with self._lock:
            if self._held.get(case, name) != name:
                self.wrong.append(f"{case} was given to {name} while {self._held[case]} had it")
            self._held[case] = name
        begun = time.monotonic()
        self._ask("get", "info", "/info/")
        self.info_seconds.append(time.monotonic() - begun)
        if turn % INFER_EVERY == 0:
            self._infer(case)
        self._save(case, name, number)
        with self._lock:
            del self._held[case]
        self._ask("delete", "delete", "/datastore/label", params={"id": case, "tag": "final"})

    def _infer(self, case: str) -> None:
        answer = self._ask(
            "post", "infer", "/infer/liver", params={"image": case, "output": "json"}, data={"params": "{}"}, busy=True
        )
        if answer.status_code == 200:
            volumes = answer.json()["volumes"]
            with self._lock:
                first = self._liver_ml.setdefault(case, volumes["liver_ml"])
            if volumes["liver_ml"] != first:
                self._note(f"{case}: a liver of {volumes['liver_ml']} ml, before {first} ml")

    def _save(self, case: str, name: str, number: int) -> None:
        label, geometry = read_label_map(self.folder / "liver.nii.gz")
        drawn = label.copy()
        drawn.ravel()[np.flatnonzero(label)[number]] = 0  # the voxel that only this client leaves out
        file = self.folder / f"{name}.nii.gz"
        sitk.WriteImage(geometry.image(drawn), str(file), useCompression=True)
        params = json.dumps({"label_info": [{"name": "liver", "idx": 1}], "client_id": name})
        with file.open("rb") as upload:
            self._ask(
                "put",
                "save",
                "/datastore/label",
                params={"image": case, "tag": "final"},
                data={"params": params},
                files={"label": upload},
            )
        back = self._ask("get", "read back", "/datastore/label", params={"label": case, "tag": "final"}).content
        file.write_bytes(back)
        if not np.array_equal(read_label_map(file)[0], drawn):
            self._note(f"{case}: the label that {name} read back is not the one it saved")

    def _ask(self, method: str, what: str, path: str, busy: bool = False, **more: object) -> requests.Response:
        answer = requests.request(method, self.url + path, timeout=SECONDS, **more)  # type: ignore[arg-type]
        self.done[f"{what} {answer.status_code}"] += 1
        if answer.status_code != 200 and not (busy and answer.status_code == 503):
            raise ValueError(f"{what}: {answer.status_code} {answer.text[:200]}")
        return answer

    def _note(self, message: str) -> None:
        with self._lock:
            self.wrong.append(message)


def info_during_inference(url: str, case: str) -> tuple[float, list[float]]:
    """Seconds of a cascade, and of each ``/info`` that was asked meanwhile, one after the other."""
    took: list[float] = []

    def infer() -> None:
        begun = time.monotonic()
        answer = requests.post(
            f"{url}/infer/cascade", params={"image": case, "output": "json"}, data={"params": "{}"}, timeout=SECONDS
        )
        answer.raise_for_status()
        took.append(time.monotonic() - begun)

    thread = threading.Thread(target=infer)
    thread.start()
    time.sleep(0.5)
    answers = []
    while thread.is_alive():
        begun = time.monotonic()
        requests.get(f"{url}/info/", timeout=SECONDS).raise_for_status()
        answers.append(time.monotonic() - begun)
        time.sleep(0.1)
    return took[0], answers


@contextmanager
def served(studies: Path, folder: Path) -> Iterator[str]:
    """``flrplan serve`` while the block runs; its address."""
    port = free_port()
    command = [sys.executable, "-m", "flrplan.cli", "serve", "--app", str(APP), "--studies", str(studies), "--port", str(port)]
    command += ["--audit", str(folder / "audit")]
    folder.mkdir(parents=True, exist_ok=True)
    process = start("flrplan serve", command, folder / "server.log", APP.parent, {"TMPDIR": str(folder)}, None)
    try:
        process.wait_until_it_answers(f"http://127.0.0.1:{port}/info/", SECONDS, lambda _: None)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.stop()


def make_studies(folder: Path, cases: int, full: bool) -> None:
    """Copies of one small synthetic CT, the true liver beside the folder, and one CT of middle size for the cascade."""
    small = make_case(11, 0, "small")
    write_volume(folder / "studies" / "case0.nii.gz", small.hu_zyx, small.geometry)
    for k in range(1, cases):
        shutil.copyfile(folder / "studies" / "case0.nii.gz", folder / "studies" / f"case{k}.nii.gz")
    liver = structure_mask(small.planning_zyx, Structure.LIVER)
    write_volume(folder / "liver.nii.gz", liver.astype(np.uint8), small.geometry)
    if full:
        large = make_case(11, 1, "medium")
        write_volume(folder / "one" / "large.nii.gz", large.hu_zyx, large.geometry)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs both; 1 where anything was wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--clients", type=at_least(1), default=32)
    parser.add_argument("--minutes", type=float, default=3)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--no-latency", action="store_true", help="the clients alone")
    options = parser.parse_args(arguments)
    folder = options.folder
    make_studies(folder, options.clients + options.clients // 2, not options.no_latency)
    out = io.StringIO()
    with served(folder / "studies", folder / "served") as url:
        clients = Clients(url, folder)
        clients.run(options.clients, options.minutes * 60)
    out.write(f"{options.clients} clients, {options.minutes:g} minutes: {dict(sorted(clients.done.items()))}\n")
    seconds = sorted(clients.info_seconds)
    if seconds:
        out.write(
            f"/info of one of {options.clients}: median {statistics.median(seconds):.2f} s, 95 % within {seconds[len(seconds) * 95 // 100]:.2f} s\n"
        )
    out.write(f"{len(clients.wrong)} wrong\n" + "".join(f"  {line}\n" for line in clients.wrong[:20]))
    if not options.no_latency:
        with served(folder / "one", folder / "served-one") as url:
            ours = info_during_inference(url, "large")
        with running_server(str(folder / "one"), folder / "plain", lambda _: None, free_port()) as server:
            plain = info_during_inference(server.url, "large")
        for name, (took, answers) in (("flrplan serve", ours), ("monailabel start_server", plain)):
            out.write(
                f"{name}: a cascade of {took:.0f} s; /info {len(answers)} times, median {statistics.median(answers):.3f} s, most {max(answers):.2f} s\n"
            )
        out.write(f"slowest /info, plain / served: {max(plain[1]) / max(ours[1]):.0f}\n")
    sys.stdout.write(out.getvalue())
    return int(bool(clients.wrong))


if __name__ == "__main__":
    run_script(main)
