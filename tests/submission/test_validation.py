"""Every fault is found, on its line and with its ID; a valid file has none."""

import hypothesis
from hypothesis import strategies as st
import pytest

from tests.submission import small_submissions
from tpugraphs_rank import submission
from tpugraphs_rank.submission import expectation as expectation_lib

E = small_submissions.EXPECTATION
VALID = b"ID,TopConfigs\n" + b"".join(
    f"{row.id},{';'.join(map(str, range(row.length)))}\n".encode() for row in E.rows)
many = hypothesis.settings(max_examples=200)


def _faults(data, expectation=E, strict=False):
  return submission.validate(data, expectation, strict)


@many
@hypothesis.given(small_submissions.valid())
def test_a_valid_file_has_no_fault(data):
  assert small_submissions.is_valid(data, strict=True)
  assert submission.check(data, E) == ((), ())


@many
@hypothesis.given(small_submissions.harmless())
def test_what_other_programs_write_is_valid_with_warnings(harmless):
  assert small_submissions.is_valid(harmless.data), harmless.data
  faults, warnings = submission.check(harmless.data, E)
  assert faults == ()
  assert (not warnings) == small_submissions.is_valid(harmless.data, strict=True)
  assert _faults(harmless.data, strict=True) == list(warnings)


@hypothesis.settings(max_examples=2000)
@hypothesis.given(small_submissions.corrupted())
def test_any_corruption_is_reported_with_line_and_id(corrupted):
  assert not small_submissions.is_valid(corrupted.data), corrupted.what
  faults, warnings = submission.check(corrupted.data, E)
  named = {(fault.line, fault.id) for fault in faults + warnings}
  assert faults and named & set(corrupted.where), f"{corrupted.what}: {faults}"


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
  assert (not _faults(data, strict=True)) == small_submissions.is_valid(data, strict=True)


@pytest.mark.parametrize("old, new, expected", [
    (b"ID,TopConfigs\n", b"", (1, "", "the header is missing; expected 'ID,TopConfigs'")),
    (b"ID,Top", b"id,Top", (1, "", "the header is 'id,TopConfigs'; expected 'ID,TopConfigs'")),
    (b"tile:xla:alexnet_2,", b"\xef\xbb\xbftile:xla:alexnet_2,", (
        3, "tile:xla:alexnet_2", "contains a byte order mark; save the file as UTF-8 without")),
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
    (b"tile:xla:alexnet_2,", b"'tile:xla:alexnet_2',", (3, "tile:xla:alexnet_2",
                                                        "quotes around the ID; expected none")),
    (b"2,0;1\n", b'2,0;1"\n', (
        3, "tile:xla:alexnet_2", "quotes around the indices; expected none")),
    (b"tile:xla:alexnet_2,", b",", (
        3, "", "the ID is empty; expected <collection>:<file stem>")),
    (b"alexnet_2,", b"alexnet_3,", (3, "tile:xla:alexnet_3", (
        "unknown ID (did you mean 'tile:xla:alexnet_2'?); it is not among the made-up graphs"))),
    (b"alexnet_2,", b"alexnet_3,", (3, "tile:xla:alexnet_2", "the row is missing")),
    (b"2,0;1\n", b"2,0;1\r", (3, "tile:xla:alexnet_2",
                              "contains a carriage return; expected LF between rows")),
    (b"2,0;1\n", b"2,0;1\0\n", (
        3, "tile:xla:alexnet_2", "contains NUL bytes; the file is damaged")),
    (b"2,0;1\n", b"2,0;1\xe9\n", (3, "tile:xla:alexnet_2", (
        "byte 0xe9 at position 23 of the line is not UTF-8; save the file as UTF-8"))),
    (b"2,0;1\n", b"2,0;1\n\t \n", (4, "", "blank line; expected a row")),
    (b"2,0;1\n", b"2,0;1\nID,TopConfigs\n", (4, "", (
        "the header is repeated; `tpugraphs-rank submission merge` merges parts"))),
    (b"2,0;1\n", b"2,0;1\ntile:xla:alexnet_2,0;1\n", (4, "tile:xla:alexnet_2", (
        "the ID already appears on line 3; expected it once"))),
])
def test_each_fault_has_its_message(old, new, expected):
  assert VALID.count(old) == 1
  data = VALID.replace(old, new)
  assert submission.Fault(*expected) in _faults(data)


@pytest.mark.parametrize("old, new, expected", [
    (b"ID,T", b"\xef\xbb\xbfID,T", (
        1, "", "the file begins with a byte order mark; the canonical form has none")),
    (b"2,0;1\n", b"2,0;1\r\n", (3, "tile:xla:alexnet_2", (
        "ends with CR LF; the canonical form has LF (Unix line ends)"))),
    (b"ID,TopConfigs", b'"ID","TopConfigs"', (
        1, "", "has quotes around a field; the canonical form has none")),
    (b"tile:xla:alexnet_2,", b'"tile:xla:alexnet_2",', (
        3, "tile:xla:alexnet_2", "has quotes around a field; the canonical form has none")),
    (b"2,0;1\n", b'2,"0;1"\n', (
        3, "tile:xla:alexnet_2", "has quotes around a field; the canonical form has none")),
    (b"2,0;1\n", b"2,0;1\n\n", (4, "", "empty line; the canonical form has none")),
    (b"mnasnet_3d,0;1;2;3;4\n", b"mnasnet_3d,0;1;2;3;4;9\n", (5, "tile:xla:mnasnet_3d", (
        "more than 5 indices, of which the metric reads the first 5"))),
])
def test_each_warning_has_its_message_and_is_a_fault_if_strict(old, new, expected):
  assert VALID.count(old) == 1
  data = VALID.replace(old, new)
  assert submission.check(data, E) == ((), (submission.Fault(*expected),))
  assert _faults(data, strict=True) == [submission.Fault(*expected)]


def test_a_warning_states_how_many_lines_it_is_about():
  warnings = submission.check(VALID.replace(b"\n", b"\r\n"), E).warnings
  assert list(map(str, warnings)) == [
      "line 1: ends with CR LF; the canonical form has LF (Unix line ends) (10 more such lines)"]
  two = VALID.replace(b"\n", b"\r\n", 2)
  assert submission.check(two, E).warnings[0].message.endswith(" (1 more such line)")


def test_faults_of_the_whole_file():
  assert _faults(b"")[0] == submission.Fault(1, "", (
      "the file is empty; expected the header ID,TopConfigs and one row per graph"))
  assert len(_faults(b"\n \n")) == 1 + len(E.rows)
  assert submission.check(VALID[:-1], E) == ((), (submission.Fault(
      len(E.rows) + 1, E.rows[-1].id, "no newline at the end; the file may be truncated"),))
  assert _faults(VALID.decode().encode("utf-16")) == [
      submission.Fault(1, "", "the file is UTF-16; save it as UTF-8")]


def test_one_mistake_is_one_fault():
  for old, new in ((b"0;1", b"0; 1"), (b"0;1", b"00;1"), (b"0;1", b"0;+1")):
    changed = VALID.replace(b"alexnet_2," + old, b"alexnet_2," + new)
    assert len(_faults(changed)) == 1, changed


def test_further_indices_of_a_tile_row_are_checked_too():
  for more, message in ((b";9;14", "entry 7, 14, is out of range; expected 0 to 13"),
                        (b";9;3", "index 3 is repeated at entries 4 and 7")):
    (fault,) = _faults(VALID.replace(b"mnasnet_3d,0;1;2;3;4", b"mnasnet_3d,0;1;2;3;4" + more))
    assert (fault.line, fault.id) == (5, "tile:xla:mnasnet_3d") and message in fault.message


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


def test_a_tile_row_of_unknown_length_has_five_entries_or_ranks_all():
  expected = expectation_lib.Expectation((submission.ExpectedRow(
      "tile:a:c", "tile:a", "tile", None, None),), "a sample")
  start = b"ID,TopConfigs\ntile:a:c,"
  for body in (b"2;0;77;1;5\n", b"2;0;77;1;5;9\n", b"3;0;2;1\n", b"0\n"):
    assert not _faults(start + body, expected)
  assert list(map(str, _faults(start + b"2;0;77;1\n", expected))) == [
      "line 2: tile:a:c: entry 3, 77, is out of range; expected 0 to 3, because a row of fewer "
      "than 5 ranks all"]
  assert "repeated" in str(_faults(start + b"2;0;2;1;3\n", expected)[0])


def _kernels(lengths):
  return b"ID,TopConfigs\n" + b"".join(
      f"tile:a:k{place},{';'.join(map(str, reversed(range(length))))}\n".encode()
      for place, length in enumerate(lengths))


# Seven kernels, of which two have 2 configurations and one has 4; one of those with 2 is known.
SMALL = expectation_lib.Expectation(tuple(
    submission.ExpectedRow(f"tile:a:k{place}", "tile:a", "tile", 2 if place == 6 else None,
                           2 if place == 6 else None)
    for place in range(7)), "a sample", {"tile:a": {2: 2, 4: 1}})


@pytest.mark.parametrize("lengths, message", [
    ((5, 2, 7, 4, 5, 5, 2), ""),
    ((2, 5, 5, 5, 5, 4, 2), ""),
    ((5, 5, 5, 5, 5, 5, 2), "6 rows list 5 indices or more, but 4 of these kernels"),
    ((5, 2, 2, 4, 5, 5, 2), "2 rows list 2 indices, but 1 of these kernels"),
    ((5, 2, 3, 4, 5, 5, 2), "1 rows list 3 indices, but 0 of these kernels"),
])
def test_rows_that_cannot_all_be_right(lengths, message):
  faults = _faults(_kernels(lengths), SMALL)
  assert bool(faults) == bool(message)
  if message:
    assert len(faults) == 1 and message in faults[0].message and faults[0].id == "tile:a"
    assert "of all kernels 2 have 2, 1 have 4; it is not published which ones" in faults[0].message
  missing = expectation_lib.Expectation(SMALL.rows, "a sample")
  assert not _faults(_kernels(lengths), missing)


def test_placeholders_are_no_rankings():
  expected = expectation_lib.Expectation(tuple(
      submission.ExpectedRow(f"layout:a:b:p{place}", "layout:a:b", "layout", 3, 3)
      for place in range(5)), "a sample")
  body = [f"layout:a:b:p{place},0;1;2\n" for place in range(5)]
  data = ("ID,TopConfigs\n" + "".join(body)).encode()
  assert submission.check(data, expected) == ((), (submission.Fault(2, "", (
      "all rows of layout:a:b list 0;1;2;... in this order: placeholders, as in the competition's "
      "sample, and no rankings")),))
  assert submission.check(data.replace(b"p4,0;1;2", b"p4,0;2;1"), expected) == ((), ())
