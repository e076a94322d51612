"""Money: prices, plans, subscriptions, invoices, payments, credits and the ledger."""
