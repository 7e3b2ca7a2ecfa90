"""Index the `.pts` files below a folder, and the images and videos that belong to them."""

from __future__ import annotations

import os
import shlex
import unicodedata
from collections import defaultdict
from pathlib import Path

from fkp.errors import FkpError
from fkp.files.images import IMAGE_ENDINGS, VIDEO_ENDINGS


class PtsIndex:
    """The `.pts` files below a folder, and the images beside them.

    Args:
        root: the folder.

    Attributes:
        pts: the files, in the order of their paths.
    """

    def __init__(self, root: Path):
        self.pts: list[Path] = []
        # Folder -> key of a stem -> images.
        self._images = defaultdict[Path, dict[str, list[Path]]](dict)
        # Folder -> videos, folder -> folders, and the folders with .pts files.
        self._videos = defaultdict[Path, list[Path]](list)
        self._folders = defaultdict[Path, list[Path]](list)
        self._labelled: set[Path] = set()

        for place, folders, files in os.walk(root):
            here = Path(place)
            folders[:] = sorted(name for name in folders if name != "__MACOSX")
            self._folders[here] = [here / name for name in folders]
            for name in (*folders, *files):
                # macOS adds files that begin like this.
                if not name.startswith("._"):
                    self._add(here, here / name)
        self.pts.sort()

    def _add(self, folder: Path, file: Path) -> None:
        ending = file.suffix.lower()
        if ending == ".pts":
            self.pts.append(file)
            self._labelled.add(folder)
        elif ending in IMAGE_ENDINGS and file.is_file():
            self._images[folder].setdefault(_key(file.stem), []).append(file)
        elif ending in VIDEO_ENDINGS:
            self._videos[folder].append(file)

    def images(self, pts: Path) -> list[Path]:
        """Return the images that a `.pts` file may belong to.

        They have its name, whatever the format and letter case, and lie beside it. If its folder
        holds no images, they lie in the folder above or another folder there, except for folders
        with `.pts` files of their own.
        """
        places = [pts.parent]
        if pts.parent not in self._images:
            places = [pts.parent.parent, *self._folders.get(pts.parent.parent, [])]
            places = [place for place in places if place not in self._labelled]

        same = [
            path for place in places for path in self._images.get(place, {}).get(_key(pts.stem), [])
        ]
        exact = [path for path in same if path.stem == pts.stem]

        # a.jpg and a.jpg.pts
        named = self._images.get(pts.parent, {}).get(_key(Path(pts.stem).stem), [])
        return exact or same or [path for path in named if path.name == pts.stem]

    def refuse_videos(self) -> None:
        """Check that frames of videos, as in 300-VW, have been extracted to image files.

        Raises:
            FkpError: they have not; names the command that extracts them.
        """
        clips = defaultdict[Path, list[Path]](list)
        for file in self.pts:
            clips[file.parent].append(file)
        missing = {
            folder: videos[0]
            for folder, files in clips.items()
            if (videos := self._videos.get(folder) or self._videos.get(folder.parent))
            and not any(map(self.images, files))
        }
        if not missing:
            return

        folder, video = next(iter(missing.items()))
        command = _extraction(video, folder, clips[folder][0].stem)
        raise FkpError(
            f"{folder}: .pts files of the frames of {video.name}, but no images ({len(missing)} "
            "such videos in all); extract the frames of each video beside its .pts files and under "
            f"their names, here by: {command}"
        )


def _extraction(video: Path, folder: Path, first: str) -> str:
    """Return the command that extracts a video's frames, where `first` names the first frame."""
    start = 0 if first == "0" * len(first) else 1
    frames = shlex.quote(f"{folder}/%0{len(first)}d.png")
    return (
        f"ffmpeg -i {shlex.quote(str(video))} -fps_mode passthrough -start_number {start} {frames}"
    )


def _key(stem: str) -> str:
    """Return what names that differ in letter case or Unicode normal form have in common."""
    return unicodedata.normalize("NFC", stem).casefold()
