"""From scores to bytes, and back."""

import pathlib

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest

from tests.submission import small_submissions
from tpugraphs_rank import errors
from tpugraphs_rank import submission
from tpugraphs_rank.submission import rows

GOLDEN = pathlib.Path(__file__).resolve().parents[1] / "golden" / "submission.csv"
scores_st = st.lists(st.sampled_from([-1.5, 0.0, 0.25, 3.0]), min_size=1, max_size=12)


def _golden_rows():
  """A row for each of `made.GRAPHS`, of scores with ties."""
  for collection, kind, graphs in small_submissions.GRAPHS:
    for stem, count in graphs.items():
      scores = np.float32([(7 * index + len(stem)) % 5 for index in range(count)])
      yield submission.row_from_scores(collection, kind, stem, scores)


def test_the_format_equals_the_golden_file_byte_for_byte(tmp_path):
  assert submission.render(_golden_rows()) == GOLDEN.read_bytes()
  submission.write(tmp_path / "part.csv", _golden_rows())
  assert (tmp_path / "part.csv").read_bytes() == GOLDEN.read_bytes()


def test_the_golden_file_is_valid_and_reads_back():
  assert small_submissions.is_valid(GOLDEN.read_bytes(), strict=True)
  assert submission.validate(GOLDEN.read_bytes(), small_submissions.EXPECTATION) == []
  for read, written in zip(submission.read(GOLDEN), _golden_rows(), strict=True):
    assert read.id == written.id
    np.testing.assert_array_equal(read.indices, written.indices)


@hypothesis.given(scores_st)
def test_a_layout_row_ranks_all_configurations_with_ties_by_index(scores):
  row = submission.row_from_scores("layout:xla:default", "layout", "g", scores)
  assert row.id == "layout:xla:default:g"
  assert list(row.indices) == sorted(range(len(scores)), key=lambda index: (-scores[index], index))


@hypothesis.given(scores_st)
def test_a_tile_row_ranks_the_best_five_or_all_without_repeats(scores):
  row = submission.row_from_scores("tile:xla", "tile", "k", scores)
  assert list(row.indices) == sorted(
      range(len(scores)), key=lambda index: (-scores[index], index))[:5]
  assert len(set(row.indices)) == len(row.indices) == min(5, len(scores))


def test_a_graph_with_one_configuration_has_its_row():
  for kind, name in (("tile", "tile:xla"), ("layout", "layout:nlp:random")):
    row = submission.row_from_scores(name, kind, "g", [0.5])
    assert submission.render([row]) == f"ID,TopConfigs\n{name}:g,0\n".encode()


@pytest.mark.parametrize("scores", [[0.0, np.nan], [np.inf], []])
def test_scores_without_an_order(scores):
  with pytest.raises(errors.DataError, match="scores"):
    submission.row_from_scores("tile:xla", "tile", "k", scores)


@pytest.mark.parametrize("stem", ["a,b", 'a"b', "a'b", "a;b", "a b", "a\nb", "a\x1bb", "a\u00a0b"])
def test_a_name_that_would_break_the_file_is_refused(stem):
  with pytest.raises(errors.DataError, match=r"cannot be the ID of a row; rename the graph's file"):
    submission.graph_id("tile:xla", stem)


def test_an_empty_name_is_refused():
  with pytest.raises(errors.DataError, match="'tile:xla:' names no graph"):
    submission.graph_id("tile:xla", "")


@hypothesis.given(st.text(alphabet=st.characters(codec="utf-8"), max_size=8))
def test_a_name_that_is_accepted_reads_back(stem):
  try:
    row = submission.row_from_scores("tile:mine", "tile", stem, [1.0, 2.0])
  except errors.DataError:
    return
  parsed = submission.parse(submission.render([row]))
  assert not parsed.faults
  assert [(actual.id, actual.indices) for actual in parsed.rows] == [(f"tile:mine:{stem}", (1, 0))]


def test_row_lengths():
  assert [rows.row_length("tile", count) for count in (1, 4, 5, 6, 4000)] == [1, 4, 5, 5, 5]
  assert [rows.row_length("layout", count) for count in (1, 1000, 1001)] == [1, 1000, 1001]


def test_an_unwritable_folder(tmp_path):
  (tmp_path / "file").write_bytes(b"")
  with pytest.raises(errors.OutputError, match="cannot write"):
    submission.write(tmp_path / "file" / "part.csv", _golden_rows())
