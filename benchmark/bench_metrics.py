"""Times the metrics of one 512x512x100 case beside surface-distance, MONAI and distance transforms, in one run, for the same quantities.

    python benchmark/bench_metrics.py                 # about 2 minutes, 3 GB; the sides take turns, the least processor time counts
    python benchmark/bench_metrics.py --memory        # peak memory of evaluating 5, 20 and 40 cases, in fresh processes; 2 minutes

Masks: a liver of 1.5 l, its predicted liver (rough to a few mm), four metastases and an FLR, each against a prediction.
Needs the dev dependencies. surface-distance 0.1 uses np.bool, which numpy 1.24 removed; it gets a numpy that still has it.
"""

from __future__ import annotations

import argparse
import json
import logging
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from flrplan.anatomy import Mask, Structure, to_compartments
from flrplan.hardware import peak_memory_bytes
from flrplan.image import Geometry, write_label_map
from flrplan.metrics import Region, score_mask
from flrplan.metrics.catalogue import NSD_TOLERANCE_MM
from flrplan.metrics.cut import RIND_MM, cut_of, cut_outcomes
from script import at_least, run_script

log = logging.getLogger("bench_metrics")

SHAPE_ZYX = (100, 512, 512)
SPACING_ZYX_MM = (2.5, 0.78, 0.78)
Pair = tuple[Mask, Mask]


def _ball(centre_mm: tuple[float, float, float], radius_mm: tuple[float, float, float]) -> Mask:
    inside: NDArray[Any] = np.zeros(SHAPE_ZYX)
    for axis, (centre, radius) in enumerate(zip(centre_mm, radius_mm, strict=True)):
        position = (np.arange(SHAPE_ZYX[axis]) * SPACING_ZYX_MM[axis] - centre) / radius
        inside = inside + (position**2).reshape([-1 if a == axis else 1 for a in range(3)])
    return np.asarray(inside < 1.0)


def _rough(mask: Mask, by_mm: float, seed: int) -> Mask:
    """The mask with its surface moved in and out by some ``by_mm`` of smooth noise."""
    noise = np.random.default_rng(seed).standard_normal((14, 34, 34))
    noise = ndimage.zoom(noise, [n / m for n, m in zip(SHAPE_ZYX, noise.shape, strict=True)], order=1)
    box = tuple(slice(max(0, s.start - 12), s.stop + 12) for s in ndimage.find_objects(mask.astype(np.uint8))[0])
    distance = ndimage.distance_transform_edt(mask[box], sampling=SPACING_ZYX_MM)
    distance -= ndimage.distance_transform_edt(~mask[box], sampling=SPACING_ZYX_MM)
    result = np.zeros(SHAPE_ZYX, np.bool_)
    result[box] = distance + by_mm * noise[box] > 0
    return result


def make_case() -> dict[Structure, Pair]:
    """Reference and prediction of liver, CRLM and FLR, each ``(100, 512, 512) bool``."""
    liver = _rough(_ball((125, 200, 170), (75, 70, 85)), 4.0, 0)
    crlm = np.zeros(SHAPE_ZYX, np.bool_)
    for centre, radius in (((120, 190, 140), 18), ((150, 210, 190), 9), ((100, 220, 150), 6), ((130, 170, 200), 12)):
        crlm |= _ball(centre, (radius, radius, radius))
    crlm &= liver
    column = np.arange(SHAPE_ZYX[2]) * SPACING_ZYX_MM[2]
    flr = liver & (column > 160)
    return {
        Structure.LIVER: (liver, _rough(liver, 3.0, 1)),
        Structure.CRLM: (crlm, _rough(crlm, 2.0, 2) & liver),
        Structure.FLR: (flr, _rough(flr, 8.0, 3) & liver),
    }


def ours(case: dict[Structure, Pair]) -> dict[str, float]:
    """All metrics of the benchmark: these and volumes, FLR%, lesions."""
    truth = {s: Region.of(reference, SPACING_ZYX_MM) for s, (reference, _) in case.items()}
    found: dict[str, float] = {}
    for structure, (_, prediction) in case.items():
        scores = score_mask(structure, truth, Region.of(prediction, SPACING_ZYX_MM))
        found |= {f"{structure} {name}": value for name, value in scores.values.items()}
    return found


def with_surface_distance(case: dict[Structure, Pair]) -> dict[str, float]:
    """NSD, HD95 and ASSD by surface-distance."""
    from surface_distance import metrics

    metrics.np = SimpleNamespace(**{**vars(np), "bool": np.bool_, "Inf": np.inf})
    found: dict[str, float] = {}
    for structure, (reference, prediction) in case.items():
        distances = metrics.compute_surface_distances(reference, prediction, SPACING_ZYX_MM)
        found[f"{structure} nsd"] = metrics.compute_surface_dice_at_tolerance(distances, NSD_TOLERANCE_MM[structure])
        found[f"{structure} hd95_mm"] = metrics.compute_robust_hausdorff(distances, 95)
        metrics.compute_average_surface_distance(distances)
    return found


def with_monai(case: dict[Structure, Pair]) -> dict[str, float]:
    """Dice, precision, recall, NSD, HD95 and ASSD by MONAI (its own surface definitions, so its distances differ a little)."""
    import torch
    from monai.metrics.confusion_matrix import get_confusion_matrix
    from monai.metrics.hausdorff_distance import compute_hausdorff_distance
    from monai.metrics.meandice import compute_dice
    from monai.metrics.surface_dice import compute_surface_dice
    from monai.metrics.surface_distance import compute_average_surface_distance

    found: dict[str, float] = {}
    for structure, pair in case.items():
        reference, prediction = (torch.from_numpy(mask)[None, None] for mask in pair)
        found[f"{structure} dice"] = float(compute_dice(prediction, reference))
        get_confusion_matrix(prediction, reference)
        options: dict[str, Any] = {"include_background": True, "spacing": SPACING_ZYX_MM}
        compute_hausdorff_distance(prediction, reference, percentile=95, **options)
        compute_average_surface_distance(prediction, reference, symmetric=True, **options)
        compute_surface_dice(prediction, reference, [NSD_TOLERANCE_MM[structure]], **options)
    return found


def with_distance_transforms(case: dict[Structure, Pair]) -> dict[str, float]:
    """Distances of the cut and of the tumours to it by scipy's distance transforms of the liver's box, areas by surface-distance."""
    from surface_distance import lookup_tables

    areas = lookup_tables.create_table_neighbour_code_to_surface_area(SPACING_ZYX_MM)
    liver = case[Structure.LIVER][0]
    crop = tuple(slice(s.start - 1, s.stop + 2) for s in ndimage.find_objects(liver.astype(np.uint8))[0])
    liver, crlm, *sides = (m[crop] for m in (liver, case[Structure.CRLM][0], *case[Structure.FLR]))

    def around(mask: Mask) -> list[Mask]:
        """The eight voxels around each corner."""
        n = [length - 1 for length in mask.shape]
        return [mask[z : z + n[0], y : y + n[1], x : x + n[2]] for z in (0, 1) for y in (0, 1) for x in (0, 1)]

    def to(corners: Mask) -> NDArray[np.float64]:
        return np.asarray(ndimage.distance_transform_edt(~corners, sampling=SPACING_ZYX_MM))

    inside, outside = around(liver), around(ndimage.binary_fill_holes(liver))
    whole, capsule = np.logical_and.reduce(inside), np.logical_or.reduce(outside) & ~np.logical_and.reduce(outside)
    below = to(capsule) > RIND_MM
    tumour = np.logical_or.reduce(around(crlm)) & ~np.logical_and.reduce(around(crlm))
    plans = []
    for flr in sides:
        remnant, resection = around(liver & flr), around(liver & ~flr)
        pairs = [(i, i | bit) for bit in (1, 2, 4) for i in range(8) if not i & bit]
        cut = np.logical_or.reduce([remnant[a] & resection[b] | remnant[b] & resection[a] for a, b in pairs])
        code = sum((voxel.astype(np.int64) << (7 - k) for k, voxel in enumerate(remnant)), np.zeros(cut.shape, np.int64))
        deep = cut & whole & below
        plans.append((deep, to(deep), areas[code], float(to(cut)[tumour].min())))
    (one, to_one, area_one, margin), (two, to_two, area_two, _) = plans
    weights, apart = (area_one[one], area_two[two]), (to_two[one], to_one[two])
    total = sum(w.sum() for w in weights)
    found = {f"cut_nsd_{mm:g}mm": sum(w[d <= mm].sum() for w, d in zip(weights, apart, strict=True)) / total for mm in (5, 10)}
    found["cut_mean_mm"] = sum(w @ d for w, d in zip(weights, apart, strict=True)) / total
    # Of the bench's tumours the reference cuts none through; the nearest one of all is one that it resects.
    return {f"flr {name}": float(value) for name, value in (found | {"tumour_cut_reference_mm": margin}).items()}


def ours_of_the_cut(case: dict[Structure, Pair]) -> dict[str, float]:
    """All metrics of the cut, of one prediction."""
    liver, crlm = (Region.of(case[s][0], SPACING_ZYX_MM) for s in (Structure.LIVER, Structure.CRLM))
    cuts = [cut_of(liver, Region.of(flr, SPACING_ZYX_MM)) for flr in case[Structure.FLR]]
    return {f"flr {name}": float(value) for name, value in cut_outcomes(cuts[0], cuts[1], crlm).items()}


def best_seconds(sides: dict[str, Callable[[], dict[str, float]]], rounds: int) -> tuple[dict[str, float], dict[str, Any]]:
    """The best processor time of each side, taking turns, and what each found."""
    seconds = dict.fromkeys(sides, float("inf"))
    found: dict[str, Any] = {}
    for _ in range(rounds):
        for name, side in sides.items():
            start = time.process_time()
            found[name] = side()
            seconds[name] = min(seconds[name], time.process_time() - start)
    return seconds, found


def compare(rounds: int) -> None:
    """Logs the times and the ratios."""
    case = make_case()
    sides = {
        "surface-distance": with_surface_distance,
        "MONAI": with_monai,
        "ours": ours,
        "transforms": with_distance_transforms,
        "cut": ours_of_the_cut,
    }
    seconds, found = best_seconds({name: lambda f=f: f(case) for name, f in sides.items()}, rounds)  # type: ignore[misc]
    for key, value in {**found["surface-distance"], **found["MONAI"], **found["transforms"]}.items():
        if abs(value - found["ours"][key]) > 1e-6:
            raise SystemExit(f"{key}: ours {found['ours'][key]}, theirs {value}")
    log.info("liver, CRLM and FLR of one case of 512x512x100; best of %d", rounds)
    log.info("ours, all metrics:                         %6.2f s", seconds["ours"])
    log.info("of these the cut and its tumours:          %6.2f s", seconds["cut"])
    log.info("distance transforms, the same:             %6.2f s  (%4.1f x)", *_ratio(seconds, "transforms", seconds["cut"]))
    rest = seconds["ours"] - seconds["cut"]
    seconds["both"] = seconds["surface-distance"] + seconds["MONAI"]
    log.info("ours, all but the cut:                     %6.2f s", rest)
    log.info("surface-distance, NSD HD95 ASD:            %6.2f s  (%4.1f x)", *_ratio(seconds, "surface-distance", rest))
    log.info("MONAI, Dice P R NSD HD95 ASSD:             %6.2f s  (%4.1f x)", *_ratio(seconds, "MONAI", rest))
    log.info("both:                                      %6.2f s  (%4.1f x)", *_ratio(seconds, "both", rest))


def _ratio(seconds: dict[str, float], name: str, ours: float) -> tuple[float, float]:
    return seconds[name], seconds[name] / ours


def measure_memory(counts: tuple[int, ...] = (5, 20, 40)) -> None:
    """Logs the peak memory of evaluating several numbers of cases (128x128x64, every column), each in a process of its own."""
    for count in counts:
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run(
                [sys.executable, __file__, "--memory-of", str(count), folder], check=True, stdout=subprocess.PIPE
            )
            log.info("%3d cases: peak %s MB", count, done.stdout.decode().strip())


def evaluate_many(count: int, folder: Path) -> None:
    """Writes and evaluates ``count`` small cases of one architecture with every column, and writes the peak memory in MB to stdout.

    Half of the cases are held out, the others lie in two folds; fewer than four are all held out.
    """
    from flrplan.evaluation import COLUMNS, PAPER_COLUMNS, EvaluationSettings, Part, evaluate

    shape = (64, 128, 128)
    geometry = Geometry((128, 128, 64), (1.5, 1.5, 2.5))
    z, y, x = np.ogrid[: shape[0], : shape[1], : shape[2]]
    names = [f"c{k}" for k in range(count)]
    for k, name in enumerate(names):
        liver = (z - 32) ** 2 * 2.8 + (y - 60) ** 2 + (x - 62) ** 2 < (40 + k % 5) ** 2
        flr, crlm = liver & (x > 55 + k % 7), liver & ((z - 30) ** 2 + (y - 60) ** 2 + (x - 50) ** 2 < 50)
        predicted = {Structure.LIVER: np.roll(liver, 1, 2), Structure.CRLM: np.roll(crlm, 1, 1), Structure.FLR: liver}
        files = {f"predictions/a/{c}": predicted[COLUMNS[c].target].astype(np.uint8) for c in PAPER_COLUMNS[Part.TEST]}
        for path, mask in {"labels": to_compartments(liver, crlm, flr)[0], **files}.items():
            (folder / path).mkdir(parents=True, exist_ok=True)
            write_label_map(folder / path / f"{name}.nii.gz", mask, geometry)
    split = {"test": names[::2], "folds": [names[1::4], names[3::4]]} if count >= 4 else {"test": names, "folds": []}
    (folder / "splits.json").write_text(json.dumps(split), "utf-8")
    evaluate(EvaluationSettings(work=folder))
    sys.stdout.write(f"{peak_memory_bytes() // 2**20}\n")


def main() -> None:
    """Runs the command."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=at_least(1), default=3)
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--memory-of", nargs=2, metavar=("COUNT", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory_of:
        logging.getLogger().setLevel(logging.ERROR)
        evaluate_many(int(options.memory_of[0]), Path(options.memory_of[1]))
    elif options.memory:
        measure_memory()
    else:
        compare(options.rounds)


if __name__ == "__main__":
    run_script(main)
