"""Measures training and scoring speed on layout programs: median CPU seconds of interleaved runs.

  python -m experiments.benchmark --output runs/benchmark
  python -m experiments.benchmark --output runs/benchmark --parts speedups,streaming --repeats 9

Writes `benchmark.json`, `benchmark.md` (the tables that it prints) and `growth.png` to `--output`.
The programs are synthetic. The coverage of a program is the share of its nodes within one hop of a
configurable node. "plain" computes every node under every configuration, "exact" only what a
configuration can change, and "distinct" computes each distinct state once. `score_exact` is the
first list of a program, `score_exact_next` a further list, `score_exact_program` the first list and
fifteen more. Shares are relative to the least possible time on this machine, which its matrix
products or memory copies determine (`benchmarks/limits.py`). Run nothing else at the same time.
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
# Coverage of each case; two hops reach 31 % and 81 % of the nodes.
_COVERAGES = {"13_31": 0.13, "47_81": 0.47}
_AXES = {"nodes": (1_000, 4_000, 20_000, 40_000), "configs": (4, 64), "depth": (1, 4),
         "coverage": (0.05, 0.3, 0.6, 0.9)}
_COUNTS = (64, 1_000, 4_000)  # Numbers of configurations of the streaming part.
# Streamed numbers of configurations of the growth part, and the largest for "exact".
_STREAMED, _MOST_EXACT = (1_000, 10_000, 100_000), 10_000
_WAYS = ("train_plain", "train_exact", "score_plain", "score_exact", "score_exact_next",
         "score_distinct", "batch")


def speedups(repeats: int) -> dict[str, Any]:
  """Plain against exact at 10,000 nodes and 16 configurations, and the machine's limits."""
  from experiments.benchmarks import execution
  from experiments.benchmarks import limits
  from experiments.benchmarks import programs
  cases_ = [(name, width) for name in _COVERAGES for width in (32, 64)]
  results: dict[str, Any] = {}
  for name, width in tqdm.tqdm(cases_, desc="speedups", disable=None):
    bench = execution.Bench(
        programs.program(_NODES, _COVERAGES[name], _CONFIGS), width, configs=_CONFIGS)
    times = bench.compare(repeats)
    ratio = lambda way, other, times=times: times[way]["cpu_s"] / times[other]["cpu_s"]
    ceiling = limits.ceilings(width, bench.rows[1] * _CONFIGS, repeats)
    for way, shares in (("plain", [1.0] * len(bench.shares)), ("exact", bench.shares)):
      work = limits.work(limits.exact_states(shares, _NODES, _CONFIGS), width, _NODES)
      # A gradient takes twice the products of the forward pass.
      for task, done in (("score", work), ("train", work * 3)):
        entry = times[f"{task}_{way}"]
        entry.update(limits.share(done, entry["cpu_s"], ceiling))
    results[f"{name}_width{width}"] = {
        "shares": bench.shares, "times": times, "ceilings": ceiling,
        "train_speedup": ratio("train_plain", "train_exact"),
        "score_speedup": ratio("score_plain", "score_exact_next"),
        "score_speedup_first_list": ratio("score_plain", "score_exact"),
        "score_speedup_program": execution.PROGRAM_LISTS * ratio(
            "score_plain", "score_exact_program"),
        "batch_share_of_train_step": ratio("batch", "train_exact")}
  return results


def growth(repeats: int) -> list[dict[str, Any]]:
  """All variants over nodes, configurations, coverage and depth, varied one at a time.

  Above 64 configurations, and for `score_distinct`, the configurations come from a simulated search
  and are streamed. Points that would take minutes or gigabytes are omitted (None).
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
    streamed_times, _ = bench.stream(layouts, 1 if streamed else repeats, ways)
    times = {f"score_{way}": value for way, value in streamed_times.items()}
    if not streamed:
      times.update(bench.compare(repeats))
    rows.append({**point, **{
        f"{way}{suffix}": times[way][key] if way in times else None
        for way in _WAYS for suffix, key in (("", "cpu_s"), ("_wall", "wall_s"))}})
  return rows


def streaming(repeats: int) -> list[dict[str, Any]]:
  """Exact against distinct states over the number of random and searched configurations."""
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
    generate = programs.searched_layouts if kind == "searched" else programs.random_layouts
    layouts = generate(len(graph.node_config_ids), count, rng)
    times, streamers = bench.stream(layouts, max(repeats // 2, 1), ("exact", "distinct", "chosen"))
    states = {"exact": [size * count for size in bench.rows],
              "distinct": streamers["distinct"].states}
    row: dict[str, Any] = {"configurations": kind, "count": count}
    for way, value in times.items():
      row[f"{way}_per_cpu_s"] = count / value["cpu_s"]
      row[f"{way}_per_wall_s"] = count / value["wall_s"]
      if way in states:
        shares = limits.share(limits.work(states[way], 32), value["cpu_s"], ceiling)
        row.update({f"{way}_{key}": entry for key, entry in shares.items()})
    rows.append({
        **row, "distinct_over_exact": times["exact"]["cpu_s"] / times["distinct"]["cpu_s"],
        **execution.costs(bench.rows, count, streamers["exact"], streamers["distinct"])})
  return rows


def packing() -> dict[str, Any]:
  """Packs and reads a tenth of the largest public shapes; `benchmark_packing` uses full size.

  The limit is a copy of the packed data in unpacked form.
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
  """The time of a training step of each public recipe, and the hours of the whole training."""
  from experiments.benchmarks import recipes as recipes_lib
  return recipes_lib.measure(repeats)


def memory() -> list[dict[str, Any]]:
  """Peak memory and speed of `Run.score` on 20,000 nodes, each case in a separate process.

  Configurations come from a memory-mapped packed file; unpacked they would need more memory than
  scoring does.
  """
  from experiments.benchmarks import cases
  rows = []
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    cases.run(_APP, "run", folder / "run", folder / "data")
    for kind, count in tqdm.tqdm((("searched", 100_000), ("random", 20_000)), desc="memory",
                                 disable=None):
      path = folder / f"{kind}.pack"
      packed = cases.run(_APP, "program", path, kind, count)
      rows.append({"nodes": 20_000, "configurations": kind, "count": count,
                   "unpacked_gb": packed["nbytes"] / 1e9, "packed_gb": path.stat().st_size / 1e9,
                   **cases.run(_APP, "score", folder / "run", path)})
  return rows


def one_case(case: str) -> dict[str, Any]:
  """Writes a run ("run,RUN,DATA") or a program ("program,FILE,KIND,COUNT"), or scores it."""
  from experiments.benchmarks import public_path
  what, *values = case.split(",")
  if what == "run":
    public_path.write_run(*map(pathlib.Path, values))
    return {}
  if what == "program":
    path, kind, count = values
    return {"nbytes": public_path.write_program(pathlib.Path(path), kind, int(count))}
  return public_path.score(*values)


def summary(results: dict[str, Any]) -> dict[str, Any]:
  """The main ratios at width 32; "inference" is all lists of a program."""
  cases = results.get("speedups", {})
  ratios: dict[str, Any] = {}
  if cases:
    for key, entry in (("train", "train_speedup"), ("inference", "score_speedup_program"),
                       ("inference_first_list", "score_speedup_first_list"),
                       ("inference_next_list", "score_speedup")):
      ratios[key] = {name: cases[f"{name}_width32"][entry] for name in _COVERAGES}
  if "streaming" in results:
    ratios["distinct_state"] = next(
        row["distinct_over_exact"] for row in results["streaming"]
        if row["configurations"] == "searched" and row["count"] == 1_000)
  return ratios


def main(argv: list[str]) -> None:
  """Runs the benchmark."""
  values = flags.FLAGS
  from experiments.benchmarks import report
  from tpugraphs_rank.training import run_directory
  from tpugraphs_rank.training import runtime
  runtime.configure(0, 1)
  if values.case:
    print(json.dumps(one_case(values.case)))
    return
  results: dict[str, Any] = {**run_directory.environment(), "repeats": values.repeats}
  measure = {"speedups": lambda: speedups(values.repeats),
             "growth": lambda: growth(max(values.repeats // 2, 1)),
             "streaming": lambda: streaming(values.repeats), "memory": memory,
             "packing": packing,
             "recipes": lambda: recipes(values.repeats)}
  for part in values.parts:
    results[part] = measure[part]()
  results["speedup_over_plain"] = summary(results)
  folder = pathlib.Path(values.output)
  files.write_json(folder / "benchmark.json", results)
  if values.results:
    files.write_json(values.results, results)
  text = report.tables_text(results)
  files.write_text(folder / "benchmark.md", text)
  if "growth" in results:
    report.plot(folder / "growth.png", results["growth"])
  print(text)


def define_flags() -> None:
  """Defines the flags."""
  flags.DEFINE_string("output", "runs/benchmark", "Folder of the results.")
  flags.DEFINE_multi_enum("parts", list(PARTS), list(PARTS), "The parts to measure.")
  flags.DEFINE_integer("repeats", 7, "Runs of each variant; the median is reported.",
                       lower_bound=1)
  flags.DEFINE_string("results", None, "Also write the figures to this file.")
  flags.DEFINE_string("case", None, "One case of the memory part; for internal use.")


if __name__ == "__main__":
  app.run(main, define_flags)
