"""nnU-Net's own listing of files and ours agree; ours forks nothing. Its predictor is imported without torch's compiler."""

from __future__ import annotations

import multiprocessing.context
import subprocess
import sys
from pathlib import Path

import pytest
from nnunetv2.utilities import utils

from flrplan.nnunet.environment import files_listed_in_process


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    (tmp_path / "imagesTr").mkdir()
    for name in ("b_0000", "a_0001", "a_0000", "a_1_0000", "a.b_0000"):
        (tmp_path / "imagesTr" / f"{name}.nii.gz").touch()
    (tmp_path / "imagesTr" / "a_0000.txt").touch()
    return tmp_path


def test_the_same_files_as_nnunet_without_a_process(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    described = {"file_ending": ".nii.gz"}
    theirs = utils.get_filenames_of_train_images_and_targets(str(raw), described)
    assert [Path(p).name for p in theirs["a"]["images"]] == ["a_0000.nii.gz", "a_0001.nii.gz"]

    def refuse(*_: object) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr(multiprocessing.context.ForkProcess, "_Popen", staticmethod(refuse))
    with files_listed_in_process():
        ours = utils.get_filenames_of_train_images_and_targets(str(raw), described)
    assert ours == theirs


LATER = """
import sys, torch
import flrplan.nnunet.model.predictor
assert "torch._dynamo" not in sys.modules
from nnunetv2.inference.predict_from_raw_data import OptimizedModule
plain = torch.nn.Linear(1, 1)
assert not isinstance(plain, OptimizedModule)
assert "torch._dynamo" not in sys.modules, "asking imports nothing"
import torch._dynamo
compiled = torch._dynamo.OptimizedModule(plain, torch._dynamo.disable)
assert isinstance(compiled, OptimizedModule) and not isinstance(plain, OptimizedModule)
"""
OTHER_THREAD = """
import sys, torch
from flrplan.nnunet.environment import without_compiler
with without_compiler():
    from torch._dynamo import OptimizedModule
    assert "sympy" not in sys.modules
    import torch._dynamo
    torch._dynamo.reset()  # what a thread beside the import may ask for
assert torch._dynamo is sys.modules["torch._dynamo"] and isinstance(OptimizedModule, type)
"""


@pytest.mark.parametrize("script", [LATER, OTHER_THREAD])
def test_nnunet_is_imported_without_the_compiler_and_still_knows_a_compiled_network(script: str) -> None:
    done = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
