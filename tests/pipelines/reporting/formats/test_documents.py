"""Reports as pages and PDFs: what they say, that names do nothing, and that large ones stay readable."""

import io
import re
import subprocess
import sys
import warnings
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import html5lib
import pytest
from pypdf import PdfReader

from pipelines.reporting.formats import html_page, pdf_document
from pipelines.reporting.formats.charts import MAX_BARS, MAX_SERIES, charts_of
from pipelines.reporting.formats.drawing import HEIGHT, WIDTH, Label, Rectangle, draw
from pipelines.reporting.formats.render import render
from pipelines.reporting.formats.texts import heading
from pipelines.reporting.report_table import Column, Period
from tests.pipelines.reporting.report_tables import NAMES, START, ranking, table

EVIL = "<script>alert(1)</script>\"'&</title></style>"


def parse(content):
    """Parse a page; an error of HTML fails."""
    return html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parse(content.decode())


def tag(element):
    """Return the name of an element, without the namespace of SVG."""
    return str(element.tag).rpartition("}")[2]


def pages(content):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return [page.extract_text() for page in PdfReader(io.BytesIO(content)).pages]


@pytest.mark.parametrize("report", [table(0), table(1), table(300, NAMES), ranking(1), ranking(300)])
def test_a_page_is_valid_html_that_loads_and_runs_nothing(report):
    content = render(report, "html").content

    page = parse(content)

    names = {tag(each) for each in page.iter()}
    assert not names & {"script", "img", "link", "iframe", "object", "form", "a", "foreignObject", "use", "image"}
    assert not {name for each in page.iter() for name in each.attrib if name.startswith("on") or "href" in name}
    assert b"default-src 'none'" in content
    assert not re.search(rb"url\(|@import", content)


def test_a_page_shows_names_as_texts():
    page = parse(render(table(3, (EVIL, "other"), EVIL), "html").content)

    assert page.findtext(".//h1") == EVIL
    assert page.findtext("head/title") == EVIL
    assert [cell.text for cell in page.iter("td")].count(EVIL) == 3
    assert EVIL in [each.text for each in page.iter() if tag(each) == "title"][1:]


def test_a_page_says_that_it_has_not_all_rows(monkeypatch):
    monkeypatch.setattr(html_page, "MAX_ROWS", 10)

    page = render(table(30), "html").content.decode()

    assert "The first 10 of 60 rows." in page
    assert page.count("<tr>") == 10 + 2


def test_of_many_groups_the_largest_are_charted_and_the_others_are_summed():
    report = table(5, tuple(f"model {number}" for number in range(40)))

    jobs, _, seconds = charts_of(report)

    assert [series.name for series in jobs.series[:2]] == ["model 39", "model 38"]
    assert (len(jobs.series), jobs.series[-1].name) == (MAX_SERIES, "others")
    assert sum(sum(series.values) for series in jobs.series) == report.totals[2]
    # Then a measured value has no sum, and each group has its colour in all charts
    assert [series.name for series in seconds.series] == [series.name for series in jobs.series[:-1]]
    assert seconds.series[0].values[2] is None


def test_a_ranking_is_cut_and_says_what_the_others_sum_up_to():
    jobs, *_ = charts_of(ranking(300))

    assert (jobs.kind, len(jobs.labels), jobs.labels[0]) == ("bars", MAX_BARS, "model 0299")
    assert (jobs.series[1].name, jobs.series[1].values) == ("280 others", [sum(range(280))])


@pytest.mark.parametrize("report", [table(1), table(3), table(300, NAMES), ranking(3), ranking(300)])
def test_charts_stay_within_their_size(report):
    for chart in charts_of(report):
        drawing = draw(chart)
        for shape in drawing.shapes:
            if isinstance(shape, Rectangle):
                assert shape.x >= 0
                assert shape.x + shape.width <= WIDTH + 0.01
                assert shape.y >= 0
                assert shape.y + shape.height <= drawing.height + 0.01
            if isinstance(shape, Label):
                assert 0 <= shape.x <= WIDTH
                assert 0 <= shape.y <= drawing.height
        assert chart.kind == "bars" or drawing.height >= HEIGHT


@pytest.mark.parametrize("count", [2, 7, 31, 72, 300])
@pytest.mark.parametrize("interval", ["hour", "day"])
def test_labels_of_times_do_not_overlap(count, interval):
    report = table(1)
    hours = [(START + timedelta(hours=number), 1) for number in range(count)]
    report = replace(
        report,
        columns=[Column("time", "time"), Column("jobs", "integer")],
        rows=hours if interval == "hour" else [(START + timedelta(days=number), 1) for number in range(count)],
        totals=(None, count),
        interval=interval,
        period=Period(START, START + timedelta(hours=count) if interval == "hour" else START + timedelta(days=count)),
    )

    shapes = draw(charts_of(report)[0]).shapes

    times = [shape for shape in shapes if isinstance(shape, Label) and shape.anchor == "middle"]
    assert 2 <= len(times) <= 8
    for left, right in pairwise(times):
        assert right.x - left.x > 6.8 * max(len(left.text), len(right.text))


def test_a_heading_has_a_unit_once():
    units = [("input_tokens", "tokens"), ("tokens_per_second", "tokens/s"), ("first_token_p50", "s"), ("amount", "EUR")]

    headings = [heading(Column(name, "number", unit)) for name, unit in units]

    assert headings == ["Input tokens", "Tokens per second", "First token p50 (s)", "Amount (EUR)"]


def test_a_pdf_has_page_numbers_and_the_heading_of_the_table_on_each_page():
    texts = pages(render(table(200), "pdf").content)

    assert len(texts) > 5
    assert all(f"Page {number} of {len(texts)}" in text for number, text in enumerate(texts, 1))
    assert all("First token p50 (s)" in text for text in texts[2:])
    assert "Total" in texts[-1]
    assert f"{table(200).totals[2]:,}" in texts[-1]
    assert "2026-10-01 to 2027-04-18" in texts[0]


def test_a_pdf_has_names_as_texts_and_code_points_of_what_no_font_has():
    texts = "".join(pages(render(table(40, NAMES, EVIL), "pdf").content))

    assert [name for name in ("[U+6F22]", "<script>", "=HYPERLINK", "(none)") if name not in texts] == []


def test_a_pdf_says_that_it_has_not_all_rows(monkeypatch):
    monkeypatch.setattr(pdf_document, "MAX_ROWS", 10)

    assert "The first 10 of 60 rows." in "".join(pages(render(table(30), "pdf").content))


def test_the_libraries_of_reports_load_into_a_process_with_an_engine():
    code = "import xllamacpp, pipelines.reporting.formats.parquet_format, pipelines.reporting.formats.pdf_document"

    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_quantiles_are_lines_of_one_chart():
    names = ("queue_wait_p50", "queue_wait_p95", "first_token_p50", "first_token_p95")
    report = replace(
        table(2, ("a",)),
        columns=[Column("day", "time"), Column("turns", "integer"), *(Column(name, "number", "s") for name in names)],
        rows=[(START, 3, 0.1, 0.2, 0.3, 0.4), (START + timedelta(days=1), 4, 0.5, 0.6, 0.7, 0.8)],
        totals=(None, 7, None, None, None, None),
    )

    turns, queue, first_token = charts_of(report)

    assert (turns.title, queue.title, first_token.title) == ("Turns", "Queue wait (s)", "First token (s)")
    assert [(series.name, series.values) for series in queue.series] == [("p50", [0.1, 0.5]), ("p95", [0.2, 0.6])]


def test_days_without_a_row_are_in_the_chart():
    report = table(31, ("a",))
    gaps = replace(report, rows=[report.rows[0], report.rows[30]])

    jobs, _, seconds = charts_of(gaps)

    assert (len(jobs.labels), jobs.labels[24], jobs.labels[30]) == (31, "2026-10-25", "2026-10-31")
    assert jobs.series[0].values[1:30] == [None] * 29
    assert seconds.series[0].values[15] is None


def test_a_chart_ends_with_the_snapshot():
    report = table(3, ("a",))

    assert len(charts_of(replace(report, snapshot=START + timedelta(hours=30)))[0].labels) == 3
    assert len(charts_of(replace(report, snapshot=START + timedelta(hours=30), rows=report.rows[:2]))[0].labels) == 2


def test_a_column_that_tells_no_groups_apart_is_in_no_name():
    report = table(3, ("a", "b"))
    columns = [report.columns[0], Column("currency", "text"), *report.columns[1:]]
    priced = replace(
        report, columns=columns, rows=[(row[0], "EUR", *row[1:]) for row in report.rows], totals=(None, *report.totals)
    )

    assert [series.name for series in charts_of(priced)[0].series] == ["b", "a"]


def test_hours_of_a_zone_with_half_hours_are_its_own():
    start = datetime(2026, 1, 1, 0, 30, tzinfo=ZoneInfo("Asia/Kolkata"))
    report = replace(
        table(1),
        columns=[Column("hour", "time"), Column("jobs", "integer")],
        rows=[(start.replace(minute=0), 1)],
        totals=(None, 1),
        interval="hour",
        time_zone="Asia/Kolkata",
        period=Period(start, start + timedelta(hours=3)),
    )

    assert charts_of(report)[0].labels == [f"2026-01-01 0{hour}:00+05:30" for hour in range(4)]


def test_a_level_holds_until_its_next_value():
    report = replace(
        table(5, ("a",)),
        columns=[Column("day", "time"), Column("living", "integer", is_level=True)],
        rows=[(START + timedelta(days=1), 3), (START + timedelta(days=3), 5)],
        totals=(None, 5),
    )

    assert charts_of(report)[0].series[0].values == [None, 3, 3, 5, 5]
