"""How the study of LayerDAG joins its numbers; the demo and the benchmark, at a small scale."""

import json

import numpy as np
import pytest

pytest.importorskip("tensorflow")

from experiments import layerdag_study
from tests.cli import test_layerdag
from tests.synthesis.layerdag import test_growth
from tpugraphs_rank import errors
from tpugraphs_rank import folder_settings
from tpugraphs_rank.synthesis.dags import dags as dags_lib


def _division(synthetic, real, layers):
  summary = lambda values: {"mean": float(np.mean(values)), "sd": 0.0, "n": len(values)}
  return {"pearson_synthetic": summary(synthetic), "pearson_real": summary(real),
          "wasserstein_layers": layers, "tv_opcode": None, "label": "runtime",
          "surrogates": {"synthetic": [{"pearson": value} for value in synthetic],
                         "real": [{"pearson": value} for value in real]}}


def test_divisions_are_joined_surrogate_by_surrogate():
  found = layerdag_study.joined([_division([0.2, 0.4], [0.5], 1.0), _division([0.6], [0.7], 3.0)])
  assert found["pearson_synthetic"] == {
      "mean": pytest.approx(0.4), "sd": pytest.approx(np.std([0.2, 0.4, 0.6], ddof=1)), "n": 3}
  assert found["pearson_real"]["mean"] == pytest.approx(0.6)
  assert found["wasserstein_layers"] == 2.0
  assert "tv_opcode" not in found and "label" not in found
  table = layerdag_study.readme_table({
      **found, "variants_on_division_0": {"main": found, "no_guidance": {"train_minutes": 5.3}}})
  assert table.splitlines()[0] == "|  | all divisions | first division | no guidance |"
  assert table.splitlines()[-1].endswith("| - | - | 5 |")
  text = layerdag_study.markdown({"main": found, "other": {}})
  assert "| pearson_synthetic | 0.400 ± 0.200 | - |" in text
  assert "| wasserstein_layers | 2.000 | - |" in text


def test_the_demo_then_growth(tmp_path):
  dags_lib.save(tmp_path / "all.npz", test_growth.make(1, count=40))
  output = tmp_path / "demo"
  divided = test_layerdag._run("layerdag_graphs", "--graphs", tmp_path / "all.npz", "--divide",
                               "--output", output / "graphs.npz")
  assert divided.returncode == 0, divided.stderr
  arguments = ["--output", output, "--epochs=12", "--width=16", "--surrogate_epochs=2"]
  done = test_layerdag._run("layerdag_demo", *arguments)
  assert done.returncode == 0, done.stderr[-3000:]
  assert "$ python -m tpugraphs_rank.cli.layerdag_train" in done.stdout and "report.md" in done.stdout
  found = json.loads((output / "report" / "results.json").read_text())
  assert found["arity_valid_graphs"] == 1.0 and found["graphs_per_cpu_second"] > 0
  growth = test_layerdag._run("layerdag_benchmark", "--run_dir", output / "run", "--sizes=4,9",
                              "--count=4", "--repeats=1", "--output", tmp_path / "growth")
  assert growth.returncode == 0, growth.stderr[-3000:]
  rows = json.loads((tmp_path / "growth" / "growth.json").read_text())["growth"]
  assert [row["nodes_asked"] for row in rows] == [4, 9]
  assert (tmp_path / "growth" / "growth.png").read_bytes().startswith(b"\x89PNG")


def test_sizes_are_whole_numbers():
  failed = test_layerdag._run("layerdag_benchmark", "--run_dir=none", "--sizes=4,big")
  assert failed.returncode == 1 and "--sizes=4,big; expected whole numbers" in failed.stderr


def test_what_is_kept_belongs_to_one_set_of_settings(tmp_path):
  folder_settings.check(tmp_path, {"guidance": 1.5, "graphs": "abc"})
  folder_settings.check(tmp_path, {"guidance": 1.5, "graphs": "abc"})
  with pytest.raises(errors.RunDirectoryError, match="guidance: stored 1.5, requested 2.0"):
    folder_settings.check(tmp_path, {"guidance": 2.0, "graphs": "abc"})
