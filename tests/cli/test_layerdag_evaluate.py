"""The command that compares generated graphs with real ones."""

import json

import pytest

from tests import testdata
from tests.helpers import commands
from tests.synthesis import small_dags
from tpugraphs_rank.synthesis.dags import dags
from tpugraphs_rank.synthesis.judging import forest


def _run(*arguments):
  return commands.run("layerdag evaluate", *arguments)


def test_a_report(tmp_path, monkeypatch):
  monkeypatch.setattr(forest, "_TREES", 20)
  real, sample = small_dags.graphs(80, 0), small_dags.graphs(30, 1)
  dags.save(tmp_path / "real.npz", real)
  dags.save(tmp_path / "synthetic.npz", sample.with_provenance({"graphs_per_cpu_second": 50.5}))
  done = _run("--real", tmp_path / "real.npz", "--synthetic", tmp_path / "synthetic.npz",
              "--seeds", 1, "--max_epochs", 1, "--drawn", 3, "--split_seed", 2,
              "--output", tmp_path / "report",
              "--results", tmp_path / "results" / "synthetic.json")
  assert done.returncode == 0, done.stderr
  page = (tmp_path / "report" / "report.md").read_text(encoding="utf-8")
  assert done.stdout.startswith(page)
  for name in ("distributions.png", "graphs.png", "results.json"):
    assert (tmp_path / "report" / name).stat().st_size > 1000
  results = json.loads((tmp_path / "results" / "synthetic.json").read_text(encoding="utf-8"))
  assert results == json.loads((tmp_path / "report" / "results.json").read_text(encoding="utf-8"))
  for name in ("pearson_synthetic", "pearson_real", "pearson_shuffled", "forest_pearson_synthetic",
               "forest_pearson_real", "forest_pearson_shuffled"):
    assert set(results[name]) == {"mean", "sd", "n"}
  for name in ("arity_valid_nodes", "arity_valid_graphs", "wasserstein_layers", "tv_opcode",
               "label_correlation", "copies_of_training", "commit", "packages", "processor"):
    assert results[name] is not None, name
  assert results["graphs_per_cpu_second"] == 50.5 and results["seeds"] == [0]
  assert results["real_graphs"] == {
      "file": "real.npz", "split_seed": 2, "shares": {"valid": 0.2, "test": 0.2}}
  assert results["command"].startswith("tpugraphs-rank layerdag evaluate ")
  expected = dags.split_by_wl(real, dags.SHARES, 2)
  assert results["real"]["test"] == len(expected["test"])


@pytest.mark.parametrize("arguments, message", [
    ([], "error: expected either --real, or --train, --valid and --test: the files of"),
    (["--real", "a.npz", "--test", "b.npz"], "error: expected either --real, or --train"),
    (["--train", "a.npz"], "error: expected either --real, or --train"),
    (["--real", "/nowhere/a.npz"], "error: no file /nowhere/a.npz"),
])
def test_a_mistake_is_one_line(arguments, message, tmp_path):
  done = _run("--output", tmp_path / "out", *arguments)
  assert done.returncode == 1 and done.stdout == ""
  assert done.stderr.startswith(message) and done.stderr.count("\n") == 1
  assert not (tmp_path / "out").exists()


@testdata.required
@pytest.mark.slow
def test_real_kernels_compared_with_each_other(tmp_path):
  done = _run("--real", testdata.path("layerdag_tpu_tile/tpu_tile_val.npz"), "--seeds", 1,
              "--max_epochs", 1, "--output", tmp_path)
  assert done.returncode == 0, done.stderr
  results = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
  assert results["real"] == {"train": 378, "valid": 126, "test": 126,
                             "test_with_a_twin_in_training": 0, "structures": 302}
  assert results["floor"]["arity_valid_nodes"] > 0.99
  assert results["floor"]["copies_of_training"] == 0
  assert results["floor"]["random_split"]["copies_of_training"] > 0.5
