"""Labelled faces: sources, table, splits, image cache, dataset and data module.

Each source has `read()`, which returns a `FaceTable`, and a `protocol`, the rule that splits it.
"""
