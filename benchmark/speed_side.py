"""One side of ``speed.py`` in a process of its own, as a user would run it: imports, then the work, then what took how long.

    python benchmark/speed_side.py command|predictor|cold|warm RESULT.json ARGUMENTS...

``command`` hands the arguments to nnUNetv2_predict_from_modelfolder, ``cold`` to flrplan; ``predictor`` takes CT, models, device and
output folder, ``warm`` an engine before that folder. A few functions are timed by wrapping them (cProfile of Python 3.12 loses calls beside nnU-Net's threads); what
worker processes do is not in it.
"""

from __future__ import annotations

import functools
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

_PREDICTOR = "nnunetv2.inference.predict_from_raw_data"
PHASES: dict[str, tuple[tuple[str, str], ...]] = {
    "models": (
        ("flrplan.nnunet.model.predictor", "StagePredictor.__init__"),
        ("flrplan.nnunet.model.predictor", "StagePredictor._network"),
        (_PREDICTOR, "nnUNetPredictor.initialize_from_trained_model_folder"),
    ),
    "reading": (("flrplan.image", "read_ct"),),
    "stage input": (("flrplan.method.stage_input", "build_stage_input"), ("flrplan.method.stage_input", "StageInput.restore")),
    "preprocessing": (("nnunetv2.preprocessing.preprocessors.default_preprocessor", "DefaultPreprocessor.run_case_npy"),),
    "network": ((_PREDICTOR, "nnUNetPredictor.predict_sliding_window_return_logits"),),
    "resampling": (
        ("flrplan.nnunet.model.predictor", "StagePredictor._resampled"),
        ("flrplan.nnunet.model.predictor", "StagePredictor._target"),
        (_PREDICTOR, "convert_predicted_logits_to_segmentation_with_correct_shape"),
    ),
    "writing": (("flrplan.planning.plan", "Plan.save"), ("flrplan.image", "write_label_map")),
}
"""Which functions are counted under which name. On CUDA the network's ends with a copy to the CPU, which waits for the device."""
_TILE = (_PREDICTOR, "nnUNetPredictor._internal_maybe_mirror_and_predict")


class Clock:
    """Seconds per phase, those of its outermost calls, and how many tiles a network was given."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(PHASES, 0.0)
        self.tiles = 0
        self._running: set[str] = set()
        for phase, functions in PHASES.items():
            for module, path in functions:
                self._wrap(module, path, functools.partial(self._timed, phase))
        self._wrap(*_TILE, self._counted)

    def _wrap(self, module: str, path: str, wrapper: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
        """Replaces a function in its class, or in every module that imported it; one whose module was not imported cannot be called."""
        if module not in sys.modules:
            return
        *owner, name = path.split(".")
        if owner:
            kind = getattr(sys.modules[module], owner[0])
            setattr(kind, name, wrapper(getattr(kind, name)))
            return
        function = getattr(sys.modules[module], name)
        wrapped = wrapper(function)
        for known in list(sys.modules.values()):
            if getattr(known, "__dict__", {}).get(name) is function:
                setattr(known, name, wrapped)

    def _timed(self, phase: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def timed(*arguments: Any, **named: Any) -> Any:
            if phase in self._running:
                return function(*arguments, **named)
            self._running.add(phase)
            started = time.perf_counter()
            try:
                return function(*arguments, **named)
            finally:
                self.seconds[phase] += time.perf_counter() - started
                self._running.discard(phase)

        return timed

    def _counted(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def counted(*arguments: Any, **named: Any) -> Any:
            self.tiles += 1
            return function(*arguments, **named)

        return counted


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
    return lambda: predict_entry_point_modelfolder()


def predictor(arguments: Sequence[str]) -> Callable[[], object]:
    """nnU-Net's predictor class, stage after stage on arrays; what lies between the stages is ours."""
    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    from flrplan import image
    from flrplan.anatomy import Structure, to_compartments
    from flrplan.method import CASCADE, stage_input
    from flrplan.nnunet.model import ModelFolder

    source, models, device, out = arguments

    def run() -> None:
        ct = image.read_ct(Path(source))
        masks: dict[Structure, Any] = {}
        for stage in CASCADE:
            folder = ModelFolder.open(Path(models) / stage.name / "nnunet")
            network = nnUNetPredictor(use_mirroring=False, device=torch.device(device), allow_tqdm=False)
            network.initialize_from_trained_model_folder(str(folder.path), folder.folds)
            given = stage_input.build_stage_input(ct.array_zyx, ct.geometry, masks, stage, folder.input)
            properties = {"spacing": list(given.geometry.spacing_zyx_mm)}
            mask = given.restore(network.predict_single_npy_array(given.channels_czyx, properties) > 0)
            masks[stage.target] = largest_piece(mask) if stage.target is Structure.LIVER else mask
        label, _ = to_compartments(masks[Structure.LIVER], masks[Structure.CRLM], masks[Structure.FLR])
        image.write_label_map(Path(out) / "planning.nii.gz", label, ct.geometry)

    return run


def cold(arguments: Sequence[str]) -> Callable[[], object]:
    """``flrplan plan`` as a process."""
    from flrplan.cli import main
    from flrplan.hardware import collector_at_rest

    with collector_at_rest():  # the command imports these itself, and so, but then they would not count as imports
        import flrplan.api.plan
        import flrplan.nnunet.model.predictor
        import flrplan.planning.picture  # noqa: F401

    def run() -> None:
        if code := main(arguments):
            raise SystemExit(code)

    return run


def warm(arguments: Sequence[str]) -> Callable[[], object]:
    """The same in a process that has planned the case once before."""
    from flrplan.api.plan import plan
    from flrplan.engine import Cascade, CascadeSettings, ModelStore
    from flrplan.hardware import keep_freed_memory

    source, models, device, engine, out = arguments
    keep_freed_memory()
    cascade = Cascade(
        ModelStore(Path(models), demo=None, cache_mb=0), CascadeSettings(device=device, engine=engine)
    )  # else it had nothing to do

    def run() -> None:
        plan(source, cascade=cascade).save(out)

    run()
    return run


def keep_plans() -> list[Any]:
    """Plans that are saved from now on."""
    from flrplan.planning import Plan

    kept: list[Plan] = []
    save = Plan.save

    @functools.wraps(save)
    def saved(plan: Plan, folder: str | os.PathLike[str]) -> None:
        kept.append(plan)
        save(plan, folder)

    replaced: Any = Plan
    replaced.save = saved
    return kept


def write_raw(path: Path, plan: Any) -> None:
    """Writes the planning map of the networks' own masks, as peers give them, where a plan made another FLR of them."""
    from flrplan.image import write_label_map

    write_label_map(path, (plan.raw or plan.result).planning_map()[0], plan.ct.geometry)


def main(arguments: Sequence[str]) -> None:
    """Runs a side and writes its result."""
    side, result, *rest = arguments
    started = time.perf_counter()
    run = {"command": command, "predictor": predictor, "cold": cold, "warm": warm}[side](rest)
    imported = time.perf_counter() - started
    kept = keep_plans() if side in ("cold", "warm") else []
    computed = resource.getrusage(resource.RUSAGE_SELF)
    clock = Clock()
    started = time.perf_counter()
    run()
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
        "network_calls": clock.tiles,
        "seconds": {**({} if side == "warm" else {"imports": imported}), **clock.seconds},
    }
    started = time.perf_counter()
    if kept:
        write_raw(Path(result).with_name("planning.nii.gz"), kept[-1])
    then = resource.getrusage(resource.RUSAGE_SELF)
    content["compared_wall_s"] = time.perf_counter() - started
    content["compared_cpu_s"] = then.ru_utime + then.ru_stime - now.ru_utime - now.ru_stime
    Path(result).write_text(json.dumps(content), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
