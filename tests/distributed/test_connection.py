"""What of Ray's words is kept back."""

import io

from rayprune.distributed.connection import WithoutRaysWorries


def test_only_ends_and_counts_of_processes_are_kept_back():
    file = io.StringIO()
    stream = WithoutRaysWorries(file)
    print("(raylet) WARNING: 8 PYTHON worker processes have been started on node", file=stream)
    print("Trial run_trial_55481_00000 completed. Last result: ", file=stream)
    print("(autoscaler) no node type can hold {'GPU': 3}", file=stream)
    assert file.getvalue() == "(autoscaler) no node type can hold {'GPU': 3}\n"
