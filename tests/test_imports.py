"""The contracts of pyproject.toml (import-linter) are kept, and what they cannot see: what is loaded at run time."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import flrplan

PACKAGE = Path(flrplan.__file__).parent
CONFIG = Path(__file__).parents[1] / "pyproject.toml"


def lint_imports(source_root: Path) -> subprocess.CompletedProcess[str]:
    """``lint-imports`` on the package in a folder; not in this process, since it would turn off the loggers of the other tests."""
    return subprocess.run(
        [sys.executable, "-c", f"import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports({str(CONFIG)!r}, no_cache=True))"],
        check=False, timeout=120, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(source_root)},
    )  # fmt: skip


def test_the_contracts_between_packages_are_kept() -> None:
    done = lint_imports(PACKAGE.parent)
    assert done.returncode == 0, done.stdout


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the package whose files may be changed."""
    return Path(shutil.copytree(PACKAGE, tmp_path / PACKAGE.name, ignore=shutil.ignore_patterns("__pycache__")))


def test_every_contract_is_broken_by_what_it_forbids(copy: Path) -> None:
    others = "flrplan.commands, flrplan.cohort, flrplan.workflow, monailabel, nnunetv2, playwright, yaml, torch"
    (copy / "metrics" / "__init__.py").write_text(f"import {others}\n", encoding="utf-8")
    contracts = tomllib.loads(CONFIG.read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
    assert f"Contracts: 0 kept, {len(contracts)} broken." in lint_imports(copy.parent).stdout


def test_a_new_module_needs_a_layer(copy: Path) -> None:
    (copy / "loose.py").touch()
    done = lint_imports(copy.parent)
    assert done.returncode == 1
    assert "loose" in done.stdout


def imported_modules(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


def test_the_guard_of_programs_is_a_script_of_the_standard_library_alone() -> None:
    assert {m.split(".")[0] for m in imported_modules(PACKAGE / "demo" / "ohif" / "guard.py")} <= sys.stdlib_module_names


def test_what_computes_no_network_loads_no_torch() -> None:
    parts = (
        "planning.plan", "metrics", "qc.liver_in_view", "input_masks", "cohort", "evaluation.run", "preparation.run", "workflow.jobs",
        "workflow.engine", "gpu_pool", "probabilities",
    )  # fmt: skip
    code = f"import sys, {', '.join(f'flrplan.{part}' for part in parts)}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=120).returncode == 0
