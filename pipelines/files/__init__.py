"""Files of accounts: upload, store, read and delete."""
