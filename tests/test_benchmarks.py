"""Run the benchmarks on tiny generated data, without peers."""

import json
import re
import runpy
import shutil
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest
from conftest import ROOT

from fkp import painter
from fkp.data.labelled_csv import write_csv
from fkp.data.pts_folders import write_pts
from fkp.data.youtube_faces import YoutubeFaces
from fkp.files.images import write_image
from fkp.geometry import face_box

# A run's folder, and what it printed.
Run = tuple[Path, str]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def sets(faces_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Synthetic faces in the layouts of both real sets."""
    root = tmp_path_factory.mktemp("sets")
    shutil.copytree(faces_folder, root / "youtube_faces")
    faces = YoutubeFaces(str(faces_folder)).read()
    (root / "300w_train").mkdir()
    for i in range(len(faces)):
        photo = root / f"300w_train/photo{i:03d}.png"
        shutil.copy(faces.paths[i], photo)
        write_pts(photo.with_suffix(".pts"), faces.points[i])
    return root


@pytest.fixture
def ckpt(trained: Run) -> str:
    """The best checkpoint of the tiny run."""
    return str(trained[0] / "checkpoints/best.ckpt")


def run_benchmark(script: str, *arguments: str) -> dict[str, float]:
    """Run a benchmark by its file name; return the metrics of its last line."""
    (file,) = (ROOT / "benchmarks").rglob(script)
    command = [sys.executable, str(file), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_accuracy_prints_the_documented_metrics(ckpt: str, sets: Path, tmp_path: Path) -> None:
    # A peer that is not installed is skipped.
    missing = ("--dlib", str(tmp_path / "python"))
    grid, shapes = tmp_path / "worst.png", tmp_path / "shapes.png"
    outputs = ("--out", str(grid), "--shapes", str(shapes))
    metrics = run_benchmark("accuracy.py", str(sets), "--ckpt", ckpt, *outputs, *missing)

    names = ("nme_identity", "fr10_identity", "nme_official_end_to_end", "nme_300w_val")
    for name in (*names, "nme_300w_test", "parameters", "file_mb", "step_ms"):
        assert metrics[name] > 0
    assert 0 <= metrics["missed_official"] <= 8
    assert grid.stat().st_size > shapes.stat().st_size > 0
    nme = metrics["identity_fkp_nme"]
    assert metrics["identity_fkp_nme_low"] <= nme <= metrics["identity_fkp_nme_high"]
    assert not [name for name in metrics if "dlib" in name]


def test_accuracy_on_validation_reads_no_test_face(sets: Path) -> None:
    names = runpy.run_path(str(ROOT / "benchmarks/accuracy/accuracy.py"), run_name="accuracy")
    read = {}
    for split in ("val", "all"):
        read[split], train = names["read_sets"](Namespace(data=sets, split=split))
    assert list(read["val"]) == ["300w_val"] and list(read["all"])[2:] == ["300w_val", "300w_test"]
    assert read["val"]["300w_val"].rows.tolist() == read["all"]["300w_val"].rows.tolist()
    assert not set(read["val"]["300w_val"].identity) & set(train["300w"].identity)


def test_small_peers_are_scored_raw_and_through_a_map(sets: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    nowhere, plot = str(tmp_path / "python"), tmp_path / "peers.png"
    missing = ("--dlib", nowhere, "--mediapipe", nowhere, "--models", str(tmp_path))
    options = ("--rounds", "2", "--out", str(plot), *missing)
    metrics = run_benchmark("peers_small.py", str(sets), *options)
    for name in ("fkp", "fkp_one_step"):
        assert 0 < metrics[f"{name}_nme_raw"] < 10 and metrics[f"{name}_step_ms"] > 0
        assert metrics[f"{name}_nme_ridge_low"] <= metrics[f"{name}_nme_ridge_high"]
    assert plot.stat().st_size > 0 and not [name for name in metrics if "pfld" in name]


def test_groups_are_those_of_the_file_names(faces_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "pseudo/utkface/images").mkdir(parents=True)
    table, names = YoutubeFaces(str(faces_folder)).read(), []
    for i, path in enumerate(table.paths):
        race = "" if i == 0 else f"_{i % 5}"  # the first name lacks a part
        names.append(f"{2 * i}_{i % 2}{race}_2017.png")
        shutil.copy(path, tmp_path / "pseudo/utkface/images" / names[-1])
    write_csv(tmp_path / "pseudo/utkface/keypoints.csv", names, table.points)
    metrics = run_benchmark("groups.py", str(tmp_path))
    assert metrics["faces"] == 39 and metrics["unnamed"] == 1
    for kind in ("age", "gender", "race"):
        counts = [
            value for name, value in metrics.items() if re.fullmatch(f"{kind}_.*_faces", name)
        ]
        assert sum(counts) == 39
        assert metrics[f"{kind}_gap"] >= 0
    for end in ("faces", "nme", "nme_low", "nme_high"):
        assert f"gender_female_{end}" in metrics


def test_calibration_measures_the_fraction_of_points_within_5_percent(
    ckpt: str, sets: Path
) -> None:
    metrics = run_benchmark("calibration.py", str(sets), "--ckpt", ckpt)

    # The confidence of a network that does not predict its uncertainty is 1.
    for name in ("300w", "youtube_faces"):
        assert metrics[f"{name}_said"] == 100
        error = 100 - metrics[f"{name}_near"]
        assert metrics[f"{name}_calibration_error"] == pytest.approx(error, abs=0.01)


def test_robustness_measures_every_curve(ckpt: str, sets: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    plot = tmp_path / "robustness.png"
    options = ("--ckpt", ckpt, "--faces", "4", "--out", str(plot))
    metrics = run_benchmark("robustness.py", str(sets), *options)

    boxes, images = ("shift_20", "scale_1.25"), ("rotation_45", "blur_6", "noise_60", "dark_0.05")
    for kind in (*boxes, *images, "occlusion_0.3", "size_16"):
        assert metrics[f"{kind}_fkp"] > 0 and metrics[f"{kind}_fkp_one_look"] > 0
    assert plot.stat().st_size > 0


def test_detectors_counts_boxes_before_and_after_the_filter(ckpt: str, sets: Path) -> None:
    metrics = run_benchmark("detectors.py", str(sets), "--ckpt", ckpt, "--every", "4")
    for place in ("official", "300w_val"):
        assert metrics[f"{place}_haar_recall"] <= metrics[f"{place}_haar_unfiltered_recall"] <= 100
        assert metrics[f"{place}_haar_false"] <= metrics[f"{place}_haar_unfiltered_false"]
        assert metrics[f"{place}_haar_ms"] > 0


def test_recall_counts_boxes_by_condition(sets: Path) -> None:
    metrics = run_benchmark(
        "recall.py", str(sets), "--faces", "2", "--mediapipe", "none", "--only", "rotation_9"
    )
    for condition in ("rotation_90", "photos"):
        assert 0 <= metrics[f"{condition}_haar"] <= 100 and metrics[f"{condition}_auto_false"] >= 0
    assert len(metrics) == 8  # two conditions, two detectors; neither MediaPipe nor YuNet


def test_predict_measures_time_and_memory_without_peers(ckpt: str, tmp_path: Path) -> None:
    write_image(tmp_path / "face.png", painter.paint(3, 0)[0])
    missing = ("--dlib", str(tmp_path / "python"), "--mediapipe", str(tmp_path / "python"))
    options = ("--ckpt", ckpt, "--rounds", "1", "--stream", "12")
    metrics = run_benchmark("predict.py", str(tmp_path), *options, *missing)

    times, memory = ("cold_s", "cold_library_s", "photo_ms"), ("stream_500_mb", "stream_end_mb")
    for name in (*times, "peak_mb", *memory):
        assert metrics[name] > 0
    assert not [name for name in metrics if "_over_" in name]


def test_streams_are_compared_with_loops(tmp_path: Path) -> None:
    write_image(tmp_path / "face.png", painter.paint(3, 0)[0])
    options = ("--count", "3", "--rounds", "1", "--cores", "1")
    metrics = run_benchmark("streams.py", str(tmp_path), *options)
    assert metrics["stream_over_loop"] == metrics["stream_over_loop_1"] > 0
    assert metrics["folder_1_ms"] > 0 and metrics["loop_1_cpu_ms"] > 0
    assert metrics["stream_over_one_core"] == pytest.approx(metrics["stream_over_loop"], rel=1e-3)


def test_fuzz_counts_results_and_errors(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    readers = ("png", "csv", "film", "archive")
    options = ("--inputs", "80", "--keep", str(kept), "--readers", *readers)
    metrics = run_benchmark("fuzz.py", *options)

    assert metrics["inputs"] == metrics["results"] + metrics["errors"] == 80
    assert metrics["bugs"] == 0 and metrics["errors"] > 0 and not kept.exists()


def test_scaling_measures_memory_and_speed() -> None:
    options = ["--base", "30", "--sizes", "2", "--batches", "3", "--steps", "1"]
    metrics = run_benchmark("scaling.py", *options, "--experiments", "two_conv")

    assert metrics["x2_faces"] == 60 and metrics["x2_disk_mb"] > 0
    for name in ("first", "again", "cold", "loader", "two_conv"):
        assert metrics[f"x2_{name}_faces_per_s"] > 0 and metrics[f"x2_{name}_processor_ms"] > 0
    assert metrics["x2_imported_mb"] <= metrics["x2_set_up_mb"] <= metrics["x2_peak_mb"]


@pytest.fixture(scope="module")
def mesh12(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Points of painted faces in the layout of mesh12: 14 people to train on, 4 to test."""
    folder = tmp_path_factory.mktemp("own")
    root = folder / "pseudo/lfw"
    points = ["eye_right", "eye_left", "nose"]
    coordinates = [f"{point}_{axis}" for point in points for axis in "xy"]
    header = ["image", *coordinates, "box_left", "box_top", "box_right", "box_bottom"]
    for split, numbers in (("train", range(14)), ("test", range(14, 18))):
        rows = [",".join(header)]
        for i in numbers:
            image, label = painter.paint(7, i)
            write_image(root / f"images/P{i}_0001.png", image)
            values = [*label[[36, 45, 30]].flatten(), *face_box(label)]
            rows.append(",".join([f"P{i}_0001.png", *map(str, values)]))
        (root / f"mesh12_{split}.csv").write_text("\n".join(rows) + "\n")
    (root / "mesh12.yaml").write_text(
        json.dumps({"name": "own", "points": points, "pair": points[:2]})
    )
    return folder


def test_suggest_compares_suggested_with_random_faces(mesh12: Path) -> None:
    options = ("--all", "--seeds", "1", "--start", "4", "--add", "3")
    metrics = run_benchmark("suggest.py", str(mesh12), *options)
    assert metrics["gain"] == pytest.approx(metrics["random_7"] - metrics["suggested_7"], abs=2e-4)
    assert metrics["start_4"] > 0 and metrics["unsure_7"] > 0 and metrics["random_faces"] > 0


def test_own_points_are_scored_by_each_way_without_dlib(mesh12: Path, tmp_path: Path) -> None:
    options = ("--quick", "--rows", "own", "finetuned", "ridge", "mean", "--steps", "2")
    out = ("--results", str(tmp_path / "results.json"))
    metrics = run_benchmark("own_points.py", str(mesh12), *options, *out)
    for row in ("own", "finetuned", "ridge", "mean"):
        assert metrics[f"{row}_14"] > 0
    assert metrics["own_14"] < metrics["mean_14"]
    assert metrics["own_14_s"] > 0 and metrics["own_14_mb"] > 0 and metrics["own_14_cv"] > 0

    # What is known is not measured again.
    again = run_benchmark("own_points.py", str(mesh12), *options, *out)
    assert again == metrics
