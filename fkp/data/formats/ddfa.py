"""Read 300W-LP and AFLW2000-3D, the sets of 3DDFA: a `.mat` file with 68 points for each `.jpg`.

Coordinates: pixels, counted from 1, as MATLAB does. The publisher's `main_show_without_BFM.m` plots
`pt3d_68(1, :), pt3d_68(2, :)` on `imshow(img)`, whose first pixel is (1, 1).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np

from fkp.data.formats.base import files_below
from fkp.data.formats.contents import LabelledFace
from fkp.data.formats.published import NOTHING, PHOTO, Published
from fkp.data.pts_folders import lfpw_duplicates
from fkp.data.table import OnBad
from fkp.errors import FkpError
from fkp.files.matlab import read_mat
from fkp.geometry import from_one

LANDMARKS, ENDING = "landmarks", "_pts.mat"
# Folders of 300W-LP, each with a twin of mirrored images, and other folders of the archive.
PARTS = ("AFW", "HELEN", "IBUG", "LFPW")
PARTS += tuple(f"{part}_Flip" for part in PARTS)
"""
"""
