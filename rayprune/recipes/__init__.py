"""Whole problems to copy and change: data, network and task of each in one short file.

A study names what is in them as target, such as `rayprune.recipes.text:classifier`, or, once a file
is copied, `my_text:classifier`. The studies that do so are tune_configs/recipe_*.yaml. Nothing else
of rayprune imports this folder.

    regression.py      images to a number
    text.py            bytes of text to a class
    language_model.py  the next byte
    hugging_face.py    a transformer of Hugging Face's, and texts from your files
    detection.py       images of different sizes to boxes (with detector.py and shapes.py)
"""
