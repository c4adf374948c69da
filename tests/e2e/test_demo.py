"""The demo on a small synthetic collection: trains, evaluates, writes its files, resumes."""

import json
import pathlib

import pytest

from tests import synthetic
from tests.helpers import commands
from tpugraphs_rank.evaluation import trees

MODELS = {"residual_gnn", "attention_gnn"}
BASELINES = {"random", "default_configuration", "size_heuristic", "boosted_trees"}


def _demo(folder: pathlib.Path, *flags: str) -> commands.Result:
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(trees, "GRID", (trees.Settings(iterations=10, max_leaf_nodes=4),))
    return commands.run("demo", "--output", folder / "demo", "--seeds=1",
                        "--config", folder / "settings.json", *flags)


@pytest.fixture(name="folder", scope="module")
def _folder(tmp_path_factory) -> pathlib.Path:
  folder = tmp_path_factory.mktemp("demo")
  descriptor = synthetic.write_collection(folder / "collection", counts=(9, 3, 6))
  (folder / "settings.json").write_text(json.dumps({
      "comment": "small", "data": {"collection": str(descriptor)},
      "model": {"hidden_width": 8, "num_convolutions": 1},
      "training": {"epochs": 2, "tensorboard": False}}), encoding="utf-8")
  return folder


def test_demo_trains_evaluates_and_resumes(folder: pathlib.Path):
  done = _demo(folder, "--results", str(folder / "results.json"))
  assert done.returncode == 0, done.stderr
  results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
  assert set(results["models"]) == MODELS | BASELINES
  for figures in results["models"].values():
    for name in ("opa", "tau", "top1_slowdown", "top5_slowdown", "top10_slowdown"):
      assert set(figures[name]) == {"mean", "sd", "n"}
    # Without ties in either list tau is 2 OPA - 1; these lists have some, so it is only near.
    assert -1 <= figures["tau"]["mean"] <= 1 and 0 <= figures["opa"]["mean"] <= 1
    assert figures["top10_slowdown"]["mean"] <= figures["top5_slowdown"]["mean"]
  for key in ("command", "commit", "packages", "processor", "seeds"):
    assert results[key], key
  assert str(folder) in results["command"]
  for name in MODELS | BASELINES:
    assert name in done.stdout
  assert len(list((folder / "demo" / "evaluation").glob("*.png"))) >= 4
  assert f"report:  {folder}/demo/report.html" in done.stdout
  report = (folder / "demo" / "report.html").read_text(encoding="utf-8")
  assert all(name in report for name in MODELS | BASELINES)

  checkpoints = folder / "demo" / "residual_gnn-seed0" / "checkpoints"
  before = (checkpoints / "latest.npz").stat().st_mtime_ns
  again = _demo(folder)
  assert again.returncode == 0, again.stderr
  after = (checkpoints / "latest.npz").stat().st_mtime_ns
  assert after == before  # Finished runs are not changed.


def test_a_run_of_other_settings_is_not_overwritten(folder: pathlib.Path):
  settings = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
  settings["model"]["hidden_width"] = 9
  (folder / "other.json").write_text(json.dumps(settings), encoding="utf-8")
  done = _demo(folder, "--config", str(folder / "other.json"))
  assert done.returncode == 1
  assert "hidden_width: stored 8, requested 9" in done.stderr
  assert "Traceback" not in done.stderr
