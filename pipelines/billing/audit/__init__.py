"""Prove that the books agree: the ledger, usage, invoices, payments and credits. `sangha audit money` runs it."""
