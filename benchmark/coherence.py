"""What the coherent plan changes: the networks' raw remnant beside it, on synthetic cases with truth and on CTs of yours.

    python benchmark/coherence.py --work W --cases 12 --seed 21 --real lidc=DICOM_FOLDER --real example_ct=CT_FILE

Cases are full-size (512 x 512), every second one wide, predicted once by the demo models and kept in ``W/raw/<case>.npz``: 20 s of CPU and
some 2 MB a case. Measured from there in 6 s a case, so a run that is broken off, or asked for more cases, goes on. ``given``: the remnant
from the true liver and metastases; ``predicted``: from the CT alone. Writes ``W/coherence.csv``, a line a plan, and prints the table, and
how often the true FLR% lies in the interval that the models' calibration gives.

parts: of the resection (26 neighbours), all of them; beyond: more than the truth's of at least 2 ml.
shell: the part of the resection within 4 mm of the capsule that an opening with a ball of 4 mm diameter removes, where it does not remove
the liver itself; where slices are thicker than 2 mm, only what is thin within the slices.
error: FLR% (remnant parenchyma over all parenchyma, each of its own masks) minus the truth's, in points.
"""

from __future__ import annotations

import argparse
import csv
import json
import logging
import math
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from flrplan.anatomy import Mask, Structure, structure_mask, to_compartments
from flrplan.api.run_plan import coherent_plan
from flrplan.cohort import CohortSettings, make_case
from flrplan.cohort.settings import case_name
from flrplan.engine import DEMO_NAME, MODEL_ROOT, Cascade, CascadeSettings, ModelStore
from flrplan.engine.cache import digest_of_array
from flrplan.errors import EmptyLiverError, FlrError
from flrplan.files import make_writable, replacing
from flrplan.image import CT, Geometry, read_ct
from flrplan.image.cases import safe_name
from flrplan.method import CASCADE, MASK_FROM
from flrplan.method.engine import APP_ENGINE
from flrplan.metrics.overlap import dice
from flrplan.planning import COHERENT, measure_volumes
from flrplan.planning.calibration import CALIBRATION_NAME, Calibration
from flrplan.planning.coherent import TOUCHING, coherent_flr
from flrplan.planning.evidence import Evidence
from script import at_least, run_script

log = logging.getLogger("coherence")

SHELL_MM = 4.0
Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Measured:
    """One plan. truth_parts, beyond, dice and error are NaN without a truth, smallest_ml without a resection."""

    case: str
    inputs: str
    plan: str
    truth_parts: float
    parts: int
    beyond: float
    smallest_ml: float
    remnant_parts: int
    shell: float
    dice: float
    flr_fraction: float
    error: float
    seconds: float


def predict(ct: CT, truth: NDArray[np.uint8] | None, cascade: Cascade) -> Arrays:
    """The networks' liver, CRLM and FLR probability, from the CT alone and from the true masks, and what there is to be sure of it."""
    kept: Arrays = {"spacing_mm": np.array(ct.geometry.spacing_mm)}
    inputs: dict[str, dict[Structure, Mask]] = {"predicted": {}}
    if truth is not None:
        kept["truth"] = truth
        inputs["given"] = {s: structure_mask(truth, s) for s in (Structure.LIVER, Structure.CRLM)}
    for name, given in inputs.items():
        probability: dict[Structure, NDArray[np.uint8]] = {}
        plan, evidence = coherent_plan(cascade, ct, given, on_probability=probability.__setitem__)
        kept |= {
            f"{name}_p": probability[Structure.FLR],
            f"{name}_evidence": np.array(json.dumps(evidence and evidence.to_json())),
        }
        if not given:
            kept |= {f"{name}_{s}": plan.masks[s] for s in (Structure.LIVER, Structure.CRLM)}
    return kept


def predicted(work: Path, name: str, make: Any, cascade: Cascade, image: str | None = None) -> Arrays:
    """The predictions of a case, from its file where these very models' were kept, run so. image: what tells a CT of its name from another.

    Raises FlrError.
    """
    path = work / "raw" / f"{name}.npz"
    of = np.array(
        json.dumps([_models(cascade), asdict(cascade.settings), asdict(COHERENT), *filter(None, [image])], sort_keys=True)
    )
    if path.is_file():
        with np.load(path) as held:
            if str(held.get("of")) == str(of):
                return {key: held[key] for key in held.files}
    ct, truth = make()
    arrays = {"of": of, **predict(ct, truth, cascade)}
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as beside, beside.open("wb") as file:
        np.savez_compressed(file, **arrays)
    return arrays


def _models(cascade: Cascade) -> dict[str, Any]:
    return {stage.name: dict(cascade.identity(stage).decides) for stage in CASCADE}


def sureness(measured: list[Measured], evidence: dict[tuple[str, str], Evidence], calibration: Calibration) -> list[str]:
    """A line for each kind of inputs: in how many of the cases that have an interval the true FLR% lies in it."""
    lines = []
    for inputs in ("given", "predicted"):
        inside, widths, without = 0, [], 0
        for m in measured:
            seen = evidence.get((m.case, inputs))
            if (m.inputs, m.plan) != (inputs, "coherent") or seen is None or math.isnan(m.error):
                continue
            bounds = calibration.interval(seen).flr_fraction
            if bounds is None:
                without += 1
                continue
            inside += bounds.lower <= m.flr_fraction - m.error / 100 <= bounds.upper
            widths.append(100 * (bounds.upper - bounds.lower))
        if widths or without:
            mean = f", mean width {np.mean(widths):.0f} points" if widths else ""
            lines.append(
                f"interval, {inputs}: holds the true FLR% in {inside} of {len(widths)} cases{mean}; {without} have none"
            )
    return lines


def measure(case: str, arrays: Arrays) -> Iterator[Measured]:
    """Raw and coherent plan, for the true and for the predicted inputs."""
    x_mm, y_mm, z_mm = (float(s) for s in arrays["spacing_mm"])
    truth = arrays.get("truth")
    for inputs in ("given", "predicted"):
        if inputs == "given" and truth is None:
            continue
        liver, crlm = (
            structure_mask(arrays["truth"], s) if inputs == "given" else arrays[f"predicted_{s}"]
            for s in (Structure.LIVER, Structure.CRLM)
        )
        probability = arrays[f"{inputs}_p"]
        z, y, x = liver.shape
        geometry = Geometry((x, y, z), (x_mm, y_mm, z_mm))
        started = perf_counter()
        coherent = coherent_flr(liver, crlm, probability, geometry)
        seconds = perf_counter() - started
        for plan, flr, took in (("raw", (probability >= MASK_FROM) & liver, 0.0), ("coherent", coherent, seconds)):
            yield _measured(case, inputs, plan, (liver, crlm, flr), truth, geometry, took)
    if truth is not None:
        masks = tuple(structure_mask(truth, s) for s in (Structure.LIVER, Structure.CRLM, Structure.FLR))
        yield _measured(case, "truth", "truth", (masks[0], masks[1], masks[2]), truth, geometry, 0.0)


def _measured(
    case: str,
    inputs: str,
    plan: str,
    masks: tuple[Mask, Mask, Mask],
    truth: NDArray[np.uint8] | None,
    geometry: Geometry,
    seconds: float,
) -> Measured:
    liver, _, flr = masks
    resection = liver & ~flr
    sizes = _sizes_ml(resection, geometry)
    fraction = measure_volumes(to_compartments(*masks)[0], geometry.voxel_volume_ml).flr_fraction
    expected = overlap = error = math.nan
    if truth is not None:
        expected = float((_sizes_ml(structure_mask(truth, Structure.LRS), geometry) >= COHERENT.smallest_part_ml).sum())
        overlap = dice(structure_mask(truth, Structure.FLR), flr)
        error = 100 * (fraction - measure_volumes(truth, geometry.voxel_volume_ml).flr_fraction)
    return Measured(
        case, inputs, plan, expected, len(sizes), len(sizes) - expected, min(sizes, default=math.nan), len(_sizes_ml(flr, geometry)),
        shell_share(liver, resection, geometry.spacing_zyx_mm), overlap, fraction, error, seconds,
    )  # fmt: skip


def _sizes_ml(side: Mask, geometry: Geometry) -> NDArray[np.float64]:
    return np.asarray(np.bincount(ndimage.label(side, TOUCHING)[0].ravel())[1:] * geometry.voxel_volume_ml)


def shell_share(liver: Mask, resection: Mask, spacing_zyx_mm: tuple[float, float, float]) -> float:
    """The share of the resection (0..1) that is a shell along the capsule, as the script's docstring says; 0 without a resection."""
    if not resection.any():
        return 0.0
    box = ndimage.find_objects(liver.astype(np.uint8))[0]
    whole, side = np.pad(liver[box], 1), np.pad(resection[box], 1)
    near = ndimage.distance_transform_edt(whole, sampling=spacing_zyx_mm) <= SHELL_MM
    thin = side & ~_opened(side, spacing_zyx_mm) & _opened(whole, spacing_zyx_mm)
    return float(np.count_nonzero(thin & near) / np.count_nonzero(side))


def _opened(mask: Mask, spacing_zyx_mm: tuple[float, float, float]) -> Mask:
    core = ndimage.distance_transform_edt(mask, sampling=spacing_zyx_mm) > SHELL_MM / 2
    if not core.any():
        return np.zeros_like(mask)
    return np.asarray(mask & (ndimage.distance_transform_edt(~core, sampling=spacing_zyx_mm) <= SHELL_MM / 2))


def table(measured: list[Measured]) -> list[str]:
    """Lines of a Markdown table, a row for each kind of input and plan."""
    lines = [
        "| inputs | plan | cases | parts, median (most) | beyond the truth's, 95 % (most) | smallest part, ml | shell, mean (most) "
        "| FLR Dice | FLR% error, mean absolute (median) | signed |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    rows = {(m.inputs, m.plan): None for m in measured}
    for inputs, plan in rows:
        own = [m for m in measured if (m.inputs, m.plan) == (inputs, plan) and not math.isnan(m.error)]

        def column(name: str, own: list[Measured] = own) -> NDArray[np.float64]:
            values = np.array([getattr(m, name) for m in own], np.float64)
            return np.asarray(values[~np.isnan(values)])

        if not own:
            continue
        parts, beyond, errors = column("parts"), column("beyond"), column("error")
        lines.append(
            f"| {inputs} | {plan} | {len(own)} | {np.median(parts):.0f} ({parts.max():.0f}) "
            f"| {np.percentile(beyond, 95, method='higher'):.0f} ({beyond.max():.0f}) | {min(column('smallest_ml')):.2f} "
            f"| {column('shell').mean():.2%} ({column('shell').max():.2%}) | {column('dice').mean():.3f} "
            f"| {np.abs(errors).mean():.1f} ({np.median(np.abs(errors)):.1f}) | {errors.mean():+.1f} |"
        )
    for m in measured:
        if math.isnan(m.error):
            lines.append(
                f"| {m.case}, {m.inputs} | {m.plan} | 1 | {m.parts} | no truth | {m.smallest_ml:.2f} | {m.shell:.2%} | | FLR {m.flr_fraction:.1%} | |"
            )
    return lines


def main() -> int:
    """Predicts what is not kept yet, measures, prints. Returns 1 where a case failed."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--cases", type=at_least(0), default=12, help="synthetic cases; 0 for none")
    parser.add_argument("--first", type=at_least(0), default=0, help="index of the first")
    parser.add_argument(
        "--seed",
        type=at_least(0),
        default=21,
        help="not 1 to 4 and 32, which trained, chose, showed, measured or calibrated the demo models",
    )
    parser.add_argument("--size", default="full", choices=("small", "medium", "full"))
    parser.add_argument("--real", action="append", default=[], metavar="NAME=CT")
    arguments = parser.parse_args()
    wide = CohortSettings(seed=arguments.seed, wide=0.5)
    makers: dict[str, Any] = {}
    for index in range(arguments.first, arguments.first + arguments.cases):

        def make(index: int = index) -> tuple[CT, NDArray[np.uint8]]:
            case = make_case(arguments.seed, index, arguments.size, wide.is_wide(index))
            return CT(case.hu_zyx, case.geometry, case.case_id, "synthetic"), case.planning_zyx

        makers[case_name(arguments.seed, index)] = make
    make_writable(arguments.work, "give another --work")
    images: dict[str, str] = {}
    for text in arguments.real:
        name, _, path = text.partition("=")
        if not path or safe_name(name) != name or name in makers:
            parser.error(f"--real: expected NAME=CT, a name of its own for each CT, got {text!r}")
        ct = read_ct(path)
        makers[name] = lambda ct=ct: (ct, None)
        images[name] = digest_of_array(ct.array_zyx, ct.geometry).hex()
    cascade = Cascade(
        ModelStore(arguments.work / "no-models", demo=MODEL_ROOT / DEMO_NAME), CascadeSettings(device="cpu", engine=APP_ENGINE)
    )
    measured: list[Measured] = []
    evidence: dict[tuple[str, str], Evidence] = {}
    failed = 0
    for number, (name, make) in enumerate(makers.items(), 1):
        log.info("[%d/%d] %s", number, len(makers), name)
        try:
            arrays = predicted(arguments.work, name, make, cascade, images.get(name))
            measured += measure(name, arrays)
            for inputs in ("given", "predicted"):
                if found := json.loads(str(arrays.get(f"{inputs}_evidence", "null"))):
                    evidence[name, inputs] = Evidence.from_json(found)
        except EmptyLiverError as error:
            log.info("  left out: %s", error)
        except FlrError as error:
            failed += 1
            log.info("  failed: %s", error)
    with replacing(arguments.work / "coherence.csv") as beside, beside.open("w", newline="") as file:
        writer = csv.DictWriter(file, [f.name for f in fields(Measured)])
        writer.writeheader()
        writer.writerows(asdict(m) for m in measured)
    calibration = Calibration.read(MODEL_ROOT / DEMO_NAME / CALIBRATION_NAME, cascade.settings.architecture)
    sure = ["interval: the models have no calibration"]
    if calibration is not None and calibration.models == _models(cascade):
        sure = sureness(measured, evidence, calibration)
    sys.stdout.write("\n".join([*table(measured), *sure]) + "\n")
    return 1 if failed else 0


if __name__ == "__main__":
    run_script(main)
