"""`chakra compare` on graphs in files; `chakra synthesize` on a trace that is too small."""

import dataclasses
import json

import numpy as np
import pytest

from tests.chakra import samples
from tests.helpers import commands
from tests.synthesis.traces import test_subgraphs
from tpugraphs_rank import errors
from tpugraphs_rank.chakra import costs as costs_lib
from tpugraphs_rank.chakra import exporting
from tpugraphs_rank.chakra import traces
from tpugraphs_rank.synthesis.dags import dags as dags_lib
from tpugraphs_rank.synthesis.traces import outputs
from tpugraphs_rank.synthesis.traces import report
from tpugraphs_rank.synthesis.traces import subgraphs

_NAMES = ("type", "operator", "device", "duration")


def trace_dags(*lengths: int) -> dags_lib.Dags:
  """Chains with leaves, as graphs of traces: three operators with durations of their own."""
  graphs = []
  for length in lengths:
    edges, types = test_subgraphs.chain(length, length)
    x = np.stack([np.zeros_like(types), types % 3, types % 2, types % 3], axis=1)
    graphs.append((edges, x))
  words = (np.array(["COMP_NODE"]), np.array(["add", "mul", "relu"]),
           np.array(["device", "host"]), np.array(["1", "2-3", "4-7"]))
  return dags_lib.canonical(graphs, _NAMES, words, provenance={"buckets": {
      "per_octave": 1, "values": {"duration": {"1": 1, "2-3": 2, "4-7": 5}}}})


def test_the_comparison_of_a_run(tmp_path):
  divided = subgraphs.divide(trace_dags(900, 700), 24, 20, 60)
  for part, graphs in divided.parts.items():
    dags_lib.save(tmp_path / f"{part}.npz", graphs)
  dags_lib.save(tmp_path / "synthetic.npz", divided.parts["training"].take(range(12)))
  done = commands.run("chakra", "compare", "--run", tmp_path)
  assert done.returncode == 0, done.stderr
  result = json.loads((tmp_path / "comparison" / "results.json").read_text())
  # Copies of training graphs are as far from the held-out ones as training is, and are exposed.
  assert result["graphs"]["synthetic"] == 12
  assert result["revealed"]["equal_to_training"] == 1.0
  assert result["ratios"]["synthetic"]["type_pairs"] < result["ratios"]["random"]["type_pairs"]
  assert set(result["headline"]) == {"types", "depth", "degree"}
  # Draws of training graphs surround the ratio of all training graphs, which is 1.
  low, high = result["resampled"]["nodes"]
  assert 0 < low < 1.5 and low < high
  assert result["resampled"].keys() < result["distances"]["real"].keys()
  assert result["joined"] == 1 and "joins" not in done.stderr
  text = (tmp_path / "comparison" / "report.md").read_text()
  assert "| dependencies | " in text and "| users | " in text and "| degree" not in text
  assert "Equal to a training graph: 100.0%" in text and text in done.stdout
  for name in ("distributions.png", "nearest.png", "graphs.png"):
    assert (tmp_path / "comparison" / name).stat().st_size > 1000
  assert report.markdown(result) == text


def test_joined_graphs_are_announced():
  graphs = trace_dags(30, 40)
  joined = graphs.with_provenance({**graphs.provenance, "stitched": 2})
  result = report.evaluate(graphs, graphs, joined)
  assert result["joined"] == 2
  assert "**Warning:** each synthetic graph joins 2 samples (--stitch)" in report.markdown(result)


def test_the_comparison_says_which_files_it_needs(tmp_path):
  done = commands.run("chakra", "compare", "--training", tmp_path / "a.npz")
  assert done.returncode == 1
  assert "are --training; expected either --run alone, or all of --training" in done.stderr
  one = trace_dags(30)
  dags_lib.save(tmp_path / "a.npz", one)
  dags_lib.save(tmp_path / "b.npz", dags_lib.canonical(
      [(one.edges(0), one.x[:, :2])], one.x_names[:2], one.vocabularies[:2]))
  done = commands.run("chakra", "compare", "--training", tmp_path / "a.npz", "--held_out",
                      tmp_path / "b.npz", "--synthetic", tmp_path / "a.npz", "--output", tmp_path)
  assert done.returncode == 1 and "the held-out graphs have the attributes type" in done.stderr
  done = commands.run("chakra", "compare", "--run", tmp_path / "none")
  assert done.returncode == 1 and "training.npz" in done.stderr


def test_costs_are_checked_before_training(tmp_path):
  operators = np.random.default_rng(0).choice(["aten::mm", "aten::mm", "aten::add"], 900).tolist()
  step = samples.trace(samples.node(0), *(
      samples.node(index, index - 1, name=operators[index]) for index in range(1, 900)))
  traces.write(tmp_path / "host.0.et", step)
  words = ["chakra", "synthesize", "--input", tmp_path / "host.0.et", "--output", tmp_path / "out"]
  done = commands.run(*words)
  assert done.returncode == 1 and not (tmp_path / "out").exists()
  assert "nodes of the training sub-graphs have no cost" in done.stderr
  assert "operators such as 'aten::mm', 'aten::add' in a file (--costs)" in done.stderr
  (tmp_path / "costs.json").write_text(json.dumps(
      {"attribute": "operator", "costs": {"aten::mn": {"duration_micros": 5}}}))
  done = commands.run(*words, "--costs", tmp_path / "costs.json")
  assert done.returncode == 1 and not (tmp_path / "out").exists()
  assert "did you mean 'aten::mm'?" in done.stderr


def test_damaged_traces_are_skipped(tmp_path, monkeypatch):
  exporting.write(tmp_path / "in", trace_dags(900, 700), exporting.Settings(ranks=1))
  (tmp_path / "in" / "cut.0.et").write_bytes(b"\x05")

  def stop(graphs, *_):
    raise errors.DataError(f"{len(graphs)} traces are left")

  monkeypatch.setattr(outputs, "check_costs", stop)
  words = ["chakra", "synthesize", "--output", tmp_path / "out", "--input"]
  done = commands.run(*words, tmp_path / "in")
  assert "skipped: " in done.stderr and "cut.0.et" in done.stderr
  assert done.returncode == 1 and "2 traces are left" in done.stderr
  assert "--nodes asks" not in done.stderr
  # Sizes beyond those of the training sub-graphs are announced before the training.
  done = commands.run(*words, tmp_path / "in", "--nodes", "500:600", "--max_nodes", 60,
                      "--min_nodes", 20)
  assert "--nodes asks for graphs of 500 to 600 nodes, but the training sub-gr" in done.stderr
  done = commands.run(*words, tmp_path / "in" / "cut.0.et")
  assert done.returncode == 1 and "cut.0.et" in done.stderr and "skipped" not in done.stderr


def test_costs_make_traces_exportable(tmp_path):
  hosts = trace_dags(30).with_provenance({})
  column = hosts.x_names.index("duration")
  x = hosts.x.copy()
  x[:, column] = 0
  words = (*hosts.vocabularies[:column], np.array(["0"]))
  hosts = dataclasses.replace(hosts, x=x, vocabularies=words)
  costs = costs_lib.parse({"attribute": "operator", "costs": {
      "mul": {"duration_micros": 7}, "add": {"duration_micros": 7}}}, "costs")
  with pytest.raises(errors.DataError, match="have no cost"):
    outputs.check_costs(hosts, hosts, None)
  outputs.check_costs(hosts, hosts, costs)
  assert len(outputs.exportable(hosts, costs)) == 1
  with pytest.raises(errors.DataError, match="more operators"):
    outputs.exportable(hosts, None)
  report = outputs.write(tmp_path, hosts, 1, dataclasses.replace(
      costs, fields={**costs.fields, "only_held_out": {"duration": 1}}))
  assert report.fused == (hosts.x[:, 1] == 2).sum()
  (path,) = (tmp_path / "traces").iterdir()
  assert {node.duration_micros for node in traces.read(path).nodes} == {7}


def test_traces_without_enough_nodes_are_refused_before_training(tmp_path):
  exporting.write(tmp_path / "traces", trace_dags(30), exporting.Settings(ranks=1))
  done = commands.run("chakra", "synthesize", "--input", tmp_path / "traces",
                      "--output", tmp_path / "out")
  assert done.returncode == 1 and "--min_nodes" in done.stderr
  assert not (tmp_path / "out").exists()
  traces.write(tmp_path / "empty.0.et", traces.Trace())
  done = commands.run("chakra", "synthesize", "--input", tmp_path / "empty.0.et",
                      "--output", tmp_path / "out")
  assert done.returncode == 1 and "no nodes" in done.stderr
