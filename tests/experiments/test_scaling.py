"""Scaling in several processes, and plans of large jobs."""

import pathlib

import pytest

from experiments import capacity
from experiments import scaling
from tpugraphs_rank import files

ROOT = pathlib.Path(__file__).resolve().parents[2]


def _row(part, processes, wall, cpu, start_wall, start_cpu):
  return {"part": part, "processes": processes, "wall_s": wall, "cpu_s": cpu,
          "start_wall_s": start_wall, "start_cpu_s": start_cpu}


def test_efficiencies():
  rows = [_row("packing", 0, 40.0, 38.0, 1.0, 1.0), _row("packing", 0, 44.0, 42.0, 1.0, 1.0),
          _row("packing", 2, 30.0, 50.0, 5.0, 6.0), _row("predicting", 2, 9.0, 9.0, 9.5, 9.5),
          _row("predicting", 0, 2.0, 2.0, 1.0, 1.0)]
  alone, two, predicting, _ = scaling.summary(rows)
  assert alone["wall_s"] == 42 and "efficiency" not in alone
  assert two["efficiency"] == 42 / (2 * 30)
  assert two["efficiency_after_start"] == (42 - 1) / (2 * (30 - 5))
  assert two["cpu_efficiency"] == (40 - 1) / (50 - 6)
  assert predicting["efficiency_after_start"] is None
  results = {"summary": scaling.summary(rows), "load": 0.1, "cores": 2}
  assert "| packing | without Beam | 42.0 | 1.0 | 40.0 |  |  |  |" in scaling.table(results)
  assert "other programs" not in scaling.table(results)
  assert "The load was 7.0 on 2 cores" in scaling.table({**results, "load": 7.0})


def test_the_programs_and_a_case(tmp_path, monkeypatch):
  monkeypatch.setattr(scaling, "_PACKED", (6, 3, 20))
  monkeypatch.setattr(scaling, "_SCORED", (20, 3))
  monkeypatch.setattr(scaling, "_START", (20, 2))
  monkeypatch.setattr(scaling, "_COST_PACKED", (9, 3, 20))
  monkeypatch.setattr(scaling, "_COST_SCORED", (20, 4))
  monkeypatch.setattr(scaling, "_MOST_PROCESSES", 2)
  scaling.write_programs(tmp_path, 3)
  assert len(list(tmp_path.glob("packing/*.npz"))) == 3
  assert len(list(tmp_path.glob("predicting-start/*.npz"))) == 2
  assert len(list(tmp_path.glob("predicting-cost/*.npz"))) == 1
  done = scaling.one_case("packing", 0, tmp_path)
  assert done["wall_s"] > 0 and len(done["hash"]) == 32
  assert done["hash"] == scaling.one_case("packing", 0, tmp_path)["hash"]


COSTS = capacity.Costs(pack_s=2e-6, pack_bytes=3.0, searched=1e8, random=1e7, updated=5e6,
                       training_h={"tile:a": 0.5, "layout:a:random": 2.0})
TILES = capacity.Data("tile:a", 100, 3_000_000, 40)
LAYOUTS = capacity.Data("layout:a:random", 20, 1_000_000, 5_000)


def test_costs_of_a_job():
  # 3e6 tiles of 4/3 of a node; 1e6 layouts of 500 nodes.
  assert capacity.cpu_hours(TILES, COSTS, "packing", 0.1) == pytest.approx(4e6 * 2e-6 / 3600)
  assert capacity.cpu_hours(LAYOUTS, COSTS, "packing", 0.1) == pytest.approx(5e8 * 2e-6 / 3600)
  assert capacity.cpu_hours(TILES, COSTS, "prediction", 0.1) == pytest.approx(
      3e6 * 40 / 5e6 / 3600)
  assert capacity.cpu_hours(LAYOUTS, COSTS, "prediction", 0.1) == pytest.approx(
      1e6 * 5000 / 1e7 / 3600)
  assert capacity.cpu_hours(LAYOUTS, COSTS, "training", 0.1) == 2
  assert capacity.packed_gb(LAYOUTS, COSTS, 0.1) == pytest.approx(1e6 * 500 * 3 / 1e9)
  assert capacity.packed_gb(TILES, COSTS, 0.1) == pytest.approx(3e6 * 96 / 1e9)


def test_hours_of_workers():
  assert capacity.hours(10, 1, 100, 0.8, 36) == 10.01
  assert capacity.hours(10, 4, 100, 0.8, 36) == pytest.approx(0.01 + 10 / 3.2)
  # Five programs keep five workers busy.
  assert capacity.hours(10, 64, 5, 0.8, 0) == capacity.hours(10, 5, 5, 0.8, 0) == 2.5
  assert capacity.hours(10, 64, 1, 0.8, 0) == 10


def test_the_plan_from_the_benchmark():
  benchmark = {**files.read_json(ROOT / "results" / "benchmark.json"),
               "recipes": files.read_json(ROOT / "results" / "recipes.json")["recipes"]}
  summary = [{"part": part, "processes": 2, "cpu_efficiency": 0.9, "start_wall_s": 10.0}
             for part in scaling.PARTS]
  once, hundred = (capacity.plan(
      benchmark, {"summary": summary, "cores": 2}, times, [1, 4], 0.1)
                   for times in (1, 100))
  assert [row["job"] for row in once] == list(capacity.JOBS)
  for small, large in zip(once, hundred):
    assert large["cpu_hours"] == pytest.approx(100 * small["cpu_hours"])
    assert small["hours"]["4"] < small["hours"]["1"]
  training = once[2]
  starts = 5 * 10 / 3600  # Of five collections.
  assert training["hours"]["1"] == pytest.approx(starts + training["cpu_hours"])
  # The steps of the recipes for layouts have one list, which one worker processes.
  tile_hours = capacity.costs_of(benchmark).training_h["tile:xla"]
  assert training["hours"]["4"] == pytest.approx(
      starts + training["cpu_hours"] - tile_hours + tile_hours / 3.6)


def test_the_check_of_the_plan():
  rows = [{"part": part, "processes": processes, "wall_s": 20.0, "start_wall_s": start,
           "cpu_efficiency": 0.8} for part in scaling.PARTS
          for processes, start in ((0, 1.0), (1, 3.0), (2, 4.0), (4, 9.0))]
  # 8e6 layouts of nodes at 2e-6 s; 2e8 nodes times configurations at 1e-7 s.
  done = capacity.check({"summary": rows, "cores": 2, "graphs": 4, "packed": [2000, 1000, 9],
                         "scored": [50_000, 1000],
                         "costs": {"packing": 2e-6, "predicting": 1e-7}})
  for part, cpu_s in (("packing", 16.0), ("predicting", 20.0)):
    own = [row for row in done if row["part"] == part]
    # Four processes have two cores.
    assert [row["planned_s"] for row in own] == pytest.approx(
        [1 + cpu_s, 3 + cpu_s, 4 + cpu_s / 1.6, 9 + cpu_s / 1.6])
    assert own[0]["ratio"] == pytest.approx(20 / (1 + cpu_s))
  assert "| predicting | 2 | 16.5 s | 20.0 s | 1.21 |" in capacity.check_table({"check": done})
