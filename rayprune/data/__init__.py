"""Samples: from files, names or functions to batches on a device, images normalised.

``load_data`` returns a `Dataset` of three `Split`s; ``Split.batches`` makes batches of indices and
random numbers that the caller draws. Order and augmentation are thus the caller's alone, and the
same for any number of workers.

    sources.py   one protocol over all origins, row by row, which these open:
                 named.py (sets with a name), folders.py (image trees), function.py (the user's),
                 parquet.py (with parquet_files.py, class_numbers.py, and mapped.py for streaming)
    images.py    encoded images to tensors
    nests.py     inputs and targets that are several tensors
    reader.py    samples brought to one shape, in this process or in loader processes
    augment.py   images and random numbers to augmented images
    splits.py    batches, from memory or streamed
    reading.py   how samples are read, by what the description and the first of them say
    preprocessing.py  how images are normalised, and what `auto` stands for
    dataset.py   from a description to its parts
    check.py     what is wrong with a description, without decoding an image
"""

from rayprune.data.augment import NUM_RANDOMS
from rayprune.data.check import check_data
from rayprune.data.dataset import Dataset, load_data, open_sources
from rayprune.data.nests import map_tensors
from rayprune.data.preprocessing import with_size
from rayprune.data.sources import IGNORED_PIXEL
from rayprune.data.splits import InMemory, Split

__all__ = [
    "IGNORED_PIXEL",
    "NUM_RANDOMS",
    "Dataset",
    "InMemory",
    "Split",
    "check_data",
    "load_data",
    "map_tensors",
    "open_sources",
    "with_size",
]
