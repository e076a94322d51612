-- roll: expand
-- How many requests to endpoints have failed, for the metric.
CREATE TABLE endpoint_failures (
    failed_upstream text   NOT NULL,
    failure_kind    text   NOT NULL,
    failed_requests bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (failed_upstream, failure_kind)
);
