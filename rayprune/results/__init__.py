"""What a study leaves behind: records, the table, every file name, durable stages, comparisons."""
