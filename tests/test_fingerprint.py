"""A fingerprint is of bytes: a copy elsewhere has the same, a change of one of them another."""

import json
import os
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rayprune.config import Experiment
from rayprune.fingerprint import ABSENT, BLOCK, SAMPLED_BLOCKS, SAMPLED_FILES, contents_of
from rayprune.trials import make_trial, make_trials


def of(**fields):
    return contents_of(Experiment.model_validate(fields))


def of_parquet(train, test="nowhere"):
    return of(data={"parquet": {"train": str(train), "test": str(test)}})["data.parquet.train"]


def write_labels(path, labels):
    table = pa.table({"image": [b"image %d" % n for n in range(len(labels))], "label": labels})
    pq.write_table(table, path)


def test_a_copy_elsewhere_under_another_name_and_time_is_the_same(few_images, tmp_path):
    copy = tmp_path / "copy.parquet"
    shutil.copyfile(few_images["train"], copy)
    os.utime(copy, (1, 1))
    assert of_parquet(copy) == of_parquet(few_images["train"]) != of_parquet(few_images["test"])


def test_other_labels_in_a_file_of_equal_size_are_another_set(tmp_path):
    labels = [n % 10 for n in range(5000)]
    write_labels(tmp_path / "one.parquet", labels)
    labels[2500], labels[2501] = labels[2501], labels[2500]
    write_labels(tmp_path / "two.parquet", labels)
    assert of_parquet(tmp_path / "one.parquet") != of_parquet(tmp_path / "two.parquet")


def test_a_file_that_is_written_anew_in_a_running_process_is_seen(tmp_path):
    file = tmp_path / "images.parquet"
    write_labels(file, [0, 1])
    before = of_parquet(file)
    write_labels(file, [1, 0])
    assert of_parquet(file) != before


@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, (SAMPLED_BLOCKS + 9) * BLOCK])
def test_the_first_and_the_last_byte_and_the_size_count(size, tmp_path):
    def written(content):
        (tmp_path / "train.parquet").write_bytes(content)
        return of_parquet(tmp_path / "train.parquet")

    content = bytes(size)
    known = {written(content), written(content + b"\0")}
    if size:
        known |= {written(b"x" + content[1:]), written(content[:-1] + b"y")}
    assert len(known) == (4 if size else 2)


def test_of_many_files_the_order_and_every_size_count(tmp_path):
    for number in range(SAMPLED_FILES + 9):
        (tmp_path / f"{number:03d}.parquet").write_bytes(b"x" * (number + 1))
    before = of_parquet(tmp_path)
    assert of_parquet(f"{tmp_path}/*.parquet") == before
    (tmp_path / "017.parquet").write_bytes(b"x" * 99)
    after = of_parquet(tmp_path)
    (tmp_path / "003.parquet").rename(tmp_path / "900.parquet")
    assert len({before, after, of_parquet(tmp_path)}) == 3


def test_a_class_of_an_image_tree_is_the_name_of_its_folder(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / "train" / name).mkdir(parents=True)
        (tmp_path / "train" / name / "1.png").write_bytes(b"one size")
    fields = {"data": {"name": "image_folder", "root": str(tmp_path)}}
    before = of(**fields)
    (tmp_path / "train" / "dog").rename(tmp_path / "train" / "ant")
    assert of(**fields) != before and list(before) == ["data.root"]
    (tmp_path / "train" / ".DS_Store").write_bytes(b"of a desktop")
    moved = tmp_path.with_name("moved")
    shutil.copytree(tmp_path, moved)
    (moved / "train" / ".DS_Store").unlink()
    assert of(data={"name": "image_folder", "root": str(moved)}) == of(**fields)


def test_only_a_named_sets_own_files_count(tmp_path):
    (tmp_path / "cifar-10-batches-py").mkdir()
    (tmp_path / "cifar-10-batches-py" / "data_batch_1").write_bytes(b"images")
    fields = {"data": {"name": "cifar10", "root": str(tmp_path)}}
    before = of(**fields)
    (tmp_path / "other.txt").write_text("of somebody else")
    assert of(**fields) == before
    (tmp_path / "cifar-10-batches-py" / "data_batch_1").write_bytes(b"IMAGES")
    assert of(**fields) != before


def make_tree(root, content):
    for part in ("train", "test"):
        (root / part / "cat").mkdir(parents=True)
        (root / part / "cat" / "1.png").write_bytes(content)
    return {"data": {"name": "image_folder", "root": str(root)}}


def test_an_image_counts_though_it_is_hidden(tmp_path):
    """It is read like any other."""
    fields = make_tree(tmp_path, b"image")
    before = of(**fields)
    (tmp_path / "train" / "cat" / ".2.PNG").write_bytes(b"image")
    assert of(**fields) != before


def test_results_below_the_root_of_an_image_tree_do_not_count(tmp_path):
    """A study in the folder of its images writes its results there, too."""
    fields = make_tree(tmp_path, b"image")
    before = of(**fields)
    (tmp_path / "rayprune_runs").mkdir()
    (tmp_path / "rayprune_runs" / "results.parquet").write_bytes(b"more and more")
    assert of(**fields) == before


def test_a_folder_may_be_called_like_a_pattern(tmp_path):
    one, two = (make_tree(tmp_path / f"[2024] {n}", n.encode()) for n in ("one", "two"))
    assert of(**one) != of(**two)


def test_two_sets_that_cannot_be_read_are_two(tmp_path, monkeypatch):
    """As where a folder beside the images is somebody else's."""

    def refuse(*arguments):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("rayprune.fingerprint._of_found", refuse)
    one, two = (of(**make_tree(tmp_path / name, b"")) for name in ("one", "two"))
    assert one != two and ABSENT in one["data.root"]
    (tmp_path / "one.parquet").write_bytes(b"")
    (tmp_path / "two.parquet").write_bytes(b"")
    assert of_parquet(tmp_path / "one.parquet") != of_parquet(tmp_path / "two.parquet")


def test_weights_that_may_not_be_read_keep_their_name(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied")

    (tmp_path / "weights.pt").write_bytes(b"")
    monkeypatch.setattr("rayprune.fingerprint._of_whole", refuse)
    assert of(model={"name": "resnet20", "weights": str(tmp_path / "weights.pt")}) == {}


def test_a_package_that_ends_the_process_is_no_error_here(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "package_that_exits").mkdir()
    (tmp_path / "package_that_exits" / "__init__.py").write_text("raise SystemExit(3)")
    assert ABSENT in of(model={"target": "package_that_exits.nets:net"})["model.target"]


def test_the_trials_of_a_study_look_at_their_files_once(study_of, tmp_path, monkeypatch):
    """A listing of a million images takes half a minute."""
    write_labels(tmp_path / "train.parquet", [0, 1])
    study = study_of(train=str(tmp_path / "train.parquet"), seeds=(0, 1, 2))
    looked = []
    monkeypatch.setattr("rayprune.trials.contents_of", lambda e: looked.append(e) or {})
    assert len(make_trials(study)) == 3 and len(looked) == 1


def test_weights_are_read_whole_and_a_name_stays_a_name(tmp_path):
    file = tmp_path / "weights.pt"
    content = bytearray(40 * BLOCK)
    file.write_bytes(content)
    before = of(model={"name": "resnet20", "weights": str(file)})
    content[17 * BLOCK + 5] = 1
    file.write_bytes(content)
    assert of(model={"name": "resnet20", "weights": str(file)}) != before
    assert of(model={"name": "resnet50", "weights": "IMAGENET1K_V2"}) == {}


def test_a_users_code_counts_with_its_file(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "my_nets_of_a_test.py").write_text("def net(num_classes, in_channels): ...")
    fields = {"model": {"target": "my_nets_of_a_test:net"}}
    before = of(**fields)
    assert "my_nets_of_a_test:net" in before["model.target"]
    (tmp_path / "my_nets_of_a_test.py").write_text("def net(num_classes, in_channels): return 1")
    assert of(**fields) != before


@pytest.mark.parametrize(
    "fields",
    [
        {"data": {"parquet": {"train": "/nowhere/*.parquet", "test": "s4://no/such"}}},
        {"data": {"name": "cifar10", "root": "/nowhere"}},
        {"model": {"target": "no_such_package_anywhere.nets:net"}},
        {"data": {"target": "json.no_such_module:images"}},
    ],
)
def test_what_is_not_there_is_no_error_here(fields):
    """The checks before a study say it better."""
    assert all(ABSENT in text or len(text) == 20 for text in of(**fields).values())


def test_a_trials_keys_follow_what_lies_in_its_files(study_of, tmp_path):
    file = tmp_path / "train.parquet"
    write_labels(file, [0, 1])
    study = study_of(train=str(file))
    before = make_trials(study)[0].key
    assert make_trial(study, "0", {}).key == before
    write_labels(file, [1, 1])
    assert make_trials(study)[0].key != before


@pytest.fixture
def study_of():
    from rayprune.config import Study

    def make(train, seeds=()):
        data = {"parquet": {"train": train, "test": "nowhere"}}
        return Study.model_validate({"experiment": {"data": data}, "search": {"seeds": seeds}})

    return make


def make_ours(folder, *, date="today", mean=0.5, masks=b"masks"):
    folder.mkdir(exist_ok=True)
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "masks.safetensors").write_bytes(masks)
    said = {"date": date, "preprocessing": {"mean": [mean]}}
    (folder / "provenance.json").write_text(json.dumps(said))
    return of(model={"name": "resnet20", "weights": str(folder)})["model.weights"]


def test_of_a_network_of_ours_all_counts_that_is_taken_over(tmp_path):
    before = make_ours(tmp_path / "best")
    assert make_ours(tmp_path / "copy", date="tomorrow") == before
    assert make_ours(tmp_path / "best", mean=0.4) != before
    assert make_ours(tmp_path / "best", masks=b"MASKS") != before
    make_ours(tmp_path / "best")
    (tmp_path / "best" / "model.safetensors").write_bytes(b"WEIGHTS")
    assert of(model={"name": "resnet20", "weights": str(tmp_path / "best")}) != {
        "model.weights": before
    }


def test_of_a_folder_for_a_users_function_every_byte_and_name_counts(tmp_path):
    def of_folder(folder):
        return of(model={"target": "json:loads", "weights": str(folder)})["model.weights"]

    (tmp_path / "one" / "part").mkdir(parents=True)
    (tmp_path / "one" / "config.json").write_text("{}")
    (tmp_path / "one" / "part" / "weights.bin").write_bytes(b"weights")
    before = of_folder(tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "copy")
    (tmp_path / "copy" / ".cache").mkdir()
    (tmp_path / "copy" / ".cache" / "when").write_text("today")
    assert of_folder(tmp_path / "copy") == before
    (tmp_path / "one" / "part" / "weights.bin").write_bytes(b"weightS")
    (tmp_path / "copy" / "part").rename(tmp_path / "copy" / "other")
    assert len({before, of_folder(tmp_path / "one"), of_folder(tmp_path / "copy")}) == 3


def test_an_entry_is_the_bytes_of_its_file(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    file = tmp_path / "hub" / "checkpoints" / "resnet50-11ad3fa6.pth"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"weights")
    entry = of(model={"name": "resnet50", "weights": "IMAGENET1K_V2"})
    assert entry == of(model={"name": "resnet50", "weights": str(file)}) != {}


def test_a_users_task_counts_with_its_file(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "my_task_of_a_test.py").write_text("def task(): ...")
    before = of(task={"target": "my_task_of_a_test:task"})
    assert list(before) == ["task.target"]
    (tmp_path / "my_task_of_a_test.py").write_text("def task(): return 1")
    assert of(task={"target": "my_task_of_a_test:task"}) != before


def test_weights_that_are_called_like_torchvisions_are_other_ones(tmp_path):
    """By that name images become inputs as torchvision's did; other names say nothing of it."""
    files = {name: tmp_path / name for name in ("a.pth", "resnet18-f37072fd.pth", "b-f37072fd.pth")}
    for file in files.values():
        file.write_bytes(b"weights")

    def of_weights(file, name="resnet18"):
        return of(model={"name": name, "weights": str(file)})["model.weights"]

    plain, known, other = map(of_weights, files.values())
    assert plain == other != known
    (tmp_path / "copy").mkdir()
    copy = shutil.copy(files["resnet18-f37072fd.pth"], tmp_path / "copy")
    assert of_weights(copy) == known != of_weights(copy, "small_cnn") == plain


def test_a_file_that_a_users_function_is_given_counts_by_its_bytes(tmp_path):
    def of_texts(file, **more):
        kwargs = {"train": str(file), "text_column": "text", **more}
        return of(data={"target": "my_texts:texts", "kwargs": kwargs})

    one, two = tmp_path / "one.csv", tmp_path / "two.csv"
    one.write_text("text,label\ngood,1\n")
    shutil.copyfile(one, two)
    assert of_texts(one) == of_texts(two)
    assert "data.kwargs.train" in of_texts(one) and len(of_texts(one)) == 2
    two.write_text("text,label\ngood,0\n")
    assert of_texts(one) != of_texts(two)
    assert of_texts(tmp_path / "gone.csv").keys() == {"data.target"}
