"""Images: from files, names or functions to normalised batches on a device.

``load_data`` gives a `Dataset` of three `Split`s; ``Split.batches`` gives the batches for indices
and random numbers that the caller draws. Order and augmentation are thus the caller's alone, and
the same for any number of workers.

    sources.py   one protocol over all origins, row by row: parquet.py, folders.py, named.py and
                 target.py open them
    reader.py    samples brought to one shape, in this process or in loader processes
    splits.py    batches, from memory or streamed
    dataset.py   which of these a description needs
"""

from rayprune.data.augment import NUM_RANDOMS
from rayprune.data.check import check_data
from rayprune.data.dataset import Dataset, load_data
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
]
