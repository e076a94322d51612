"""Reports as JSON, CSV and Parquet, read with the readers that others use."""

import csv
import io
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal

import orjson
import pyarrow.csv
import pyarrow.parquet
import pytest

from pipelines.reporting.formats.csv_format import guarded
from pipelines.reporting.formats.render import CONTENT_TYPES, render
from pipelines.reporting.report_table import Column, Period
from tests.pipelines.reporting.report_tables import BERLIN, NAMES, table


@pytest.mark.parametrize("report_format", CONTENT_TYPES)
def test_the_same_table_has_the_same_bytes(report_format):
    first, second = (render(table(40, NAMES), report_format) for _ in range(2))

    assert first == second
    assert first.content != render(table(41, NAMES), report_format).content


@pytest.mark.parametrize("report_format", CONTENT_TYPES)
def test_a_report_without_rows_is_a_file_of_its_format(report_format):
    file = render(table(0), report_format)

    assert file.content
    assert file.content_type == CONTENT_TYPES[report_format]


def test_the_name_of_a_file_has_the_days_of_the_zone_and_no_name_of_an_account():
    assert render(table(31, title="../../etc"), "csv").filename == "sangha-usage-2026-10-01-to-2026-10-31.csv"
    assert render(table(1), "pdf").filename == "sangha-usage-2026-10-01.pdf"


def test_json_has_exact_amounts_and_times_with_the_offset_of_the_zone():
    report = orjson.loads(render(table(31), "json").content)

    # Then summer time has ended between the first row and the last one
    assert report["rows"][0]["day"] == "2026-10-01T00:00:00+02:00"
    assert report["rows"][-1]["day"] == "2026-10-31T00:00:00+01:00"
    assert report["rows"][2] == {
        "day": "2026-10-02T00:00:00+02:00", "model": "llama", "jobs": 1, "amount": "0.000007",
        "first_token_p50": 0.265625,
    }  # fmt: skip
    assert sum(Decimal(row["amount"]) for row in report["rows"]) == Decimal(report["totals"]["amount"])
    assert report["snapshot"] == "2026-11-28T13:00:00+01:00"


def test_csv_is_read_with_the_values_that_were_written():
    content = render(table(3, NAMES), "csv").content

    rows = list(csv.DictReader(io.StringIO(content.decode(), newline=""), strict=True))
    arrow = pyarrow.csv.read_csv(io.BytesIO(content))

    assert content.count(b"\r\n") == len(rows) + 1
    assert b"\n" not in content.replace(b"\r\n", b"")
    assert [row["jobs"] for row in rows] == [str(row[2]) for row in table(3, NAMES).rows]
    assert arrow["day"].to_pylist()[0] == date(2026, 10, 1)
    assert arrow["amount"].to_pylist() == [float(row[3]) for row in table(3, NAMES).rows]
    assert arrow["first_token_p50"].null_count == len(NAMES)


@pytest.mark.parametrize(
    "text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "  =1", "\u00a0=1", "\uff1d1", "'=1"]
)
def test_a_text_that_a_spreadsheet_would_calculate_is_guarded(text):
    assert guarded(text) == f"'{text}"


@pytest.mark.parametrize("text", ["", "llama", "a=1", "a-b", " llama", "1-1", "é", "<b>"])
def test_any_other_text_stays_as_it_is(text):
    assert guarded(text) == text


def test_numbers_are_not_guarded():
    report = table(1)
    negative = (report.rows[0][0], "-name", -3, Decimal("-0.5"), -1.5)

    line = render(replace(report, rows=[negative]), "csv").content.decode().splitlines()[1]

    assert line == "2026-10-01,'-name,-3,-0.50,-1.5"


def test_an_hour_that_the_clock_repeats_is_written_with_its_offset():
    # Given the two hours from 2 to 3 at the end of summer time
    hours = [datetime(2026, 10, 25, 2, fold=fold, tzinfo=BERLIN) for fold in (0, 1)]
    report = replace(
        table(1), columns=(Column("hour", "time"),), rows=[(hour,) for hour in hours], totals=(None,), interval="hour"
    )

    lines = render(report, "csv").content.decode().split()

    assert lines == ["hour", "2026-10-25", "02:00+02:00", "2026-10-25", "02:00+01:00"]


def test_parquet_has_typed_columns_and_exact_amounts():
    report = table(31, NAMES)

    read = pyarrow.parquet.read_table(io.BytesIO(render(report, "parquet").content))

    assert [str(field.type) for field in read.schema] == [
        "timestamp[us, tz=UTC]", "string", "int64", "decimal128(38, 18)", "double",
    ]  # fmt: skip
    assert [tuple(row.values()) for row in read.to_pylist()] == [tuple(row) for row in report.rows]
    described = orjson.loads(read.schema.metadata[b"sangha.report"])
    assert (described["time_zone"], described["totals"]["jobs"]) == ("Europe/Berlin", report.totals[2])


def test_parquet_keeps_the_digits_of_large_and_small_amounts():
    amounts = [Decimal("12345678901234567890.123456789012345678"), Decimal("-1E-18"), Decimal("1E+3"), None]
    report = replace(
        table(1), columns=[Column("amount", "decimal")], rows=[(each,) for each in amounts], totals=(None,)
    )

    read = pyarrow.parquet.read_table(io.BytesIO(render(report, "parquet").content))

    assert read["amount"].to_pylist() == amounts


def test_a_period_that_ends_within_a_day_includes_that_day_in_the_name():
    period = Period(datetime(2026, 1, 31, 23, 30, tzinfo=UTC), datetime(2026, 2, 1, 5, tzinfo=UTC))
    report = replace(table(1), period=period)

    assert render(report, "json").filename == "sangha-usage-2026-02-01.json"
