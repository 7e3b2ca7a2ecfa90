"""Test the layouts in which sets of .pts files are published."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fkp.data.pts_folders import PtsFolders, read_pts, write_pts
from fkp.data.table import FaceTable
from fkp.errors import FkpError
from fkp.files.images import IMAGE_ENDINGS
from fkp.markup import load_markup

POINTS = np.random.default_rng(0).uniform(1, 200, (5, 2)).round(2)
LINES = [f"{x} {y}" for x, y in (POINTS + 1).round(2).tolist()]


def add(folder: Path, *names: str) -> None:
    """Write files below a folder: labels, and images and videos that are not decoded."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if name.lower().endswith(".pts"):
            write_pts(folder / name, POINTS)
        else:
            (folder / name).write_bytes(b"not decoded")


def survey(folder: Path) -> tuple[FaceTable, list[str]]:
    faces, faults = PtsFolders(str(folder), markup="face5").survey()
    return faces, [str(fault) for fault in faults]


def names(folder: Path, faces: FaceTable) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in faces.paths]


def test_images_of_all_formats_in_any_letter_case(tmp_path: Path) -> None:
    endings = [ending for kind in IMAGE_ENDINGS for ending in (kind, kind.upper())]
    add(tmp_path, *(f"{i:02d}{ending}" for i, ending in enumerate(endings)))
    add(tmp_path, *(f"{i:02d}.{'pts' if i % 3 else 'PTS'}" for i in range(len(endings))))
    faces, faults = survey(tmp_path)
    assert not faults and names(tmp_path, faces) == [
        f"{i:02d}{ending}" for i, ending in enumerate(endings)
    ]
    np.testing.assert_allclose(faces.points, np.stack([POINTS] * len(endings)), atol=1e-3)


def test_names_in_another_letter_case_or_normal_form(tmp_path: Path) -> None:
    add(
        tmp_path,
        "Face_A.pts",
        "face_a.JPG",
        "mu\u0308ller.pts",
        "m\u00fcller.png",
        "both.pts",
        "both.jpg",
        "BOTH.jpg",
    )
    add(tmp_path, "whole.jpg", "whole.jpg.pts", "._both.pts", "__MACOSX/both.pts")
    faces, faults = survey(tmp_path)
    assert not faults and names(tmp_path, faces) == [
        "face_a.JPG",
        "both.jpg",
        "m\u00fcller.png",
        "whole.jpg",
    ]


def test_no_image_and_two_images_are_faults(tmp_path: Path) -> None:
    add(
        tmp_path,
        "a.pts",
        "b.pts",
        "b.jpg",
        "b.PNG",
        "c.pts",
        "C.jpg",
        "c_.jpg",
        "d.pts",
        "D.jpg",
        "d.JPG",
        "sub/a.jpg",
    )
    faces, faults = survey(tmp_path)
    assert names(tmp_path, faces) == ["C.jpg", "d.JPG"]
    assert [fault[:5] for fault in faults] == ["a.pts", "b.pts"]
    assert "no image" in faults[0] and "b.PNG" in faults[1] and "b.jpg" in faults[1]


def test_300w_as_it_is_published(tmp_path: Path) -> None:
    photos = [
        "afw/1051618982",
        "helen/trainset/100032540",
        "helen/testset/30427236",
        "ibug/image_003",
    ]
    faces = [f"{photo}_{i}" for photo in photos for i in (1, 2)]
    alone = [
        "01_Indoor/indoor_001",
        "02_Outdoor/outdoor_001",
        "lfpw/trainset/image_0001",
        "lfpw/testset/image_0001",
    ]
    copies = [f"{name}_mirror" for name in faces + alone]
    kind = {
        name: ".png" if name.startswith(("0", "lfpw")) else ".jpg"
        for name in (*faces, *alone, *copies)
    }
    add(
        tmp_path,
        *(name + ending for name, ending in kind.items()),
        *(f"{name}.pts" for name in kind),
    )
    table, faults = survey(tmp_path)
    assert not faults and len(table) == len(kind)
    assert set(table.identity) == {*photos, *alone}
    for photo in photos:
        assert (table.identity == photo).sum() == 4


@pytest.mark.parametrize("place", ["annot", "frames", "."])
def test_300vw_with_its_frames_extracted(tmp_path: Path, place: str) -> None:
    for clip in ("001", "002", "114"):
        add(tmp_path, f"{clip}/vid.avi", *(f"{clip}/annot/{i:06d}.pts" for i in range(1, 9)))
        add(tmp_path, *(f"{clip}/{place}/{i:06d}.jpg" for i in range(1, 9)))
    faces, faults = survey(tmp_path)
    assert not faults and len(faces) == 24 and faces.identity.tolist()[::8] == ["001", "002", "114"]
    assert names(tmp_path, faces)[9] == Path("002", place, "000002.jpg").as_posix()


def test_300vw_without_frames_says_how_to_extract_them(tmp_path: Path) -> None:
    for clip in ("001", "002"):
        add(tmp_path, f"{clip}/vid.avi", *(f"{clip}/annot/{i:06d}.pts" for i in range(1, 4)))
    with pytest.raises(
        FkpError,
        match=r"001/annot.*2 such videos.*ffmpeg -i .*001/vid.avi .*-start_number 1 .*%06d.png",
    ):
        survey(tmp_path)
    faces, faults = PtsFolders(str(tmp_path), markup="face5", on_bad="skip").survey()
    assert len(faces) == 0 and len(faults) == 6


def test_a_clip_that_is_most_of_the_set_stays_together(tmp_path: Path) -> None:
    add(tmp_path, *(f"001/annot/{i:06d}{ending}" for i in range(30) for ending in (".pts", ".jpg")))
    assert set(survey(tmp_path)[0].identity) == {"001"}


def test_images_may_lie_in_another_folder_without_labels(tmp_path: Path) -> None:
    add(
        tmp_path,
        "own/images/a.jpg",
        "own/points/a.pts",
        "set/train/a.pts",
        "set/test/a.pts",
        "set/test/a.jpg",
    )
    faces, faults = survey(tmp_path)
    assert names(tmp_path, faces) == ["own/images/a.jpg", "set/test/a.jpg"] and faults[
        0
    ].startswith("set/train/a.pts")


HEAD = ["version: 1", "n_points: 5", "{"]


@pytest.mark.parametrize(
    "data",
    [
        "\r\n".join([*HEAD, *LINES, "}", ""]).encode(),
        "\r".join([*HEAD, *LINES, "}"]).encode(),
        "\n".join(
            [*HEAD, *(f"\t{line.replace(' ', chr(9))}  " for line in LINES), " } ", "", ""]
        ).encode(),
        "\n".join(["version:1", "", "n_points:  5 ", "{", *LINES, "}"]).encode("utf-8-sig"),
        "\n".join([*HEAD, *LINES, "}"]).encode("utf-16"),
        "\n".join(["n_points: 5", "{", *LINES, "}"]).encode(),
        "\n".join(["{", *LINES, "}"]).encode(),
        "\n".join(LINES).encode(),
    ],
)
def test_all_forms_of_pts_files(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.pts").write_bytes(data)
    np.testing.assert_allclose(read_pts(tmp_path / "a.pts"), POINTS, atol=1e-9)


@pytest.mark.parametrize(
    "change",
    [
        lambda lines: lines[:-1],
        lambda lines: [line for line in lines if line != "{"],
        lambda lines: [*lines, "{", "}"],
        lambda lines: [line for line in lines if line not in "{}"],
        lambda lines: lines[1:-1],
    ],
)
def test_missing_braces_are_named(tmp_path: Path, change: Callable[[list[str]], list[str]]) -> None:
    (tmp_path / "a.pts").write_text("\n".join(change([*HEAD, *LINES, "}"])))
    with pytest.raises(FkpError, match=r"a\.pts: .*\{"):
        read_pts(tmp_path / "a.pts")


def test_another_number_of_points_names_the_markup(tmp_path: Path) -> None:
    add(tmp_path, "a.jpg", "a.pts", "b.jpg")
    write_pts(tmp_path / "b.pts", np.ones((len(load_markup("ibug68").points), 2)))
    assert survey(tmp_path)[1] == ["b.pts: 68 points, but face5 has 5; see data.markup"]
