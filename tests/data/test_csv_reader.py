"""Test that tables of any form give the same faces, and that no row is lost."""

import csv
import io
import logging
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fkp.data.labelled_csv import LabelledCsv
from fkp.data.table import FaceTable
from fkp.errors import FkpError
from fkp.markup import load_markup

FACE5 = load_markup("face5")
NAMED = [f"{point}_{axis}" for point in FACE5.points for axis in "xy"]
NAMES = [f"müller{i}_0.jpg" for i in range(6)]
POINTS = np.random.default_rng(0).uniform(1, 200, (len(NAMES), 5, 2)).round(2)
Table = list[list[str]]


@pytest.fixture()
def folder(tmp_path: Path) -> Path:
    write_images(tmp_path / "images", NAMES)
    return tmp_path


def write_images(folder: Path, names: list[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"not decoded")


def table(header: list[str] | None = None, names: list[str] = NAMES) -> Table:
    rows = [[name, *map(str, face.ravel())] for name, face in zip(names, POINTS, strict=True)]
    return [header or ["image", *NAMED], *rows]


def text(rows: Table, separator: str = ",", **options: object) -> str:
    out = io.StringIO()
    csv.writer(out, delimiter=separator, **options).writerows(rows)  # type: ignore[arg-type]
    return out.getvalue()


def survey(folder: Path, data: str | bytes, **options: str) -> tuple[FaceTable, list[str]]:
    (folder / "keypoints.csv").write_bytes(data.encode() if isinstance(data, str) else data)
    faces, faults = LabelledCsv(str(folder), markup="face5", **options).survey()  # type: ignore[arg-type]
    return faces, [str(fault) for fault in faults]


def check(folder: Path, data: str | bytes, first: int = 2) -> None:
    """Check that all faces are read, with the right labels, images and row numbers."""
    faces, faults = survey(folder, data)
    assert faults == []
    np.testing.assert_array_equal(faces.points, POINTS)
    assert [path.name for path in faces.paths] == NAMES
    assert faces.rows[0] == f"keypoints.csv:{first}"


def with_decimal_commas(rows: Table) -> Table:
    return [rows[0], *([row[0], *(cell.replace(".", ",") for cell in row[1:])] for row in rows[1:])]


@pytest.mark.parametrize("separator", [",", ";", "\t", "|", " "])
@pytest.mark.parametrize("change", [list, with_decimal_commas], ids=["point", "comma"])
def test_any_separator_and_decimal_sign(
    folder: Path, separator: str, change: Callable[[Table], Table]
) -> None:
    check(folder, text(change(table()), separator))
    check(folder, text(change(table(["", *map(str, range(10))])), separator))
    check(folder, text(change(table()), separator, quoting=csv.QUOTE_ALL, lineterminator="\n"))
    check(folder, text(change(table())[1:], separator), first=1)


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252"]
)
def test_any_encoding(folder: Path, encoding: str) -> None:
    check(folder, text(with_decimal_commas(table()), ";").encode(encoding))
    mark = {"utf-16-be": "\ufeff"}.get(encoding, "")
    check(folder, (mark + text(table(), "\t", lineterminator="\r")).encode(encoding))


def blank(row: list[str]) -> list[str]:
    return [""] * len(row)


@pytest.mark.parametrize(
    ("change", "first"),
    [
        (lambda t: [["", *t[0]], *([str(i), *row] for i, row in enumerate(t[1:]))], 2),
        (
            lambda t: [
                ["Unnamed: 0.1", "Unnamed: 0", *t[0]],
                *([str(i), str(i), *row] for i, row in enumerate(t[1:])),
            ],
            2,
        ),
        (
            lambda t: [
                ["id", "file_name", *t[0][1:]],
                *([str(7 * i), *row] for i, row in enumerate(t[1:])),
            ],
            2,
        ),
        (lambda t: [[str(i), *row] for i, row in enumerate(t[1:])], 1),
        (
            lambda t: [
                ["", "", *map(str, range(10))],
                *([str(i), *row] for i, row in enumerate(t[1:])),
            ],
            2,
        ),
        (lambda t: [[*row[1:], row[0]] for row in t], 2),
        (lambda t: [[*row[1:], row[0]] for row in t[1:]], 1),
        (lambda t: [[*row, ""] for row in t], 2),
        (lambda t: [t[0], *([*row, "", ""] for row in t[1:])], 2),
        (lambda t: [[*row, "", ""] for row in t[1:]], 1),
        (lambda t: [row[:3] + [""] + row[3:] for row in t], 2),
        (lambda t: [[*t[0], "", "Unnamed: 11"], *t[1:]], 2),
        (
            lambda t: [
                blank(t[0]),
                t[0],
                *(row for pair in zip(map(blank, t[1:]), t[1:], strict=True) for row in pair),
            ],
            4,
        ),
        (lambda t: [["# made by me, at home"], ["My labels"], *t], 4),
        (lambda t: [["6"], t[0][1:], *t[1:]], 3),
        (lambda t: [["# " + t[0][0], *t[0][1:]], *t[1:]], 2),
        (lambda t: [["Image", *(f" {name}\n" for name in t[0][1:])], *t[1:]], 12),
    ],
)
def test_additional_columns_and_rows_are_left_out(
    folder: Path, change: Callable[[Table], Table], first: int
) -> None:
    check(folder, text(change(table())), first)


def test_a_first_line_may_name_the_separator(folder: Path) -> None:
    check(folder, "sep=;\r\n" + text(with_decimal_commas(table()), ";"), first=3)


def test_identity_and_box_columns_may_lie_anywhere(folder: Path) -> None:
    more = ["Identity", "box_left", "box_top", "box_right", "box_bottom"]
    rows = [
        ["", *more, *table()[0]],
        *(["0", "A", "1,5", "2", "3", "4", *row] for row in with_decimal_commas(table())[1:]),
    ]
    faces, faults = survey(folder, text(rows, ";"))
    assert not faults and set(faces.identity) == {"A"} and faces.boxes[0].tolist() == [1.5, 2, 3, 4]
    np.testing.assert_array_equal(faces.points, POINTS)


def test_decimal_points_and_commas_are_not_mixed(folder: Path) -> None:
    rows = table()
    rows[3][4], rows[5][1] = "12,5", "7,25"
    faces, faults = survey(folder, text(rows, ";"))
    assert len(faces) == 4 and ["mixed" in fault for fault in faults] == [True, True]
    assert [fault.partition(": ")[0] for fault in faults] == ["keypoints.csv:4", "keypoints.csv:6"]
    rows = with_decimal_commas(table())
    rows[2][2] = "1.234"
    faces, faults = survey(folder, text(rows, ";"))
    assert len(faces) == 5 and "'1.234' in column 3" in faults[0] and "mixed" in faults[0]


def test_commas_that_may_separate_thousands_are_refused(folder: Path) -> None:
    rows = [["image", *NAMED], *([name, "950", *["1,234"] * 9] for name in NAMES)]
    with pytest.raises(FkpError, match="1,234.*thousands"):
        survey(folder, text(rows))
    rows = [["image", *NAMED], *([name, "0", *["1,234"] * 9] for name in NAMES)]
    assert survey(folder, text(rows, ";"))[0].points[0, 1, 1] == 1.234


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"PK\x03\x04\x14\0\x06\0", "workbook"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "Excel"),
        (b"\x1f\x8b\x08\0", "gzip"),
        (b'{"images": []}', "JSON"),
        (b"\n<html><table>", "HTML"),
        (b"PAR1\x15\x04", "Parquet"),
    ],
)
def test_other_kinds_of_file_are_named_with_what_to_do(
    folder: Path, data: bytes, message: str
) -> None:
    with pytest.raises(FkpError, match=rf"keypoints.csv: .*{message}.*CSV UTF-8"):
        survey(folder, data)


def test_text_in_a_column_that_began_empty_is_a_fault(folder: Path) -> None:
    rows = [[*row, ""] for row in table()] + [[*table()[1], ""]] * 40
    rows[-1] = [*rows[-1][:-1], "12"]
    faces, faults = survey(folder, text(rows))
    assert (
        len(faces) == 45
        and len(faults) == 1
        and faults[0].startswith("keypoints.csv:47: '12' in column 12")
    )


@pytest.mark.parametrize("columns", [8, 9, 11, 12])
def test_another_number_of_columns_is_one_error(folder: Path, columns: int) -> None:
    for header in ([["image", *map(str, range(columns))]], []):
        with pytest.raises(
            FkpError, match=rf"keypoints.csv: {columns + 1} columns, but face5 needs 11"
        ):
            survey(folder, text([*header, *([name, *["1.5"] * columns] for name in NAMES)]))


def test_a_header_of_numbers_and_names_without_ending(folder: Path) -> None:
    """Names without an ending are stems of images, and a first row with one is data."""
    stems = [name.removesuffix(".jpg") for name in NAMES]
    check(folder, text(table(names=stems)))
    check(folder, text(table(names=stems)[1:]), first=1)
    check(
        folder,
        text(
            [["", "who", *NAMED], *([str(i), *row] for i, row in enumerate(table(names=stems)[1:]))]
        ),
    )


AXES = [(point, axis) for point in FACE5.points for axis in "xy"]


@pytest.mark.parametrize(
    "name",
    [
        lambda point, axis: f"{point}_{axis}".upper(),
        lambda point, axis: f"{point} {axis}".replace("_", " ").title(),
        lambda point, axis: f"{axis}_{point}",
        lambda point, axis: f"{point}.{axis}",
        lambda point, axis: point.title().replace("_", "") + axis.upper(),
        lambda point, axis: f"{axis}{FACE5.points.index(point)}",
        lambda point, axis: f"p{FACE5.points.index(point) + 1}_{axis}",
        lambda point, axis: f"landmark {FACE5.points.index(point) + 1} {axis.upper()}",
        lambda point, axis: (
            axis if point == FACE5.points[0] else f"{axis}.{FACE5.points.index(point)}"
        ),
    ],
)
def test_columns_have_any_style_of_name_and_any_order(
    folder: Path, name: Callable[[str, str], str]
) -> None:
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(10)
        if not seed:
            # All x, then all y.
            order = np.array([*range(0, 10, 2), *range(1, 10, 2)])
        header = ["image", *(name(*AXES[i]) for i in order)]
        check(
            folder, text([header, *([row[0], *(row[1 + i] for i in order)] for row in table()[1:])])
        )


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (["y", "x"] * 5, "alternate"),
        (["x"] * 5 + ["y"] * 5, "alternate"),
        ([f"{axis}{i}" for i in range(2, 7) for axis in "xy"], "number points 2 to 6.*face5 has 5"),
        ([f"{axis}{i}" for i in (0, 1, 2, 3, 3) for axis in "xy"], "number points 0 to 3"),
        ([f"{axis}{i}" for i in (0, 1, 2, 4, 4) for axis in "xy"], "or twice: x4, y4"),
        (
            [
                f"{name}_{axis}"
                for name in ("Eye_Right", "eye_left", "eye_right", "nose")
                for axis in "xy"
            ],
            "or twice: Eye_R",
        ),
        (["x_eye_right", "y_eye_left"], "without their other coordinate: eye_right_x, eye_left_y"),
        (
            [f"{name}1_{axis}" for name in "abcde" for axis in "xy"],
            "does not know, or twice: a1_x, a1_y",
        ),
    ],
)
def test_columns_that_are_not_x_and_y_of_the_points_are_refused(
    folder: Path, header: list[str], message: str
) -> None:
    with pytest.raises(FkpError, match=f"keypoints.csv: .*{message}"):
        survey(
            folder, text([["image", *header], *([name, *["1.5"] * len(header)] for name in NAMES)])
        )


def test_decimal_commas_between_commas_are_explained(folder: Path) -> None:
    rows = table()
    lines = [
        ",".join(rows[0]),
        *(",".join([row[0], *(f"{float(cell):.2f}" for cell in row[1:])]) for row in rows[1:]),
    ]
    lines[1] = lines[1].replace(".", ",").replace(",jpg", ".jpg")
    faces, faults = survey(folder, "\n".join(lines))
    assert (
        len(faces) == 5
        and "21 cells, but the header has 11" in faults[0]
        and "decimal" in faults[0]
    )


def test_a_table_of_another_name_is_suggested(folder: Path) -> None:
    for name in ("labels.xlsx", "labels.csv"):
        (folder / name).touch()
    with pytest.raises(
        FkpError, match=r"keypoints.csv: no such file; data.file may be labels.csv or labels.xlsx"
    ):
        LabelledCsv(str(folder), markup="face5").survey()


# ---- which image a name means


@pytest.mark.parametrize(
    "change",
    [
        str.upper,
        lambda name: f"images/{name}",
        lambda name: f"images\\{name}",
        lambda name: rf"C:\Users\me\faces\{name}",
        lambda name: f"/home/me/faces/{name}",
        lambda name: f"../elsewhere/{name}",
        lambda name: unicodedata.normalize("NFD", name),
    ],
)
def test_an_image_is_found_if_the_match_is_unique(
    folder: Path, change: Callable[[str], str], caplog: pytest.LogCaptureFixture
) -> None:
    check(folder, text(table(names=[change(name) for name in NAMES])))
    assert "6 names" in caplog.text


def test_names_on_the_disk_in_another_form(tmp_path: Path) -> None:
    write_images(
        tmp_path / "images", [unicodedata.normalize("NFD", name).upper() for name in NAMES]
    )
    faces, faults = survey(tmp_path, text(table()))
    assert not faults and [path.name[-6:] for path in faces.paths] == ["_0.JPG"] * 6


def test_names_of_existing_files_are_not_searched(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_images(folder / "images" / "copy", NAMES)
    write_images(folder / "images", [name.upper() for name in NAMES])
    check(folder, text(table()))
    assert not caplog.records


def test_a_name_that_matches_several_images_is_a_fault(folder: Path) -> None:
    write_images(folder / "images" / "a", ["one.jpg"])
    write_images(folder / "images" / "b", ["one.jpg", "two.jpg"])
    row = table()[1][1:]
    names = ["one.jpg", r"D:\x\b\one.jpg", "two.jpg", "c/three.jpg"]
    faces, faults = survey(folder, text([table()[0], *([name, *row] for name in names)]))
    assert [path.relative_to(folder / "images").as_posix() for path in faces.paths] == [
        "b/one.jpg",
        "b/two.jpg",
    ]
    assert (
        "2 files that may be meant: a/one.jpg, b/one.jpg" in faults[0]
        and "c/three.jpg" in faults[1]
    )


def test_one_image_under_two_names_is_a_fault_of_both_rows(folder: Path) -> None:
    row = table()[1][1:]
    names = [
        "train/müller0_0.jpg",
        "test/müller0_0.jpg",
        "MÜLLER1_0.jpg",
        "müller1_0.jpg",
        "MÜLLER2_0.jpg",
    ]
    faces, faults = survey(folder, text([table()[0], *([name, *row] for name in names)]))
    assert [path.name for path in faces.paths] == ["müller2_0.jpg"]
    assert [fault.partition(": ")[0] for fault in faults] == [
        f"keypoints.csv:{line}" for line in range(2, 6)
    ]

    # Two faces on one image.
    names = ["MÜLLER1_0.jpg"] * 2
    faces, faults = survey(folder, text([table()[0], *([name, *row] for name in names)]))
    assert len(faces) == 2 and not faults


@pytest.mark.parametrize("place", [".", "photos", "Images"])
def test_images_lie_in_another_folder(
    tmp_path: Path, place: str, caplog: pytest.LogCaptureFixture
) -> None:
    write_images(tmp_path / place, NAMES)
    (tmp_path / "notes").mkdir()
    check(tmp_path, text(table()))
    assert "data.images" in caplog.text


def test_a_missing_folder_of_images_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(FkpError, match="no such folder.*no images.*data.images"):
        survey(tmp_path, text(table()))
    for place in ("a", "b"):
        write_images(tmp_path / place, NAMES)
    with pytest.raises(FkpError, match="no such folder.*images in a, b.*data.images"):
        survey(tmp_path, text(table()))
    with pytest.raises(FkpError, match="no such folder.*images in a, b.*data.images"):
        survey(tmp_path, text(table()), images="c")


def test_a_folder_above_the_table_is_not_searched(folder: Path) -> None:
    (folder / "set").mkdir()
    write_images(folder / "deep", ["gone.jpg"])
    rows = [table()[0], ["images/" + NAMES[0], *table()[1][1:]], ["gone.jpg", *table()[1][1:]]]
    faces, faults = survey(folder / "set", text(rows), images="..")
    assert len(faces) == 1 and len(faults) == 1


# ---- no row is lost

JUNK = st.text(st.sampled_from('ab0.,;"\0\r\t é'), max_size=12).map(
    lambda line: line.replace("\r", "")
)


@settings(
    deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    rows=st.lists(st.one_of(st.integers(0, 5), JUNK.map(lambda line: "x" + line)), max_size=5),
    separator=st.sampled_from([",", ";", "\t"]),
    damage=st.lists(
        st.tuples(
            st.integers(0, 4), st.integers(0, 60), st.sampled_from(['"', "\0", '""', ",", ";"])
        )
    ),
    headed=st.booleans(),
)
def test_each_row_is_a_face_or_a_fault(
    folder: Path,
    rows: list[int | str],
    separator: str,
    damage: list[tuple[int, int, str]],
    headed: bool,
) -> None:
    """Read random text with quotation marks, zero bytes and separators, after good rows."""
    good = [separator.join(row) for row in table()]
    lines = [good[row + 1] if isinstance(row, int) else row for row in rows]
    for line, at, what in damage:
        if line < len(lines):
            lines[line] = lines[line][: at + 1] + what + lines[line][at + 1 :]
    whole = (good if headed else good[1:]) + lines
    faces, faults = survey(folder, "\n".join(whole))
    assert len(faces) + len(faults) == len(NAMES) + len(lines)
    found = [row for row in faces.rows] + [fault.partition(": ")[0] for fault in faults]
    assert sorted(found) == sorted(
        f"keypoints.csv:{i + 1 + headed}" for i in range(len(NAMES) + len(lines))
    )
    for path, points in zip(faces.paths, faces.points, strict=True):
        np.testing.assert_array_equal(points, POINTS[NAMES.index(path.name)])


def test_an_unbalanced_quotation_mark_names_all_rows_it_swallows(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lines = text(table(), lineterminator="\n").splitlines()
    lines[2] = '"' + lines[2]
    faces, faults = survey(folder, "\n".join(lines))
    assert len(faces) == 1 and len(faults) == 5 and "quotation mark" in faults[1]

    # Closed two rows later.
    lines[4] = lines[4].replace(",", '",', 1)
    faces, faults = survey(folder, "\n".join(lines))
    assert len(faces) == 3 and [fault.partition(": ")[0][-1] for fault in faults] == ["3", "4", "5"]


def test_an_identity_does_not_span_rows(folder: Path) -> None:
    rows = [[*table()[0], "identity"], *([*row, "me"] for row in table()[1:])]
    lines = text(rows, lineterminator="\n").splitlines()
    lines[2], lines[3] = lines[2].replace(",me", ',"me'), lines[3] + '"'
    faces, faults = survey(folder, "\n".join(lines))
    assert len(faces) == 4 and len(faults) == 2 and set(faces.identity) == {"me"}
    assert "quotation mark" in faults[0]


def test_remarks_are_logged(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        check(folder, text([["My labels"], *table()]), first=3)
    assert "line 1" in caplog.text
