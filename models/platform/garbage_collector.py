"""Python's garbage collector, as processes use it that run for days."""

import gc

#: Thresholds of the generations (`gc.set_threshold`). A request or turn allocates some hundreds of objects, nearly all
#: of which are freed by reference counting.
THRESHOLDS = (5000, 20, 20)


def freeze_garbage_collector() -> None:
    """Exclude what is loaded from collection: it stays for ever, and scanning it delays all streams and attempts."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
