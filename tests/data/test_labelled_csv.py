"""Test that both layouts of a CSV give the same labels, and that all bad rows are named at once."""

import csv
import logging
import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fkp.data import csv_reader
from fkp.data.labelled_csv import LabelledCsv, write_csv
from fkp.data.pts_folders import PtsFolders, read_pts, write_pts
from fkp.data.table import FaceTable
from fkp.errors import FkpError
from fkp.markup import IBUG68, Markup, load_markup

FACE5 = load_markup("face5")
NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?")
Cells = list[list[object]]


@pytest.fixture()
def folder(tmp_path: Path) -> Path:
    """Return a folder of files that stand for images: three of each of eight people."""
    (tmp_path / "images").mkdir()
    for name in names(24):
        (tmp_path / "images" / name).write_bytes(b"not decoded")
    return tmp_path


def names(count: int) -> list[str]:
    return [f"person{i % 8}_{i:02d}.png" for i in range(count)]


def labels(count: int, markup: Markup = FACE5, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-5, 200, (count, len(markup.points), 2)).round(3)


def headers(markup: Markup = FACE5) -> list[str]:
    return [f"{point}_{axis}" for point in markup.points for axis in "xy"]


def rows(points: np.ndarray) -> Cells:
    return [
        [name, *face.ravel().tolist()]
        for name, face in zip(names(len(points)), points, strict=True)
    ]


def write(folder: Path, header: list[str], lines: Cells, encoding: str = "utf-8") -> None:
    with (folder / "keypoints.csv").open("w", newline="", encoding=encoding) as text:
        csv.writer(text).writerows([header, *lines])


def read(folder: Path, markup: str = "face5") -> FaceTable:
    return LabelledCsv(str(folder), markup=markup).read()


def same(one: FaceTable, other: FaceTable) -> None:
    for name, column in vars(one).items():
        np.testing.assert_array_equal(column, vars(other)[name], err_msg=name)


@pytest.mark.parametrize("markup", [FACE5, IBUG68], ids=lambda markup: markup.name)
def test_the_published_layout_is_read_as_it_was_written(folder: Path, markup: Markup) -> None:
    points = labels(5, markup)
    points[2, 1] = np.nan
    write_csv(folder / "keypoints.csv", names(5), points)
    faces = read(folder, markup.name)
    np.testing.assert_array_equal(faces.points, points)
    assert [path.name for path in faces.paths] == names(5) and faces.identity[4] == "person4"
    assert faces.rows.tolist() == [f"keypoints.csv:{line}" for line in range(2, 7)]
    assert (
        np.isnan(faces.boxes).all()
        and (faces.weights == 1).all()
        and (faces.official == "train").all()
    )


@pytest.mark.parametrize("seed", range(5))
def test_named_columns_in_any_order_equal_the_published_layout(folder: Path, seed: int) -> None:
    points = labels(6)
    points[1, 3] = np.nan
    whole = [*headers(), "identity", "box_left", "box_top", "box_right", "box_bottom"]
    lines = [
        [*row[1:], f"identity{i}", i, i + 1, i + 50.5, i + 60] for i, row in enumerate(rows(points))
    ]
    lines = [["" if cell != cell else cell for cell in line] for line in lines]
    published = ["", *(f"any {i}" for i in range(10)), *whole[10:]]
    write(folder, published, [[name, *line] for name, line in zip(names(6), lines, strict=True)])
    wanted = read(folder)
    order = np.random.default_rng(seed).permutation(len(whole))
    shuffled = [
        [name, *(line[i] for i in order)] for name, line in zip(names(6), lines, strict=True)
    ]
    write(folder, ["file", *(whole[i] for i in order)], shuffled)
    same(read(folder), wanted)
    np.testing.assert_array_equal(wanted.points, points)
    assert wanted.identity.tolist() == [f"identity{i}" for i in range(6)]
    np.testing.assert_array_equal(wanted.boxes, [[i, i + 1, i + 50.5, i + 60] for i in range(6)])


def test_points_without_a_column_are_not_labelled(folder: Path) -> None:
    points = labels(3)
    kept = [0, 2]
    write(
        folder,
        ["", *(h for i in kept for h in headers()[2 * i : 2 * i + 2])],
        rows(points[:, kept]),
    )
    faces = read(folder)
    np.testing.assert_array_equal(faces.points[:, kept], points[:, kept])
    assert np.isnan(np.delete(faces.points, kept, 1)).all()


def test_an_empty_identity_comes_from_the_name_and_an_empty_box_is_nan(
    folder: Path,
) -> None:
    box = ["box_left", "box_top", "box_right", "box_bottom"]
    lines = [[*rows(labels(2))[0], "", *[""] * 4], [*rows(labels(2))[1], "B", 1, 2, 3, 4]]
    write(folder, ["", *headers(), "identity", *box], lines)
    faces = read(folder)
    assert faces.identity.tolist() == ["person0", "B"]
    assert np.isnan(faces.boxes[0]).all() and faces.boxes[1].tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize("named", [True, False])
def test_byte_order_mark_and_blanks_are_ignored(folder: Path, named: bool) -> None:
    header = [*(headers()[::-1] if named else map(str, range(10))), "identity"]
    lines = [[*row, f"identity{i}"] for i, row in enumerate(rows(labels(3)))]
    write(folder, ["file", *header], lines)
    wanted = read(folder)
    spaced = [*([f" {cell} " for cell in row] for row in lines), []]
    write(folder, ["file, quoted", *(f" {name} " for name in header)], spaced, "utf-8-sig")
    same(read(folder), wanted)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"nose_x": "nsoe_x"}, r"nsoe_x \(did you mean nose_x\?\)"),
        ({"eye_left_y": "left_eye_y"}, r"left_eye_y.*without their other coordinate: eye_left_x"),
        ({"nose_y": "nose_x"}, r"or twice: nose_x, nose_x"),
        (
            {"nose_y": "zzz"},
            r"does not know, or twice: zzz;.*other coordinate: nose_x; its points are eye_right, ",
        ),
    ],
)
def test_unknown_columns_are_named_with_a_suggestion(
    folder: Path, change: dict[str, str], message: str
) -> None:
    write(folder, ["", *(change.get(name, name) for name in headers())], rows(labels(2)))
    with pytest.raises(FkpError, match=message):
        read(folder)


def test_x_without_y_is_refused(folder: Path) -> None:
    write(folder, ["", *headers()[:-1]], [row[:-1] for row in rows(labels(2))])
    with pytest.raises(FkpError, match="without their other coordinate: mouth_left_x"):
        read(folder)


def test_a_box_needs_all_its_columns(folder: Path) -> None:
    write(folder, ["", *headers(), "box_left"], [[*row, 1] for row in rows(labels(2))])
    with pytest.raises(FkpError, match="a box needs the four columns"):
        read(folder)


def test_a_wrong_number_of_columns_is_named(folder: Path) -> None:
    write(
        folder, ["", *map(str, range(8)), "identity"], [[*row[:9], "A"] for row in rows(labels(2))]
    )
    with pytest.raises(FkpError, match="10 columns, but face5 needs 12: a file name and 5 pairs"):
        read(folder)


@pytest.mark.parametrize("data", [b"", b"\n", b"name,a_x,a_y\n", b"\xff\xfe\x00bin\x00ary,1\n2"])
def test_other_content_is_one_error(folder: Path, data: bytes) -> None:
    (folder / "keypoints.csv").write_bytes(data)
    with pytest.raises(FkpError, match="keypoints.csv: not (a CSV of key points|text in UTF-8)"):
        read(folder)


def test_no_name_leads_out_of_the_folder_of_images(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    outside = tmp_path_factory.mktemp("outside")
    for place in (outside / "secret.png", folder / "secret.png"):
        place.write_bytes(b"not decoded")
    images = folder / "images"
    (images / "link.png").symlink_to(outside / "secret.png")
    (images / "linked").symlink_to(outside)
    (images / "inner.png").symlink_to(images / names(1)[0])
    out = [
        "../secret.png",
        str(folder / "secret.png"),
        "link.png",
        "linked/secret.png",
        "../images/../secret.png",
    ]
    fine = [names(1)[0], "inner.png", f"../images/{names(1)[0]}", str(images / names(1)[0])]
    none = ["a\0b.png", "x" * 300, "", ".", "linked"]
    lines = [[name, *range(10)] for name in (*out, *fine, *none)]
    write(folder, ["", *headers()], lines)
    source = LabelledCsv(str(folder), markup="face5")
    table, faults = source.survey()
    assert [
        path.relative_to(images).as_posix() if path.is_relative_to(images) else ""
        for path in table.paths
    ]
    assert table.rows.tolist() == [
        f"keypoints.csv:{line + 2}" for line in range(len(out), len(out) + len(fine))
    ]
    assert all("leads out of" in str(fault) for fault in faults[: len(out)]) and len(faults) == len(
        out
    ) + len(none)

    # Both that are named from /.
    assert len(LabelledCsv(str(folder), images="/", markup="face5").survey()[0]) == 2

    # The folder of images may be a link itself.
    (outside / "mine").symlink_to(images)
    assert len(
        LabelledCsv(str(folder), images=str(outside / "mine"), markup="face5").survey()[0]
    ) == len(fine)


@pytest.mark.parametrize("cell", ["1e300", "-1e300", "9" * 400, "1048576", "1e1000", "0x10"])
def test_coordinates_outside_of_any_image_are_refused(folder: Path, cell: str) -> None:
    write(folder, ["", *headers()], [[names(1)[0], *range(9), cell]])
    with pytest.raises(FkpError, match="in column 11 is not a number of pixels") as error:
        read(folder)
    assert len(str(error.value)) < 1000


def test_messages_of_very_many_columns_are_short(folder: Path) -> None:
    write(
        folder,
        ["", *(f"strange{i}{'x' * 1000}_x" for i in range(2000))],
        [[names(1)[0], *range(2000)]],
    )
    with pytest.raises(FkpError, match="does not know, or twice") as error:
        read(folder)
    assert len(str(error.value)) < 20_000


def test_files_over_the_limits_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(folder, ["", *headers()], rows(labels(4)))
    monkeypatch.setattr(csv_reader, "LETTERS", 20)
    with pytest.raises(
        FkpError, match="keypoints.csv: not a CSV of key points .a row of more than 20 letters"
    ):
        read(folder)
    monkeypatch.undo()
    monkeypatch.setattr(csv_reader, "ROWS", 3)
    with pytest.raises(FkpError, match="keypoints.csv: more than the 3 rows"):
        read(folder)
    monkeypatch.setattr(csv_reader, "BYTES", 100)
    with pytest.raises(FkpError, match="keypoints.csv: .* bytes, more than the 100"):
        read(folder)


def test_the_size_of_blocks_does_not_matter(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = rows(labels(7))
    lines[3][0], lines[5] = "gone.png", lines[5][:-1]
    write(folder, ["", *headers()], lines)
    source = LabelledCsv(str(folder), markup="face5")
    whole, faults = source.survey()
    assert len(whole) == 5 and len(faults) == 2
    for name, most in (
        ("BLOCK", 1),
        ("BLOCK", 3),
        ("LETTERS", len(",".join(["", *headers()])) + 2),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(csv_reader, name, most)
            table, bad = source.survey()
        assert bad == faults
        for column, values in vars(table).items():
            np.testing.assert_array_equal(values, vars(whole)[column], err_msg=column)


@settings(
    deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(
        st.text(st.sampled_from("=+-@\t\r\n ab,;\"'üß"), min_size=1, max_size=8),
        min_size=1,
        unique=True,
    )
)
def test_no_written_cell_is_a_formula(folder: Path, stems: list[str]) -> None:
    images = [f"{stem}.png" for stem in stems]
    for name in images:
        (folder / "images" / name).write_bytes(b"not decoded")
    write_csv(folder / "keypoints.csv", images, labels(len(images)))
    with (folder / "keypoints.csv").open(newline="", encoding="utf-8") as text:
        cells = [cell for row in csv.reader(text) for cell in row if not NUMBER.fullmatch(cell)]
    assert not [cell for cell in cells if cell[:1] in tuple("=+-@\t\r\n ")]
    for path, name in zip(read(folder).paths, images, strict=True):
        assert path.samefile(folder / "images" / name)


def damage(lines: Cells) -> list[str]:
    """Make one row bad in each way; return the expected messages."""
    lines[0][0] = "gone.png"
    lines[1].append(7)
    lines[2] = lines[2][:5]
    lines[3][4] = "12o"
    lines[4][6] = ""
    lines[5][1:11] = [""] * 10
    lines[6][11:] = [20, 20, 10, 40]
    lines[7][9] = "inf"
    return [
        "keypoints.csv:2: no image",
        "keypoints.csv:3: 16 cells, but the header has 15",
        "keypoints.csv:4: 5 cells, but the header has 15",
        "keypoints.csv:5: '12o' in column 5 is not a number",
        "keypoints.csv:6: nose has one coordinate of two",
        "keypoints.csv:7: no point is labelled",
        "keypoints.csv:8: its box has no area",
        "keypoints.csv:9: 'inf' in column 10 is not a number",
    ]


@pytest.fixture()
def damaged(folder: Path) -> tuple[Path, list[str]]:
    lines = [[*row, i, 2, 30, 40] for i, row in enumerate(rows(labels(12)))]
    messages = damage(lines)
    write(folder, ["", *headers(), "box_left", "box_top", "box_right", "box_bottom"], lines)
    return folder, messages


def test_every_bad_row_is_named_at_once(damaged: tuple[Path, list[str]]) -> None:
    with pytest.raises(FkpError) as error:
        read(damaged[0])
    assert "8 bad rows, 4 good ones" in str(error.value) and "data.on_bad=skip" in str(error.value)
    for fault in damaged[1]:
        assert fault in str(error.value)
    assert len(str(error.value).splitlines()) == 10


def test_skip_leaves_out_the_bad_rows_and_counts_them(
    damaged: tuple[Path, list[str]], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        faces = LabelledCsv(str(damaged[0]), markup="face5", on_bad="skip").read()
    np.testing.assert_array_equal(faces.points, labels(12)[8:])
    assert faces.boxes[:, 0].tolist() == [8, 9, 10, 11]
    assert [path.name for path in faces.paths] == names(12)[8:]
    assert faces.rows.tolist() == [f"keypoints.csv:{line}" for line in range(10, 14)]
    assert "8 bad rows left out, 4 faces kept" in caplog.text
    for fault in damaged[1]:
        assert fault in caplog.text


def test_nothing_is_logged_without_bad_rows(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(folder, ["", *headers()], rows(labels(2)))
    with caplog.at_level(logging.WARNING):
        LabelledCsv(str(folder), markup="face5", on_bad="skip").read()
    assert not caplog.records


def test_the_first_of_many_bad_rows_are_named_and_all_counted(folder: Path) -> None:
    write(folder, ["", *headers()], [[f"gone{i}.png", *range(10)] for i in range(33)])
    with pytest.raises(FkpError, match="33 bad rows, 0 good ones") as error:
        read(folder)
    assert (
        "13 more" in str(error.value)
        and "gone19" in str(error.value)
        and "gone20" not in str(error.value)
    )


def test_all_rows_may_have_the_wrong_number_of_cells(folder: Path) -> None:
    write(folder, ["", *headers()], [row[:4] for row in rows(labels(3))])
    with pytest.raises(FkpError, match="3 bad rows, 0 good ones"):
        read(folder)


def test_a_second_file_is_the_publishers_test_split(folder: Path) -> None:
    points = labels(24)
    write_csv(folder / "train.csv", names(16), points[:16])
    write_csv(folder / "test.csv", names(24)[16:], points[16:])
    source = LabelledCsv(
        str(folder), file="train.csv", test_file="test.csv", protocol="official", markup="face5"
    )
    faces = source.read()
    assert (faces.official == "test").tolist() == [False] * 16 + [True] * 8
    np.testing.assert_array_equal(faces.points, points)
    assert faces.split_indices("official")["test"].tolist() == list(range(16, 24))
    assert faces.rows[16] == "test.csv:2"


CUSTOM = {
    "name": "mine",
    "points": ["tip", "ear_left", "ear_right"],
    "pair": ["ear_left", "ear_right"],
}


@pytest.fixture()
def custom(tmp_path: Path) -> str:
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(CUSTOM))
    return str(tmp_path / "mine.yaml")


def test_a_custom_markup_is_given_by_its_path(folder: Path, custom: str) -> None:
    write(folder, ["", "ear_right_x", "ear_right_y", "tip_y", "tip_x"], [[names(1)[0], 1, 2, 3, 4]])
    source = LabelledCsv(str(folder), markup=custom)
    np.testing.assert_array_equal(source.read().points, [[[4, 3], [np.nan] * 2, [1, 2]]])
    assert source.markup.name == "mine" and source.markup.flip_indices.tolist() == [0, 2, 1]


@settings(deadline=None)
@given(seed=st.integers(0, 99), bare=st.booleans())
def test_pts_files_count_from_one_with_or_without_a_header(
    seed: int, bare: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file, points = tmp_path_factory.getbasetemp() / "any.pts", labels(1, seed=seed)[0]
    write_pts(file, points)
    if bare:
        file.write_text(
            "\n".join(line for line in file.read_text().splitlines() if line[0] in "-0123456789")
        )
        first = [float(word) for word in file.read_text().splitlines()[0].split()]
        np.testing.assert_allclose(first, points[0] + 1, atol=1e-3)
    else:
        assert "n_points: 5" in file.read_text()
    np.testing.assert_allclose(read_pts(file), points, atol=1e-3)


def write_set(folder: Path, points: np.ndarray) -> Path:
    for i, face in enumerate(points):
        (folder / f"{i}.jpg").write_bytes(b"not decoded")
        write_pts(folder / f"{i}.pts", face)
    return folder


@pytest.mark.parametrize("given", ["face5", "custom"])
def test_pts_files_have_any_markup_and_its_number_of_points(
    given: str, custom: str, tmp_path: Path
) -> None:
    markup = custom if given == "custom" else given
    count = len(load_markup(markup).points)
    (tmp_path / "set").mkdir()
    points = labels(4)[:, :count]
    faces = PtsFolders(str(write_set(tmp_path / "set", points)), markup=markup).read()
    np.testing.assert_allclose(faces.points, points, atol=1e-3)
    write_pts(tmp_path / "set" / "2.pts", labels(1)[0, :2])
    with pytest.raises(
        FkpError, match=f"1 bad rows, 3 good ones:\n  2.pts: 2 points, but .* has {count}"
    ):
        PtsFolders(str(tmp_path / "set"), markup=markup).read()
    kept = PtsFolders(str(tmp_path / "set"), markup=markup, on_bad="skip").read()
    assert [path.name for path in kept.paths] == ["0.jpg", "1.jpg", "3.jpg"]


def lines_of(*lines: str) -> Callable[[Path], object]:
    return lambda file: file.write_text("\n".join(lines))


@pytest.mark.parametrize(
    "damage, message",
    [
        (
            lines_of("1 2", "nan 3", "1 1", "2 2", "3 3"),
            "2.pts: eye_left has one coordinate of two",
        ),
        (
            lines_of("1 2", "3 3", "inf inf", "2 2", "3 3"),
            "2.pts: nose lies outside of any image",
        ),
        (lines_of(*["nan nan"] * 5), "2.pts: no point is labelled"),
        (lines_of("{", "1 2", "1 2 3", "}"), "2.pts:3: '1 2 3' is not a point x y"),
        (lines_of("n_points: 4", "1 2"), "2.pts: says n_points: 4, but has 1"),
        (lines_of("n_points: ²", "1 2"), "2.pts: says n_points: -1, but has 1"),
        (lines_of("n_points: " + "9" * 5000, "1 2"), "2.pts: says n_points: 999999999, but has 1"),
        (
            lines_of("1 2", "3 3", "2 2", "1e300 1", "3 3"),
            "2.pts: mouth_right lies outside of any image",
        ),
        (lambda file: file.write_bytes(b"\0\1\xff\x1b[2J"), "2.pts:1: "),
        (lambda file: file.write_bytes(b"#" * 2_000_000), "2.pts: 2000000 bytes, more than the"),
        (lambda file: (file.unlink(), file.mkdir()), "2.pts: a folder, not a file"),
        (lambda file: (file.unlink(), os.mkfifo(file)), "2.pts: a pipe or a device, not a file"),
        (lambda file: (file.unlink(), file.symlink_to("/etc/passwd")), "2.pts: 2.pts leads out of"),
        (
            lambda file: (
                file.with_suffix(".jpg").unlink(),
                file.with_suffix(".jpg").symlink_to("/etc/passwd"),
            ),
            "2.pts: 2.jpg",
        ),
    ],
)
def test_bad_pts_files_are_named(
    damage: Callable[[Path], object], message: str, tmp_path: Path
) -> None:
    damage(write_set(tmp_path, labels(4)) / "2.pts")
    with pytest.raises(FkpError, match="1 bad rows, 3 good ones") as error:
        PtsFolders(str(tmp_path), markup="face5").read()
    assert message in str(error.value)
