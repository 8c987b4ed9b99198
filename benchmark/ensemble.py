"""Makes one row of several: the predictions of architectures or variants, combined column by column.

    python benchmark/ensemble.py --work W --of nnunet --of stunet [--name ensemble]

Where every member has its probabilities (``predict.py --probabilities``), their mean is taken, and the mask is where it is above
0.5; else the masks vote, and a voxel needs more than half of them (of two, both). A cascaded column combines whole cascades: no stage
is given the ensemble's mask of the stage before.
Writes ``W/predictions/<name>/<column>/<case>.nii.gz``, and the mean as ``W/probabilities/<name>/...`` where it was taken; what is
there already is kept if it was made of the same (``W/predicted/<name>/<part>.json``).
Cost: reading each member's files; no network runs.
Exit status: 0 done, 1 something is missing or does not fit (stderr says what), 2 wrong options.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from flrplan.errors import FlrError
from flrplan.evaluation import combine
from flrplan.workfolder import WorkFolder


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    head, _, tail = (__doc__ or "").partition("\n\n")
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="ensemble.py", description=head, epilog=tail, formatter_class=raw)
    parser.add_argument("--work", type=Path, default=Path("work"), help="work folder of the benchmark (default: ./work)")
    parser.add_argument("--splits", type=Path, help="split file (default: W/splits.json)")
    parser.add_argument("--of", action="append", required=True, metavar="ROW", help="architecture or variant; repeatable")
    parser.add_argument("--name", default="ensemble", help="of the row that is made (default: ensemble)")
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s", stream=sys.stderr)
    try:
        given = parser.parse_args(arguments)
        sys.stdout.write(f"{combine(WorkFolder(given.work), given.of, given.name, given.splits)}\n")
        return 0
    except FlrError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1


if __name__ == "__main__":
    raise SystemExit(main())
