-- roll: expand
-- Money. Amounts are decimal numbers in the currency's main unit (19.99), of any number of digits where usage is
-- measured, and rounded to the currency's minor unit where somebody pays them. `currency` is an ISO 4217 code.

-- Who issues the invoices. Their numbers have no gaps: the row is locked while one is given.
CREATE TABLE sellers (
    id                  text         PRIMARY KEY,
    name                text         NOT NULL,
    address             text         NOT NULL DEFAULT '',
    email               text         NOT NULL DEFAULT '',
    tax_id              text         NOT NULL DEFAULT '',
    note                text         NOT NULL DEFAULT '',   -- at the foot of invoices, such as a bank account
    default_currency    text         NOT NULL,              -- of accounts that have not chosen one
    invoice_prefix      text         NOT NULL,
    last_invoice        integer      NOT NULL DEFAULT 0,
    credit_note_prefix  text         NOT NULL,
    last_credit_note    integer      NOT NULL DEFAULT 0,
    payment_days        integer      NOT NULL DEFAULT 14,   -- until an invoice is due
    retry_days          integer[]    NOT NULL DEFAULT '{1,3,5,7}'   -- after a failed payment, when it is tried again
);

INSERT INTO sellers (id, name, default_currency, invoice_prefix, credit_note_prefix)
VALUES ('default', 'Sangha', 'USD', 'INV-', 'CN-');

-- Prices per million tokens. A row is never changed or deleted: a new one with a later time replaces it from then on.
CREATE TABLE prices (
    id             text         PRIMARY KEY,
    model          text         NOT NULL,
    endpoint       text         NOT NULL DEFAULT '',          -- the upstream that served it; empty: any
    service_class  text         NOT NULL DEFAULT 'standard' CHECK (service_class IN ('standard', 'batch', 'priority')),
    currency       text         NOT NULL,
    input          numeric      NOT NULL CHECK (input >= 0),
    cached_input   numeric      NOT NULL CHECK (cached_input >= 0),
    output         numeric      NOT NULL CHECK (output >= 0),
    valid_from     timestamptz  NOT NULL,
    created_at     timestamptz  NOT NULL DEFAULT now(),
    UNIQUE (model, service_class, currency, endpoint, valid_from)
);

-- The versions of a plan. `plans` has the limits of the newest one; a subscription keeps its own until it is moved.
CREATE TABLE plan_versions (
    plan_id          text         NOT NULL REFERENCES plans,
    version          integer      NOT NULL,
    name             text         NOT NULL,
    limits           jsonb        NOT NULL,
    fee              numeric      NOT NULL DEFAULT 0 CHECK (fee >= 0),
    currency         text         NOT NULL,
    period           text         NOT NULL DEFAULT 'month' CHECK (period IN ('month', 'year')),
    trial_days       integer      NOT NULL DEFAULT 0 CHECK (trial_days BETWEEN 0 AND 730),
    included_amount  numeric      NOT NULL DEFAULT 0 CHECK (included_amount >= 0),  -- usage within the fee, per period
    overage          jsonb        NOT NULL DEFAULT '{"mode": "graduated", "tiers": [{"up_to": null, "factor": "1"}]}',
    spending_limit   numeric      CHECK (spending_limit >= 0),                      -- per month; null: none
    models           jsonb,                                                         -- names; null: all
    public           boolean      NOT NULL DEFAULT false,                           -- customers may subscribe to it
    created_at       timestamptz  NOT NULL DEFAULT now(),
    PRIMARY KEY (plan_id, version)
);

INSERT INTO plan_versions (plan_id, version, name, limits, currency) SELECT id, 1, name, limits, 'USD' FROM plans;

-- Whom an account's invoices name, and how they are taxed. An account without a row has no money yet.
CREATE TABLE billing_details (
    account_id         text         PRIMARY KEY REFERENCES accounts ON DELETE CASCADE,
    currency           text         NOT NULL,                  -- fixed once there is a posting
    name               text         NOT NULL DEFAULT '',
    address            text         NOT NULL DEFAULT '',
    country            text         NOT NULL DEFAULT '',
    email              text         NOT NULL DEFAULT '',       -- empty: to the owners
    tax_id             text         NOT NULL DEFAULT '',
    tax_name           text         NOT NULL DEFAULT '',       -- such as 'VAT'
    tax_rate           numeric      NOT NULL DEFAULT 0 CHECK (tax_rate BETWEEN 0 AND 100),
    tax_note           text         NOT NULL DEFAULT '',       -- such as the text on the reverse charge
    auto_top_up        jsonb,                                  -- {"below", "amount", "monthly_limit"}; null: off
    gateway_customers  jsonb        NOT NULL DEFAULT '{}',     -- gateway → the id of the customer there
    created_at         timestamptz  NOT NULL DEFAULT now()
);

CREATE INDEX billing_details_auto_top_up ON billing_details (account_id) WHERE auto_top_up IS NOT NULL;

CREATE TABLE payment_methods (
    id                 text         PRIMARY KEY,
    account_id         text         NOT NULL REFERENCES accounts ON DELETE CASCADE,
    gateway            text         NOT NULL,
    gateway_method_id  text         NOT NULL,
    label              text         NOT NULL,                  -- such as 'Visa 4242'
    is_default         boolean      NOT NULL DEFAULT false,
    created_at         timestamptz  NOT NULL DEFAULT now(),
    detached_at        timestamptz,
    UNIQUE (gateway, gateway_method_id)
);

CREATE INDEX payment_methods_account ON payment_methods (account_id, id);
CREATE UNIQUE INDEX payment_methods_default ON payment_methods (account_id) WHERE is_default AND detached_at IS NULL;

CREATE TABLE subscriptions (
    id                    text         PRIMARY KEY,
    account_id            text         NOT NULL REFERENCES accounts ON DELETE CASCADE,
    plan_id               text         NOT NULL,
    plan_version          integer      NOT NULL,
    state                 text         NOT NULL CHECK (state IN (
                              'incomplete', 'trialing', 'active', 'past_due', 'unpaid', 'ended')),
    started_at            timestamptz  NOT NULL,               -- the day of the month and the time of renewals
    period_number         integer      NOT NULL DEFAULT 0,     -- periods since `started_at`
    period_start          timestamptz  NOT NULL,
    period_end            timestamptz  NOT NULL,
    trial_end             timestamptz,
    cancel_at_period_end  boolean      NOT NULL DEFAULT false,
    next_plan_id          text,                                -- from the next period on
    next_plan_version     integer,
    version_since         timestamptz  NOT NULL,               -- in this period
    included_before       numeric      NOT NULL DEFAULT 0,     -- usage included by earlier versions in this period
    created_at            timestamptz  NOT NULL DEFAULT now(),
    ended_at              timestamptz,
    end_reason            text,
    FOREIGN KEY (plan_id, plan_version) REFERENCES plan_versions,
    FOREIGN KEY (next_plan_id, next_plan_version) REFERENCES plan_versions
);

CREATE INDEX subscriptions_account ON subscriptions (account_id, id);
CREATE UNIQUE INDEX subscriptions_current ON subscriptions (account_id) WHERE state <> 'ended';
CREATE INDEX subscriptions_due ON subscriptions (period_end) WHERE state <> 'ended';
CREATE INDEX subscriptions_incomplete ON subscriptions (created_at) WHERE state = 'incomplete';

-- `draft`: usage is being collected. From `open` on nothing of it changes but its state and what was paid.
CREATE TABLE invoices (
    id               text         PRIMARY KEY,
    account_id       text         NOT NULL REFERENCES accounts ON DELETE CASCADE,
    seller_id        text         NOT NULL DEFAULT 'default' REFERENCES sellers,
    subscription_id  text,
    number           text,
    state            text         NOT NULL CHECK (state IN ('draft', 'open', 'paid', 'void', 'uncollectible')),
    reason           text         NOT NULL,                    -- subscription, renewal, change, usage, top_up
    currency         text         NOT NULL,
    period_start     timestamptz,
    period_end       timestamptz,
    subtotal         numeric      NOT NULL DEFAULT 0,
    tax              numeric      NOT NULL DEFAULT 0,
    total            numeric      NOT NULL DEFAULT 0,
    paid             numeric      NOT NULL DEFAULT 0,
    credited         numeric      NOT NULL DEFAULT 0,          -- by credit notes
    returned         numeric      NOT NULL DEFAULT 0,          -- of what was paid: refunded, or made a credit
    parties          jsonb,                                    -- seller and customer, as they were
    tries            integer      NOT NULL DEFAULT 0,          -- of collecting the payment
    created_at       timestamptz  NOT NULL DEFAULT now(),
    finalised_at     timestamptz,
    due_at           timestamptz,
    paid_at          timestamptz,
    voided_at        timestamptz,
    CHECK ((state = 'draft') = (number IS NULL)),
    UNIQUE (seller_id, number)
);

CREATE INDEX invoices_account ON invoices (account_id, id);
CREATE INDEX invoices_open ON invoices (due_at) WHERE state = 'open';

-- The usage of an account without a subscription, once per month.
CREATE UNIQUE INDEX invoices_usage ON invoices (account_id, period_end) WHERE reason = 'usage' AND state <> 'void';

CREATE TABLE invoice_lines (
    invoice_id   text         NOT NULL REFERENCES invoices ON DELETE CASCADE,
    position     integer      NOT NULL,
    kind         text         NOT NULL,                        -- fee, proration, usage, included, overage, top_up
    description  text         NOT NULL,
    quantity     numeric      NOT NULL DEFAULT 1,
    details      jsonb        NOT NULL DEFAULT '{}',           -- model, class, agent, tokens, period
    exact        numeric      NOT NULL,                        -- before it was rounded
    amount       numeric      NOT NULL,
    PRIMARY KEY (invoice_id, position)
);

CREATE TABLE credit_notes (
    id          text         PRIMARY KEY,
    account_id  text         NOT NULL REFERENCES accounts ON DELETE CASCADE,
    invoice_id  text         NOT NULL REFERENCES invoices ON DELETE CASCADE,
    seller_id   text         NOT NULL DEFAULT 'default' REFERENCES sellers,
    number      text         NOT NULL,
    currency    text         NOT NULL,
    amount      numeric      NOT NULL CHECK (amount > 0),      -- with tax
    tax         numeric      NOT NULL DEFAULT 0,
    reason      text         NOT NULL,
    job_id      text,                                          -- of the job that is refunded
    parties     jsonb        NOT NULL,
    created_at  timestamptz  NOT NULL DEFAULT now(),
    UNIQUE (seller_id, number)
);

CREATE INDEX credit_notes_account ON credit_notes (account_id, id);
CREATE INDEX credit_notes_invoice ON credit_notes (invoice_id);
CREATE UNIQUE INDEX credit_notes_job ON credit_notes (job_id) WHERE job_id IS NOT NULL;

CREATE TABLE payments (
    id                  text         PRIMARY KEY,
    account_id          text         NOT NULL REFERENCES accounts ON DELETE CASCADE,
    invoice_id          text         REFERENCES invoices ON DELETE CASCADE,
    job_id              text,
    payment_method_id   text,
    gateway             text         NOT NULL,
    gateway_payment_id  text,
    currency            text         NOT NULL,
    amount              numeric      NOT NULL CHECK (amount > 0),
    fee                 numeric      NOT NULL DEFAULT 0,        -- of the gateway
    refunded            numeric      NOT NULL DEFAULT 0,
    state               text         NOT NULL CHECK (state IN (
                            'pending', 'requires_action', 'succeeded', 'failed', 'refunded', 'disputed')),
    action_url          text,                                   -- where the customer confirms it
    error               jsonb,
    gateway_time        timestamptz,                            -- of the newest state of it at the gateway that was applied
    created_at          timestamptz  NOT NULL DEFAULT now(),
    ended_at            timestamptz,
    CHECK (refunded >= 0 AND refunded <= amount),
    UNIQUE (gateway, gateway_payment_id)
);

CREATE INDEX payments_account ON payments (account_id, id);
CREATE INDEX payments_invoice ON payments (invoice_id);

CREATE TABLE refunds (
    id                 text         PRIMARY KEY,
    account_id         text         NOT NULL REFERENCES accounts ON DELETE CASCADE,
    payment_id         text         NOT NULL REFERENCES payments ON DELETE CASCADE,
    credit_note_id     text,
    refund_job_id      text,
    gateway_refund_id  text,
    currency           text         NOT NULL,
    amount             numeric      NOT NULL CHECK (amount > 0),
    state              text         NOT NULL CHECK (state IN ('pending', 'succeeded', 'failed')),
    reason             text         NOT NULL DEFAULT '',
    error              jsonb,
    created_at         timestamptz  NOT NULL DEFAULT now(),
    ended_at           timestamptz
);

CREATE INDEX refunds_payment ON refunds (payment_id);
CREATE UNIQUE INDEX refunds_gateway ON refunds (payment_id, gateway_refund_id);
CREATE INDEX refunds_account ON refunds (account_id, id);

-- Prepaid money. Grants with a lower priority are drawn first, then those that expire first, then the oldest.
CREATE TABLE credit_grants (
    id          text         PRIMARY KEY,
    account_id  text         NOT NULL REFERENCES accounts ON DELETE CASCADE,
    invoice_id  text,                                           -- that the customer paid it with; null: given
    currency    text         NOT NULL,
    amount      numeric      NOT NULL CHECK (amount > 0),
    drawn       numeric      NOT NULL DEFAULT 0 CHECK (drawn >= 0),
    refunded    numeric      NOT NULL DEFAULT 0 CHECK (refunded >= 0),
    priority    integer      NOT NULL DEFAULT 50,
    reason      text         NOT NULL DEFAULT '',
    expires_at  timestamptz,
    created_at  timestamptz  NOT NULL DEFAULT now(),
    expired_at  timestamptz,
    CHECK (drawn + refunded <= amount)
);

CREATE INDEX credit_grants_account ON credit_grants (account_id, id);
CREATE UNIQUE INDEX credit_grants_invoice ON credit_grants (invoice_id);
CREATE INDEX credit_grants_expiring ON credit_grants (expires_at) WHERE expired_at IS NULL;

-- What invoices were paid from credits.
CREATE TABLE credit_draws (
    grant_id    text         NOT NULL REFERENCES credit_grants ON DELETE CASCADE,
    invoice_id  text         NOT NULL REFERENCES invoices ON DELETE CASCADE,
    amount      numeric      NOT NULL CHECK (amount > 0),
    created_at  timestamptz  NOT NULL DEFAULT now(),
    PRIMARY KEY (grant_id, invoice_id)
);

-- The ledger. A posting moves an amount from one ledger account to another, so the sum of all is zero by construction.
-- It is never changed or deleted; a correction is a posting in the other direction.
CREATE TABLE postings (
    id          bigint       GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account_id  text         NOT NULL REFERENCES accounts,      -- the customer
    kind        text         NOT NULL,                          -- usage, invoice, payment, refund, …
    reference   text         NOT NULL,                          -- the id of the job, invoice, payment, …
    leg         smallint     NOT NULL DEFAULT 0,                -- of postings with one reference
    debit       text         NOT NULL,
    credit      text         NOT NULL,
    currency    text         NOT NULL,
    amount      numeric      NOT NULL CHECK (amount > 0),
    posted_at   timestamptz  NOT NULL DEFAULT now(),
    CHECK (debit <> credit)
);

-- Each posting of a reference once. That of usage is part of the end of its job, which happens once.
CREATE UNIQUE INDEX postings_reference ON postings (reference, kind, leg) WHERE kind <> 'usage';
CREATE INDEX postings_account ON postings (account_id, id);

-- What was spent in a calendar month (UTC), by what a limit may be set for: the account (''), 'key:ID' and 'agent:NAME'.
-- Several rows each, so that concurrent turns do not wait for one.
CREATE TABLE spending (
    account_id  text      NOT NULL REFERENCES accounts ON DELETE CASCADE,
    scope       text      NOT NULL,
    month       date      NOT NULL,
    slot        smallint  NOT NULL,
    amount      numeric   NOT NULL,
    PRIMARY KEY (account_id, month, scope, slot)
);

CREATE TABLE spending_limits (
    account_id        text         NOT NULL REFERENCES accounts ON DELETE CASCADE,
    scope             text         NOT NULL,
    amount            numeric      NOT NULL CHECK (amount >= 0),
    notified_month    date,
    notified_percent  integer      NOT NULL DEFAULT 0,
    created_at        timestamptz  NOT NULL DEFAULT now(),
    PRIMARY KEY (account_id, scope)
);

-- The most that an unfinished job may cost, of accounts with a limit. A reservation ends with its job.
CREATE TABLE spending_reservations (
    job_id      text     PRIMARY KEY REFERENCES jobs ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED,
    account_id  text     NOT NULL REFERENCES accounts ON DELETE CASCADE,
    scopes      text[]   NOT NULL,
    amount      numeric  NOT NULL CHECK (amount >= 0)
);

CREATE INDEX spending_reservations_account ON spending_reservations (account_id);

-- What gateways have told, as they told it.
CREATE TABLE gateway_events (
    gateway      text         NOT NULL,
    event_id     text         NOT NULL,
    type         text         NOT NULL,
    payload      text         NOT NULL,
    state        text         NOT NULL DEFAULT 'received' CHECK (state IN ('received', 'applied', 'ignored', 'failed')),
    error        text,
    received_at  timestamptz  NOT NULL DEFAULT now(),
    applied_at   timestamptz,
    PRIMARY KEY (gateway, event_id)
);

CREATE INDEX gateway_events_received ON gateway_events (received_at) WHERE state IN ('received', 'failed');
CREATE INDEX gateway_events_payloads ON gateway_events (received_at) WHERE payload <> '';

-- The books of the simulated gateway, which stand for those of a payment provider: nothing else reads them.
CREATE TABLE simulated_objects (
    id               text         PRIMARY KEY,
    kind             text         NOT NULL CHECK (kind IN ('charge', 'refund', 'method')),
    idempotency_key  text         UNIQUE,
    customer         text         NOT NULL,
    parent_id        text         REFERENCES simulated_objects ON DELETE CASCADE,   -- the charge of a refund
    state            text         NOT NULL,
    currency         text         NOT NULL DEFAULT '',
    amount           numeric      NOT NULL DEFAULT 0,
    fee              numeric      NOT NULL DEFAULT 0,
    returned         numeric      NOT NULL DEFAULT 0 CHECK (returned >= 0 AND returned <= amount),  -- by refunds
    disputed         numeric      NOT NULL DEFAULT 0,
    details          jsonb        NOT NULL DEFAULT '{}',
    created_at       timestamptz  NOT NULL DEFAULT now()
);

CREATE INDEX simulated_objects_customer ON simulated_objects (customer);
CREATE INDEX simulated_objects_parent ON simulated_objects (parent_id);

-- The limits of the account's subscription, which replace those of its plan. Null: it has no subscription.
ALTER TABLE accounts
    ADD COLUMN plan_limits jsonb,
    ADD COLUMN billed_since timestamptz;   -- from when on its usage is posted; null: it pays nothing

-- What the usage cost at the price in force when the job was created, and who used it. Without an amount it was not posted.
ALTER TABLE usage_records
    ADD COLUMN billed_amount    numeric,
    ADD COLUMN billed_currency  text,
    ADD COLUMN price_id         text,
    ADD COLUMN billed_user_id   text,
    ADD COLUMN billed_key_id    text,
    ADD COLUMN billed_agent     text,
    ADD COLUMN billed_on        text,      -- the invoice
    ADD COLUMN waived_amount    numeric;   -- of a replay after the invoice, which nobody pays
