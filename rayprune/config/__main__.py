"""Print the JSON schema of a study: python -m rayprune.config schema"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from rayprune.config.study import Study


def main(arguments: Sequence[str] | None = None) -> int:
    """Return 0, or 2 for a word that is not `schema`."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words != ["schema"]:
        print("usage: python -m rayprune.config schema", file=sys.stderr)
        return 2
    print(json.dumps(Study.model_json_schema(), indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
