"""Given a file, when its text is read, then it is that of the file, or an error says why there is none."""

import io
import resource
import time
import zlib

import pytest
from fpdf import FPDF
from pypdf import PdfReader, PdfWriter

from models.platform.errors import Cancelled
from pipelines.files import pdf_script, pdf_text
from pipelines.files.texts import text_of
from pipelines.files.unreadable import UnreadableFile

PDF = "application/pdf"


def never_stop():
    pass


def pdf_of(*pages):
    pdf = FPDF()
    for text in pages:
        pdf.add_page()
        pdf.set_font("helvetica", size=12)
        pdf.cell(text=text)
    return bytes(pdf.output())


def raw_pdf(content, *, filters=1, pages=1):
    """Return a PDF whose pages share one content stream, compressed so many times."""
    for _ in range(filters):
        content = zlib.compress(content, 9)
    names = "/FlateDecode " * filters
    fonts = b"/Font<</F<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>>>"
    kids = " ".join(f"{4 + number} 0 R" for number in range(pages))
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        f"<</Type/Pages/Count {pages}/Kids[{kids}]>>".encode(),
        f"<</Filter[{names}]/Length {len(content)}>>stream\n".encode() + content + b"\nendstream",
        *[b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 9 9]/Contents 3 0 R/Resources<<" + fonts + b">>>>"] * pages,
    ]
    body, offsets = b"%PDF-1.7\n", list[int]()
    for number, each in enumerate(objects, 1):
        offsets.append(len(body))
        body += f"{number} 0 obj\n".encode() + each + b"\nendobj\n"
    table = "".join(f"{offset:010} 00000 n \n" for offset in offsets)
    trailer = f"trailer<</Size {len(objects) + 1}/Root 1 0 R>>\nstartxref\n{len(body)}\n%%EOF"
    return body + f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}".encode() + trailer.encode()


@pytest.mark.parametrize("content_type", ["text/plain", "text/html; charset=utf-8", "application/json"])
def test_text_is_read_as_it_is(content_type):
    assert text_of("<b>größer</b>\r\n".encode(), content_type, never_stop) == "<b>größer</b>\r\n"


def test_byte_order_mark_and_nul_are_no_text():
    assert text_of(b"\xef\xbb\xbfa\0b", "text/csv", never_stop) == "ab"


def test_pages_of_a_pdf_are_read_in_order():
    assert text_of(pdf_of("first page", "second page"), PDF, never_stop) == "first page\n\nsecond page"


def test_pdf_that_opens_without_a_password_is_read():
    writer = PdfWriter(clone_from=PdfReader(io.BytesIO(pdf_of("open"))))
    writer.encrypt("", "owner", algorithm="AES-256")
    buffer = io.BytesIO()
    writer.write(buffer)

    assert text_of(buffer.getvalue(), PDF, never_stop) == "open"


def encrypted():
    writer = PdfWriter(clone_from=PdfReader(io.BytesIO(pdf_of("secret"))))
    writer.encrypt("password", algorithm="AES-256")
    buffer = io.BytesIO()
    writer.write(buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "content_type", "reason"),
    [
        (b"\xff\xfe", "text/plain", "not a text in UTF-8"),
        (b"x" * 1_000_001, "text/plain", "more than 1,000,000 characters"),
        (b"x" * ((8 << 20) + 1), "text/plain", "at most 8,388,608 are read"),
        (b"PK", "application/zip", "its type is application/zip"),
        (b"%PDF-1.7 nonsense", PDF, "damaged"),
        (b"", PDF, "damaged"),
        (encrypted(), PDF, "encrypted"),
        (raw_pdf(b""), PDF, "no text"),
        (raw_pdf(b"", pages=pdf_script.MAX_PAGES + 1), PDF, "more than 2,000 pages"),
    ],
)
def test_file_without_a_text_is_refused_with_the_reason(content, content_type, reason):
    with pytest.raises(UnreadableFile, match=reason):
        text_of(content, content_type, never_stop)


def test_text_of_a_pdf_is_limited_while_its_pages_are_read():
    with pytest.raises(UnreadableFile, match="more than 15 characters"):
        text_of(pdf_of("first page", "second page"), PDF, never_stop, 15)


@pytest.mark.parametrize("filters", [1, 2])
def test_compressed_bomb_neither_takes_memory_here_nor_hours(filters):
    # 1 GiB of zeros becomes 1 MB, and 1 kB if it is compressed twice.
    bomb = raw_pdf(b"\0" * (1 << 30), filters=filters)
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()

    with pytest.raises(UnreadableFile):
        text_of(bomb, PDF, never_stop)

    assert time.monotonic() - began < pdf_text.TIMEOUT + 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10  # kilobytes


def slow_pdf():
    """Return a small PDF whose pages, each of a megabyte of operators, pypdf reads for many minutes."""
    return raw_pdf(b"BT /F 1 Tf (x) Tj ET\n" * 50_000, pages=1_000)


def test_pdf_that_takes_too_long_is_given_up():
    slow = slow_pdf()

    with pytest.raises(UnreadableFile, match="seconds to read"):
        pdf_text.pdf_text(slow, 1_000_000_000, never_stop, timeout=1)


def test_attempt_that_should_stop_does_not_wait_for_a_pdf():
    slow = slow_pdf()

    def stop():
        raise Cancelled("cancelled")

    began = time.monotonic()
    with pytest.raises(Cancelled):
        pdf_text.pdf_text(slow, 1_000_000_000, stop)
    assert time.monotonic() - began < 5
