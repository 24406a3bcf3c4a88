"""Pruning as mathematics on name -> tensor: score, allocate, mask, apply; and what it saves."""
