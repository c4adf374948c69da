"""`chakra synthesize` from traces to traces, with a small network: sound, hidden, reproducible."""

import json

import numpy as np
import pytest

pytest.importorskip("tensorflow")

from tests.helpers import commands
from tests.synthesis.traces import test_compare_command
from tpugraphs_rank.chakra import exporting
from tpugraphs_rank.chakra import graphs as graphs_lib
from tpugraphs_rank.chakra import traces
from tpugraphs_rank.cli import app
from tpugraphs_rank.synthesis.dags import dags as dags_lib
from tpugraphs_rank.synthesis.traces import generation

_SMALL = {"network.width": 8, "network.edge_width": 4, "network.encoder_layers": 1,
          "network.node_layers": 1, "network.heads": 2, "network.node_steps": 3,
          "network.edge_steps": 3}


@pytest.mark.slow
def test_synthetic_traces_are_sound_and_hide_names(tmp_path, monkeypatch):
  monkeypatch.setattr(generation, "DEFAULTS", {**generation.DEFAULTS, **_SMALL})
  exporting.write(tmp_path / "real", test_compare_command.trace_dags(900, 700),
                  exporting.Settings(ranks=1))
  output = tmp_path / "out"
  words = ("chakra", "synthesize", "--input", tmp_path / "real", "--output", output, "--count", 5,
           "--nodes", "30:60", "--min_nodes", 20, "--max_nodes", 60, "--subgraphs", 12,
           "--epochs", 1, "--obfuscate")
  done = commands.run(*words)
  assert done.returncode == 0, done.stderr
  files = sorted(path.name for path in (output / "traces").iterdir())
  assert files == [f"graph_{graph:04d}.{rank}.et" for graph in range(5) for rank in range(2)]
  for name in files:
    # Reading checks ids, dependencies and cycles.
    graph = graphs_lib.read(output / "traces" / name)
    assert graph.report.dangling == graph.report.self_loops == 0
    assert set(graph.operators) <= {"op_1", "op_2", "op_3"}
    assert (graph.duration > 0).all()
    assert 23 <= len(graph.ids) <= 75
    content = (output / "traces" / name).read_bytes()
    assert not any(word in content for word in (b"add", b"mul", b"relu"))
  report = json.loads((output / "report.json").read_text())
  # After one epoch the graphs often end at a limit of the size, which must be within the quarter:
  # when limits were rounded outwards, 22 nodes were allowed for a request of 30.
  assert report["abandoned"] <= 0.1 and report["within_a_quarter"] == 1.0
  synthetic = dags_lib.load(output / "synthetic.npz")
  assert set(synthetic.vocabularies[synthetic.x_names.index("operator")]) <= {"add", "mul", "relu"}

  # The same command resumes, and replaces its traces by equal ones.
  before = {name: (output / "traces" / name).read_bytes() for name in files}
  trained = (output / "generator" / "history.csv").read_bytes()
  (tmp_path / "real" / "cut.0.et").write_bytes(b"\x05")
  again = commands.run(*words)
  assert again.returncode == app.SOME_SKIPPED and "skipped traces: 1 of 3" in again.stderr
  (tmp_path / "real" / "cut.0.et").unlink()
  assert (output / "generator" / "history.csv").read_bytes() == trained
  assert before == {path.name: path.read_bytes() for path in (output / "traces").iterdir()}
  # A comparison stays as long as it is about these graphs.
  (output / "comparison").mkdir()
  for name in ("report.md", "my_notes.txt"):
    (output / "comparison" / name).write_text("About these graphs.")
  assert "removed" not in commands.run(*words).stderr
  assert (output / "comparison" / "report.md").exists()
  joined = commands.run(*words[:-1], "--stitch", 2, "--ranks", 3)
  assert joined.returncode == 0, joined.stderr
  assert "comparison, which are about the graphs of an earlier call" in joined.stderr
  assert [path.name for path in (output / "comparison").iterdir()] == ["my_notes.txt"]
  stitched = dags_lib.load(output / "synthetic.npz")
  assert len(stitched) == 5 and (stitched.sizes >= 44).all()
  assert len(list((output / "traces").iterdir())) == 15
  assert {node.name for node in traces.read(output / "traces" / "graph_0000.0.et").nodes} <= {
      "add", "mul", "relu"}
  other = commands.run(*words[:-3], "--epochs", 2)
  assert other.returncode == 1 and "--epochs: stored 1, requested 2" in other.stderr
  assert np.array_equal(dags_lib.load(output / "synthetic.npz").x, stitched.x)
