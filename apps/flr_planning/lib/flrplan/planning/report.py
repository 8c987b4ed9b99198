"""The report of a plan for people: what stands in it, once, and as a page (``report.html``) and a PDF (``report.pdf``).

The page needs no other file and no network; both print on two A4 pages for a plan with some ten metastases and warnings.
"""

from __future__ import annotations

import math
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flrplan.anatomy import Structure
from flrplan.files import write_text
from flrplan.files.page import render_page
from flrplan.metrics.cut import Fate
from flrplan.metrics.overlap import dice
from flrplan.planning.criteria import RESECTIONS_SOURCE, Denominator
from flrplan.planning.picture import outside_jpeg, thresholds_png
from flrplan.planning.plan import PAGE_NAME, PDF_NAME
from flrplan.planning.segments import OUTSIDE, describe_resected, describe_shares

if TYPE_CHECKING:
    from flrplan.planning.parts import Lesion
    from flrplan.planning.plan import Plan
    from flrplan.planning.volumetry import Volumes

MOST_LESIONS = 12
"""So many metastases are listed, the largest first; all stand in ``plan.json``."""
_BY_ARCHITECTURE = "FLR of each architecture's own plan"
_TEMPLATE = Path(__file__).with_name("report.html")
_OUTLINES = "solid outline: remnant (FLR); dashed and hatched: resection; thick with a number: metastasis, dotted where it is left in the remnant"


@dataclass(frozen=True)
class Table:
    """A table of texts."""

    title: str
    head: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    note: str = ""


@dataclass(frozen=True)
class Picture:
    """A picture as the bytes of a JPEG or PNG, and what it shows."""

    data: bytes
    caption: str

    @property
    def url(self) -> str:
        """For ``src``, the picture in it."""
        kind = "png" if self.data.startswith(b"\x89PNG") else "jpeg"
        return f"data:image/{kind};base64,{b64encode(self.data).decode()}"


@dataclass(frozen=True)
class ReportContent:
    """All that a report says, in words.

    headline: volume and share of the remnant. about: what it is a share of. sure: the interval, or why there is none, short and in full;
    none of it where no network gave the remnant. verdicts: of each threshold, and whether it is met; None where none can be said.
    """

    title: str
    use: str
    headline: tuple[str, str]
    about: str
    sure: tuple[str, str] | None
    verdicts: Sequence[tuple[bool | None, str]]
    thresholds: Picture
    key_images: Sequence[Picture]
    outside: Sequence[Picture]
    lines: str
    lesions: Table
    tables: Sequence[Table]
    warnings: Sequence[str]
    notes: Sequence[str]
    made_of: Sequence[Table]
    scene: dict[str, Any] = field(default_factory=dict)


def report_content(plan: Plan, with_scene: bool = True) -> ReportContent:
    """What the report of a plan says. with_scene: also the meshes of the 3D view, which a PDF has no use for."""
    from flrplan.planning.plan import RESEARCH_ONLY
    from flrplan.planning.scene import scene_of

    volumes, lesions = plan.volumes, plan.parts.lesions
    lines = [_OUTLINES]
    lines += [
        f"white, {line}: the cut of the plan “{name}”"
        for line, name in zip(("dash-dotted", "dotted"), plan.compared, strict=False)
    ]
    lines += [f"blue, {'dotted' if 'portal' in name else 'thin'}: {name}" for name in plan.veins]
    return ReportContent(
        title=f"Plan of {plan.ct.name}",
        use=RESEARCH_ONLY,
        headline=(f"FLR {volumes.flr_functional_ml:.0f} ml", _share(volumes)),
        about=f"remnant parenchyma, of {volumes.functional_liver_ml:.0f} ml liver without metastases ({_flr_source(plan)})",
        sure=_sure(plan),
        verdicts=_verdicts(plan),
        thresholds=Picture(
            thresholds_png(plan.assessment, None if plan.interval is None else plan.interval.flr_fraction),
            "the remnant as a share of each liver volume, and the thresholds",
        ),
        key_images=[Picture(image.jpeg, image.title) for image in plan.key_images],
        outside=[
            Picture(outside_jpeg(plan.ct, plan.label_zyx, lesions, below), f"seen from the {'feet' if below else 'front'}")
            for below in (False, True)
        ],
        lines="; ".join(lines),
        lesions=_lesions(plan),
        tables=[table for table in (_compared(plan), _volumes(plan), _segments(plan), _veins(plan)) if table.rows],
        warnings=plan.warnings,
        notes=[finding.message for finding in plan.findings if finding.message not in plan.warnings],
        made_of=_made_of(plan),
        scene=scene_of(plan.meshes, plan.ct.geometry, lesions, plan.veins) if with_scene else {},
    )


def write_report(folder: Path, plan: Plan) -> None:
    """Writes ``report.html`` and ``report.pdf`` into a folder. Raises: OutputError; no half-written file is left."""
    from flrplan.planning.pdf import write_pdf

    content = report_content(plan)
    write_text(folder / PAGE_NAME, render_page(_TEMPLATE, title=content.title, of=content))
    write_pdf(folder / PDF_NAME, content)


def _flr_source(plan: Plan) -> str:
    words = {"given": "a given plan", "coherent": "predicted, made coherent", "raw": "predicted, the network's own mask"}
    return words[plan.flr_source]


def _sure(plan: Plan) -> tuple[str, str] | None:
    found = plan.interval
    if found is None:
        return None
    if found.flr_fraction is None or found.flr_ml is None:
        return "no interval", found.describe().removeprefix("how sure: no interval, ")
    low, high = (100 * end for end in found.flr_fraction)
    return (
        f"{100 * found.coverage:g} % interval: {low:.0f} to {high:.0f} %, {found.flr_ml.lower:.0f} to {found.flr_ml.upper:.0f} ml",
        found.describe(),
    )


def _verdicts(plan: Plan) -> list[tuple[bool | None, str]]:
    judged, state = plan.assessment.judged(), plan.clinical.liver_state
    if state is None:
        return [(None, "no threshold is judged: the state of the liver is not stated (normal, chemotherapy or injured)")]
    said = []
    for threshold, percent, verdict in judged:
        unknown = "no parenchyma" if threshold.over is Denominator.MEASURED else "height and weight are not known"
        here = unknown if math.isnan(percent) else f"{percent:.1f} %"
        said.append(({"met": True, "not met": False}.get(verdict), f"{verdict}: {threshold.describe()}, here {here}"))
    return [(None, f"liver stated as {state.value}"), *said]


def _mm(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.0f}" if value >= 10 else f"{value:.1f}"


def _share(volumes: Volumes) -> str:
    return "undefined" if math.isnan(volumes.flr_fraction) else f"{100 * volumes.flr_fraction:.1f} %"


def _ml(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}"


def _lesions(plan: Plan) -> Table:
    lesions = plan.parts.lesions
    rows = [
        (str(n.number), _ml(n.volume_ml), _mm(n.diameter_mm), *_where(n), str(n.fate), _mm(n.margin_mm) or "none")
        for n in lesions[:MOST_LESIONS]
    ]
    more = lesions[MOST_LESIONS:]
    note = (
        "no metastasis"
        if not lesions
        else f"margin: from the surface to the nearest point of the cut; none where it is left or there is no cut; part of the liver: {plan.parts.liver_part}"
    )
    if more:
        fates = ", ".join(f"{count} {fate}" for fate in Fate if (count := sum(n.fate is fate for n in more)))
        note += f"; {len(more)} smaller ones not listed here ({fates})"
    where = () if plan.segments is None else ("segment",)
    return Table("Metastases", ("", "ml", "largest diameter, mm", *where, "fate", "margin, mm"), rows, note)


def _where(lesion: Lesion) -> tuple[str, ...]:
    return () if lesion.segments is None else (describe_shares(lesion.segments),)


def _volumes(plan: Plan) -> Table:
    v, raw = plan.volumes, plan.raw_volumes
    rows = [
        ("liver with metastases (TLV)", f"{_ml(v.liver_ml)} ml"),
        ("metastases (TV)", f"{_ml(v.crlm_ml)} ml"),
        ("liver without metastases", f"{_ml(v.functional_liver_ml)} ml"),
        ("remnant parenchyma (FLR)", f"{_ml(v.flr_functional_ml)} ml, {_share(v)}"),
        ("remnant with the metastases left in it", f"{_ml(v.flr_ml)} ml"),
        ("resection", f"{_ml(v.lrs_ml)} ml in {len(plan.parts.resection)} part{'s' * (len(plan.parts.resection) != 1)}"),
    ]
    if raw is not None:
        rows.append(("FLR of the networks' own mask", f"{_ml(raw.flr_functional_ml)} ml, {_share(raw)}"))
    if plan.by_architecture:
        rows.append((_BY_ARCHITECTURE, plan.by_architecture))
    assessment = plan.assessment
    if not math.isnan(assessment.sflr_percent):
        stlv = assessment.flr_percent(Denominator.VAUTHEY)
        rows.append(("sFLR (Vauthey 2002, BSA by Mosteller)", f"{stlv:.1f} %"))
    else:
        rows.append(("sFLR", "not computable: height and weight are not known"))
    if not math.isnan(assessment.flr_to_weight_percent):
        rows.append(("FLR to body weight", f"{assessment.flr_to_weight_percent:.2f} %"))
    if plan.clinical.prior is not None:
        for what, value, unit in (
            ("degree of hypertrophy", assessment.hypertrophy_points, "points"),
            ("kinetic growth rate", assessment.growth_points_per_week, "points a week"),
        ):
            rows.append((what, "not computable" if math.isnan(value) else f"{value:.1f} {unit}"))
    return Table("Volumes", ("", ""), rows)


def _compared(plan: Plan) -> Table:
    if not plan.compared:
        return Table("Beside it", (), [])
    shown = {"this plan": plan, **plan.compared}

    def row(what: str, say: Any) -> tuple[str, ...]:
        return (what, *(say(p) for p in shown.values()))

    def fates(p: Plan) -> str:
        counts = [(fate, sum(n.fate is fate for n in p.parts.lesions)) for fate in Fate]
        return ", ".join(f"{count} {fate}" for fate, count in counts if count) or "none"

    def margin(p: Plan) -> str:
        return (
            "none" if p.parts.closest is None else f"{_mm(p.parts.closest.margin_mm)} mm (metastasis {p.parts.closest.number})"
        )

    def overlap(p: Plan) -> str:
        same = dice(plan.masks[Structure.FLR], p.masks[Structure.FLR])
        return "undefined" if math.isnan(same) else f"{same:.2f}"

    rows = [
        row("FLR", lambda p: f"{_ml(p.volumes.flr_functional_ml)} ml, {_share(p.volumes)}"),
        row("resection", lambda p: f"{_ml(p.volumes.lrs_ml)} ml, parts: {len(p.parts.resection)}"),
        row("metastases", fates),
        row("smallest margin", margin),
        row("remnant as this plan's (Dice)", overlap),
    ]
    if plan.segments is not None:
        rows.append(row("segments resected", lambda p: describe_resected(p.parts.segments or ())))
    if any(other.by_architecture for other in plan.compared.values()):
        rows.append(row(_BY_ARCHITECTURE, lambda p: p.by_architecture or "none"))
    notes = [other.remark for other in plan.compared.values() if other.remark]
    return Table("Beside it", ("", *shown), rows, "; ".join(notes))


def _segments(plan: Plan) -> Table:
    found = plan.parts.segments
    if found is None:
        return Table("Segments", (), [])
    there = [s for s in found if s.volume_ml]
    rows = [
        ("liver, ml", *(_ml(s.volume_ml) for s in there)),
        ("resected, ml", *(_ml(s.resected_ml) for s in there)),
        ("resected, %", *(f"{100 * s.resected_fraction:.0f}" for s in there)),
    ]
    note = f"resected: {describe_resected(found)}; names of operations: {RESECTIONS_SOURCE}"
    return Table("Segments", ("", *(s.segment or OUTSIDE for s in there)), rows, note)


def _veins(plan: Plan) -> Table:
    rows = [
        (v.name, _ml(v.remnant_ml), _ml(v.resection_ml), "none" if math.isnan(v.distance_mm) else _mm(v.distance_mm))
        for v in plan.vessels
    ]
    return Table("Veins", ("", "stay, ml", "go, ml", "from the cut, mm"), rows)


def _made_of(plan: Plan) -> list[Table]:
    from flrplan import __version__

    words = {"given": "given by a person, not predicted", "predicted": "predicted, not corrected by a person"}
    sources = [(str(s), words[source.value]) for s, source in plan.sources.items()]
    if plan.flr_source == "coherent":
        sources = [(s, f"{said}; made coherent" if s == Structure.FLR else said) for s, said in sources]
    models = [
        (stage, m.folder + (" (demo)" if m.demo else ""), ", ".join(f"fold {f}: {h[:12]}" for f, h in m.weights_sha256.items()))
        for stage, m in plan.result.models.items()
    ]
    grid = plan.ct.geometry
    facts = [
        ("software", f"flrplan {__version__}"),
        *([] if plan.anonymized else [("made", plan.made_on)]),
        ("CT", f"{' x '.join(map(str, grid.size_xyz))} voxels of {' x '.join(f'{s:.3g}' for s in grid.spacing_mm)} mm"),
        *((name, said) for name, said in plan.settings.items()),
    ]
    return [
        Table("Predicted or given", ("structure", "where it comes from"), sources),
        Table("Models", ("stage", "model", "weights, SHA-256"), models or [("none", "no network took part", "")]),
        Table("Software and settings", ("", ""), facts),
    ]
