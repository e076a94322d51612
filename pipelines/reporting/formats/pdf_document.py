"""A report as a PDF: its facts, its charts, and the table with its heading on each page, all with page numbers."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from fpdf.enums import XPos, YPos
from fpdf.fonts import FontFace

from pipelines.billing.pdf_pages import LINE, MARGIN, NORMAL, SMALL, TITLE, PdfPages, extra_fonts
from pipelines.reporting.formats.charts import Chart, charts_of
from pipelines.reporting.formats.drawing import Drawing, Label, Rectangle, Shape, draw
from pipelines.reporting.formats.drawing import Path as Line
from pipelines.reporting.formats.summary import facts_of, limited_rows
from pipelines.reporting.formats.texts import heading, value_text
from pipelines.reporting.group_names import for_people
from pipelines.reporting.report_table import ReportTable, Row

#: Rows of the table: about 40 are on a page.
MAX_ROWS = 2_000

#: Columns of a page in portrait format.
PORTRAIT_COLUMNS = 6

#: The colours of charts, as in the light theme of a page.
COLOURS = (
    (138, 143, 152), (0, 114, 178), (217, 138, 0), (0, 128, 94), (196, 78, 0), (168, 85, 138), (63, 147, 196),
)  # fmt: skip

GREY, PALE = 95, 215

#: Millimetres, so that a page in landscape format has two charts.
CHART_WIDTH = 190.0

#: Points of the text of charts and tables.
CHART, TABLE = 7.0, 8.0

#: Bounds of a column's width, in characters, and what its padding takes.
MIN_WIDTH, MAX_WIDTH, PADDING = 6, 30, 4


def render_pdf(table: ReportTable, fonts: Path | None = None) -> bytes:
    """Render a report, with names in place of ids.

    fonts  a folder of fonts for characters that the bundled one lacks
    """
    table = for_people(table)
    pdf = PdfPages(extra_fonts(fonts))
    pdf.set_title(table.title)
    pdf.set_creation_date(table.snapshot)
    pdf.add_page(orientation="portrait" if len(table.columns) <= PORTRAIT_COLUMNS else "landscape")
    pdf.text_line(table.title, TITLE)
    pdf.ln(2)
    _facts(pdf, table)
    for chart in charts_of(table):
        _chart(pdf, chart.title, draw(_with_known_names(pdf, chart)))
    _table(pdf, table)
    return bytes(pdf.output())


def _facts(pdf: PdfPages, table: ReportTable) -> None:
    pdf.set_text_color(GREY)
    for name, value in facts_of(table):
        pdf.text_line(f"{name}: {value}", SMALL)
    pdf.set_text_color(0)


def _with_known_names(pdf: PdfPages, chart: Chart) -> Chart:
    """Return a chart with its names as they are written, whose widths are known then."""
    series = [replace(each, name=pdf.known(each.name)) for each in chart.series]
    return replace(chart, labels=[pdf.known(label) for label in chart.labels], series=series)


def _chart(pdf: PdfPages, title: str, drawing: Drawing) -> None:
    """Draw a chart, on the next page if this one has no room for it."""
    scale = min(pdf.w - 2 * MARGIN, CHART_WIDTH) / drawing.width
    height = min(drawing.height * scale, pdf.h - 2 * MARGIN - 14)
    scale = min(scale, height / drawing.height)
    pdf.ln(4)
    if pdf.will_page_break(height + 10):
        pdf.add_page(same=True)
    pdf.text_line(title, NORMAL + 1)
    top = pdf.get_y() + 2
    with pdf.local_context():  # the table is filled with the last colour otherwise
        for shape in drawing.shapes:
            _shape(pdf, shape, top, scale)
    pdf.set_xy(MARGIN, top + height)


def _shape(pdf: PdfPages, shape: Shape, top: float, scale: float) -> None:
    if isinstance(shape, Rectangle):
        pdf.set_fill_color(*COLOURS[shape.colour])
        size = (shape.width * scale, max(shape.height * scale, 0.1))
        pdf.rect(MARGIN + shape.x * scale, top + shape.y * scale, *size, style="F")
    elif isinstance(shape, Line):
        pdf.set_line_width(0.2 if shape.colour is None else 0.45)
        pdf.set_draw_color(*((PALE,) * 3 if shape.colour is None else COLOURS[shape.colour]))
        pdf.polyline([(MARGIN + x * scale, top + y * scale) for x, y in shape.points])
    else:
        _label(pdf, shape, top, scale)


def _label(pdf: PdfPages, label: Label, top: float, scale: float) -> None:
    pdf.set_font("text", size=CHART)
    pdf.set_text_color(GREY if label.muted else 0)
    shift = {"start": 0.0, "middle": 0.5, "end": 1.0}[label.anchor] * pdf.get_string_width(label.text)
    pdf.text(MARGIN + label.x * scale - shift, top + label.y * scale, label.text)
    pdf.set_text_color(0)


def _table(pdf: PdfPages, table: ReportTable) -> None:
    rows, note = limited_rows(table, MAX_ROWS)
    pdf.ln(5)
    if not rows:
        pdf.paragraph("The period has no such data.")
        return
    pdf.set_font("text", size=TABLE)
    pdf.set_draw_color(PALE)
    pdf.set_line_width(0.2)
    cells = [[heading(column) for column in table.columns], *_cells(table, rows)]
    left = tuple("LEFT" if column.type in ("text", "time") else "RIGHT" for column in table.columns)
    with pdf.table(
        col_widths=_widths(cells), text_align=left, borders_layout="HORIZONTAL_LINES", line_height=LINE,
        headings_style=FontFace(emphasis=None, color=GREY), width=int(pdf.w - 2 * MARGIN),
    ) as drawn:  # fmt: skip
        for row in cells:
            drawn.row([pdf.known(cell) for cell in row])
    if note:
        pdf.set_font("text", size=SMALL)
        pdf.multi_cell(0, LINE, note, align="L", new_x=XPos.LMARGIN, new_y=YPos.NEXT)


def _cells(table: ReportTable, rows: Sequence[Row]) -> Iterator[list[str]]:
    for row in rows:
        yield [value_text(table, column, value) for column, value in zip(table.columns, row, strict=True)]
    totals = zip(table.columns, table.totals, strict=True)
    texts = ["" if value is None else value_text(table, column, value) for column, value in totals]
    yield [texts[0] or "Total", *texts[1:]]


def _widths(cells: Sequence[Sequence[str]]) -> tuple[int, ...]:
    """Return the relative widths of the columns: the characters of their longest cells, within bounds."""
    columns = zip(*cells, strict=True)
    return tuple(min(max(*map(len, column), MIN_WIDTH), MAX_WIDTH) + PADDING for column in columns)
