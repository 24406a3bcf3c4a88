"""Ray: slots that run stages, trials that want them, and the ledger between the two."""
