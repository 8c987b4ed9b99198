"""Arrows point one way: only app imports monailabel, only nnunet imports nnU-Net, planning and metrics never load torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import flrplan

PACKAGE = Path(flrplan.__file__).parent


def imported_modules(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


def files_outside(part: str) -> list[Path]:
    return [p for p in PACKAGE.rglob("*.py") if p.relative_to(PACKAGE).parts[0] != part]


@pytest.mark.parametrize(("library", "part"), [("monailabel", "app"), ("nnunetv2", "nnunet"), ("playwright", "demo")])
def test_a_host_is_imported_by_one_part_only(library: str, part: str) -> None:
    guilty = [
        str(p.relative_to(PACKAGE)) for p in files_outside(part) if any(m.split(".")[0] == library for m in imported_modules(p))
    ]
    assert guilty == []
    assert any(m.split(".")[0] == library for p in (PACKAGE / part).rglob("*.py") for m in imported_modules(p))


def test_the_guard_of_programs_is_a_script_of_the_standard_library_alone() -> None:
    assert {m.split(".")[0] for m in imported_modules(PACKAGE / "demo" / "ohif" / "guard.py")} <= sys.stdlib_module_names


BELOW = [
    "labels", "geometry", "orientation", "io", "stages", "stage_input", "errors", "cohort", "qc", "planning", "metrics", "networks",
    "input_masks", "gpu_pool", "probabilities", "instances",
]  # fmt: skip


@pytest.mark.parametrize("part", BELOW)
def test_lower_layers_do_not_know_the_higher_ones(part: str) -> None:
    higher = {f"flrplan.{name}" for name in ("nnunet", "models", "cascade", "app", "commands", "cli", "demo", "refinement")}
    folder = PACKAGE / part
    for path in folder.rglob("*.py") if folder.is_dir() else [folder.with_suffix(".py")]:
        for module in imported_modules(path):
            assert ".".join(module.split(".")[:2]) not in higher, f"{path.relative_to(PACKAGE)} imports {module}"


def test_planning_metrics_and_workflow_do_not_load_torch() -> None:
    modules = "flrplan.planning.plan, flrplan.metrics, flrplan.input_masks, flrplan.cohort, flrplan.workflow.jobs, flrplan.workflow.engine, flrplan.gpu_pool, flrplan.probabilities"
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=120).returncode == 0


def test_yaml_of_people_is_read_in_one_place() -> None:
    """``io.text`` takes the marks of Windows and refuses doubled keys; the paper's tables are a file of the package itself."""
    readers = {p.relative_to(PACKAGE).as_posix() for p in PACKAGE.rglob("*.py") if "yaml" in imported_modules(p)}
    assert readers == {"io/text.py", "evaluation/paper.py"}
