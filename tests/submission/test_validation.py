"""Every fault is found, on its line and with its ID; a valid file has none."""

import itertools

import hypothesis
from hypothesis import strategies as st
import pytest

from tests.submission import small_submissions
from tpugraphs_rank import submission
from tpugraphs_rank.submission import expectation as expectation_lib
from tpugraphs_rank.submission import validation

E = small_submissions.EXPECTATION
VALID = b"ID,TopConfigs\n" + b"".join(
    f"{row.id},{';'.join(map(str, range(row.length)))}\n".encode() for row in E.rows)
many = hypothesis.settings(max_examples=200)


def _faults(data, expectation=E):
  return submission.validate(data, expectation)


@many
@hypothesis.given(small_submissions.valid())
def test_a_valid_file_has_no_fault(data):
  assert small_submissions.is_valid(data)
  assert _faults(data) == []


@hypothesis.settings(max_examples=2000)
@hypothesis.given(small_submissions.corrupted())
def test_any_corruption_is_reported_with_line_and_id(corrupted):
  assert not small_submissions.is_valid(corrupted.data), corrupted.what
  faults = _faults(corrupted.data)
  named = {(fault.line, fault.id) for fault in faults}
  assert named & set(corrupted.where), f"{corrupted.what}: {faults}"


@many
@hypothesis.given(st.binary(max_size=300))
def test_arbitrary_bytes_have_faults_that_can_be_printed(data):
  faults = _faults(data)
  assert faults and [fault.line for fault in faults] == sorted(fault.line for fault in faults)
  for fault in faults:
    assert 1 <= fault.line <= data.count(b"\n") + 2 and fault.message
    assert str(fault).startswith(f"line {fault.line}: ") and str(fault).isprintable()


@hypothesis.settings(max_examples=500)
@hypothesis.given(small_submissions.valid(), st.data())
def test_an_edited_file_is_valid_only_if_the_writer_could_have_written_it(data, draws):
  for _ in range(draws.draw(st.integers(1, 3))):
    start = draws.draw(st.integers(0, len(data)))
    stop = draws.draw(st.integers(start, min(len(data), start + 3)))
    new = draws.draw(st.one_of(st.binary(max_size=2), st.sampled_from([b"0", b"3", b";", b"9;"])))
    data = data[:start] + new + data[stop:]
  assert (not _faults(data)) == small_submissions.is_valid(data)


@pytest.mark.parametrize("old, new, expected", [
    (b"ID,TopConfigs\n", b"", (1, "", "the header is missing; expected 'ID,TopConfigs'")),
    (b"ID,Top", b"id,Top", (1, "", "the header is 'id,TopConfigs'; expected 'ID,TopConfigs'")),
    (b"ID,T", b"\xef\xbb\xbfID,T",
     (1, "", "contains a byte order mark; save the file as UTF-8 without")),
    (b"2,0;1\n", b"2,0\n", (3, "tile:xla:alexnet_2",
                            "1 indices; expected the best 2 of its 2 configurations")),
    (b"2,0;1\n", b"2,0;1;0;0;0\n", (3, "tile:xla:alexnet_2", (
        "index 0 is repeated at entries 1 and 3; expected each at most once, and short lists "
        "without padding"))),
    (b"2,0;1\n", b"2,0;2\n", (3, "tile:xla:alexnet_2",
                              "entry 2, 2, is out of range; expected 0 to 1")),
    (b"2,0;1\n", b"2,0; 1\n", (3, "tile:xla:alexnet_2", (
        "entry 2, ' 1', has whitespace around it; expected whole numbers such as 0 or 17, "
        "separated by ';'"))),
    (b"2,0;1\n", b"2,0;-1\n", (3, "tile:xla:alexnet_2", (
        "entry 2, '-1', has a sign; expected whole numbers such as 0 or 17, separated by ';'"))),
    (b"2,0;1\n", b"2,00;01\n", (3, "tile:xla:alexnet_2", (
        "entry 1 (and 1 more), '00', has leading zeros; expected whole numbers such as 0 or 17, "
        "separated by ';'"))),
    (b"2,0;1\n", b"2,0;1.0\n", (3, "tile:xla:alexnet_2", (
        "entry 2, '1.0', is not a whole number; expected whole numbers such as 0 or 17, "
        "separated by ';'"))),
    (b"2,0;1\n", b"2,0;1;\n", (3, "tile:xla:alexnet_2", (
        "entry 3, '', is empty (there is one separator too many); expected whole numbers such "
        "as 0 or 17, separated by ';'"))),
    (b"2,0;1\n", b"2,0,1\n", (3, "tile:xla:alexnet_2", (
        "entry 1, '0,1', has a separator other than ';'; expected whole numbers such as 0 or 17, "
        "separated by ';'"))),
    (b"2,0;1\n", b"2,0;" + b"9" * 5000 + b"\n", (3, "tile:xla:alexnet_2", (
        f"entry 2, '{'9' * 80}...', is far out of range; expected whole numbers such as 0 or 17, "
        "separated by ';'"))),
    (b"2,0;1\n", b"2,\n", (3, "tile:xla:alexnet_2", (
        "no indices; expected configuration indices separated by ';'"))),
    (b"2,0;1\n", b"2;0;1\n", (3, "tile:xla:alexnet_2", (
        "no comma between ID and indices; expected ID,index;index;..."))),
    (b"tile:xla:alexnet_2,", b"tile:xla:alexnet_2 ,", (3, "tile:xla:alexnet_2",
                                                       "whitespace around the ID")),
    (b"tile:xla:alexnet_2,", b'"tile:xla:alexnet_2",', (3, "tile:xla:alexnet_2",
                                                        "quotes around the ID; expected none")),
    (b"2,0;1\n", b'2,"0;1"\n', (
        3, "tile:xla:alexnet_2", "quotes around the indices; expected none")),
    (b"tile:xla:alexnet_2,", b",", (
        3, "", "the ID is empty; expected <collection>:<file stem>")),
    (b"alexnet_2,", b"alexnet_3,", (3, "tile:xla:alexnet_3", (
        "unknown ID (did you mean 'tile:xla:alexnet_2'?); it is not among the made-up graphs"))),
    (b"alexnet_2,", b"alexnet_3,", (3, "tile:xla:alexnet_2", "the row is missing")),
    (b"2,0;1\n", b"2,0;1\r\n", (3, "tile:xla:alexnet_2",
                                "ends with CR LF; expected LF only (Unix line ends)")),
    (b"2,0;1\n", b"2,0;1\r", (3, "tile:xla:alexnet_2",
                              "contains a carriage return; expected LF between rows")),
    (b"2,0;1\n", b"2,0;1\0\n", (
        3, "tile:xla:alexnet_2", "contains NUL bytes; the file is damaged")),
    (b"2,0;1\n", b"2,0;1\xe9\n", (3, "tile:xla:alexnet_2", (
        "byte 0xe9 at position 23 of the line is not UTF-8; save the file as UTF-8"))),
    (b"2,0;1\n", b"2,0;1\n\t \n", (4, "", "blank line; expected a row")),
    (b"2,0;1\n", b"2,0;1\n\n", (4, "", "blank line; expected a row")),
    (b"2,0;1\n", b"2,0;1\nID,TopConfigs\n", (4, "", (
        "the header is repeated; `tpugraphs-rank submission merge` merges parts"))),
    (b"2,0;1\n", b"2,0;1\ntile:xla:alexnet_2,0;1\n", (4, "tile:xla:alexnet_2", (
        "the ID already appears on line 3; expected it once"))),
])
def test_each_fault_has_its_message(old, new, expected):
  assert VALID.count(old) == 1
  data = VALID.replace(old, new)
  assert submission.Fault(*expected) in _faults(data)


def test_faults_of_the_whole_file():
  assert _faults(b"")[0] == submission.Fault(1, "", (
      "the file is empty; expected the header ID,TopConfigs and one row per graph"))
  assert len(_faults(b"\n \n")) == 1 + len(E.rows)
  assert _faults(VALID[:-1]) == [submission.Fault(
      len(E.rows) + 1, E.rows[-1].id, "no newline at the end; the file may be truncated")]
  assert _faults(VALID.decode().encode("utf-16")) == [
      submission.Fault(1, "", "the file is UTF-16; save it as UTF-8")]


def test_one_mistake_is_one_fault():
  for old, new in ((b"0;1", b"0; 1"), (b"0;1", b"00;1"), (b"0;1", b"0;+1"), (b"0;1\n", b"0;1\r\n")):
    changed = VALID.replace(b"alexnet_2," + old, b"alexnet_2," + new)
    assert len(_faults(changed)) == 1, changed


def test_misplaced_rows_name_their_place():
  lines = VALID.splitlines(keepends=True)
  moved = [*lines[:1], *lines[2:6], lines[1], *lines[6:]]
  assert _faults(b"".join(moved)) == [
      submission.Fault(6, E.rows[0].id, "out of order; expected first")]
  moved = [*lines[:1], lines[5], *lines[1:5], *lines[6:]]
  assert _faults(b"".join(moved)) == [
      submission.Fault(2, E.rows[4].id, f"out of order; expected after {E.rows[3].id}")]


@hypothesis.given(st.permutations(range(7)), st.integers(0, 7))
def test_as_few_rows_as_possible_are_out_of_order(places, count):
  places = places[:count]
  misplaced = validation._misplaced(places)
  kept = [place for place in places if place not in misplaced]
  assert kept == sorted(kept)
  assert len(kept) == max(
      size for size in range(len(places) + 1)
      if any(list(part) == sorted(part) for part in itertools.combinations(places, size)))


def test_only_the_first_unknown_ids_get_suggestions():
  data = VALID.replace(b"tile:", b"tyle:").replace(b"layout:", b"lay:")
  faults = [fault for fault in _faults(data) if "unknown" in fault.message]
  assert [("did you mean" in fault.message) for fault in faults] == (
      [True] * 10)[:len(faults)] and len(faults) == len(E.rows) == 10
  faults = _faults(data + b"lay:xla:random:resnet50.4x4.fp33,0\n")
  assert "did you mean" not in faults[-1].message


def test_a_layout_row_of_unknown_length_is_still_a_permutation():
  expected = expectation_lib.Expectation((submission.ExpectedRow(
      "layout:a:b:c", "layout:a:b", "layout", None, None),), "a sample")
  start = b"ID,TopConfigs\nlayout:a:b:c,"
  assert not _faults(start + b"2;0;1\n", expected)
  assert "entry 1, 3, is out of range; expected 0 to 2" in str(
      _faults(start + b"3;0;1\n", expected)[0])


def test_a_tile_row_of_unknown_range_has_its_length_and_no_repeats():
  expected = expectation_lib.Expectation((submission.ExpectedRow(
      "tile:a:c", "tile:a", "tile", 5, None),), "a sample")
  start = b"ID,TopConfigs\ntile:a:c,"
  assert not _faults(start + b"2;0;77;1;5\n", expected)
  assert str(_faults(start + b"2;0;77;1\n", expected)[0]) == (
      "line 2: tile:a:c: 4 indices; expected the best 5")
  assert "repeated" in str(_faults(start + b"2;0;2;1;3\n", expected)[0])
