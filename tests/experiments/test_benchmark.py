"""The benchmark at sizes that run in seconds, with all of its outputs."""

import json
import types

import numpy as np
import pytest

from experiments import benchmark
from experiments.benchmarks import cases
from experiments.benchmarks import execution
from experiments.benchmarks import limits
from experiments.benchmarks import programs
from experiments.benchmarks import public_path
from experiments.benchmarks import report
from experiments.benchmarks import timing
from tpugraphs_rank import errors
from tpugraphs_rank.data import packed_format
from tpugraphs_rank.data import packed_graphs


@pytest.mark.parametrize("coverage", [0.1, 0.5, 0.9])
def test_programs_have_the_requested_coverage(coverage):
  graph = programs.program(3000, coverage, 4, seed=1)
  actual, two = programs.covered(graph.edge_index, graph.node_config_ids, 3000)
  assert actual == pytest.approx(coverage, abs=0.01) and two > actual
  assert graph.node_config_feat.shape == (4, len(graph.node_config_ids), 18)


def test_a_search_changes_a_few_nodes_at_a_time():
  layouts = programs.searched_layouts(50, 300, np.random.default_rng(0))
  assert (layouts[0] == -1).all()
  changed = (layouts[1:] != layouts[:-1]).any(axis=2).sum(axis=1)
  assert 0 < changed.mean() < 8
  random = programs.random_layouts(50, 300, np.random.default_rng(0))
  assert (random[1:] != random[:-1]).any(axis=2).mean() > 0.9


def test_the_blocks_of_a_search_equal_the_whole_search():
  whole = programs.searched_layouts(20, 90, np.random.default_rng(0))
  blocks = list(programs.searched_blocks(20, 90, np.random.default_rng(0), 40))
  assert [len(block) for block in blocks] == [40, 40, 10]
  np.testing.assert_array_equal(np.concatenate(blocks), whole)


@pytest.mark.parametrize("name", benchmark._COVERAGES)
def test_cases_are_named_by_their_coverage(name):
  graph = programs.program(benchmark._NODES, benchmark._COVERAGES[name], 2)
  shares = programs.covered(graph.edge_index, graph.node_config_ids, graph.num_nodes)
  assert [100 * share for share in shares] == pytest.approx(
      [float(number) for number in name.split("_")], abs=2)


def test_runs_are_interleaved():
  order = []
  times = timing.interleaved({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 3)
  assert order == ["a", "b"] * 4
  assert set(times) == {"a", "b"} and set(times["a"]) == {"cpu_s", "wall_s"}


def test_the_work_of_exact_scoring():
  # If all nodes depend, every node once per configuration; if none does, every node once.
  assert list(limits.exact_states([1.0, 1.0, 1.0], 10, 3)) == [30, 30, 30]
  assert list(limits.exact_states([0.0, 0.5], 10, 3)) == [10, 20]
  flops, nbytes = limits.work([30, 20, 10], 4)
  assert flops == 50 * 4 * 2 * 4 * 4
  assert nbytes == (50 * 4 + 30) * 4 * 2 * 4
  flops, nbytes = limits.work([0], 4, nodes=10)
  assert flops == 10 * 140 * 2 * 4 and nbytes == 10 * 140 * 4


def test_the_limit_is_the_slower_resource():
  ceiling = {"matmul_gflops": 50.0, "copy_gb_per_s": 10.0}
  assert limits.share(limits.Work(10e9, 1e9), 0.4, ceiling) == {"share": 0.5, "binds": "matmul"}
  assert limits.share(limits.Work(1e9, 1e9), 0.4, ceiling) == {"share": 0.25, "binds": "copy"}


def test_costs_are_in_units_of_an_exact_state():
  exact = types.SimpleNamespace(called_s=2.0)
  distinct = types.SimpleNamespace(called_s=1.0, cpu_s=4.0, deduplicated=30, states=[5, 10, 20])
  # (3 + 4) + (4 + 5) states of each of ten configurations in 2 s, 45 distinct ones in 1 s.
  actual = execution.costs([3, 4, 5], 10, exact, distinct)
  assert actual == pytest.approx({"cost_of_telling": (3 / 30) / (2 / 160),
                                 "cost_of_distinct": (1 / 45) / (2 / 160)})


def test_a_streamer_counts_the_states_that_it_computes():
  graph = programs.program(300, 0.2, 2)
  bench = execution.Bench(graph, configs=2)
  layouts = programs.searched_layouts(len(graph.node_config_ids), 40, np.random.default_rng(0))
  times, streamers = bench.stream(layouts, 1, ("exact", "distinct"))
  actual = streamers["distinct"]
  assert set(times) == {"exact", "distinct"} and 0 < actual.called_s <= actual.cpu_s
  assert (np.array(bench.rows) <= actual.states).all()
  assert (actual.states < 40 * np.array(bench.rows)).all() and actual.deduplicated > 0
  assert actual.states[0] == sum(
      len(np.unique(layouts[:, node], axis=0)) for node in range(layouts.shape[1]))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["searched", "random"])
def test_the_public_path_scores_packed_programs(tmp_path, kind):
  public_path.write_run(tmp_path / "run", tmp_path / "data")
  nbytes = public_path.write_program(tmp_path / "p.pack", kind, 150, nodes=400)
  graph = packed_graphs.open_graph(packed_format.Reader(tmp_path / "p.pack"))
  assert nbytes == graph.layouts(np.arange(150)).nbytes and graph.num_nodes == 400
  if kind == "searched":
    np.testing.assert_array_equal(graph.layouts(np.arange(150)), programs.searched_layouts(
        len(graph.node_config_ids), 150, np.random.default_rng(1)))
  actual = public_path.score(str(tmp_path / "run"), str(tmp_path / "p.pack"))
  assert set(actual) == {"per_cpu_s", "per_wall_s", "peak_gb"} and min(actual.values()) > 0


@pytest.mark.slow
def test_a_case_runs_in_a_separate_process(tmp_path):
  actual = cases.run("experiments.benchmark", "program", tmp_path / "p.pack", "random", 3)
  assert actual["nbytes"] > 3 * 18 and (tmp_path / "p.pack").exists()
  with pytest.raises(errors.TpuGraphsRankError, match="score .*gone.* failed:(.|\n)*gone"):
    cases.run("experiments.benchmark", "score", tmp_path / "gone", tmp_path / "p.pack")


@pytest.fixture(scope="module", name="actual")
def _actual():
  """The results of the benchmark at sizes that take seconds."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(benchmark, "_NODES", 300)
    patch.setattr(benchmark, "_CONFIGS", 3)
    patch.setattr(benchmark, "_COVERAGES", {"13_31": 0.13})
    patch.setattr(benchmark, "_AXES", {"configs": (4,)})
    patch.setattr(benchmark, "_STREAMED", (20, 30))
    patch.setattr(benchmark, "_MOST_EXACT", 20)
    patch.setattr(benchmark, "_COUNTS", (1_000,))
    actual = {"speedups": benchmark.speedups(1), "growth": benchmark.growth(1),
             "streaming": benchmark.streaming(1)}
    actual["memory"] = [{"nodes": 20_000, "configurations": "searched", "count": 100_000,
                        "per_cpu_s": 2345.6, "peak_gb": 1.234}]
    actual["speedup_over_plain"] = benchmark.summary(actual)
  return actual


@pytest.mark.slow
def test_the_summary(actual):
  case, ratios = actual["speedups"]["13_31_width32"], actual["speedup_over_plain"]
  times = case["times"]
  assert ratios["train"]["13_31"] == pytest.approx(
      times["train_plain"]["cpu_s"] / times["train_exact"]["cpu_s"])
  assert ratios["inference_first_list"]["13_31"] == pytest.approx(
      times["score_plain"]["cpu_s"] / times["score_exact"]["cpu_s"])
  assert ratios["inference_next_list"]["13_31"] == case["score_speedup"]
  assert ratios["inference"]["13_31"] == pytest.approx(
      16 * times["score_plain"]["cpu_s"] / times["score_exact_program"]["cpu_s"])
  searched, random = actual["streaming"]
  assert (searched["configurations"], random["configurations"]) == ("searched", "random")
  assert ratios["distinct_state"] == pytest.approx(
      searched["distinct_per_cpu_s"] / searched["exact_per_cpu_s"])
  for entry in (times["train_exact"], times["score_plain"]):
    assert 0 < entry["share"] and entry["binds"] in ("matmul", "copy")
  json.dumps(actual, allow_nan=False)


@pytest.mark.slow
def test_growth_has_every_feasible_variant(actual):
  base, more, both, distinct = actual["growth"]
  assert [row["configs"] for row in actual["growth"]] == [3, 4, 20, 30]
  assert all(base[way] > 0 and more[f"{way}_wall"] > 0 for way in benchmark._WAYS)
  measured = lambda row: {way for way in benchmark._WAYS if row[way] is not None}
  assert measured(both) == {"score_exact", "score_distinct"}
  assert measured(distinct) == {"score_distinct"}


@pytest.mark.slow
def test_the_tables_and_the_plot(actual, tmp_path):
  text = report.tables_text(actual)
  assert "| 13_31_width32 |" in text and "| searched | 1000 |" in text.replace(",", "")
  report.plot(tmp_path / "growth.png", actual["growth"])
  assert (tmp_path / "growth.png").read_bytes().startswith(b"\x89PNG")
  speedup = f"{actual['speedup_over_plain']['train']['13_31']:.1f}x"
  assert speedup in report.speedup_table(actual)
  assert "| 20,000 | 100,000 searched | `Run.score` | 2,346 | 1.23 GB |" in (
      report.streaming_table(actual))
