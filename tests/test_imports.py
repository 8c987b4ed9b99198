"""Arrows point one way: only app imports monailabel, only nnunet imports nnU-Net, planning and metrics never load torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import bench_start
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
    higher = {
        f"flrplan.{name}" for name in ("nnunet", "models", "cascade", "app", "commands", "cli", "demo", "refinement", "api")
    }
    folder = PACKAGE / part
    for path in folder.rglob("*.py") if folder.is_dir() else [folder.with_suffix(".py")]:
        for module in imported_modules(path):
            assert ".".join(module.split(".")[:2]) not in higher, f"{path.relative_to(PACKAGE)} imports {module}"


def test_planning_metrics_and_workflow_do_not_load_torch() -> None:
    modules = "flrplan.planning.plan, flrplan.metrics, flrplan.input_masks, flrplan.cohort, flrplan.workflow.jobs, flrplan.workflow.engine, flrplan.gpu_pool, flrplan.probabilities"
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=120).returncode == 0


@pytest.mark.parametrize("part", ["nnunet", "models", "cascade", "cascade_result"])
def test_what_the_verbs_are_made_of_does_not_know_them(part: str) -> None:
    folder = PACKAGE / part
    for path in folder.rglob("*.py") if folder.is_dir() else [folder.with_suffix(".py")]:
        above = {m for m in imported_modules(path) if m.split(".")[:2] in (["flrplan", "api"], ["flrplan", "commands"])}
        assert not above, f"{path.relative_to(PACKAGE)} imports {above}"


@pytest.mark.parametrize("package", ["flrplan", "flrplan.io", "flrplan.cohort"])
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
        ["--help"], ["--nonsense"], ["nonsense"], ["plan"], ["plan", "ct.nii.gz", "--out"], ["plan", "--architecture", "unet"],
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
    assert (
        not {"matplotlib", "seaborn", "flrplan.cohort", "flrplan.evaluation", "flrplan.input_masks", "sklearn", "monai"} & found
    )


def test_yaml_of_people_is_read_in_one_place() -> None:
    """``io.text`` takes the marks of Windows and refuses doubled keys; the paper's tables are a file of the package itself."""
    readers = {p.relative_to(PACKAGE).as_posix() for p in PACKAGE.rglob("*.py") if "yaml" in imported_modules(p)}
    assert readers == {"io/text.py", "evaluation/paper.py"}
