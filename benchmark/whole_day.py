"""One day of an annotator, for real: Orthanc, the server, and OHIF in a headless Chromium on a cohort whose labels have faults.

``python benchmark/whole_day.py --work W``, from the root of the repository, with ``apps/flr_planning/lib`` importable (needs Orthanc and Chromium).

Twelve cases come with faulty labels (tag ``original``). The strategy ``label_faults`` hands out the worst; in OHIF the cascade is run on it,
corrected by a click, submitted, painted with the brush and sent back by "Export DICOM SEG". Five more cases get the truth as their answer over
HTTP. "Update Model" trains on these six, and the cascade before and after is compared on the other six. W gets ``day.json`` with every figure,
``pictures/`` with every step, and all files of the day.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import requests
import SimpleITK as sitk
from monailabel.client import MONAILabelClient
from numpy.typing import NDArray
from scipy import ndimage
from scipy.stats import ttest_1samp

from flrplan.anatomy import PLANNED, Compartment, Structure, structure_mask, to_compartments
from flrplan.cohort import CohortSettings
from flrplan.cohort.settings import CaseSize, case_name
from flrplan.cohort.write import image_path, label_path, truth_path, write_cohort
from flrplan.cohort.write_dicom import write_dicom_cohort
from flrplan.demo.ohif.annotate import click, next_sample, submit, update_model
from flrplan.demo.ohif.browser import open_page
from flrplan.demo.ohif.correct import correct
from flrplan.demo.ohif.direct import ask
from flrplan.demo.ohif.drive import Visit, connect, open_mode, run_model
from flrplan.demo.ohif.orthanc import LoadedSeries, running_orthanc
from flrplan.demo.ohif.server import Server, running_server
from flrplan.files import write_json, write_text
from flrplan.image import Geometry, read_ct, read_label_map
from flrplan.metrics.overlap import dice
from flrplan.qc import QcCase, check_case
from flrplan.server.label_table import read_label
from script import at_least, run_script

SEED = 17
FAULTS = (
    "void",
    "left_right",
    "shell",
    "island",
    "pieces",
    "ragged",
    "punctate",
    "up_down",
    "missed",
    "oversegmented",
    "ragged_cut",
    "cut_off",
)
CORRECTED = 6
READER = "anna"
LABEL_INFO = [{"name": c.label_name, "idx": int(c)} for c in Compartment]
RECIPE = """
common:
  training: {{epochs: {epochs}, iterations_per_epoch: {iterations}, validation_iterations: 1, learning_rate: 0.0005, workers: 1}}
"""
"""Short, and with small steps: the models that serve go on learning."""


def tell(line: str) -> None:
    """What goes on, with the time."""
    sys.stdout.write(f"{time.strftime('%H:%M:%S')} {line}\n")
    sys.stdout.flush()


@dataclass(frozen=True)
class Case:
    """A case in Orthanc, and its truth ``(Z, Y, X) uint8``."""

    name: str
    series: LoadedSeries
    truth: NDArray[np.uint8]
    grid: Geometry

    def on_grid(self, array_zyx: NDArray[Any], grid: Geometry) -> NDArray[np.uint8]:
        """A label map on the grid of the truth: a DICOM series may list its slices the other way round."""
        to = self.grid.image(self.truth)
        found = sitk.Resample(grid.image(array_zyx.astype(np.uint8)), to, sitk.Transform(), sitk.sitkNearestNeighbor)
        return sitk.GetArrayFromImage(found)


@dataclass
class Day:
    """What the day is made of."""

    work: Path
    server: Server
    cases: Mapping[str, Case]
    client: MONAILabelClient

    def ask(self, path: str, method: str = "GET") -> requests.Response:
        """One request that must work."""
        answer = ask(method, f"{self.server.url}/{path}", 600)
        answer.raise_for_status()
        return answer

    def wait_for_scores(self) -> None:
        """Until the labels that the cases came with are scored; what else strategies go by is not waited for."""
        self.ask("scoring/case_scores", "POST")
        while True:
            found = self.ask("scoring/").json()["case_scores"]
            if found["scored"]["label"] >= found["of"] or not found["running"]:
                break
            time.sleep(2)
        self.ask("scoring/", "DELETE")
        tell(f"labels scored: {found['scored']['label']} of {found['of']}")

    def save(self, case: Case, file: Path, tag: str) -> None:
        """A label over HTTP."""
        self.client.save_label(case.series.series_uid, str(file), tag=tag, params={"label_info": LABEL_INFO})

    def label(self, case: Case, tag: str) -> NDArray[np.uint8]:
        """A stored label as a planning map."""
        of = f"label={case.series.series_uid}&tag={tag}"
        content = self.ask(f"datastore/label?{of}").content
        file = self.work / f"label{'.nrrd' if content.startswith(b'NRRD') else '.nii.gz'}"
        file.write_bytes(content)
        label, grid = read_label(file, self.ask(f"datastore/label/info?{of}").json())
        return case.on_grid(to_compartments(*(label.masks[s] for s in PLANNED))[0], grid)

    def findings(self, case: Case, tag: str) -> list[str]:
        """What label QC says of a stored label: rule, severity, message."""
        ct, label = read_ct(image_path(self.work / "cohort", case.name)), self.label(case, tag)
        masks = {s: structure_mask(label, s) for s in PLANNED}
        return [f"{f.rule} ({f.severity}): {f.message}" for f in check_case(QcCase(case.name, case.grid, masks, ct)).findings]

    def state(self, case: Case) -> str:
        """Where the work list says that a case stands."""
        lines = csv.DictReader(io.StringIO(self.ask("worklist.csv").text))
        return next(line["what"] for line in lines if line["case"] == case.series.series_uid)

    def cascade(self, case: Case) -> dict[str, float | None]:
        """Dice of the cascade's answer, per structure."""
        file, _ = self.client.infer("cascade", case.series.series_uid, {})
        return scores(case.on_grid(*read_label_map(Path(file))), case.truth)


def scores(planning_zyx: NDArray[Any], truth: NDArray[np.uint8]) -> dict[str, float | None]:
    """Dice per structure; None where neither has it."""
    found = {s.value: dice(structure_mask(truth, s), structure_mask(planning_zyx, s)) for s in PLANNED}
    return {name: round(value, 4) if value == value else None for name, value in found.items()}


@contextmanager
def begun(work: Path, size: CaseSize, cases: int, recipe: str) -> Iterator[Day]:
    """The cohort in Orthanc, its faulty labels in the server, which trains by ``recipe``, while the block runs."""
    settings = CohortSettings(cases=cases, seed=SEED, size=size, faults=1.0, fault_kinds=FAULTS)
    write_cohort(settings, work / "cohort")
    names = [case_name(SEED, i) for i in settings.indices]
    dicom = write_dicom_cohort(work / "cohort", names)
    for folder in ("orthanc", "server", "models", "pictures"):  # of an earlier day
        shutil.rmtree(work / folder, ignore_errors=True)
    (work / "models").mkdir()
    write_text(work / "recipe.yaml", recipe)
    conf = {"models": str(work / "models"), "train_recipe": str(work / "recipe.yaml"), "device": "cpu"}
    with running_orthanc(work / "orthanc", tell) as orthanc:
        found = {}
        for name in names:
            truth, grid = read_label_map(truth_path(work / "cohort", name))
            found[name] = Case(name, orthanc.load(sorted((dicom / name).glob("*.dcm"))), truth.astype(np.uint8), grid)
        with running_server(orthanc.dicomweb, work / "server", tell, conf=conf) as server:
            day = Day(work, server, found, MONAILabelClient(server.url, tmpdir=str(work), client_id=READER))
            for case in found.values():
                day.save(case, label_path(work / "cohort", case.name), "original")
            day.wait_for_scores()
            yield day


def place_of(mask: NDArray[np.bool_], grid: Geometry, along: int = 0) -> list[float]:
    """The deepest place of a mask, moved some voxels along x: LPS mm."""
    depth = ndimage.distance_transform_edt(np.pad(mask, 1), sampling=grid.spacing_zyx_mm)[1:-1, 1:-1, 1:-1]
    z, y, x = (int(n) for n in np.unravel_index(depth.argmax(), depth.shape))
    return [float(mm) for mm in grid.world_mm(np.array([[x + along, y, z]], float))[0]]


def most_wrong(label: NDArray[np.uint8], truth: NDArray[np.uint8]) -> tuple[Compartment, NDArray[np.bool_]]:
    """Of remnant and resection, the one that lacks most voxels which the label has as another compartment, and those voxels."""
    lacking = {c: (truth == c) & (label != c) & (label > 0) for c in (Compartment.REMNANT, Compartment.RESECTION)}
    worst = max(lacking, key=lambda c: np.count_nonzero(lacking[c]))
    return worst, lacking[worst]


def in_the_viewer(day: Day, strategy: str, clicks: str) -> tuple[Case, dict[str, Any]]:
    """The worst case, in OHIF: cascade, a click, submit, brush, Export DICOM SEG. Returns what was seen at each step."""
    pictures = day.work / "pictures"
    with open_page() as page:
        visit = Visit(page, day.server, pictures, "1-", tell)
        open_mode(visit, next(iter(day.cases.values())).series)
        connect(visit)
        study = next_sample(visit, strategy)
        case = next(c for c in day.cases.values() if c.series.study_uid == study)
        seen: dict[str, Any] = {
            "case": case.name,
            "findings_before": day.findings(case, "original"),
            "state_before": day.state(case),
        }
        answer = case.on_grid(*run_model(visit))
        visit.picture("cascade")
        seen["dice_cascade"] = scores(answer, case.truth)
        crlm, drawn = structure_mask(case.truth, Structure.CRLM), structure_mask(answer, Structure.CRLM)
        pieces, n = ndimage.label(crlm)
        sizes = {i: np.count_nonzero(pieces == i) for i in range(1, n + 1)}
        missed = {i: v for i, v in sizes.items() if not (drawn & (pieces == i)).any()} or sizes
        if missed and clicks:
            click(visit, clicks, Structure.CRLM.value, place_of(pieces == max(missed, key=missed.__getitem__), case.grid))
        submit(visit, READER)
    submitted = day.label(case, "final")
    seen |= {"dice_submitted": scores(submitted, case.truth), "state_submitted": day.state(case)}
    compartment, wrong = most_wrong(submitted, case.truth)
    stroke = (place_of(wrong, case.grid), place_of(wrong, case.grid, along=2))
    with open_page() as page:
        correct(page, day.server, case.series, compartment.label_name, stroke, READER, pictures, tell)
        page.goto(f"{day.server.url}/worklist")
        page.screenshot(path=pictures / "worklist.png")
    seen |= {
        "dice_sent_back": scores(day.label(case, "final"), case.truth),
        "findings_after": day.findings(case, "final"),
        "state_after": day.state(case),
    }
    return case, seen


def train(day: Day, case: Case) -> dict[str, str]:
    """Presses "Update Model" and waits; what each stage ended with."""
    with open_page() as page:
        visit = Visit(page, day.server, day.work / "pictures", "2-", tell)
        open_mode(visit, case.series)
        connect(visit)
        update_model(visit)
        while any(task["status"] in ("SUBMITTED", "RUNNING") for task in day.ask("train/?all=true").json()):
            time.sleep(5)
        connect(visit)
        visit.picture("trained")
    stats = day.ask("info/").json()["train_stats"]
    return {stage: str(found.get("message") or found.get("error") or found) for stage, found in stats.items() if found}


def main() -> int:
    """Lives the day and writes ``day.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, metavar="W")
    parser.add_argument("--size", type=CaseSize, default=CaseSize.SMALL, choices=list(CaseSize))
    parser.add_argument("--cases", type=at_least(1), default=12)
    parser.add_argument("--strategy", default="label_faults", help="(label_faults)")
    parser.add_argument("--clicks", default="clicks", metavar="TASK", help="the task that answers clicks (clicks)")
    parser.add_argument("--epochs", type=at_least(1), default=4, help="of the training of each stage (4)")
    parser.add_argument("--iterations", type=at_least(1), default=10, help="of an epoch (10)")
    given = parser.parse_args()
    work = given.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    recipe = RECIPE.format(epochs=given.epochs, iterations=given.iterations)
    with begun(work, given.size, given.cases, recipe) as day:
        begun_at = time.monotonic()
        figures: dict[str, Any] = {"settings": vars(given) | {"work": work.name}}

        def keep(**more: Any) -> None:
            figures.update(more, seconds=round(time.monotonic() - begun_at))
            write_json(work / "day.json", figures)
            tell(json.dumps(more))

        case, seen = in_the_viewer(day, given.strategy, given.clicks)
        keep(viewer=seen)
        by_uid = {c.series.series_uid: c for c in day.cases.values()}
        corrected = [case]
        while len(corrected) < min(CORRECTED, given.cases - 1):
            case = by_uid[day.client.next_sample(given.strategy, {})["id"]]
            day.save(case, truth_path(work / "cohort", case.name), "final")
            corrected.append(case)
        rest = [c for c in day.cases.values() if c not in corrected]
        keep(corrected=[c.name for c in corrected], before={c.name: day.cascade(c) for c in rest})
        keep(training=train(day, corrected[0]))
        keep(after={c.name: day.cascade(c) for c in rest})
        compared = {}
        for s in map(str, PLANNED):
            old, new = (np.array([figures[when][c.name][s] for c in rest], float) for when in ("before", "after"))
            low, high = ttest_1samp(
                new - old, 0, nan_policy="omit"
            ).confidence_interval()  # six cases are too few to be drawn again
            compared[s] = {
                "before": float(np.nanmean(old)),
                "after": float(np.nanmean(new)),
                "difference": float(np.nanmean(new - old)),
                "ci95": [float(low), float(high)],
            }
        keep(after_minus_before=compared)
    return 0


if __name__ == "__main__":
    run_script(main)
