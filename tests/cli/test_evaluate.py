"""From training to the files of an evaluation, on small synthetic collections."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest

from tests import synthetic
from tests.helpers import commands
from tpugraphs_rank import config as config_lib
from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank import metrics
from tpugraphs_rank import run_config
from tpugraphs_rank.cli import evaluate
from tpugraphs_rank.data import collections
from tpugraphs_rank.data import npz
from tpugraphs_rank.data import registry
from tpugraphs_rank.data import splits
from tpugraphs_rank.evaluation import baselines
from tpugraphs_rank.evaluation import comparison
from tpugraphs_rank.evaluation import run_tables
from tpugraphs_rank.evaluation import task
from tpugraphs_rank.evaluation import trees
from tpugraphs_rank.training import run as run_lib
from tpugraphs_rank.training import trainer

PLOTS = {"training_curves.png", "rank_against_runtime_residual_gnn.png", "slowdown_against_k.png",
         "tau_by_family.png"}


def _config(descriptor, **settings):
  return config_lib.override(run_config.RunConfig(), {
      "data.collection": str(descriptor), "model.hidden_width": 8, "model.num_convolutions": 1,
      "model.opcode_width": 4,
      "model.head_widths": [8], "training.epochs": 2, "training.tensorboard": False,
      "batch.lists_per_graph": 1, **settings})


def _copy(run_dir, folder, **data):
  """A run with other settings but the same weights."""
  for path in ("normalizer.npz", "checkpoints/best.npz"):
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).write_bytes((run_dir / path).read_bytes())
  stored = json.loads((run_dir / "config.json").read_text())
  stored["config"]["training"]["seed"] = data.pop("seed", 0)
  stored["config"]["data"].update(data)
  (folder / "config.json").write_text(json.dumps(stored))
  return folder


def _train(folder, descriptor, **settings):
  trainer.Trainer(_config(descriptor, **settings)).train(folder)
  return folder


@pytest.fixture(scope="module", autouse=True)
def _quick_trees():
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(trees, "GRID", (trees.Settings(iterations=10, max_leaf_nodes=4),))
    yield


@pytest.fixture(scope="module")
def tile(tmp_path_factory):
  folder = tmp_path_factory.mktemp("tile")
  descriptor = synthetic.write_collection(folder, counts=(5, 2, 3))
  # Two of the families are one group; the third is in training under no group.
  values = json.loads(descriptor.read_text())
  values["groups"] = {"siblings": ["family0", "family1"]}
  descriptor.write_text(json.dumps(values))
  return folder, _train(folder / "run", descriptor)


@pytest.fixture(scope="module")
def evaluated(tile):
  return evaluate.evaluate(tile[1], "test")


@pytest.fixture(scope="module")
def layout(tmp_path_factory):
  folder = tmp_path_factory.mktemp("layout")
  descriptor = synthetic.write_collection(
      folder, kind="layout", counts=(3, 2, 2), num_configs=40, num_config_nodes=1)
  return folder, descriptor


def test_an_evaluation_writes_its_results(tile, evaluated):
  _, run_dir = tile
  results = evaluated
  output = run_dir / "evaluation" / "test"
  assert {path.name for path in output.iterdir()} == {"per_graph.csv", "metrics.json", *PLOTS}
  stored = json.loads((output / "metrics.json").read_text())
  assert stored == {key: value for key, value in results.items() if key != "text"}
  rankers = ["residual_gnn", *baselines.DEFAULT]
  assert list(stored["rankers"]) == list(stored["models"]) == rankers
  rows = pd.read_csv(output / "per_graph.csv")
  assert rows["ranker"].unique().tolist() == rankers and len(rows) == 3 * 5

  # Recomputed from the run itself.
  run = run_lib.load_run(run_dir)
  programs = splits.load_programs(run.config.data, "test")
  scores = run.score_programs(programs)
  own = rows[rows["ranker"] == "residual_gnn"].set_index("graph")
  for program, score in zip(programs, scores):
    runtimes = program.graph.relative_runtime
    row = own.loc[program.graph.name]
    assert row["kendall_tau"] == pytest.approx(metrics.kendall_tau(runtimes, score))
    assert row["opa"] == pytest.approx(metrics.opa(runtimes, score))
    assert row["top5_slowdown"] == pytest.approx(metrics.topk_slowdown(runtimes, score, 5))
  for name in rankers:
    part = rows[rows["ranker"] == name]
    assert stored["rankers"][name]["mean"]["kendall_tau"] == pytest.approx(
        part["kendall_tau"].mean())
    assert stored["models"][name]["tau"] == {
        "mean": pytest.approx(part["kendall_tau"].mean()), "sd": 0.0, "n": 1}
  gain = stored["paired_differences"]["residual_gnn"]["random"]["kendall_tau"]
  random = rows[rows["ranker"] == "random"].set_index("graph")
  assert gain["mean"] == pytest.approx((own["kendall_tau"] - random["kendall_tau"]).mean())
  assert gain["low"] <= gain["mean"] <= gain["high"] and gain["n"] == 3


def test_training_programs_are_evaluated_with_all_their_configurations(tile):
  _, run_dir = tile
  config = dataclasses.replace(run_lib.load_run(run_dir).config.data, duplicates="mean")
  evaluated = task.load_task(config, "train").programs
  assert all(program.choice is None and program.merged is None for program in evaluated)
  # For training they are merged: the synthetic kernels repeat configurations.
  assert all(program.merged is not None for program in splits.load_programs(config, "train"))


def test_the_table_names_every_ranker(tile):
  _, run_dir = tile
  results = evaluate.evaluate(run_dir, "valid", run_dir.parent / "elsewhere", ["random"])
  assert (run_dir.parent / "elsewhere" / "metrics.json").exists()
  lines = results["text"].splitlines()
  assert lines[0] == "tile:synthetic valid: seen families, shapes never seen (2 programs)"
  assert [line.split()[0] for line in lines[3:5]] == ["residual_gnn", "random"]
  assert "gain of residual_gnn over" in results["text"]
  assert "measured until good: within 2 % of the fastest" in results["text"]
  assert "equal scores, in random order: of residual_gnn" in results["text"]
  assert "gain of" not in evaluate.evaluate(run_dir, "valid", None, [])["text"]


def test_unseen_families_are_labelled_as_such(tile):
  _, run_dir = tile
  compared = comparison.compare({"residual_gnn": [run_dir]}, "valid", [0], ["random"])
  assert compared.task.seen_families == {"family0", "family1", "family2"}
  moved = dataclasses.replace(compared.task, seen_families={"family9"})
  text = dataclasses.replace(compared, task=moved).text()
  assert text.startswith(
      "tile:synthetic valid: families never seen, of groups that training saw (2 programs)\n")


def test_rankers_that_were_chosen_on_the_evaluated_split_are_reported(tile, evaluated, tmp_path):
  _, run_dir = tile
  results = evaluate.evaluate(run_dir, "valid", tmp_path, ["random", "boosted_trees"])
  assert results["chosen_on_split"] == ["residual_gnn", "boosted_trees"]
  assert ("residual_gnn, boosted_trees: checkpoints and hyperparameters were selected on this "
          "split, "
          "which makes them look better\n") in results["text"]
  assert evaluated["chosen_on_split"] == [] and "selected on" not in evaluated["text"]


def test_each_split_is_read_once(tile, caplog):
  _, run_dir = tile
  config = dataclasses.replace(run_lib.load_run(run_dir).config.data, max_graphs=3)
  with caplog.at_level("INFO", logger=splits.__name__), caplog.at_level(
      "INFO", logger=task.__name__):
    drawn = task.load_task(config, "valid")
    scores = task.baseline_scores(drawn, ["boosted_trees"])["boosted_trees"]
  assert [message.partition(":")[2].partition(":")[0] for message in caplog.messages] == [
      "synthetic valid", "synthetic train"]
  assert drawn.seen_groups == {
      drawn.collection.group(program.graph.name)
      for program in splits.load_programs(config, "train")}
  # The trees learn from the sampled programs, and are tuned on the evaluated ones.
  again = task.baseline_scores(dataclasses.replace(drawn, train=None), ["boosted_trees"])
  for one, other in zip(scores[0], again["boosted_trees"][0]):
    np.testing.assert_array_equal(one, other)


def test_the_same_run_gives_the_same_numbers(tile, evaluated):
  again = comparison.compare({"residual_gnn": [tile[1]]}, "test", [0]).results()
  assert again == {key: evaluated[key] for key in again}


@pytest.mark.slow
def test_new_configurations_of_known_layouts(layout):
  folder, descriptor = layout
  run_dir = _train(folder / "run", descriptor,
                   **{"data.split_by": "configuration", "training.epochs": 1})
  results = evaluate.evaluate(run_dir, "test")
  assert results["held_back"] == "new configurations of known programs"
  assert ("layout:synthetic test: new configurations of known programs (3 programs)"
          in results["text"])
  # Whether a default is among the test configurations depends on the seed.
  assert set(results["models"]) | {"default_configuration"} == {"residual_gnn", *baselines.DEFAULT}
  # One configurable node has at most 27 layouts, so 40 configurations contain repeats.
  assert set(results["noise_ceilings"]) == {f"program{seed}" for seed in range(3)}
  assert all(ceiling["repeated"] and ceiling["repeat_sd_relative"] < 1e-12
             for ceiling in results["noise_ceilings"].values())
  assert ("best possible results given the noise between repeats of one configuration"
          in results["text"])
  config = run_lib.load_run(run_dir).config
  for program in splits.load_programs(config.data, "test", config.training.seed):
    assert len(program.choice) < program.graph.num_configs


@pytest.mark.slow
def test_unseen_layout_programs(layout):
  folder, descriptor = layout
  run_dir = _train(folder / "programs", descriptor,
                   **{"model.model": "attention_gnn", "training.epochs": 1})
  results = evaluate.evaluate(run_dir, "test", None, ["size_heuristic"])
  rows = pd.read_csv(run_dir / "evaluation" / "test" / "per_graph.csv")
  assert {"top1_slowdown", "top10_slowdown", "top100_slowdown"} <= set(rows)
  assert "noise_ceilings" not in results
  # Every program is its own family here, so none was seen.
  assert not rows["seen"].any()
  assert set(results["models_unseen_groups"]) == {"attention_gnn", "size_heuristic"}
  assert "models" not in results
  assert "layout:synthetic test: programs that training never saw (2 programs)" in results["text"]


def test_several_runs_in_one_evaluation(tile, tmp_path):
  _, run_dir = tile
  other = _copy(run_dir, tmp_path / "run", seed=1)
  compared = comparison.compare({"residual_gnn": [run_dir, other]}, "test", [0, 1], ["random"])
  results = compared.results()
  assert results["models"]["residual_gnn"]["tau"]["n"] == 2
  assert results["models"]["residual_gnn"]["tau"]["sd"] == 0.0  # The same weights twice.
  assert results["models"]["random"]["tau"]["n"] == 2
  assert results["models"]["random"]["tau"]["sd"] > 0.0
  # Slowdowns of a random order are means over all orders, in tables and in plots.
  runtimes = [program.runtimes for program in compared.task.programs]
  mean = np.mean([one.mean() / one.min() - 1 for one in runtimes])
  assert results["models"]["random"]["top1_slowdown"] == {
      "mean": pytest.approx(mean), "sd": 0.0, "n": 2}
  for scores in compared.scores_with_ties["random"]:
    assert np.mean([metrics.topk_slowdown(truth, one, 1)
                    for truth, one in zip(runtimes, scores)]) == pytest.approx(mean)
  assert "random: slowdowns and gains are means over all random orders" in compared.text()


def test_runs_that_cannot_be_compared(tile, tmp_path):
  _, run_dir = tile
  runs = [_copy(run_dir, tmp_path / str(seed), split_by="configuration", seed=seed)
          for seed in range(2)]
  with pytest.raises(errors.ConfigError, match="different data"):
    comparison.compare({"residual_gnn": [run_dir, runs[0]]}, "test", [0], [])
  with pytest.raises(errors.ConfigError, match="with different seeds"):
    comparison.compare({"residual_gnn": runs}, "test", [0], [])


def test_splits_without_runtimes_are_a_data_error(tmp_path, tile):
  _, run_dir = tile
  descriptor = synthetic.write_collection(
      tmp_path, counts=(5, 2, 3), config_runtime=np.zeros(12, np.int64))
  copy = _copy(run_dir, tmp_path / "run", collection=str(descriptor))
  with pytest.raises(errors.DataError, match="has no measurements"):
    evaluate.evaluate(copy, "test")
  assert not (copy / "evaluation").exists()


def test_the_error_without_runtimes_names_the_split_that_has_some(public_layout, tmp_path):
  root, run_dir, _ = public_layout
  with pytest.raises(errors.DataError, match=(
      "layout:xla:random test has no measurements.*evaluate with `--split valid`, or rank it "
      "without an evaluation: `tpugraphs-rank predict`")):
    evaluate.evaluate(run_dir, "test", tmp_path / "out")
  assert not (tmp_path / "out").exists()


def test_trees_of_published_configurations_are_tuned_on_them(public_layout, monkeypatch):
  root, run_dir, listed = public_layout
  config = run_lib.load_run(run_dir).config.data
  tuned = []
  tuning_data = trees.tuning_data
  monkeypatch.setattr(trees, "tuning_data", lambda train, valid, seed: (
      tuned.append(valid) or tuning_data(train, valid, seed)))
  evaluated = task.load_task(config, "valid")
  scores, = task.baseline_scores(evaluated, ["boosted_trees"])["boosted_trees"]
  assert {program.graph.name: program.choice.tolist() for program in tuned[0]} == listed
  assert [score.shape for score in scores] == [(30,)] * len(listed)


def test_mistakes_are_typed_errors(tile, tmp_path):
  _, run_dir = tile
  with pytest.raises(errors.UnknownNameError, match="no baseline 'best'"):
    evaluate.evaluate(run_dir, "test", None, ["best"])
  with pytest.raises(errors.RunDirectoryError, match="is not a run directory"):
    evaluate.evaluate(tmp_path, "test")
  (tmp_path / "file").write_text("")
  with pytest.raises(errors.OutputError, match="cannot write"):
    evaluate.evaluate(run_dir, "test", tmp_path / "file" / "out", [])


def test_the_command_prints_tables_and_the_paths_of_its_files(tile, tmp_path):
  done = commands.run("evaluate", "--run", tile[1], "--split=valid", "--baselines=random",
                      "--output", tmp_path)
  assert done.returncode == 0, done.stderr
  assert done.stdout.startswith("tile:synthetic valid: ")
  assert f"numbers: {tmp_path}/metrics.json, {tmp_path}/per_graph.csv" in done.stdout
  assert not list(tile[1].glob("evaluation/valid/*.csv.partial"))


def test_run_tables_read_what_the_command_writes(tile, evaluated):
  _, run_dir = tile
  frame = run_tables.read_per_graph(run_dir.parent)
  rows = frame[frame["source"] == "run/evaluation/test"]
  written = pd.read_csv(run_dir / "evaluation" / "test" / "per_graph.csv")
  assert len(rows) == len(written) and set(rows["split"]) == {"test"}
  assert list(frame)[:4] == ["source", "run", "split", "label"]
  assert set(rows["run"]) == {"run"} and set(rows["ranker"]) == set(written["ranker"])
  assert list(rows["kendall_tau"]) == pytest.approx(list(written["kendall_tau"]), nan_ok=True)
  assert run_tables.read_runs(run_dir.parent)["problem"].tolist() == [""]


def test_the_command_reports_an_error_in_one_line(tmp_path):
  result = commands.run("evaluate", "--run_dir", tmp_path)
  assert result.returncode == 1 and not result.stdout
  assert result.stderr.startswith(f"error: {tmp_path} is not a run directory")
  assert result.stderr.count("\n") == 1


def test_the_command_in_a_process_of_its_own(tmp_path):
  result = commands.run_process("evaluate", "--run_dir", tmp_path)
  assert result.returncode == 1 and result.stderr.startswith("error: ")


def test_a_run_of_another_data_root_is_the_same(tile):
  _, run_dir = tile
  run = run_lib.load_run(run_dir)
  moved = comparison.compare({"gnn": [run_dir]}, "test", [0], ["random"], data_root="elsewhere")
  assert moved.task.config == dataclasses.replace(run.config.data, data_root="elsewhere")


@pytest.fixture(scope="module")
def public_layout(tmp_path_factory):
  """A data root with a small version of the public xla:random collection, and a run on it."""
  root = tmp_path_factory.mktemp("public")
  folder = root / "npz" / "layout" / "xla" / "random"
  names = {}
  for split, count in registry.get_collection("layout:xla:random").splits.items():
    for number in range(count):
      graph = synthetic.layout_graph(len(names), name=f"{split}{number}", num_config_nodes=1)
      npz.save_graph(folder / split / f"{graph.name}.npz", graph)
      names[graph.name] = split
  rng = np.random.default_rng(0)
  listed = {name: rng.integers(12, size=30).tolist() for name, split in names.items()
            if split == "valid"}
  files.write_json(root / "eval_indices" / "xla_random.json", listed)
  run_dir = _train(root / "run", "layout:xla:random", **{
      "data.data_root": str(root), "data.max_graphs": 3})
  return root, run_dir, listed


def test_validation_of_a_public_layout_collection_uses_the_published_indices(public_layout):
  root, run_dir, listed = public_layout
  results = evaluate.evaluate(run_dir, "valid", root / "published", ["random"])
  assert results["configurations"] == "published"
  assert "7 programs, published configurations" in results["text"]
  assert "top-100 slowdown" in results["text"]
  rows = pd.read_csv(root / "published" / "per_graph.csv")
  rows = rows[rows["ranker"] == "residual_gnn"].set_index("graph")
  run = run_lib.load_run(run_dir)
  for graph in collections.load_collection("layout:xla:random", "valid", root):
    chosen = listed[graph.name]
    runtimes, scores = graph.relative_runtime[chosen], run.score(graph)[chosen]
    row = rows.loc[graph.name]
    assert row["configurations"] == 30  # Repeats are kept.
    assert row["kendall_tau"] == pytest.approx(metrics.kendall_tau(runtimes, scores))
    assert row["opa"] == pytest.approx(metrics.opa(runtimes, scores))
    assert row["top10_slowdown"] == pytest.approx(metrics.topk_slowdown(runtimes, scores, 10))
  everything = evaluate.evaluate(run_dir, "valid", root / "all", [], configurations="all")
  assert everything["configurations"] == "all"
  assert set(pd.read_csv(root / "all" / "per_graph.csv")["configurations"]) == {12}


def test_requesting_published_indices_where_none_exist_is_an_error(tile, public_layout, tmp_path):
  with pytest.raises(errors.ConfigError, match="no evaluation indices are published for"):
    evaluate.evaluate(tile[1], "test", tmp_path, [], configurations="published")
  root, run_dir, _ = public_layout
  moved = tmp_path / "elsewhere"
  moved.mkdir()
  (moved / "npz").symlink_to(root / "npz")
  with pytest.raises(errors.MissingDataError, match="--configurations=all"):
    evaluate.evaluate(run_dir, "valid", tmp_path, [], data_root=str(moved))
