"""A snapshot as files for others: one small file a format."""
