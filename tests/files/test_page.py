"""Pages from templates: what is filled in is escaped, nothing is missing in silence, and the templates are installed."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from jinja2 import UndefinedError

import flrplan
from flrplan.files.page import render_page

TEMPLATE = """{% extends "page.html" %}
{% from "parts.html" import figure, folded, note, picture, table %}
{% block first %}{{ note(text) }}{{ table([text], [[text, "**n** [0.1, 0.2]"]], (1,)) }}{% endblock %}
{% block second %}{% call folded(text, true) %}{{ figure("<svg></svg>", text) }}{{ picture("aGk=", text) }}{% endcall %}{% endblock %}
"""


@pytest.fixture
def template(tmp_path: Path) -> Path:
    path = tmp_path / "own.html"
    path.write_text(TEMPLATE)
    return path


def test_every_text_is_escaped_and_sections_are_linked_in_order(template: Path) -> None:
    page = render_page(template, title="<T>", sections={"first": "A & B", "second": "<C>"}, text='<script>"&')
    assert page.startswith("<!DOCTYPE html>\n")
    assert "<script>" not in page
    assert page.count("&lt;script&gt;&#34;&amp;") == 8, "note, head, cell, summary, twice a figure and twice a picture"
    assert '<a href="#first">A &amp; B</a> <a href="#second">&lt;C&gt;</a>' in page
    assert page.index('<section id="first"><h2>A &amp; B</h2>') < page.index('<section id="second"><h2>&lt;C&gt;</h2>')
    assert '<td class="wide"><strong>n</strong> [0.1,&nbsp;0.2]</td>' in page
    assert "<details open>" in page
    assert "<svg></svg>" in page
    assert "http" not in page, "needs no other file"


def test_a_section_that_is_not_asked_for_is_not_shown_and_a_missing_value_is_an_error(template: Path) -> None:
    assert "<section" not in render_page(template, title="T", sections={}, text="t")
    with pytest.raises(UndefinedError, match="'text' is undefined"):
        render_page(template, title="T", sections={"first": "A"})


def test_every_file_of_the_package_that_is_no_module_is_installed() -> None:
    package = Path(flrplan.__file__).parent
    patterns = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    found = {p for p in package.rglob("*.*") if p.suffix not in (".py", ".pyc") and p.is_file()}
    assert found == {p for pattern in patterns["flrplan"] for p in package.glob(pattern)}
