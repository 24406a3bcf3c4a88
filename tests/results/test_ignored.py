"""Results are kept out of git and of uploads, and a user's folder is left as it is."""

from rayprune.results.ignored import make_ignored


def made(storage):
    """The .gitignore files of a storage in which two studies began."""
    for name in ("s", "t"):
        make_ignored(str(storage), f"{storage}/{name}", f"{storage}/stages")
    return sorted(str(file.relative_to(storage)) for file in storage.rglob(".gitignore"))


def test_a_new_storage_is_ignored_as_a_whole(tmp_path):
    storage = tmp_path / "new" / "storage"
    assert made(storage) == [".gitignore"]
    assert (storage / ".gitignore").read_text() == "*\n"
    assert not (tmp_path / "new" / ".gitignore").exists()


def test_a_folder_of_the_users_keeps_its_own(tmp_path):
    (tmp_path / ".gitignore").write_text("*.pyc\n")
    assert made(tmp_path) == [".gitignore", "s/.gitignore", "stages/.gitignore", "t/.gitignore"]
    assert (tmp_path / ".gitignore").read_text() == "*.pyc\n"
    (tmp_path / "s" / ".gitignore").unlink()
    assert "s/.gitignore" not in made(tmp_path), "who deletes it wants the results in git"


def test_an_object_store_gets_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_ignored("s3://bucket/rayprune", "s3://bucket/rayprune/s")
    assert list(tmp_path.iterdir()) == []


def test_a_storage_that_cannot_be_made_is_no_matter_here(tmp_path):
    (tmp_path / "file").touch()
    make_ignored(str(tmp_path / "file" / "storage"))
