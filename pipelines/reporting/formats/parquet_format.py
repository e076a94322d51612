"""A report as Parquet, with the types of its columns: amounts are exact decimals, and times are in UTC.

`arro3` writes it: the Arrow and Parquet of Rust in a twelfth of pyarrow's size (decision 80). The key `sangha.report`
of the file's metadata has what is not in the columns: period, zone, units and totals.
"""

import io
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import orjson
from arro3.core import Array, DataType, Field, Schema, Table
from arro3.io import write_parquet

from pipelines.reporting.formats.json_format import render_json
from pipelines.reporting.report_table import Column, ColumnType, ReportTable, Value

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

#: Decimal places of an amount, of 38 digits in all: prices have up to twelve places and are per million tokens.
SCALE = 18

TYPES: dict[ColumnType, DataType] = {
    "time": DataType.timestamp("us", tz="UTC"),
    "text": DataType.string(),
    "integer": DataType.int64(),
    "decimal": DataType.decimal128(38, SCALE),
    "number": DataType.float64(),
}


def render_parquet(table: ReportTable) -> bytes:
    """Write a report as Parquet."""
    arrays = [_array(column, [row[index] for row in table.rows]) for index, column in enumerate(table.columns)]
    fields = [Field(column.name, TYPES[column.type], nullable=True) for column in table.columns]
    file = io.BytesIO()
    write_parquet(
        Table.from_arrays(arrays, schema=Schema(fields)), file,
        compression="zstd(3)", skip_arrow_metadata=True, key_value_metadata={"sangha.report": _metadata(table)},
    )  # fmt: skip
    return file.getvalue()


def _array(column: Column, values: Sequence[Value]) -> Array:
    """Return a column. Times are made of microseconds, and amounts of their digits."""
    if column.type == "time":
        return Array([_microseconds(value) for value in values], type=DataType.int64()).cast(TYPES["time"])
    if column.type == "decimal":
        return Array([_digits(value) for value in values], type=DataType.string()).cast(TYPES["decimal"])
    return Array(list(values), type=TYPES[column.type])


def _microseconds(value: Value) -> int | None:
    return (value - EPOCH) // timedelta(microseconds=1) if isinstance(value, datetime) else None


def _digits(value: Value) -> str | None:
    return f"{value:f}" if isinstance(value, Decimal | int) else None


def _metadata(table: ReportTable) -> str:
    described: dict[str, Any] = orjson.loads(render_json(table))
    del described["rows"]
    return orjson.dumps(described).decode()
