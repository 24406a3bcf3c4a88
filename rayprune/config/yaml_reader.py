"""YAML with the numbers of its version 1.2.

In 1.1, which PyYAML reads, `2:4` is the number 124 (in base 60) and `5e-4` is text.
"""

from __future__ import annotations

import re
from typing import Any

import yaml


class _Loader(yaml.SafeLoader):
    """Plain values only; no number is written with colons or underscores."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in kinds if not tag.endswith((":int", ":float"))]
    for first, kinds in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?((\d+\.\d*|\.\d+)([eE][-+]?\d+)?|\d+[eE][-+]?\d+|\.inf|\.nan)$"),
    list("-+.0123456789"),
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(r"^[-+]?\d+$"), list("-+0123456789")
)


def _decimal(loader: _Loader, node: Any) -> int:
    return int(str(loader.construct_scalar(node)))  # PyYAML's own reads 010 as octal


_Loader.add_constructor("tag:yaml.org,2002:int", _decimal)


def read_yaml(text: str) -> Any:
    """Return the plain value that `text` holds, None for none.

    Raises a ``ValueError`` that says where it is not YAML.
    """
    try:
        return yaml.load(text, _Loader)
    except (yaml.YAMLError, ValueError) as error:  # the latter for a date of no calendar
        raise ValueError(str(error)) from None
