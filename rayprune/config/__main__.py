"""Print the JSON schema of a study: python -m rayprune.config schema"""

from __future__ import annotations

import json
import sys

from rayprune.config.study import Study

if __name__ == "__main__":
    if sys.argv[1:] != ["schema"]:
        sys.exit("usage: python -m rayprune.config schema   (the JSON schema of a study)")
    print(json.dumps(Study.model_json_schema(), indent=2))
