"""Measures how fast layout programs train and score, in CPU seconds, medians of interleaved runs.

  python -m experiments.benchmark --output runs/benchmark
  python -m experiments.benchmark --output runs/benchmark --parts speedups,streaming --repeats 9

Writes into `--output`: `benchmark.json`, `benchmark.md` (the tables that it prints) and
`growth.png`. Programs are made up; the coverage of a program is the share of its nodes within one
hop of a configurable one. "plain" computes every node under every configuration, "exact" what a
configuration can change, "distinct" each distinct state once. `score_exact` is the first list of a
program, `score_exact_next` any further one, `score_exact_program` the first and fifteen more.
Shares are of the least time that this machine's matrix products, or its copies in memory, whichever
take longer, leave (`benchmarks/limits.py`).
Nothing else should run meanwhile.
"""

import json
import pathlib
import tempfile
from typing import Any

from absl import flags
import numpy as np
import tqdm

from tpugraphs_rank import files
from tpugraphs_rank.cli import app

PARTS = ("speedups", "growth", "streaming", "memory", "packing", "recipes")
_APP = "experiments.benchmark"
_NODES, _CONFIGS = 10_000, 16
# Shares of the nodes within one hop, and the names of the cases; two hops reach 31 % and 81 %.
_COVERAGES = {"13_31": 0.13, "47_81": 0.47}
_AXES = {"nodes": (1_000, 4_000, 20_000, 40_000), "configs": (4, 64), "depth": (1, 4),
         "coverage": (0.05, 0.3, 0.6, 0.9)}
_COUNTS = (64, 1_000, 4_000)  # Of configurations that are streamed.
# Numbers of configurations of the growth that are streamed, and up to which all are computed.
_STREAMED, _MOST_EXACT = (1_000, 10_000, 100_000), 10_000
_WAYS = ("train_plain", "train_exact", "score_plain", "score_exact", "score_exact_next",
         "score_distinct", "batch")


def speedups(repeats: int) -> dict[str, Any]:
  """Plain against exact at 10,000 nodes and 16 configurations, beside the machine's ceilings."""
  from experiments.benchmarks import execution
  from experiments.benchmarks import limits
  from experiments.benchmarks import programs
  cases_ = [(name, width) for name in _COVERAGES for width in (32, 64)]
  found: dict[str, Any] = {}
  for name, width in tqdm.tqdm(cases_, desc="speedups", disable=None):
    bench = execution.Bench(
        programs.program(_NODES, _COVERAGES[name], _CONFIGS), width, configs=_CONFIGS)
    times = bench.compare(repeats)
    ratio = lambda way, other, times=times: times[way]["cpu_s"] / times[other]["cpu_s"]
    ceiling = limits.ceilings(width, bench.rows[1] * _CONFIGS, repeats)
    for way, shares in (("plain", [1.0] * len(bench.shares)), ("exact", bench.shares)):
      work = limits.work(limits.exact_states(shares, _NODES, _CONFIGS), width, _NODES)
      # A gradient is two products for each one.
      for task, done in (("score", work), ("train", work * 3)):
        entry = times[f"{task}_{way}"]
        entry.update(limits.share(done, entry["cpu_s"], ceiling))
    found[f"{name}_width{width}"] = {
        "shares": bench.shares, "times": times, "ceilings": ceiling,
        "train_speedup": ratio("train_plain", "train_exact"),
        "score_speedup": ratio("score_plain", "score_exact_next"),
        "score_speedup_first_list": ratio("score_plain", "score_exact"),
        "score_speedup_program": execution.PROGRAM_LISTS * ratio(
            "score_plain", "score_exact_program"),
        "batch_share_of_train_step": ratio("batch", "train_exact")}
  return found


def growth(repeats: int) -> list[dict[str, Any]]:
  """All ways over nodes, configurations, coverage and depth, one at a time.

  Beyond 64 configurations, and for `score_distinct`, configurations are those of a search, and are
  streamed; what would take minutes or gigabytes is left out (None).
  """
  from experiments.benchmarks import execution
  from experiments.benchmarks import programs
  base = {"nodes": _NODES, "configs": _CONFIGS, "coverage": 0.13, "depth": 2}
  points = [base] + [{**base, axis: value} for axis, values in _AXES.items() for value in values]
  points += [{**base, "configs": count} for count in _STREAMED]
  rows = []
  for point in tqdm.tqdm(points, desc="growth", disable=None):
    count, streamed = point["configs"], point["configs"] in _STREAMED
    graph = programs.program(point["nodes"], point["coverage"], 2 if streamed else count)
    bench = execution.Bench(graph, depth=point["depth"], configs=2 if streamed else count)
    layouts = programs.searched_layouts(
        len(graph.node_config_ids), count, np.random.default_rng(1))
    ways = ("distinct", "exact") if streamed and count <= _MOST_EXACT else ("distinct",)
    found, _ = bench.stream(layouts, 1 if streamed else repeats, ways)
    times = {f"score_{way}": value for way, value in found.items()}
    if not streamed:
      times.update(bench.compare(repeats))
    rows.append({**point, **{
        f"{way}{suffix}": times[way][key] if way in times else None
        for way in _WAYS for suffix, key in (("", "cpu_s"), ("_wall", "wall_s"))}})
  return rows


def streaming(repeats: int) -> list[dict[str, Any]]:
  """Exact against distinct states over the number of configurations, random and searched."""
  from experiments.benchmarks import execution
  from experiments.benchmarks import limits
  from experiments.benchmarks import programs
  graph = programs.program(_NODES, 0.13, 2)
  bench = execution.Bench(graph, configs=2)
  ceiling = limits.ceilings(32, bench.rows[1] * _CONFIGS, repeats)
  rng = np.random.default_rng(1)
  rows = []
  pairs = [(kind, count) for kind in ("searched", "random") for count in _COUNTS]
  for kind, count in tqdm.tqdm(pairs, desc="streaming", disable=None):
    make = programs.searched_layouts if kind == "searched" else programs.random_layouts
    layouts = make(len(graph.node_config_ids), count, rng)
    times, streamers = bench.stream(layouts, max(repeats // 2, 1), ("exact", "distinct", "chosen"))
    states = {"exact": [size * count for size in bench.rows],
              "distinct": streamers["distinct"].states}
    row: dict[str, Any] = {"configurations": kind, "count": count}
    for way, value in times.items():
      row[f"{way}_per_cpu_s"] = count / value["cpu_s"]
      row[f"{way}_per_wall_s"] = count / value["wall_s"]
      if way in states:
        found = limits.share(limits.work(states[way], 32), value["cpu_s"], ceiling)
        row.update({f"{way}_{key}": entry for key, entry in found.items()})
    rows.append({
        **row, "distinct_over_exact": times["exact"]["cpu_s"] / times["distinct"]["cpu_s"],
        **execution.costs(bench.rows, count, streamers["exact"], streamers["distinct"])})
  return rows


def packing() -> dict[str, Any]:
  """Packing and reading a tenth of the largest public shapes; `benchmark_packing` takes them whole.

  The limit is a copy of what is packed, as it is unpacked.
  """
  from experiments.benchmarks import limits
  from experiments.benchmarks import packing as packing_lib
  ceiling = limits.ceilings(32, 2 ** 20, 3)
  with tempfile.TemporaryDirectory() as folder:
    rows = packing_lib.packing(pathlib.Path(folder), part=10)
  for row in rows:
    row.update(limits.share(limits.Work(0, 2e9 * row["unpacked_gb"]), row["cpu_s"], ceiling))
  return {"part": "a tenth of the configurations", "ceilings": ceiling, "shapes": rows}


def recipes(repeats: int) -> list[dict[str, Any]]:
  """A training step of each recipe of the public collections, and the hours that all take."""
  from experiments.benchmarks import recipes as recipes_lib
  return recipes_lib.measure(repeats)


def memory() -> list[dict[str, Any]]:
  """Peak of memory and speed of `Run.score` on 20,000 nodes, each case in a process of its own.

  Configurations come from a packed file, mapped into memory: unpacked they would take more than
  scoring them does.
  """
  from experiments.benchmarks import cases
  rows = []
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    cases.run(_APP, "run", folder / "run", folder / "data")
    for kind, count in tqdm.tqdm((("searched", 100_000), ("random", 20_000)), desc="memory",
                                 disable=None):
      path = folder / f"{kind}.pack"
      made = cases.run(_APP, "program", path, kind, count)
      rows.append({"nodes": 20_000, "configurations": kind, "count": count,
                   "unpacked_gb": made["nbytes"] / 1e9, "packed_gb": path.stat().st_size / 1e9,
                   **cases.run(_APP, "score", folder / "run", path)})
  return rows


def one_case(case: str) -> dict[str, Any]:
  """Makes a run ("run,RUN,DATA"), a program ("program,FILE,KIND,COUNT") or scores ("score,...")."""
  from experiments.benchmarks import public_path
  what, *values = case.split(",")
  if what == "run":
    public_path.write_run(*map(pathlib.Path, values))
    return {}
  if what == "program":
    path, kind, count = values
    return {"nbytes": public_path.write_program(pathlib.Path(path), kind, int(count))}
  return public_path.score(*values)


def summary(found: dict[str, Any]) -> dict[str, Any]:
  """The ratios that matter, at width 32; inference is that of a program, all of it."""
  cases = found.get("speedups", {})
  ratios: dict[str, Any] = {}
  if cases:
    for key, entry in (("train", "train_speedup"), ("inference", "score_speedup_program"),
                       ("inference_first_list", "score_speedup_first_list"),
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
    print(json.dumps(one_case(values.case)))
    return
  found: dict[str, Any] = {**run_directory.environment(), "repeats": values.repeats}
  measure = {"speedups": lambda: speedups(values.repeats),
             "growth": lambda: growth(max(values.repeats // 2, 1)),
             "streaming": lambda: streaming(values.repeats), "memory": memory,
             "packing": packing,
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
