"""An invoice or a credit note as an HTML page, which loads nothing and runs nothing."""

import hashlib
from base64 import b64encode
from collections.abc import Iterable, Sequence
from html import escape

from pipelines.billing.invoice_document import Document

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 46rem; margin: 0 auto; padding: 2rem 1rem; color: #222; }
h1 { font-size: 1.5rem; margin: 0 0 1.5rem; }
h2 { font-size: .8rem; text-transform: uppercase; letter-spacing: .05em; color: #666; margin: 0 0 .25rem; }
.state { float: right; border: 1px solid; border-radius: .4rem; padding: .1rem .6rem; }
.parties { display: flex; flex-wrap: wrap; gap: 1rem 3rem; margin-bottom: 2rem; }
.parties section { flex: 1 1 12rem; }
.parties p { margin: 0; overflow-wrap: anywhere; }
table { width: 100%; border-collapse: collapse; margin-bottom: 1rem; }
th, td { text-align: left; padding: .4rem .5rem; border-bottom: 1px solid #ddd; overflow-wrap: anywhere; }
th + th, td + td { text-align: right; white-space: nowrap; }
table.totals { width: auto; min-width: 50%; margin-left: auto; }
table.totals tr:last-child { font-weight: bold; }
.note { white-space: pre-wrap; overflow-wrap: anywhere; }
@media print { body { padding: 0; } }
"""

_STYLE_HASH = b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()

#: Only the page's own style is applied.
CONTENT_SECURITY_POLICY = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)


def render_page(document: Document, state: str = "", *, credit_notes: Sequence[str] = ()) -> bytes:
    """Render a document. `state` and the numbers of credit notes are what became of it since, shown apart from it."""
    title = escape(document.title)
    badge = f'<span class="state">{escape(state)}</span>' if state else ""
    rows = "".join(_row(row) for row in document.rows)
    totals = "".join(_row(row) for row in document.totals)
    notes = "".join(f'<p class="note">{escape(note)}</p>' for note in document.notes)
    credited = f"<p>Credit notes: {escape(', '.join(credit_notes))}</p>" if credit_notes else ""
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head><body>
{badge}<h1>{title}</h1>
<div class="parties">{_section("From", document.seller)}{_section("To", document.customer)}
{_section("Details", [f"{name}: {value}" for name, value in document.facts])}</div>
<table><thead><tr><th>Description</th><th>Quantity</th><th>Amount</th></tr></thead><tbody>{rows}</tbody></table>
<table class="totals"><tbody>{totals}</tbody></table>
{notes}{credited}
</body></html>
""".encode()


def _section(heading: str, lines: Iterable[str]) -> str:
    paragraphs = "".join(f'<p dir="auto">{escape(line)}</p>' for line in lines)
    return f"<section><h2>{escape(heading)}</h2>{paragraphs}</section>"


def _row(cells: Iterable[str]) -> str:
    return f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"
