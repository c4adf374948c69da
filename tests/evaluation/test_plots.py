"""Plots are written, whatever the data."""


import numpy as np
import pandas as pd
import pytest

from tests import synthetic
from tpugraphs_rank import errors
from tpugraphs_rank import run_config
from tpugraphs_rank.data import registry
from tpugraphs_rank.data import splits
from tpugraphs_rank.evaluation import comparison as comparison_lib
from tpugraphs_rank.evaluation import comparison_files
from tpugraphs_rank.evaluation import plots
from tpugraphs_rank.evaluation import task as task_lib

COLLECTION = registry.Collection(
    name="tile:made_up", kind="tile", target="none", splits={"test": 2},
    family_regex=r"^(?P<family>[a-z]+\d)\.")


def _is_png(path):
  return path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 5_000


def _history(epochs, validated=1):
  epoch = np.arange(1, epochs + 1)
  valid = np.where(epoch % validated == 0, 1.0 / epoch, np.nan)
  return pd.DataFrame({"epoch": epoch, "loss": 2.0 / epoch, "train_opa": 1 - 0.5 / epoch,
                       "valid_loss": valid, "valid_opa": 1 - valid / 2})


@pytest.mark.parametrize("histories", [
    {"gnn": _history(5)},
    {"gnn": _history(1)},
    {f"{model} seed {seed}": _history(4 + seed, 2) for model in "ab" for seed in range(3)}])
def test_training_curves(tmp_path, histories):
  plots.training_curves(tmp_path / "curves.png", histories)
  assert _is_png(tmp_path / "curves.png")


@pytest.mark.parametrize("sizes", [[12] * 8, [1], [2, 30, 400]])
def test_a_whole_comparison(tmp_path, sizes):
  programs = tuple(splits.ProgramView(synthetic.tile_graph(
      number, num_configs=count, name=f"fam{number % 3}.{number}"))
      for number, count in enumerate(sizes))
  task = task_lib.Task(run_config.DataConfig(), COLLECTION, "test", 0, programs, {"fam0"})
  rng = np.random.default_rng(0)
  scores = {name: [[rng.normal(size=program.graph.num_configs) for program in programs]
                   for _ in range(seeds)] for name, seeds in (("gnn", 2), ("random", 1))}
  _history(3).to_csv(tmp_path / "history.csv", index=False)
  frames = {name: [task.evaluate(one) for one in result] for name, result in scores.items()}
  comparison = comparison_lib.Comparison(
      task, frames, ("gnn",), {"gnn": [tmp_path, tmp_path / "elsewhere"]}, scores,
      {"gnn": [0, 1], "random": [0]})
  comparison_files.write(tmp_path / "plots", comparison)
  written = sorted(path.name for path in (tmp_path / "plots").iterdir())
  written.remove("per_graph.csv")
  assert written == ["rank_against_runtime_gnn.png", "slowdown_against_k.png",
                     "tau_by_family.png", "training_curves.png"]
  assert all(_is_png(tmp_path / "plots" / name) for name in written)


def test_unseen_families_come_last():
  frame = pd.DataFrame({"family": ["a", "b", "c", "d"], "seen": [False, True, True, False],
                        "kendall_tau": [0.9, 0.1, 0.5, 0.95]})
  assert plots._families(frame) == [("c", True), ("b", True), ("d", False), ("a", False)]
  assert plots._families(frame.assign(seen=None))[0] == ("d", True)


def test_a_folder_that_cannot_be_written_is_an_output_error(tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(errors.OutputError):
    plots.training_curves(tmp_path / "file" / "curves.png", {"gnn": _history(2)})


def test_runtimes_of_unmeasured_graphs_are_refused(tmp_path):
  graph = synthetic.tile_graph(0, config_runtime=np.zeros(12, np.int64))
  frame = pd.DataFrame({"kendall_tau": [0.5]})
  with pytest.raises(errors.DataError, match="no runtimes"):
    plots.rank_against_runtime(
        tmp_path / "x.png", [splits.ProgramView(graph)], [np.zeros(12)], frame)
