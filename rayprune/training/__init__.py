"""The DDP loop of a stage, and a plan run from end to end; knows nothing of Ray."""
