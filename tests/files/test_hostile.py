"""Test that readers give a result or one clean error, whatever a file contains.

`benchmarks/reliability/fuzz.py` does the same with many more files, and with bounds on memory
and time.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fkp.files import images
from fkp.files.images import write_image

sys.path.append(str(ROOT / "benchmarks/reliability"))
import fuzz  # noqa: E402

# Pillow warns of each damaged file.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")


@pytest.fixture(scope="module")
def good() -> dict[str, list[bytes]]:
    pytest.importorskip("onnx")
    return fuzz.seeds()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(images, "PIXELS", fuzz.PIXELS)
        patch.setenv("FKP_CACHE", "")  # which two of the readers set
        made = tmp_path_factory.mktemp("hostile")
        write_image(made / "a.png", np.zeros((8, 8), np.uint8))
        yield made


@pytest.mark.parametrize("reader", fuzz.READERS)
def test_valid_files_are_read(reader: str, good: dict[str, list[bytes]], folder: Path) -> None:
    for data in good[reader]:
        assert fuzz.outcome(reader, folder, data) == "result"


@settings(deadline=None, max_examples=600, suppress_health_check=list(HealthCheck))
@given(reader=st.sampled_from(list(fuzz.READERS)), number=st.integers(0, 1 << 32))
def test_damaged_files_are_read_or_refused(
    reader: str, number: int, good: dict[str, list[bytes]], folder: Path
) -> None:
    end = fuzz.outcome(reader, folder, fuzz.mutated(good[reader], f"{reader} {number}"))
    assert end in ("result", "error"), end


@settings(deadline=None, max_examples=200, suppress_health_check=list(HealthCheck))
@given(reader=st.sampled_from(list(fuzz.READERS)), data=st.binary(max_size=300))
def test_random_bytes_are_read_or_refused(reader: str, data: bytes, folder: Path) -> None:
    end = fuzz.outcome(reader, folder, data)
    assert end in ("result", "error"), end
