"""JSON in lines."""

import orjson
from hypothesis import example, given
from hypothesis import strategies as st

from models.platform.json_lines import escape_line_separators


@given(st.text())
@example("My dog Rex\u2028loves the beach\u0085at the lake\u2029")
@example("é\u0085\u0805 \u2027")
def test_json_is_one_line_for_every_reader_and_keeps_its_value(text):
    data = escape_line_separators(orjson.dumps({"text": text}))

    assert len(data.decode().splitlines()) == 1
    assert orjson.loads(data) == {"text": text}
