"""The contracts of pyproject.toml (import-linter) are kept, and what they cannot see: what is loaded at run time."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

import bench_start
import flrplan

PACKAGE = Path(flrplan.__file__).parent
CONFIG = Path(__file__).parents[1] / "pyproject.toml"
LAZY = [
    ".".join(path.relative_to(PACKAGE.parent).parent.parts)
    for path in sorted(PACKAGE.rglob("__init__.py"))
    if "import_at_first_use(" in path.read_text(encoding="utf-8")
]
"""Packages whose names are loaded when they are first asked for."""


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
    (copy / "nnunet" / "model" / "__init__.py").write_text("import flrplan.nnunet.train\n", encoding="utf-8")
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


def test_the_package_does_not_go_through_its_own_front_door() -> None:
    """The contracts see only that it is imported, not what is taken from it, which may be the version."""
    taken = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module == PACKAGE.name:
                taken |= {(path.name, alias.name) for alias in node.names}
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == PACKAGE.name:
                taken.add((path.name, node.attr))
    assert not [(path, name) for path, name in taken if name in flrplan.__all__]
    assert ("plan.py", "__version__") in taken


def test_the_guard_of_programs_is_a_script_of_the_standard_library_alone() -> None:
    assert {m.split(".")[0] for m in imported_modules(PACKAGE / "demo" / "ohif" / "guard.py")} <= sys.stdlib_module_names


def test_what_computes_no_network_loads_no_torch() -> None:
    parts = (
        "planning.plan", "planning.objects", "metrics", "qc.run", "qc.liver_in_view", "input_masks", "cohort.write", "evaluation.run", "preparation.run", "workflow.jobs",
        "workflow.engine", "hardware.gpu_pool", "method.probabilities",
    )  # fmt: skip
    code = f"import sys, {', '.join(f'flrplan.{part}' for part in parts)}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=120).returncode == 0


def test_nothing_that_windows_lacks_is_imported_without_a_fallback() -> None:
    """Every module, where the modules that only POSIX has are absent; psutil has a Windows file of its own for what it takes of them."""
    code = """
import importlib, pkgutil, sys
import psutil
for name in ("fcntl", "grp", "pty", "pwd", "resource", "syslog", "termios", "tty"):
    sys.modules[name] = None
import flrplan
for module in pkgutil.walk_packages(flrplan.__path__, "flrplan."):
    importlib.import_module(module.name)
"""
    with_user = {**os.environ, "USERNAME": "reader"}  # Windows sets it; torch asks pwd where it is not set
    done = subprocess.run([sys.executable, "-c", code], check=False, timeout=120, capture_output=True, text=True, env=with_user)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("package", LAZY)
def test_names_that_are_imported_at_first_use_are_the_ones_that_mypy_sees(package: str) -> None:
    """They are listed three times: under TYPE_CHECKING, in ``__all__``, and with the module that each is taken from."""
    module = import_module(package)
    assert module.__file__ is not None
    tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
    block = next(
        n for n in tree.body if isinstance(n, ast.If) and isinstance(n.test, ast.Name) and n.test.id == "TYPE_CHECKING"
    )
    seen = {a.name: n.module for n in block.body if isinstance(n, ast.ImportFrom) for a in n.names}
    homes = next(ast.literal_eval(n.args[1]) for n in ast.walk(tree) if isinstance(n, ast.Call) and len(n.args) == 2)
    assert {name: home for home, names in homes.items() for name in names} == seen
    assert sorted(seen) == sorted(module.__all__)
    assert {*module.__all__} <= {*dir(module)}
    for name in module.__all__:
        assert getattr(module, name) is getattr(import_module(str(seen[name])), name)
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'nothing'"):
        _ = module.nothing


HEAVY = {
    "torch",
    "matplotlib",
    "monai",
    "monailabel",
    "scipy",
    "SimpleITK",
    "sklearn",
    "nnunetv2",
    "pydicom",
    "requests",
    "tqdm",
}


def loaded_after(code: str, cwd: Path | None = None) -> set[str]:
    """The modules that a fresh Python has loaded where it ends, however it does."""
    own = "import atexit, sys; atexit.register(lambda: sys.stderr.write(chr(10) + ' '.join(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", f"{own}\n{code}"], check=False, timeout=120, capture_output=True, text=True, cwd=cwd
    )
    return set(done.stderr.splitlines()[-1].split())


@pytest.mark.parametrize(
    "words",
    [
        ["--help"], ["--nonsense"], ["nonsense"], ["plan"], ["qc", "--x"], ["plan", "ct.nii.gz", "--out"], ["plan", "--architecture", "unet"],
        ["train", "--stage", "spleen"], ["train-many", "--nonsense"], ["models", "import", "--input", "all"], ["models", "list", "--x"],
        ["cohort", "--size", "tiny"], ["networks", "--patch", "1"], ["demo", "--x"], ["demo-models", "--x"], ["demo-ohif", "--x"],
        ["doctor", "--x"],
    ],
)  # fmt: skip
def test_help_and_wrong_options_load_nothing_heavy(words: list[str]) -> None:
    found = loaded_after(f"from flrplan.cli import main; main({words})")
    assert "argparse" in found
    assert not HEAVY & found


def test_the_front_door_loads_nothing_heavy() -> None:
    assert not (HEAVY | {"numpy", "yaml"}) & loaded_after("import flrplan; assert flrplan.__version__; dir(flrplan)")
    assert not (HEAVY | {"yaml"}) & loaded_after("import flrplan; flrplan.Structure, flrplan.STAGES, flrplan.FlrError")


def test_plan_loads_no_picture_cohort_or_evaluation_before_it_computes(tmp_path: Path) -> None:
    """The command ends where the first network would run, with the CT read and the network loaded."""
    bench_start.write_ct(tmp_path / bench_start.CT_NAME)
    found = loaded_after(bench_start.SIDES[bench_start.PLAN], tmp_path)
    assert {"torch", "nnunetv2.inference.predict_from_raw_data"} <= found
    unused = {"matplotlib", "seaborn", "flrplan.cohort", "flrplan.evaluation", "flrplan.input_masks", "sklearn", "monai"}
    assert not {*unused, "torch._dynamo", "sympy"} & found
