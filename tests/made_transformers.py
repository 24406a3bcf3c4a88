"""Transformers of Hugging Face's with random weights and few words, and texts for them."""

import csv

WORDS = ("good", "bad", "a", "the", "film", "book", "was", "very", "long", "short")
CLASSES = ("bad", "good")


def save_transformer(folder, kind, seed=0):
    """`folder`, with a tiny BERT or GPT-2 without a head, and its tokenizer, as save_pretrained."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertModel, GPT2Config, GPT2Model, PreTrainedTokenizerFast

    words = ["[PAD]", "[UNK]", *WORDS] if kind == "bert" else ["[UNK]", "[END]", *WORDS]
    backend = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {"pad_token": "[PAD]"} if kind == "bert" else {"eos_token": "[END]"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]", **special)
    torch.manual_seed(seed)
    if kind == "bert":
        config = BertConfig(
            vocab_size=len(words),
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=32,
            pad_token_id=0,
        )
        model = BertModel(config)
    else:
        config = GPT2Config(
            vocab_size=len(words), n_embd=32, n_layer=2, n_head=2, n_positions=32, eos_token_id=1
        )
        model = GPT2Model(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def write_texts(folder, num_train=200, num_test=40):
    """{train, test}: CSV files of sentences, of one to six words beside the one that matters."""
    files = {}
    for part, num in (("train", num_train), ("test", num_test)):
        files[part] = str(folder / f"{part}.csv")
        with open(files[part], "w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["text", "label"])
            for i in range(num):
                label = CLASSES[i % 2]
                others = [WORDS[2 + (i * 7 + k * 3) % 8] for k in range(1 + i % 6)]
                place = i % (len(others) + 1)
                rows.writerow([" ".join([*others[:place], label, *others[place:]]), label])
    return files
