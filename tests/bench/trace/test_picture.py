"""Given the steps of a turn, when they are drawn, then each is labelled, without overlap."""

from itertools import pairwise
from xml.etree import ElementTree

from bench.trace.picture import LINE, lines, picture
from bench.trace.turn import CLIENT, TraceStep

SVG = "{http://www.w3.org/2000/svg}"

OVERLAPPING = [
    TraceStep("web: relay", "postgres", f"S{number} < &", number / 100, number / 100 + 0.5) for number in range(20)
]
LAST = TraceStep(CLIENT, "mark", "response.completed", 5.0, 5.0)


def labels(svg, starting):
    texts = ElementTree.fromstring(svg).iter(f"{SVG}text")
    return [float(text.get("y")) for text in texts if text.text.startswith(starting)]


def test_labels_of_overlapping_steps_are_below_each_other():
    ys = labels(picture([*OVERLAPPING, LAST], "a turn"), "S")

    assert len(ys) == len(OVERLAPPING)
    assert all(below - above >= LINE for above, below in pairwise(ys))


def test_a_round_trip_with_several_statements_has_a_line_for_each_and_one_time():
    step = TraceStep("worker: turn", "postgres", "BEGIN + a.B", 1.0, 1.5, ("BEGIN", "a.B"))

    assert lines(step) == ["BEGIN", "a.B 0.50"]


def test_events_received_together_are_labelled_without_their_prefix():
    assert lines(TraceStep(CLIENT, "mark", "response.created + response.queued", 0, 0)) == ["created", "queued"]
