"""The broker: RabbitMQ with quorum queues, or Dramatiq's Redis broker in the embedded default.

Only this file knows which.

Dramatiq's own retries, delays and time limits stay off, for they keep messages in a worker's memory: the job's row does
all that. So neither broker has a delay queue.
"""

from typing import Any

import dramatiq

from models.jobs.catalogue import CATALOGUE
from tasks.rabbitmq import QuorumBroker
from tasks.redis_broker import BlockingRedisBroker

Broker = QuorumBroker | BlockingRedisBroker


def build_broker(url: str) -> Broker:
    """The broker at an address. It connects when first used."""
    broker: Broker = QuorumBroker(url) if url.startswith("amqp") else BlockingRedisBroker(url)
    for queue in sorted({kind.queue for kind in CATALOGUE.values()}):
        broker.declare_queue(queue)
    return broker


def job_message(queue: str, kind: str, job_id: str) -> dramatiq.Message[Any]:
    """The message that tells a worker to look at a job's row: its id, and nothing else."""
    return dramatiq.Message(queue_name=queue, actor_name=kind, args=(job_id,), kwargs={}, options={})
