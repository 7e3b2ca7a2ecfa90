"""The benchmarks behind the README's figures, on tiny generated data and without peers."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from fkp.data.pts_folders import write_pts
from fkp.data.youtube_faces import YoutubeFaces

Run = tuple[Path, str]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def sets(faces_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both real sets' layouts, drawn."""
    root = tmp_path_factory.mktemp("sets")
    shutil.copytree(faces_folder, root / "youtube_faces")
    faces = YoutubeFaces(str(faces_folder)).read()
    (root / "300w_train").mkdir()
    for i in range(len(faces)):
        photo = root / f"300w_train/photo{i:03d}.png"
        shutil.copy(faces.paths[i], photo)
        write_pts(photo.with_suffix(".pts"), faces.points[i])
    return root


def bench(script: str, *arguments: str) -> dict[str, float]:
    (file,) = (ROOT / "benchmarks").rglob(script)
    command = [sys.executable, str(file), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_accuracy_gives_the_promised_figures(trained: Run, sets: Path, tmp_path: Path) -> None:
    ckpt = str(trained[0] / "checkpoints/best.ckpt")
    nowhere = ("--dlib", str(tmp_path / "python"))  # a peer that is not there is left out
    sheet, shapes = tmp_path / "worst.png", tmp_path / "shapes.png"
    figures = bench(
        "accuracy.py",
        str(sets),
        "--ckpt",
        ckpt,
        "--out",
        str(sheet),
        "--shapes",
        str(shapes),
        *nowhere,
    )
    for name in (
        "nme_identity",
        "fr10_identity",
        "nme_official_end_to_end",
        "nme_300w_val",
        "parameters",
        "file_mb",
    ):
        assert figures[name] > 0
    assert 0 <= figures["missed_official"] <= 8 and sheet.stat().st_size > shapes.stat().st_size > 0
    assert (
        figures["identity_fkp_nme_low"]
        <= figures["identity_fkp_nme"]
        <= figures["identity_fkp_nme_high"]
    )
    assert not [name for name in figures if "dlib" in name]


def test_calibration_says_what_is_true_of_points(trained: Run, sets: Path) -> None:
    figures = bench(
        "calibration.py", str(sets), "--ckpt", str(trained[0] / "checkpoints/best.ckpt")
    )
    for name in ("300w", "youtube_faces"):  # a network that does not tell how sure it is says 1
        assert figures[f"{name}_said"] == 100
        assert figures[f"{name}_calibration_error"] == pytest.approx(
            100 - figures[f"{name}_near"], abs=0.01
        )


def test_robustness_measures_every_curve(trained: Run, sets: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    ckpt, plot = str(trained[0] / "checkpoints/best.ckpt"), tmp_path / "robustness.png"
    figures = bench("robustness.py", str(sets), "--ckpt", ckpt, "--faces", "4", "--out", str(plot))
    for kind in (
        "shift_20",
        "scale_1.25",
        "rotation_45",
        "blur_6",
        "noise_60",
        "dark_0.05",
        "occlusion_0.3",
        "size_16",
    ):
        assert figures[f"{kind}_fkp"] > 0
    assert plot.stat().st_size > 0


def test_detectors_are_counted_before_and_after_unsure_boxes_are_dropped(
    trained: Run, sets: Path
) -> None:
    ckpt = str(trained[0] / "checkpoints/best.ckpt")
    figures = bench("detectors.py", str(sets), "--ckpt", ckpt, "--every", "4")
    for place in ("official", "300w_val"):
        assert figures[f"{place}_haar_recall"] <= figures[f"{place}_haar_unfiltered_recall"] <= 100
        assert figures[f"{place}_haar_false"] <= figures[f"{place}_haar_unfiltered_false"]
        assert figures[f"{place}_haar_ms"] > 0


def test_waiting_is_measured_without_peers(trained: Run, tmp_path: Path) -> None:
    from fkp import painter
    from fkp.files.images import write_image

    write_image(tmp_path / "face.png", painter.paint(3, 0)[0])
    ckpt = str(trained[0] / "checkpoints/best.ckpt")
    nowhere = ("--dlib", str(tmp_path / "python"), "--mediapipe", str(tmp_path / "python"))
    figures = bench(
        "predict.py", str(tmp_path), "--ckpt", ckpt, "--rounds", "1", "--stream", "12", *nowhere
    )
    for name in (
        "cold_s",
        "cold_library_s",
        "photo_ms",
        "peak_mb",
        "stream_500_mb",
        "stream_end_mb",
    ):
        assert figures[name] > 0
    assert not [name for name in figures if "_over_" in name]


def test_fuzz_counts_how_reading_ends(tmp_path: Path) -> None:
    readers = ("png", "csv", "film", "archive")
    figures = bench(
        "fuzz.py", "--inputs", "80", "--keep", str(tmp_path / "kept"), "--readers", *readers
    )
    assert figures["inputs"] == figures["results"] + figures["errors"] == 80
    assert figures["bugs"] == 0 and figures["errors"] > 0 and not (tmp_path / "kept").exists()


def test_scaling_tells_how_memory_and_speed_grow() -> None:
    options = [
        "--base",
        "30",
        "--sizes",
        "2",
        "--batches",
        "3",
        "--steps",
        "1",
        "--experiments",
        "two_conv",
    ]
    figures = bench("scaling.py", *options)
    assert figures["x2_faces"] == 60 and figures["x2_disk_mb"] > 0
    for name in ("first", "again", "cold", "loader", "two_conv"):
        assert figures[f"x2_{name}_faces_per_s"] > 0 and figures[f"x2_{name}_processor_ms"] > 0
    assert figures["x2_imported_mb"] <= figures["x2_set_up_mb"] <= figures["x2_peak_mb"]
