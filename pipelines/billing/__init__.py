"""Subscribe, charge, invoice and prove."""
