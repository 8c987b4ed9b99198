"""The page over many plans: ``index.html`` in the folder that holds theirs."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from flrplan.errors import SettingsError
from flrplan.files import write_text
from flrplan.files.page import render_page
from flrplan.image import natural_key
from flrplan.planning.plan import PAGE_NAME, REPORT_NAME, RESEARCH_ONLY
from flrplan.planning.record import PlanRecord, read_plan

INDEX_NAME = "index.html"
_TEMPLATE = Path(__file__).with_name("index.html")


def write_index(out: Path) -> Path | None:
    """Writes ``index.html`` over the plans in the folders of ``out``, in natural order; returns it, None where there are fewer than two.

    A plan that cannot be read has a row that says why. Raises: OutputError.
    """
    folders = sorted((p.parent for p in out.glob(f"*/{REPORT_NAME}")), key=lambda p: natural_key(p.name))
    if len(folders) < 2:
        return None
    rows = []
    for folder in folders:
        try:
            rows.append(_row(folder, read_plan(folder / REPORT_NAME)))
        except SettingsError as error:
            rows.append({"case": folder.name, "page": "", "error": str(error).replace(f"{folder}/", "")})
    page = render_page(_TEMPLATE, title=f"Plans of {len(rows)} cases", use=RESEARCH_ONLY, rows=rows)
    write_text(out / INDEX_NAME, page)
    return out / INDEX_NAME


def _row(folder: Path, plan: PlanRecord) -> dict[str, Any]:
    volumes, interval = plan["volumes"], (plan.get("interval") or {}).get("flr_fraction")
    share, margin = volumes["flr_fraction"], plan["smallest_margin"]
    fates = Counter(lesion["fate"] for lesion in plan["lesions"])
    verdicts = Counter(t["verdict"] for t in plan["thresholds"])
    return {
        "case": folder.name,
        "error": "",
        "page": f"{folder.name}/{PAGE_NAME}" if (folder / PAGE_NAME).is_file() else "",
        "flr_ml": f"{volumes['flr_functional_ml']:.0f}",
        "percent": "undefined" if share is None else f"{100 * share:.1f}",
        "interval": "" if not interval else f"{100 * interval['lower']:.0f} to {100 * interval['upper']:.0f}",
        "verdict": ", ".join(f"{count} {verdict}" for verdict, count in verdicts.items()),
        "not_met": verdicts["not met"] > 0,
        "resection_ml": f"{volumes['lrs_ml']:.0f} in {len(plan['resection_parts'])}",
        "lesions": ", ".join(f"{count} {fate}" for fate, count in fates.items()) or "none",
        "margin": "" if margin is None else f"{margin['mm']:.0f}",
        "from": plan["flr_source"],
        "warnings": plan["warnings"],
    }
