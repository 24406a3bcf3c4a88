"""Iterative magnitude pruning, its retraining and its rivals, searched on Ray."""
