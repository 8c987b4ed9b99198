"""What the models started from and how much they see stands over the tables; a claim about other weights is not testable."""

from __future__ import annotations

import json

import pytest

from flrplan.evaluation import COLUMNS, Part, provenance
from flrplan.evaluation.claims import Status, check_claims
from flrplan.evaluation.paper import ARCHITECTURE_TITLES, paper_value
from flrplan.evaluation.provenance import NOT_RECORDED, RANDOM, ModelRecord, model_records
from flrplan.nnunet.prepare import CONFIGURATION

OFFICIAL = {"source": "base_ep4k.model", "sha256": "0123456789abcdef"}
UNLIKE = "started from random weights, the paper's from its authors' published ones"


class Work:
    """A work folder in which nnU-Net and STU-Net have one column and the models of one stage."""

    def __init__(self, bench, command) -> None:
        self.bench, self.command = bench, command
        for case in bench.ALL:
            bench.label(case)
            for architecture in ("nnunet", "stunet"):
                bench.predict(architecture, "pipelined_flr", case, bench.FLR)
        bench.split(bench.FOLDS, bench.TEST)

    def trained(self, architecture: str, fold: int, **run: object) -> None:
        folder = self.bench.root / "models" / "flr" / architecture / f"fold_{fold}"
        folder.mkdir(parents=True, exist_ok=True)
        train = [case for k, ids in enumerate(self.bench.FOLDS) if k != fold for case in ids]
        (folder / "run.json").write_text(json.dumps({"train_ids": train, **run}))

    def planned(self, architecture: str, patch: list[int], spacing: list[float], **plans: object) -> None:
        plan = {"patch_size": patch, "spacing": spacing}
        path = self.bench.root / "models" / "flr" / architecture / "plans.json"
        path.write_text(json.dumps({"configurations": {"3d_fullres": plan}, **plans}))

    def evaluate(self) -> dict:
        others = [word for c in COLUMNS if c != "pipelined_flr" for word in ("--absent", c)]
        words = ["--work", str(self.bench.root), "--out", str(self.bench.out), "--workers", "1", *others]
        assert self.command(words) == 0
        return json.loads((self.bench.out / "summary.json").read_text())


@pytest.fixture
def work(bench, command) -> Work:
    return Work(bench, command)


def test_the_start_and_the_field_of_view_stand_over_both_tables_and_in_the_report(work):
    for fold in (0, 1):
        work.trained("nnunet", fold, pretrained=None)
        work.trained("stunet", fold, pretrained=OFFICIAL)
    work.planned("nnunet", [48, 192, 224], [2.5, 0.78125, 0.78125], transpose_backward=[0, 1, 2])
    work.planned("stunet", [128, 128, 64], [0.75, 0.75, 2.0], transpose_backward=[2, 0, 1])  # planned with z last
    summary = work.evaluate()
    for text in work.bench.tables():
        assert "Started from: nnU-Net: random weights | STU-Net: base_ep4k.model (SHA-256 0123456789ab)." in text
        # 48 x 2.5, 192 x 0.78125, 224 x 0.78125; 64 x 2, 128 x 0.75 twice
        assert "(patch times spacing, z x y x x in mm): nnU-Net 120 x 150 x 175; STU-Net 128 x 96 x 96." in text
    listed = (work.bench.out / "checklist.md").read_text()
    assert "| initial weights | Started from: nnU-Net: random weights \\| STU-Net: base_ep4k.model" in listed
    assert "| ensembling | mean logits of the folds on held-out cases" in listed
    assert "checked against the ids that trained them; without such a record: none" in listed
    assert summary["models"]["stunet"] == {
        "started_from": {"base_ep4k.model (SHA-256 0123456789ab)": ["flr/fold_0", "flr/fold_1"]},
        "unlike_paper": None,
        "field_of_view_mm": {"flr": [128.0, 96.0, 96.0]},
    }


def test_folds_that_disagree_and_a_start_that_is_not_the_papers_are_said(work):
    work.trained("nnunet", 0, pretrained={"source": "checkpoint_final.pth", "sha256": "f" * 64}, inherited_train_ids=["x", "y"])
    work.trained("nnunet", 1)
    work.trained("stunet", 0, pretrained=OFFICIAL)
    work.trained("stunet", 1, pretrained=None)
    work.evaluate()
    for text in work.bench.tables()[:2]:
        assert (
            "nnU-Net: MODELS DIFFER: checkpoint_final.pth (SHA-256 ffffffffffff, trained on 2 cases of ours) (flr: fold_0); "
            "not recorded (flr: fold_1) [UNLIKE THE PAPER: started from checkpoint_final.pth" in text
        )
        assert "base_ep4k.model (SHA-256 0123456789ab) (flr: fold_0); random weights (flr: fold_1)" in text
        assert f"[UNLIKE THE PAPER: {UNLIKE}]" in text


def test_where_the_models_lie_elsewhere_the_record_of_the_predictions_tells_it(work):
    path = work.bench.root / "predicted" / "stunet" / "held-out.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"cases": work.bench.TEST, "started_from": {"flr/fold_0": RANDOM, "flr/fold_1": RANDOM}}))
    work.evaluate()
    assert f"nnU-Net: not recorded | STU-Net: random weights [UNLIKE THE PAPER: {UNLIKE}]." in work.bench.tables()[0]


def test_of_predictions_from_elsewhere_nothing_is_known(whole, command):
    assert command(whole.arguments()) == 0
    assert all("Started from: nnU-Net: not recorded." in text for text in whole.tables())
    assert all("Field of view" not in text for text in whole.tables())


def test_a_damaged_plan_is_named(work, capsys):
    work.trained("nnunet", 0, pretrained=None)
    (work.bench.root / "models" / "flr" / "nnunet" / "plans.json").write_text("[]")
    with pytest.raises(AssertionError):
        work.evaluate()
    assert "flr/nnunet/plans.json is damaged: expected a JSON object" in capsys.readouterr().err


def paper_summary() -> dict:
    summary: dict = {part: {a: {} for a in ARCHITECTURE_TITLES} for part in ("cv", "test")}
    for part in Part:
        for a in ARCHITECTURE_TITLES:
            for column in COLUMNS:
                if value := paper_value(part, a, column, "dice"):
                    summary[part.value][a][column] = {
                        "dice": {"mean": value[0], "compared_mean": value[0], "std": value[1], "n": 40, "standing": "undecided"}
                    }
    return summary


def verdicts(*models: ModelRecord):
    return {verdict.claim: verdict for verdict in check_claims(paper_summary(), [], models)}


def test_a_claim_about_the_pretrained_stunet_is_not_testable_with_another_one():
    before = verdicts(ModelRecord("stunet", {"base_ep4k.model": ("liver/fold_0",)}))
    after = verdicts(ModelRecord("stunet", {RANDOM: ("liver/fold_0",)}))
    for claim, verdict in after.items():
        if "STU-Net" in claim:
            assert verdict.status is Status.NOT_TESTABLE
            assert verdict.evidence.startswith(f"STU-Net {UNLIKE}. Its numbers here: ")
        else:
            assert verdict.status is before[claim].status
            assert ("STU-Net" in before[claim].evidence) == (f"(STU-Net {UNLIKE}.)" in verdict.evidence)
    assert sum("STU-Net" in claim for claim in after) >= 7


def test_a_start_that_is_not_recorded_is_said_beside_the_claim():
    known, unknown = verdicts(), verdicts(*model_records(None, ["nnunet", "stunet"]))
    claim = "STU-Net has the best CRLM segmentation."
    assert unknown[claim].status is known[claim].status
    assert "What STU-Net started from is not recorded" in unknown[claim].evidence
    assert model_records(None, ["stunet", "own"]) == (
        ModelRecord("stunet", {NOT_RECORDED: ()}),
        ModelRecord("own", {NOT_RECORDED: ()}),
    )


def test_the_name_of_the_configuration_that_is_written_twice_agrees():
    assert provenance._CONFIGURATION == CONFIGURATION
