"""Which weight should the prior have for tiles of kernels unlike those of training?

  python -m experiments.prior_weights --results results/prior_weights.json

The groups of the training and validation kernels are divided among eight folds. For each fold, the
networks of the recipe and the prior are fitted to the other groups, and rank the kernels of the
fold together, with every weight of the prior from 0 to 1. The test split is never read. The gate of
a run rests on boosted trees instead, because they are fitted in seconds; see
`training.prior_fitting`.

The study keeps finished folds: run it again to continue.
"""

from collections.abc import Sequence
import math
import pathlib
from typing import Any

from absl import flags
import numpy as np

from experiments import tile_groups
from tpugraphs_rank import config as config_lib
from tpugraphs_rank import files
from tpugraphs_rank import metrics
from tpugraphs_rank import recipes
from tpugraphs_rank import run_config
from tpugraphs_rank import tables
from tpugraphs_rank.cli import app
from tpugraphs_rank.data import folds as folds_lib
from tpugraphs_rank.data import registry
from tpugraphs_rank.data import splits
from tpugraphs_rank.evaluation import score_deviations
from tpugraphs_rank.training import run as run_lib
from tpugraphs_rank.training import run_directory
from tpugraphs_rank.training import tile_prior
from tpugraphs_rank.training import trainer

RECIPE = "tile_xla_cpu"
WEIGHTS = tuple(number / 10 for number in range(11))
TOPS = (1, 5, 10)
_FOLDS = 8


def define_flags() -> None:
  """Defines the flags."""
  flags.DEFINE_string("output", "runs/prior_weights", "Folder of finished folds.")
  flags.DEFINE_string("results", None, "Writes the figures to this JSON file.")
  flags.DEFINE_integer("epochs", 10, "Epochs of each training.")
  flags.DEFINE_integer("seed", 0, "Seed of the networks.")


def divide(collection: registry.Collection) -> list[folds_lib.Fold]:
  """The folds, each with several groups as its test split."""
  every = folds_lib.leave_one_out(collection, "group")
  together: list[folds_lib.Fold] = []
  for start in range(min(_FOLDS, len(every))):
    parts = every[start::_FOLDS]
    out = {name for part in parts for name in part.files["test"]}
    kept = {split: sorted({name for part in every for name in part.files[split]} - out)
            for split in ("train", "valid")}
    together.append(folds_lib.Fold(
        " and ".join(part.name for part in parts), {**kept, "test": sorted(out)}))
  return together


def rank(collection: registry.Collection, fold: folds_lib.Fold, folder: pathlib.Path, epochs: int,
         seed: int) -> dict[str, Any]:
  """By kernel of a fold: runtimes, and the scores of the networks and of the prior, in one unit."""
  folder.mkdir(parents=True, exist_ok=True)
  descriptor = folder / "collection.json"
  folds_lib.write(collection, fold, descriptor)
  config = config_lib.override(
      config_lib.from_dict(run_config.RunConfig, recipes.read(RECIPE)), {
          "data.collection": str(descriptor), "model.prior": tile_prior.NONE,
          "training.epochs": epochs, "training.seed": seed})
  trainer.Trainer(config).train(folder / "run")
  run = run_lib.load_run(folder / "run")
  rest, out = (splits.load(config.data, split, seed).programs for split in ("train", "test"))
  deviation = score_deviations.mean(run.score_programs(rest))
  prior = tile_groups.fit_prior([tile_groups.Kernel(program) for program in rest])
  return {kernel.name: {
      "runtimes": kernel.runtimes.tolist(), "networks": (scores / deviation).tolist(),
      "prior": prior.cost_of_rows(kernel.terms, kernel.relative).tolist()}
          for kernel, scores in zip(map(tile_groups.Kernel, out), run.score_programs(out))}


def summary(collection: registry.Collection, scored: dict[str, Any]) -> dict[str, Any]:
  """For each weight: means over groups, of tau and of log(1 + slowdown)."""
  result = {}
  for weight in WEIGHTS:
    groups: dict[str, list[list[float]]] = {}
    for name, known in scored.items():
      runtimes = np.array(known["runtimes"])
      scores = (1 - weight) * np.array(known["networks"]) + weight * np.array(known["prior"])
      groups.setdefault(collection.group(name), []).append([
          metrics.kendall_tau(runtimes, scores),
          *(math.log1p(metrics.topk_slowdown(runtimes, scores, top)) for top in TOPS)])
    means = np.array([np.mean(rows, axis=0) for rows in groups.values()])
    names = ("kendall_tau", *(f"log_top{top}_slowdown" for top in TOPS))
    result[str(weight)] = {
        name: {"mean": round(float(column.mean()), 4),
               "error": round(float(column.std(ddof=1) / math.sqrt(len(column))), 4)}
        for name, column in zip(names, means.T)}
  return {"groups": len(groups), "kernels": len(scored), "weights": result}


def table(results: dict[str, Any]) -> str:
  """The figures as a Markdown table."""
  rows = []
  for weight, row in results["weights"].items():
    tau = row["kendall_tau"]
    rows.append([weight, f"{tau['mean']:.3f} ± {tau['error']:.3f}", *(
        f"{100 * math.expm1(row[f'log_top{top}_slowdown']['mean']):.1f} %" for top in TOPS)])
  return tables.markdown(
      ["weight of the prior", "tau", *(f"top-{top} slowdown" for top in TOPS)], rows)


def main(argv: Sequence[str]) -> int:
  """Runs the study."""
  del argv
  values = flags.FLAGS
  collection = registry.get_collection("tile:xla_cpu")
  scored: dict[str, Any] = {}
  for number, fold in enumerate(divide(collection)):
    folder = files.expanded(values.output) / f"fold{number}"
    path = folder / "scores.json"
    if not path.exists():
      files.write_json(path, rank(collection, fold, folder, values.epochs, values.seed))
    scored |= files.read_json(path)
  results = summary(collection, scored)
  print(table(results))
  if values.results is not None:
    files.write_json(values.results, {
        **run_directory.environment(), "seeds": [values.seed], "collection": collection.name,
        "epochs": values.epochs, **results})
  return 0


if __name__ == "__main__":
  app.run(main, define_flags)
