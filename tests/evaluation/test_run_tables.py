"""Run directories as tables: complete, half done, damaged."""

import logging
import pathlib
import shutil

import numpy as np
import pandas as pd
import pytest

from tests.evaluation import small_runs
from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank.evaluation import run_tables

TAUS = {0: 0.7, 1: 0.8, 2: 0.84}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
  """Two models, three seeds of one of them, and a run that is still training."""
  folder = tmp_path_factory.mktemp("written")
  for seed, tau in TAUS.items():
    small_runs.write_run(folder / f"residual-seed{seed}", tau=tau, seed=seed)
  small_runs.write_run(folder / "more" / "attention", state="stopped_early", tau=0.9,
                      model="attention_gnn", batch_size=16, epochs=6)
  small_runs.write_run(folder / "more" / "going", state="training", tau=0.3, epochs=2,
                      model="attention_gnn", batch_size=16, seed=1)
  return folder


@pytest.fixture
def folder(written, tmp_path):
  """A copy that a test may damage: writing the files again for each test would be slow."""
  return pathlib.Path(shutil.copytree(written, tmp_path / "runs"))


def _by_run(runs: pd.DataFrame) -> pd.DataFrame:
  return runs.set_index("run")


def test_one_row_per_run(folder):
  runs = run_tables.read_runs(folder)
  assert list(runs["run"]) == [
      "more/attention", "more/going", "residual-seed0", "residual-seed1", "residual-seed2"]
  assert list(runs) == [
      "run", "collection", "model", "batch_size", "seed", "state", "epoch", "best_epoch",
      *(f"valid_{name}" for name in sorted(small_runs.METRICS[:2])),
      *(f"valid_{name}" for name in small_runs.METRICS[2:]), "seconds", "problem"]
  row = _by_run(runs).loc["residual-seed2"]
  assert (row["collection"], row["model"], row["batch_size"], row["seed"]) == (
      "tile:made_up", "residual_gnn", 8, 2)
  assert (row["state"], row["epoch"], row["best_epoch"], row["seconds"]) == ("finished", 4, 3, 2.0)
  assert row["valid_kendall_tau"] == 0.84 and row["valid_top10_slowdown"] == 0.0
  assert (runs["problem"] == "").all()
  assert runs["seed"].dtype == "Int64" and runs["valid_top10_slowdown"].dtype == "float64"


def test_a_run_in_training_has_the_metrics_of_its_best_epoch_so_far(folder):
  row = _by_run(run_tables.read_runs(folder)).loc["more/going"]
  assert (row["state"], row["epoch"], row["best_epoch"]) == ("training", 2, 1)
  assert row["valid_kendall_tau"] == 0.3 and "valid_loss" not in row


def test_every_setting_that_differs_is_a_column(folder):
  small_runs.write_run(folder / "wide", hidden_width=96, head_widths=[64, 32], max_graphs=50,
                      threads=2)
  runs = run_tables.read_runs(folder)
  wide = _by_run(runs).loc["wide"]
  assert (wide["hidden_width"], wide["head_widths"], wide["max_graphs"], wide["threads"]) == (
      96, "64,32", 50, 2)
  other = _by_run(runs).loc["more/attention"]
  assert (other["hidden_width"], other["head_widths"]) == (64, "64")
  assert pd.isna(other["max_graphs"])
  assert "learning_rate" not in runs and "valid_fraction" not in runs
  # Threads are shown, but they change no result.
  assert run_tables.settings_that_differ(runs) == [
      "model", "batch_size", "max_graphs", "hidden_width", "head_widths"]
  assert run_tables.settings_that_differ(runs, with_seed=True)[2] == "seed"
  assert run_tables.settings_that_differ(runs[runs["run"] == "wide"]) == []


def test_labels_distinguish_settings_but_not_seeds(folder):
  runs = run_tables.read_runs(folder)
  assert list(run_tables.labels(runs)) == 2 * ["attention_gnn, batch_size=16"] + 3 * [
      "residual_gnn, batch_size=8"]
  assert set(run_tables.labels(runs[runs["model"] == "residual_gnn"])) == {"residual_gnn"}


def test_means_and_deviations_over_seeds(folder):
  table = run_tables.by_settings(run_tables.read_runs(folder))
  assert list(table.index.names) == ["model", "batch_size"]
  row = table.loc[("residual_gnn", 8)]
  taus = list(TAUS.values())
  assert (row["runs"], row["unfinished"]) == (3, 0)
  assert row["valid_kendall_tau"] == pytest.approx(sum(taus) / 3)
  assert row["valid_kendall_tau_sd"] == pytest.approx(
      (sum((tau - sum(taus) / 3) ** 2 for tau in taus) / 2) ** 0.5)


def test_unfinished_runs_are_counted_and_not_averaged(folder):
  row = run_tables.by_settings(run_tables.read_runs(folder)).loc[("attention_gnn", 16)]
  assert (row["runs"], row["unfinished"], row["valid_kendall_tau"]) == (1, 1, 0.9)
  assert np.isnan(row["valid_kendall_tau_sd"])  # One run has no deviation.
  shutil.rmtree(folder / "more" / "attention")
  row = run_tables.by_settings(run_tables.read_runs(folder)).loc[("attention_gnn", 16)]
  assert (row["runs"], row["unfinished"]) == (0, 1) and np.isnan(row["valid_kendall_tau"])


def test_runs_with_other_settings_are_averaged_together_only_on_request(folder):
  small_runs.write_run(folder / "fast", tau=0.5, learning_rate=0.01, max_graphs=9)
  runs = run_tables.read_runs(folder)
  table = run_tables.by_settings(runs)
  assert list(table.index.names) == ["model", "batch_size", "max_graphs", "learning_rate"]
  assert sorted(table.xs("residual_gnn")["runs"]) == [1, 3]
  table = run_tables.by_settings(runs, ["model"])
  assert table.loc["residual_gnn", "runs"] == 4
  assert table.loc["residual_gnn", "valid_kendall_tau"] == pytest.approx(
      (sum(TAUS.values()) + 0.5) / 4)


def test_unknown_keys_are_named(folder):
  with pytest.raises(errors.UnknownNameError, match="no column 'modle'.*did you mean 'model'"):
    run_tables.by_settings(run_tables.read_runs(folder), ["modle"])


def test_histories(folder):
  histories = run_tables.read_histories(folder)
  assert list(histories)[:7] == ["run", "model", "batch_size", "seed", "label", "epoch", "step"]
  assert dict(histories.groupby("run").size()) == {
      "more/attention": 6, "more/going": 2, "residual-seed0": 4, "residual-seed1": 4,
      "residual-seed2": 4}
  rows = histories[histories["run"] == "residual-seed1"]
  assert list(rows["loss"]) == [59.0, 58.0, 57.0, 56.0] and set(rows["seed"]) == {1}
  assert set(rows["label"]) == {"residual_gnn, batch_size=8"}


DAMAGES = {
    "config_missing": (lambda path: (path / "config.json").unlink(), "has no config.json"),
    "config_cut": (lambda path: (path / "config.json").write_text('{"config": {'),
                   "config.json is not valid JSON"),
    "config_no_object": (lambda path: (path / "config.json").write_text("[]"),
                         "lacks the key 'config'"),
    "config_no_sections": (
        lambda path: (path / "config.json").write_text('{"config": {"model": "residual_gnn"}}'),
        "config.json holds str; expected an object"),
    "about_no_object": (
        lambda path: (path / "config.json").write_text('{"config": {}, "about": 3}'),
        "config.json lacks about.collection"),
    "status_cut": (lambda path: (path / "status.json").write_text("{"),
                   "status.json is not valid JSON"),
    "status_no_object": (lambda path: (path / "status.json").write_text("3"),
                         "status.json holds int; expected an object"),
    "status_no_number": (lambda path: (path / "status.json").write_text('{"epoch": "4"}'),
                         "status.json: epoch is '4'; expected a number from 0"),
    "history_other": (lambda path: (path / "history.csv").write_text("a,b\n1,2\n"),
                      "history.csv has no column epoch"),
    "history_ragged": (lambda path: (path / "history.csv").write_text("a,b\n1,2\n1,2,3\n"),
                       "history.csv cannot be read as CSV"),
    "history_binary": (lambda path: (path / "history.csv").write_bytes(b"\xff\xfe\x00\x9f"),
                       "history.csv cannot be read as CSV"),
    "history_text": (
        lambda path: (path / "history.csv").write_text(
            (path / "history.csv").read_text().replace("59.0", "many")),
        "column loss has values that are no numbers"),
    "history_twice": (
        lambda path: (path / "history.csv").write_text(
            (path / "history.csv").read_text() + "1" + ",0" * 12 + "\n"),
        "the epochs do not increase"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_runs_are_listed_with_what_is_wrong(folder, damage, caplog):
  spoil, message = DAMAGES[damage]
  spoil(folder / "residual-seed1")
  runs = run_tables.read_runs(folder)
  row = _by_run(runs).loc["residual-seed1"]
  assert row["state"] == "damaged"
  assert pd.Series([row["problem"]]).str.contains(message).all(), row["problem"]
  assert len(runs) == 5 and (_by_run(runs).drop("residual-seed1")["problem"] == "").all()
  # A damaged run has no average and no unreliable history; the other runs are unaffected.
  assert run_tables.by_settings(runs).loc[("residual_gnn", 8), "runs"] == 2
  assert len(run_tables.labels(runs)) == 5
  with caplog.at_level(logging.WARNING, "tpugraphs_rank"):
    histories = run_tables.read_histories(folder)
  assert {"residual-seed0", "more/going"} <= set(histories["run"])
  if damage.startswith("history"):
    assert "residual-seed1" not in set(histories["run"])
    assert "history.csv" in caplog.text
  assert run_tables.read_per_graph(folder).empty


def test_runs_of_another_version_keep_their_settings_and_results(folder):
  path = folder / "residual-seed2" / "config.json"
  stored = files.read_json(path)
  stored["config"]["model"].update(gate="soft", tower={"depth": 2})  # None of this version's,
  del stored["config"]["model"]["dropout"]  # and that one lacked this.
  files.write_json(path, stored)
  runs = run_tables.read_runs(folder)
  row = _by_run(runs).loc["residual-seed2"]
  assert (row["state"], row["seed"], row["gate"]) == ("finished", 2, "soft")
  assert row["tower"] == "{'depth': 2}"
  runs = runs.drop(columns="tower")
  assert "unknown setting 'model.gate'" in row["problem"] and "dropout" not in runs
  assert run_tables.settings_that_differ(runs) == ["model", "batch_size", "gate"]
  table = run_tables.by_settings(runs)
  assert list(table.index.names) == ["model", "batch_size", "gate"]
  assert table.xs("soft", level="gate")["valid_kendall_tau"].item() == TAUS[2]
  assert set(run_tables.labels(runs)[2:]) == {
      "residual_gnn, batch_size=8, gate=none", "residual_gnn, batch_size=8, gate=soft"}


def test_what_is_missing_is_a_problem_of_the_run(folder):
  (folder / "residual-seed0" / "metrics.json").unlink()
  (folder / "residual-seed1" / "checkpoints" / "best.npz").unlink()
  (folder / "residual-seed2" / "metrics.json").write_text('{"metrics": {"opa": "good"}}')
  runs = _by_run(run_tables.read_runs(folder))
  # The history has the metrics too.
  assert runs.loc["residual-seed0", "problem"] == ""
  assert runs.loc["residual-seed0", "valid_kendall_tau"] == TAUS[0]
  assert "cannot score graphs" in runs.loc["residual-seed1", "problem"]
  assert "opa is 'good'; expected a number" in runs.loc["residual-seed2", "problem"]
  (folder / "residual-seed0" / "history.csv").unlink()
  runs = _by_run(run_tables.read_runs(folder))
  assert "metrics.json is missing" in runs.loc["residual-seed0", "problem"]


def test_a_run_that_was_killed_at_once_is_not_started(tmp_path):
  directory = small_runs.write_run(tmp_path / "killed")
  for path in ("status.json", "history.csv", "metrics.json", "checkpoints/best.npz"):
    (directory / path).unlink()
  runs = run_tables.read_runs(tmp_path)
  assert runs.loc[0, "state"] == "not_started" and runs.loc[0, "problem"] == ""
  assert pd.isna(runs.loc[0, "seconds"]) and pd.isna(runs.loc[0, "best_epoch"])
  assert run_tables.read_histories(tmp_path).empty
  assert run_tables.by_settings(runs).loc[("residual_gnn", 8), "unfinished"] == 1
  (directory / "config.json").unlink()  # Killed earlier still: only environment.json is there.
  assert "has no config.json" in run_tables.read_runs(tmp_path).loc[0, "problem"]


def test_a_folder_without_runs_names_the_commands_that_make_some(tmp_path):
  folders = {tmp_path / "none": "is no folder", tmp_path: "has no run directory"}
  for folder, problem in folders.items():
    for read in (run_tables.read_runs, run_tables.read_histories, run_tables.read_per_graph):
      with pytest.raises(errors.MissingDataError, match=(
          rf"{problem}; `tpugraphs-rank demo` .* `tpugraphs-rank train --run_dir .*first`")):
        read(folder)


def test_a_run_directory_itself_and_hidden_folders(folder):
  shutil.copytree(folder / "residual-seed0", folder / ".old" / "residual-seed0")
  assert len(run_tables.read_runs(folder)) == 5
  runs = run_tables.read_runs(folder / "residual-seed0")
  assert list(runs["run"]) == ["."] and list(runs["seed"]) == [0]


def test_evaluations_of_one_run_and_of_several(folder):
  joint = small_runs.write_evaluation(
      folder / "evaluation", {"residual_gnn": 3, "random": 3}, "test", folder / "results.json")
  alone = small_runs.write_evaluation(
      folder / "residual-seed2" / "evaluation" / "valid", {"residual_gnn": 1, "random": 1}, "valid")
  unknown = small_runs.write_evaluation(folder / "else" / "where", {"residual_gnn": 1})
  (folder / "else" / "where" / "metrics.json").unlink()
  frame = run_tables.read_per_graph(folder)
  assert list(frame)[:4] == ["source", "run", "split", "label"]
  parts = dict(iter(frame.groupby("source")))
  assert {source: len(part) for source, part in parts.items()} == {
      "else/where": len(unknown), "evaluation": len(joint),
      "residual-seed2/evaluation/valid": len(alone)}
  part = parts["evaluation"]
  assert part["run"].isna().all() and set(part["split"]) == {"test"}
  assert (part["label"] == part["ranker"]).all() and set(part["seed"]) == {0, 1, 2}
  assert list(part["kendall_tau"]) == pytest.approx(list(joint["kendall_tau"]))
  part = parts["residual-seed2/evaluation/valid"]
  assert set(part["run"]) == {"residual-seed2"} and set(part["split"]) == {"valid"}
  assert set(part["seed"]) == {2}  # The run's, not its number among the evaluated runs.
  assert set(part["label"]) == {"residual_gnn, batch_size=8", "random"}
  assert parts["else/where"]["split"].isna().all()


def test_damaged_evaluations_are_reported(folder, caplog):
  small_runs.write_evaluation(folder / "evaluation", {"random": 1})
  for path, text in (("more/attention/evaluation/test", "graph,family\n"),
                     ("residual-seed0/evaluation/test",
                      "ranker,seed,graph,family,opa,kendall_tau\na,0,g,f,high,0.5\n")):
    (folder / path).mkdir(parents=True)
    (folder / path / "per_graph.csv").write_text(text)
  with caplog.at_level(logging.WARNING, "tpugraphs_rank"):
    frame = run_tables.read_per_graph(folder)
  assert set(frame["source"]) == {"evaluation"}
  assert "has no column ranker" in caplog.text
  assert "column opa has values that are no" in caplog.text
  problems = _by_run(run_tables.read_runs(folder))["problem"]
  assert "has no column ranker" in problems["more/attention"]
  assert "column opa has values that are no numbers" in problems["residual-seed0"]
