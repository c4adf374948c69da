"""Run directories written by hand: complete but for weights, and ready in milliseconds."""

import pathlib
from typing import Any

import numpy as np
import pandas as pd

from tests import synthetic
from tpugraphs_rank import config as config_lib
from tpugraphs_rank import files
from tpugraphs_rank import run_config
from tpugraphs_rank.data import registry
from tpugraphs_rank.data import splits
from tpugraphs_rank.evaluation import per_graph
from tpugraphs_rank.training import run_directory

COLLECTION = registry.Collection(
    name="tile:made_up", kind="tile", target="none", splits={"train": 2, "valid": 2, "test": 6},
    family_regex=r"^(?P<family>[a-z]+\d)")
METRICS = ("kendall_tau", "opa", "top1_slowdown", "top5_slowdown", "top10_slowdown")


def write_run(path: pathlib.Path, state: str = "finished", epochs: int = 4, tau: float = 0.8,
              **settings: Any) -> run_directory.RunDirectory:
  """Writes the run directory of a training with this outcome.

  Args:
    path: the run directory.
    state: as in status.json.
    epochs: epochs that were trained; the last but one is the best.
    tau: its validation tau; other metrics follow from it.
    **settings: settings by the names of their flags.
  """
  names = {name.rpartition(".")[2]: name for name, _, _ in config_lib.leaves(run_config.RunConfig)}
  config = config_lib.override(
      run_config.RunConfig(), {names[key]: value for key, value in settings.items()})
  directory = run_directory.RunDirectory(path)
  directory.open(config, {"collection": COLLECTION.name, "kind": "tile", "target": "none",
                          "hlo_stage": "after_optimization"})
  best = max(epochs - 1, 1)
  rows = []
  for epoch in range(1, epochs + 1):
    reached = tau - 0.1 * abs(epoch - best)
    rows.append({
        "epoch": epoch, "step": 10 * epoch, "loss": 60.0 - epoch, "train_opa": (1 + reached) / 2,
        "gradient_norm": 1.0, "learning_rate": 1e-3, "valid_loss": 61.0 - epoch,
        **{f"valid_{name}": value for name, value in metrics(reached).items()}, "seconds": 0.5})
  directory.write_history(rows)
  directory.write_status(state=state, epoch=epochs, step=10 * epochs, best_epoch=best,
                         validation_metric="kendall_tau", best_value=tau)
  files.write_text(directory / "checkpoints" / "best.npz", "weights")
  if state in ("finished", "stopped_early"):
    files.write_json(directory / "metrics.json", {
        "split": "valid", "epoch": best, "metrics": metrics(tau)})
  return directory


def metrics(tau: float) -> dict[str, float]:
  return dict(zip(METRICS, (tau, (1 + tau) / 2, 1 - tau, (1 - tau) / 4, 0.0)))


def write_evaluation(folder: pathlib.Path, rankers: dict[str, int], split: str = "test",
                     results: pathlib.Path | None = None) -> pd.DataFrame:
  """Writes per_graph.csv of six graphs, and a file that says of which split they are.

  Args:
    folder: of the evaluation.
    rankers: for each ranker its number of seeds; all score at random.
    split: the evaluated split.
    results: the file that names the split; None: metrics.json in the folder.
  """
  rng = np.random.default_rng(len(rankers))
  programs = [splits.ProgramView(synthetic.tile_graph(seed)) for seed in range(6)]
  frames = []
  for ranker, seeds in rankers.items():
    for seed in range(seeds):
      scores = [rng.random(program.graph.num_configs) for program in programs]
      frame = per_graph.evaluate(programs, scores, COLLECTION, {"family0", "family1"})
      frames.append(frame.assign(ranker=ranker, seed=seed))
  frame = pd.concat(frames)
  files.write_text(folder / "per_graph.csv", frame.to_csv(index=False))
  files.write_json(results or folder / "metrics.json", {"split": split})
  return frame
