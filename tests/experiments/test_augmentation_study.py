"""Studies of synthetic programs: their plans, their cases, and both programs at a small size."""

import json
import pathlib
import shutil

import pytest

from experiments import augmentation_study
from tests import synthetic
from tests.experiments import scripts
from tests.helpers import commands
from tests.synthesis.augment import test_gains
from tests.training import small_runs
from tpugraphs_rank import config as config_lib
from tpugraphs_rank import errors
from tpugraphs_rank import run_config
from tpugraphs_rank.cli import augment_cases as cases_lib
from tpugraphs_rank.data import npz
from tpugraphs_rank.synthesis.augment import gains


def _synthetic(folder: pathlib.Path, count: int, first: int = 50) -> str:
  for index in range(count):
    graph = synthetic.tile_graph(first + index, num_nodes=14 + index, name=f"synthetic.{index}")
    npz.save_graph(folder / "npz" / "train" / f"{graph.name}.npz", graph)
  path = folder / "collection.json"
  path.write_text(json.dumps({
      "name": "tile:synthetic_programs", "kind": "tile", "target": "none", "path": "npz",
      "splits": {"train": count}}))
  return str(path)


@pytest.fixture(name="tiny", scope="module")
def _tiny(tmp_path_factory):
  """A real collection, two synthetic ones of different sizes, and settings of a tiny model."""
  folder = tmp_path_factory.mktemp("tiny")
  real = str(synthetic.write_collection(folder / "real", counts=(6, 2, 4)))
  nested = config_lib.to_dict(config_lib.override(run_config.RunConfig(), small_runs.TINY))
  (folder / "settings.json").write_text(json.dumps(nested))
  return {"folder": folder, "real": real, "config": str(folder / "settings.json"),
          "layerdag": _synthetic(folder / "layerdag", 4),
          "random": _synthetic(folder / "random", 3, 70)}


def _settings(tiny, sources=("layerdag",), **changes):
  base = cases_lib.recipe(tiny["real"], tiny["config"], 2, 3, {
      "batch.batch_size": 4, **{name.replace("_", ".", 1): value
                                for name, value in changes.items()}})
  names = {"layerdag": cases_lib.LAYERDAG, "random": gains.RANDOM}
  return cases_lib.Settings(base, {names[source]: tiny[source] for source in sources})


def _configs(cases):
  return {case["arm"]: config_lib.from_dict(run_config.RunConfig, case["config"]) for case in cases}


# ---- the plan ------------------------------------------------------------------------------------


def test_arms_differ_only_in_their_own_settings(tiny):
  settings = cases_lib.equal_numbers(_settings(tiny, ("layerdag", "random")))
  cases = cases_lib.plan({"tile:real": settings}, [3], augmentation_study.ARMS, [7])
  json.dumps(cases)
  configs = _configs(cases)
  assert list(configs) == [arm for arm in augmentation_study.ARMS if arm != "templates"]
  reference = configs["layerdag"]
  assert (reference.data.max_graphs, reference.training.seed) == (3, 7)
  assert reference.augment.synthetic == tiny["layerdag"]
  assert reference.augment.synthetic_graphs is None
  # The number of the smaller source.
  assert configs["layerdag_matched"].augment.synthetic_graphs == 3
  differences = {arm: {line.partition(":")[0] for line in config_lib.differences(reference, config)}
                 for arm, config in configs.items()}
  without, matched = {"augment.synthetic"}, {"augment.synthetic_graphs"}
  assert differences == {
      "real": without | {"batch.batch_size"}, "real_oversampled": without, "layerdag": set(),
      "layerdag_matched": matched, "random_graphs": without | matched,
      "layerdag_shuffled": {"augment.synthetic_shuffled"}, "layerdag_distilled": set(),
      "layerdag_pretrained": set(), "layerdag_auxiliary": set(), "real_auxiliary": without,
      "layerdag_selfsupervised": set(), "real_selfsupervised": without,
      "layerdag_selfsupervised_measured": set(),
      "layerdag_only": {"augment.synthetic_share"}}
  assert {case["arm"]: case["strategy"] for case in cases if case["strategy"] != "measured"} == {
      "layerdag_distilled": "distilled", "layerdag_pretrained": "pretrained",
      "layerdag_auxiliary": "auxiliary", "real_auxiliary": "auxiliary",
      "layerdag_selfsupervised": "selfsupervised", "real_selfsupervised": "selfsupervised",
      "layerdag_selfsupervised_measured": "selfsupervised_measured"}
  assert configs["real"].batch.batch_size == 2
  assert {config.training.steps_per_epoch for config in configs.values()} == {3}
  assert {config.training.patience for config in configs.values()} == {2}
  assert {case["source"] for case in cases if case["arm"].startswith("layerdag")} == {
      cases_lib.digest(tiny["layerdag"])}
  assert cases_lib.digest(tiny["layerdag"]) != cases_lib.digest(tiny["random"])


def test_every_strategy_has_an_arm_for_user_programs():
  from tpugraphs_rank.synthesis.augment import strategies

  assert cases_lib.STRATEGIES == tuple(strategies.STRATEGIES)
  own = {arm.strategy: name for name, arm in cases_lib.ARMS.items()
         if arm.source == cases_lib.SYNTHETIC}
  assert own == {"measured": "synthetic", "distilled": "synthetic_distilled",
                 "pretrained": "synthetic_pretrained", "auxiliary": "synthetic_auxiliary",
                 "selfsupervised": "synthetic_selfsupervised",
                 "selfsupervised_measured": "synthetic_selfsupervised_measured"}
  assert not set(own.values()) & set(augmentation_study.ARMS)


def test_budgets_and_seeds(tiny):
  cases = cases_lib.plan({"tile:real": _settings(tiny)}, [2, None], ["real", "layerdag"], [0, 1])
  assert [(case["budget"], case["arm"], case["subset"]) for case in cases] == [
      (budget, arm, seed) for seed in (0, 1) for budget in (2, 6) for arm in ("real", "layerdag")]
  assert len({case["name"] for case in cases}) == 8
  assert cases[2]["name"] == "tile_real/all/real/seed0"
  assert cases[2]["config"]["data"]["max_graphs"] is None
  with pytest.raises(errors.ConfigError, match="7 programs: tile:real has only 6 training"):
    cases_lib.plan({"tile:real": _settings(tiny)}, [7], ["real"], [0])
  assert augmentation_study.budgets_of(["5", "all"]) == [5, None]
  with pytest.raises(errors.ConfigError, match="--budgets=5,some; expected whole numbers"):
    augmentation_study.budgets_of(["5", "some"])


def test_the_recipe_is_that_of_the_kind(tiny):
  tile = cases_lib.recipe(tiny["real"], None, 5, 7, {})
  assert (tile.data.collection, tile.model.members, tile.optimizer.ema_decay) == (
      tiny["real"], 1, 0.995)
  layout = cases_lib.recipe("layout:xla_cpu:mixed:v1", None, 5, 7, {})
  assert layout.model.layout_features == "minor"
  assert (layout.training.epochs, layout.training.validate_every) == (5, 1)


# ---- a case --------------------------------------------------------------------------------------


def test_a_case_runs_once_and_is_tied_to_its_settings(tiny, tmp_path, monkeypatch):
  ran = []
  row = {**dict.fromkeys(cases_lib._KEPT, 0.5), "graph": "g"}
  cases = cases_lib.plan({"tile:real": _settings(tiny)}, [3], ["real", "layerdag"], [0, 1, 2])

  def run(part, output, number, processes):
    del number, processes
    ran.append(len(part))
    for case in part:
      path = cases_lib._path(output, case)
      path.parent.mkdir(parents=True, exist_ok=True)
      path.write_text(json.dumps({"case": case, "rows": [row], "training": {
          "seconds": 2.0, "cpu_seconds": 1.0, "steps": 6, "real_programs": 3,
          "synthetic_programs": 4, "held_back": 0, "best_epoch": 1}}))

  monkeypatch.setattr(cases_lib, "_run_process", run)
  cases_lib.run_all(cases[:1], tmp_path, jobs=1)
  cases_lib.run_all(cases, tmp_path, jobs=2, at_a_time=2)
  (tmp_path / ".cases7.json").write_text("[]")  # Left by a killed process.
  cases_lib.run_all(cases, tmp_path, jobs=2)
  assert not list(tmp_path.glob(".cases*"))
  assert ran[0] == 1 and sorted(ran[1:]) == [1, 2, 2]
  rows, trainings = cases_lib.read(cases, tmp_path)
  assert len(rows) == len(trainings) == 6
  assert rows[0] == {"task": "tile:real", "budget": 3, "arm": "real", "subset": 0, **row}
  assert [(one["arm"], one["n_seeds"], one["seconds"]) for one in cases_lib.costs(trainings)] == [
      ("real", 3, 2.0), ("layerdag", 3, 2.0)]
  # Other settings are refused; the same programs in another folder are not.
  other = cases_lib.plan({"tile:real": _settings(tiny, augment_synthetic_weight=0.5)}, [3],
                         ["layerdag"], [0])
  with pytest.raises(errors.RunDirectoryError, match="synthetic_weight: stored 1.0, requested 0.5"):
    cases_lib.is_done(tmp_path, other[0])
  moved = shutil.copytree(tiny["folder"] / "layerdag", tmp_path / "moved")
  settings = cases_lib.Settings(
      _settings(tiny).base, {cases_lib.LAYERDAG: str(moved / "collection.json")})
  assert cases_lib.is_done(
      tmp_path, cases_lib.plan({"tile:real": settings}, [3], ["layerdag"], [0])[0])
  (moved / "npz" / "train" / "synthetic.0.npz").write_bytes(b"other")
  with pytest.raises(errors.RunDirectoryError, match="source: stored '.*', requested '.*'"):
    cases_lib.is_done(
        tmp_path, cases_lib.plan({"tile:real": settings}, [3], ["layerdag"], [0])[0])


@pytest.mark.slow
def test_one_case_is_trained_and_evaluated(tiny):
  cases = cases_lib.plan({"tile:real": _settings(tiny)}, [3], ["layerdag", "layerdag_only"], [1])
  tasks = {}
  first, only = (cases_lib.run_case(case, tasks) for case in cases)
  assert len(tasks) == 1
  assert [row["graph"] for row in first["rows"]] == sorted(row["graph"] for row in first["rows"])
  assert len(first["rows"]) == 4
  assert set(first["rows"][0]) == {"graph", "family", "seen", "kendall_tau", "top1_slowdown",
                                   "top5_slowdown"}
  training = first["training"]
  assert [training[name] for name in ("steps", "steps_before", "real_programs",
                                      "synthetic_programs")] == [6, 0, 3, 4]
  assert json.loads(json.dumps(first, allow_nan=False)) == first
  assert only["rows"] != first["rows"]


# ---- the report ----------------------------------------------------------------------------------


def _results():
  rows = test_gains.frame().to_dict("records")
  trainings = [{"task": "tile:x", "budget": 5, "arm": "real", "subset": 0, "seconds": 30.2,
                "cpu_seconds": 20.0, "steps": 960, "real_programs": 5, "synthetic_programs": 0,
                "held_back": 0, "best_epoch": 3, "valid": {}}]
  return augmentation_study.report(rows, trainings)


def test_costs_include_the_training_before():
  case = {"task": "tile:x", "budget": 5, "arm": "a", "subset": 0, **dict.fromkeys((
      "seconds", "cpu_seconds", "steps", "real_programs", "synthetic_programs", "held_back",
      "best_epoch"), 1.0)}
  report = lambda accuracy, pearson: {"real_graphs": 4, "synthetic_graphs": 2, "held_out_graphs": 1,
                                      "held_out": {"edges": {"accuracy": accuracy},
                                                   "label": {"pearson": pearson}}}
  (one,) = cases_lib.costs([{**case, "steps_before": 7, "pretraining": report(0.5, None)},
                            {**case, "steps_before": 7, "pretraining": report(1.0, 0.25)}])
  assert one["steps_before"] == 7 and one["learned_before"] == {
      "real_graphs": 4, "synthetic_graphs": 2, "held_out_graphs": 1, "edges_accuracy": 0.75,
      "label_pearson": 0.25}
  (older,) = cases_lib.costs([case])
  assert older["steps_before"] == 0 and "learned_before" not in older


def test_tables():
  actual = _results()
  json.dumps(actual, allow_nan=False)
  text = augmentation_study.markdown(actual)
  assert "intervals of 99.38 %" in text and "With 3 seeds, intervals are too narrow" in text
  assert "## tile:x, 10 programs: families that do not occur in training" in text
  assert "| tile:x | 5 | real | 1 | 30 | 20 | 960 | 0 | 5 | 0 | 0 |" in text
  lines = augmentation_study.readme_table(actual).splitlines()
  assert lines[0] == (
      "| measured real programs | seen groups: tau, real | seen groups: real + LayerDAG "
      "| seen groups: gain over oversampled | unseen groups: tau, real "
      "| unseen groups: real + LayerDAG | unseen groups: gain over oversampled |")
  assert [line.split(" | ")[0] for line in lines[2:]] == ["| 5", "| 10"]
  (ten,) = [one for one in actual["comparisons"]
            if (one["budget"], one["arm"]) == (10, "layerdag")]
  for name in ("seen", "unseen_groups"):
    assert gains.gain_text(ten["parts"][name]["real_oversampled"]["tau"]) in lines[3]


def _run_in_process(cases, output, number, processes):
  """Replaces the process that runs cases."""
  del number, processes
  tasks = {}
  for case in cases:
    path = cases_lib._path(output, case)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(cases_lib.run_case(case, tasks)))


@pytest.mark.slow
def test_the_study(tiny, tmp_path, monkeypatch):
  monkeypatch.setattr(cases_lib, "_run_process", _run_in_process)
  arguments = ["--tasks", tiny["real"], "--config", tiny["config"], "--epochs=2",
               "--steps_per_epoch=2", "--budgets=3", "--seeds=1", "--output", tmp_path / "study",
               "--layerdag_collection", tiny["layerdag"], "--arms=real_oversampled,layerdag"]
  done = scripts.run("augmentation_study", *arguments, "--results", tmp_path / "augmentation.json")
  assert done.returncode == 0, done.stderr[-3000:]
  results = json.loads((tmp_path / "augmentation.json").read_text())
  (one,) = results["comparisons"]
  assert {"task", "budget", "arm", "gain_vs_real", "gain_vs_oversampled", "low_vs_oversampled",
          "low_vs_real", "low_vs_random_graphs", "low_vs_templates", "n_seeds"} <= set(one)
  assert (one["task"], one["budget"], one["arm"], one["n_seeds"]) == (
      "tile:synthetic", 3, "layerdag", 1)
  assert results["cases"] == results["cases_done"] == 2
  assert one["low_vs_oversampled"] <= one["gain_vs_oversampled"] and one["low_vs_real"] is None
  for name in ("study.md", "study.json", "plan.json",
               "gain_over_real_oversampled_tile_synthetic.png"):
    assert (tmp_path / "study" / name).stat().st_size, name
  assert len(list((tmp_path / "study" / "cases").rglob("*.json"))) == 2
  again = scripts.run("augmentation_study", *arguments, "--notrain")
  assert again.returncode == 0 and "2 of 2 cases" in again.stdout


@pytest.mark.slow
def test_the_command(tiny, tmp_path):
  done = commands.run(
      "augment", "--collection", tiny["real"], "--synthetic", tiny["layerdag"], "--config",
      tiny["config"], "--epochs=2", "--steps_per_epoch=2", "--seeds=1", "--budget=3", "--output",
      tmp_path / "augment")
  assert done.returncode == 0, done.stderr[-3000:]
  assert "tile:synthetic test: 4 programs. Training used 3 real" in done.stdout
  assert "(0 synthetic ones were left out" in " ".join(done.stdout.split())
  for name in ("real ", "real, oversampled", "real + synthetic"):
    assert f"\n{name}" in done.stdout
  assert "The synthetic programs" in done.stdout or "No gain is shown" in done.stdout
  assert "1 seeds do not show how much trainings vary" in done.stdout
  assert json.loads((tmp_path / "augment" / "results.json").read_text())["comparisons"]
  assert (tmp_path / "augment" / "gain.png").read_bytes().startswith(b"\x89PNG")


def test_errors(tiny, tmp_path):
  failed = scripts.run("augmentation_study", "--tasks", tiny["real"], "--arms=real,layerdga",
                       "--output", tmp_path / "none")
  assert failed.returncode == 1
  assert "no arm 'layerdga' (did you mean 'layerdag'?); the arms are: real, " in failed.stderr
  path = tmp_path / "other.json"
  path.write_text(json.dumps({**json.loads(pathlib.Path(tiny["layerdag"]).read_text()),
                              "target": "other", "path": str(tiny["folder"] / "layerdag/npz")}))
  failed = commands.run("augment", "--collection", tiny["real"], "--synthetic", path, "--config",
                        tiny["config"], "--seeds=1", "--output", tmp_path / "bad")
  assert failed.returncode == 1 and "Traceback" not in failed.stderr
  assert "measure the synthetic programs on the hardware of the real ones" in failed.stderr
