"""Writes the files of a comparison: one table of all graphs, and the plots."""

import pathlib

import pandas as pd

from tpugraphs_rank import files
from tpugraphs_rank.evaluation import aggregate
from tpugraphs_rank.evaluation import bootstrap
from tpugraphs_rank.evaluation import comparison as comparison_lib
from tpugraphs_rank.evaluation import per_graph
from tpugraphs_rank.evaluation import plots
from tpugraphs_rank.evaluation import run_files

PER_GRAPH = "per_graph.csv"
PART_TITLES = {"": "seen groups", "_unseen_groups": "unseen groups"}


def write(folder: files.PathLike, comparison: comparison_lib.Comparison) -> None:
  """Writes per_graph.csv and the plots.

  The plots are training_curves.png, rank_against_runtime_<model>.png, slowdown_against_k.png and
  tau_by_family.png.

  Raises:
    OutputError: the folder cannot be written.
  """
  folder = pathlib.Path(folder)
  files.write_text(folder / PER_GRAPH, comparison.per_graph().to_csv(index=False))
  task = comparison.task
  curves = histories(comparison)
  if curves:
    plots.training_curves(folder / "training_curves.png", curves)
  for model in comparison.models:
    plots.rank_against_runtime(
        folder / f"rank_against_runtime_{model}.png", task.programs, comparison.scores[model][0],
        comparison.frames[model][0], f"{model} on {task.collection.name} {task.split}")
  plots.slowdown_against_k(
      folder / "slowdown_against_k.png",
      [per_graph.runtimes_of(program) for program in task.programs], comparison.scores_with_ties,
      parts(comparison))
  means = {
      name: frames[0].assign(
          kendall_tau=bootstrap.seed_mean(frames, "kendall_tau").to_numpy())
      for name, frames in comparison.frames.items()}
  plots.tau_by_family(folder / "tau_by_family.png", means, f"{task.collection.name} {task.split}",
                      comparison.models)


def histories(comparison: comparison_lib.Comparison) -> dict[str, pd.DataFrame]:
  """For the name of each run its history; runs without one are left out."""
  return {
      model if len(paths) == 1 else f"{model} seed {seed}": run_files.read_history(path)
      for model, paths in comparison.run_dirs.items()
      for seed, path in enumerate(paths) if (path / "history.csv").exists()}


def parts(comparison: comparison_lib.Comparison) -> dict[str, list[int]]:
  """For the title of each part of the split the indices of its graphs."""
  first = comparison.frames[comparison.models[0]][0]
  chosen = aggregate.parts(first)
  return {
      PART_TITLES[suffix] if len(chosen) > 1 else comparison.task.held_back:
      first.index.get_indexer(select(first).index).tolist() for suffix, select in chosen.items()}
