-- roll: expand
-- Whether an account relies on what a server says of its tools: that they only read, or may be repeated.
ALTER TABLE mcp_servers ADD COLUMN trusts_annotations boolean NOT NULL DEFAULT false;
