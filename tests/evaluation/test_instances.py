"""Lesions of the truth told apart: in the metrics, in every table that names lesions, and where they cannot be used.

Lesion A of 2 x 4 x 4 voxels is cut between its slices into lesions 4 and 7 of 16 voxels each, which touch; B (4 voxels) is lesion 9.
"""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from flrplan.evaluation import EvaluationSettings
from flrplan.evaluation.run import find


@pytest.fixture
def told(bench):
    """t1 with instances and t2 without; both predicted perfectly, as components."""
    for case in ("t1", "t2"):
        bench.label(case)
        bench.predict("nnunet", "pipelined_crlm", case, bench.CRLM)
    bench.split([], ["t1", "t2"])
    write_layer(bench)
    return bench


def write_layer(bench, case="t1", folder="instances", extra=()):
    layer = np.zeros(bench.CRLM.shape, np.uint8)
    layer[bench.LESION_A] = 4
    layer[4][bench.LESION_A[4]] = 7
    layer[bench.LESION_B] = 9
    for place in extra:
        layer[place] = 12
    return bench.write(bench.root / folder / case / "layer1.nii.gz", layer)


def rows(path):
    return list(csv.DictReader(path.open()))


def test_lesion_metrics_are_of_the_instances_where_there_are_some(told, command):
    assert command(told.arguments("--instances", str(told.root / "instances"))) == 0
    by_case = {row["case"]: row for row in rows(told.out / "cases.csv")}
    assert {c: (r["lesions_from"], r["tumours"]) for c, r in by_case.items()} == {
        "t1": ("instances", "3"),
        "t2": ("components", "2"),
    }
    # t1: component A has an IoU of 16 / 32 with lesions 4 and 7, B one of 1 with 9. At > 0.1 two of three are found: SQ 0.75, RQ 4/5.
    names = [
        "lesions_reference",
        "lesions_predicted",
        "lesion_recall_iou10",
        "lesion_f1_iou10",
        "lesion_sq_iou10",
        "lesion_pq_iou10",
    ]
    assert [float(by_case["t1"][n]) for n in names] == pytest.approx([3, 2, 2 / 3, 0.8, 0.75, 0.6])
    assert [float(by_case["t1"][f"lesion_{n}_iou50"]) for n in ("recall", "sq", "pq")] == pytest.approx([1 / 3, 1.0, 0.4])
    assert [float(by_case["t2"][n]) for n in names] == pytest.approx([2, 2, 1, 1, 1, 1])
    lesions = [r for r in rows(told.out / "lesions.csv") if r["case"] == "t1"]
    found = [(r["side"], r["lesion"], float(r["iou"]), r["found_iou10"], r["found_iou50"], r["covered"]) for r in lesions]
    assert found == [
        ("reference", "4", 0.5, "1", "0", "1"),
        ("reference", "7", 0.0, "0", "0", "1"),
        ("reference", "9", 1.0, "1", "1", "1"),
        ("prediction", "1", 0.5, "1", "0", ""),
        ("prediction", "2", 1.0, "1", "1", ""),
    ]
    summary = json.loads((told.out / "summary.json").read_text())
    assert summary["lesions_from"]["test"] == {"instances": ["t1"], "components": ["t2"]}
    counts = summary["lesions"]["test"]["nnunet"]["pipelined_crlm"]["iou10"]["<10 mm"]
    assert (counts["reference"], counts["found"], counts["missed_but_covered"]) == (5, 4, 1)
    report = " ".join((told.out / "report.html").read_text().split())
    assert "told apart by the source of the labels in 1 cases, 26-connected components in 1" in report
    assert "4 of 5 (1 covered), 0 false" in report


def test_instances_of_other_labels_are_refused_by_name_or_left_for_components(told, command, capsys):
    write_layer(told, extra=[(0, 0, 0)])
    arguments = told.arguments("--instances", str(told.root / "instances"))
    assert command(arguments) == 1
    said = capsys.readouterr().err
    assert "broken instances: t1" in said
    assert "its lesions together differ from the CRLM of" in said
    assert "in 1 voxels" in said
    assert command([*arguments, "--allow-missing"]) == 0
    lines = rows(told.out / "cases.csv")
    assert [r["lesions_from"] for r in lines if r["status"] == "scored"] == ["components"] * 2
    assert [r["case"] for r in lines if r["status"] == "broken instances"] == ["t1"]


def test_a_work_folder_has_its_own_and_other_labels_do_not_take_them(told):
    def layers(**given):
        found, _, _ = find(EvaluationSettings(work=told.root, **given))
        return [[p.name for p in case.label.instances] for case in found.cases]

    assert layers() == [["layer1.nii.gz"], []]
    assert layers(labels=told.labels) == [[], []]
    assert layers(labels=told.labels, instances=told.root / "instances") == [["layer1.nii.gz"], []]


def test_folders_that_tell_nothing_are_refused(told, command, capsys):
    assert command(told.arguments("--instances", str(told.root / "elsewhere"))) == 1
    assert "elsewhere: no such folder of instances" in capsys.readouterr().err
    (told.root / "elsewhere/t9").mkdir(parents=True)
    assert command(told.arguments("--instances", str(told.root / "elsewhere"))) == 1
    assert "no instances of any labelled case; expected <case>/layer1.nii.gz" in capsys.readouterr().err
