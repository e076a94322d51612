"""An invoice or a credit note as a PDF. The same document gives the same bytes."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from fpdf.enums import XPos, YPos
from fpdf.fonts import FontFace

from pipelines.billing.invoice_document import Document
from pipelines.billing.pdf_pages import LINE, MARGIN, NORMAL, SMALL, TITLE, PdfPages, extra_fonts

#: Millimetres.
COLUMNS = (110.0, 26.0, 38.0)


def render_pdf(document: Document, fonts: Path | None = None) -> bytes:
    """Render a document. `fonts` is a folder of fonts for characters that the bundled one lacks."""
    pdf = PdfPages(extra_fonts(fonts))
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


def _parties(pdf: PdfPages, document: Document) -> None:
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


def _block(pdf: PdfPages, width: float, heading: str, lines: Iterable[str]) -> None:
    left = pdf.get_x()
    pdf.set_font("text", size=SMALL)
    pdf.set_text_color(110)
    pdf.multi_cell(width, LINE, heading, align="L", new_x=XPos.LEFT, new_y=YPos.NEXT)
    pdf.set_text_color(0)
    pdf.set_font("text", size=NORMAL)
    for line in lines:
        pdf.set_x(left)
        pdf.multi_cell(width, LINE, pdf.known(line), align="L", new_x=XPos.LEFT, new_y=YPos.NEXT)


def _rows(pdf: PdfPages, rows: Iterable[Sequence[str]]) -> None:
    """Write the table of lines. Its heading is repeated on each page."""
    pdf.set_font("text", size=NORMAL)
    pdf.set_draw_color(200)
    with pdf.table(
        col_widths=COLUMNS, text_align=("LEFT", "RIGHT", "RIGHT"), borders_layout="HORIZONTAL_LINES",
        line_height=LINE + 1, headings_style=FontFace(emphasis=None, color=110), width=int(pdf.w - 2 * MARGIN),
    ) as table:  # fmt: skip
        for cells in (("Description", "Quantity", "Amount"), *rows):
            table.row([pdf.known(cell) for cell in cells])


def _totals(pdf: PdfPages, document: Document) -> None:
    """Write the totals at the right, the last one larger."""
    pdf.ln(4)
    for number, (name, amount) in enumerate(document.totals, 1):
        pdf.set_font("text", size=NORMAL + 2 if number == len(document.totals) else NORMAL)
        pdf.set_x(MARGIN + 70)
        pdf.cell(pdf.w - 2 * MARGIN - 70 - 45, LINE + 1.5, pdf.known(name), align="R")
        pdf.cell(45, LINE + 1.5, amount, align="R", new_x=XPos.LMARGIN, new_y=YPos.NEXT)
