"""Detectors: find the face boxes in an image.

A detector is called with an RGB or gray image and returns boxes and scores. Large images are
searched as a whole, shrunk, and in overlapping tiles.
"""

from fkp.detectors.auto import Auto as Auto
from fkp.detectors.haar import HaarCascade as HaarCascade
from fkp.detectors.interface import Detector as Detector
from fkp.detectors.interface import describe as describe
from fkp.detectors.interface import detect as detect
from fkp.detectors.short_range import MediaPipe as MediaPipe
from fkp.detectors.yunet import YuNet as YuNet
