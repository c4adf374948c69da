"""Trains LayerDAG on operand cones of 100 to 400 nodes of real programs, and measures its graphs.

  python -m experiments.cone_study --output runs/cone_study --results results/cones.json

The cones come from the training and validation programs of a collection. They are divided into two
halves, by program and at random. A generator learns one half of each division; its graphs and the
learned half are compared with the other half. Finished steps are kept: run it again to continue.
"""

from collections.abc import Mapping
import pathlib
import time
from typing import Any

from absl import flags
import numpy as np

from tpugraphs_rank import config as config_lib
from tpugraphs_rank import files
from tpugraphs_rank import tables
from tpugraphs_rank.cli import app
from tpugraphs_rank.data import collections
from tpugraphs_rank.data import registry
from tpugraphs_rank.synthesis.dags import dags as dags_lib
from tpugraphs_rank.synthesis.dags import extraction
from tpugraphs_rank.synthesis.traces import comparison
from tpugraphs_rank.training import run_directory

_SHOWN = {"types": "opcodes", "type_pairs": "opcodes of a node and its operand", "depth": "depth",
          "width": "width", "operands": "operands", "users": "users"}
_PROGRAM = "program"
_TRIES = 8  # Roots of a program that are tried for each cone.
# Synthetic graphs of each training graph's size: the ratios of a few hundred differ by chance.
_SAMPLES = 4
_NETWORK = {
    "network.width": 64, "network.node_steps": 12, "fit.batch_graphs": 8,
    "fit.learning_rate": 3e-3, "fit.average": 0.98, "fit.tensorboard": False}


def define_flags() -> None:
  """Defines the flags."""
  flags.DEFINE_string("collection", "layout:xla_cpu:mixed:v1", "Collection of the programs.")
  flags.DEFINE_list("splits", ["train", "valid"], "Splits of the collection.")
  flags.DEFINE_string("output", "runs/cone_study", "Folder of the runs.")
  flags.DEFINE_integer("cones", 12, "Most cones of a program.", lower_bound=1)
  flags.DEFINE_integer("most", 240, "Most cones of each half.", lower_bound=2)
  flags.DEFINE_integer("min_nodes", 100, "Fewest nodes of a cone.", lower_bound=3)
  flags.DEFINE_integer("max_nodes", 400, "Most nodes of a cone.", lower_bound=3)
  flags.DEFINE_integer("epochs", 20, "Epochs of the generator.", lower_bound=1)
  flags.DEFINE_integer("edge_steps", 6, "Diffusion steps for edges.", lower_bound=2)
  flags.DEFINE_bool("operand_counts", False, "Give the networks the operands of each candidate.")
  flags.DEFINE_integer("calibration_rounds", 0, "Rounds of calibration.", lower_bound=0)
  flags.DEFINE_list("conditions", ["size", "depth", "edges", "leaves"], "Conditions.")
  flags.DEFINE_list("divisions", ["program", "random"], "Divisions into halves.")
  flags.DEFINE_integer("seed", 0, "Seed of all random choices.")
  flags.DEFINE_string("results", None, "Also write the figures to this file.")


def cones(collection: str, splits: list[str], each: int, low: int, high: int, seed: int
          ) -> dags_lib.Dags:
  """Cones of `low` to `high` nodes, up to `each` of a program, whose number is their label."""
  rng = np.random.default_rng([seed, 40])
  found: list[tuple[np.ndarray, np.ndarray]] = []
  programs: list[float] = []
  for split in splits:
    for program in collections.load_collection(registry.get_collection(collection), split):
      number, before = max(programs, default=-1.0) + 1.0, len(found)
      users = np.unique(program.edge_index[:, 0])
      for root in rng.permutation(users)[:_TRIES * each].tolist():
        nodes, edges = extraction.operand_cone(
            program.edge_index, program.num_nodes, root, high)
        if len(nodes) >= low and len(found) < before + each:
          found.append((edges, program.node_opcode[nodes][:, None].astype(np.int64)))
          programs.append(number)
  words, index = np.unique(np.concatenate([x for _, x in found]), return_inverse=True)
  ends = np.cumsum([len(x) for _, x in found])[:-1]
  graphs = dags_lib.canonical(
      [(edges, x) for (edges, _), x in zip(found, np.split(index.reshape(-1, 1), ends))],
      ("opcode",), (words,), np.array(programs), (_PROGRAM,),
      provenance={"collection": collection, "splits": splits})
  return graphs.take(np.sort(np.unique(graphs.wl, return_index=True)[1]))


def halves(graphs: dags_lib.Dags, by: str, most: int, seed: int
           ) -> tuple[dags_lib.Dags, dags_lib.Dags]:
  """Two halves of at most `most` graphs each, divided "random"ly or by "program"."""
  rng = np.random.default_rng([seed, 41])
  groups = graphs.label(_PROGRAM).astype(np.int64) if by == "program" else np.arange(len(graphs))
  side = rng.permutation(groups.max() + 1)[groups] % 2
  chosen = [rng.permutation(np.flatnonzero(side == half))[:most] for half in (0, 1)]
  return graphs.take(np.sort(chosen[0])), graphs.take(np.sort(chosen[1]))


def measured(training: dags_lib.Dags, others: dags_lib.Dags, changes: Mapping[str, Any],
             folder: pathlib.Path, seed: int) -> dict[str, Any]:
  """Trains on one half, samples graphs of its sizes, and compares them with the other."""
  from tpugraphs_rank.synthesis.layerdag import model
  from tpugraphs_rank.synthesis.layerdag import sampler
  from tpugraphs_rank.synthesis.layerdag import settings
  from tpugraphs_rank.synthesis.layerdag import training as training_lib
  dags_lib.save(folder / "training.npz", training)
  training_lib.Trainer(config_lib.override(settings.LayerDagConfig(), {
      **_NETWORK, "data.graphs": str(folder / "training.npz"), **changes})).train(folder / "run")
  generator = model.LayerDAG.load(folder / "run" / "model.npz")
  wanted = np.sort(np.tile(training.sizes, _SAMPLES)).astype(np.float64)
  started = time.process_time()
  sampled = generator.sample(len(wanted), {"size": wanted}, seed, sampler.Options(batch=64))
  seconds = time.process_time() - started
  dags_lib.save(folder / "sampled.npz", sampled)
  bare = lambda graphs: graphs.with_labels(np.zeros([len(graphs), 0]), ())
  learned, sampled, others = dags_lib.in_common_vocabularies(
      list(map(bare, (training, sampled, others))))
  real, synthetic, random = (comparison.distances(graphs, others) for graphs in (
      learned, sampled, comparison.random_graphs(sampled, learned, seed)))
  asked = np.abs(sampled.sizes - wanted)
  abandoned = int(sampled.provenance["given_up"])
  return {
      "graphs": {"training": len(learned), "others": len(others), "synthetic": len(sampled)},
      "within_a_quarter": float((asked <= 0.25 * wanted).mean()),
      "abandoned": abandoned / (abandoned + len(sampled)),
      "graphs_per_cpu_second": len(sampled) / seconds,
      "distances": {"real": real, "synthetic": synthetic, "random": random},
      "ratios": {name: comparison.ratio(synthetic[name], real[name]) for name in _SHOWN}}


def main(argv: list[str]) -> None:
  """Runs the study."""
  del argv
  values = flags.FLAGS
  from tpugraphs_rank.training import runtime
  runtime.configure(values.seed, 1)
  graphs = cones(values.collection, values.splits, values.cones, values.min_nodes,
                 values.max_nodes, values.seed)
  changes = {"fit.seed": values.seed, "fit.epochs": values.epochs,
             "fit.patience": max(values.epochs, 5), "data.conditions": tuple(values.conditions),
             "network.edge_steps": values.edge_steps,
             "network.operand_counts": values.operand_counts,
             "fit.calibration_rounds": values.calibration_rounds}
  results: dict[str, Any] = {
      **run_directory.environment(), "collection": values.collection, "splits": values.splits,
      "cones": len(graphs), "programs": len(np.unique(graphs.label(_PROGRAM))),
      "epochs": values.epochs, "edge_steps": values.edge_steps,
      "operand_counts": values.operand_counts, "calibration_rounds": values.calibration_rounds,
      "conditions": values.conditions, "seeds": [values.seed],
      "halves": {}}
  for by in values.divisions:
    training, others = halves(graphs, by, values.most, values.seed)
    results["halves"][by] = measured(
        training, others, changes, pathlib.Path(values.output) / by, values.seed)
    print(f"\nhalves divided by {by}\n\n{table(results['halves'][by])}", flush=True)
  files.write_json(pathlib.Path(values.output) / "cones.json", results)
  if values.results:
    files.write_json(values.results, results)


def readme_table(results: Mapping[str, Any]) -> str:
  """The table of the halves that are divided by program."""
  return table(results["halves"]["program"])


def table(result: Mapping[str, Any]) -> str:
  """One row per quantity, with the distances to the half that was not learned."""
  distances = result["distances"]
  return tables.markdown(
      ["distance to the other half", "learned half", "synthetic", "random graphs",
       "synthetic / learned"],
      [[title, *(f"{distances[kind][name]:.3g}" for kind in ("real", "synthetic", "random")),
        f"{result['ratios'][name]:.3g}"] for name, title in _SHOWN.items()])


if __name__ == "__main__":
  app.run(main, define_flags)
