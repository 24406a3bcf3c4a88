"""The README's Python runs as it stands there."""

import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parents[2] / "README.md"


def test_the_python_of_the_readme_runs(tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.S)
    assert "rp.run(study)" in code
    # Without Ray and from a short dense run, for time's sake: test_ways.py shows that Ray makes no
    # difference.
    for long, short in (
        ("rp.run(study)", "rp.run(study, ray=False)"),
        ('["name=allr"', '["name=allr", "experiment.dense.epochs=2"'),
    ):
        assert long in code
        code = code.replace(long, short)
    (tmp_path / "example.py").write_text(code)
    done = subprocess.run(
        [sys.executable, "example.py"], cwd=tmp_path, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stderr
    answer, *trials, best = done.stdout.splitlines()
    assert "keeps 95 % sparsity" in answer
    assert [line.split() for line in trials] == [[str(n), "finished"] for n in range(2)]
    assert re.fullmatch(r"\d 0\.\d+", best)
    assert (tmp_path / "rayprune_runs" / "allr" / "report.html").is_file()


def test_every_file_that_the_readme_names_is_there():
    text = README.read_text().partition("## Contributing")[2]
    named = re.findall(r"`((?:[a-z_]+/)*[a-z_]+(?:\.py|/))`", text)
    assert len(named) > 15
    root = README.parent
    assert [
        n for n in named if not (root / "rayprune" / n).exists() and not (root / n).exists()
    ] == []
