"""One side of ``speed.py`` in a process of its own, as a user would run it: imports, then the work under a profiler, then what took how long.

    python benchmark/speed_side.py command|predictor|cold|warm RESULT.json ARGUMENTS...

``command`` hands the arguments to nnUNetv2_predict_from_modelfolder, ``cold`` to flrplan; ``predictor`` and ``warm`` take CT, models,
device and output folder. The profiler (cProfile, this process only) starts after the imports; what worker processes do is not in it.
"""

from __future__ import annotations

import cProfile
import json
import pstats
import resource
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

PHASES: dict[str, tuple[tuple[str, str], ...]] = {
    "models": (("nnunet/predictor.py", "__init__"), ("predict_from_raw_data.py", "initialize_from_trained_model_folder")),
    "reading": (("io/ct.py", "read_ct"),),
    "stage input": (("flrplan/stage_input.py", "build_stage_input"), ("flrplan/stage_input.py", "restore")),
    "preprocessing": (("default_preprocessor.py", "run_case_npy"),),
    "network": (("predict_from_raw_data.py", "predict_logits_from_preprocessed_data"),),
    "resampling": (
        ("nnunet/predictor.py", "_resampled"),
        ("nnunet/predictor.py", "_target"),
        ("export_prediction.py", "convert_predicted_logits_to_segmentation_with_correct_shape"),
    ),
    "writing": (("planning/plan.py", "write_plan"), ("io/write.py", "write_label_map")),
}
"""What is counted under which name: functions by the end of their file and their name. A function within another of its phase is not
counted again; on CUDA the network's ends with a copy to the CPU, which waits for the device."""


def phases(profile: cProfile.Profile) -> dict[str, float]:
    """Seconds per phase: those of its outermost functions."""
    stats: dict[tuple[str, int, str], Any] = pstats.Stats(profile).stats  # type: ignore[attr-defined]
    found = {}
    for phase, names in PHASES.items():
        own = {key for key in stats if any(key[0].endswith(file) and key[2] == name for file, name in names)}
        within = sum(caller[3] for key in own for other, caller in stats[key][4].items() if other in own)
        found[phase] = sum(stats[key][3] for key in own) - within
    return found


def calls(profile: cProfile.Profile, name: str) -> int:
    """How often a function was called."""
    return sum(entry[1] for key, entry in pstats.Stats(profile).stats.items() if key[2] == name)  # type: ignore[attr-defined]


def largest_piece(mask: Any) -> Any:
    """The largest connected piece of a mask ``(Z, Y, X) bool``, which is what ``flrplan plan`` keeps of a predicted liver."""
    import numpy as np
    from scipy import ndimage

    pieces, count = ndimage.label(mask)
    if count < 2:
        return mask
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    return pieces == sizes.argmax()


def command(arguments: Sequence[str]) -> Callable[[], object]:
    """nnU-Net's own command."""
    from nnunetv2.inference.predict_from_raw_data import predict_entry_point_modelfolder

    sys.argv = ["nnUNetv2_predict_from_modelfolder", *arguments]
    return predict_entry_point_modelfolder


def predictor(arguments: Sequence[str]) -> Callable[[], object]:
    """nnU-Net's predictor class, stage after stage on arrays; what lies between the stages is ours."""
    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    from flrplan.io import read_ct, write_label_map
    from flrplan.labels import Structure, to_compartments
    from flrplan.nnunet.model_folder import ModelFolder
    from flrplan.stage_input import build_stage_input
    from flrplan.stages import CASCADE

    source, models, device, out = arguments

    def run() -> None:
        ct = read_ct(Path(source))
        masks: dict[Structure, Any] = {}
        for stage in CASCADE:
            folder = ModelFolder.open(Path(models) / stage.name / "nnunet")
            network = nnUNetPredictor(use_mirroring=False, device=torch.device(device), allow_tqdm=False)
            network.initialize_from_trained_model_folder(str(folder.path), folder.folds)
            given = build_stage_input(ct.array_zyx, ct.geometry, masks, stage, folder.input)
            properties = {"spacing": list(given.geometry.spacing_zyx_mm)}
            mask = given.restore(network.predict_single_npy_array(given.channels_czyx, properties) > 0)
            masks[stage.target] = largest_piece(mask) if stage.target is Structure.LIVER else mask
        label, _ = to_compartments(masks[Structure.LIVER], masks[Structure.CRLM], masks[Structure.FLR])
        write_label_map(Path(out) / "planning.nii.gz", label, ct.geometry)

    return run


def cold(arguments: Sequence[str]) -> Callable[[], object]:
    """``flrplan plan`` as a process."""
    import flrplan.commands.plan  # noqa: F401  # the command would import it within the profile
    from flrplan.cli import main

    def run() -> None:
        if code := main(arguments):
            raise SystemExit(code)

    return run


def warm(arguments: Sequence[str]) -> Callable[[], object]:
    """The same in a process that has planned the case once before."""
    from flrplan.cascade import Cascade, CascadeSettings
    from flrplan.commands.plan import plan_one
    from flrplan.models import ModelStore
    from flrplan.process_memory import keep_freed_memory

    source, models, device, out = arguments
    keep_freed_memory()
    cascade = Cascade(ModelStore(Path(models), demo=None), CascadeSettings(device=device))

    def run() -> None:
        plan_one(Path(source), Path(out), cascade, {})

    run()
    return run


def main(arguments: Sequence[str]) -> None:
    """Runs a side and writes its result."""
    side, result, *rest = arguments
    started = time.perf_counter()
    run = {"command": command, "predictor": predictor, "cold": cold, "warm": warm}[side](rest)
    imported = time.perf_counter() - started
    computed = resource.getrusage(resource.RUSAGE_SELF)
    profile = cProfile.Profile()
    started = time.perf_counter()
    profile.runcall(run)
    import torch

    cuda = torch.cuda.is_available() and torch.cuda.is_initialized()
    if cuda:
        torch.cuda.synchronize()
    wall = time.perf_counter() - started
    now = resource.getrusage(resource.RUSAGE_SELF)
    content = {
        "wall_s": wall,
        "cpu_s": now.ru_utime + now.ru_stime - computed.ru_utime - computed.ru_stime,
        "device_peak_bytes": torch.cuda.max_memory_reserved() if cuda else None,
        "network_calls": calls(profile, "_internal_maybe_mirror_and_predict"),
        "seconds": {**({} if side == "warm" else {"imports": imported}), **phases(profile)},
    }
    Path(result).write_text(json.dumps(content), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
