"""``flrplan train-many`` hands every training on whole, and a failed one is not taken for a success."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import pytest
import torch

from flrplan.cli import build_parser, main
from flrplan.files import write_json
from flrplan.networks import SCRATCH


@pytest.mark.parametrize("status", [0, 3])
def test_several_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], status: int
) -> None:
    """What torchrun's processes are given is the whole ``flrplan train``; the first that fails ends the command."""
    launched: list[tuple[int, str, list[str]]] = []

    def launch(processes: int, device: torch.device, words: Sequence[str]) -> int:
        launched.append((processes, device.type, list(words)))
        return status

    monkeypatch.setattr("flrplan.nnunet.train.distributed.launch", launch)
    write_json(tmp_path / "splits.json", {"test": [], "folds": [["a"], ["b"]]})
    trainings = ["--training", "liver/nnunet/0", "--training", "flr/stunet/1", "--pretrained", "stunet=base_ep4k.model"]
    places = ["--split", str(tmp_path / "splits.json"), "--work", str(tmp_path / "work"), "--models", str(tmp_path / "models")]
    given = ["--cases", str(tmp_path), "--gpus", "2", "--device", "cpu"]
    assert main(["train-many", *trainings, *places, "--", *given]) == (1 if status else 0)
    assert len(launched) == (1 if status else 2)
    for (processes, device, words), (stage, architecture, fold, start) in zip(
        launched, [("liver", "nnunet", 0, None), ("flr", "stunet", 1, Path("base_ep4k.model"))], strict=False
    ):
        assert (processes, device) == (2, "cpu")
        arguments = build_parser(["train"]).parse_args(words)
        assert (arguments.stage, arguments.architecture, arguments.fold) == (stage, architecture, [fold])
        assert (arguments.cases, arguments.work, arguments.models) == (tmp_path, tmp_path / "work", tmp_path / "models")
        assert (arguments.gpus, arguments.device, arguments.pretrained) == (2, "cpu", start)
    message = (
        "flrplan train-many: liver/nnunet/0 (1 of 2): its processes ended with status 3; their error stands above. Mend it and"
    )
    assert (message in capsys.readouterr().err) == bool(status)


@pytest.mark.parametrize(
    ("recorded", "asked", "there"),
    [
        (None, "weights", "random weights"),
        ({"source": "base_ep4k.model", "sha256": "0"}, "weights", "base_ep4k.model"),
        ({"source": "base_ep4k.model", "sha256": "0"}, SCRATCH, "base_ep4k.model"),
    ],
)
def test_a_model_that_started_from_something_else_is_not_kept_in_silence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], recorded: dict[str, str] | None, asked: str, there: str
) -> None:
    (tmp_path / "weights").write_bytes(b"weights")
    folder = tmp_path / "models" / "liver" / "stunet" / "fold_0"
    folder.mkdir(parents=True)
    (folder / "checkpoint_final.pth").touch()
    run = {"train_ids": ["b"], "validation_ids": ["a"]}
    write_json(tmp_path / "splits.json", {"test": [], "folds": [["a"], ["b"]]})
    places = ["--split", str(tmp_path / "splits.json"), "--work", str(tmp_path / "work"), "--models", str(tmp_path / "models")]
    start = asked if asked == SCRATCH else str(tmp_path / asked)
    words = ["train-many", "--training", "liver/stunet/0", *places, "--pretrained", f"stunet={start}"]
    write_json(folder / "run.json", {**run, "pretrained": recorded})
    assert main(words) == 1
    assert f"the model there (started from {there}) was made of something else (start was" in capsys.readouterr().err
    own = None if asked == SCRATCH else {"source": "weights", "sha256": sha256(b"weights").hexdigest()}
    write_json(folder / "run.json", {**run, "pretrained": own})
    assert main(words) == 0
