"""Measures how fast layout programs train and score, in CPU seconds, medians of interleaved runs.

  python -m experiments.benchmark --output runs/benchmark
  python -m experiments.benchmark --output runs/benchmark --parts speedups,streaming --repeats 9

Writes into `--output`: `benchmark.json`, `benchmark.md` (the tables that it prints) and
`growth.png`. Programs are made up; the coverage of a program is the share of its nodes within one
hop of a configurable one. "plain" computes every node under every configuration, "exact" what a
configuration can change, "distinct" each distinct state once. `score_exact` is the first list of a
program, `score_exact_next` any further one. Nothing else should run meanwhile.
"""

import pathlib
import subprocess
import sys
from typing import Any, Dict, List

from absl import flags
import numpy as np
import tqdm

from experiments import app
from tpugraphs_rank import files

PARTS = ("speedups", "growth", "streaming", "memory", "recipes")
_NODES, _CONFIGS = 10_000, 16
# Shares of the nodes within one hop, and the names of the cases; two hops reach 31 % and 81 %.
_COVERAGES = {"13_31": 0.13, "47_81": 0.47}


def speedups(repeats: int) -> Dict[str, Any]:
  """Plain against exact at 10,000 nodes and 16 configurations, beside the machine's ceilings."""
  from experiments.benchmarks import execution
  from experiments.benchmarks import programs
  cases = [(name, width) for name in _COVERAGES for width in (32, 64)]
  found: Dict[str, Any] = {}
  for name, width in tqdm.tqdm(cases, desc="speedups", disable=None):
    bench = execution.Bench(
        programs.program(_NODES, _COVERAGES[name], _CONFIGS), width, configs=_CONFIGS)
    times = bench.compare(repeats)
    ratio = lambda way, other, times=times: times[way]["cpu_s"] / times[other]["cpu_s"]
    ceiling = execution.ceilings(width, int(bench.shares[1] * _NODES) * _CONFIGS, repeats)
    flops = execution.exact_flops(bench.shares, _NODES, _CONFIGS, width, 2)
    found[f"{name}_width{width}"] = {
        "shares": bench.shares, "times": times, "ceilings": ceiling,
        "train_speedup": ratio("train_plain", "train_exact"),
        "score_speedup": ratio("score_plain", "score_exact_next"),
        "score_speedup_first_list": ratio("score_plain", "score_exact"),
        "batch_share_of_train_step": ratio("batch", "train_exact"),
        "share_of_matmul_ceiling": flops / times["score_exact"]["cpu_s"] / 1e9
                                   / ceiling["matmul_gflops"]}
  return found


def growth(repeats: int) -> List[Dict[str, Any]]:
  """Plain and exact over nodes, configurations, coverage and depth, one at a time."""
  from experiments.benchmarks import execution
  from experiments.benchmarks import programs
  base = {"nodes": _NODES, "configs": _CONFIGS, "coverage": 0.13, "depth": 2}
  axes = {"nodes": (1_000, 4_000, 20_000, 40_000), "configs": (4, 64), "depth": (1, 4),
          "coverage": (0.05, 0.3, 0.6, 0.9)}
  points = [base] + [{**base, axis: value} for axis, values in axes.items() for value in values]
  rows = []
  for point in tqdm.tqdm(points, desc="growth", disable=None):
    bench = execution.Bench(
        programs.program(point["nodes"], point["coverage"], point["configs"]),
        depth=point["depth"], configs=point["configs"])
    times = bench.compare(repeats)
    rows.append({**point, **{way: value["cpu_s"] for way, value in times.items()}})
  return rows


def streaming(repeats: int) -> List[Dict[str, Any]]:
  """Exact against distinct states over the number of configurations, random and searched."""
  from experiments.benchmarks import execution
  from experiments.benchmarks import programs
  graph = programs.program(_NODES, 0.13, 2)
  bench = execution.Bench(graph, configs=2)
  rng = np.random.default_rng(1)
  rows = []
  cases = [(kind, count) for kind in ("searched", "random") for count in (64, 1_000, 4_000)]
  for kind, count in tqdm.tqdm(cases, desc="streaming", disable=None):
    make = programs.searched_layouts if kind == "searched" else programs.random_layouts
    layouts = make(len(graph.node_config_ids), count, rng)
    times = bench.stream(layouts, max(repeats // 2, 1), ("exact", "distinct", "chosen"))
    rows.append({"configurations": kind, "count": count, **{
        f"{way}_per_cpu_s": count / value["cpu_s"] for way, value in times.items()},
                 "distinct_over_exact": times["exact"]["cpu_s"] / times["distinct"]["cpu_s"]})
  return rows


def recipes(repeats: int) -> List[Dict[str, Any]]:
  """A training step of each recipe of the public collections, and the hours that all take."""
  from experiments.benchmarks import recipes as recipes_lib
  return recipes_lib.measure(repeats)


def memory() -> List[Dict[str, Any]]:
  """Peak memory and speed on 20,000 nodes, each case in a process of its own."""
  rows = []
  for kind, way, count in (("searched", "chosen", 100_000), ("random", "exact", 2_000)):
    done = subprocess.run(
        [sys.executable, "-m", "experiments.benchmark", "--case", f"{kind},{way},{count}"],
        capture_output=True, text=True, check=True)
    per_second, peak, data = map(float, done.stdout.split()[-3:])
    rows.append({"nodes": 20_000, "configurations": kind, "count": count, "way": way,
                 "per_cpu_s": per_second, "peak_gb": peak, "layouts_gb": data})
  return rows


def one_case(case: str) -> None:
  """Scores one big set, and prints configurations a CPU second, peak GB, and GB of layouts."""
  from experiments.benchmarks import execution
  from experiments.benchmarks import packing
  from experiments.benchmarks import programs
  kind, way, count = case.split(",")
  graph = programs.program(20_000, 0.13, 2)
  make = programs.searched_layouts if kind == "searched" else programs.random_layouts
  layouts = make(len(graph.node_config_ids), int(count), np.random.default_rng(0))
  times = execution.Bench(graph, configs=2).stream(layouts, 1, (way,))
  print(int(count) / times[way]["cpu_s"], packing.peak_gb(), layouts.nbytes / 1e9)


def summary(found: Dict[str, Any]) -> Dict[str, Any]:
  """The ratios that matter, at width 32."""
  cases = found.get("speedups", {})
  ratios: Dict[str, Any] = {}
  if cases:
    for key, entry in (("train", "train_speedup"), ("inference", "score_speedup_first_list"),
                       ("inference_next_list", "score_speedup")):
      ratios[key] = {name: cases[f"{name}_width32"][entry] for name in _COVERAGES}
  if "streaming" in found:
    ratios["distinct_state"] = next(
        row["distinct_over_exact"] for row in found["streaming"]
        if row["configurations"] == "searched" and row["count"] == 1_000)
  return ratios


def main(_) -> None:
  values = flags.FLAGS
  from experiments.benchmarks import report
  from tpugraphs_rank.training import run_directory
  from tpugraphs_rank.training import runtime
  runtime.configure(0, 1)
  if values.case:
    return one_case(values.case)
  found: Dict[str, Any] = {**run_directory.environment(), "repeats": values.repeats}
  measure = {"speedups": lambda: speedups(values.repeats),
             "growth": lambda: growth(max(values.repeats // 2, 1)),
             "streaming": lambda: streaming(values.repeats), "memory": memory,
             "recipes": lambda: recipes(values.repeats)}
  for part in values.parts:
    found[part] = measure[part]()
  found["speedup_over_plain"] = summary(found)
  folder = pathlib.Path(values.output)
  files.write_json(folder / "benchmark.json", found)
  if values.results:
    files.write_json(values.results, found)
  text = report.tables_text(found)
  files.write_text(folder / "benchmark.md", text)
  if "growth" in found:
    report.plot(folder / "growth.png", found["growth"])
  print(text)


def _define_flags() -> None:
  flags.DEFINE_string("output", "runs/benchmark", "Folder of the results.")
  flags.DEFINE_multi_enum("parts", list(PARTS), list(PARTS), "What is measured.")
  flags.DEFINE_integer("repeats", 7, "Runs of each way, of which the median counts.", lower_bound=1)
  flags.DEFINE_string("results", None, "Also write the numbers to this file.")
  flags.DEFINE_string("case", None, "One case of the memory part: used by this command itself.")


if __name__ == "__main__":
  _define_flags()
  app.run(main)
