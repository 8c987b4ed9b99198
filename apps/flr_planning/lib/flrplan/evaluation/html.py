"""The few pieces of HTML that the report is made of. Every text that comes from a file or a name is escaped here."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape

STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #1c1c1c; background: #fff; }
body { margin: 2rem auto; max-width: 78rem; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.4rem; border-bottom: 1px solid #ccc; }
h3 { font-size: 1rem; margin-bottom: .3rem; }
summary { cursor: pointer; font-weight: 600; margin-top: .8rem; }
nav a { margin-right: 1rem; white-space: nowrap; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 13px; margin: .6rem 0; }
th, td { padding: .15rem .55rem; border-bottom: 1px solid #e3e3e3; text-align: left; white-space: nowrap; }
td.wide { white-space: normal; }
th { border-bottom: 1.5px solid #555; vertical-align: bottom; white-space: normal; }
figure { margin: 1rem 0; } figcaption { font-size: 13px; color: #444; }
svg { max-width: 100%; height: auto; }
.pictures { display: flex; flex-wrap: wrap; gap: 1rem; } .pictures figure { width: 20rem; margin: 0; }
.pictures img { width: 100%; background: #000; }
.warn { background: #fff2cc; border-left: 4px solid #d08700; padding: .5rem .8rem; overflow-wrap: anywhere; }
.note { color: #444; }
"""


def rich(text: str) -> str:
    """Escaped text in which ``**bold**`` becomes bold; a mean and its spread, and an interval, stay on one line each."""
    bold = re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", escape(text))
    return re.sub(r"(\[[-+\d.]+,) ([-+\d.]+\])", r"\1&nbsp;\2", bold).replace(" ± ", "&nbsp;±&nbsp;")


def paragraph(text: str, css: str = "") -> str:
    """One paragraph."""
    return f'<p class="{css}">{rich(text)}</p>' if css else f"<p>{rich(text)}</p>"


def _cell(text: str, wide: bool) -> str:
    return f'<td class="wide">{rich(text)}</td>' if wide else f"<td>{rich(text)}</td>"


def table(head: Sequence[str], rows: Sequence[Sequence[str]], wide: Sequence[int] = ()) -> str:
    """A table that scrolls sideways; columns in ``wide`` may break their lines."""
    top = "".join(f"<th>{rich(cell)}</th>" for cell in head)
    body = "".join(f"<tr>{''.join(_cell(c, k in wide) for k, c in enumerate(row))}</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def folded(heading: str, content: str, is_open: bool) -> str:
    """A part that the reader can fold away."""
    return f"<details{' open' if is_open else ''}><summary>{escape(heading)}</summary>{content}</details>"


def figure(svg: str, caption: str) -> str:
    """A plot with its caption; empty text for an empty plot."""
    if not svg:
        return ""
    # Matplotlib numbers its clip paths and glyphs by content; equal ids in two plots of a page then mean equal things.
    return (
        f'<figure role="img" aria-label="{escape(caption, quote=True)}">{svg}<figcaption>{rich(caption)}</figcaption></figure>'
    )


def picture(png_base64: str, caption: str) -> str:
    """A PNG with its caption."""
    alt = escape(caption, quote=True)
    return (
        f'<figure><img alt="{alt}" src="data:image/png;base64,{png_base64}"><figcaption>{rich(caption)}</figcaption></figure>'
    )


def page(title: str, sections: Sequence[tuple[str, str, str]]) -> str:
    """A whole document that needs no other file. ``sections``: anchor, heading, HTML."""
    links = "".join(f'<a href="#{anchor}">{escape(heading)}</a> ' for anchor, heading, _ in sections)
    body = "".join(f'<section id="{anchor}"><h2>{escape(heading)}</h2>{html}</section>' for anchor, heading, html in sections)
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>"
        f"<body><h1>{escape(title)}</h1><nav>{links}</nav>{body}</body></html>\n"
    )
