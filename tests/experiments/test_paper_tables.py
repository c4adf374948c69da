"""The study of attention and segment dropout: cells, figures by hand, resuming, the test split."""

import types

import numpy as np
import pytest

from experiments import paper_tables
from tests.experiments import scripts
from tests.training import small_runs
from tpugraphs_rank import config as config_lib
from tpugraphs_rank import errors
from tpugraphs_rank import files


def _run(opa, tau, steps=7):
  """A training on two programs: `opa` and `tau` are those of each at the last evaluation."""
  point = lambda opas, taus, count: {
      "seconds": 1.0, "steps": count, "loss": 0.5, "train_tau": 0.1, "train_opa": 0.6,
      "programs": {f"p{number}": {"opa": one, "tau": two, "top1_slowdown": 0.1,
                                  "top10_slowdown": 0.02}
                   for number, (one, two) in enumerate(zip(opas, taus))}}
  return {"curve": [point([0.5, 0.5], [0.0, 0.0], 1), point(opa, tau, steps)]}


def test_every_cell_is_a_configuration_with_the_settings_of_the_grid():
  hashes = set()
  for model in paper_tables.MODELS:
    for size in paper_tables.BATCHES:
      for segments in paper_tables.SEGMENTS:
        config = paper_tables.config_of("layout:xla_cpu:mixed", (model, size, segments), 3)
        assert config.batch.batch_size == size and config.training.seed == 3
        assert (config.batch.max_nodes, config.batch.max_configs) == (100, 20)
        assert config.batch.segment_mode == paper_tables.SEGMENTS[segments]
        hashes.add(config_lib.stable_hash(config))
  assert len(hashes) == 3 * 3 * 2


def test_figures_are_means_over_programs_and_differences_are_paired():
  cells = {("gnn", 10, "edges"): [_run([0.6, 0.8], [0.2, 0.6])],
           ("gnn_attention", 10, "edges"): [_run([0.7, 0.8], [0.4, 0.6], 3),
                                            _run([0.9, 0.8], [0.8, 0.6], 5)]}
  plain, ours = paper_tables.summary(cells)
  assert plain["opa"] == {"mean": 0.7, "sd": pytest.approx(0.1414, abs=1e-4), "n": 2}
  assert (plain["steps"], ours["steps"], len(ours["curve"])) == (7, 4, 2)
  # Means over the seeds of each program: tau 0.6, 0.6 and OPA 0.8, 0.8.
  assert ours["tau"] == {"mean": 0.6, "sd": 0.0, "n": 2}
  assert ours["tau_over_gnn"] == {
      "mean": 0.2, "sd": pytest.approx(0.4 / 2 ** 0.5, abs=1e-4), "n": 2}
  assert ours["opa_over_gnn"]["mean"] == pytest.approx(0.1)
  results = {"cells": [plain, ours], "seconds": 8.0}
  assert paper_tables.gnn_table(results).splitlines()[2] == (
      "| 10 | edges | 7 | 0.500 | 0.600 | 0.700 ± 0.100 | 0.400 ± 0.200 | 10.0 % | 2.0 % |")
  assert "| +0.200 ± 0.200 |" in paper_tables.attention_table(results)
  assert paper_tables.curves_table(results).splitlines()[2] == (
      "| gnn | 10 | edges | 0.500 / 0.500 | 0.500 / 0.700 |")


def test_a_figure_has_a_line_for_each_cell(tmp_path):
  cells = paper_tables.summary({("gnn", 10, "edges"): [_run([0.6, 0.8], [0.2, 0.6])],
                                ("gnn", 50, "segments"): [_run([0.6, 0.8], [0.2, 0.6])]})
  paper_tables.draw({"cells": cells}, tmp_path / "curves.svg")
  first = (tmp_path / "curves.svg").read_bytes()
  assert b"batch 50" not in first and b"<svg" in first  # Letters are shapes.
  paper_tables.draw({"cells": cells}, tmp_path / "curves.svg")
  assert (tmp_path / "curves.svg").read_bytes() == first


def test_a_cell_of_other_settings_is_refused_and_so_are_unknown_names(tmp_path):
  config = paper_tables.config_of("layout:xla_cpu:mixed", ("gnn", 10, "edges"), 0)
  path = tmp_path / "cell.json"
  files.write_json(path, {"result": {"curve": []}, "settings": {
      "hash": config_lib.stable_hash(config), "seconds": 2.0, "valid_configs": 9}})
  assert paper_tables.cell_of(path, config, 2.0, 9) == {"curve": []}
  with pytest.raises(errors.RunDirectoryError, match="cell.json was written with other settings"):
    paper_tables.cell_of(path, config, 3.0, 9)
  result = scripts.run("paper_tables", "--models", "gnn,cnn", "--output", tmp_path)
  assert result.returncode and "unknown model 'cnn'; expected one of: gnn, gnn_" in result.stderr


def test_a_step_that_does_not_count_is_undone():
  tf = pytest.importorskip("tensorflow")
  from experiments.scale import training
  variables = {"model": [tf.Variable([1.0, 2.0])], "optimizer": [tf.Variable(3, dtype=tf.int64)]}
  executed = []

  def step(batch):
    executed.append(batch)
    for (variable,) in variables.values():
      variable.assign_add(tf.ones_like(variable))

  training._execute_once(types.SimpleNamespace(variables=lambda: variables), step, "batch")
  assert executed == ["batch"]
  assert variables["model"][0].numpy().tolist() == [1.0, 2.0]
  assert variables["optimizer"][0].numpy() == 3


@pytest.mark.slow
def test_the_study_end_to_end_reads_no_test_split(tmp_path):
  descriptor = small_runs.collection(tmp_path / "data", "layout")
  for path in (descriptor.parent / "test").glob("*.npz"):
    path.write_bytes(b"not read")
  arguments = ("--collection", descriptor, "--output", tmp_path / "cells", "--seconds", "0.1",
               "--batches", "2", "--models", "gnn,gnn_nodes", "--valid_configs", "5",
               "--results", tmp_path / "results.json", "--figure", tmp_path / "curves.svg")
  first = scripts.run("paper_tables", *arguments)
  assert first.returncode == 0, first.stderr
  cells = files.read_json(tmp_path / "results.json")["cells"]
  assert [(cell["model"], cell["segments"]) for cell in cells] == [
      ("gnn", "segments"), ("gnn_nodes", "segments"), ("gnn", "edges"), ("gnn_nodes", "edges")]
  for cell in cells:
    assert cell["steps"] >= 1 and len(cell["curve"]) == len(paper_tables.PARTS)
    assert 0 <= cell["opa"]["mean"] <= 1 and np.isfinite(cell["train_loss"])
  table = first.stdout[first.stdout.index("gnn\n\n"):]
  assert scripts.run("paper_tables", *arguments).stdout == table  # From the stored cells.
