"""A worker process serves several pools, each with threads of its own."""

import logging

from tasks.worker import create_dramatiq_worker


def test_pools_of_one_process_log_no_middleware_warning(runner, caplog):
    # Given
    caplog.set_level(logging.WARNING)
    workers = [create_dramatiq_worker(runner, queue, 1) for queue in ("memory", "recall")]

    # When
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.stop()

    # Then
    assert [record.getMessage() for record in caplog.records] == []
