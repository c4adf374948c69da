"""The study of final figures: its runs and its table."""

import pathlib

from experiments import quality_study


def test_runs_differ_in_model_and_seed_only():
  configs = quality_study.configs_of("layout_xla_cpu_mixed_ensemble", [0, 3], True, 2)
  assert set(configs) == {"ensemble-seed0", "ensemble-seed3", "attention_gnn-seed0",
                          "attention_gnn-seed3"}
  assert {config.training.epochs for config in configs.values()} == {2}
  assert configs["ensemble-seed3"].training.seed == 3
  assert configs["ensemble-seed0"].model.trees_weight == 1.0
  assert configs["attention_gnn-seed0"].model.trees_weight == 0.0
  assert configs["attention_gnn-seed0"].model.model == "attention_gnn"


def test_a_copy_lacks_the_removed_files(tmp_path: pathlib.Path):
  run = tmp_path / "ensemble-seed1"
  run.mkdir()
  for name in ("config.json", "trees.json", "trees.npz"):
    (run / name).write_text(name)
  copy = quality_study.without(run, "residual_gnn", ["trees.json", "trees.npz"])
  assert copy == tmp_path / "residual_gnn-seed1"
  assert [path.name for path in copy.iterdir()] == ["config.json"]


def test_the_table_has_a_row_for_each_part_and_ranker():
  figure = lambda value: {"mean": value, "sd": 0.0, "n": 1}
  figures = {"tau": figure(0.5), **{f"top{k}_slowdown": figure(k / 100) for k in (1, 5, 10)}}
  results = {
      "seeds": [0],
      "tile:a": {"chosen": figures, "ensemble": figures, "random": figures},
      "tile:a, gains of chosen": {
          "random": {"kendall_tau": {"mean": 0.25, "low": 0.125, "high": 0.5, "n": 9}}}}
  rows = quality_study.table(results).strip().splitlines()[2:]
  assert rows == [
      "| tile:a | ensemble | 0.500 | 1.0 % | 5.0 % | 10.0 % |  |",
      "| tile:a | random | 0.500 | 1.0 % | 5.0 % | 10.0 % | +0.250 (+0.125 to +0.500) |"]
