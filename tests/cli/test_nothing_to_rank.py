"""Training and evaluation on equal runtimes, and intervals over a single graph."""

import json
import shutil

import numpy as np
import pytest

pytest.importorskip("tensorflow")

from tests.helpers import commands
from tests.training import small_runs
from tpugraphs_rank import config as config_lib
from tpugraphs_rank import files
from tpugraphs_rank.data import graphs
from tpugraphs_rank.data import npz

_BASELINES = "--baselines=random,size_heuristic"


def _equal_runtimes(folder):
  for path in folder.rglob("*.npz"):
    arrays = dict(npz.load_graph(path).arrays())
    for key in ("config_runtime", "config_runtime_normalizers"):
      arrays[key] = np.full(len(arrays["config_runtime"]), 1000)
    npz.save_graph(path, graphs.graph_from_arrays(path.stem, arrays))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
  """What training printed, and its run directory."""
  folder = tmp_path_factory.mktemp("equal")
  descriptor = small_runs.collection(folder / "data")
  _equal_runtimes(folder / "data")
  files.write_json(folder / "settings.json", config_lib.to_dict(
      small_runs.settings(descriptor, training_epochs=2)))
  done = commands.run("train", "--config", folder / "settings.json", "--run_dir", folder / "run")
  return done, folder / "run"


def test_training_has_undefined_metrics(trained):
  done, run = trained
  assert done.returncode == 0, done.stderr
  assert "tile:tiny valid: there is nothing to rank" in done.stderr
  assert "kendall_tau undefined" in done.stderr
  (line,) = [line for line in done.stdout.splitlines() if line.startswith("kendall_tau")]
  assert line.split() == ["kendall_tau", "undefined"]
  metrics = json.loads((run / "metrics.json").read_text())
  assert set(metrics["metrics"].values()) == {None}
  # The latest checkpoint is the one that scores.
  assert metrics["epoch"] == 2
  history = (run / "history.csv").read_text().splitlines()
  assert dict(zip(history[0].split(","), history[-1].split(",")))["valid_kendall_tau"] == ""


def test_evaluation_has_undefined_metrics(trained, tmp_path):
  _, run = trained
  done = commands.run("evaluate", "--run_dir", run, "--output", tmp_path, _BASELINES)
  assert done.returncode == 0, done.stderr
  assert "there is nothing to rank, so all metrics are undefined" in done.stderr
  rankers = files.read_json(tmp_path / "metrics.json")["rankers"]
  assert all(value is None for ranker in rankers.values() for value in ranker["mean"].values())
  other = shutil.copytree(run, tmp_path / "other")
  stored = json.loads((other / "config.json").read_text())
  stored["config"]["model"]["dropout"] = 0.1
  (other / "config.json").write_text(json.dumps(stored))
  done = commands.run("compare", run, other, "--json", tmp_path / "compared.json")
  assert done.returncode == 0, done.stderr
  assert set(map(str, files.read_json(tmp_path / "compared.json")["means"].values())) == {"{}"}


def test_one_graph_has_no_interval(tiny_tile_run, tmp_path):
  """The test split of a copy of the collection has one graph."""
  data = shutil.copytree(tiny_tile_run.descriptor.parent, tmp_path / "data")
  first, *others = sorted((data / "test").glob("*.npz"))
  for path in others:
    path.unlink()
  descriptor = files.read_json(data / tiny_tile_run.descriptor.name)
  descriptor["splits"]["test"] = 1
  files.write_json(data / tiny_tile_run.descriptor.name, descriptor)
  run = shutil.copytree(tiny_tile_run.path, tmp_path / "run")
  stored = json.loads((run / "config.json").read_text())
  stored["config"]["data"]["collection"] = str(data / tiny_tile_run.descriptor.name)
  (run / "config.json").write_text(json.dumps(stored))
  done = commands.run("report", "--run_dir", run, "--output", tmp_path / "r.html", _BASELINES)
  assert done.returncode == 0, done.stderr
  page = (tmp_path / "r.html").read_text()
  assert first.stem in page and "one graph: no interval" in page
  gains = page[page.index("Gain of residual_gnn"):]
  assert "random" in gains and "[" not in gains[:gains.index("</table>")]
