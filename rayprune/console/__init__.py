"""What a terminal or a job's log shows."""

from rich.console import Console

LOG_WIDTH = 10_000  # a log has no width: no line of it is wrapped


def open_console(*, quiet: bool = False) -> Console:
    """Standard output, as wide as the terminal; a file or a pipe takes lines of any length."""
    console = Console(quiet=quiet)
    return console if console.is_terminal else Console(quiet=quiet, width=LOG_WIDTH)
