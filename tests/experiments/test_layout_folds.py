"""The study of layout features: folds of whole families, resumed cases, and figures by hand."""

import numpy as np
import pytest

from experiments import layout_folds
from tests.experiments import scripts
from tpugraphs_rank import files
from tpugraphs_rank.data import collections
from tpugraphs_rank.data import npz


def test_folds_hold_out_whole_families():
  families = [f"family{number % 17}" for number in range(60)]
  folds = layout_folds.folds_of(families)
  assert sorted(set(folds)) == list(range(layout_folds.FOLDS))
  assert len(set(zip(families, folds))) == 17


def test_a_fold_never_holds_test_programs(tmp_path):
  descriptor = layout_folds.write_fold(tmp_path, 2)
  stems = {path.stem for path in tmp_path.glob("npz/*/*.npz")}
  assert stems == {path.stem for split in ("train", "valid")
                   for path in collections.load_collection(layout_folds.COLLECTION, split).paths}
  counts = files.read_json(descriptor)["splits"]
  assert counts.keys() == {"train", "valid"} and sum(counts.values()) == len(stems)


def test_figures_are_paired_by_program():
  path = collections.load_collection(layout_folds.COLLECTION, "valid").paths[0]
  runtimes = npz.load_graph(path).relative_runtime
  best = {path.stem: (-runtimes).tolist()}
  worst = {path.stem: runtimes.tolist()}
  results = layout_folds.summary({"trees": worst, "trees_costs": best})
  assert results["trees_costs"]["tau"]["mean"] == pytest.approx(1, abs=0.01)
  assert results["trees_costs"]["top1_slowdown"]["mean"] == 0
  assert results["trees"]["top1_slowdown"]["mean"] == pytest.approx(
      np.max(runtimes) / np.min(runtimes) - 1, abs=1e-4)
  assert results["trees_costs"]["tau_over_trees"]["mean"] == pytest.approx(2, abs=0.02)
  assert "| trees_costs | 1 |" in layout_folds.table(results)


def test_means_of_rankers_are_of_standardised_scores():
  cases = {"gnn_both": {"a": [0.0, 2.0], "b": [5.0, 5.0]}, "trees_costs": {"a": [30.0, 10.0]},
           "lambdarank": {"a": [0.0, 1.0]}}
  means = layout_folds.with_means(cases)
  assert set(means) - set(cases) == {
      "gnn and trees", "gnn and lambdarank", "gnn and both trees", "both trees"}
  assert means["gnn and both trees"] == {"a": [-1.0, 1.0]}
  assert means["gnn and lambdarank"] == {"a": [-2.0, 2.0]}
  assert layout_folds.with_means({"gnn_both": {"b": [5.0, 5.0]}, "attention_gnn": {"b": [1.0, 3.0]}}
                                 )["gnn and attention"] == {"b": [-1.0, 1.0]}


def test_a_folder_belongs_to_one_collection_and_its_rows_to_the_requested_folds(tmp_path):
  arguments = ("--output", tmp_path / "out", "--rankers", "default_first")
  done = scripts.run("layout_folds", *arguments, "--folds", "0,3",
                     "--results", tmp_path / "results.json")
  assert done.returncode == 0, done.stderr
  results = files.read_json(tmp_path / "results.json")
  assert results["folds"] == [0, 3]
  programs = results["rankers"]["default_first"]["tau"]["n"]
  one = scripts.run("layout_folds", *arguments, "--folds", "3")
  assert f"| default_first | {programs} |" in done.stdout
  assert f"| default_first | {programs} |" not in one.stdout and "| default_first |" in one.stdout
  other = scripts.run("layout_folds", *arguments, "--collection", "layout:xla_cpu:mixed")
  assert other.returncode == 1 and "was written with other settings" in other.stderr
