"""Choose the broker: RabbitMQ with quorum queues, or Dramatiq's Redis broker in the embedded default.

Dramatiq's own retries, delays and time limits are disabled, because they keep messages in a worker's memory; the job's
row implements them. So neither broker has delay queues.
"""

from typing import Any

import dramatiq

from models.jobs.catalogue import CATALOGUE
from models.platform.errors import ConfigurationError
from models.platform.redis_url import is_cluster_url
from tasks.rabbitmq import QuorumBroker
from tasks.redis_broker import BlockingRedisBroker

Broker = QuorumBroker | BlockingRedisBroker


def build_broker(url: str) -> Broker:
    """Return a broker for a URL, with all queues declared. It connects on first use. Raises ConfigurationError."""
    if is_cluster_url(url):
        raise ConfigurationError("a Redis Cluster cannot be the broker: set SANGHA_BROKER_URL to RabbitMQ")
    broker: Broker = QuorumBroker(url) if url.startswith("amqp") else BlockingRedisBroker(url)
    for queue in sorted({kind.queue for kind in CATALOGUE.values()}):
        broker.declare_queue(queue)
    return broker


def job_message(queue: str, kind: str, job_id: str) -> dramatiq.Message[Any]:
    """Return the message that asks a worker to claim a job. It carries only the job's id."""
    return dramatiq.Message(queue_name=queue, actor_name=kind, args=(job_id,), kwargs={}, options={})
