"""One console script for all commands."""

import json

import pytest

from rayprune.__main__ import main


@pytest.mark.parametrize("command", ["tune", "train", "report"])
def test_every_command_has_its_help(command, capsys):
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: rayprune {command} ")


def test_help_names_every_command(capsys):
    assert main(["--help"]) == 0
    said = capsys.readouterr().out
    assert all(f"  {command} " in said for command in ("tune", "train", "report", "schema"))


@pytest.mark.parametrize("words", [[], ["prune"]])
def test_what_is_no_command_is_code_two(words, capsys):
    assert main(words) == 2
    printed = capsys.readouterr()
    assert "rayprune COMMAND" in printed.out + printed.err


def test_commands_return_their_exit_code(capsys):
    assert main(["tune", "nowhere.yaml"]) == 2
    assert main(["train", "nowhere.yaml"]) == 2
    assert main(["report", "nowhere"]) == 2
    assert capsys.readouterr().err.count("error: ") == 3


def test_the_schema_is_json(capsys):
    assert main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out)["title"] == "Study"
