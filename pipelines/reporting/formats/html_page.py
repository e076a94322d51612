"""A report as an HTML page with charts. It loads nothing and runs nothing, and follows the light or dark theme."""

import hashlib
from base64 import b64encode
from collections.abc import Iterable, Iterator
from html import escape

from pipelines.reporting.formats.charts import charts_of
from pipelines.reporting.formats.drawing import draw
from pipelines.reporting.formats.summary import facts_of, limited_rows
from pipelines.reporting.formats.svg import render_svg
from pipelines.reporting.formats.texts import heading, value_text
from pipelines.reporting.group_names import for_people
from pipelines.reporting.report_table import ReportTable, Row

#: Rows of the table on a page, so that a browser opens it.
MAX_ROWS = 5_000

#: Colours 0 to 6 on white and on dark grey: of equal lightness, and distinguishable with colour blindness.
LIGHT = ("#8a8f98", "#0072b2", "#d98a00", "#00805e", "#c44e00", "#a8558a", "#3f93c4")
DARK = ("#8d939c", "#4ea6e0", "#f0b040", "#3cc79c", "#f2875a", "#dc93c2", "#9bd0f2")

_COLOURS = "".join(f".c{n} {{ fill: var(--c{n}); }} .l{n} {{ stroke: var(--c{n}); }}\n" for n in range(len(LIGHT)))


def _variables(colours: Iterable[str]) -> str:
    return " ".join(f"--c{number}: {colour};" for number, colour in enumerate(colours))


STYLE = f"""
:root {{ color-scheme: light dark; --page: #fff; --text: #1f2328; --muted: #5c636d; --line: #d8dce1; --head: #f3f4f6;
  {_variables(LIGHT)} }}
@media (prefers-color-scheme: dark) {{ :root {{ --page: #16181c; --text: #e6e8eb; --muted: #a2a9b3; --line: #3a3f47;
  --head: #22262c; {_variables(DARK)} }} }}
@media print {{ :root {{ color-scheme: light; --page: #fff; --text: #000; --muted: #444; --line: #ccc; --head: #eee;
  {_variables(LIGHT)} }} }}
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 0 auto; padding: 2rem 1rem;
  color: var(--text); background: var(--page); }}
h1 {{ font-size: 1.6rem; margin: 0 0 .5rem; overflow-wrap: anywhere; }}
h2 {{ font-size: 1rem; margin: 1.75rem 0 .5rem; }}
dl {{ display: flex; flex-wrap: wrap; gap: .25rem 2rem; margin: 0 0 1rem; color: var(--muted); font-size: .9rem; }}
dl div {{ display: flex; gap: .5rem; }}
dd {{ margin: 0; color: var(--text); }}
svg {{ display: block; width: 100%; height: auto; font: 11px system-ui, sans-serif; }}
svg text {{ fill: var(--text); }}
svg text.muted {{ fill: var(--muted); }}
.grid {{ stroke: var(--line); stroke-width: 1; fill: none; }}
.line {{ stroke-width: 1.75; fill: none; stroke-linejoin: round; }}
.table {{ overflow-x: auto; }}
table {{ width: 100%; border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }}
th, td {{ text-align: right; padding: .35rem .6rem; border-bottom: 1px solid var(--line); white-space: nowrap; }}
th {{ background: var(--head); position: sticky; top: 0; font-weight: 600; }}
.text {{ text-align: left; white-space: normal; overflow-wrap: anywhere; min-width: 7rem; }}
.time {{ text-align: left; }}
tfoot td {{ font-weight: 600; border-top: 2px solid var(--line); }}
.note {{ color: var(--muted); }}
{_COLOURS}"""

_STYLE_HASH = b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()

#: Only the page's own style is applied: also where the page is opened from a disk.
CONTENT_SECURITY_POLICY = f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; form-action 'none'"


def render_page(table: ReportTable) -> bytes:
    """Render a report as a page, with names in place of ids."""
    table = for_people(table)
    title = escape(table.title)
    facts = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in facts_of(table))
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta http-equiv="Content-Security-Policy" content="{CONTENT_SECURITY_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head><body>
<h1 dir="auto">{title}</h1>
<dl>{facts}</dl>
{"".join(_charts(table))}<h2>Table</h2>
{_table(table)}
</body></html>
""".encode()


def _charts(table: ReportTable) -> Iterator[str]:
    for chart in charts_of(table):
        yield f"<section><h2>{escape(chart.title)}</h2>{render_svg(draw(chart), chart.title)}</section>\n"


def _table(table: ReportTable) -> str:
    rows, note = limited_rows(table, MAX_ROWS)
    if not rows:
        return '<p class="note">The period has no such data.</p>'
    heads = "".join(f'<th scope="col"{_class(column.type)}>{escape(heading(column))}</th>' for column in table.columns)
    body = "".join(_row(table, row) for row in rows)
    foot = f"<tfoot>{_row(table, table.totals, total=True)}</tfoot>"
    noted = f'<p class="note">{escape(note)}</p>' if note else ""
    return f'<div class="table"><table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody>{foot}</table></div>{noted}'


def _row(table: ReportTable, row: Row, *, total: bool = False) -> str:
    cells = []
    for index, (column, value) in enumerate(zip(table.columns, row, strict=True)):
        text = ("Total" if index == 0 else "") if total and value is None else value_text(table, column, value)
        direction = ' dir="auto"' if column.type == "text" else ""
        cells.append(f"<td{_class(column.type)}{direction}>{escape(text)}</td>")
    return f"<tr>{''.join(cells)}</tr>"


def _class(type_: str) -> str:
    return f' class="{type_}"' if type_ in ("text", "time") else ""
