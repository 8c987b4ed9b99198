"""The known errors of the fixture ``oracle`` by hand in every section of report.html; see test_oracle_outputs.py for the surfaces."""

from __future__ import annotations

import re
from html import unescape

import pytest

CRLM, FLR = "pipelined CRLM (L+CT)", "pipelined FLR (L+T+CT)"
PREDICTED, CASCADED, E2E = "whole predicted liver (nnU-Net)", "cascaded FLR (L+T+CT)", "E2E FLR (CT)"


@pytest.fixture(scope="module")
def tables(oracle):
    """The tables of a section, by its anchor: rows of cells as text, the head first."""
    page = (oracle.out / "report.html").read_text()

    def of(section: str) -> list[list[list[str]]]:
        text = page[page.index(f'<section id="{section}">') :]
        found = []
        for table in re.findall(r"<table>(.*?)</table>", text[: text.index("</section>")], re.DOTALL):
            rows = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL) for row in re.findall(r"<tr>(.*?)</tr>", table)]
            found.append([[unescape(re.sub("<[^>]+>", "", cell)).replace("\xa0", " ") for cell in row] for row in rows])
        return found

    return of


def test_paper_tables_are_those_of_the_markdown(oracle, tables):
    for number in (1, 2):
        parts = []
        for text in (oracle.out / f"table{number}.md").read_text().split("\n## "):
            lines = [line for line in text.splitlines() if line.startswith("| ")]
            parts.append([[cell.strip().replace("**", "") for cell in line.strip("|").split("|")] for line in lines])
        assert tables(f"table{number}") == parts


def test_bland_altman_limits(tables):
    limits, *_ = tables("volumes")
    # Held-out errors 0, 1, -10, 6 ml: bias -0.75, squares about it 134.75, so 1.96 sqrt(134.75 / 3) = 13.14 (ddof 1).
    # Cross-validation 0, 1, -10, 0: bias -2.25, squares 80.75, 1.96 sqrt(80.75 / 3) = 10.17.
    shown = ("nnU-Net", "own", "liver minus tumour", "whole liver", PREDICTED)
    assert [row for row in limits[1:] if row[1] in shown] == [
        ["cv", "nnU-Net", FLR, "4", "-2.2", "-12.4", "+7.9"],
        ["cv", "liver minus tumour", FLR, "4", "+5.8", "+5.8", "+5.8"],
        ["cv", "liver minus tumour", E2E, "4", "+5.8", "+5.8", "+5.8"],
        ["cv", "whole liver", FLR, "4", "+6.0", "+6.0", "+6.0"],
        ["cv", "whole liver", E2E, "4", "+6.0", "+6.0", "+6.0"],
        ["cv", PREDICTED, E2E, "4", "+6.0", "+6.0", "+6.0"],
        ["test", "nnU-Net", FLR, "4", "-0.8", "-13.9", "+12.4"],
        ["test", "own", CASCADED, "4", "+0.0", "+0.0", "+0.0"],
        ["test", "liver minus tumour", FLR, "4", "+5.8", "+5.8", "+5.8"],
        ["test", "liver minus tumour", CASCADED, "4", "+5.8", "+5.8", "+5.8"],
        ["test", "liver minus tumour", E2E, "4", "+5.8", "+5.8", "+5.8"],
        ["test", "whole liver", FLR, "4", "+6.0", "+6.0", "+6.0"],
        ["test", "whole liver", CASCADED, "4", "+6.0", "+6.0", "+6.0"],
        ["test", "whole liver", E2E, "4", "+6.0", "+6.0", "+6.0"],
        ["test", PREDICTED, CASCADED, "4", "+6.0", "+6.0", "+6.0"],
        ["test", PREDICTED, E2E, "4", "+6.0", "+6.0", "+6.0"],
    ]


def test_flr_percent_and_threshold_crossings(tables):
    _, of_true, of_own = tables("volumes")
    head = ["", "Model", "Column", "n", "bias [points]", "lower limit", "upper limit", "at 20 %", "at 30 %", "at 40 %"]
    assert of_true[0] == of_own[0] == head
    turned = {tuple(row[:3]): row[3:] for row in of_true[1:]}
    assert len(turned) == 38
    for (part, model, column), row in turned.items():
        if model.startswith("predicted liver minus"):  # t2, with its false alarm, keeps 6 columns without 36 voxels, or less
            assert row[4:] == ["0 + 0 of 4", "0 + 0 of 4", "0 + 1 of 4"]
            continue
        # 63.4 % in truth; only the empty prediction (a3, t3) is below a threshold, so below all of them: too low.
        assert row[4:] == ["0 + 1 of 4" if model == "nnU-Net" else "0 + 0 of 4"] * 3, (part, model, column)
    # Errors 0, 6.34, -63.39, 36.61 points: bias -5.11, squares about it 5294.4, so 1.96 sqrt(5294.4 / 3) = 82.34.
    assert turned["test", "nnU-Net", FLR][:4] == ["4", "-5.1", "-87.4", "+77.2"]
    assert turned["test", "whole liver", FLR][:4] == ["4", "+36.6", "+36.6", "+36.6"]
    # Of its own: -0.89, 4.72, -63.39, 36.61 (test_oracle.py): bias -5.74, squares 5250.1, 1.96 sqrt(5250.1 / 3) = 81.99.
    assert [row for row in of_own[1:] if row[1] in ("nnU-Net", PREDICTED)] == [
        ["test", "nnU-Net", FLR, "4", "-5.7", "-87.7", "+76.3", *["0 + 1 of 4"] * 3],
        ["test", PREDICTED, CASCADED, "4", "+36.6", "+36.6", "+36.6", *["0 + 0 of 4"] * 3],
        ["test", PREDICTED, E2E, "4", "+36.6", "+36.6", "+36.6", *["0 + 0 of 4"] * 3],
    ]


def test_lesions_by_size(tables):
    (found,) = tables("lesions")
    assert found[0] == ["", "Model", "Column", "", "all", "<10 mm", "10-20 mm", ">20 mm"]
    # Two lesions of 7.3 and 3.6 mm in each of 4 cases; the second is missed. In the cascade t1 misses both and t2 has a
    # false alarm of 11.5 mm. What is found is found whole, so at both thresholds.
    missed = ["4 of 8, 0 false", "4 of 8, 0 false", "0 of 0, 0 false", "0 of 0, 0 false"]
    cascaded = ["6 of 8, 1 false", "6 of 8, 0 false", "0 of 0, 1 false", "0 of 0, 0 false"]
    at = ["IoU > 0.1", "IoU > 0.5"]
    assert found[1:] == [
        *(["cv", "nnU-Net", CRLM, iou, *missed] for iou in at),
        *(["test", "nnU-Net", CRLM, iou, *missed] for iou in at),
        *(["test", "nnU-Net", "cascaded CRLM (L+CT)", iou, *cascaded] for iou in at),
    ]


def test_drop_from_pipelined_to_cascaded_with_its_interval(tables):
    rows = {tuple(row[:4]): row[4:7] for table in tables("comparisons") for row in table[1:]}
    sides = ("test", f"nnU-Net, {CRLM}", "nnU-Net, cascaded CRLM (L+CT)")
    # Dice: 0.941, 0.941 - 0.36, and twice 0.941 - 1. Of 4^4 draws, 16 have the least mean, -0.059. From above: 1 has the mean of
    # t1 alone and 4 that of t1 t1 t1 t2 (together 1.95 %), then come 6 of t1 t1 t2 t2 (to 4.3 %): 0.761.
    assert rows[*sides, "dice"] == ["4", "+0.351", "[-0.059, +0.761]"]
    # Precision 1 - 0 in t1, where nothing is predicted, 1 - 36/164, 0, 0. From below 16 draws of 256 are 0; from above 1 and 4 draws
    # have t1 at least thrice and t2 else (1.95 %), then come 6 of t1 t1 t2 t2: 0.890.
    assert rows[*sides, "precision"] == ["4", "+0.445", "[+0.000, +0.890]"]
    # Recall 32/36 - 0, and thrice 32/36 - 1. From above: 1 draw of 256 with t1 alone, then 12 with it thrice (to 5.1 %): 0.639.
    assert rows[*sides, "recall"] == ["4", "+0.139", "[-0.111, +0.639]"]


def test_models_and_baselines_compared(tables):
    rows = {tuple(row[:4]): row[4:6] for table in tables("comparisons") for row in table[1:]}
    whole = f"whole liver, {FLR}"
    # Held out: mean of 0.9, 20/21, 0 and 20/26 minus 20/26. Cross-validation: 0.809 (of fold means 0.617 and 1) minus 20/26.
    assert rows["test", f"nnU-Net, {FLR}", whole, "dice"] == ["4", "-0.114"]
    assert rows["cv", f"nnU-Net, {FLR}", whole, "dice"] == ["4", "+0.039"]
    # The perfect cascade of "own" knows no liver: 1 - 20/26, and 1 - 3200/4124.
    assert rows["test", f"own, {CASCADED}", f"whole liver, {CASCADED}", "dice"] == ["4", "+0.231"]
    assert rows["test", f"own, {CASCADED}", f"liver minus tumour, {CASCADED}", "dice"] == ["4", "+0.224"]


def test_strata(tables):
    dice_by_spacing, nsd, volume, dice_by_tumours, *others = tables("strata")
    assert len(others) == 2 + 2 * 3, "and the tumour burden and FLR% of the truth"
    assert dice_by_spacing[0][3:] == ["<= 2.5 mm", "2.5-5 mm", "> 5 mm"]
    assert dice_by_tumours[0][3:] == ["0", "1", "2-5", "> 5"]
    spacing, tumours = ({tuple(row[:3]): row[3:] for row in t[1:]} for t in (dice_by_spacing, dice_by_tumours))
    assert spacing["test", "nnU-Net", CRLM] == ["-", "0.941 [0.941, 0.941] (n = 4)", "-"]
    assert tumours["test", "nnU-Net", CRLM] == ["-", "-", "0.941 [0.941, 0.941] (n = 4)", "-"]
    # Dice 0, 0.36, 1, 1: from below 1 + 4 draws of 256 (1.95 %), then 6 with t1 t1 t2 t2: 0.18. Above: 16 draws are all 1.
    assert tumours["test", "nnU-Net", "cascaded CRLM (L+CT)"][2] == "0.590 [0.180, 1.000] (n = 4)"
    # Means over cases, of the cross-validation, too: (0.9 + 20/21 + 0 + 1) / 4, not of fold means (0.809).
    means = {key: row[1].partition(" ")[0] for key, row in spacing.items()}
    assert means["cv", "nnU-Net", FLR] == "0.713"
    assert means["test", "nnU-Net", FLR] == "0.655"
    assert means["test", "own", CASCADED] == "1.000"
    # NSD 1, 1, 0, 0.838; volume errors of 0, 1, 10, 6 ml.
    assert {tuple(r[:3]): r[4].partition(" ")[0] for r in nsd[1:]}["test", "nnU-Net", FLR] == "0.710"
    assert {tuple(r[:3]): r[4].partition(" ")[0] for r in volume[1:]}["test", "nnU-Net", FLR] == "4.25"


def test_further_metrics(tables):
    cv, test = (next(t for t in found if t[0][1:3] == ["nnU-Net", "whole liver"]) for found in _halves(tables("further")))
    shown = {row[0]: [cell.partition(" ")[0] for cell in row[1:3]] for row in test[1:]}
    assert shown == {
        "Dice": ["0.655", "0.769"],
        "precision": ["0.811", "0.625"],
        "recall": ["0.725", "1.000"],
        "NSD": ["0.710", "0.838"],
        "HD95 [mm]": ["3.33", "7.50"],  # 1.25, 1.25, undefined, 7.5
        "ASSD [mm]": ["0.85", "1.67"],  # 0.595, 0.290, undefined, 1.667
        "highest Dice inside the given liver": ["1.000", "1.000"],
        "volume, reference [ml]": ["10.00", "10.00"],
        "volume, prediction [ml]": ["9.25", "16.00"],  # 10, 11, 0, 16
        "volume error [ml]": ["-0.75", "6.00"],
        "absolute volume error [ml]": ["4.25", "6.00"],
        "FLR%, reference [%]": ["63.39", "63.39"],
        "FLR%, prediction [%]": ["58.28", "100.00"],  # 63.39, 69.73, 0, 100
        "FLR% error [points]": ["-5.11", "36.61"],
        "absolute FLR% error [points]": ["26.58", "36.61"],
        **{f"FLR% on the other side of {t} %": ["0.250", "0.000"] for t in (20, 30, 40)},
        "FLR% of its own liver, prediction [%]": ["57.65", "-"],  # 62.5, 68.11, 0, 100; a true liver is nobody's own
        "FLR% of its own liver error [points]": ["-5.74", "-"],
        "absolute FLR% of its own liver error [points]": ["26.40", "-"],  # 0.89, 4.72, 63.39, 36.61
        **{f"FLR% of its own liver on the other side of {t} %": ["0.250", "-"] for t in (20, 30, 40)},
        **{f"NSD of the cut at {mm} mm": ["0.500", "0.000"] for mm in (5, 10)},  # 1, 1, 0, 0
        "HD95 of the cut [mm]": ["1.25", "-"],  # twice 1.25, twice no cut
        "mean distance of the cut [mm]": ["1.25", "-"],
        "tumour to cut, reference [mm]": ["2.50", "2.50"],
        "tumour to cut, prediction [mm]": ["0.83", "0.00"],  # 1.25, 1.25, no cut, left in the remnant
        "tumour to cut, error [mm]": ["-1.67", "-2.50"],
        "tumour to cut, absolute error [mm]": ["1.67", "2.50"],
        "tumour in the FLR, reference [ml]": ["0.00", "0.00"],
        "tumour in the FLR, prediction [ml]": ["0.06", "0.23"],  # 0, 0, 0, 36 voxels
        "missed cases": ["1", "0"],
    }
    of_test, of_cv = ({row[0]: row[1] for row in t[1:]} for t in (test, cv))
    # Of 27 draws of three values 1 has the least and 1 the most alone (3.7 % each): the interval is the range.
    # The miss counts as the diagonal of 60 x 20 x 25 mm, 68.01 mm: medians of 0.290, 0.595, 1.667 and of 1.25, 1.25, 7.5 with it.
    assert of_test["ASSD [mm]"] == "0.85 [0.29, 1.67] (n = 3, 1u), med. 1.13, pen. 17.64"
    assert of_test["HD95 [mm]"] == "3.33 [1.25, 7.50] (n = 3, 1u), med. 4.38, pen. 19.50"
    # Fold means 0.442 and 0 mm; -3 and 0 ml; 44.37 and 63.39 %. A fold of one case gives no interval.
    assert of_cv["ASSD [mm]"].startswith("0.22 - (n = 3, 1u), med. 0.44, pen. 11.48")  # (0.595 + 0.290 + 68.007) / 3 / 2
    assert of_cv["volume error [ml]"].startswith("-1.50 - (n = 4), med. ")
    assert of_cv["FLR%, prediction [%]"].startswith("53.88 - (n = 4), med. ")
    assert of_cv["FLR% on the other side of 20 %"].startswith("0.167 - (n = 4), med. ")


def _halves(found):
    """The cross-validation's three tables (liver, CRLM, FLR), and those of the held-out cases."""
    assert len(found) == 3 + 5
    return found[:3], found[3:]
