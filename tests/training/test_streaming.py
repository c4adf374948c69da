"""Scoring a program in chunks: the same scores for any memory and execution path."""

import numpy as np
import pytest

from tests import synthetic
from tests.data import changed
from tests.models import small_batches
from tpugraphs_rank.data import batches
from tpugraphs_rank.training import scoring
from tpugraphs_rank.training import streaming


@pytest.fixture(scope="module", params=["residual_gnn", "attention_gnn"])
def case(request):
  return small_batches.Case("layout", sizes=(40, 12), configs=(60, 9), model_model=request.param,
                   model_members=2, model_layout_costs="both")


def _plain(case, prepared):
  """Scores of the usable configurations, in one batch."""
  return case.scores([prepared], max_configs=1000)[0]


@pytest.mark.parametrize("distinct", [
    True, False, pytest.param(None, marks=pytest.mark.slow)])  # None: one of the others.
@pytest.mark.parametrize("budget", [1, pytest.param(20_000, marks=pytest.mark.slow), 2 ** 30])
def test_scores_do_not_depend_on_memory_or_execution_path(case, budget, distinct):
  choice = np.random.default_rng(0).permutation(60)[:50]
  prepared = case.prepare(case.graphs[0], choice)
  actual = streaming.Streamer(case.model, budget, distinct)(prepared)
  small_batches.close(actual, _plain(case, prepared))


@pytest.mark.parametrize("kind", small_batches.MAKERS)
@pytest.mark.parametrize("size, budget, large", [(1, 1, 1), (7, 1, 10 ** 9), (40, 512, 1)])
def test_equal_configurations_have_equal_scores(monkeypatch, kind, size, budget, large):
  case = small_batches.Case(kind, sizes=(40,), configs=(60,), batch_eval_batch_configs=size,
                   batch_scoring_megabytes=budget)
  monkeypatch.setattr(scoring, "_LARGE", large)
  rows = np.random.default_rng(0).permutation([*range(60), *range(30), 0, 0])
  prepared = case.prepare(changed.with_configs(case.graphs[0], rows), np.arange(1, len(rows)))
  (actual,) = scoring.Scorer(case.model, case.config)([prepared])
  (whole,) = scoring.Scorer(case.model, case.config)([case.prepare(case.graphs[0])])
  small_batches.close(actual, whole[rows[1:]])
  keys = prepared.graph.config_keys()[1:]
  assert len(np.unique(actual)) <= len(np.unique(keys)) < len(actual)
  for key in keys:
    assert len(np.unique(actual[keys == key])) == 1


def test_wider_states_are_counted_as_wider():
  numbers = lambda **changes: small_batches.Case("layout", **changes).model.numbers_per_state
  plain = numbers(model_num_convolutions=3)
  assert plain == 8 * small_batches.SMALL["model.hidden_width"]
  assert numbers(model_num_convolutions=3, model_residual="concat") > plain
  assert numbers(model_num_convolutions=3, model_members=3) == 2 * plain
  assert numbers(model_num_convolutions=3, model_model="attention_gnn",
                 model_attention_reference=500) > plain


@pytest.mark.slow
def test_less_memory_means_more_chunks(case, monkeypatch):
  prepared = case.prepare(case.graphs[0])
  for distinct in (True, False):
    counts = []
    for budget in (20_000, 100_000, 2 ** 30):
      streamer = streaming.Streamer(case.model, budget, distinct)
      sizes = []
      call = streamer.call
      monkeypatch.setattr(streamer, "call", lambda name, *arguments, call=call, sizes=sizes: (
          sizes.append(arguments[0]["config_mask"].shape[1]) if len(arguments) > 1 else None,
          call(name, *arguments))[1])
      streamer(prepared)
      assert sum(sizes) == 60
      counts.append(len(sizes))
    assert counts[0] > counts[1] > counts[2] == 1


def test_states_are_deduplicated_only_where_that_is_faster():
  case = small_batches.Case("layout", sizes=(60,), configs=(4,))
  repeated = synthetic.layout_graph(0, num_nodes=60, num_configs=400, num_config_nodes=2)
  values = np.random.default_rng(0).integers(-1, 6, size=[400, 2, 18])
  different = synthetic.layout_graph(0, num_nodes=60, num_config_nodes=2, num_configs=400,
                                     node_config_feat=values.astype(np.float32))
  for graph, way in (
      (repeated, "distinct_states_part"), (different, "config_dependent_part")):
    streamer = streaming.Streamer(case.model, 2 ** 30)
    prepared = case.prepare(graph)
    small_batches.close(streamer(prepared), _plain(case, prepared))
    assert set(streamer._functions) == {"config_independent_part", way}


def test_programs_of_other_sizes_need_no_new_trace(case):
  streamer = streaming.Streamer(case.model, 20_000, False)
  for graph in (*case.graphs, synthetic.layout_graph(7, num_nodes=25, num_config_nodes=0)):
    prepared = case.prepare(graph)
    small_batches.close(streamer(prepared), _plain(case, prepared))
  assert {function.experimental_get_tracing_count()
          for function in streamer._functions.values()} == {1}


def test_the_scorer_streams_only_large_programs(case, monkeypatch):
  monkeypatch.setattr(scoring, "_LARGE", 40 * 60)
  prepared = case.prepared()
  streamed = []
  monkeypatch.setattr(streaming.Streamer, "__call__", lambda self, member, real=(
      streaming.Streamer.__call__): streamed.append(member.name) or real(self, member))
  actual = scoring.Scorer(case.model, case.config)([*prepared, prepared[0]])
  assert streamed == ["g0", "g0"]
  for scores, member in zip(actual, [*prepared, prepared[0]]):
    small_batches.close(scores, _plain(case, member))


def test_only_the_configurations_of_a_chunk_are_read(monkeypatch):
  case = small_batches.Case("layout", sizes=(30,), configs=(50,))
  rows_read, read = [], batches.PreparedGraph.layouts
  monkeypatch.setattr(batches.PreparedGraph, "layouts",
                      lambda self, rows: rows_read.append(len(rows)) or read(self, rows))
  streaming.Streamer(case.model, 30_000, False)(case.prepare(case.graphs[0]))
  assert max(rows_read) < 50 and sum(rows_read) >= 50
