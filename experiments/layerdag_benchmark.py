"""Measures how the sampling time of a LayerDAG grows with the size of the graphs, in CPU seconds.

  tpugraphs-rank layerdag graphs --rule balanced --count 300 --nodes 400 --output rule.npz
  tpugraphs-rank layerdag train --graphs rule.npz --conditions size --operand_counts \\
    --run_dir runs/rule
  python -m experiments.layerdag_benchmark --run_dir runs/rule --sizes 50,100,200,400

The model must have the condition "size". Each size is sampled once before it is timed. Writes
`growth.json` and `growth.png` to --output. Run nothing else at the same time.
"""

from collections.abc import Mapping
import pathlib
import time
from typing import Any

from absl import flags
import numpy as np

from experiments.benchmarks import cases
from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank import recipes
from tpugraphs_rank import tables
from tpugraphs_rank.cli import app
from tpugraphs_rank.training import run_directory


def define_flags() -> None:
  """Defines the flags."""
  flags.DEFINE_string("run_dir", None, "Run directory of `tpugraphs-rank layerdag train`.",
                      required=True)
  flags.DEFINE_list("sizes", ["50", "100", "200", "400"], "Requested numbers of nodes.")
  flags.DEFINE_integer("count", 32, "Graphs of each size.", lower_bound=1)
  flags.DEFINE_integer("repeats", 3, "Measurements of each size; the median is reported.",
                       lower_bound=1)
  flags.DEFINE_string("output", "runs/layerdag_benchmark", "Folder of the results.")
  flags.DEFINE_string("results", None, "Also write the figures to this file.")


def measure(run_dir: pathlib.Path, sizes: list[int], count: int, repeats: int
            ) -> list[dict[str, Any]]:
  """One row per size; the sizes are interleaved, so that other load affects all of them."""
  from tpugraphs_rank.synthesis.dags import rules
  from tpugraphs_rank.synthesis.layerdag import model as model_lib
  from tpugraphs_rank.synthesis.layerdag import sampler
  from tpugraphs_rank.training import runtime
  runtime.configure(0, 1)
  model = model_lib.LayerDAG.load(run_dir / "model.npz")
  options = sampler.Options(batch=count, max_nodes=2 * max(sizes), max_layers=1000)
  seconds: dict[int, list[float]] = {size: [] for size in sizes}
  samples = {}
  for turn in range(repeats + 1):
    for size in sizes:
      started = time.process_time()
      samples[size] = model.sample(count, {"size": np.array(size)}, turn, options)
      if turn:
        seconds[size].append(time.process_time() - started)
  rows = []
  for size in sizes:
    graphs, taken = samples[size], float(np.median(seconds[size]))
    row: dict[str, Any] = {"nodes_asked": size, "nodes_made": float(graphs.sizes.mean()),
           "layers_made": float(graphs.depths.mean()), "cpu_s_a_graph": taken / count,
           "graphs_per_cpu_second": count / taken,
           "nodes_per_cpu_second": float(graphs.sizes.sum()) / taken}
    if rules.ATTRIBUTE in graphs.x_names:
      row.update({f"rule_obeyed_{name}": value
                  for name, value in rules.obeys(graphs).summary().items()})
      row["rule_by_chance"] = rules.by_chance(graphs).summary()["nodes_of_two_or_more_operands"]
    rows.append(row)
  return rows


def readme_table(results: Mapping[str, Any]) -> str:
  """One row per size."""
  rows = results["growth"]
  return tables.markdown(
      ["requested nodes", "generated nodes", "layers", "graphs per CPU second",
       "nodes with two or more operands that obey", "by chance"],
      [[str(row["nodes_asked"]), f"{row['nodes_made']:.0f}", f"{row['layers_made']:.0f}",
        f"{row['graphs_per_cpu_second']:.1f}",
        f"{100 * row['rule_obeyed_nodes_of_two_or_more_operands']:.0f} %",
        f"{100 * row['rule_by_chance']:.0f} %"] for row in rows])


def plot(path: pathlib.Path, rows: list[dict[str, Any]]) -> None:
  """Plots CPU seconds per graph over the number of nodes."""
  from matplotlib import figure
  drawing = figure.Figure(figsize=(5, 4), layout="constrained")
  panel = drawing.subplots()
  panel.plot([row["nodes_made"] for row in rows], [row["cpu_s_a_graph"] for row in rows], "o-")
  panel.set(xlabel="nodes", ylabel="CPU seconds per graph", xscale="log", yscale="log")
  with files.atomic_write(path) as file:
    drawing.savefig(file, format="png", dpi=120)


def main(argv: list[str]) -> None:
  """Runs the benchmark."""
  values = flags.FLAGS
  try:
    sizes = [int(size) for size in values.sizes]
    if not sizes or min(sizes) < 1:
      raise ValueError("no numbers of nodes")
  except ValueError:
    raise errors.ConfigError(
        f"--sizes={','.join(values.sizes)}; expected whole numbers, such as 50,100") from None
  rows = measure(pathlib.Path(values.run_dir), sizes, values.count, values.repeats)
  results = {**run_directory.environment(), "count": values.count, "repeats": values.repeats,
             "peak_gb": cases.peak_gb(), "config": recipes.read(
                 str(pathlib.Path(values.run_dir) / "config.json")), "growth": rows}
  output = pathlib.Path(values.output)
  files.write_json(output / "growth.json", results)
  plot(output / "growth.png", rows)
  if values.results:
    files.write_json(values.results, results)
  print(tables.markdown(list(rows[0]), [
      [f"{value:.3f}" if isinstance(value, float) else str(value) for value in row.values()]
      for row in rows]))
  print(f"peak memory {results['peak_gb']:.2f} GB; written: {output}/growth.json, growth.png")


if __name__ == "__main__":
  app.run(main, define_flags)
