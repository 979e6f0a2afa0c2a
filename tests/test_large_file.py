"""Large file: what the benchmark measures, at tiny size."""

from pathlib import Path

import large_file
import pytest
from large_file import Note, make_model, measure, quarters, write_source
from records import LargeFile, read


@pytest.mark.skipif(not large_file.STATUS.exists(), reason="memory is read from /proc")
def test_a_file_is_labelled_twice_and_both_are_the_same(tmp_path: Path) -> None:
    source = tmp_path / "new.csv"
    write_source(source, 3 * 4096, ["samples"])
    row = measure(make_model("tiny", tmp_path), source, ".parquet", "tiny", "fp32")
    assert (row.rows, row.same_after_resume) == (3 * 4096, True)
    assert row.stopped_at == 2 * 4096
    assert all(peak > 100 for peak in row.quarters_mib)  # torch alone
    for _ in range(2):
        large_file.add_row(tmp_path / "large_file.json", row)
    assert read(tmp_path / "large_file.json", LargeFile).rows == (row,)


def test_rows_that_are_missing_are_told(tmp_path: Path) -> None:
    file = tmp_path / "labelled.csv"
    file.write_text("id,text,predicted_label\n0,a film,yes\n2,a book,no\n", encoding="utf-8")
    with pytest.raises(SystemExit, match="this is not row 1 with its label"):
        large_file.check_order(file, 2)


def test_each_quarter_has_its_peak() -> None:
    notes = [Note(4096 * i, 40960, float(i), float(i), 500.0, 500.0 + i) for i in range(11)]
    assert quarters(notes) == (503.0, 506.0, 508.0, 510.0)
