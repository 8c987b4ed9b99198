"""What two processes that train together do, written as JSON per rank; run under torchrun by test_distributed.py."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from torch import distributed

from flrplan.method import FLR, Recipe
from flrplan.nnunet.model.checkpoint import weights_sha256
from flrplan.nnunet.train import FlrTrainer, train_fold
from flrplan.nnunet.train.distributed import process_group
from flrplan.nnunet.train.training_run import StageWork

CHECKED: dict[str, object] = {}


def check_gradient(trainer: FlrTrainer, batch: dict[str, object]) -> None:
    """Compares the averaged gradient of a step with that of both processes' patches in one batch."""
    parts: list[dict[str, object]] = [{}, {}]
    distributed.all_gather_object(parts, {"data": batch["data"], "target": batch["target"]})
    data = torch.cat([part["data"] for part in parts])
    target = [torch.cat(level) for level in zip(*(part["target"] for part in parts), strict=True)]
    network = trainer.network.module
    trainer.optimizer.zero_grad()
    trainer.loss(trainer.network(batch["data"]), batch["target"]).backward()
    averaged = [p.grad.clone() for p in network.parameters()]
    trainer.optimizer.zero_grad()
    trainer.loss(network(data), target).backward()
    apart = max(float((a - p.grad).abs().max()) for a, p in zip(averaged, network.parameters(), strict=True))
    largest = max(float(p.grad.abs().max()) for p in network.parameters())
    CHECKED.update(apart=apart, largest=largest, batch=len(batch["data"]), first=float(batch["data"].sum()))


def main() -> None:
    work, models, out = (Path(word) for word in sys.argv[1:4])
    recipe = Recipe.from_mapping(json.loads((work / "recipe.json").read_text()))
    reports: list[int] = []
    step, close = FlrTrainer.train_step, FlrTrainer.close

    def first_step(self: FlrTrainer, batch: dict[str, object]) -> dict[str, object]:
        if not CHECKED:
            check_gradient(self, batch)
        return step(self, batch)

    def last(self: FlrTrainer) -> None:
        CHECKED.update(weights=weights_sha256(self.plain_weights()), rank=self.local_rank, device=str(self.device))
        close(self)

    FlrTrainer.train_step, FlrTrainer.close = first_step, last  # type: ignore[method-assign]
    with process_group(torch.device("cpu")) as device:
        train_fold(StageWork(work, FLR), 0, recipe, models, device, on_epoch=lambda report: reports.append(report.epoch))
    (out / f"rank{CHECKED['rank']}.json").write_text(json.dumps({**CHECKED, "reports": reports}))


if __name__ == "__main__":
    main()
