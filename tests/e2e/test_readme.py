"""The README's Python runs as it stands there."""

import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parents[2] / "README.md"


def test_the_python_of_the_readme_runs(tmp_path):
    code = block("python", "rp.run(study)")
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


def test_the_task_of_the_readme_runs(tmp_path):
    """Its two blocks, copied into files, as a study."""
    (tmp_path / "my_nets.py").write_text(block("python", "task = Task("))
    (tmp_path / "mine.yaml").write_text(block("yaml", "my_nets:task"))
    command = [sys.executable, "-m", "rayprune.tune", "mine.yaml", "--local"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert "validation rmse" in done.stdout, done.stdout


def block(language, part):
    """The one block of code in that language that holds the part."""
    blocks = re.findall(rf"```{language}\n(.*?)```", README.read_text(), re.S)
    (found,) = (text for text in blocks if part in text)
    return found


def test_every_file_that_the_readme_names_is_there():
    text = README.read_text().partition("## Contributing")[2]
    named = re.findall(r"`((?:[a-z_]+/)*[a-z_]+(?:\.py|/))`", text)
    assert len(named) > 15
    root = README.parent
    assert [
        n for n in named if not (root / "rayprune" / n).exists() and not (root / n).exists()
    ] == []
