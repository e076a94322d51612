"""PDFs of A4 pages with the bundled font. The same texts give the same bytes.

Fonts: DejaVu Sans is bundled, which has the Latin, Greek, Cyrillic, Armenian, Georgian, Hebrew and Arabic scripts. For
characters that it lacks, the fonts `*.ttf` and `*.otf` in `DATA_DIR/fonts` are tried in the order of their names. A
character that none of them has is written as its code point, `[U+6F22]`, so that two names never look the same; HTML
pages have all texts as they are.
"""

import unicodedata
from collections.abc import Sequence
from pathlib import Path

import arabic_reshaper
from fpdf import FPDF
from fpdf.bidi import BidiParagraph
from fpdf.enums import XPos, YPos
from fpdf.fonts import TTFFont

FONT = Path(__file__).parent / "fonts" / "DejaVuSans.ttf"

#: Millimetres.
MARGIN, LINE = 18.0, 5.2

#: Points.
NORMAL, SMALL, TITLE = 9.5, 8.0, 17.0


def extra_fonts(folder: Path | None) -> list[Path]:
    """Return the fonts of a folder in the order of their names; none if it does not exist."""
    if folder is None or not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in (".ttf", ".otf"))


def visual_order(line: str) -> str:
    """Return a line with its characters from left to right, and with Arabic letters joined.

    The library does that only with HarfBuzz, whose module cannot be loaded into a process with llama.cpp: both have the
    types of Cython. A text from right to left that needs several lines has its beginning in the last one.
    """
    if not any(unicodedata.bidirectional(character) in ("R", "AL") for character in line):
        return line
    return BidiParagraph(text=arabic_reshaper.reshape(line)).get_reordered_string()


class PdfPages(FPDF):
    """A document of A4 pages with the bundled font and those of an installation."""

    def __init__(self, fallbacks: Sequence[Path]) -> None:
        super().__init__()
        self.set_margin(MARGIN)
        self.set_auto_page_break(True, margin=MARGIN)
        self.set_producer("Sangha")
        self.add_font("text", fname=FONT)
        names = [f"fallback{number}" for number in range(len(fallbacks))]
        for name, path in zip(names, fallbacks, strict=True):
            self.add_font(name, fname=path)
        if names:
            self.set_fallback_fonts(names)
        fonts = [self.fonts[name] for name in ("text", *names)]
        self._known = {code for font in fonts if isinstance(font, TTFFont) for code in font.cmap}

    def footer(self) -> None:
        """Number the pages."""
        self.set_y(-MARGIN + 4)
        self.set_font("text", size=SMALL)
        self.cell(0, LINE, f"Page {self.page_no()} of {{nb}}", align="R")

    def known(self, text: str) -> str:
        """Return a text as it is to be written, with the code points of characters that no font has."""
        text = "\n".join(visual_order(line) for line in text.split("\n"))
        return "".join(each if ord(each) in self._known or each in "\n" else f"[U+{ord(each):04X}]" for each in text)

    def text_line(self, text: str, size: float = NORMAL) -> None:
        """Write a text at the left margin, of as many lines as it needs."""
        self.set_font("text", size=size)
        self.multi_cell(0, size * 0.55, self.known(text), align="L", new_x=XPos.LMARGIN, new_y=YPos.NEXT)

    def paragraph(self, text: str) -> None:
        """Write a paragraph."""
        self.set_font("text", size=NORMAL)
        self.multi_cell(0, LINE, self.known(text), align="L", new_x=XPos.LMARGIN, new_y=YPos.NEXT)
