"""Draws which cases are held out and writes a split file.

    python benchmark/draw_split.py --out benchmark/splits/ours_157_40.json               # how the committed split was drawn
    python benchmark/draw_split.py --dataset W/dataset.csv --out W/splits.json           # stratified, over the cases of W
    python benchmark/draw_split.py --dataset W/dataset.csv --no-strata --out W/splits.json
    python benchmark/draw_split.py --cases cohort --held-out 5 --out cohort/splits.json      # any folder with images/ and labels/

Without ``--dataset``: the 197 ids of TCIA's Colorectal-Liver-Metastases, unstratified (tumours and spacing are known only with
the data). With it: its cases, by number of tumours (1, 2-5, more) and slice spacing (up to 2.5 mm, up to 5 mm, thicker).
The folds are nnU-Net's own draw over the cases that are not held out. A split that exists is never changed.
Writes ``{"test": [ids], "folds": [[validation ids], ...]}``. Cost: a second.
Exit status: 0 done, 1 the input cannot be used (stderr says what and where), 2 wrong options.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from flrplan.errors import FlrError
from flrplan.preparation.draw import DATASET_IDS, DEFAULT_SEED, HELD_OUT, draw_split, read_strata, write_split
from flrplan.workfolder import find_labelled_cases


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The options of a command line."""
    head, _, tail = (__doc__ or "").partition("\n\n")
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="draw_split.py", description=head, epilog=tail, formatter_class=raw)
    parser.add_argument("--dataset", type=Path, metavar="CSV", help="dataset.csv of a work folder: its cases, stratified")
    parser.add_argument("--cases", type=Path, metavar="W", help="work folder or cohort: its cases, unstratified")
    parser.add_argument("--no-strata", action="store_true", help="draw the cases of --dataset unstratified")
    parser.add_argument("--held-out", type=int, default=HELD_OUT, help="cases of the test part (default: %(default)s)")
    parser.add_argument("--folds", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=DEFAULT_SEED, help="default: %(default)s")
    parser.add_argument("--out", type=Path, required=True, help="split file to write")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    options = parse(arguments)
    try:
        strata = read_strata(options.dataset) if options.dataset else None
        ids = sorted(strata) if strata is not None else DATASET_IDS
        if options.cases:
            ids = [case.case_id for case in find_labelled_cases(options.cases)]
        split = draw_split(ids, options.held_out, options.seed, None if options.no_strata else strata, options.folds)
        write_split(options.out, split)
    except FlrError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    folds = "/".join(str(len(f)) for f in split.folds)
    sys.stdout.write(f"{options.out}: {len(split.test)} held out, folds of {folds}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
