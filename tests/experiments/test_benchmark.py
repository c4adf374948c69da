"""The benchmark, at sizes at which it measures nothing but says everything."""

import json

import numpy as np
import pytest

from experiments import benchmark
from experiments.benchmarks import execution
from experiments.benchmarks import programs
from experiments.benchmarks import report


@pytest.mark.parametrize("coverage", [0.1, 0.5, 0.9])
def test_programs_are_covered_as_asked(coverage):
  graph = programs.program(3000, coverage, 4, seed=1)
  found, two = programs.covered(graph.edge_index, graph.node_config_ids, 3000)
  assert found == pytest.approx(coverage, abs=0.01) and two > found
  assert graph.node_config_feat.shape == (4, len(graph.node_config_ids), 18)


def test_a_search_changes_a_few_nodes_at_a_time():
  layouts = programs.searched_layouts(50, 300, np.random.default_rng(0))
  assert (layouts[0] == -1).all()
  changed = (layouts[1:] != layouts[:-1]).any(axis=2).sum(axis=1)
  assert 0 < changed.mean() < 8
  random = programs.random_layouts(50, 300, np.random.default_rng(0))
  assert (random[1:] != random[:-1]).any(axis=2).mean() > 0.9


def test_medians_are_of_interleaved_runs_without_the_first():
  order = []
  times = execution.interleaved({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 3)
  assert order == ["a", "b"] * 4
  assert set(times) == {"a", "b"} and set(times["a"]) == {"cpu_s", "wall_s"}


def test_the_operations_of_exact_scoring():
  # All nodes depend: everything times the configurations; none: everything once.
  assert execution.exact_flops([1.0, 1.0, 1.0], 10, 3, 4, 2) == 2 * 10 * 3 * 4 * 2 * 4 * 4
  assert execution.exact_flops([0.0, 0.0, 0.0], 10, 3, 4, 2) == 2 * 10 * 4 * 2 * 4 * 4


def test_the_tables_and_the_summary(tmp_path, monkeypatch):
  monkeypatch.setattr(benchmark, "_NODES", 300)
  monkeypatch.setattr(benchmark, "_CONFIGS", 3)
  monkeypatch.setattr(benchmark, "_COVERAGES", {"13_31": 0.13})
  found = {"speedups": benchmark.speedups(1)}
  case = found["speedups"]["13_31_width32"]
  assert case["train_speedup"] == pytest.approx(
      case["times"]["train_plain"]["cpu_s"] / case["times"]["train_exact"]["cpu_s"])
  base = {"nodes": 10, "configs": 2, "coverage": 0.1, "depth": 2}
  found["growth"] = [{**base, **change, **{
      f"{task}_{way}": 0.001 for task in ("train", "score") for way in (
          "plain", "exact", "exact_next")}} for change in ({}, {"nodes": 20})]
  found["streaming"] = [{"configurations": kind, "count": 1_000, "exact_per_cpu_s": 100.0,
                         "distinct_per_cpu_s": rate, "chosen_per_cpu_s": 2.0,
                         "distinct_over_exact": rate / 100}
                        for kind, rate in (("random", 50.0), ("searched", 400.0))]
  ratios = benchmark.summary(found)
  assert ratios["distinct_state"] == 4.0
  assert ratios["inference"]["13_31"] == case["score_speedup_first_list"]
  assert ratios["inference_next_list"]["13_31"] == case["score_speedup"]
  json.dumps(found, allow_nan=False)
  text = report.tables_text(found)
  assert "| 13_31_width32 |" in text and "| searched | 1000 |" in text.replace(",", "")
  report.plot(tmp_path / "growth.png", found["growth"])
  assert (tmp_path / "growth.png").read_bytes().startswith(b"\x89PNG")
