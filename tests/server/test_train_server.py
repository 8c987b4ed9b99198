"""Retraining through the real server with MONAI Label's own client: label, train, watch, infer with the new model, stop."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from monailabel.client.client import MONAILabelClientException

from flrplan.anatomy import Compartment
from flrplan.cohort import SyntheticCase, make_case
from flrplan.engine import DEMO_NOTE
from flrplan.files import current_version

pytestmark = pytest.mark.timeout(900)

# Patches that all hold liver: a few steps are enough for a network that finds some, which an inference needs.
RECIPE = """
common:
  plan: {batch_size: 2, features: [4, 8], spacing_zyx_mm: [8, 6, 6], patch_size_zyx: [16, 24, 24], resampling: torch}
  training:
    {epochs: 2, iterations_per_epoch: 25, validation_iterations: 1, save_every: 1, learning_rate: 0.02, oversample_foreground: 1.0}
"""
LABEL_INFO = [{"name": c.label_name, "idx": int(c)} for c in Compartment]
WAIT_SECONDS = 600


@pytest.fixture(scope="module")
def six() -> list[SyntheticCase]:
    return [make_case(11, index, "small") for index in range(6)]


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory,
    six: list[SyntheticCase],
    write_image: Callable[..., Path],
    start_server: Callable[..., Any],
) -> Any:
    """A server with six images and no model of its own; every whole model is published (margin 1)."""
    folder = tmp_path_factory.mktemp("train_server")
    for case in six:
        write_image(folder / "studies" / f"{case.case_id}.nii.gz", case.hu_zyx, case.geometry)
    (folder / "models").mkdir()
    (folder / "recipe.yaml").write_text(RECIPE)
    conf = {"models": str(folder / "models"), "train_recipe": str(folder / "recipe.yaml"), "train_margin": "1", "device": "cpu"}
    return start_server(str(folder / "studies"), folder, conf)


@pytest.fixture(autouse=True)
def shown(server: Any, show_log_on_failure: Callable[[Any], None]) -> None:
    show_log_on_failure(server)


def wait(condition: Callable[[], Any]) -> Any:
    until = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < until:
        value = condition()
        if value:
            return value
        time.sleep(0.5)
    return pytest.fail("the training took too long")


def ended(server: Any) -> dict[str, Any]:
    def status() -> dict[str, Any] | None:
        task: dict[str, Any] = server.client.train_status()
        return task if task["status"] not in ("SUBMITTED", "RUNNING") else None

    found: dict[str, Any] = wait(status)
    return found


def watched(server: Any, model: str) -> tuple[dict[str, Any], list[tuple[str, int]]]:
    """The ended task, and the states and epochs that a client saw while the server said that the task was RUNNING."""
    seen: list[tuple[str, int]] = []

    def status() -> dict[str, Any] | None:
        stats = server.client.info()["train_stats"][model]
        task: dict[str, Any] = server.client.train_status()  # after the stats: if it runs now, it ran when they were read
        if task["status"] == "RUNNING":
            seen.append((stats.get("state", ""), stats.get("epoch", 0)))
        return task if task["status"] not in ("SUBMITTED", "RUNNING") else None

    task: dict[str, Any] = wait(status)
    return task, seen


def text(task: dict[str, Any]) -> str:
    return "\n".join(task["details"])


def weights(server: Any, case: SyntheticCase, model: str = "liver") -> dict[str, Any]:
    _, params = server.client.infer(model, case.case_id, {})
    return {name: m["weights_sha256"] for name, m in params["models"].items()}


def test_without_labels_the_task_says_what_to_do(server: Any) -> None:
    with pytest.raises(MONAILabelClientException) as caught:
        server.client.train_start("liver", {})
    assert "Status: 400" in caught.value.msg
    assert "no image has a final label, so nothing can be learned. Draw a structure" in caught.value.msg


def test_a_new_liver_is_trained_watched_and_served(
    server: Any, six: list[SyntheticCase], tmp_path: Path, write_image: Callable[..., Path]
) -> None:
    before = weights(server, six[0])
    for case in six:
        file = write_image(tmp_path / "label.nii.gz", case.planning_zyx, case.geometry)
        server.client.save_label(case.case_id, str(file), params={"label_info": LABEL_INFO})
    server.client.train_start("liver", {"start": "anew", "epochs": 6})
    task, seen = watched(server, "liver")
    assert task["status"] == "DONE", text(task)
    assert any(state == "training" and 1 <= epoch < 6 for state, epoch in seen), seen
    assert [epoch for _, epoch in seen] == sorted(epoch for _, epoch in seen)
    assert "epoch 6/6: loss" in text(task)
    first, stats = next(iter(server.client.info()["train_stats"].items()))
    assert first == "liver"  # 3D Slicer shows the first entry
    assert (stats["epoch"], stats["total_epochs"], stats["state"], stats["published"]) == (6, 6, "done", True)
    assert stats["best_metric"] == round(stats["holdout_dice"]["new"][next(iter(stats["holdout_dice"]["new"]))], 4)
    assert (stats["iteration"], stats["total_iterations"]) == (150, 150)
    assert stats["message"].startswith(f"published: {stats['best_metric']:.3f}, before ")
    assert '"verdict": "published: ' in text(task)
    _, params = server.client.infer("liver", six[0].case_id, {})
    assert params["models"]["liver"]["weights_sha256"] != before["liver"]
    assert params["demo_models"] is False
    assert "notice" not in params
    assert DEMO_NOTE not in params["warnings"]


def test_a_stopped_training_leaves_the_model_as_it_was(server: Any, six: list[SyntheticCase]) -> None:
    before = weights(server, six[0])
    server.client.train_start("liver", {"epochs": 5000})
    wait(lambda: server.client.info()["train_stats"]["liver"]["total_epochs"] == 5000)
    wait(lambda: server.client.info()["train_stats"]["liver"]["epoch"] >= 1)
    assert server.client.train_stop()["status"] == "STOPPED"
    wait(lambda: server.client.info()["train_stats"]["liver"]["state"] == "stopped")
    assert weights(server, six[0]) == before


def test_the_cascade_is_trained_in_order(server: Any, six: list[SyntheticCase]) -> None:
    before = weights(server, six[0])
    server.client.train_start("cascade", {"start": "anew", "epochs": 1})
    task = ended(server)
    assert task["status"] == "DONE", text(task)
    first, stats = next(iter(server.client.info()["train_stats"].items()))
    assert (first, stats["epoch"], stats["total_epochs"], stats["state"]) == ("cascade", 3, 3, "done")
    assert list(stats["stages"]) == ["liver", "crlm", "flr"]
    for stage in stats["stages"]:
        assert (current_version(server.folder / "models" / stage / "nnunet") / "published.json").is_file(), stats
    assert weights(server, six[0]) != before
    assert (server.folder / "models" / "liver" / "nnunet" / "fold_0" / "checkpoint_final.pth").is_file()
    assert not list((server.folder / "models" / ".refinement").glob("*/work"))
