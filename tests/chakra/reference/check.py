"""Compares our traces with the reference reader, jsonizer and visualizer of Chakra.

  ./run check-chakra                       traces that this script writes
  ./run check-chakra traces/ job.0.et      these traces as well

Every trace, and those of the reference's generator, must have the same nodes, dependencies and
attributes in both readers, and the tools must take it. The reference reads the binary form, also
compressed. The exit status is 1 if one differs, and 2 if an argument is no such trace.
"""

from collections.abc import Sequence
import json
import pathlib
import subprocess
import sys
import tempfile
from typing import Any

import numpy as np

from tests import testdata
from tests.chakra import samples
from tpugraphs_rank import commands
from tpugraphs_rank import errors
from tpugraphs_rank.chakra import attributes
from tpugraphs_rank.chakra import exporting
from tpugraphs_rank.chakra import frames
from tpugraphs_rank.chakra import graphs
from tpugraphs_rank.chakra import json_form
from tpugraphs_rank.chakra import trace_graph
from tpugraphs_rank.chakra import traces

ROOT = pathlib.Path(__file__).resolve().parents[3]
PYTHON = ROOT / ".venv-chakra" / "bin" / "python"
_READER = pathlib.Path(__file__).with_name("read_traces.py")
_SECONDS = 300


def is_ready() -> bool:
  """Whether the environment of the reference exists, so that nothing must be installed."""
  return (ROOT / ".venv-chakra" / "complete").is_file()


def write_samples(folder: pathlib.Path) -> list[pathlib.Path]:
  """Writes traces of all kinds: all attributes, exported ranks, random graphs, real ones."""
  folder.mkdir(parents=True, exist_ok=True)
  traces.write(folder / "kinds.0.et", samples.every_kind())
  traces.write(folder / "packed.0.et", samples.every_kind(), compress=True)
  parts = [("step", samples.training_step()), ("random", random_trace(300, 0))]
  if testdata.path("chakra").is_dir():
    parts.append(("real", traces.read(_real(folder))))
  for name, trace in parts:
    graph = trace_graph.from_trace(trace, f"{name}.et", reduced=name == "real")
    exporting.write(folder / name, graphs.to_dags([graph]), exporting.Settings(ranks=2))
  return sorted(folder.rglob("*.et"))


def random_trace(count: int, seed: int) -> traces.Trace:
  """A trace of compute nodes with random dependencies."""
  random = np.random.default_rng(seed)
  return samples.trace(*(
      samples.node(index, *random.choice(index, min(index, 3), replace=False).tolist(),
                   name=f"op_{index % 7}", duration=int(random.integers(1, 10 ** 6)),
                   num_ops=int(random.integers(2 ** 62)), is_cpu_op=bool(random.integers(2)))
      for index in range(count)))


def generate(folder: pathlib.Path) -> list[pathlib.Path]:
  """Writes the traces of the reference's generator: nodes and attributes of all kinds."""
  folder.mkdir(parents=True)
  _run("-m", "chakra.src.generator.generator", "--num_npus", "2", folder=folder)
  return sorted(folder.glob("*.et"))


def differences(paths: Sequence[pathlib.Path], scratch: pathlib.Path) -> list[str]:
  """What the reader and the tools of the reference do differently, one sentence each."""
  result = reader_differences(paths)
  for path in paths:
    result += _tools(path, scratch)
  return result


def reader_differences(paths: Sequence[pathlib.Path]) -> list[str]:
  """What the reader of the reference does differently, one sentence each."""
  result = []
  for path, line in zip(paths, _run(str(_READER), *map(str, paths)).splitlines(), strict=True):
    if json.loads(line) != json.loads(json.dumps(_ours(traces.read(path)))):
      result.append(f"{path}: the reference reader gives other nodes")
  return result


def _tools(path: pathlib.Path, scratch: pathlib.Path) -> list[str]:
  trace = traces.read(path)
  result = []
  theirs, own = scratch / "theirs.json", scratch / "own.json"
  _run("-m", "chakra.src.jsonizer.jsonizer", "--input_filename", str(path), "--output_filename",
       str(theirs))
  traces.write(own, trace)
  if theirs.read_bytes() != own.read_bytes():
    result.append(f"{path}: the reference jsonizer writes another text")
  if traces.read(theirs) != trace:
    result.append(f"{path}: the text of the reference jsonizer is read as another trace")
  drawn = scratch / "drawn.graphml"
  _run("-m", "chakra.src.visualizer.visualizer", "--input_filename", str(path),
       "--output_filename", str(drawn))
  pairs = {(dependency, node.id) for node in trace.nodes
           for dependency in (*node.data_deps, *node.ctrl_deps)}
  counted = (drawn.read_text().count("<node id="), drawn.read_text().count("<edge source="))
  known = {node.id for node in trace.nodes} | {pair[0] for pair in pairs}
  if counted != (len(known), len(pairs)):
    result.append(f"{path}: the reference visualizer draws {counted[0]} nodes and {counted[1]} "
                  f"edges; expected {len(known)} and {len(pairs)}")
  return result


def _ours(trace: traces.Trace) -> dict[str, Any]:
  listed = lambda owner: [
      [item.name, attributes.kind(item), repr(attributes.value(item))] for item in owner.attr]
  return {"version": trace.metadata.version, "attributes": listed(trace.metadata), "nodes": [
      [node.id, node.name, node.type, list(node.data_deps), list(node.ctrl_deps),
       node.duration_micros, listed(node)] for node in trace.nodes]}


def _real(folder: pathlib.Path) -> pathlib.Path:
  import tarfile
  with tarfile.open(testdata.path("chakra/feeder_tests_trace.tar.gz")) as archive:
    member = next(item for item in archive.getmembers() if item.name.endswith(".et"))
    content = archive.extractfile(member)
    assert content is not None
    (folder / "chakra.0.et").write_bytes(content.read())
  return folder / "chakra.0.et"


def named(arguments: Sequence[str]) -> list[pathlib.Path]:
  """The traces that the arguments name, after a check that the reference can read their form.

  Raises:
    ConfigError: an argument is a flag; there are none.
    DataError, MissingDataError: an argument is no trace in the binary form.
  """
  for argument in arguments:
    if argument.startswith("-"):
      raise errors.ConfigError(
          f"unknown flag {argument}; expected names of traces and of folders of traces only")
  paths = graphs.trace_files(arguments)
  for path in paths:
    with frames.open_content(path) as (content, _, _):
      if json_form.is_json(frames.peek(content, path)):
        binary = path.name.removesuffix(".gz").removesuffix(".json") + ".et"
        command = commands.command("chakra", "inspect", str(path), "--write", binary)
        raise errors.DataError(f"{path} is in a JSON form, which the reference does not read; "
                               f"{command} writes the binary form: pass that file")
    for _ in traces.iterate(path):
      pass
  return paths


def _run(*words: str, folder: pathlib.Path = ROOT) -> str:
  """Runs the reference's Python in a folder; its output."""
  command = f"the reference's {' '.join(words)[:200]}"
  try:
    result = subprocess.run([str(PYTHON), *words], capture_output=True, text=True, check=False,
                            timeout=_SECONDS, cwd=folder)
  except OSError as error:
    raise errors.MissingDataError(f"cannot run {PYTHON}: {error.strerror}; ./run check-chakra "
                                  "installs the reference") from None
  except subprocess.TimeoutExpired:
    raise errors.DataError(f"{command} ran longer than {_SECONDS} seconds; pass a smaller trace"
                           ) from None
  if result.returncode:
    last = (result.stderr.strip().splitlines() or ["no message"])[-1]
    raise errors.DataError(f"{command} failed with status {result.returncode}: {last[:300]}; the "
                           "reference does not take this trace")
  return result.stdout


def main(arguments: Sequence[str]) -> int:
  """Checks the samples and the traces that the arguments name; the exit status."""
  if {"-h", "--help"} & set(arguments):
    print(__doc__)
    return 0
  try:
    return _compare(named(arguments))
  except errors.TpuGraphsRankError as error:
    print(f"error: {error}", file=sys.stderr)
    return 2


def _compare(further: Sequence[pathlib.Path]) -> int:
  with tempfile.TemporaryDirectory() as scratch:
    paths = [*write_samples(pathlib.Path(scratch) / "samples"), *further]
    found = differences(paths, pathlib.Path(scratch))
    generated = generate(pathlib.Path(scratch) / "generated")
    found += reader_differences(generated)
  for text in found:
    print(text)
  print(f"{len(paths)} traces of ours and {len(generated)} of the reference, {len(found)} "
        "differences")
  return 1 if found else 0


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
