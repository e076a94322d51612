"""An invoice or a credit note as a PDF. The same document gives the same bytes.

Fonts: DejaVu Sans is bundled, which has the Latin, Greek, Cyrillic, Armenian, Georgian, Hebrew and Arabic scripts. For
characters that it lacks, the fonts `*.ttf` and `*.otf` in `DATA_DIR/fonts` are tried in the order of their names. A
character that none of them has is written as its code point, `[U+6F22]`, so that two names never look the same; the
HTML page has all texts as they are.
"""

import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

import arabic_reshaper
from fpdf import FPDF
from fpdf.bidi import BidiParagraph
from fpdf.enums import XPos, YPos
from fpdf.fonts import FontFace, TTFFont

from pipelines.billing.invoice_document import Document

FONT = Path(__file__).parent / "fonts" / "DejaVuSans.ttf"

#: Millimetres.
MARGIN, LINE, COLUMNS = 18.0, 5.2, (110.0, 26.0, 38.0)

#: Points.
NORMAL, SMALL, TITLE = 9.5, 8.0, 17.0


def render_pdf(document: Document, fonts: Path | None = None) -> bytes:
    """Render a document. `fonts` is a folder of fonts for characters that the bundled one lacks."""
    pdf = _Pdf(extra_fonts(fonts))
    pdf.set_title(document.title)
    pdf.set_creation_date(document.issued_at)
    pdf.add_page()
    pdf.text_line(document.title, TITLE)
    pdf.ln(6)
    _parties(pdf, document)
    _rows(pdf, document.rows)
    _totals(pdf, document)
    for note in document.notes:
        pdf.ln(3)
        pdf.paragraph(note)
    return bytes(pdf.output())


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


class _Pdf(FPDF):
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


def _parties(pdf: _Pdf, document: Document) -> None:
    """Write the seller, the customer and the facts side by side."""
    facts = [f"{name}: {value}" for name, value in document.facts]
    width, top, bottom = (pdf.w - 2 * MARGIN) / 3, pdf.get_y(), 0.0
    for number, (heading, lines) in enumerate(
        (("From", document.seller), ("To", document.customer), ("Details", facts))
    ):
        pdf.set_xy(MARGIN + number * width, top)
        _block(pdf, width - 4, heading, lines)
        bottom = max(bottom, pdf.get_y())
    pdf.set_xy(MARGIN, bottom + 8)


def _block(pdf: _Pdf, width: float, heading: str, lines: Iterable[str]) -> None:
    left = pdf.get_x()
    pdf.set_font("text", size=SMALL)
    pdf.set_text_color(110)
    pdf.multi_cell(width, LINE, heading, align="L", new_x=XPos.LEFT, new_y=YPos.NEXT)
    pdf.set_text_color(0)
    pdf.set_font("text", size=NORMAL)
    for line in lines:
        pdf.set_x(left)
        pdf.multi_cell(width, LINE, pdf.known(line), align="L", new_x=XPos.LEFT, new_y=YPos.NEXT)


def _rows(pdf: _Pdf, rows: Iterable[Sequence[str]]) -> None:
    """Write the table of lines. Its heading is repeated on each page."""
    pdf.set_font("text", size=NORMAL)
    pdf.set_draw_color(200)
    with pdf.table(
        col_widths=COLUMNS, text_align=("LEFT", "RIGHT", "RIGHT"), borders_layout="HORIZONTAL_LINES",
        line_height=LINE + 1, headings_style=FontFace(emphasis=None, color=110), width=int(pdf.w - 2 * MARGIN),
    ) as table:  # fmt: skip
        for cells in (("Description", "Quantity", "Amount"), *rows):
            table.row([pdf.known(cell) for cell in cells])


def _totals(pdf: _Pdf, document: Document) -> None:
    """Write the totals at the right, the last one larger."""
    pdf.ln(4)
    for number, (name, amount) in enumerate(document.totals, 1):
        pdf.set_font("text", size=NORMAL + 2 if number == len(document.totals) else NORMAL)
        pdf.set_x(MARGIN + 70)
        pdf.cell(pdf.w - 2 * MARGIN - 70 - 45, LINE + 1.5, pdf.known(name), align="R")
        pdf.cell(45, LINE + 1.5, amount, align="R", new_x=XPos.LMARGIN, new_y=YPos.NEXT)
