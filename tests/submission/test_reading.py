"""Reading: the faults of a file's format, independent of the expected rows."""

import os

import hypothesis
from hypothesis import strategies as st
import pytest

from tests.submission import small_submissions
from tpugraphs_rank import errors
from tpugraphs_rank import submission
from tpugraphs_rank.submission import reading


@hypothesis.given(small_submissions.valid())
def test_round_trip(data):
  parsed = submission.parse(data)
  assert parsed.faults == ()
  assert [row.line for row in parsed.rows] == list(range(2, 2 + len(parsed.rows)))
  assert submission.render(submission.Row(row.id, row.indices) for row in parsed.rows) == data


@hypothesis.settings(max_examples=300)
@hypothesis.given(st.one_of(
    st.binary(max_size=200),
    st.lists(st.sampled_from([b"tile:xla:a", b",", b";", b"0", b"12", b"\n", b"\r", b'"', b" ",
                              b"-", b"ID,TopConfigs\n", b"\xff", b"\0"]), max_size=30).map(
                                  b"".join)))
def test_a_file_without_faults_and_warnings_is_byte_identical_to_its_rendered_rows(data):
  parsed = submission.parse(data)
  if not parsed.faults and not parsed.warnings:
    assert submission.render(submission.Row(row.id, row.indices) for row in parsed.rows) == data


def test_faulty_rows_keep_their_likely_meaning():
  parsed = submission.parse(
      b'ID,TopConfigs\n "tile:xla:a" ,"07; 2;+1;-3;x"\r\ntile:xla:b 1;2\ntile:xla:c,1 2\n')
  assert parsed.rows == (
      (2, "tile:xla:a", (7, 2, 1, None, None)), (3, "tile:xla:b", None), (4, "tile:xla:c", None))
  messages = [fault.message for fault in parsed.faults if fault.line == 2]
  assert [fault.id for fault in parsed.faults] == ["tile:xla:a"] * 7 + ["tile:xla:b", "tile:xla:c"]
  assert [warning.line for warning in parsed.warnings] == [2]
  for part in ("whitespace around the ID", "quotes around the ID",
               "quotes around the indices", "'07', has leading zeros", "' 2', has whitespace",
               "entry 3 (and 1 more), '+1', has a sign", "'x', is not a whole number"):
    assert sum(part in message for message in messages) == 1, part


def test_reading_a_file_with_a_fault(tmp_path):
  path = tmp_path / "part.csv"
  path.write_bytes(b"ID,TopConfigs\ntile:xla:a,1;2\ntile:xla:b,1;;2\nfoo\n")
  with pytest.raises(errors.DataError, match=(
      r"part\.csv: line 3: tile:xla:b: entry 2, '', is empty .*\(and 1 more\); write the "
      "file again with `tpugraphs-rank predict`")):
    submission.read(path)


def test_an_index_fits_into_64_bits():
  for digits, faults in ((18, 0), (19, 1), (5000, 1)):
    data = f"ID,TopConfigs\ntile:xla:a,{'9' * digits}\n".encode()
    assert len(submission.parse(data).faults) == faults


def test_a_missing_file(tmp_path):
  with pytest.raises(errors.MissingDataError, match="no file .*tpugraphs-rank predict --run_dir"):
    submission.read(tmp_path / "gone.csv")
  with pytest.raises(errors.MissingDataError, match="it is a folder; expected a submission"):
    reading.read_bytes(tmp_path)


def test_a_file_without_an_end(tmp_path, monkeypatch):
  with pytest.raises(errors.DataError, match="/dev/zero is a device, which may never end; exp"):
    submission.read("/dev/zero")
  os.mkfifo(tmp_path / "pipe")
  with pytest.raises(errors.DataError, match="pipe is a pipe, which may never end; expected a sub"):
    submission.read(tmp_path / "pipe")
  monkeypatch.setattr(reading, "_MOST_BYTES", 10)
  (tmp_path / "a.csv").write_bytes(b"ID,TopConfigs")
  with pytest.raises(errors.LimitError, match="a.csv has 13 bytes; the limit is 10; expected a"):
    submission.read(tmp_path / "a.csv")


def test_control_characters_are_escaped_in_messages():
  fault = submission.parse(b"ID,TopConfigs\ntile:xla:\x1b[31ma,1;\x1b\n").faults[0]
  assert "\x1b" in fault.id and "\x1b" not in str(fault) and r"\x1b[31ma" in str(fault)
  assert len(str(submission.parse(b"ID,TopConfigs\n" + b"a" * 10**6).faults[0])) < 200


def test_rows_and_files_are_not_longer_than_any_graph_or_split_needs():
  parsed = submission.parse(b"ID,TopConfigs\ntile:xla:a," + b"1;" * 300_000 + b"\n")
  assert parsed.rows == ((2, "tile:xla:a", None),)
  assert [str(fault) for fault in parsed.faults] == [
      "line 2: tile:xla:a: 300,001 indices; no graph has more than 262,144 configurations; the "
      "file is damaged"]
  parsed = submission.parse(b"x\n" * 70_000)
  assert parsed.rows == ()
  assert [str(fault) for fault in parsed.faults] == [
      "line 1: the file has 70,000 lines; the limit is 65,536; expected one row per graph"]
