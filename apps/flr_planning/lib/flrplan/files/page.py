"""Pages for people: HTML that jinja2 makes from templates, where every text that is filled in is escaped."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape


def render_page(template: Path, **values: Any) -> str:
    """The page of a template, which needs no other file: it extends ``page.html`` and may import the macros of ``parts.html``, both here."""
    environment = Environment(
        loader=FileSystemLoader([template.parent, Path(__file__).parent]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["rich"] = _rich
    return environment.get_template(template.name).render(values)


def _rich(text: str) -> Markup:
    """Escaped text in which ``**bold**`` becomes bold; a mean and its spread, and an interval, stay on one line each."""
    bold = re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", str(escape(text)))
    return Markup(re.sub(r"(\[[-+\d.]+,) ([-+\d.]+\])", r"\1&nbsp;\2", bold).replace(" ± ", "&nbsp;±&nbsp;"))
