"""A work folder's models against the split: what they were trained on, and as which part their cases were predicted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flrplan.errors import SettingsError
from flrplan.evaluation import COLUMNS
from flrplan.evaluation.trained import model_folders, require_unseen
from flrplan.evaluation.variants import variants_of
from flrplan.workfolder import RUN_NAME, Split

FOLDS, TEST = [["a1", "a2"], ["b1"]], ["t1", "t2"]
TRAIN = [["b1"], ["a1", "a2"]]
"""What each fold is trained on."""


class Work:
    """A small work folder with one architecture, one column, and what its two models say of their training."""

    def __init__(self, bench, command) -> None:
        self.bench, self.command = bench, command
        for case in ("a1", "a2", "b1", "t1", "t2"):
            bench.label(case)
            bench.predict("nnunet", "pipelined_flr", case, bench.FLR)
        bench.split(FOLDS, TEST)
        for fold, ids in enumerate(TRAIN):
            self.trained(fold, ids)

    def trained(self, fold: int, ids: list[str] | None, stage: str = "flr", **more: object) -> None:
        folder = self.bench.root / "models" / stage / "nnunet" / f"fold_{fold}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / RUN_NAME).write_text("{}" if ids is None else json.dumps({"train_ids": ids, **more}))

    def predicted(self, part: str, cases: list[str], **more: object) -> None:
        path = self.bench.root / "predicted" / "nnunet" / f"{part}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"mirroring": False, "cases": cases, **more}))

    def evaluate(self, *more: str) -> int:
        others = [word for c in COLUMNS if c != "pipelined_flr" for word in ("--absent", c)]
        out = str(self.bench.out)
        return self.command(["--work", str(self.bench.root), "--out", out, "--workers", "1", *others, *more])

    def tables(self) -> list[str]:
        return [(self.bench.out / name).read_text() for name in ("table1.md", "table2.md", "report.html")]


@pytest.fixture
def work(bench, command) -> Work:
    return Work(bench, command)


def test_models_that_saw_nothing_they_predict_pass_without_a_word(work):
    work.predicted("held-out", TEST)
    assert work.evaluate() == 0
    assert not any("NOT CHECKED" in text for text in work.tables())


def test_a_model_trained_on_held_out_cases_is_refused_by_name(work, capsys):
    work.trained(1, ["a1", "a2", "t2"], stage="crlm")
    assert work.evaluate() == 1
    error = capsys.readouterr().err
    assert "models/crlm/nnunet/fold_1: this model of stage crlm was trained on held-out cases: t2\n" in error
    assert "splits.json does not go with the models" in error
    assert not work.bench.out.exists()


def test_a_model_trained_on_its_own_fold_is_refused(work, capsys):
    work.trained(0, ["b1", "a2"])
    assert work.evaluate() == 1
    assert "flr/nnunet/fold_0: this model of stage flr was trained on cases of its own fold: a2\n" in capsys.readouterr().err


def test_what_the_starting_weights_had_learned_counts_as_well(work, capsys):
    work.trained(1, ["a1", "a2"], inherited_train_ids=["t1"])
    assert work.evaluate() == 1
    assert "flr/nnunet/fold_1: this model of stage flr was trained on held-out cases: t1\n" in capsys.readouterr().err


def test_predictions_of_one_fold_are_not_presented_as_the_ensembles(work, capsys, tmp_path):
    other = tmp_path / "other.json"
    other.write_text(json.dumps({"test": ["a1", "a2"], "folds": [["t1", "t2"], ["b1"]]}))
    assert work.evaluate("--splits", str(other)) == 1
    error = capsys.readouterr().err
    assert "fold_1: this model of stage flr was trained on held-out cases: a1, a2\n" in error
    assert "other.json does not go with" in error


def test_the_record_of_the_predictions_tells_it_where_the_models_lie_elsewhere(work, capsys, tmp_path):
    (work.bench.root / "models").rename(tmp_path / "elsewhere")
    for part, cases in (("fold-0", FOLDS[0]), ("fold-1", FOLDS[1]), ("held-out", TEST)):
        work.predicted(part, cases)
    assert work.evaluate() == 0
    assert "NOT CHECKED" not in work.tables()[0], "predict.py checked them against these parts"
    other = tmp_path / "other.json"
    other.write_text(json.dumps({"test": ["a1", "a2"], "folds": [["t1", "t2"], ["b1"]]}))
    assert work.evaluate("--splits", str(other)) == 1
    assert "fold-0.json: predicted as fold-0, but the split has them as held-out: a1, a2\n" in capsys.readouterr().err


def test_models_that_record_nothing_are_named_over_every_table(work, tmp_path):
    work.trained(1, None)
    work.predicted("held-out", TEST, unrecorded=["liver/fold_0"])
    assert work.evaluate() == 0
    for text in work.tables():
        assert "NOT CHECKED" in text
        assert "nnunet/flr/fold_1, nnunet/liver/fold_0." in text
    assert json.loads((work.bench.out / "summary.json").read_text())["unrecorded_models"] == [
        "nnunet/flr/fold_1",
        "nnunet/liver/fold_0",
    ]
    (work.bench.root / "models").rename(tmp_path / "elsewhere")
    assert work.evaluate() == 0
    assert "nnunet/flr, nnunet/liver/fold_0." in work.tables()[0]


def test_a_damaged_record_is_named(work, capsys):
    (work.bench.root / "models" / "flr" / "nnunet" / "fold_0" / RUN_NAME).write_text("{")
    assert work.evaluate() == 1
    assert "fold_0/run.json is damaged" in capsys.readouterr().err


def test_the_current_version_of_a_model_counts(tmp_path: Path) -> None:
    model = tmp_path / "models" / "flr" / "nnunet"
    for version, ids in ((model, ["a"]), (model / "versions" / "1", ["b"])):
        (version / "fold_0").mkdir(parents=True)
        (version / "fold_0" / RUN_NAME).write_text(json.dumps({"train_ids": ids, "variant": {"name": ids[0]}}))
    assert model_folders(tmp_path, "*", "nnunet") == [("flr", model / "fold_0")]
    (model / "current").write_text("1")
    assert model_folders(tmp_path, "flr", "nnunet") == [("flr", model / "versions" / "1" / "fold_0")]
    assert variants_of(tmp_path, ["nnunet"]) == {"nnunet": ({"name": "b"},)}
    with pytest.raises(SettingsError, match=r"versions/1/fold_0: this model of stage flr was trained on held-out cases: b"):
        require_unseen(tmp_path, {("nnunet", "cascaded_flr"): {}}, Split((("c",),), ("b",)), tmp_path / "splits.json")
