-- roll: expand
-- The usage of a job that several engines have served, by engine, or an endpoint by another name than that of the model
-- asked for. Other jobs have no row: their record has it all.
CREATE TABLE usage_segments (
    job_id            text     NOT NULL REFERENCES usage_records ON DELETE CASCADE,
    position          smallint NOT NULL,
    account_id        text     NOT NULL REFERENCES accounts ON DELETE CASCADE,
    segment_model     text     NOT NULL,  -- as the engine names it
    segment_endpoint  text     NOT NULL,  -- empty: a local engine
    segment_input     integer  NOT NULL,
    segment_cached    integer  NOT NULL,
    segment_output    integer  NOT NULL,
    segment_amount    numeric,            -- without a price it is free
    segment_price_id  text,
    PRIMARY KEY (job_id, position)
);
