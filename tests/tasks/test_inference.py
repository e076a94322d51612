"""The actors of the inference pool, with an engine at another host."""

from types import SimpleNamespace

import pytest

from models.accounts.residency import set_residency
from models.jobs.jobs import Job
from models.platform.errors import PermanentFailure
from models.platform.settings import Settings
from models.platform.upstreams import Upstream
from tasks import inference

REMOTE = Settings(engine="openai", upstreams=(Upstream("groq", "https://api.example.com/v1", ("m",)),))
LOCAL = Settings(engine="scripted")


@pytest.fixture
def attempt(database, account):
    """An attempt at a question about memories of an account whose data may not leave the network."""
    with database.connection() as connection:
        set_residency(connection, account, "local")
    values = dict.fromkeys(Job.__dataclass_fields__) | {"account_id": account, "queue": "inference_batch"}
    return SimpleNamespace(database=database, job=Job(**values | {"id": "job_m", "arguments": {}}))


def test_memories_that_may_not_leave_are_not_sent_to_another_host(attempt):
    with pytest.raises(PermanentFailure) as raised:
        inference._at_home(REMOTE, lambda _: pytest.fail("sent"))(attempt)
    assert raised.value.code == "residency"


def test_the_engine_of_the_process_may_have_them(attempt):
    assert inference._at_home(LOCAL, lambda _: "an answer")(attempt) == "an answer"
