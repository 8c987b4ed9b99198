"""Packs what a GPU machine without network lacks into one file: run this where a package index is reached, carry the file over.

    python benchmark/gpu/bundle.py --out build/gpu-bundle.tar.xz           # 5 min, 36 MiB
    mkdir site && tar xf gpu-bundle.tar.xz -C site                         # there
    PYTHONPATH=site:apps/flr_planning/lib python benchmark/gpu/on_gpu.py --minutes 9 --out OUT

Every package has the version of the environment that runs this. Not in it: torch, numpy, scipy and the rest of what an image for
deep learning brings, and MONAI Label (its ITK alone takes 80 MB), whose test is skipped there. Writes the file whole or not at all.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tarfile
import tempfile
from importlib.metadata import version
from pathlib import Path

PACKAGES = (
    "SimpleITK",
    "nnunetv2",
    "acvl-utils",
    "batchgenerators",
    "batchgeneratorsv2",
    "dynamic-network-architectures",
    "blosc2",
    "numexpr",
    "ndindex",
    "msgpack",
    "platformdirs",
    "connected-components-3d",
    "yacs",
    "nibabel",
    "monai",
    "pydicom",
    "openpyxl",
    "et-xmlfile",
)
"""What images for deep learning lack of :file:`pyproject.toml`, and what those packages need."""
PLATFORMS = (*(f"manylinux_2_{minor}_x86_64" for minor in (28, 27, 24, 17)), "manylinux2014_x86_64")
DEAD_WEIGHT = ("tests", "__pycache__", "benchmarks")
"""Folders of packages that nothing runs there."""


def make_bundle(out: Path, python: str, packages: tuple[str, ...] = PACKAGES) -> None:
    """Downloads or builds the wheels for Linux on x86-64 and that Python, unpacks them into one folder, packs it."""
    with tempfile.TemporaryDirectory() as folder:
        wheels, site = Path(folder, "wheels"), Path(folder, "site")
        for package in packages:
            _get(f"{package}=={version(package)}", python, wheels)
        for wheel in sorted(wheels.glob("*.whl")):
            shutil.unpack_archive(wheel, site, "zip")
        for dead in [path for path in site.rglob("*") if path.is_dir() and path.name in DEAD_WEIGHT]:
            shutil.rmtree(dead, ignore_errors=True)
        out.parent.mkdir(parents=True, exist_ok=True)
        partial = out.with_name(f".{out.name}.partial")
        with tarfile.open(partial, "w:xz", preset=9) as archive:
            for path in sorted(site.iterdir()):
                archive.add(path, path.name)
        partial.replace(out)


def _get(requirement: str, python: str, wheels: Path) -> None:
    """A wheel for the other machine; of a package that has none, one that is built here (pure Python)."""
    pip = [sys.executable, "-m", "pip"]
    aim = ["--only-binary=:all:", "--python-version", python, "--implementation", "cp"]
    aim += [word for platform in PLATFORMS for word in ("--platform", platform)]
    download = [*pip, "download", "--quiet", "--no-deps", *aim, "--dest", str(wheels), requirement]
    if subprocess.run(download, capture_output=True, check=False).returncode:
        subprocess.run([*pip, "wheel", "--quiet", "--no-deps", "--wheel-dir", str(wheels), requirement], check=True)


def main() -> int:
    """Parses, packs, says how large it became."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("build/gpu-bundle.tar.xz"))
    parser.add_argument("--python", default="3.12", help="the other machine's Python (default: 3.12)")
    arguments = parser.parse_args()
    make_bundle(arguments.out, arguments.python)
    sys.stdout.write(f"{arguments.out}: {arguments.out.stat().st_size / 2**20:.1f} MiB\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
