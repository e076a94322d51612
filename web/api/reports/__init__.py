"""`/v1/reports` and `/admin/reports`."""
