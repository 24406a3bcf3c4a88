"""The base of every configuration value."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    """A value: no field is set later, no unknown field is taken, and equal values hash equally."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    def __hash__(self) -> int:
        # Through JSON: fields such as `kwargs` are dictionaries, which have no hash of their own.
        return hash((type(self), self.model_dump_json()))
