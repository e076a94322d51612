"""Invoices as documents: what they say, as a page and as a PDF."""

import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from pipelines.billing.invoice_document import Document, day, money
from pipelines.billing.invoice_page import render_page
from pipelines.billing.invoice_pdf import render_pdf
from pipelines.billing.pdf_pages import FONT, visual_order

DOCUMENT = Document(
    title="Invoice INV-000001",
    issued_at=datetime(2026, 3, 1, tzinfo=UTC),
    facts=[("Number", "INV-000001")],
    seller=["Sangha"],
    customer=["Ada"],
    rows=[("The plan", "1", "5.00 EUR")],
    totals=[("Total", "5.00 EUR")],
    notes=["Thank you"],
)


@pytest.mark.parametrize(
    "customer",
    ["Ada", "Ωμέγα Кириллица", "שלום", "مرحبا", "漢字 नमस्ते ไทย 🎉", "\u202e\u200d", "x" * 400, "<b>&amp;</b>", ""],
)
def test_any_name_has_the_same_pdf_each_time(customer):
    document = replace(DOCUMENT, customer=[customer])

    first, second = render_pdf(document), render_pdf(document)

    assert first == second
    assert first.startswith(b"%PDF")


def test_names_that_no_font_has_differ():
    assert render_pdf(replace(DOCUMENT, customer=["漢"])) != render_pdf(replace(DOCUMENT, customer=["字"]))


def test_fonts_of_the_data_folder_are_used(tmp_path):
    # Given a folder with a font, and other files
    (tmp_path / "a.ttf").write_bytes(FONT.read_bytes())
    (tmp_path / "notes.txt").write_text("x")

    assert render_pdf(DOCUMENT, tmp_path).startswith(b"%PDF")
    assert render_pdf(DOCUMENT, tmp_path / "missing") == render_pdf(DOCUMENT)


def test_a_long_invoice_has_several_pages():
    rows = [(f"Usage of a model with a long name, number {number}", "1,000", "5.00 EUR") for number in range(100)]

    assert render_pdf(replace(DOCUMENT, rows=rows)).count(b"/Type /Page\n") > 2


def test_the_page_escapes_all_texts():
    evil = "<script>alert(1)</script>\"'"
    document = Document(
        evil, DOCUMENT.issued_at, [(evil, evil)], [evil], [evil], [(evil, evil, evil)], [(evil, evil)], [evil]
    )

    page = render_page(document, evil, credit_notes=[evil]).decode()

    assert "<script" not in page
    assert page.count("&lt;script&gt;") == 14


@pytest.mark.parametrize(
    ("amount", "currency", "text"),
    [("1234567.5", "EUR", "1,234,567.50 EUR"), ("-3", "JPY", "-3 JPY"), ("0.0005", "KWD", "0.0005 KWD")],
)
def test_amounts_for_people(amount, currency, text):
    assert money(Decimal(amount), currency) == text


def test_dates_are_in_utc():
    assert day(datetime.fromisoformat("2026-03-01T00:30:00+01:00")) == "28 February 2026"


@pytest.mark.parametrize(
    ("text", "written"),
    [("Ada", "Ada"), ("Ada (שלום) 12", "Ada (םולש) 12"), ("مرحبا", "\ufe8e\ufe92\ufea3\ufeae\ufee3")],
)
def test_a_text_is_written_from_left_to_right(text, written):
    assert visual_order(text) == written


def test_the_pdf_is_written_in_a_process_with_the_embedder():
    # Given the module of llama.cpp, which not every module can be loaded with
    code = "import xllamacpp, pipelines.billing.invoice_pdf"

    assert subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode == 0
