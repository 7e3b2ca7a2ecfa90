"""Read SLEAP's projects (.slp) and packages with images (.pkg.slp), through sleap-io.

Coordinates count from the centre of the top-left pixel. Files of formats before 1.1 count from its
corner, and sleap-io converts them (sleap_io/io/slp.py: "Adjust to new system: center of pixel is
(0, 0)").
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fkp.data.csv_reader import is_image
from fkp.data.formats.base import LabelFormat
from fkp.data.formats.contents import Contents, LabelledFace, keep_videos_together
from fkp.errors import FkpError, one_line
from fkp.files.cache import cache_folder, fingerprint
from fkp.files.images import write_image
from fkp.files.reading import short

log = logging.getLogger(__name__)


class Sleap(LabelFormat):
    """A project whose frames are image files, or a package, which holds its images.

    The images of a package are unpacked to the cache folder. Predicted instances that no one has
    corrected are left out. Names, mirror pairs (symmetries) and lines (edges) are those of the
    skeleton. The frames of one video stay in one split, if there are at least six videos.
    """

    @classmethod
    def recognise(cls, root: Path) -> list[Path]:
        return sorted(root.glob("*.slp"))

    def contents(self) -> Contents:
        file = self.label_file("SLEAP (.slp)")
        labels = _load(file)
        if len(labels.skeletons) != 1:
            what = f"{file}: {len(labels.skeletons)} skeletons; keep one in the project"
            raise FkpError(what, file=file)

        skeleton = labels.skeletons[0]
        faces = list(self._faces(file, labels, skeleton))
        keep_videos_together(faces)
        return Contents(
            file.name.partition(".")[0],
            list(skeleton.node_names),
            faces,
            pairs=[sorted(map(str, pair)) for pair in skeleton.symmetry_names] or None,
            edges=[(int(first), int(second)) for first, second in skeleton.edge_inds],
            file=file,
        )

    def _faces(self, file: Path, labels: Any, skeleton: Any) -> Iterator[LabelledFace]:
        """Yield the instances that someone labelled."""
        packages = {id(v): _Package(file, k, v) for k, v in enumerate(labels.videos)}
        predicted = 0
        for frame in labels:
            predicted += len(frame.predicted_instances)
            package, number = packages[id(frame.video)], int(frame.frame_idx)
            image: str | Path = ""
            fault, person = "", package.name
            for i, instance in enumerate(frame.user_instances):
                row = f"{file.name}:video {package.index}, frame {number}, instance {i}"
                try:
                    image = image or package.image(number)
                except FkpError as error:
                    fault = str(error)
                points = np.array(instance.numpy(), float).reshape(-1, 2)
                yield LabelledFace(image, points, row, person=person, fault=fault)
        if predicted:
            log.info("%s: %d predicted instances left out", file, predicted)


class _Package:
    """The images of one video of a project.

    Args:
        file: the project.
        index: number of the video.
        video: as sleap-io describes it.

    Attributes:
        name: of the video, empty for a list of image files.
    """

    def __init__(self, file: Path, index: int, video: Any):
        self.file, self.index, self.video = file, index, video
        self.embedded = bool((video.backend_metadata or {}).get("has_embedded_images"))
        source = video.source_video.filename if video.source_video else video.filename
        self.names = [str(name) for name in (source if isinstance(source, list) else [source])]
        self.of_images = isinstance(source, list) or is_image(self.names[0])
        # A list of image files is no video.
        self.name = "" if self.of_images else _last_part(self.names[0])

    def image(self, number: int) -> str | Path:
        """Return the name of a frame's image file, which is first unpacked from a package.

        Raises:
            FkpError: frames of a video file, or a damaged package.
        """
        if not self.embedded:
            if self.of_images and number < len(self.names):
                return self.names[number]
            what = f"a frame of the video {self.name}: export a package with images from SLEAP"
            raise FkpError(f"{what} (Predict > Export Labels Package)")

        stat = self.file.stat()
        key = fingerprint(str(self.file.resolve()), str(stat.st_size), str(stat.st_mtime_ns))
        name = f"{Path(self.name).stem or 'image'}_{number}"
        if self.of_images and number < len(self.names):
            # The name that it had, from which the person is derived.
            stems = [Path(_last_part(other)).stem for other in self.names]
            name = stems[number] if len(set(stems)) == len(stems) else f"{number}_{stems[number]}"
        image = cache_folder() / "sleap" / key / f"video{self.index}" / f"{short(name)}.png"
        if not image.is_file():
            write_image(image, self._pixels(number))
        return image

    def _pixels(self, number: int) -> np.ndarray:
        """Decode one image of a package: gray (H, W) or RGB (H, W, 3)."""
        try:
            if not self.video.is_open:
                self.video.open_backend = True
                self.video.open()
            pixels = np.asarray(self.video[number])
        except Exception as error:
            # h5py and sleap-io raise errors of many types for damaged files.
            raise FkpError(f"frame {number} cannot be unpacked: {one_line(error)}") from None
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in (1, 3):
            raise FkpError(f"frame {number} is no image of 8 bits")
        return pixels[..., 0] if pixels.shape[2] == 1 else pixels


def _last_part(name: str) -> str:
    return name.replace("\\", "/").rpartition("/")[2]


def _load(file: Path) -> Any:
    """Load a project; no video is opened.

    Raises:
        FkpError: sleap-io is missing, or the file is damaged.
    """
    try:
        import sleap_io
    except ImportError:
        what = f"{file}: SLEAP's files are read by sleap-io; pip install 'fkp[labels]'"
        raise FkpError(what, file=file, hint="pip install 'fkp[labels]'") from None
    try:
        return sleap_io.load_slp(str(file), open_videos=False)
    except Exception as error:
        # h5py and sleap-io raise errors of many types for damaged files.
        raise FkpError(f"{file}: not a project of SLEAP ({one_line(error)})", file=file) from None
