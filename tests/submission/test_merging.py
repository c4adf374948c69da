"""Merging parts gives one valid file, or names the parts that prevent it."""

import hypothesis
from hypothesis import strategies as st

from tests.submission import small_submissions
from tpugraphs_rank import submission
from tpugraphs_rank.submission import merging

E = small_submissions.EXPECTATION
HEADER = b"ID,TopConfigs\n"


def _valid_lines():
  return [f"{row.id},{';'.join(map(str, reversed(range(row.length))))}\n".encode()
          for row in E.rows]


LINES = _valid_lines()
WHOLE = HEADER + b"".join(LINES)


@hypothesis.given(small_submissions.valid(), st.data())
def test_any_distribution_of_rows_over_parts_merges_to_the_same_file(data, draws):
  lines = data.splitlines(keepends=True)[1:]
  owners = [draws.draw(st.sets(st.integers(0, 2), min_size=1)) for _ in lines]
  parts = {
      f"part {part}": HEADER + b"".join(draws.draw(st.permutations(
          [line for line, owner in zip(lines, owners) if part in owner])))
      for part in range(3)}
  merged = submission.merge(parts, E)
  assert merged.data == data and merged.faults == ()
  assert merged.repeats == sum(len(owner) - 1 for owner in owners)
  assert merged.counts == E.count(E.places)
  assert submission.validate(merged.data, E) == []


@hypothesis.settings(max_examples=400)
@hypothesis.given(small_submissions.corrupted(), small_submissions.valid())
def test_a_merged_file_is_valid(corrupted, other):
  merged = submission.merge({"a": corrupted.data, "b": other}, E)
  assert bool(merged.data) == (not merged.faults)
  if merged.data:
    assert small_submissions.is_valid(merged.data, strict=True)


@hypothesis.given(small_submissions.harmless())
def test_a_merged_file_is_canonical(harmless):
  merged = submission.merge({"a.csv": harmless.data}, E)
  assert merged.data == harmless.canonical and merged.faults == ()
  warnings = submission.check(harmless.data, E).warnings
  assert merged.warnings == tuple(("a.csv", warning) for warning in warnings)
  strict = submission.merge({"a.csv": harmless.data}, E, strict=True)
  assert strict.faults == merged.warnings and bool(strict.data) == (not strict.faults)


def test_a_conflict_names_both_parts_and_the_line():
  changed = LINES[1].replace(b"1;0", b"0;1")
  merged = submission.merge(
      {"a.csv": WHOLE, "b.csv": HEADER + LINES[0] + changed}, E)
  assert merged.data == b"" and merged.repeats == 1
  assert [str(fault) for fault in merged.faults] == [
      f"b.csv: line 3: {E.rows[1].id}: conflicts with a.csv, line 3, which ranks the graph "
      "differently; leave one of the two parts out"]


def test_faults_name_their_part():
  merged = submission.merge({
      "a.csv": WHOLE.replace(b"2,1;0\n", b"2,1;1\n"),
      "b.csv": HEADER + b"tile:xla:bert_7d,0\n" + LINES[4].replace(b";", b"; ", 1) + LINES[4]}, E)
  assert [str(fault) for fault in merged.faults] == [
      "a.csv: line 3: tile:xla:alexnet_2: index 1 is repeated at entries 1 and 2; expected each at "
      "most once, and short lists without padding",
      "b.csv: line 2: tile:xla:bert_7d: unknown ID (did you mean 'tile:xla:bert_7c'?); it is not "
      "among the made-up graphs",
      f"b.csv: line 3: {E.rows[4].id}: entry 2, ' 6', has whitespace around it; expected whole "
      "numbers such as 0 or 17, separated by ';'",
      f"b.csv: line 4: {E.rows[4].id}: the ID already appears on line 3; expected it once"]


def test_parts_that_list_more_of_the_same_ranking_agree():
  longer = LINES[3].replace(b"\n", b";9;8\n")
  merged = submission.merge({"a.csv": HEADER + longer, "b.csv": WHOLE}, E)
  assert merged.data == WHOLE and merged.repeats == 1


def test_rows_that_cannot_all_be_right_are_found_over_all_parts():
  rows = tuple(submission.ExpectedRow(f"tile:a:k{place}", "tile:a", "tile", None, None)
               for place in range(3))
  expected = submission.Expectation(rows, "a sample", {"tile:a": {2: 1}})
  parts = {f"{place}.csv": HEADER + f"tile:a:k{place},4;3;2;1;0\n".encode() for place in range(3)}
  (fault,) = submission.merge(parts, expected).faults
  assert fault.part == "0.csv" and "3 rows list 5 indices or more, but 2 of these" in str(fault)
  parts["2.csv"] = HEADER + b"tile:a:k2,1;0\n"
  assert submission.merge(parts, expected).faults == ()


def test_missing_rows_and_collections_are_named():
  kept = [line for row, line in zip(E.rows, LINES)
          if row.collection != "layout:xla:default" and row.id != "tile:xla:bert_7c"]
  merged = submission.merge({"a.csv": HEADER + b"".join(kept)}, E)
  assert merged.data == b"" and merged.counts["layout:xla:default"] == 0
  missing, absent = map(str, merged.faults)
  assert missing == "line 4: tile:xla:bert_7c: no part has this row"
  assert absent.startswith("line 6: layout:xla:default: no part has a row of this collection; add")
  assert "--allow_partial" in absent


def test_collections_that_parts_mention():
  assert merging.mentioned([HEADER + LINES[7], HEADER + LINES[0], b"\xff\0"], E.collections) == (
      "tile:xla", "layout:nlp:default")
  # A collection whose name merely begins in the same way does not count.
  assert merging.mentioned([HEADER + b"tile:xla_cpu:a,0\n"], ("tile:xla", "tile:xla_cpu")) == (
      "tile:xla_cpu",)
  assert merging.mentioned([b""], E.collections) == ()
