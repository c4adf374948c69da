"""LayerDAG's study and benchmark, and its demo at a small size."""

import json

import numpy as np
import pytest

pytest.importorskip("tensorflow")

from experiments import layerdag_study
from tests.experiments import scripts
from tests.helpers import commands
from tests.synthesis.layerdag import test_growth
from tests.synthesis.layerdag import test_model
from tpugraphs_rank import config as config_lib
from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank import folder_settings
from tpugraphs_rank.synthesis.dags import dags as dags_lib


def _division(synthetic, real, layers):
  summary = lambda values: {"mean": float(np.mean(values)), "sd": 0.0, "n": len(values)}
  entries = lambda values: [{"pearson": value} for value in values]
  distances = {name: layers for name in layerdag_study._DISTANCES}
  return {"pearson_synthetic": summary(synthetic), "pearson_real": summary(real),
          "forest_pearson_synthetic": summary(real),
          "wasserstein_layers": layers, "tv_opcode": None, "label": "runtime",
          "surrogates": {"synthetic": entries(synthetic), "real": entries(real)},
          "forests": {"synthetic": entries(real)},
          "samples": [{"to_test": {name: 2 * value for name, value in distances.items()}},
                      {"to_test": {name: 4 * value for name, value in distances.items()}}],
          "floor": {"test_to_training": distances}}


def test_splits_are_combined_over_all_surrogates():
  actual = layerdag_study.joined([_division([0.2, 0.4], [0.5], 1.0), _division([0.6], [0.7], 3.0)])
  assert actual["pearson_synthetic"] == {
      "mean": pytest.approx(0.4), "sd": pytest.approx(np.std([0.2, 0.4, 0.6], ddof=1)), "n": 3}
  assert actual["pearson_real"]["mean"] == pytest.approx(0.6)
  assert actual["forest_pearson_synthetic"]["mean"] == pytest.approx(0.6)
  assert actual["wasserstein_layers"] == 2.0
  assert "tv_opcode" not in actual and "label" not in actual
  table = layerdag_study.readme_table({
      **actual, "variants_on_division_0": {
          "main": actual, "no_guidance": {"train_cpu_minutes": 5.32}}})
  assert table.splitlines()[0] == "|  | all divisions | first division | no guidance |"
  assert table.splitlines()[-1].endswith("| - | - | 5.3 |")
  text = layerdag_study.markdown({"main": actual, "other": {}})
  assert "| pearson_synthetic | 0.400 ± 0.200 | - |" in text
  assert "| wasserstein_layers_to_test | 3.000 | - |" in layerdag_study.markdown(
      {"main": {"wasserstein_layers_to_test": 3.0}, "other": {}})


@pytest.mark.slow
def test_the_demo(tmp_path):
  dags_lib.save(tmp_path / "all.npz", test_growth.make(1, count=40))
  output = tmp_path / "demo"
  divided = commands.run("layerdag graphs", "--graphs", tmp_path / "all.npz", "--divide",
                         "--output", output / "graphs.npz")
  assert divided.returncode == 0, divided.stderr
  done = commands.run("layerdag demo", "--output", output, "--epochs=12", "--width=16",
                      "--surrogate_epochs=2")
  assert done.returncode == 0, done.stderr[-3000:]
  assert "$ tpugraphs-rank layerdag train" in done.stdout and "report.md" in done.stdout
  results = json.loads((output / "report" / "results.json").read_text())
  assert results["arity_valid_graphs"] == 1.0 and results["graphs_per_cpu_second"] > 0


@pytest.mark.slow
def test_the_benchmark(tmp_path):
  model, _ = test_model.untrained()
  model.save(tmp_path / "run" / "model.npz")
  files.write_json(tmp_path / "run" / "config.json", config_lib.to_dict(model.config))
  done = scripts.run("layerdag_benchmark", "--run_dir", tmp_path / "run", "--sizes=50,90",
                     "--count=2", "--repeats=1", "--output", tmp_path / "growth")
  assert done.returncode == 0, done.stderr[-3000:]
  rows = json.loads((tmp_path / "growth" / "growth.json").read_text())["growth"]
  assert [row["nodes_asked"] for row in rows] == [50, 90]
  assert (tmp_path / "growth" / "growth.png").read_bytes().startswith(b"\x89PNG")


def test_sizes_are_whole_numbers():
  failed = scripts.run("layerdag_benchmark", "--run_dir=none", "--sizes=4,big")
  assert failed.returncode == 1 and "--sizes=4,big; expected whole numbers" in failed.stderr


def test_the_study_runs_the_commands_and_keeps_their_results(tmp_path, monkeypatch):
  dags_lib.save(tmp_path / "graphs.npz", test_growth.make(1, count=40))
  ran = []

  def run(name, *arguments):
    values = dict(zip(arguments[::2], arguments[1::2])) if name != "graphs" else {}
    ran.append(name)
    if name == "graphs":
      output = arguments[arguments.index("--output") + 1]
      output.parent.mkdir(parents=True)
      for split in ("train", "valid", "test"):
        dags_lib.save(output.with_name(f"graphs_{split}.npz"), test_growth.make(2, count=6))
    elif name == "train":
      values["--run_dir"].mkdir(parents=True)
      (values["--run_dir"] / "model.npz").write_bytes(b"")
    elif name == "sample":
      values["--output"].parent.mkdir(exist_ok=True)
      values["--output"].write_bytes(b"")
    else:
      report = arguments[arguments.index("--output") + 1]
      report.mkdir()
      (report / "results.json").write_text(json.dumps(_division([0.2, 0.4], [0.5, 0.5], 1.0)))
    return 60.0

  monkeypatch.setattr(layerdag_study, "_command", run)
  arguments = ["--graphs", tmp_path / "graphs.npz", "--output", tmp_path / "study",
               "--divisions=2", "--jobs=1", "--variants=no_guidance", "--results",
               tmp_path / "results.json"]
  done = scripts.run("layerdag_study", *arguments)
  assert done.returncode == 0, done.stderr
  assert sorted(ran) == 3 * ["evaluate"] + 2 * ["graphs"] + 3 * ["sample"] + 2 * ["train"]
  results = json.loads((tmp_path / "results.json").read_text())
  assert results["pearson_synthetic"]["n"] == 4 and results["train_cpu_minutes"] == 1.0
  # The mean over two samples, and the distance of the training graphs.
  assert results["wasserstein_users_to_test"] == 3.0 and results["wasserstein_users_floor"] == 1.0
  assert set(results["variants_on_division_0"]) == {"main", "no_guidance"}
  ran.clear()
  assert scripts.run("layerdag_study", *arguments).returncode == 0 and not ran


def test_a_command_reports_its_cpu_time_and_its_failure(tmp_path):
  seconds = layerdag_study._command("graphs", "--rule=balanced", "--count=2", "--nodes=20",
                                    "--output", tmp_path / "graphs.npz")
  assert (tmp_path / "graphs.npz").exists() and 0 < seconds < 600
  message = r"layerdag graphs failed .exit status 1.:\n.*no file"
  with pytest.raises(errors.TrainingError, match=message):
    layerdag_study._command("graphs", "--graphs", tmp_path / "none.npz", "--output",
                            tmp_path / "other.npz")


def test_a_folder_is_tied_to_its_settings(tmp_path):
  folder_settings.check(tmp_path, {"guidance": 1.5, "graphs": "abc"})
  folder_settings.check(tmp_path, {"guidance": 1.5, "graphs": "abc"})
  with pytest.raises(errors.RunDirectoryError, match="guidance: stored 1.5, requested 2.0"):
    folder_settings.check(tmp_path, {"guidance": 2.0, "graphs": "abc"})
