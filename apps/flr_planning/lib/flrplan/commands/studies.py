"""``flrplan studies``: cases in, published labels out; where every case stands, older labels, two readers."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flrplan.commands.say import note, say

if TYPE_CHECKING:
    from flrplan.studies import StudiesFolder
    from flrplan.studies.exchange import Exchanged
    from flrplan.studies.worklist import Row


def add_parser(commands: Any) -> None:
    """Adds ``studies`` to the command line."""
    parser = commands.add_parser("studies", help="a folder of images that people annotate: cases in, labels out")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    _add_import(actions)
    _add_export(actions)
    _add_status(actions)
    _add_restore(actions)
    _add_double(actions)
    _add_compare(actions)


def _add_import(actions: Any) -> None:
    parser = actions.add_parser(
        "import", help="make studies of a work folder of prepare.py (or a cohort): CTs, and their labels as one map to edit"
    )
    parser.add_argument("work", type=Path, metavar="WORK", help="images/ with labels/ or masks/")
    parser.add_argument("--studies", type=Path, required=True, metavar="DIR")
    parser.set_defaults(run=_import)


def _add_export(actions: Any) -> None:
    parser = actions.add_parser(
        "export", help="write the confirmed labels as NIfTI and DICOM SEG, with a manifest and checksums, ready to publish"
    )
    parser.add_argument("studies", type=Path, metavar="STUDIES")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument(
        "--labels",
        choices=["approved", "all"],
        default="approved",
        help="approved: those that a second reader confirmed; all: also the newest that were not sent back",
    )
    parser.add_argument(
        "--dicom", type=Path, metavar="DIR", help="the cases' DICOM series, by PatientID or folder name; each gets a SEG"
    )
    parser.add_argument("--images", action="store_true", help="with the CTs, so that prepare.py reads the folder as it is")
    parser.set_defaults(run=_export)


def _add_status(actions: Any) -> None:
    parser = actions.add_parser("status", help="how many cases are in which state, who has what, minutes, what was changed")
    parser.add_argument("studies", type=Path, metavar="STUDIES")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write a page with pictures and worklist.csv there, too")
    parser.add_argument("--no-pictures", action="store_true", help="a page without pictures, which need every CT to be read")
    parser.set_defaults(run=_status)


def _add_restore(actions: Any) -> None:
    parser = actions.add_parser("restore", help="submit an older label once more as final; the present one stays as a version")
    parser.add_argument("studies", type=Path, metavar="STUDIES")
    parser.add_argument("case", metavar="CASE")
    parser.add_argument("tag", metavar="TAG", nargs="?", help="such as version_2; without it, the labels are listed")
    parser.add_argument("--by", default="", metavar="NAME", help="who restores it")
    parser.set_defaults(run=_restore)


def _add_double(actions: Any) -> None:
    parser = actions.add_parser(
        "double", help="mark cases for double reading: each goes to a second annotator, who sees the image alone"
    )
    parser.add_argument("studies", type=Path, metavar="STUDIES")
    parser.add_argument("cases", nargs="+", metavar="CASE")
    parser.add_argument("--undo", action="store_true", help="take the mark away")
    parser.set_defaults(run=_double)


def _add_compare(actions: Any) -> None:
    parser = actions.add_parser("compare", help="how far two annotators' labels of a case agree; joined on request")
    parser.add_argument("studies", type=Path, metavar="STUDIES")
    parser.add_argument("case", metavar="CASE")
    parser.add_argument("--labels", nargs="+", default=(), metavar="TAG", help="without them, the newest of each annotator")
    parser.add_argument("--join", choices=["staple", "majority"], help="submit what they say together as final")
    parser.add_argument("--by", default="", metavar="NAME", help="who joins them")
    parser.set_defaults(run=_compare)


def _import(arguments: argparse.Namespace) -> int:
    """Returns 1 where a case was left out."""
    from flrplan.studies.exchange import import_cases

    found = import_cases(arguments.work, arguments.studies, say)
    return _end(found, f"{len(found.done)} cases in {arguments.studies}; start the server with --studies {arguments.studies}")


def _export(arguments: argparse.Namespace) -> int:
    """Returns 0 also where images have no label that counts: the manifest names them."""
    from flrplan.server.label_table import names_sent
    from flrplan.studies.exchange import ExportRequest, export_labels
    from flrplan.studies.review import LabelUse

    root = _folder(arguments.studies).root
    request = ExportRequest(root, arguments.out, LabelUse(arguments.labels), arguments.dicom, arguments.images)
    found = export_labels(request, names_sent, say)
    _end(found, f"{len(found.done)} cases in {arguments.out}")
    return 0


def _end(found: Exchanged, result: str) -> int:
    if found.left_out:
        note(f"left out: {len(found.left_out)}, such as {next(iter(found.left_out))}")
    say(result)
    return 1 if found.left_out else 0


def _status(arguments: argparse.Namespace) -> int:
    from flrplan.files import write_text
    from flrplan.studies.worklist import as_csv, as_page, counts, mean_changes, minutes_a_case, per_annotator

    found = _rows(arguments.studies)
    say(f"{len(found)} cases: " + ", ".join(f"{n} {state}" for state, n in counts(found).items()))
    minutes = minutes_a_case(found)
    if minutes is not None:
        say(f"{minutes[0]:.0f} minutes a case, known of {minutes[1]}")
    for change in mean_changes(found):
        say(f"{change['structure']}: {_changed(change)} in {change['labels']} labels")
    for who in per_annotator(found):
        spent = "" if who["minutes"] is None else f", {who['minutes']:.0f} minutes a label"
        changed = "; ".join(f"{c['structure']} {_changed(c)}" for c in who["changes"])
        say(
            f"{who['annotator']}: {who['labels']} labels of {who['cases']} cases, {who['confirmed']} confirmed{spent}{changed and f'; {changed}'}"
        )
    for row in found:
        held = "" if row.lease is None else f"; held by {row.lease.to or 'somebody without a name'}"
        say(f"  {row.case}: {row.words}{held}")
    if arguments.out is None:
        return 0
    pictures = {} if arguments.no_pictures else _pictures(arguments.studies, arguments.out, [row.case for row in found])
    write_text(arguments.out / "worklist.csv", as_csv(found))
    write_text(arguments.out / "worklist.html", as_page(found, f"Cases of {arguments.studies.name}", "worklist.csv", pictures))
    say(f"{arguments.out / 'worklist.html'}")
    return 0


def _changed(change: dict[str, Any]) -> str:
    dice = "-" if change["dice"] is None else f"{change['dice']:.3f}"
    return f"Dice {dice} to the label before, {change['ml']:.1f} ml apart"


def _rows(studies: Path) -> list[Row]:
    import time

    from flrplan.studies.review import CaseReview
    from flrplan.studies.worklist import Row

    now = time.time()
    images = _folder(studies).scan()
    return [
        Row.of(case, image.info, CaseReview.of({tag: label.info for tag, label in image.labels.items()}), now)
        for case, image in sorted(images.items())
    ]


def _folder(studies: Path) -> StudiesFolder:
    from flrplan.errors import ImageError
    from flrplan.studies import StudiesFolder

    if not studies.is_dir():
        raise ImageError(f"{studies}: no such folder; expected the --studies folder of a server")
    return StudiesFolder(studies)


def _pictures(studies: Path, out: Path, cases: list[str]) -> dict[str, str]:
    """A picture of the newest label of each case that has one, as links beside the page."""
    from flrplan.errors import FlrError
    from flrplan.files import replacing
    from flrplan.image import read_ct
    from flrplan.qc import QcCase
    from flrplan.qc.picture import case_png
    from flrplan.server.label_table import read_label
    from flrplan.studies.review import CaseReview

    images = _folder(studies).scan()
    found = {}
    for case in cases:
        labels = images[case].labels
        newest = CaseReview.of({tag: label.info for tag, label in labels.items()}).newest
        if newest is None:
            continue
        try:
            ct = read_ct(images[case].path)
            label, grid = read_label(labels[newest.tag].path, newest.info)
            data = case_png(QcCase(case, grid, dict(label.masks), ct if grid.is_same_grid(ct.geometry) else None))
        except FlrError as error:
            note(f"no picture of {case}: {str(error).splitlines()[0]}")
            continue
        with replacing(out / "pictures" / f"{case}.png") as part:
            part.write_bytes(data)
        found[case] = f"pictures/{case}.png"
    return found


def _restore(arguments: argparse.Namespace) -> int:
    from flrplan.errors import LabelError
    from flrplan.server.label_table import read_label
    from flrplan.studies.review import CaseReview
    from flrplan.studies.submission import restore
    from flrplan.studies.worklist import clock

    folder = _folder(arguments.studies)
    if arguments.tag is None:
        labels = folder.labels_of(arguments.case)
        versions = CaseReview.of({tag: label.info for tag, label in labels.items()}).versions
        if not versions:
            raise LabelError(f"{arguments.studies}: {arguments.case} has no label that somebody submitted")
        for version in versions:
            say(f"{version.tag}: {clock(version.saved)} by {version.who}{f', {version.status}' if version.status else ''}")
        return 0
    restore(folder, arguments.case, arguments.tag, read_label, arguments.by)
    say(f"{arguments.case}: {arguments.tag} is final now; what was final stays as a version")
    return 0


def _double(arguments: argparse.Namespace) -> int:
    from flrplan.errors import ImageError
    from flrplan.studies.worklist import DOUBLE

    folder = _folder(arguments.studies)
    images = folder.scan()
    unknown = [case for case in arguments.cases if case not in images]
    if unknown:
        raise ImageError(f"{arguments.studies} has no image {unknown[0]!r}; it has {', '.join(list(images)[:5]) or 'none'}")
    for case in arguments.cases:
        folder.update_image(case, {DOUBLE: not arguments.undo})
    say(f"{len(arguments.cases)} cases {'are read once' if arguments.undo else 'are read twice'}")
    return 0


def _compare(arguments: argparse.Namespace) -> int:
    from itertools import combinations

    from flrplan.server.label_table import read_label
    from flrplan.studies.agreement import Join, agreement, in_words, join, readings

    folder = _folder(arguments.studies)
    found = readings(folder, arguments.case, read_label, arguments.labels)
    for first, second in combinations(found, 2):
        say(f"{first.version.tag} by {first.version.who}, and {second.version.tag} by {second.version.who}:")
        for line in in_words(agreement(first, second)):
            say(f"  {line}")
    if arguments.join:
        join(folder, arguments.case, found, Join(arguments.join), read_label, arguments.by)
        say(f"{arguments.case}: joined ({arguments.join}) as final; the labels above stay as versions")
    return 0
