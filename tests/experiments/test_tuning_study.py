"""The strategies of the study of tuning, on a pool whose times are known."""

import types

import numpy as np
import pytest

from experiments import tuning_study
from tpugraphs_rank import errors


@pytest.fixture(name="pool")
def fixture_pool() -> tuning_study.Pool:
  """Twenty configurations of three slots; each request costs time."""
  rng = np.random.default_rng(0)
  layouts = np.full((20, 1, 18), -1, np.int8)
  for row in range(1, 20):
    for slot in range(3):
      if rng.random() < 0.6:
        layouts[row, 0, 6 * slot:6 * slot + 2] = rng.permutation(2)
  requested = (layouts[:, 0, ::6] >= 0).astype(np.float32)
  times = (1e6 * (1 + requested @ [0.3, -0.1, 0.05] + 0.001 * np.arange(20))).astype(np.int64)
  graph = types.SimpleNamespace(
      name="program", num_configs=20, config_runtime=times, layouts=lambda rows: layouts[rows])
  effects = np.zeros((20, 1, 3, 15), np.float32)
  effects[:, 0, :, 0] = requested
  simulated = types.SimpleNamespace(effects=lambda _: effects)
  return tuning_study.Pool(graph, -times.astype(float), simulated)


@pytest.mark.parametrize("name", [
    name for name in tuning_study.STRATEGIES if name != tuning_study.TPE])
def test_every_strategy_measures_the_default_first_and_nothing_twice(pool, name) -> None:
  order = tuning_study.ORDERS[name](pool, 12, 1)
  assert order[0] == 0 and len(set(order)) == len(order) == 12
  assert order == tuning_study.ORDERS[name](pool, 12, 1)
  if name == tuning_study.RANKED:  # The scores are the times themselves.
    assert pool.slowdowns(order, 3).tolist()[1:] == [0.0, 0.0]


def test_tpe_measures_configurations_of_the_pool(pool) -> None:
  pytest.importorskip("optuna", reason="needs the extra `sweep`")
  order = tuning_study.tpe(pool, 8, 0)
  assert order[0] == 0 and len(set(order)) == len(order) == 8


def test_a_part_of_a_pool_has_the_default_and_a_share_of_the_others(pool) -> None:
  place = {runtime: position for position, runtime in enumerate(pool.runtimes)}  # All differ.
  parts = [pool.part(0.5, seed) for seed in range(40)]
  for part in parts:
    kept = [place[runtime] for runtime in part.runtimes]
    assert kept[0] == 0 and len(set(kept)) == len(kept) == 1 + round(0.5 * 19)
    assert part.codes.tolist() == pool.codes[kept].tolist()
    assert all(mine.tolist() == block[kept].tolist()
               for mine, block in zip(part.blocks, pool.blocks))
  assert {runtime for part in parts for runtime in part.runtimes} == set(pool.runtimes)
  assert pool.part(1.0, 0) is pool


def test_the_slowdown_is_that_of_the_best_so_far(pool) -> None:
  best = pool.runtimes.min()
  assert pool.slowdowns([0, 5], 4) == pytest.approx([
      pool.runtimes[0] / best - 1, *[min(pool.runtimes[[0, 5]]) / best - 1] * 3])


def test_the_summary_has_paired_differences(pool, tmp_path) -> None:
  curves, decisions = tuning_study.study([pool, pool], ["random", "adaptive"], 6, 2)
  assert 0 <= decisions["random"] < 1
  strategies = tuning_study.summary(curves)
  paired = strategies["random"]["more_than_adaptive"]["5"]["mean"]
  assert paired == pytest.approx(
      strategies["random"]["at"]["5"]["mean"] - strategies["adaptive"]["at"]["5"]["mean"])
  results = {"strategies": strategies}
  assert "`adaptive`" in tuning_study.table(results)
  tuning_study.draw(results, tmp_path / "curves.svg")
  assert (tmp_path / "curves.svg").stat().st_size > 1000


def test_slowdowns_after_some_seconds() -> None:
  # Half a second each, and a half to decide: 5 measurements in 5 seconds, all 6 in 10.
  curve = np.array([[6.0, 5, 4, 3, 2, 1], [12.0, 10, 8, 6, 4, 2]])
  after = tuning_study.after_seconds(curve, [0.5, 9.5], 0.5)
  # The second program takes 10 seconds for each: none after 5 seconds, where the default counts.
  assert [after[str(seconds)]["mean"] for seconds in (5, 10, 20, 40)] == [
      (2 + 12) / 2, (1 + 12) / 2, (1 + 10) / 2, (1 + 6) / 2]
  table = tuning_study.seconds_table({"strategies": {"random": {
      "decision_seconds": 0.25, "after_seconds": after}}})
  assert "| `random` | 0.250 | 700.00 (" in table


def test_a_folder_without_measured_programs_is_refused(tmp_path) -> None:
  with pytest.raises(errors.MissingDataError, match="experiments.tuning_live --output"):
    tuning_study.live_pools(tmp_path)


def test_programs_of_two_results_are_compared_together() -> None:
  first = {"random": {"a": 0.5, "b": 0.3}, "adaptive": {"a": 0.1, "b": 0.2}}
  second = {"random": {"c": 0.2}, "adaptive": {"c": 0.4}}
  both = tuning_study.together([first, second])
  assert list(both) == ["random"]
  assert both["random"]["mean"] == pytest.approx((0.4 + 0.1 - 0.2) / 3)
  assert "| `random` | 10.00 (" in tuning_study.together_table({"together": both})
