"""What trained networks are measured in, as the files that would be deployed."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import Field, GetJsonSchemaHandler, model_validator
from pydantic_core import CoreSchema

from rayprune.config.frozen import Frozen

Runtime = Literal["mnn", "onnx", "openvino", "torch"]
RUNTIMES: tuple[Runtime, ...] = get_args(Runtime)


class Measure(Frozen):
    """Every trained network is measured as a file in a runtime, beside the same network dense."""

    runtime: Runtime
    """What runs the file; torch runs the network as it is."""
    threads: Annotated[int, Field(ge=1)] = 1
    """CPU threads of a pass."""
    batch: Annotated[int, Field(ge=1)] = 1
    """Samples of a pass."""

    @model_validator(mode="before")
    @classmethod
    def _by_runtime_alone(cls, raw: Any) -> Any:
        return {"runtime": raw} if isinstance(raw, str) else raw

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {"anyOf": [{"type": "string", "enum": list(RUNTIMES)}, handler(schema)]}

    @property
    def words(self) -> str:
        """ "mnn, 1 thread, batch 1"."""
        threads = f"{self.threads} thread{'' if self.threads == 1 else 's'}"
        return f"{self.runtime}, {threads}, batch {self.batch}"
