"""Makes a work folder W for training and evaluation from a download.

    python benchmark/prepare.py tcia ROOT --out W                    # ROOT: what the NBIA Data Retriever wrote, with metadata.csv
    python benchmark/prepare.py refined LABELS --tcia ROOT --out W   # refined labels (Zenodo 17574862) on the CTs of ROOT
    python benchmark/prepare.py refined LABELS --images DIR --out W  # ... on CTs of a folder, for example W_original/images
    python benchmark/prepare.py folder DIR --out W                   # DIR/images/<case>.* and DIR/masks/<case>/<structure>.*
    python benchmark/prepare.py compare FIRST SECOND --out DIR       # two work folders: what did the refinement change

``--clinical FILE`` adds what TCIA's clinical sheet (.xlsx or .csv) says of steatosis, chemotherapy and bilobar disease to dataset.csv.
``--dry-run`` shows which file would be taken as what and writes nothing; where it is wrong, copy benchmark/layouts/refined.yaml,
change its patterns and give it with ``--layout``.
Writes ``images/``, ``labels/`` (planning maps), ``masks/<case>/`` (binary truth: liver, crlm, flr), ``instances/<case>/`` (tumours told
apart: label maps layer1.nii.gz, ... whose value n is ``Tumor_n``; one layer unless they overlap), ``prepared/`` (a record per case,
written last), ``dataset.csv``, ``left_out.csv`` and, where the split covers the cases, ``splits.json``.
Refined labels do not tell tumours apart: each CRLM voxel goes to the nearest ``Tumor_n`` of ROOT's SEG, or of ``instances/`` beside the
DIR of ``--images W/images``; pieces farther than ``--lesion-distance`` mm from all of them are lesions of their own. Without either,
and of a folder, there are no instances, and the evaluation takes connected pieces.
A run that was stopped goes on. ``compare`` writes changes.csv, changes.md and changes.png.
Cost: 3.5 s and 0.6 GB for a case of 512x512x133 with 12 segments (measured on one core, LIDC-IDRI-0001 with made-up segments).
Label files of a case without a CT leave that case out as missing; other files that are not used are named on stderr.
Exit status: 0 done, 1 a case is missing or broken (stderr and left_out.csv say which and why) or the input cannot be used,
2 wrong options.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from flrplan.errors import FlrError
from flrplan.files import write_text
from flrplan.preparation import (
    PrepareSettings,
    ProblemKind,
    SourceKind,
    find_folder_cases,
    find_tcia_cases,
    prepare,
    read_layout,
)
from flrplan.preparation.compare import compare_all, pair_cases
from flrplan.preparation.compare_picture import write_comparison_picture
from flrplan.preparation.compare_table import changes_csv, changes_markdown
from flrplan.preparation.folder import FoundCases, image_sources, with_labels, with_original_tumours
from flrplan.preparation.layout import FOLDER_LAYOUT
from flrplan.preparation.listing import listing, unused_lines
from flrplan.preparation.run import expected_cases
from flrplan.preparation.sources import MAX_LESION_DISTANCE_MM

log = logging.getLogger(__name__)

HERE = Path(__file__).resolve().parent
OUR_SPLIT = HERE / "splits" / "ours_157_40.json"
REFINED_LAYOUT = HERE / "layouts" / "refined.yaml"


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of a command line."""
    head, _, tail = (__doc__ or "").partition("\n\n")
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="prepare.py", description=head, epilog=tail, formatter_class=raw)
    commands = parser.add_subparsers(dest="command", required=True)
    for kind, help_text in (
        (SourceKind.TCIA, "CT and DICOM SEG as downloaded from TCIA"),
        (SourceKind.REFINED, "refined labels on CTs from elsewhere"),
        (SourceKind.FOLDER, "a folder of NIfTI or NRRD"),
    ):
        command = commands.add_parser(kind.value, help=help_text)
        command.add_argument(
            "root", type=Path, help="folder of the labels" if kind is SourceKind.REFINED else "folder of the data"
        )
        command.add_argument("--out", type=Path, help="work folder W (not needed with --dry-run)")
        command.add_argument("--cases", nargs="+", default=[], metavar="ID", help="only these cases")
        split = None if kind is SourceKind.FOLDER else OUR_SPLIT
        splits = command.add_mutually_exclusive_group()
        splits.add_argument(
            "--splits", type=Path, default=split, help="split of W; its cases are expected (default: %(default)s)"
        )
        splits.add_argument(
            "--no-split", dest="splits", action="store_const", const=None, help="write no split; one is drawn afterwards"
        )
        command.add_argument("--allow-missing", action="store_true", help="missing cases are no failure; the split drops them")
        command.add_argument(
            "--clinical", type=Path, metavar="FILE", help="TCIA's clinical sheet (.xlsx or .csv), for dataset.csv"
        )
        command.add_argument("--force", action="store_true", help="make complete cases anew")
        command.add_argument("--dry-run", action="store_true", help="show what would be taken as what; write nothing")
        command.add_argument(
            "--workers", type=int, default=min(4, os.cpu_count() or 1), help="processes (default: %(default)s)"
        )
        if kind is not SourceKind.TCIA:
            layout = REFINED_LAYOUT if kind is SourceKind.REFINED else None
            command.add_argument("--layout", type=Path, default=layout, help="YAML of glob patterns (default: %(default)s)")
        if kind is SourceKind.REFINED:
            images = command.add_mutually_exclusive_group(required=True)
            images.add_argument("--tcia", type=Path, metavar="ROOT", help="the CTs are TCIA's download")
            images.add_argument("--images", type=Path, metavar="DIR", help="the CTs are image files or DICOM folders in DIR")
            command.add_argument(
                "--lesion-distance",
                type=float,
                default=MAX_LESION_DISTANCE_MM,
                metavar="MM",
                help="a piece of the CRLM farther than this from every original tumour is a lesion of its own (default: %(default)g)",
            )
    compare = commands.add_parser("compare", help="how much two label sets of the same cases differ")
    compare.add_argument("first", type=Path, help="work folder, or folder of labels")
    compare.add_argument("second", type=Path)
    compare.add_argument("--out", type=Path, required=True, help="folder for changes.csv, changes.md, changes.png")
    compare.add_argument("--images", type=Path, help="folder of CTs for the picture (default: FIRST/images)")
    compare.add_argument(
        "--allow-missing", action="store_true", help="compare the cases that both have; the table says which lack"
    )
    compare.add_argument("--workers", type=int, default=min(4, os.cpu_count() or 1), help="processes (default: %(default)s)")
    options = parser.parse_args(arguments)
    if options.command != "compare" and options.out is None and not options.dry_run:
        parser.error("--out is needed (or --dry-run)")
    return options


def find(options: argparse.Namespace) -> FoundCases:
    """The cases that the options name."""
    if options.command == SourceKind.TCIA:
        return FoundCases(tuple(find_tcia_cases(options.root)))
    layout = read_layout(options.layout) if options.layout else FOLDER_LAYOUT
    if options.command == SourceKind.FOLDER:
        return find_folder_cases(options.root, layout)
    images = find_tcia_cases(options.tcia) if options.tcia else image_sources(options.images)
    images = with_original_tumours(images, options.images, options.lesion_distance)
    return with_labels(images, options.root, layout, options.tcia or options.images)


def run_prepare(options: argparse.Namespace) -> int:
    """Prepares, or lists what would be prepared."""
    kind = SourceKind(options.command)
    settings = PrepareSettings(
        out=options.out or Path(),
        kind=kind,
        cases=tuple(options.cases),
        split=options.splits,
        allow_missing=options.allow_missing,
        force=options.force,
        clinical=options.clinical,
        workers=options.workers,
    )
    found = find(options)
    if options.dry_run:
        cases = expected_cases(found.cases, settings)
        sys.stdout.write(listing(cases, found.unused))
        problems = [c.problem for c in cases if c.problem is not None]
        return int(any(p.kind is ProblemKind.BROKEN or not options.allow_missing for p in problems))
    result = prepare(found.cases, replace(settings, out=options.out))
    if found.unused:
        log.warning("%s", "\n".join(unused_lines(found.unused)))
    sys.stdout.write(
        f"{len(result.ready)} cases ready in {options.out} ({len(result.kept)} of them were complete before), "
        f"{len(result.problems)} left out\n{result.split}\n"
    )
    return int(result.failed)


def run_compare(options: argparse.Namespace) -> int:
    """Compares two label sets."""
    pairs, gaps = pair_cases(options.first, options.second, options.allow_missing)
    changes = compare_all(pairs, options.workers)
    table = changes_markdown(changes, str(options.first), str(options.second), gaps)
    write_text(options.out / "changes.csv", changes_csv(changes))
    write_text(options.out / "changes.md", table)
    images = options.images or options.first / "images"
    write_comparison_picture(options.out / "changes.png", changes, pairs, images)
    sys.stdout.write(table)
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s", stream=sys.stderr)
    try:
        options = parse(arguments)
        return run_compare(options) if options.command == "compare" else run_prepare(options)
    except FlrError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1


if __name__ == "__main__":
    raise SystemExit(main())
