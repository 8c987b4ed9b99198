"""The report as a PDF: A4, the same content as the page, by ReportLab, which needs no browser and no system library."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import matplotlib as mpl
from reportlab.lib import colors
from reportlab.lib.enums import TA_CENTER
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.lib.utils import ImageReader
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.pdfmetrics import stringWidth
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.platypus import BaseDocTemplate, Frame, Image, PageBreak, PageTemplate, Paragraph, Spacer
from reportlab.platypus import Table as Grid

from flrplan.files import replacing
from flrplan.planning.fonts import fallback, pieces, shown
from flrplan.planning.report import Picture, ReportContent, Table

_WIDTH = A4[0] - 24 * mm
_LONGEST_TITLE = 80
"""Letters in a footer, which is one line; the whole title stands on the first page."""
_FONT, _BOLD, _OTHER = "DejaVuSans", "DejaVuSans-Bold", "Fallback"
_NUMBERS = "letters that no font of this system has stand here as their numbers (U+...), in report.html as they are"
_TEXT = ParagraphStyle("text", fontName=_FONT, fontSize=7.6, leading=9.6)
_SMALL = ParagraphStyle("small", _TEXT, fontSize=6.6, leading=8.2)
_CENTRED = ParagraphStyle("centred", _SMALL, alignment=TA_CENTER)
_HEADING = ParagraphStyle("heading", _TEXT, fontName=_BOLD, fontSize=8.6, leading=11, spaceBefore=4)
_TITLE = ParagraphStyle("title", _TEXT, fontName=_BOLD, fontSize=11, leading=14)
_LARGE = ParagraphStyle("large", _TEXT, fontName=_BOLD, fontSize=25, leading=30)
_SURE = ParagraphStyle("sure", _TEXT, fontName=_BOLD, fontSize=10, leading=13)
_PLAIN = [("VALIGN", (0, 0), (-1, -1), "TOP"), ("LEFTPADDING", (0, 0), (-1, -1), 0), ("RIGHTPADDING", (0, 0), (-1, -1), 4)]


def write_pdf(path: Path, of: ReportContent) -> None:
    """Writes a report. Raises: OutputError; no half-written file is left."""
    _register_fonts()
    first: list[Any] = [
        Paragraph(_marked(of.title), _TITLE),
        Paragraph(_marked(of.use if shown(of.title) == of.title else f"{of.use}; {_NUMBERS}"), _TEXT),
        _headline(of),
        Spacer(0, 3),
        _image(of.thresholds, 150 * mm, 40 * mm),
        _row(of.key_images[:3], 64 * mm),
        _row([*of.key_images[3:], *of.outside], 58 * mm),
        Paragraph(
            _marked(
                f"{of.lines}. Scale: 50 mm with a tick every 10 mm. R, L, A, P: the patient's right, left, front and back."
            ),
            _SMALL,
        ),
    ]
    second: list[Any] = [part for table in (of.lesions, *of.tables) for part in _table(table, _WIDTH)]
    second.append(Paragraph(f"To check ({len(of.warnings)})", _HEADING))
    second += [Paragraph(f"• {_marked(line)}", _TEXT) for line in of.warnings] or [Paragraph("nothing was found", _TEXT)]
    if of.notes:
        second.append(Paragraph(f"Notes: {_marked('; '.join(of.notes))}", _SMALL))
    second += [part for table in of.made_of for part in _table(table, _WIDTH)]

    def footer(canvas: Any, document: Any) -> None:
        title = of.title if len(of.title) <= _LONGEST_TITLE else f"{of.title[:_LONGEST_TITLE]}..."
        x = 12 * mm
        for piece, is_other in pieces(f"{title}; {of.use}"):
            font = _OTHER if is_other else _FONT
            canvas.setFont(font, 6.5)
            canvas.drawString(x, 6 * mm, piece)
            x += stringWidth(piece, font, 6.5)
        canvas.setFont(_FONT, 6.5)
        canvas.drawRightString(A4[0] - 12 * mm, 6 * mm, f"page {document.page}")

    buffer = io.BytesIO()
    document = BaseDocTemplate(
        buffer, pagesize=A4, title=of.title, author="flrplan", invariant=1
    )  # no clock in the file: the text says when
    frame = Frame(12 * mm, 10 * mm, _WIDTH, A4[1] - 19 * mm, leftPadding=0, rightPadding=0, topPadding=0, bottomPadding=0)
    document.addPageTemplates([PageTemplate(frames=[frame], onPage=footer)])
    document.build([*first, PageBreak(), *second])
    with replacing(path) as beside:
        beside.write_bytes(buffer.getvalue())


def _register_fonts() -> None:
    """DejaVu Sans, which matplotlib brings: names and units beyond Latin-1."""
    folder = Path(mpl.get_data_path()) / "fonts" / "ttf"
    for name in (_FONT, _BOLD):
        if name not in pdfmetrics.getRegisteredFontNames():
            pdfmetrics.registerFont(TTFont(name, folder / f"{name}.ttf"))
    own = fallback()
    if own is not None:
        pdfmetrics.registerFont(TTFont(_OTHER, own.path))
        pdfmetrics.registerFontFamily(_OTHER, normal=_OTHER, bold=_OTHER, italic=_OTHER, boldItalic=_OTHER)
    pdfmetrics.registerFontFamily(_FONT, normal=_FONT, bold=_BOLD, italic=_FONT, boldItalic=_BOLD)


def _marked(text: str) -> str:
    """A text as a paragraph takes it, with the fonts that have its letters."""
    return "".join(
        f'<font name="{_OTHER}">{escape(piece)}</font>' if is_other else escape(piece) for piece, is_other in pieces(text)
    )


def _headline(of: ReportContent) -> Grid:
    lines: list[Any] = [Paragraph(f"{_marked(of.headline[0])} &nbsp; {_marked(of.headline[1])}", _LARGE)]
    if of.sure:
        lines += [Paragraph(_marked(of.sure[0]), _SURE), Paragraph(_marked(of.sure[1]), _SMALL)]
    lines.append(Paragraph(_marked(of.about), _TEXT))
    marks = {True: "✓ ", False: "✗ ", None: ""}
    lines += [Paragraph(f"<b>{marks[met]}</b>{_marked(text)}", _TEXT) for met, text in of.verdicts]
    return Grid([[lines]], [_WIDTH], style=[("BOX", (0, 0), (-1, -1), 1.4, colors.black), ("TOPPADDING", (0, 0), (-1, -1), 2)])


def _image(picture: Picture, width: float, height: float) -> Image:
    """As large as fits into ``width`` and ``height``."""
    across, down = ImageReader(io.BytesIO(picture.data)).getSize()
    scale = min(width / across, height / down)
    return Image(io.BytesIO(picture.data), across * scale, down * scale, hAlign="LEFT")


def _row(pictures: Sequence[Picture], height: float) -> Grid:
    each = _WIDTH / len(pictures)
    cells = [[_image(p, each - 4, height) for p in pictures], [Paragraph(_marked(p.caption), _CENTRED) for p in pictures]]
    return Grid(
        cells,
        [each] * len(pictures),
        style=[*_PLAIN, ("VALIGN", (0, 0), (-1, 0), "BOTTOM"), ("BOTTOMPADDING", (0, 0), (-1, 0), 1)],
    )


def _table(of: Table, width: float) -> list[Any]:
    parts: list[Any] = [Paragraph(_marked(of.title), _HEADING)]
    if of.rows:
        head = [[Paragraph(f"<b>{_marked(cell)}</b>", _SMALL) for cell in of.head]] if any(of.head) else []
        rows = [[Paragraph(_marked(cell), _SMALL) for cell in row] for row in of.rows]
        longest = [max(6, *(min(60, len(row[k])) for row in [of.head, *of.rows])) for k in range(len(of.rows[0]))]
        widths = [width * n / sum(longest) for n in longest]
        style = [("LINEBELOW", (0, 0), (-1, -1), 0.3, colors.grey), ("VALIGN", (0, 0), (-1, -1), "TOP")]
        style += [(side, (0, 0), (-1, -1), 1) for side in ("TOPPADDING", "BOTTOMPADDING", "LEFTPADDING", "RIGHTPADDING")]
        parts.append(Grid(head + rows, widths, style=style, repeatRows=len(head), hAlign="LEFT"))
    if of.note:
        parts.append(Paragraph(_marked(of.note), _SMALL))
    return parts
