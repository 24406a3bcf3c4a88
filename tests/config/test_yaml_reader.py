"""Numbers are those of YAML 1.2; what looks like time or octal is no number."""

import pytest

from rayprune.config.yaml_reader import read_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2:4", "2:4"),
        ("5e-4", 5e-4),
        ("-1E3", -1000.0),
        ("1.", 1.0),
        (".5", 0.5),
        ("1_000", "1_000"),
        ("010", 10),
        ("-7", -7),
        ("+7", 7),
        ("true", True),
        ("null", None),
        ("", None),
        ("'3'", "3"),
        ("{a: [1, 1.5e2], 0.9: x}", {"a": [1, 150.0], 0.9: "x"}),
    ],
)
def test_values(text, value):
    read = read_yaml(text)
    assert read == value and type(read) is type(value)


@pytest.mark.parametrize(
    "text", ["a: [", "a: b: c", "2024-13-45", "!!int x", "!!python/object/apply:os.getcwd []"]
)
def test_what_is_no_plain_value_is_a_value_error(text):
    with pytest.raises(ValueError) as caught:
        read_yaml(text)
    assert type(caught.value) is ValueError
