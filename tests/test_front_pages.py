"""What a visitor reads first stays short, and says the same everywhere."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

REPOSITORY = Path(__file__).parents[1]


def test_the_readme_stays_within_100_lines_that_can_be_read() -> None:
    lines = (REPOSITORY / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 100, "details go into docs/"
    assert max(map(len, lines)) <= 150


def test_the_citation_is_of_this_version() -> None:
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text(encoding="utf-8"))
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert (citation["version"], citation["license"]) == (project["version"], project["license"])
    assert [reference["doi"] for reference in citation["references"]] == ["10.48550/arXiv.2604.07999"]


def test_the_files_that_contributing_names_are_there() -> None:
    text = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")
    package = REPOSITORY / "apps" / "flr_planning" / "lib" / "flrplan"
    named = [name for name in re.findall(r"`([\w./<>]+\.(?:py|md|yaml))`", text) if "<" not in name]
    assert len(named) > 15
    assert [name for name in named if not (package / name).is_file() and not (REPOSITORY / name).is_file()] == []


def test_the_changelog_is_by_versions_newest_first() -> None:
    text = (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8")
    headings = [line.removeprefix("## ") for line in text.splitlines() if line.startswith("## ")]
    assert all(re.fullmatch(r"\d+\.\d+\.\d+ - (unreleased|\d{4}-\d{2}-\d{2})", heading) for heading in headings)
    versions = [tuple(map(int, heading.split(" ")[0].split("."))) for heading in headings]
    assert versions == sorted(set(versions), reverse=True)
    assert [heading for heading in headings[1:] if "unreleased" in heading] == []
    assert "\n- " in text[text.index(headings[0]) : text.index(headings[1])]


@pytest.mark.slow
def test_a_broken_link_fails_the_site(tmp_path: Path) -> None:
    """``make docs`` on a copy with a page that links to a page, a heading and a module that are not there."""
    if not (REPOSITORY / ".venv-docs" / "bin" / "sphinx-build").is_file():
        pytest.skip("make docs installs Sphinx")
    copy = tmp_path / "copy"
    subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", str(REPOSITORY), str(copy)], check=True)
    (copy / ".venv-docs").symlink_to(REPOSITORY / ".venv-docs")
    with (copy / "docs" / "inputs.md").open("a") as page:
        page.write("\n[a](nowhere.md) [b](training.md#nowhere)\n")
    (copy / "docs" / "lost.md").write_text("# A page in no table of contents\n")
    done = subprocess.run(
        ["make", "-o", ".venv-docs/.installed", "docs"], cwd=copy, capture_output=True, text=True, check=False, env=os.environ
    )
    assert done.returncode != 0
    for said in ("'nowhere.md'", "nowhere", "lost.md"):
        assert said in done.stderr
