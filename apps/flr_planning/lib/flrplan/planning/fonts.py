"""Letters that DejaVu Sans lacks, such as Chinese, Japanese and Korean ones, in the picture and the PDF: by a font of the system, else by number."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import groupby
from pathlib import Path

from matplotlib import font_manager
from matplotlib.ft2font import FT2Font
from reportlab.pdfbase.ttfonts import TTFError, TTFont

MAIN = "DejaVu Sans"
"""Matplotlib brings it."""
FALLBACKS = (
    "DroidSansFallbackFull", "DroidSansFallback", "wqy-zenhei", "wqy-microhei", "NotoSansSC-Regular", "NotoSansJP-Regular",
    "NotoSansKR-Regular", "Arial Unicode", "arialuni", "msyh", "simhei", "msgothic", "malgun", "NanumGothic", "ipag", "TakaoGothic",
)  # fmt: skip
"""Files of fonts with TrueType outlines, which alone can be put into a PDF; those of Noto Sans CJK have others."""


@dataclass(frozen=True)
class Fallback:
    """A font of the system, and the numbers of the letters that it has."""

    family: str
    path: Path
    letters: frozenset[int]


@cache
def fallback() -> Fallback | None:
    """The first of :data:`FALLBACKS` on this system that can be read; None without any."""
    found = {Path(file).stem.lower(): Path(file) for file in font_manager.findSystemFonts()}
    for name in FALLBACKS:
        path = found.get(name.lower())
        if path is None:
            continue
        try:
            TTFont(name, path)
            font = FT2Font(str(path))
            font_manager.fontManager.addfont(str(path))
            return Fallback(font.family_name, path, frozenset(font.get_charmap()))
        except (TTFError, OSError, RuntimeError):
            continue
    return None


def families() -> list[str]:
    """The families that a text of matplotlib takes its letters from."""
    own = fallback()
    return [MAIN] if own is None else [MAIN, own.family]


def pieces(text: str) -> list[tuple[str, bool]]:
    """A text in pieces, and whether a piece is in the font of the system. What no font has is written as its number, ``U+738B``."""
    own = fallback()
    other = frozenset() if own is None else own.letters

    def kind(letter: str) -> int:
        return 0 if ord(letter) < 32 or ord(letter) in _main_letters() else 1 if ord(letter) in other else 2

    said = []
    for which, letters in groupby(text, kind):
        run = "".join(letters)
        said.append((" ".join(f"U+{ord(letter):04X}" for letter in run) if which == 2 else run, which == 1))
    return said


def shown(text: str) -> str:
    """A text as it is shown: itself, but for letters that no font has."""
    return "".join(piece for piece, _ in pieces(text))


@cache
def _main_letters() -> frozenset[int]:
    return frozenset(FT2Font(font_manager.findfont(MAIN)).get_charmap())
