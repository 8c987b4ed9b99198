"""Checkpoints hold tensors and plain values, are written whole or not at all, and never run code when opened."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from flrplan.errors import ModelError, OutputError
from flrplan.nnunet.model import load_checkpoint, write_checkpoint
from flrplan.nnunet.model.checkpoint import published_content, weights_sha256


class RunsCode:
    """What a malicious checkpoint does: a pickle that calls a function."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.target),)


def test_published_checkpoint_is_plain_and_half_the_size() -> None:
    shared = torch.arange(6.0).reshape(2, 3)
    weights = {"encoder.w": shared, "decoder.encoder.w": shared, "steps": torch.tensor(3)}
    content = published_content(weights, "3d_fullres", 1, (), half=True)
    assert set(content) == {"network_weights", "trainer_name", "init_args", "inference_allowed_mirroring_axes"}
    assert content["trainer_name"] == "nnUNetTrainer"
    assert content["inference_allowed_mirroring_axes"] is None
    half = content["network_weights"]
    assert half["encoder.w"].dtype == torch.float16
    assert half["encoder.w"].data_ptr() == half["decoder.encoder.w"].data_ptr(), "shared weights are stored once"
    assert half["steps"].dtype == torch.int64


def test_code_in_a_checkpoint_is_refused_and_not_run(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint_final.pth"
    torch.save({"network_weights": {}, "evil": RunsCode(tmp_path / "was_run")}, path)
    with pytest.raises(ModelError, match="could run code"):
        load_checkpoint(path)
    assert not (tmp_path / "was_run").exists()


def test_numpy_scalars_of_nnunet_are_allowed(tmp_path: Path) -> None:
    path = tmp_path / "foreign.pth"
    log = {"ema": [np.float64(0.5)], "losses": [np.float32(1.25), np.array([1.0, 2.0])]}
    torch.save({"network_weights": {"w": torch.ones(2)}, "logging": log, "device": torch.device("cpu")}, path)
    assert load_checkpoint(path)["logging"]["ema"] == [0.5]


def test_random_bytes_are_a_clear_error(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for number in range(60):
        path = tmp_path / "x.pth"
        path.write_bytes(generator.bytes(int(generator.integers(1, 300))) if number % 2 else b"\x80\x02" + generator.bytes(40))
        with pytest.raises(ModelError, match=r"x\.pth"):
            load_checkpoint(path)


def test_truncated_and_missing_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint_final.pth"
    write_checkpoint(path, {"network_weights": {"w": torch.ones(1000)}})
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(ModelError, match=r"checkpoint_final\.pth is damaged"):
        load_checkpoint(path)
    with pytest.raises(ModelError, match="is missing"):
        load_checkpoint(tmp_path / "nothing.pth")
    with pytest.raises(ModelError, match="is a folder, expected a checkpoint; give the file in it"):
        load_checkpoint(tmp_path)
    with zipfile.ZipFile(tmp_path / "export.zip", "w") as archive:
        archive.writestr("Dataset/plans.json", "{}")
    with pytest.raises(ModelError, match=r"export\.zip is a zip, not a checkpoint; unpack it .*flrplan models import"):
        load_checkpoint(tmp_path / "export.zip")


def test_a_failed_write_keeps_the_previous_file(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint_final.pth"
    write_checkpoint(path, {"value": 1})

    class FailsHalfway:
        def __reduce__(self) -> None:
            raise OSError(28, "No space left on device")

    with pytest.raises(OutputError, match="check that the disk has room"):
        write_checkpoint(path, {"value": 2, "x": FailsHalfway()})
    assert load_checkpoint(path) == {"value": 1}
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_digest_depends_on_names_and_values() -> None:
    one = weights_sha256({"a": torch.ones(2), "b": torch.tensor(1)})
    assert one == weights_sha256({"b": torch.tensor(1), "a": torch.ones(2)})
    assert one != weights_sha256({"a": torch.zeros(2), "b": torch.tensor(1)})
    assert one != weights_sha256({"c": torch.ones(2), "b": torch.tensor(1)})
