"""Test columns: files hold what memory would hold, and memory does not grow with the data set."""

import mmap
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fkp.data import columns, csv_reader, datamodule, image_digests, label_values
from fkp.data.columns import Texts, joined, taken
from fkp.data.datamodule import FacesDataModule
from fkp.data.labelled_csv import LabelledCsv, write_csv
from fkp.data.youtube_faces import YoutubeFaces
from fkp.errors import FkpError
from fkp.transforms import FaceCrop, RandomCrop, Rescale

TEXT = st.text(st.one_of(st.sampled_from("a\0ü\udcff\U0001f600"), st.characters()), max_size=9)


@pytest.fixture(params=[1 << 30, 0], ids=["memory", "file"])
def where(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Keep columns in memory; or each column in a file, written in blocks of three rows."""
    monkeypatch.setattr(columns, "LARGE", request.param)
    monkeypatch.setattr(columns, "BLOCK", 3)
    return int(request.param)


def mapped(array: np.ndarray) -> bool:
    """Whether an array is a view of a file."""
    base: object = array
    while isinstance(base, np.ndarray):
        base = base.base
    return isinstance(base, mmap.mmap)


def in_order(size: int) -> st.SearchStrategy[list[int]]:
    return st.lists(st.integers(-size, size - 1), max_size=9)


@settings(
    deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data(), st.lists(TEXT, min_size=1, max_size=9), st.lists(TEXT, max_size=9))
def test_texts_behave_as_a_list_of_strings(
    where: int, data: st.DataObject, some: list[str], more: list[str]
) -> None:
    texts, mask = Texts.of(some, str), np.array([len(text) % 2 == 0 for text in some])
    assert texts.tolist() == some == [texts[i] for i in range(len(some))] and len(texts) == len(
        some
    )
    chosen = data.draw(in_order(len(some)))
    assert (
        texts[np.array(chosen, int)].tolist() == [some[i] for i in chosen]
        and texts[1:].tolist() == some[1:]
    )
    assert texts[mask].tolist() == [text for text in some if len(text) % 2 == 0]
    assert (texts == some[0]).tolist() == [text == some[0] for text in some] and (
        texts == texts
    ).all()
    both = joined([{"texts": texts[1:]}, {"texts": Texts.of(more, str)}, {"texts": texts}])["texts"]
    assert both.tolist() == some[1:] + more + some
    texts[-1] = "another"
    assert texts.tolist() == [*some[:-1], "another"]


@given(st.lists(TEXT.filter(lambda name: "\0" not in name), max_size=9))
def test_paths_come_back_as_paths(names: list[str]) -> None:
    assert Texts.of(map(Path, names), Path).tolist() == [Path(name) for name in names]


@settings(
    deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.data(),
    st.lists(st.integers(0, 9), min_size=1, max_size=5),
    st.sampled_from([(), (2,), (3, 2)]),
)
def test_rows_are_taken_and_joined_as_by_numpy(
    where: int, data: st.DataObject, counts: list[int], shape: tuple[int, ...]
) -> None:
    tables = [np.random.default_rng(i).random((count, *shape)) for i, count in enumerate(counts)]
    whole = joined({"x": table} for table in tables)["x"]
    np.testing.assert_array_equal(whole, np.concatenate(tables))
    assert mapped(whole) == (where == 0 and len(whole) > 0)
    chosen = np.array(data.draw(in_order(len(whole))) if len(whole) else [], int)
    for choice in (chosen, np.arange(len(whole)) % 2 == 0):
        np.testing.assert_array_equal(taken(whole, choice), whole[choice])
    assert np.shares_memory(taken(whole, slice(0, 1)), whole) == (len(whole) > 0)
    if len(whole):  # it can be written to, and the original does not change
        other = taken(whole, np.arange(len(whole)))
        other[0] = -1
        assert (whole[0] != -1).all()


def test_full_disk_is_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("FKP_CACHE", str(tmp_path / "file" / "cache"))
    monkeypatch.setattr(columns, "LARGE", 0)
    with pytest.raises(FkpError, match="no room for a table of faces .*FKP_CACHE"):
        taken(np.ones(3), np.arange(3))


def module(source: LabelledCsv) -> FacesDataModule:
    steps = {"frame": FaceCrop(1.4, shift=0.05), "rescale": Rescale(40), "crop": RandomCrop(36)}
    made = FacesDataModule(source, steps, batch_size=8)
    made.setup()
    return made


def test_splits_are_slices_of_one_mapped_table(
    faces_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = module(YoutubeFaces(str(faces_folder)))
    monkeypatch.setattr(columns, "LARGE", 0)
    large = module(YoutubeFaces(str(faces_folder)))
    assert large.fingerprint == small.fingerprint
    for split, dataset in large.splits.items():
        table, cache = dataset.table, dataset.cache
        names = [table.paths, table.identity, table.rows]
        numbers = [
            table.points,
            table.boxes,
            table.weights,
            table.official,
            cache.starts,
            cache.affines,
        ]
        numbers += [cache.pixels, cache.shapes, cache.extents, cache.boxes]
        assert all(
            map(
                mapped,
                [*numbers, *(texts.spans for texts in names), *(texts.letters for texts in names)],
            )
        )
        assert table.points.base is large.splits["train"].table.points.base
        for name, column in vars(small.splits[split].table).items():
            np.testing.assert_array_equal(vars(table)[name], column, err_msg=name)
    for one, other in zip(small.train_dataloader(), large.train_dataloader(), strict=True):
        assert all((one[name] == other[name]).all() for name in one)


def test_memory_does_not_grow_with_the_data_set(
    faces_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The labels of a face alone take a kilobyte, and as text in memory ten."""
    monkeypatch.setattr(columns, "LARGE", 1 << 12)
    for module_of_data in (columns, csv_reader, image_digests):
        monkeypatch.setattr(module_of_data, "BLOCK", 50)
    monkeypatch.setattr(datamodule, "ENOUGH", 50)
    monkeypatch.setattr(label_values, "AT_ONCE", 50)
    monkeypatch.setenv("FKP_CACHE", str(tmp_path / "cache"))
    faces = YoutubeFaces(str(faces_folder)).read().select(np.arange(20))
    peaks = {}
    for count in (100, 800):
        root = tmp_path / str(count)
        (root / "images").mkdir(parents=True)
        names = [f"person{i}_0.png" for i in range(count)]
        for i, name in enumerate(names):
            os.link(faces.paths[i % 20], root / "images" / name)
        write_csv(root / "keypoints.csv", names, np.tile(faces.points, (count // 20, 1, 1)))
        module(LabelledCsv(str(root)))  # decodes
        tracemalloc.start()
        made = module(LabelledCsv(str(root)))
        _ = next(iter(made.train_dataloader()))
        peaks[count] = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    kept, most = ((big - small) / 700 for small, big in zip(peaks[100], peaks[800], strict=True))
    assert kept < 100 and most < 500
