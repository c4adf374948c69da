"""Synthesizes traces from real ones and measures them: sizes, distances, privacy, surrogates.

  python -m experiments.chakra_study --input traces/ --output runs/chakra_study \\
    --results results/chakra.json

Runs `tpugraphs-rank chakra synthesize` and `chakra compare`, samples graphs of given sizes, and
trains predictors of the simulated run time (`chakra.replay`) on synthetic graphs only, which are
tested on real held-out graphs. The study keeps finished steps: run it again to continue.
"""

from collections.abc import Mapping
import dataclasses
import functools
import hashlib
import pathlib
import subprocess
import sys
from typing import Any

from absl import flags
import numpy as np

from experiments.benchmarks import cases
from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank import tables
from tpugraphs_rank.chakra import exporting
from tpugraphs_rank.chakra import graphs as graphs_lib
from tpugraphs_rank.chakra import replay
from tpugraphs_rank.chakra import trace_graph
from tpugraphs_rank.cli import app
from tpugraphs_rank.synthesis.dags import dags
from tpugraphs_rank.synthesis.traces import generation
from tpugraphs_rank.synthesis.traces import kinds
from tpugraphs_rank.synthesis.traces import report
from tpugraphs_rank.training import run_directory

_LABEL = "simulated_micros"
_DISTANCES = {"types": "types of nodes", "type_pairs": "types of a node and its dependency",
              "depth": "depth", "width": "width", "operands": "dependencies", "users": "users",
              "duration": "durations, log", "critical_path": "critical path, log",
              "work": "total work, log"}


def define_flags() -> None:
  """Defines the flags."""
  flags.DEFINE_list("input", None, "Traces: files, or folders of files.", required=True)
  flags.DEFINE_string("output", "runs/chakra_study", "Folder of the runs.")
  flags.DEFINE_integer("count", 240, "Number of synthetic graphs. As many as training sub-graphs "
                       "make distances equally exact.", lower_bound=10)
  flags.DEFINE_string("nodes", None, "Numbers of nodes of the synthetic graphs, MIN:MAX.")
  flags.DEFINE_list("sizes", ["200", "300", "400"], "Requested sizes that are measured.")
  flags.DEFINE_integer("each", 64, "Graphs of each size.", lower_bound=1)
  flags.DEFINE_integer("epochs", 18, "Epochs of the generator.", lower_bound=1)
  flags.DEFINE_integer("ranks", 4, "Ranks of the simulated traces.", lower_bound=1)
  flags.DEFINE_integer("seeds", 2, "Number of predictors of each kind.", lower_bound=1)
  flags.DEFINE_integer("max_epochs", 25, "Most epochs of a predictor.", lower_bound=1)
  flags.DEFINE_bool("predictors", True, "Train predictors of the simulated time.")
  flags.DEFINE_string("results", None, "Also write the figures to this file.")


def simulated(graphs: dags.Dags, ranks: int) -> np.ndarray:
  """(G,) microseconds of each graph, run by all ranks alike; see `chakra.replay`."""
  result = np.zeros([len(graphs)])
  bare = graphs.with_labels(np.zeros([len(graphs), 0]), ())
  for index, workload in enumerate(exporting.to_workloads(bare, exporting.Settings(ranks=ranks))):
    graph = trace_graph.from_trace(workload.trace(0), workload.name)
    result[index] = replay.run([graph], repeated=ranks).total
  return result


def sizes_of(model: Any, training: dags.Dags, wanted: list[int], each: int,
             folder: pathlib.Path) -> list[dict[str, Any]]:
  """One row per requested size."""
  rows = []
  for size in wanted:
    sampled = generation.sample(model, training, np.full(each, size), 1, folder / str(size))
    sizes = sampled.graphs.sizes
    rows.append({
        "requested": size, "graphs": each, "mean": float(sizes.mean()),
        "within_a_quarter": float((np.abs(sizes - size) <= 0.25 * size).mean()),
        "abandoned": sampled.abandoned / (sampled.abandoned + each),
        "graphs_per_cpu_second": each / sampled.cpu_seconds})
  return rows


def predictors(parts: Mapping[str, dags.Dags], synthetic: dags.Dags, ranks: int, seeds: list[int],
               max_epochs: int) -> dict[str, Any]:
  """Predictors of the simulated time: trained on real, synthetic and shuffled synthetic graphs."""
  from tpugraphs_rank.synthesis.judging import surrogate
  from tpugraphs_rank.synthesis.judging import synthetic_only
  names = {"training": "train", "validation": "valid", "held_out": "test"}
  label = lambda graphs: graphs.with_labels(np.log(simulated(graphs, ranks)), [_LABEL])
  real = {names[part]: label(graphs) for part, graphs in parts.items()}
  agreement = synthetic_only.evaluate(
      real, [label(synthetic)], seeds, _LABEL,
      functools.partial(surrogate.train, options=dataclasses.replace(
          surrogate.SINGLE_NETWORK, max_epochs=max_epochs, steps_per_epoch=8, batch_size=16)))
  # The simplest predictor: proportional to the number of nodes.
  test, train = real["test"], real["train"]
  rate = np.mean(train.label(_LABEL) - np.log(train.sizes))
  guess = rate + np.log(test.sizes)
  return {
      "label": "log of simulated microseconds", "ranks": ranks,
      **{f"{measure}_{name}": synthetic_only.summary(getattr(agreement, name), measure)
         for measure in ("pearson", "spearman", "mae")
         for name in ("real", "synthetic", "shuffled")},
      "pearson_of_size": float(np.corrcoef(guess, test.label(_LABEL))[0, 1]),
      "mae_of_size": float(np.abs(guess - test.label(_LABEL)).mean())}


def main(argv: list[str]) -> None:
  """Runs the study."""
  del argv
  values = flags.FLAGS
  output = pathlib.Path(values.output)
  nodes = ["--nodes", values.nodes] if values.nodes else []
  _command("synthesize", "--input", ",".join(values.input), "--output", output, "--count",
           values.count, "--epochs", values.epochs, "--ranks", values.ranks, *nodes)
  _command("compare", "--run", output)

  from tpugraphs_rank.synthesis.layerdag import model as model_lib
  from tpugraphs_rank.training import runtime
  runtime.configure(0, 1)
  parts = {part: dags.load(output / f"{part}.npz")
           for part in ("training", "validation", "held_out")}
  model = model_lib.LayerDAG.load(output / "generator" / "model.npz")
  training = kinds.join(parts["training"])
  rows = sizes_of(model, training, [int(size) for size in values.sizes], values.each,
                  output / "sizes")
  synthetic = dags.load(output / "synthetic.npz")
  seeds = list(range(values.seeds))
  results = {
      **run_directory.environment(), "seeds": seeds, "sizes": rows,
      "traces": [path.name for path in graphs_lib.trace_files(values.input)],
      "synthesis": files.read_json(output / "report.json"),
      "comparison": files.read_json(output / "comparison" / "results.json"),
      **({"predictors": _predictors(output / "predictors.json", parts, synthetic, values)}
         if values.predictors else {}),
      "peak_gb": cases.peak_gb()}
  files.write_json(output / "chakra.json", results)
  if values.results:
    files.write_json(values.results, results)
  print("\n\n".join([sizes_table(results), distances_table(results),
                     *([predictors_table(results)] if values.predictors else [])]))


def _predictors(path: pathlib.Path, parts: Mapping[str, dags.Dags], synthetic: dags.Dags,
                values: flags.FlagValues) -> dict[str, Any]:
  """`predictors`, or what an earlier call found for the same graphs."""
  about = {"graphs": hashlib.sha256(synthetic.wl.tobytes() + synthetic.x.tobytes()).hexdigest(),
           "ranks": values.ranks, "seeds": values.seeds, "max_epochs": values.max_epochs}
  if path.exists():
    stored = files.read_json(path)
    if stored["about"] == about:
      return stored["figures"]
  figures = predictors(parts, synthetic, values.ranks, list(range(values.seeds)),
                       values.max_epochs)
  files.write_json(path, {"about": about, "figures": figures})
  return figures


def _command(name: str, *arguments: Any) -> None:
  done = subprocess.run(
      [sys.executable, "-m", "tpugraphs_rank.cli", "chakra", name, *map(str, arguments)],
      capture_output=True, text=True, stdin=subprocess.DEVNULL)
  if done.returncode:
    tail = "\n".join((done.stderr or done.stdout).strip().splitlines()[-8:])
    raise errors.TrainingError(f"chakra {name} failed (exit status {done.returncode}):\n{tail}")


def sizes_table(results: Mapping[str, Any]) -> str:
  """One row per requested size."""
  return tables.markdown(
      ["requested nodes", "generated nodes, mean", "within a quarter", "draws abandoned",
       "graphs per CPU second"],
      [[str(row["requested"]), f"{row['mean']:.0f}", f"{100 * row['within_a_quarter']:.0f} %",
        f"{100 * row['abandoned']:.1f} %", f"{row['graphs_per_cpu_second']:.1f}"]
       for row in results["sizes"]])


def distances_table(results: Mapping[str, Any]) -> str:
  """One row per quantity, with the distances to the held-out graphs."""
  compared = results["comparison"]
  distances, ratios = compared["distances"], compared["ratios"]["synthetic"]
  show = lambda value: "-" if value is None else f"{value:.3g}"
  return tables.markdown(
      ["distance to held-out graphs", "training graphs", "synthetic", "random types",
       "random graphs", "synthetic / training", "training graphs, drawn again"],
      [[title, *(show(distances[kind][name])
                 for kind in ("real", "synthetic", "random_typed", "random")),
        show(ratios[name]), report.spread(compared, name)]
       for name, title in _DISTANCES.items() if name in distances["real"]])


def predictors_table(results: Mapping[str, Any]) -> str:
  """One row per kind of training graphs."""
  found = results["predictors"]
  cell = lambda value: f"{value['mean']:.2f} ± {value['sd']:.2f}"
  rows = [[title, cell(found[f"pearson_{name}"]), cell(found[f"mae_{name}"])]
          for name, title in (("real", "real training graphs"), ("synthetic", "synthetic graphs"),
                              ("shuffled", "synthetic graphs, times shuffled"))]
  rows.append(["number of nodes only", f"{found['pearson_of_size']:.2f}",
               f"{found['mae_of_size']:.2f}"])
  return tables.markdown(
      ["predictor learned from", "Pearson on held-out graphs", "mean error of the log"], rows)


if __name__ == "__main__":
  app.run(main, define_flags)
