"""Predicts every column of Tables 1 and 2, and on demand those of other stages, for the cases of a work folder with trained models.

    python benchmark/predict.py --work W --models M [--architecture nnunet]

W holds ``images/``, ``labels/`` (or ``masks/``) and ``splits.json``. Held-out cases get the ensemble of all folds, cases of fold k
the model of fold k alone (out-of-fold). Pipelined columns take the true masks, cascaded ones the predicted masks of the stage
before, end-to-end ones the CT; a liver that is not found gives an empty CRLM and FLR, scored as such. Masks are raw: no piece is dropped.
Refuses a model that was trained on a case that it is to predict (``run.json`` beside each checkpoint).
Writes ``W/predictions/<architecture>/<column>/<case>.nii.gz``, uint8; what is there already is kept, so a stopped run continues,
if the same models made it (``W/predicted/<architecture>/<part>.json``). ``--probabilities`` writes
``W/probabilities/<architecture>/<column>/<case>.nii.gz``, too: round(255 p) as uint8 on the CT's grid, 0 outside the crop that the
network saw, at least 128 where p > 0.5; masks that lack theirs are made again with them.
Cost: six runs of a network a held-out case, each up to 8 times with mirroring (``--no-mirroring`` leaves it out).
Exit status: 0 done, 1 something could not be predicted (stderr says what).
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from flrplan import FlrError, PredictionRequest, predict
from flrplan.hardware import keep_freed_memory
from flrplan.method import STAGES
from flrplan.networks import ARCHITECTURES


def run(arguments: argparse.Namespace) -> int:
    """Predicts the asked parts of the split. Returns the exit status."""
    request = PredictionRequest(
        arguments.work,
        arguments.splits,
        arguments.models,
        arguments.architecture,
        arguments.device,
        mirroring=not arguments.no_mirroring,
        probabilities=arguments.probabilities,
        parts=arguments.part,
        folds=arguments.fold,
        stages=None if arguments.stage is None else [STAGES[name] for name in arguments.stage],
        cascaded_cv=arguments.cascaded_cv,
    )
    failed = predict(request)
    if failed:
        sys.stderr.write(f"{len(failed)} cases could not be predicted: {', '.join(failed)}\n")
    sys.stdout.write(f"{request.folder}\n")
    return 1 if failed else 0


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    head, _, tail = (__doc__ or "").partition("\n\n")
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="predict.py", description=head, epilog=tail, formatter_class=raw)
    parser.add_argument("--work", type=Path, default=Path("work"), help="work folder of the benchmark (default: ./work)")
    parser.add_argument("--splits", type=Path, help="split file (default: W/splits.json)")
    parser.add_argument(
        "--models", type=Path, help="folder with <stage>/<architecture>/ models (default: the app's, or its demo's)"
    )
    parser.add_argument(
        "--architecture", default=ARCHITECTURES[0], metavar="NAME", help="of the models: an architecture or a variant"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:<number>")
    parser.add_argument("--no-mirroring", action="store_true", help="no test-time mirroring (nnU-Net's standard has it)")
    parser.add_argument("--probabilities", action="store_true", help="also save what the masks are thresholded from")
    parser.add_argument("--part", action="append", help="held-out, fold-0, fold-1 ...; repeatable (default: all)")
    parser.add_argument("--fold", type=int, action="append", metavar="K", help="only these folds, in the ensemble, too")
    parser.add_argument("--stage", action="append", choices=list(STAGES), help="columns of these stages (default: the paper's)")
    parser.add_argument("--cascaded-cv", action="store_true", help="also the cascaded columns of the cross-validation")
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s", stream=sys.stderr)
    keep_freed_memory()
    try:
        return run(parser.parse_args(arguments))
    except FlrError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1


if __name__ == "__main__":
    raise SystemExit(main())
