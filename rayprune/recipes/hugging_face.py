"""A text classifier of Hugging Face's, from a folder, on texts and labels of your own files.

`classifier` is the network, `texts` the data; the task is the built-in classification. The folder
is what `save_pretrained` writes, of network and tokenizer. Nothing is downloaded.
Study: tune_configs/recipe_hugging_face.yaml.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


def classifier(num_classes: int, weights: str, **options: Any) -> nn.Module:
    """The network in the folder `weights`, which is model.weights, with so many classes.

    A head that the folder lacks starts fresh. `options` (model.kwargs) are from_pretrained's, such
    as ignore_mismatched_sizes: true for a head that was trained for other classes.
    """
    model = _transformers().AutoModelForSequenceClassification.from_pretrained(
        _folder(weights, "experiment.model.weights"),
        num_labels=num_classes,
        local_files_only=True,
        **options,
    )
    if (
        model.config.pad_token_id is None
    ):  # GPT-2 has none, and finds the last token of a text by it
        model.config.pad_token_id = model.config.eos_token_id
    return model.float()  # a folder may hold bfloat16; precision: bfloat16 casts while training


def texts(
    train: str,
    test: str,
    tokenizer: str,
    val: str | None = None,
    text_column: str = "text",
    label_column: str = "label",
    classes: list[str] | None = None,
    max_tokens: int = 128,
) -> dict[str, Any]:
    """Tokenised texts of Parquet, CSV or JSON-lines files; `tokenizer` is the model's folder.

    Labels are class numbers, or names, in the order of `classes`, else of the alphabet. Write whole
    paths: workers of a cluster start in another folder.
    """
    folder = _folder(tokenizer, "experiment.data.kwargs.tokenizer")
    tokenize = _transformers().AutoTokenizer.from_pretrained(folder, local_files_only=True)
    if tokenize.pad_token is None:
        tokenize.pad_token = tokenize.eos_token
    parts: dict[str, Any] = {}
    for part, file in {"train": train, "test": test, **({"val": val} if val else {})}.items():
        columns = _read(file).select([text_column, label_column]).to_pydict()
        labels = columns[label_column]
        classes = classes or _classes(labels)  # of the training part, which comes first
        inputs = tokenize(columns[text_column], truncation=True, max_length=max_tokens)
        numbers = [_number(label, classes, file) for label in labels]
        rows = [{name: inputs[name][i] for name in inputs} for i in range(len(labels))]
        parts[part] = list(zip(rows, numbers, strict=True))
    return {**parts, "classes": classes, "collate": partial(collate, tokenize)}


def collate(tokenizer: Any, samples: list[tuple[Any, int]]) -> tuple[dict[str, Tensor], Tensor]:
    """input_ids, attention_mask and such, each (n, longest), and labels (n,).

    The model is called with them by name: model(input_ids=…, attention_mask=…).
    """
    rows, labels = zip(*samples, strict=True)
    return dict(tokenizer.pad(list(rows), return_tensors="pt")), torch.tensor(labels)


def _classes(labels: list[Any]) -> list[str]:
    if all(isinstance(label, int) for label in labels):
        return [str(number) for number in range(max(labels) + 1)]
    return sorted(set(labels))


def _number(label: Any, classes: list[str], file: str) -> int:
    if not isinstance(label, int) and label not in classes:
        raise ValueError(f"{file}: label {label!r} is none of {', '.join(classes)}")
    return label if isinstance(label, int) else classes.index(label)


def _read(file: str) -> Any:
    if file.endswith(".csv"):
        from pyarrow.csv import read_csv as read
    elif file.endswith((".json", ".jsonl")):
        from pyarrow.json import read_json as read
    else:
        from pyarrow.parquet import read_table as read
    return read(file)


def _folder(path: str, field: str) -> str:
    if not (Path(path) / "config.json").is_file() and not (Path(path) / "tokenizer.json").is_file():
        raise ValueError(f"{field} must be a folder that save_pretrained wrote, got {path}")
    return path


def _transformers() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise ValueError(f"hugging_face.py: {error}. Run: pip install transformers") from error
    return transformers
