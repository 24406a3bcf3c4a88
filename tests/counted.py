"""A mapping that counts how often it is asked: what a call costs, without a clock."""

from collections.abc import Mapping


class Counted(Mapping):
    """A mapping that counts how often it is asked."""

    def __init__(self, inner):
        self.inner, self.asked = inner, 0

    def __getitem__(self, key):
        self.asked += 1
        return self.inner[key]

    def __iter__(self):
        for key in self.inner:
            self.asked += 1
            yield key

    def __len__(self):
        return len(self.inner)
