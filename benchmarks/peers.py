"""Run other key point detectors for comparison on the same photos.

dlib (dlib-bin, face-recognition-models 0.3.0) and MediaPipe (0.10.21) are not dependencies of fkp.
They need environments of their own, so each runs as a child process of its own Python interpreter.
The child reads requests, one line of JSON each, from its standard input:
    {"path": …, "box": [4] or null, "upsampling": 1}
and answers with one line of JSON each:
    {"points": [[68, 2] for each face], "boxes": …, "detect_ms": …, "points_ms": …}

As a script, this file is the child process:

    python peers.py dlib|dlib_trainer|mediapipe|mediapipe_boxes|mediapipe_mesh|mediapipe_tracking

`mediapipe_boxes` is its short-range detector alone: boxes and scores, no points. `mediapipe_mesh`
gives all 478 points of the mesh instead of 68. `mediapipe_tracking` follows the face from photo to
photo as in a video, so that only the first photo needs the detector. `dlib_trainer` trains a shape
predictor, and predicts with it: see `_dlib_trainer` for its requests.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import Any

PEERS = ("dlib", "mediapipe")

# The indices of FaceMesh's 468 points that lie at the 68 points: jaw, brows, nose, eyes, lips.
MESH = [
    *(162, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 389),
    *(71, 63, 105, 66, 107, 336, 296, 334, 293, 301),
    *(168, 197, 5, 4, 75, 97, 2, 326, 305),
    *(33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380),
    *(61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181),
    *(78, 82, 13, 312, 308, 317, 14, 87),
]


class Peer:
    """Run a peer in its own Python interpreter.

    Args:
        name: as above: `dlib`, `mediapipe`, …
        python: the interpreter that has it.

    Raises:
        RuntimeError: the peer does not start there.
    """

    def __init__(self, name: str, python: str):
        quiet = {
            **os.environ,
            "GLOG_minloglevel": "3",
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "PYTHONWARNINGS": "ignore",
        }
        self.name = name
        self.child = subprocess.Popen(
            [python, __file__, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=quiet,
        )
        assert self.child.stdin is not None and self.child.stdout is not None
        self.requests, self.answers = self.child.stdin, self.child.stdout
        if self.answers.readline().strip() != "ready":
            raise RuntimeError(f"{name} does not start in {python}")

    def __call__(
        self, image: str, box: list[float] | None = None, upsampling: int = 1
    ) -> dict[str, Any]:
        """Find the points (68, 2) of each face in an image, or of the face in a box, IMAGE pixels.

        Args:
            image: the path of the image.
            box: left, top, right, bottom; MediaPipe ignores it.
            upsampling: how often dlib doubles the size of the image before it detects faces.

        Returns:
            The points, the boxes, and the times of detection and prediction in milliseconds.
        """
        return self.ask(path=image, box=box, upsampling=upsampling)

    def ask(self, **request: Any) -> dict[str, Any]:
        """Send a request, and wait for its answer.

        Raises:
            RuntimeError: the child process has ended.
        """
        self.requests.write(json.dumps(request) + "\n")
        self.requests.flush()
        if not (answer := self.answers.readline()):
            raise RuntimeError(f"{self.name} ended without an answer")
        return json.loads(answer)

    def close(self) -> None:
        """End the child process."""
        self.requests.close()
        self.child.wait()


def available(pythons: dict[str, str]) -> dict[str, Peer]:
    """Start the peers that are installed; print a message on stderr for each that is not.

    Args:
        pythons: the Python interpreter of each peer.
    """
    peers = {}
    for name, python in pythons.items():
        try:
            peers[name] = Peer(name, python)
        except (RuntimeError, OSError) as error:
            print(
                f"{name}: skipped; {error}; give a Python that has it by --{name}", file=sys.stderr
            )
    return peers


def fit_dlib_box(peer: Peer, paths: Any, labels: Any) -> Any:
    """Fit a function from face boxes to the boxes that dlib's detector draws, by medians.

    Args:
        peer: dlib.
        paths, labels: of labelled faces: image, and points (68, 2).
    """
    import numpy as np

    from fkp.geometry import centre_and_side, face_box, square

    rows = []
    for path, label in zip(paths, labels, strict=True):
        for edges in peer(str(path))["boxes"]:
            x, y, side = (float(value) for value in centre_and_side(face_box(label)))
            found_x, found_y, found_side = (float(value) for value in centre_and_side(edges))
            if np.hypot(found_x - x, found_y - y) < 0.5 * side:
                rows.append([(found_x - x) / side, (found_y - y) / side, found_side / side])
    right, down, larger = np.median(rows, 0)

    def convert(box: Any) -> list[float]:
        x, y, side = (float(value) for value in centre_and_side(box))
        return square(x + right * side, y + down * side, side * larger).tolist()

    return convert


def _read_rgb(path: str) -> Any:
    """Read an image as RGB, (H, W, 3) uint8."""
    import cv2

    image = cv2.imread(path, cv2.IMREAD_COLOR)
    assert image is not None
    return image[:, :, ::-1].copy()


def _dlib() -> Any:
    """Load dlib's HOG detector and its 68-point predictor."""
    from pathlib import Path

    import dlib
    import face_recognition_models as models

    detector = dlib.get_frontal_face_detector()
    file = "models/shape_predictor_68_face_landmarks.dat"
    weights = Path(models.__file__).parent / file
    predictor = dlib.shape_predictor(str(weights))

    def find(path: str, box: list[float] | None, upsampling: int) -> dict[str, Any]:
        image = _read_rgb(path)

        # Detect, unless a box is given.
        began = time.perf_counter()
        if box is None:
            boxes = detector(image, upsampling)
        else:
            boxes = [dlib.rectangle(*(round(edge) for edge in box))]
        detected = time.perf_counter()

        shapes = [predictor(image, face) for face in boxes]
        ended = time.perf_counter()
        return {
            "points": [[[point.x, point.y] for point in shape.parts()] for shape in shapes],
            "boxes": [[face.left(), face.top(), face.right(), face.bottom()] for face in boxes],
            "detect_ms": 1000 * (detected - began),
            "points_ms": 1000 * (ended - detected),
            "file_mb": weights.stat().st_size / 1e6,
        }

    return find


def _dlib_trainer() -> Any:
    """Load dlib's trainer of shape predictors."""
    import cv2
    import dlib

    def enlarged(path: str, by: int) -> Any:
        return cv2.resize(_read_rgb(path), None, fx=by, fy=by, interpolation=cv2.INTER_LINEAR)

    def rectangle(box: list[float], by: int) -> Any:
        return dlib.rectangle(*(round((edge + 0.5) * by - 0.5) for edge in box))

    def train(
        train: list[dict[str, Any]],
        tests: list[dict[str, Any]],
        model: str,
        oversampling: int,
        enlarge: int,
    ) -> dict[str, Any]:
        """Train on faces {path, box, points}, save the model, and predict faces {path, box}.

        dlib rounds boxes and points to whole pixels, so images may be enlarged for it.
        """
        began = time.perf_counter()
        images, objects = [], []
        for face in train:
            images.append(enlarged(face["path"], enlarge))
            parts = [
                dlib.point(*(round((value + 0.5) * enlarge - 0.5) for value in point))
                for point in face["points"]
            ]
            box = rectangle(face["box"], enlarge)
            objects.append([dlib.full_object_detection(box, parts)])

        options = dlib.shape_predictor_training_options()
        options.oversampling_amount = oversampling
        options.num_threads = os.cpu_count() or 1
        predictor = dlib.train_shape_predictor(images, objects, options)
        predictor.save(model)
        seconds = time.perf_counter() - began

        points = []
        for face in tests:
            image = enlarged(face["path"], enlarge)
            parts = predictor(image, rectangle(face["box"], enlarge)).parts()
            points.append([[(value + 0.5) / enlarge - 0.5 for value in (p.x, p.y)] for p in parts])
        return {"points": points, "train_s": seconds}

    return train


def _mediapipe(indices: Any = MESH, tracking: bool = False) -> Any:
    """Load MediaPipe's FaceMesh, which detects and predicts in one call.

    Args:
        indices: of the mesh's points that are wanted.
        tracking: follow one face from photo to photo.
    """
    from pathlib import Path

    import mediapipe

    mesh = mediapipe.solutions.face_mesh.FaceMesh(
        static_image_mode=not tracking,
        max_num_faces=1 if tracking else 4,
        refine_landmarks=True,
    )
    weights = "modules/face_landmark/face_landmark_with_attention.tflite"
    size = (Path(mediapipe.__file__).parent / weights).stat().st_size

    def find(path: str, box: list[float] | None, upsampling: int) -> dict[str, Any]:
        image = _read_rgb(path)
        height, width = image.shape[:2]
        began = time.perf_counter()
        faces = mesh.process(image).multi_face_landmarks or []
        ms = 1000 * (time.perf_counter() - began)

        # Its coordinates run from 0 to 1 over the edges of the pixels.
        points = [
            [[f.landmark[i].x * width - 0.5, f.landmark[i].y * height - 0.5] for i in indices]
            for f in faces
        ]
        times = {"detect_ms": 0.0, "points_ms": ms}
        return {"points": points, "boxes": [], **times, "file_mb": size / 1e6}

    return find


def _mediapipe_boxes() -> Any:
    """Load MediaPipe's short-range detector."""
    import mediapipe

    detector = mediapipe.solutions.face_detection.FaceDetection(
        model_selection=0, min_detection_confidence=0.5
    )

    def find(path: str, box: list[float] | None, upsampling: int) -> dict[str, Any]:
        image = _read_rgb(path)
        height, width = image.shape[:2]
        began = time.perf_counter()
        faces = detector.process(image).detections or []
        ms = 1000 * (time.perf_counter() - began)

        # From fractions of the image, measured from its edge, to IMAGE pixels.
        relative = [face.location_data.relative_bounding_box for face in faces]
        corners = [(b.xmin, b.ymin, b.xmin + b.width, b.ymin + b.height) for b in relative]
        boxes = [
            [edge * side - 0.5 for edge, side in zip(found, 2 * (width, height), strict=True)]
            for found in corners
        ]
        scores = [face.score[0] for face in faces]
        return {"points": [], "boxes": boxes, "scores": scores, "detect_ms": ms, "points_ms": 0.0}

    return find


def serve(name: str) -> None:
    """Answer the requests on standard input until it ends."""
    loaders = {
        "dlib": _dlib,
        "dlib_trainer": _dlib_trainer,
        "mediapipe": _mediapipe,
        "mediapipe_boxes": _mediapipe_boxes,
        "mediapipe_mesh": lambda: _mediapipe(range(478)),
        "mediapipe_tracking": lambda: _mediapipe(tracking=True),
    }
    find = loaders[name]()

    # What the libraries print must not mix with the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(find(**json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    serve(sys.argv[1])
