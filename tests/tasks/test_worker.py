"""A worker process serves several pools, each with threads of its own."""

import logging

from tasks.worker import create_dramatiq_worker


def test_pools_of_one_process_log_no_middleware_warning(runner, caplog):
    # Given
    caplog.set_level(logging.WARNING)

    # When
    for queue in ("memory", "recall"):
        create_dramatiq_worker(runner, [queue], 1)

    # Then
    assert not caplog.records
