"""Other people's key points, for comparison on the same photos. None of them is a dependency of fkp.

dlib (dlib-bin, face-recognition-models 0.3.0) and MediaPipe (0.10.21) want environments of their own, so each runs as a
child process in its own Python: a line of JSON in, {"path": …, "box": [4] or null, "upsampling": 1}, a line out,
{"points": [[68, 2] of each face it finds], "detect_ms": …, "points_ms": …}. As a script, this file is that child:

    python peers.py dlib|mediapipe
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import Any

# Which of FaceMesh's 468 points lies where each of the 68 does: jaw, brows, nose, eyes, lips.
MESH = [
    *(162, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 389),
    *(71, 63, 105, 66, 107, 336, 296, 334, 293, 301),
    *(168, 197, 5, 4, 75, 97, 2, 326, 305),
    *(33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380),
    *(61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181),
    *(78, 82, 13, 312, 308, 317, 14, 87),
]


PEERS = ("dlib", "mediapipe")


class Peer:
    """A peer in a Python of its own.

    Args:
        name: `dlib` or `mediapipe`.
        python: the interpreter that has it.

    Raises:
        RuntimeError: it does not start there.
    """

    def __init__(self, name: str, python: str):
        quiet = {
            **os.environ,
            "GLOG_minloglevel": "3",
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "PYTHONWARNINGS": "ignore",
        }
        command = [python, __file__, name]
        self.child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=quiet,
        )
        assert self.child.stdin is not None and self.child.stdout is not None
        self.to, self.out = self.child.stdin, self.child.stdout
        if self.out.readline().strip() != "ready":
            raise RuntimeError(f"{name} does not start in {python}")

    def __call__(
        self, image: str, box: list[float] | None = None, upsampling: int = 1
    ) -> dict[str, Any]:
        """Points (68, 2) of each face found in a picture, or of the one in a box, IMAGE pixels; and the times. dlib
        doubles the picture's size `upsampling` times before it looks for faces."""
        self.to.write(json.dumps({"path": image, "box": box, "upsampling": upsampling}) + "\n")
        self.to.flush()
        return json.loads(self.out.readline())


def available(pythons: dict[str, str]) -> dict[str, Peer]:
    """The peers that start in the Pythons named for them; a message on stderr for each that does not."""
    peers = {}
    for name, python in pythons.items():
        try:
            peers[name] = Peer(name, python)
        except (RuntimeError, OSError) as error:
            print(f"{name}: skipped; {error}; --{name} names a Python that has it", file=sys.stderr)
    return peers


def _rgb(path: str) -> Any:
    import cv2

    return cv2.imread(path, cv2.IMREAD_COLOR)[:, :, ::-1].copy()  # type: ignore[index]


def _dlib() -> Any:
    from pathlib import Path

    import dlib
    import face_recognition_models as models

    detector = dlib.get_frontal_face_detector()
    file = "models/shape_predictor_68_face_landmarks.dat"
    predictor = dlib.shape_predictor(str(Path(models.__file__).parent / file))

    def find(path: str, box: list[float] | None, upsampling: int) -> dict[str, Any]:
        image = _rgb(path)
        began = time.perf_counter()
        boxes = (
            detector(image, upsampling)
            if box is None
            else [dlib.rectangle(*(round(edge) for edge in box))]
        )
        found = time.perf_counter()
        shapes = [predictor(image, face) for face in boxes]
        ended = time.perf_counter()
        points = [[[point.x, point.y] for point in shape.parts()] for shape in shapes]
        edges = [[face.left(), face.top(), face.right(), face.bottom()] for face in boxes]
        return {
            "points": points,
            "boxes": edges,
            "detect_ms": 1000 * (found - began),
            "points_ms": 1000 * (ended - found),
        }

    return find


def _mediapipe() -> Any:
    import mediapipe

    mesh = mediapipe.solutions.face_mesh.FaceMesh(
        static_image_mode=True, max_num_faces=4, refine_landmarks=True
    )

    def find(path: str, box: list[float] | None, upsampling: int) -> dict[str, Any]:
        image = _rgb(path)
        height, width = image.shape[:2]
        began = time.perf_counter()
        faces = mesh.process(image).multi_face_landmarks or []
        both = 1000 * (time.perf_counter() - began)
        # Its coordinates run from 0 to 1 over the edges of the pixels.
        points = [
            [[f.landmark[i].x * width - 0.5, f.landmark[i].y * height - 0.5] for i in MESH]
            for f in faces
        ]
        return {
            "points": points,
            "boxes": [],
            "detect_ms": 0.0,
            "points_ms": both,
        }  # it cannot be told a box

    return find


if __name__ == "__main__":
    finder = {"dlib": _dlib, "mediapipe": _mediapipe}[sys.argv[1]]()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the libraries print is no answer
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        print(json.dumps(finder(**asked)), file=answers, flush=True)
