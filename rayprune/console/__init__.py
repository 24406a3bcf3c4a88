"""What a terminal or a job's log shows."""
