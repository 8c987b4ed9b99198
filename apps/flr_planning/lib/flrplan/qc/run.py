"""Label QC of a folder: every case on its own, then the findings as JSON, CSV and a page with pictures."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flrplan.anatomy import Structure
from flrplan.errors import FlrError, OutputError, SettingsError
from flrplan.files import make_writable, plain_cell, replacing, write_json, write_text
from flrplan.qc.case import QcCase
from flrplan.qc.finding import Finding, Severity
from flrplan.qc.page import Card, CaseBlock, write_page
from flrplan.qc.picture import finding_png
from flrplan.qc.reading import LabelFiles, find_labels, read_case, with_images
from flrplan.qc.registry import Checked, Settings, check_case, check_settings
from flrplan.qc.repair import check_repairs, remove_repaired, repaired, write_repaired

JSON_NAME, CSV_NAME, CASES_NAME, PAGE_NAME = "findings.json", "findings.csv", "cases.csv", "index.html"
PICTURES, REPAIRED = "pictures", "repaired"
FIELDS = ("case", "severity", "rule", "structure", "size", "unit", "message", "centre_x_mm", "centre_y_mm", "centre_z_mm",
          "first_zyx", "last_zyx", "source")  # fmt: skip
CASE_FIELDS = ("case", "label", "image", *(f"{s}s" for s in Severity), "not_checked", "repaired_voxels", "could_not_be_checked")

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class QcRequest:
    """What is checked. images: folder of CTs; None: rules that need one are not checked. structure: what single masks are of.

    settings: thresholds by rule and name. repair: rules whose repairs are written to ``OUT/repaired``.
    """

    labels: Path
    out: Path
    images: Path | None = None
    structure: Structure | None = None
    settings: Settings = field(default_factory=dict)
    repair: Sequence[str] = ()


@dataclass(frozen=True)
class CaseOutcome:
    """One case: what was found, or why it could not be checked. repaired: voxels changed, by rule."""

    files: LabelFiles
    checked: Checked | None = None
    error: str = ""
    pictures: tuple[str, ...] = ()
    repaired: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class QcOutcome:
    """All cases, the worst first; without_label: images that no label is for; page: the page that shows it all."""

    cases: tuple[CaseOutcome, ...]
    without_label: tuple[Path, ...]
    page: Path

    @property
    def failed(self) -> list[CaseOutcome]:
        """Cases that could not be checked."""
        return [case for case in self.cases if case.error]


def check_folder(request: QcRequest, on_case: Callable[[CaseOutcome], None] = lambda outcome: None) -> QcOutcome:
    """Checks every label of a folder and writes ``findings.json``, ``findings.csv``, ``cases.csv``, ``index.html`` and pictures.

    A case that cannot be read costs itself alone. on_case: called after each.

    Raises: ImageError, LabelError for folders without cases; SettingsError for unknown rules, and where repairs would overwrite the labels; OutputError.
    """
    check_settings(request.settings)
    check_repairs(request.repair)
    labels = find_labels(request.labels, request.structure)
    own = (request.out / REPAIRED).resolve()
    if request.repair and any(path.resolve().is_relative_to(own) for files in labels for _, path in files.truth.named()):
        raise SettingsError(f"{request.labels}: repaired labels would take the place of these; choose another --out")
    make_writable(request.out, "give another folder with --out")
    alone: list[Path] = []
    if request.images is not None:
        labels, alone = with_images(labels, request.images)
    outcomes = []
    for files in labels:
        outcomes.append(_check(files, request))
        on_case(outcomes[-1])
    outcomes.sort(key=_badness)
    findings = [f for o in outcomes if o.checked for f in o.checked.findings]
    write_json(request.out / JSON_NAME, [f.as_dict() for f in findings])
    write_text(request.out / CSV_NAME, _csv(FIELDS, [_row(f) for f in findings]))
    write_text(request.out / CASES_NAME, _csv(CASE_FIELDS, [_case_row(o) for o in outcomes]))
    write_page(request.out / PAGE_NAME, [_block(o) for o in outcomes], [str(p) for p in alone])
    return QcOutcome(tuple(outcomes), tuple(alone), request.out / PAGE_NAME)


def _check(files: LabelFiles, request: QcRequest) -> CaseOutcome:
    try:
        case = read_case(files)
        checked = check_case(case, request.settings)
        pictures = tuple(_draw(case, f, k, request.out) for k, f in enumerate(checked.findings))
        changed: dict[str, int] = {}
        if request.repair:
            better, changed = repaired(case, request.repair, request.settings)
            if changed:
                write_repaired(better, request.out / REPAIRED)
            else:
                remove_repaired(case.name, request.out / REPAIRED)
        return CaseOutcome(files, checked, pictures=pictures, repaired=changed)
    except OutputError:
        raise
    except FlrError as error:
        return CaseOutcome(files, error=str(error))
    except Exception as error:  # a file nobody thought of: it costs its case, not the others; the log says where
        _LOG.exception("case %s", files.case)
        return CaseOutcome(files, error=f"{files.truth.first}: unexpected {type(error).__name__}: {error}")


def _draw(case: QcCase, finding: Finding, number: int, out: Path) -> str:
    name = f"{PICTURES}/{case.name}-{number}.png"
    with replacing(out / name) as part:
        part.write_bytes(finding_png(case, finding))
    return name


def _badness(outcome: CaseOutcome) -> tuple[int, ...]:
    """Sorts cases that could not be checked first, then by the number of findings, the worst severity first."""
    if outcome.checked is None:
        return (0,)
    return (1, *(-outcome.checked.count(s) for s in Severity))


def _row(finding: Finding) -> dict[str, Any]:
    row = finding.as_dict()
    centre, box = row["centre_mm"] or ("", "", ""), row["box_zyx"] or ("", "")
    where = {f"centre_{a}_mm": v for a, v in zip("xyz", centre, strict=True)}
    return {**row, **where, "first_zyx": " ".join(map(str, box[0])), "last_zyx": " ".join(map(str, box[1]))}


def _case_row(outcome: CaseOutcome) -> dict[str, Any]:
    files, checked = outcome.files, outcome.checked
    return {
        "case": files.case,
        "label": str(files.truth.first),
        "image": str(files.image or ""),
        **({f"{s}s": checked.count(s) for s in Severity} if checked else {}),
        "not_checked": ""
        if checked is None
        else "; ".join(f"{rule} needs {what}" for rule, what in checked.not_checked.items()),
        "repaired_voxels": "; ".join(f"{rule} {voxels}" for rule, voxels in outcome.repaired.items()),
        "could_not_be_checked": " ".join(outcome.error.split()),
    }


def _csv(fields: Sequence[str], rows: Sequence[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, fields, restval="", extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: plain_cell(v) if isinstance(v, str) else v for k, v in row.items()} for row in rows)
    return text.getvalue()


def _block(outcome: CaseOutcome) -> CaseBlock:
    checked = outcome.checked
    cards = () if checked is None else tuple(Card(f, p) for f, p in zip(checked.findings, outcome.pictures, strict=True))
    return CaseBlock(
        outcome.files.case,
        str(outcome.files.truth.first),
        str(outcome.files.image or ""),
        cards,
        {} if checked is None else dict(checked.not_checked),
        outcome.error,
        outcome.repaired,
    )
