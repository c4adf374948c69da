"""The benchmark of packed collections at sizes that run in seconds."""

import json

import numpy as np
import pytest

from experiments.benchmarks import cases
from experiments.benchmarks import packing
from tests import synthetic
from tests.experiments import scripts
from tpugraphs_rank import errors
from tpugraphs_rank.data import collections
from tpugraphs_rank.data import graphs
from tpugraphs_rank.data import npz
from tpugraphs_rank.data import packed
from tpugraphs_rank.data import packed_format
from tpugraphs_rank.data import packed_graphs
from tpugraphs_rank.data import registry

APP = "experiments.benchmark_packing"


def test_a_source_has_the_requested_shape(tmp_path):
  packing.write_source(tmp_path / "s.npz", 70, 9, 120)
  graph = npz.load_graph(tmp_path / "s.npz")
  assert graph.node_config_feat.shape == (70, 9, 18) and graph.num_nodes == 120
  assert len(np.unique(graph.config_runtime)) == 70


def test_sparse_packed_graphs_are_complete_and_small(tmp_path):
  unpacked = packing.write_sparse(tmp_path, 10 ** 8, configs=20_000, nodes=300)
  split = collections.load_collection(str(tmp_path / "collection.json"), "train", packed="auto")
  assert unpacked >= 10 ** 8 and unpacked == sum(
      72 * graph.num_configs * len(graph.node_config_ids) for graph in split)
  for name in ("train", "valid"):
    folder = packed.folder_of(registry.get_collection(str(tmp_path / "collection.json")), name)
    assert packed.check(folder, ()) == []
  # The arrays written here equal those of a graph with these configurations.
  actual = split[0]
  rows = np.concatenate([np.arange(500), np.arange(8_100, 8_300), np.arange(19_000, 20_000)])
  plain = graphs.graph_from_arrays("g", {
      **{name: getattr(actual, name) for name in (
          "node_feat", "node_opcode", "edge_index", "node_config_ids")},
      "node_config_feat": actual.layouts(rows), "config_runtime": actual.config_runtime[rows]})
  np.testing.assert_array_equal(actual.config_digests()[rows], plain.config_digests())
  keys = actual.config_keys()[rows]
  np.testing.assert_array_equal(keys[:, None] == keys, plain.config_keys()[:, None]
                                == plain.config_keys())
  np.testing.assert_array_equal(
      actual.runtime_order(), np.argsort(actual.config_runtime, kind="stable"))
  stored = split.paths[0].stat()
  holes = stored.st_size - 512 * stored.st_blocks
  assert holes > 0.5 * split.packs[0].arrays["codes"].nbytes
  assert len(np.unique(actual.config_keys())) > 500


def test_cases_run_in_separate_processes(tmp_path):
  npz.save_graph(tmp_path / "g.npz", synthetic.layout_graph(0))
  actual = cases.run(APP, "pack", tmp_path / "g.npz", tmp_path / "g.pack")
  assert actual["wall_s"] > 0 and actual["cpu_s"] > 0 and 0 < actual["peak_gb"] < 2
  assert packed_graphs.open_graph(packed_format.Reader(tmp_path / "g.pack")).num_configs == 12
  with pytest.raises(errors.TpuGraphsRankError, match="pack .*gone.npz .* failed:(.|\n)*no file"):
    cases.run(APP, "pack", tmp_path / "gone.npz", tmp_path / "g.pack")


@pytest.mark.slow
def test_training_on_packed_graphs(tmp_path):
  packing.write_sparse(tmp_path, 1, configs=40, nodes=60)
  actual = cases.run(APP, "train", tmp_path / "collection.json", tmp_path / "run")
  assert (actual["graphs"], actual["steps"]) == (2, 1)
  assert actual["batch_share"] == pytest.approx(actual["batches_s"] / actual["epoch_s"])
  assert "read from packed files" in (tmp_path / "run" / "train.log").read_text()


def test_the_script(tmp_path, monkeypatch):
  monkeypatch.setattr(packing, "SHAPES", ((50, 4, 60),))
  monkeypatch.setattr(packing, "OPENED", 2)
  done = scripts.run("benchmark_packing", "--output", tmp_path / "out", "--parts", "packing",
                     "--parts", "opening")
  assert done.returncode == 0, done.stderr
  actual = json.loads((tmp_path / "out" / "packing.json").read_text())
  assert json.loads(done.stdout) == {part: actual[part] for part in ("packing", "opening")}
  (row,) = actual["packing"]
  assert (row["configs"], row["configurable"], row["nodes"]) == (50, 4, 60)
  assert row["unpacked_gb"] == pytest.approx(50 * 4 * 72 / 1e9)
  assert 1 < row["configs_bytes"] < row["file_bytes"] and actual["opening"]["graphs"] == 2
  assert [path.name for path in (tmp_path / "out").iterdir()] == ["packing.json"]
