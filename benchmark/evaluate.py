"""Scores predictions of liver, CRLM and FLR and writes the paper's Tables 1 and 2 with ours beside them.

    python benchmark/evaluate.py                      # evaluates ./work
    python benchmark/evaluate.py --work W             # a work folder of the benchmark; writes W/evaluation/
    python benchmark/evaluate.py --labels DIR --predictions DIR --splits FILE --out DIR
    python benchmark/evaluate.py --work W --original W_original    # the labels before their refinement as one more row

Labels: ``<case>.nii.gz`` (planning label maps) or ``<case>/<structure>.nii.gz`` (binary; liver, crlm, flr).
Predictions: ``<architecture>/<column>/<case>.nii.gz``, binary; any architecture name but those of the baselines and original_labels;
column one of pipelined_liver, pipelined_crlm, pipelined_flr, cascaded_crlm, cascaded_flr, e2e_flr.
Instances (lesions told apart; W/instances, or --instances): ``<case>/layer1.nii.gz``, ... as prepare.py writes them; a case without
has the 26-connected components of its CRLM as lesions.
Probabilities (W/probabilities, or --probabilities): ``<architecture>/<column>/<case>.nii.gz``, uint8, round(255 p); with them the
report shows FROC, calibration and Dice by threshold.
Split: ``{"test": [ids], "folds": [[validation ids], ...]}``.
Writes cases.csv, baselines.csv, lesions.csv, summary.json, table1.md, table2.md, checklist.md and report.html.
Cost: about 0.1 s a prediction of 512x512x100 beside reading it, 0.2 s of the FLR; 0.3 s a baseline;
memory: one case per worker, whatever the number of cases.
Exit status: 0 done, 1 the input cannot be used (stderr says what and where), 2 wrong options.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path

from flrplan import EvaluationSettings, FlrError, evaluate
from flrplan.evaluation import TIE_MARGIN

DEFAULT_WORK = Path("work")


def parse(arguments: list[str] | None = None) -> EvaluationSettings:
    """The settings of a command line. Raises SettingsError for a combination that cannot work."""
    head, _, tail = (__doc__ or "").partition("\n\n")
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="evaluate.py", description=head, epilog=tail, formatter_class=raw)
    parser.add_argument("--work", type=Path, help="work folder of the benchmark (default: ./work)")
    parser.add_argument("--labels", type=Path, help="folder of the truth")
    parser.add_argument("--predictions", type=Path, help="folder of the predictions")
    parser.add_argument("--splits", type=Path, help="split file")
    parser.add_argument("--out", type=Path, help="where to write (default: W/evaluation)")
    parser.add_argument(
        "--original",
        type=Path,
        metavar="DIR",
        help="work folder or labels of the same cases before refinement, scored as a row",
    )
    parser.add_argument(
        "--instances", type=Path, help="folder of the truth's instances (default: W/instances, with W's labels)"
    )
    parser.add_argument(
        "--probabilities", type=Path, help="folder of saved probabilities (default: W/probabilities, with W's predictions)"
    )
    parser.add_argument("--images", type=Path, help="folder of CTs <case>.nii.gz for the pictures (default: W/images)")
    parser.add_argument("--allow-missing", action="store_true", help="evaluate what is there; every table says what is not")
    parser.add_argument(
        "--absent",
        action="append",
        default=[],
        metavar="COLUMN",
        help="[ARCHITECTURE/]COLUMN of a work folder not wanted; repeatable",
    )
    parser.add_argument("--workers", type=int, default=min(4, os.cpu_count() or 1), help="processes (default: %(default)s)")
    parser.add_argument(
        "--margin", type=float, default=TIE_MARGIN, help="differences of Dice within it are a tie (default: %(default)s)"
    )
    parser.add_argument(
        "--note", default="", help="a sentence over every table (default: for a synthetic cohort, that its cases are synthetic)"
    )
    given = vars(parser.parse_args(arguments))
    if given["work"] is None and given["labels"] is None and given["predictions"] is None:
        given["work"] = DEFAULT_WORK
    return EvaluationSettings(**{**given, "absent": tuple(given["absent"])})


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s", stream=sys.stderr)
    try:
        written = evaluate(parse(arguments))
    except FlrError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    sys.stdout.write("".join(f"{path}\n" for path in written.values()))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
