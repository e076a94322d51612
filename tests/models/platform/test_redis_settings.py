"""Settings of clusters, Sentinels and shard streams."""

import pytest

from models.journal.shards import MAX_SHARDS, SHARDS
from models.platform.errors import ConfigurationError
from models.platform.settings import Settings, load_settings
from tasks.broker import build_broker


@pytest.mark.parametrize(
    "url", ["redis+cluster://one:7000,two:7001", "rediss+cluster://:p%2Fss@one", "redis+sentinel://one,two:1/chat/3"]
)
def test_urls_of_clusters_and_sentinels_are_accepted(monkeypatch, url):
    monkeypatch.setenv("SANGHA_REDIS_URL", url)

    assert load_settings().redis_address == url


@pytest.mark.parametrize(
    ("name", "url", "message"),
    [
        ("SANGHA_REDIS_URL", "redis+sentinel://one", "name the service"),
        ("SANGHA_REDIS_URL", "redis+cluster://one:7000,two:port", "well-formed"),
        ("SANGHA_BROKER_URL", "redis+cluster://one", "should be amqp://"),
    ],
)
def test_malformed_urls_are_rejected(monkeypatch, name, url, message):
    monkeypatch.setenv(name, url)

    with pytest.raises(ConfigurationError, match=message):
        load_settings()


def test_a_cluster_as_broker_is_a_configuration_error():
    settings = Settings(redis_url="redis+cluster://one")

    with pytest.raises(ConfigurationError, match="SANGHA_BROKER_URL"):
        build_broker(settings.broker_address)


def test_the_number_of_shards_is_limited_by_what_web_processes_read():
    field = Settings.model_fields["stream_shards"]

    assert field.default == SHARDS
    assert MAX_SHARDS in [getattr(rule, "le", None) for rule in field.metadata]
