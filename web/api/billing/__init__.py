"""`/billing` and `/admin/billing`: money of accounts, and what operators do with it."""
