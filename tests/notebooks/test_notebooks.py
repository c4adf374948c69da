"""The notebooks run from top to bottom in any folder, and write nothing to the standard error."""

from collections.abc import Iterator
import pathlib
import re

import nbformat
import pytest

from tests.helpers import commands
from tests.notebooks import execute as notebooks
from tpugraphs_rank.collect import environment

MAX_BYTES = 500_000  # Of a notebook with its outputs.


@pytest.fixture(name="kernel")
def fixture_kernel(tmp_path) -> Iterator[pathlib.Path]:
  """An empty folder to run notebooks in."""
  with notebooks.kernel(tmp_path) as folder:
    yield folder


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


def _figures(notebook: nbformat.NotebookNode) -> int:
  return sum(bool({"image/png", "image/svg+xml"} & set(output.get("data", {})))
             for output in _outputs(notebook))


def test_all_notebooks_are_tested():
  assert sorted(path.stem for path in notebooks.NOTEBOOKS.glob("*.ipynb")) == sorted(
      notebooks.NAMES)


@pytest.mark.parametrize("name", notebooks.NAMES)
def test_committed_notebooks_are_complete(name):
  path = notebooks.NOTEBOOKS / f"{name}.ipynb"
  text = path.read_text(encoding="utf-8")
  notebook = notebooks.read(name)
  nbformat.validate(notebook)  # Cell ids among other things.
  assert len(text) < MAX_BYTES
  assert notebook.metadata["kernelspec"]["name"] == "python3"
  assert len({cell["id"] for cell in notebook.cells}) == len(notebook.cells)
  for cell in notebook.cells:
    if cell["cell_type"] == "code":
      for line in cell["source"].splitlines():
        assert len(line) <= 100, line
  counts = [cell["execution_count"] for cell in notebook.cells if cell["cell_type"] == "code"]
  assert counts == list(range(1, len(counts) + 1)), (
      f"run `./run python -m tests.notebooks.execute {name}`")
  assert _figures(notebook) >= 2
  _assert_quiet(notebook)
  # Paths of the machine that executed it.
  assert not re.search(r"(?<![\w.])(/home/|/root|/tmp|/work|/Users/|/usr/|[A-Z]:\\\\)", text)


@pytest.mark.slow
def test_quickstart(kernel):
  checks = """
assert set(results["graph"]) == {graph.name for graph in test}
assert list(best) == list(np.argsort(-scores, kind="stable")[:5])
assert len(history) == 1 and compared.notna().all(axis=None)
"""
  notebook = notebooks.execute("quickstart", kernel, checks, EPOCHS=1)
  _assert_quiet(notebook)
  assert _figures(notebook) == 4
  assert not list(kernel.iterdir())  # The run is in a temporary folder.


def test_explore_data(kernel):
  checks = """
import sys
assert "tensorflow" not in sys.modules
assert len(facts) == sum(map(len, loaded.values())) == len(rules) == len(overlap)
assert noise["tau between passes"].notna().all()
"""
  notebook = notebooks.execute("explore_data", kernel, checks)
  _assert_quiet(notebook)
  assert _figures(notebook) == 5


_ANALYSED = """
assert done.all() and not len(damaged)
assert {"model", "seed"} <= set(differing)
assert sorted(by_settings["runs"]) == SEEDS
assert len(histories) == len(runs) == sum(SEEDS)
assert split == "test" and per_graph["graph"].nunique() == families["graphs"].sum()
assert set(models) == {"residual_gnn", "attention_gnn"}
assert unseen and unseen < set(families.index)
assert len(hardest) == per_graph["graph"].nunique() and hardest["tau"].is_monotonic_increasing
"""


def _check_analysis(kernel: pathlib.Path, seeds: list[int], **parameters) -> None:
  """Executes the notebook on runs of two models with these numbers of seeds."""
  notebook = notebooks.execute("analyse_runs", kernel, f"SEEDS = {seeds}\n{_ANALYSED}",
                               **parameters)
  _assert_quiet(notebook)
  assert _figures(notebook) == 2
  count = sum(seeds)
  assert f"{count} runs, {count} of them complete, 0 with a problem" in _printed(notebook)


@pytest.mark.slow
def test_analyse_runs(kernel):
  for model, seed in (("residual_gnn", 0), ("residual_gnn", 1), ("attention_gnn", 0)):
    run = kernel / "runs" / f"{model}-seed{seed}"
    for words in (("train", "--run_dir", run, "--model", model, "--seed", seed, "--epochs", 1,
                   "--hidden_width", 16, "--lists_per_graph", 1),
                  ("evaluate", "--run_dir", run, "--baselines", "size_heuristic")):
      done = commands.run(*words)
      assert done.returncode == 0, done.stderr
  _check_analysis(kernel, [1, 2], RUNS="runs")


@pytest.mark.slow
def test_analyse_runs_trains_runs_of_its_own(kernel):
  _check_analysis(kernel, [2, 2], EPOCHS=1)


@pytest.mark.slow
def test_rank_my_program(kernel):
  checks = """
assert best["score"].is_monotonic_decreasing and len(best) > 50
assert set(slowdown) == {"model", "random order"}
assert has_jax == (folder / "tuned" / "tuned.json").exists()
"""
  notebook = notebooks.execute("rank_my_program", kernel, checks, MEASUREMENTS=4)
  _assert_quiet(notebook)
  assert _figures(notebook) == 4
  assert "best 5 of" in _printed(notebook)
  assert ("the search ended" if environment.is_ready() else "skipped") in _printed(notebook)


@pytest.mark.slow
def test_synthetic_graphs(kernel):
  checks = """
assert len(generated) == len(dags.load(path)) == COUNT
assert valid.nodes.all() and valid.graphs.all() and not free.graphs.all()
assert np.corrcoef(sizes.index, sizes["mean"])[0, 1] > 0.9
"""
  notebook = notebooks.execute("synthetic_graphs", kernel, checks)
  _assert_quiet(notebook)
  assert _figures(notebook) == 4
  assert not list(kernel.iterdir())
