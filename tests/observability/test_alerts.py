"""Each alert fires with the series of its fault, and none fires with those of a healthy installation."""

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
RULES = sorted((ROOT / "observability" / "prometheus" / "rules").glob("*.yml"))
RUNBOOKS = ROOT / "docs" / "guides" / "runbooks.md"

#: Samples of every 30 seconds, for an hour; promtool's time begins at 0.
HEALTHY = {
    "sangha_promise_lost_turns": "0x120",
    "sangha_promise_repeated_events": "0x120",
    "sangha_promise_double_charges": "0x120",
    "sangha_promise_unbalanced_postings": "0x120",
    "sangha_promises_checked_timestamp_seconds": "0+30x120",
    'sangha_oldest_job_seconds{queue="inference"}': "2x120",
    'sangha_oldest_job_seconds{queue="inference_batch"}': "600x120",
    'sangha_jobs{queue="inference",kind="turn.run",state="running"}': "4x120",
    'sangha_jobs{queue="inference_batch",kind="memory.fact",state="running"}': "1x120",
    'sangha_jobs{queue="inference",kind="turn.run",state="dead"}': "0x120",
    "sangha_relay_lag_seconds": "0.1x120",
    'sangha_workers{pool="tools",state="live"}': "2x120",
    'sangha_workers{pool="tools",state="silent"}': "0x120",
    'sangha_worker_lease_age_seconds{pool="tools"}': "4x120",
    "sangha_scheduler_leader": "1x120",
    'sangha_scheduler_last_run_timestamp_seconds{task="clock"}': "0+30x120",
    'up{job="sangha"}': "1x120",
    'sangha_process_restarts_total{process="web"}': "1x120",
    'process_start_time_seconds{job="sangha"}': "5x120",
    'sangha_database_pool_waiting{pool="web"}': "0x120",
    "sangha_redis_memory_bytes": "100x120",
    "sangha_redis_memory_limit_bytes": "1000x120",
    'sangha_http_requests_total{route="/v1/responses",status="200"}': "0+300x120",
    'sangha_http_requests_total{route="/v1/responses",status="503"}': "0+3x120",
    'sangha_turn_duration_seconds_count{state="completed"}': "0+300x120",
    'sangha_turn_duration_seconds_count{state="failed"}': "0+3x120",
    'sangha_time_to_first_token_seconds_bucket{model="m",le="1"}': "0+100x120",
    'sangha_time_to_first_token_seconds_bucket{model="m",le="30"}': "0+100x120",
    'sangha_time_to_first_token_seconds_bucket{model="m",le="+Inf"}': "0+100x120",
    'sangha_endpoint_breaker{endpoint="groq",state="open"}': "0x120",
    'sangha_spill_budget_used_ratio{endpoint="groq",limit="turns"}': "0.5x120",
    'sangha_webhook_endpoints{state="enabled"}': "20x120",
    'sangha_webhook_endpoints{state="failing"}': "2x120",
}

#: The series in which the fault of each alert differs.
FAULTS = {
    "SanghaLostTurns": {"sangha_promise_lost_turns": "1x120"},
    "SanghaRepeatedEvents": {"sangha_promise_repeated_events": "1x120"},
    "SanghaDoubleCharges": {"sangha_promise_double_charges": "1x120"},
    "SanghaUnbalancedPostings": {"sangha_promise_unbalanced_postings": "1x120"},
    "SanghaPromisesUnchecked": {"sangha_promises_checked_timestamp_seconds": "0x120"},
    "SanghaQueueWait": {'sangha_oldest_job_seconds{queue="inference"}': "90x120"},
    "SanghaQueueNotServed": {'sangha_jobs{queue="inference_batch",kind="memory.fact",state="running"}': "0x120"},
    "SanghaRelayLag": {"sangha_relay_lag_seconds": "20x120"},
    "SanghaDeadJobs": {'sangha_jobs{queue="inference",kind="turn.run",state="dead"}': "1x120"},
    "SanghaWorkersSilent": {'sangha_workers{pool="tools",state="silent"}': "1x120"},
    "SanghaLeasesLate": {'sangha_worker_lease_age_seconds{pool="tools"}': "25x120"},
    "SanghaNoScheduler": {"sangha_scheduler_leader": "0x120"},
    "SanghaSchedulerTaskStopped": {'sangha_scheduler_last_run_timestamp_seconds{task="clock"}': "0x120"},
    "SanghaTargetDown": {'up{job="sangha"}': "0x120"},
    "SanghaProcessRestarts": {'sangha_process_restarts_total{process="web"}': "0+1x120"},
    "SanghaDatabasePoolExhausted": {'sangha_database_pool_waiting{pool="web"}': "3x120"},
    "SanghaRedisMemory": {"sangha_redis_memory_bytes": "900x120"},
    "SanghaServerErrors": {'sangha_http_requests_total{route="/v1/responses",status="503"}': "0+30x120"},
    "SanghaTurnsFail": {'sangha_turn_duration_seconds_count{state="failed"}': "0+30x120"},
    "SanghaFirstTokenSlow": {'sangha_time_to_first_token_seconds_bucket{model="m",le="1"}': "0+10x120"},
    "SanghaBreakerOpen": {'sangha_endpoint_breaker{endpoint="groq",state="open"}': "1x120"},
    "SanghaSpillBudget": {'sangha_spill_budget_used_ratio{endpoint="groq",limit="turns"}': "0.9x120"},
    "SanghaWebhookEndpointsFailing": {'sangha_webhook_endpoints{state="failing"}': "10x120"},
}


def alerts() -> dict[str, dict]:
    """Return the alert rules by name."""
    groups = [group for file in RULES for group in yaml.safe_load(file.read_text())["groups"]]
    return {rule["alert"]: rule for group in groups for rule in group["rules"] if "alert" in rule}


def check_firing(folder: Path, series: Mapping[str, str], firing: set[str]) -> str:
    """Return what promtool reports unless exactly these alerts fire after 50 minutes."""
    samples = [{"labels": f'{{alertname="{name}"}}', "value": 1} for name in sorted(firing)]
    test = {
        "interval": "30s",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [
            {
                "expr": 'max by (alertname) (ALERTS{alertstate="firing"})',
                "eval_time": "50m",
                "exp_samples": samples,
            }
        ],
    }
    file = folder / "test.yml"
    file.write_text(
        yaml.safe_dump({"rule_files": list(map(str, RULES)), "evaluation_interval": "30s", "tests": [test]})
    )
    done = subprocess.run(["promtool", "test", "rules", file], capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def test_promtool_finds_nothing_wrong():
    done = subprocess.run(["promtool", "check", "rules", *RULES], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("alert", sorted(alerts()))
def test_an_alert_fires_with_its_fault_and_alone(alert, tmp_path):
    # Given series of a healthy installation, except for the fault of the alert
    assert FAULTS[alert].keys() <= HEALTHY.keys()

    # Then it fires, and no other
    assert check_firing(tmp_path, HEALTHY | FAULTS[alert], {alert}) == ""


def test_no_alert_fires_without_a_fault(tmp_path):
    assert check_firing(tmp_path, HEALTHY, set()) == ""


def test_a_scheduler_that_is_gone_is_found(tmp_path):
    series = {name: values for name, values in HEALTHY.items() if "scheduler" not in name}

    assert check_firing(tmp_path, series, {"SanghaNoScheduler"}) == ""


def test_a_process_that_is_started_again_and_again_is_found(tmp_path):
    restarting = {'process_start_time_seconds{job="sangha"}': "0+30x120"}

    assert check_firing(tmp_path, HEALTHY | restarting, {"SanghaProcessRestarts"}) == ""


@pytest.mark.parametrize("alert", sorted(alerts()))
def test_an_alert_says_how_bad_it_is_its_value_and_what_to_do(alert):
    rule = alerts()[alert]
    headings = {name.lower() for name in re.findall(r"^### (\w+)$", RUNBOOKS.read_text(), re.MULTILINE)}

    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert rule["annotations"]["summary"]
    assert "$value" in rule["annotations"]["description"]
    assert rule["annotations"]["runbook_url"].removeprefix("docs/guides/runbooks.md#") in headings


def test_each_runbook_has_an_alert_and_says_what_to_do():
    runbooks = re.split(r"^### ", RUNBOOKS.read_text(), flags=re.MULTILINE)[1:]

    assert {text.split("\n")[0] for text in runbooks} == alerts().keys()
    for text in runbooks:
        assert all(part in text for part in ("**What it means**", "**Look at.**", "**Do.**"))
