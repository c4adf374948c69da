"""Damaged traces: every one must give a typed error or a result, quickly and in little memory.

  python -m tests.chakra.fuzzing COUNT SEED

damages small traces COUNT times and exits with an error if one of them crashes, hangs or takes too
much memory. It limits its own memory, so run it in a process of its own.
"""

import pathlib
import resource
import sys
import tempfile
import time

import numpy as np

from tests.chakra import samples
from tpugraphs_rank import errors
from tpugraphs_rank.chakra import exporting
from tpugraphs_rank.chakra import graphs
from tpugraphs_rank.chakra import summary
from tpugraphs_rank.chakra import trace_graph
from tpugraphs_rank.chakra import traces

SECONDS = 2
MEMORY = 3 << 30


def originals(folder: pathlib.Path) -> list[bytes]:
  """Small sound files: binary, compressed, and the two JSON forms."""
  feeder = (b'{"workload_graph": [{"Id": 1, "Name": "a", "NodeType": 4, "runtime": 3}, {"Id": 2, '
            b'"Name": "b", "NodeType": 7, "data_deps": [1], "comm_type": 0, "comm_size": 9}]}')
  result = [feeder]
  for name, trace in (("a.et", samples.training_step()), ("b.et", samples.every_kind()),
                      ("a.et.gz", samples.training_step()), ("a.json", samples.training_step())):
    traces.write(folder / name, trace, compress=name.endswith(".gz"))
    result.append((folder / name).read_bytes())
  return result


def damaged(data: bytes, random: np.random.Generator) -> bytes:
  """The file with flipped bits, other bytes, cut, repeated or with an absurd length in it."""
  result = bytearray(data)
  for _ in range(random.integers(1, 4)):
    place = int(random.integers(len(result) + 1))
    action = random.choice(5, p=[0.6, 0.2, 0.08, 0.08, 0.04])
    if action == 0 and place < len(result):
      result[place] ^= 1 << int(random.integers(8))
    elif action == 1 and place < len(result):
      result[place] = int(random.integers(256))
    elif action == 2:
      del result[place:place + int(random.integers(1, 20))]
    elif action == 3:
      result[place:place] = result[place:place + int(random.integers(1, 40))]
    else:
      result[place:place] = b"\xff" * int(random.integers(1, 9)) + b"\x7f"
  return bytes(result[:int(random.integers(len(result) + 1))] if random.random() < 0.2 else result)


def attempt(path: pathlib.Path, folder: pathlib.Path) -> str:
  """Reads a file and does with it all that the commands do; the name of the error, "" if none."""
  try:
    trace = traces.read(path)
    summary.text(summary.summarize(trace, "job"))
    traces.write(folder / "again.et", trace)
    # Unknown fields may be in another order.
    assert traces.read(folder / "again.et").nodes == trace.nodes
    several = graphs.to_dags([trace_graph.from_trace(trace, "job.0.et", reduced=True)])
  except errors.TpuGraphsRankError as error:
    assert str(error)
    return type(error).__name__
  workload, = exporting.to_workloads(several, exporting.Settings(zero_cost="keep"))
  assert len(workload.traces[0].nodes) == len(trace.nodes)
  try:
    workload, = exporting.to_workloads(several)
    assert workload.traces
  except errors.DataError:
    pass  # Damage may leave no cost, or half of a message.
  return ""


def run(count: int, seed: int, folder: pathlib.Path) -> dict[str, int]:
  """Damages the originals `count` times; how often each error came, "" for none.

  Raises:
    AssertionError: an attempt took too long.
  """
  random = np.random.default_rng(seed)
  sound = originals(folder)
  outcomes: dict[str, int] = {}
  for index in range(count):
    path = folder / "damaged"
    path.write_bytes(damaged(sound[index % len(sound)], random))
    start = time.process_time()
    outcome = attempt(path, folder)
    spent = time.process_time() - start
    assert spent < SECONDS, f"attempt {index} took {spent} seconds"
    outcomes[outcome] = outcomes.get(outcome, 0) + 1
  return outcomes


if __name__ == "__main__":
  resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
  with tempfile.TemporaryDirectory() as temporary:
    print(run(int(sys.argv[1]), int(sys.argv[2]), pathlib.Path(temporary)))
