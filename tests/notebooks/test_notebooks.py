"""The notebooks run from top to bottom, somewhere else, without a word on the standard error."""

from collections.abc import Iterator
import json
import pathlib
import re
import sys
from typing import Any

import nbclient
import nbformat
import pytest

from tests import synthetic
from tests.evaluation import small_runs

ROOT = pathlib.Path(__file__).resolve().parents[2]
NOTEBOOKS = ROOT / "notebooks"
NAMES = ("quickstart", "analyse_runs", "synthesise")
TIMEOUT = 300  # Seconds a cell, on a machine that is busy with other things.


@pytest.fixture
def kernel(tmp_path, monkeypatch) -> pathlib.Path:
  """A folder to run notebooks in, by this very Python and with no settings of the user's."""
  spec = tmp_path / "jupyter" / "kernels" / "python3" / "kernel.json"
  spec.parent.mkdir(parents=True)
  spec.write_text(json.dumps({
      "argv": [sys.executable, "-Xfrozen_modules=off", "-m", "ipykernel_launcher", "-f",
               "{connection_file}"],
      "display_name": "Python 3", "language": "python"}))
  folders = {"JUPYTER_PATH": "jupyter", "JUPYTER_CONFIG_DIR": "config", "IPYTHONDIR": "ipython",
             "JUPYTER_RUNTIME_DIR": "runtime", "TMPDIR": "temporary"}
  for variable, name in folders.items():
    (tmp_path / name).mkdir(exist_ok=True)
    monkeypatch.setenv(variable, str(tmp_path / name))
  monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
  monkeypatch.setenv("PYTHONPATH", str(ROOT))
  for variable in ("TPUGRAPHS_RANK_RUNS", "MPLBACKEND"):
    monkeypatch.delenv(variable, raising=False)
  folder = tmp_path / "somewhere"
  folder.mkdir()
  return folder


def _read(name: str) -> nbformat.NotebookNode:
  return nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)


def _run(name: str, folder: pathlib.Path, checks: str = "", **parameters: Any
         ) -> nbformat.NotebookNode:
  """Executes a notebook, with parameters set after its own, and with checks as a last cell."""
  notebook = _read(name)
  place = next(index for index, cell in enumerate(notebook.cells)
               if "parameters" in cell["metadata"].get("tags", ()))
  lines = [f"{key} = {value!r}" for key, value in parameters.items()]
  notebook.cells.insert(place + 1, nbformat.v4.new_code_cell("\n".join(lines)))
  notebook.cells.append(nbformat.v4.new_code_cell(checks))
  nbclient.NotebookClient(notebook, timeout=TIMEOUT, kernel_name="python3",
                          resources={"metadata": {"path": str(folder)}}).execute()
  return notebook


def _outputs(notebook: nbformat.NotebookNode) -> Iterator[nbformat.NotebookNode]:
  for cell in notebook.cells:
    if cell["cell_type"] == "code":
      yield from cell["outputs"]


def _assert_quiet(notebook: nbformat.NotebookNode) -> None:
  loud = [output["text"] for output in _outputs(notebook)
          if output["output_type"] == "stream" and output["name"] == "stderr"]
  assert not loud, "\n".join(loud)


def _printed(notebook: nbformat.NotebookNode) -> str:
  return "".join(output["text"] for output in _outputs(notebook)
                 if output["output_type"] == "stream")


def _plots(notebook: nbformat.NotebookNode) -> int:
  return sum("image/png" in output.get("data", {}) for output in _outputs(notebook))


@pytest.mark.parametrize("name", NAMES)
def test_notebooks_are_committed_clean(name):
  text = (NOTEBOOKS / f"{name}.ipynb").read_text(encoding="utf-8")
  notebook = _read(name)
  nbformat.validate(notebook)  # Cell ids among other things.
  assert notebook.metadata["kernelspec"]["name"] == "python3"
  assert len({cell["id"] for cell in notebook.cells}) == len(notebook.cells)
  for cell in notebook.cells:
    if cell["cell_type"] == "code":
      assert not cell["outputs"] and cell["execution_count"] is None, cell["id"]
      for line in cell["source"].splitlines():
        assert len(line) <= 100, line
  # Places on the machine that wrote it.
  assert not re.search(r"(?<![\w.])(/home/|/root|/tmp|/work|/Users/|/usr/|[A-Z]:\\\\)", text)


def test_no_notebook_is_untested():
  assert sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb")) == sorted(NAMES)


def test_quickstart(kernel):
  checks = """
assert result.epochs == 2 and len(history) == 2
assert len(task.programs) == len(test) == len(frame)
assert list(comparison.columns) == ["OPA", "Kendall's tau", "top-1 slowdown", "top-5 slowdown"]
rankers = set(comparison.index.get_level_values(1))
assert {"residual_gnn", "larger tile first", "random", "other pass"} == rankers
assert len(set(comparison.index.get_level_values(0))) == 2, "seen and unseen groups"
assert comparison.notna().all(axis=None)
assert len(scores) == graph.num_configs and table["predicted rank"].is_monotonic_increasing
"""
  notebook = _run("quickstart", kernel, checks, EPOCHS=2)
  _assert_quiet(notebook)
  assert _plots(notebook) == 4
  assert "finished after 2 epochs" in _printed(notebook)
  assert not list(kernel.iterdir())  # The run lies in a temporary folder.


def test_synthesise(kernel):
  checks = """
assert len(made) == len(dags.load(path)) == COUNT
assert valid.nodes.all() and valid.graphs.all() and not alone.graphs.all()
assert np.corrcoef([row["asked"] for row in rows], [row["mean nodes"] for row in rows])[0, 1] > 0.9
assert distances["tv_opcode"] < 0.15 and distances["wasserstein_layers"] < 3
"""
  notebook = _run("synthesise", kernel, checks)
  _assert_quiet(notebook)
  assert _plots(notebook) == 1
  assert not list(kernel.iterdir())


def _train(folder: pathlib.Path, collection: pathlib.Path, **settings: Any) -> None:
  from tpugraphs_rank import config as config_lib
  from tpugraphs_rank import run_config
  from tpugraphs_rank.training import trainer
  config = config_lib.override(run_config.RunConfig(), {
      "data.collection": str(collection), "training.epochs": 2, "training.tensorboard": False,
      "model.hidden_width": 8, "model.head_widths": [8], **settings})
  trainer.Trainer(config).train(folder)


def test_analyse_runs_scores_runs_that_were_never_evaluated(kernel, tmp_path):
  collection = synthetic.write_collection(tmp_path / "data", counts=(4, 3, 2))
  for seed in (0, 1):
    _train(tmp_path / "runs" / f"seed{seed}", collection, **{"training.seed": seed})
  checks = """
assert list(runs["run"]) == ["seed0", "seed1"] and done.all()
assert {"model", "batch_size", "seed", "state", "best_epoch", "valid_kendall_tau"} <= set(runs)
assert differing == ["seed"]
assert by_settings.loc[("residual_gnn", 8), "runs"] == 2
assert by_settings.loc[("residual_gnn", 8), "valid_kendall_tau_sd"] >= 0
assert len(histories) == 4 and histories["valid_opa"].notna().all()
assert split == "valid" and len(per_graph) == 2 * 3 and models == ["residual_gnn"]
# The best checkpoint ranks as it did when it was chosen.
assert abs(per_graph[per_graph["run"] == "seed1"]["kendall_tau"].mean()
           - runs.loc[1, "valid_kendall_tau"]) < 1e-6
assert {"tau", "top-1 slowdown, %", "unseen group"} <= set(hardest) and len(hardest) == 3
assert hardest["tau"].is_monotonic_increasing
"""
  notebook = _run("analyse_runs", kernel, checks, RUNS=str(tmp_path / "runs"))
  _assert_quiet(notebook)
  assert _plots(notebook) == 2


def test_analyse_runs_on_evaluated_and_damaged_runs(kernel, monkeypatch):
  runs = kernel / "runs"
  for seed in range(3):
    small_runs.write_run(runs / f"residual_gnn-seed{seed}", seed=seed, tau=0.7 + seed / 100)
  small_runs.write_run(runs / "attention_gnn-seed0", model="attention_gnn", batch_size=4, tau=0.75)
  small_runs.write_run(runs / "killed", state="training", model="attention_gnn", batch_size=4, seed=1)
  small_runs.write_run(runs / "damaged", seed=4)
  (runs / "damaged" / "config.json").write_text("{")
  small_runs.write_evaluation(
      runs / "evaluation", {"residual_gnn": 3, "attention_gnn": 1, "random": 3,
                            "size_heuristic": 1, "boosted_trees": 3}, "test", runs / "results.json")
  monkeypatch.setenv("TPUGRAPHS_RANK_RUNS", "runs")
  # From a folder inside, where Jupyter starts a notebook that lies there.
  inside = kernel / "notebooks"
  inside.mkdir()
  checks = """
assert len(runs) == 6 and done.sum() == 4 and list(damaged["run"]) == ["damaged"]
assert set(differing) == {"model", "batch_size", "seed"}
assert list(by_settings["runs"]) == [1, 3] and list(by_settings["unfinished"]) == [1, 0]
assert split == "test" and models == ["residual_gnn", "attention_gnn"]
assert rankers == ["residual_gnn", "attention_gnn", "size_heuristic", "boosted_trees"]
assert set(families.index) == {"family0", "family1", "family2"} and unseen == {"family2"}
assert "tau, boosted_trees" in hardest and len(hardest) == 6
import sys
assert "tensorflow" not in sys.modules
"""
  notebook = _run("analyse_runs", inside, checks)
  _assert_quiet(notebook)
  printed = _printed(notebook)
  assert "6 runs, 4 of them done, 1 with a problem" in printed
  assert "config.json is not valid JSON" in printed
  assert "test: 6 graphs, ranked by residual_gnn, attention_gnn, random" in printed
  assert _plots(notebook) == 2


def test_analyse_runs_says_how_to_make_runs_where_there_are_none(kernel):
  with pytest.raises(nbclient.exceptions.CellExecutionError) as caught:
    _run("analyse_runs", kernel)
  last = re.sub(r"\x1b\[[0-9;]*m", "", str(caught.value)).strip().splitlines()[-1]
  assert "MissingDataError: runs/demo is no folder" in last and "`./run demo`" in last
