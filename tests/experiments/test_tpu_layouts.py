"""The study of TPU layouts, at a small size."""

import numpy as np
import pytest

from experiments import tpu_layout_tables
from experiments import tpu_layouts
from tests import synthetic
from tests import testdata
from tests.experiments import scripts
from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank.data import npz
from tpugraphs_rank.evaluation import baselines


@pytest.fixture
def tree(tmp_path):
  """The three graphs, small: 40 configurations, of which some repeat, and a default."""
  for seed, path in enumerate(tpu_layouts.GRAPHS.values()):
    graph = synthetic.layout_graph(seed, num_configs=40)
    feat, runtime = graph.node_config_feat.copy(), graph.config_runtime.copy()
    feat[0] = -1
    feat[30:] = feat[:10]
    runtime[30:] = runtime[:10] + np.arange(10)
    npz.save_graph(tmp_path / "tree" / path, synthetic.layout_graph(
        seed, num_configs=40, node_config_feat=feat, config_runtime=runtime))
  return tmp_path / "tree"


def _run(tree, output, *arguments):
  return scripts.run("tpu_layouts", "--graphs", tree, "--output", output, "--divisions=1",
                     "--shares=20,80", "--epochs=1", "--steps_per_epoch=2", *arguments)


def test_rankers_without_training(tree, tmp_path, monkeypatch):
  monkeypatch.setattr(tpu_layouts, "RANKERS", (
      baselines.BOOSTED_TREES, "size_heuristic", "default_configuration", "random"))
  monkeypatch.setattr(tpu_layouts, "_TREE_ITERATIONS", 5)
  done = _run(tree, tmp_path / "out", "--results", tmp_path / "r.json")
  assert done.returncode == 0, done.stderr
  results = files.read_json(tmp_path / "r.json")
  assert files.read_json(tmp_path / "out" / "results.json") == results
  assert results["seeds"] == [0] and list(results["graphs"]) == list(tpu_layouts.GRAPHS)
  for name, by_share in results["known"].items():
    facts = results["graphs"][name]
    assert facts["configurations"] == 40 and facts["usual_measurements"] >= 1
    assert facts["has_default"] and 0 < facts["pairs_apart"] <= 1
    assert facts["noise_ceiling"]["repeated"] >= 9
    # All shares are tested on the same part, the fifth that the largest share leaves.
    assert by_share["20"]["tested_on"] == by_share["80"]["tested_on"] > 0
    assert by_share["20"]["learned_from"] < by_share["80"]["learned_from"]
    assert by_share["80"]["learned_from"] == round(0.64 * facts["distinct"]) + round(
        0.16 * facts["distinct"])
    assert by_share["20"]["rankers"]["random"] == by_share["80"]["rankers"]["random"]
  for place in results["across"].values():
    assert place["rankers"]["default_configuration"]["top1_slowdown"]["n"] == 1
  assert "unet_3d.4x4.bf16 random" in done.stdout and "boosted_trees" in done.stdout
  for table in ("graphs", "tau", "apart", "details", "across"):
    text = getattr(tpu_layout_tables, table)(results)
    assert text.startswith("| graph |") and "nan" not in text
  # Finished cases are kept, for the same settings only.
  again = _run(tree, tmp_path / "out", "--results", tmp_path / "again.json")
  assert again.returncode == 0
  assert files.read_json(tmp_path / "again.json")["known"] == results["known"]
  other = scripts.run("tpu_layouts", "--graphs", tree, "--output", tmp_path / "out", "--epochs=3")
  assert other.returncode == 1 and "choose another --output" in other.stderr


@pytest.mark.slow
def test_networks(tree, tmp_path, monkeypatch):
  pytest.importorskip("tensorflow")
  monkeypatch.setattr(tpu_layouts, "RANKERS", ("residual_gnn",))
  done = _run(tree, tmp_path / "out")
  assert done.returncode == 0, done.stderr
  results = files.read_json(tmp_path / "out" / "results.json")
  for place in (*results["across"].values(), *results["known"]["unet3d"].values()):
    assert set(place["rankers"]) == {"residual_gnn"}
  # One network ranks both searches of the other program.
  assert len(list((tmp_path / "out" / "runs").glob("unet3d-99-residual_gnn-*"))) == 1


def test_wrong_arguments(tree, tmp_path):
  for shares in ("0", "90", "5,5", "x"):
    done = _run(tree, tmp_path / "out", f"--shares={shares}")
    assert done.returncode == 1 and "expected different whole numbers of percent" in done.stderr
  with pytest.raises(errors.MissingDataError, match="must be the folder of the public tree"):
    tpu_layouts.write_collection("unet3d", tmp_path, tmp_path / "out")


@testdata.required
def test_the_facts_of_the_real_graphs(tmp_path):
  study = tpu_layouts.Study(
      testdata.path("tpugraphs_npz"), tmp_path, tpu_layouts.Budget(1, 1))
  facts = study.facts("unet_3d.4x4.bf16 random")
  assert (facts["configurations"], facts["distinct"], facts["nodes"]) == (481, 442, 3163)
  assert facts["slowest_over_fastest"] == pytest.approx(932773984 / 910876979)
