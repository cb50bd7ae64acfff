"""Data sets, decoding, resizing and augmentation; `catalogue` is the union of the data sets."""
