"""The command of a study: what is wrong is told before Ray starts; what would be run is shown."""

import shlex
import signal
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from rayprune.config import Study, load_study
from rayprune.results.files import epoch_file
from rayprune.results.progress import StudyProgress
from rayprune.results.recorder import Recorder
from rayprune.results.storage import StorageError, read_bytes
from rayprune.train import main as train
from rayprune.training.checkpoint import epochs_done_of
from rayprune.training.run import run_plan
from rayprune.training.worker import Worker
from rayprune.trials import make_trials
from rayprune.tune import main


@pytest.fixture
def parquet_without_labels(tmp_path):
    file = tmp_path / "bare.parquet"
    pq.write_table(pa.table({"image": [{"bytes": b"", "path": "a"}]}), file)
    return str(file)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["experiment.prune.sparsty=0.9"], "prune.sparsty: no such field. Did you mean sparsity?"),
        (["experiment.retrain.epochs=some"], "experiment.retrain.epochs"),
        (["experiment.prune.sparsity=95"], "Write 0.95 for 95 %"),
        (["search.space.retrain.epochs={grid: [13]}"], "replays the dense run's last epochs"),
        (["nowhere.yaml"], "no study file nowhere.yaml"),
        (["experiment.data={parquet: {train: no.parquet, test: no.parquet}}"], "no.parquet"),
        (["scaling.gpus_per_worker=3"], "need 3 GPUs"),
        (["scaling.workers=64"], "need 64 CPUs"),
        (["experiment.model.name=smallcnn"], "Did you mean small_cnn?"),
        (["experiment.model={target: 'nowhere:build'}"], "cannot import nowhere: No module named"),
        (["search.metric=val_mean_iou"], "val_mean_iou is not measured by task classification"),
    ],
)
def test_a_mistake_ends_with_a_message_and_code_two(arguments, said, capsys, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert said in printed.err
    assert printed.err.startswith("error: ")
    assert printed.out == ""


def test_parquet_without_labels_is_told(parquet_without_labels, capsys):
    files = f"{{train: {parquet_without_labels}, test: {parquet_without_labels}}}"
    assert main([f"experiment.data={{parquet: {files}}}"]) == 2
    assert "label" in capsys.readouterr().err


def test_a_mistake_as_a_process_prints_no_traceback(tmp_path):
    file = tmp_path / "bad.yaml"
    file.write_text("experiment: [1, 2]")
    done = subprocess.run(
        [sys.executable, "-m", "rayprune.tune", str(file)], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("error: experiment")


def test_dry_run_shows_what_is_shared_and_starts_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("RAYPRUNE_STORAGE", str(tmp_path / "storage"))
    monkeypatch.setenv("COLUMNS", "120")
    assert main(["--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "12 trials, 24 stages, 13 of them unique" in printed
    assert "36 epochs to run of 36 unique ones; separate runs would take 168" in printed
    assert printed.count("(dense 12)") == 11
    assert not (tmp_path / "storage").exists()


def test_dry_run_knows_what_was_finished_before(small, tmp_path, capsys):
    storage = str(tmp_path / "storage")
    (trial,) = make_trials(Study.model_validate({"experiment": small}))
    run_plan(trial.experiment, trial.plan, Worker(), storage)
    file = tmp_path / "known.yaml"
    space = {"retrain.epochs": {"grid": [2, 3]}}
    file.write_text(
        yaml.safe_dump({"experiment": small, "search": {"space": space}, "storage": storage})
    )
    assert main([str(file), "--dry-run"]) == 0
    assert "3 epochs to run of 8 unique ones" in capsys.readouterr().out


@pytest.fixture
def two(small, tmp_path):
    """The file of a study of two trials."""
    file = tmp_path / "two.yaml"
    space = {"retrain.epochs": {"grid": [1, 2]}}
    fields = {"experiment": small, "search": {"space": space}, "storage": str(tmp_path)}
    file.write_text(yaml.safe_dump(fields))
    return str(file)


def test_another_study_of_that_name_is_refused_unless_forced(two, capsys):
    assert main([two, "--local"]) == 0
    capsys.readouterr()
    other = [two, "experiment.batch_size=30"]
    for words in ([*other, "--local"], [*other, "--dry-run"]):
        assert main(words) == 2
        errors = capsys.readouterr().err.splitlines()
        assert errors[0].startswith("error: study two in ")
        assert errors[1] == "error: experiment.batch_size: 60 there, 30 here"
        assert "--force" in errors[2] and len(errors) == 3
    assert main([*other, "--dry-run", "--force"]) == 0
    assert main([*other, "--local", "name=smaller"]) == 0
    capsys.readouterr()
    assert main([*other, "--local", "--force"]) == 0
    assert "0 epochs run" in capsys.readouterr().out, "stages are shared"
    assert main([*other, "--local"]) == 0
    assert train([two, "--local"]) == 2
    assert train([two, "--local", "--force"]) == 0


def test_a_report_that_cannot_be_written_fails_no_study(two, capsys, monkeypatch):
    def full(*arguments):
        raise StorageError("the disk is full")

    monkeypatch.setattr("rayprune.report.write_report", full)
    assert main([two, "--local"]) == 0
    printed = capsys.readouterr()
    assert "keeps 90 % sparsity" in printed.out
    assert "warning: the report was not written: the disk is full; " in printed.err
    assert "`python -m rayprune.report /" in printed.err and "/two` writes it" in printed.err


def test_an_empty_study_says_that_it_is_empty(tmp_path, capsys):
    (tmp_path / "empty.yaml").touch()
    assert main([str(tmp_path / "empty.yaml")]) == 2
    assert "empty" in capsys.readouterr().err


@pytest.fixture
def searched(small, tmp_path):
    """The file of a study whose points Optuna proposes."""
    file = tmp_path / "searched.yaml"
    space = {"retrain.epochs": {"integers": [1, 2]}}
    search = {"algorithm": "optuna", "num_samples": 3, "space": space}
    fields = {"experiment": small, "search": search, "storage": str(tmp_path)}
    file.write_text(yaml.safe_dump(fields))
    return str(file)


def finish_one_trial(file):
    """As an earlier start would have, on Ray."""
    study = load_study(file)
    recorder = Recorder(study, ())
    recorder.write_study()
    trial = recorder.propose({"retrain.epochs": 1}, None)
    run_plan(trial.experiment, trial.plan, Worker(), recorder.storage)
    Recorder(study, ()).write(StudyProgress({}))


@pytest.mark.parametrize("ways", [["--local"], ["--local", "--dry-run"]], ids=["run", "dry run"])
def test_without_ray_what_is_ray_tunes_is_a_mistake(ways, searched, tmp_path, capsys):
    words = [searched, "search.scheduler=asha", "tracking=[mlflow]"]
    assert main([*words, *ways]) == 2
    said = capsys.readouterr()
    fields = [line.split()[1] for line in said.err.splitlines()]
    assert fields == ["search.algorithm", "search.scheduler", "tracking:"], "all, with a remedy"
    assert said.out == ""
    words = ["search.algorithm=random", "search.scheduler=null", "tracking=[]"]
    assert main([searched, *words, "--local", "--dry-run"]) == 0
    assert "2 trials" in capsys.readouterr().out, "the space has no third"


def test_one_experiment_of_a_searchers_study_is_run_without_its_search(searched, capsys):
    assert train([searched, "--local", "name=one"]) == 0
    assert "5 epochs run" in capsys.readouterr().out


def test_dry_run_of_a_search_says_what_it_goes_on_with(searched, capsys):
    assert main([searched, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "optuna proposes 3 trials\n" in said and "trials drawn at random can be run" in said
    finish_one_trial(searched)
    for words in ([], ["search.num_samples=5"], ["search.seeds=[0, 1]"]):
        assert main([searched, "--dry-run", *words]) == 0
        assert ", 1 of them before this start" in capsys.readouterr().out
    other = [searched, "--dry-run", "search.space.retrain.epochs={integers: [1, 4]}"]
    assert main(other) == 2
    first, differs, last = capsys.readouterr().err.splitlines()
    assert first.startswith("error: study searched in ")
    assert differs.endswith("search.space.retrain.epochs.integers: [1, 2] there, [1, 4] here")
    assert "--force" in last
    assert main([*other, "--force"]) == 0


def test_a_search_without_a_point_is_told_before_anything_starts(searched, capsys):
    for way in ([], ["--dry-run"]):
        assert main([searched, *way, "search.where=['retrain.epochs > 2']"]) == 2
        assert "excludes every point of the space" in capsys.readouterr().err


def test_a_study_runs_without_ray_and_a_second_start_runs_nothing(two, tmp_path):
    """As processes: two trials share their dense run, and all that people look for is there."""
    command = [sys.executable, "-m", "rayprune", "tune", two, "--local"]
    first, second = (
        subprocess.run(command, capture_output=True, text=True, timeout=240) for _ in range(2)
    )
    assert first.returncode == second.returncode == 0, first.stderr + second.stderr
    assert "6 epochs run, each of 6 unique ones once" in first.stdout
    assert "nothing is left to run" in second.stdout
    table = first.stdout[first.stdout.index("setting ") :]
    assert second.stdout.endswith(table), "the same table, answer and files"
    assert max(map(len, table.splitlines())) > 80, "no line of a log is wrapped"
    for name in ("report.html", "results.parquet", "best/model.safetensors", "study.yaml"):
        assert (tmp_path / "two" / name).is_file()
        assert name == "study.yaml" or name.partition("/")[0] in table


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_local_study_with_one_line_and_its_last_epoch_is_kept(
    number, code, small, tmp_path
):
    file = tmp_path / "long.yaml"
    fields = {"experiment": {**small, "dense": {"epochs": 400}}, "storage": str(tmp_path)}
    file.write_text(yaml.safe_dump(fields))
    process = subprocess.Popen(
        [sys.executable, "-m", "rayprune.tune", str(file), "--local"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # What a shell starts in the background ignores Ctrl-C, and so would we.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout.readline().startswith("dense, epoch 1/400: ")
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code
    command = shlex.join(["python", "-m", "rayprune.tune", str(file), "--local"])
    assert errors == f"interrupted; to go on from here: {command}\n"
    (trial,) = make_trials(load_study(file))
    content = read_bytes(epoch_file(str(tmp_path), trial.plan[0].key))
    assert content is not None and epochs_done_of(content) >= 1
