"""All commands in one: rayprune tune | train | report | schema"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

USAGE = """\
usage: rayprune COMMAND ...

  tune    run a study: search pruning and retraining settings
  train   run one experiment
  report  write the report of a study again
  export  write a trained network as files for others
  schema  print the JSON schema of a study, for an editor

rayprune COMMAND --help says more.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Return what the command returns; 2 for a command that there is not."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help"):
        print(USAGE, end="")
        return 0 if words else 2
    command = _command(words[0])
    if command is None:
        print(f"error: no command {words[0]!r}\n\n{USAGE}", end="", file=sys.stderr)
        return 2
    return command(words[1:])


def _command(name: str) -> Callable[[Sequence[str]], int] | None:
    prog = f"rayprune {name}"
    if name == "tune":
        from rayprune import tune

        return lambda words: tune.main(words, prog=prog)
    if name == "train":
        from rayprune import train

        return lambda words: train.main(words, prog=prog)
    if name == "report":
        from rayprune.report import __main__ as report

        return lambda words: report.main(words, prog=prog)
    if name == "export":
        from rayprune import export

        return lambda words: export.main(words, prog=prog)
    if name == "schema":
        from rayprune.config import __main__ as schema

        return lambda words: schema.main([name, *words])
    return None


if __name__ == "__main__":
    sys.exit(main())
