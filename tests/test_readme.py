"""The README's tables are those of results/, and its commands exist."""

import importlib.util
import json
import pathlib
import re
import shutil

import pytest

from experiments import tables
from tpugraphs_rank import errors

ROOT = pathlib.Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_tables_are_those_of_the_results():
  assert tables.render(README, ROOT / "results") == README, "./run tables writes them anew"


def test_results_hold_what_is_promised():
  results = json.loads((ROOT / "results" / "tile_xla_cpu.json").read_text(encoding="utf-8"))
  for part in ("models", "models_unseen_groups"):
    assert {"residual_gnn", "attention_gnn", "random", "default_configuration", "size_heuristic",
            "boosted_trees"} <= set(results[part])
    for figures in results[part].values():
      for name in ("opa", "tau", "top1_slowdown", "top5_slowdown", "top10_slowdown"):
        assert set(figures[name]) == {"mean", "sd", "n"}
  for key in ("command", "commit", "packages", "processor", "seeds"):
    assert results[key], key


def test_layouts_are_judged_on_held_back_families():
  results = json.loads(
      (ROOT / "results" / "layout_xla_cpu_mixed.json").read_text(encoding="utf-8"))
  assert (results["collection"], results["split"]) == ("layout:xla_cpu:mixed", "test")
  assert results["graphs"] == 49 and "models_unseen_groups" not in results
  assert {"residual_gnn", "attention_gnn", "random", "default_configuration", "size_heuristic",
          "boosted_trees"} == set(results["models"])
  for model in ("residual_gnn", "attention_gnn"):
    for rival in ("size_heuristic", "boosted_trees"):
      assert results["paired_differences"][model][rival]["kendall_tau"]["low"] > 0


def test_known_programs_are_labelled_as_such():
  results = json.loads((ROOT / "results" / "tpu_kernels.json").read_text(encoding="utf-8"))
  assert results["held_back"] == "new configurations of known programs"
  assert results["models"]["residual_gnn"]["tau"]["n"] == len(results["seeds"]) >= 3


def test_the_benchmark_holds_what_is_promised():
  results = json.loads((ROOT / "results" / "benchmark.json").read_text(encoding="utf-8"))
  ratios = results["speedup_over_plain"]
  for task in ("train", "inference"):
    assert set(ratios[task]) == {"13_31", "47_81"}
    assert min(ratios[task].values()) > 1
  assert ratios["distinct_state"] > 1


def test_the_study_of_synthetic_programs_holds_what_is_promised():
  results = json.loads((ROOT / "results" / "augmentation.json").read_text(encoding="utf-8"))
  by_cell = {(one["budget"], one["arm"]): one for one in results["comparisons"]}
  for budget in (5, 10):
    # What the README says: above both others where training has the group, level with the controls.
    for arm in ("layerdag", "layerdag_matched"):
      assert by_cell[budget, arm]["low_vs_real"] > 0 < by_cell[budget, arm]["low_vs_oversampled"]
      assert by_cell[budget, arm]["programs"] == "seen" and by_cell[budget, arm]["n_seeds"] >= 8
  for budget in (5, 10, 20, 40, 162):
    matched = by_cell[budget, "layerdag_matched"]
    for part in ("seen", "unseen_groups"):
      for control in ("random_graphs", "templates"):
        gain = matched["parts"][part][control]["tau"]
        assert abs(gain["mean"]) < (0.015 if part == "seen" else 0.08)
        assert gain["low"] < 0 < gain["high"]
  assert results["split"] == "test" and results["commit"] and results["command"]
  screen = json.loads((ROOT / "results" / "augmentation_screen.json").read_text(encoding="utf-8"))
  assert screen["split"] == "valid" and not set(screen["seeds"]) & set(results["seeds"])
  by_arm = {one["arm"]: one for one in screen["comparisons"]}
  for arm in ("layerdag_auxiliary", "layerdag_selfsupervised"):
    assert by_arm[arm]["low_vs_oversampled"] < 0 and by_arm[arm]["low_vs_control"] < 0
  assert by_arm["layerdag_selfsupervised_measured"]["low_vs_control"] < 0
  assert by_arm["layerdag"]["low_vs_oversampled"] > 0


def test_the_study_of_layouts_holds_what_is_promised():
  results = json.loads(
      (ROOT / "results" / "augmentation_layout.json").read_text(encoding="utf-8"))
  by_cell = {(one["budget"], one["arm"]): one for one in results["comparisons"]}
  assert results["split"] == "test" and results["cases"] == results["cases_done"]
  for budget in (5, 10):
    for arm in ("layerdag", "layerdag_matched"):
      assert by_cell[budget, arm]["low_vs_real"] > 0 < by_cell[budget, arm]["low_vs_oversampled"]
      assert by_cell[budget, arm]["n_seeds"] >= 8
  for budget in (5, 10, 20, 40, 100):
    matched = by_cell[budget, "layerdag_matched"]
    for control in ("random_graphs", "templates"):
      assert matched[f"gain_vs_{control}"] > 0 > matched[f"low_vs_{control}"]
      for baseline in ("real", "oversampled"):
        assert by_cell[budget, control][f"low_vs_{baseline}"] < 0
  screen = json.loads(
      (ROOT / "results" / "augmentation_layout_strategies.json").read_text(encoding="utf-8"))
  assert screen["split"] == "valid" and not set(screen["seeds"]) & set(results["seeds"])
  for one in screen["comparisons"]:
    assert one["low_vs_oversampled"] < 0 < one["high_vs_oversampled"], one["arm"]
  repeat = json.loads(
      (ROOT / "results" / "augmentation_layout_repeat.json").read_text(encoding="utf-8"))
  assert not set(repeat["seeds"]) & set(results["seeds"]) and repeat["tasks"] == results["tasks"]
  for one in repeat["comparisons"]:
    gains = min(one["low_vs_real"], one["low_vs_oversampled"])
    assert (gains > 0) == one["arm"].startswith("layerdag")
    for control in ("random_graphs", "templates"):
      if one["arm"] == "layerdag_matched":
        assert one[f"gain_vs_{control}"] > 0 > one[f"low_vs_{control}"]


def test_labels_gain_nothing_as_the_readme_says():
  results = json.loads((ROOT / "results" / "augmentation_labels.json").read_text(encoding="utf-8"))
  assert results["seeds"] >= 5 and results["valid_graphs"] == 126
  assert {one["budget"] for one in results["comparisons"]} >= {20, 40, 80, results["train_graphs"]}
  for one in results["comparisons"]:
    for rival in ("real", "real_oversampled"):
      for measure in ("pearson", "mae"):
        gain = one["gains"][rival][measure]
        assert gain["low"] < 0 < gain["high"], (one["budget"], one["arm"], measure)


def test_layerdag_holds_what_is_promised():
  results = json.loads((ROOT / "results" / "layerdag_tpu_tile.json").read_text(encoding="utf-8"))
  for name in ("synthetic", "real", "shuffled"):
    assert set(results[f"pearson_{name}"]) == {"mean", "sd", "n"}
    assert results[f"pearson_{name}"]["n"] >= 3
  for name in ("arity_valid_nodes", "arity_valid_graphs", "wasserstein_layers", "tv_opcode",
               "label_correlation", "copies_of_training", "graphs_per_cpu_second"):
    assert isinstance(results[name], float), name
  assert "layerdag_study" in results["command"]


def test_a_changed_figure_changes_the_readme(tmp_path: pathlib.Path):
  results = json.loads((ROOT / "results" / "tile_xla_cpu.json").read_text(encoding="utf-8"))
  results["models"]["residual_gnn"]["tau"]["mean"] -= 0.1
  for path in (ROOT / "results").glob("*.json"):
    shutil.copy(path, tmp_path)
  (tmp_path / "tile_xla_cpu.json").write_text(json.dumps(results), encoding="utf-8")
  assert tables.render(README, tmp_path) != README


def test_an_unknown_table_is_refused():
  with pytest.raises(errors.DataError, match="'nonsense'.*tile_xla_cpu"):
    tables.render(README + "<!-- table nonsense -->\n<!-- end of table -->\n", ROOT / "results")


def test_a_missing_table_is_refused():
  with pytest.raises(errors.DataError, match="lacks the tables"):
    tables.render("no tables here", ROOT / "results")


def test_commands_and_files_exist():
  modules = set(re.findall(r"python -m (experiments\.\w+)", README))
  assert modules
  for module in modules:
    assert importlib.util.find_spec(module), module
  for path in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
    assert (ROOT / path).exists(), path
  script = (ROOT / "run").read_text(encoding="utf-8")
  for task in set(re.findall(r"\./run ([a-z][a-z-]*)", README)):
    assert re.search(rf"^  (?:[a-z-]+ \| )*{task}(?: \| [a-z-]+)*\)", script, re.MULTILINE), task
