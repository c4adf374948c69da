"""The study of final figures: its runs and its table."""

import pathlib

from experiments import quality_study


def test_runs_differ_in_model_and_seed_only():
  configs = quality_study.configs_of(
      "layout_xla_cpu_mixed_ensemble", [0, 3], ["attention_gnn", "kinds"], 2)
  assert set(configs) == {"ensemble-seed0", "ensemble-seed3", "attention_gnn-seed0",
                          "attention_gnn-seed3", "kinds-seed0", "kinds-seed3"}
  assert {config.training.epochs for config in configs.values()} == {2}
  assert configs["ensemble-seed3"].training.seed == 3
  assert configs["ensemble-seed0"].model.trees_weight == 1.0
  assert configs["attention_gnn-seed0"].model.trees_weight == 0.0
  assert configs["attention_gnn-seed0"].model.model == "attention_gnn"
  assert configs["kinds-seed3"].model.kinds == ({"model": "attention_gnn"},)
  assert configs["kinds-seed3"].model.trees_weight == 1.0


def test_a_copy_lacks_the_removed_files(tmp_path: pathlib.Path):
  run = tmp_path / "ensemble-seed1"
  run.mkdir()
  for name in ("config.json", "trees.json", "trees.npz"):
    (run / name).write_text(name)
  copy = quality_study.without(run, "residual_gnn", ["trees.json", "trees.npz"])
  assert copy == tmp_path / "residual_gnn-seed1"
  assert [path.name for path in copy.iterdir()] == ["config.json"]


def test_tables_have_a_row_for_each_ranker():
  figure = lambda value: {"mean": value, "sd": 0.125, "n": 2}
  figures = {"opa": figure(0.75), "tau": figure(0.5),
             **{f"top{k}_slowdown": figure(k / 100) for k in (1, 5, 10)}}
  results = {
      "seeds": [0, 1],
      "tile:xla_cpu": {"chosen": figures, "ensemble": figures, "random": figures},
      "tile:xla_cpu, gains of chosen": {"random": {
          "kendall_tau": {"mean": 0.25, "low": 0.125, "high": 0.5, "n": 9},
          "top1_slowdown": {"mean": 0.5, "low": -0.25, "high": 0.75, "n": 9}}}}
  assert quality_study.summary_table(results).splitlines()[2:] == [
      f"| {name} | 0.750 ± 0.125 | 0.500 ± 0.125 | 1.00 ± 12.50 % | 5.00 ± 12.50 % |"
      for name in ("ensemble (chosen)", "random")]
  assert quality_study.seen_gains_table(results).splitlines()[2:] == [
      "| random | +0.250 [+0.125, +0.500] | +50.00 [-25.00, +75.00] % | 9 |"]
