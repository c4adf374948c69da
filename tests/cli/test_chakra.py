"""The commands chakra import, export and inspect."""

import json

import pytest

from tests.chakra import samples
from tests.helpers import commands
from tpugraphs_rank.chakra import graphs
from tpugraphs_rank.chakra import traces
from tpugraphs_rank.cli import app
from tpugraphs_rank.synthesis.dags import dags


@pytest.fixture(name="folder")
def _folder(tmp_path):
  (tmp_path / "in").mkdir()
  for rank in range(2):
    traces.write(tmp_path / "in" / f"job.{rank}.et", samples.training_step(), compress=rank == 1)
  return tmp_path


def test_from_traces_to_traces(folder):
  done = commands.run("chakra import", "--input", folder / "in", "--output", folder / "a.npz",
                      "--per_octave=0")
  assert done.returncode == 0, done.stderr
  assert "job.1.et: 7 nodes, 7 of 7 dependencies" in done.stdout
  assert "2 graphs of 7 nodes, up to 5 levels" in done.stdout
  command = dags.load(folder / "a.npz").provenance["command"]
  assert command.startswith("tpugraphs-rank chakra import")
  done = commands.run("chakra export", "--graphs", folder / "a.npz", "--output", folder / "out",
                      "--zero_cost=keep")
  assert done.returncode == 0, done.stderr
  assert "graphs: 2, with 14 nodes; traces: 2" in done.stdout
  again = commands.run("chakra import", "--input", folder / "out", "--output", folder / "b.npz",
                       "--per_octave=0", "--reduce")
  assert again.returncode == 0, again.stderr
  one, other = (dags.load(folder / name) for name in ("a.npz", "b.npz"))
  assert one.x.tolist() == other.x.tolist()
  assert one.y.tolist() == other.y.tolist()
  # 4 waits for 1, and 3 for 2 and 4: nothing is implied.
  assert one.src.tolist() == other.src.tolist()
  done = commands.run("chakra export", "--graphs", folder / "a.npz", "--output", folder / "out")
  assert done.returncode == 1 and "has traces already" in done.stderr


def test_a_lone_later_rank_is_announced(folder):
  (folder / "in" / "job.0.et").write_bytes(b"\x05")
  done = commands.run("chakra import", "--input", folder / "in", "--output", folder / "a.npz")
  assert done.returncode == app.SOME_SKIPPED
  words = ["chakra export", "--graphs", folder / "a.npz", "--output"]
  done = commands.run(*words, folder / "out")
  assert done.returncode == 0 and "job has rank 1 only; written as rank 0 of 1" in done.stderr
  assert [path.name for path in (folder / "out").iterdir()] == ["job.0.et"]
  # --ranks says what is meant.
  done = commands.run(*words, folder / "four", "--ranks", 4)
  assert done.returncode == 0 and "only" not in done.stderr


def test_counts_of_one(folder):
  traces.write(folder / "one.et", samples.trace(samples.node(1, duration=3)))
  done = commands.run("chakra import", "--input", folder / "one.et", "--output", folder / "a.npz")
  assert "1 graph of 1 node, up to 1 level: " in done.stdout
  done = commands.run("chakra export", "--graphs", folder / "a.npz", "--output", folder / "out")
  assert "graphs: 1, with 1 node; traces: 1" in done.stdout
  assert "1 compute node with a duration" in done.stdout


def test_costs_ranks_and_forms(folder):
  traces.write(folder / "one.et", samples.trace(samples.node(1), samples.node(2, 1)))
  commands.run("chakra import", "--input", folder / "one.et", "--output", folder / "a.npz")
  words = ["chakra export", "--graphs", folder / "a.npz", "--output", folder / "out"]
  done = commands.run(*words)
  assert done.returncode == 1 and "give costs in a file (--costs)" in done.stderr
  (folder / "costs.json").write_text(json.dumps(
      {"attribute": "operator", "costs": {"aten::mm": {"duration_micros": 5}}}))
  done = commands.run(*words, "--costs", folder / "costs.json", "--ranks=3", "--format=json",
                      "--hide_names")
  assert done.returncode == 0, done.stderr
  assert sorted(path.name for path in (folder / "out").iterdir()) == [
      f"one.{rank}.json" for rank in range(3)]
  assert [node.duration_micros for node in traces.read(folder / "out" / "one.2.json").nodes] == [
      5, 5]


def test_costs_of_unknown_operators_are_refused(folder):
  commands.run("chakra import", "--input", folder / "in", "--output", folder / "a.npz")
  (folder / "costs.json").write_text(json.dumps(
      {"attribute": "operator", "costs": {"aten::mn": {"duration_micros": 5}}}))
  done = commands.run("chakra export", "--graphs", folder / "a.npz", "--output", folder / "out",
                      "--costs", folder / "costs.json")
  assert done.returncode == 1 and "expected values such as" in done.stderr
  assert not (folder / "out").exists()


def test_damaged_traces_are_skipped(folder):
  (folder / "in" / "cut.0.et").write_bytes((folder / "in" / "job.0.et").read_bytes()[:-3])
  words = ["chakra import", "--input", folder / "in", "--output", folder / "a.npz"]
  done = commands.run(*words)
  assert done.returncode == app.SOME_SKIPPED
  assert "cut.0.et" in done.stderr and "is cut off" in done.stderr
  assert len(dags.load(folder / "a.npz")) == 2
  (folder / "a.npz").unlink()
  done = commands.run(*words, "--strict")
  assert done.returncode == 1 and not (folder / "a.npz").exists()
  (folder / "bad.et").write_bytes(b"no trace at all")
  done = commands.run("chakra import", "--input", folder / "bad.et", "--output", folder / "a.npz")
  assert done.returncode == 1 and "bad.et" in done.stderr
  done = commands.run("chakra import", "--input", folder / "bad.et", "--input",
                      folder / "in" / "cut.0.et", "--output", folder / "a.npz")
  assert done.returncode == 1 and "all traces were skipped" in done.stderr


def test_inspect(folder):
  done = commands.run("chakra inspect", folder / "in", "--output", folder / "numbers.json")
  assert done.returncode == 0, done.stderr
  assert done.stdout.count("total duration: 68 us, of which 65 us are on the longest path") == 2
  numbers = json.loads((folder / "numbers.json").read_text())
  assert [trace["nodes"] for trace in numbers["traces"]] == [7, 7]
  source = folder / "in" / "job.1.et"
  for name in ("again.json", "again.et", "again.et.gz"):
    done = commands.run("chakra inspect", source, "--write", folder / name)
    assert done.returncode == 0, done.stderr
    assert traces.read(folder / name) == traces.read(source)
  for words, message in (
      ([], "expected the name of a trace"), ([folder / "in", "--write", "x.et"], "takes one trace"),
      ([folder / "none"], "no file or folder")):
    done = commands.run("chakra inspect", *words)
    assert done.returncode == 1 and message in done.stderr
  (folder / "in" / "cut.0.et").write_bytes(b"\x05")
  done = commands.run("chakra inspect", folder / "in")
  assert done.returncode == app.SOME_SKIPPED


def test_an_output_that_cannot_be_written_is_refused_first(folder):
  (folder / "file").write_text("text")
  done = commands.run("chakra import", "--input", folder / "in", "--output", folder / "file/a.npz")
  assert done.returncode == 1 and "a file is where a folder is expected" in done.stderr
  assert not done.stdout


def test_wrong_settings(folder):
  done = commands.run("chakra import", "--input", folder / "in", "--output", folder / "a.npz",
                      "--attributes=types")
  assert done.returncode == 1 and "did you mean 'type'" in done.stderr
  assert graphs.Settings().attributes == graphs.ATTRIBUTES


def test_files_of_another_kind_name_the_command_that_takes_them(folder):
  commands.run("chakra import", "--input", folder / "in", "--output", folder / "a.npz")
  (folder / "text").write_text("HloModule step\n")
  for words, message in (
      (["chakra import", "--input", folder / "a.npz", "--output", folder / "b.npz"],
       f"`tpugraphs-rank chakra export --graphs {folder / 'a.npz'}`"),
      (["chakra inspect", folder / "text"],
       f"`tpugraphs-rank chakra convert --input {folder / 'text'}`"),
      (["chakra convert", "--input", folder / "in" / "job.0.et", "--output", folder / "c"],
       "is a trace already, not a program; `tpugraphs-rank chakra import --input"),
      (["chakra compare", "--run", folder / "in"], "has no training.npz; expected the output fold"),
      (["chakra export", "--graphs", folder / "in" / "job.0.et", "--output", folder / "c"],
       "`tpugraphs-rank chakra import --input")):
    done = commands.run(*words)
    assert done.returncode == 1 and message in done.stderr, done.stderr
