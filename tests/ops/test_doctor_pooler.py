"""The doctor checks that the connections of a pooler have their limits."""

import psycopg
from psycopg.conninfo import conninfo_to_dict

from bench.harness.waiting import wait_until
from models.platform import pooler as database_pooler
from models.platform.settings import Settings
from ops.doctor.finding import run_check
from ops.doctor.servers import pooler
from tests.databases import bare_database


def test_doctor_reports_missing_limits_until_they_are_stored(postgres, pgbouncer):
    with bare_database(postgres) as dsn:
        name = conninfo_to_dict(dsn)["dbname"]
        settings = Settings(database_url=dsn, database_pooler_url=pgbouncer.url(name))

        finding = run_check(pooler, settings)
        assert (finding.verdict, "lock_timeout" in finding.detail) == ("warn", True)

        database_pooler.store_limits(settings)
        console = psycopg.connect(pgbouncer.url("pgbouncer"), autocommit=True, cursor_factory=psycopg.ClientCursor)
        with console:
            console.execute(f"RECONNECT {name}")
        assert wait_until(lambda: run_check(pooler, settings).verdict == "ok")


def test_doctor_names_an_unreachable_pooler():
    finding = run_check(pooler, Settings(database_pooler_url="postgresql://127.0.0.1:1/nowhere"))

    assert (finding.verdict, finding.remedy) == ("FAIL", "check SANGHA_DATABASE_POOLER_URL")


def test_doctor_accepts_an_installation_without_a_pooler(settings):
    assert run_check(pooler, settings).verdict == "ok"
