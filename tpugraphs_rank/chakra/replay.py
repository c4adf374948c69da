"""A small simulator of traces: list scheduling on queues, and alpha-beta communication.

Each rank has three queues: one for operations of the host, one for computation on the device, and
one for communication. A queue runs one node at a time, in the order in which nodes become ready:
when all nodes that they depend on have ended. Of nodes that become ready at one time, the first in
the file runs first.

- Computation and memory take `duration_micros`, if measured. Otherwise they take the longer of
  operations / peak and bytes / memory bandwidth (a roofline).
- The k-th collective of a process group on each of its ranks is one collective. It is ready when it
  is ready on all its ranks, occupies the communication queues of all of them, and takes the time of
  `collectives.micros`.
- A send occupies the queue of its rank for latency + bytes / bandwidth. The k-th receive of a rank
  from another ends with the k-th send there to this rank, but not before the receive is ready. It
  occupies no queue.
- Nodes without cost take no time.

It is meant for labels of many graphs, not for the design of networks: there are no topologies, no
congestion, and no overlap of messages of one rank.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import heapq

import numpy as np

from tpugraphs_rank import errors
from tpugraphs_rank.chakra import collectives
from tpugraphs_rank.chakra import decoding
from tpugraphs_rank.chakra import node_kinds
from tpugraphs_rank.chakra import ranks as ranks_lib
from tpugraphs_rank.chakra import trace_graph

HOST, COMPUTE, NETWORK = range(3)
QUEUES = ("host", "compute", "network")
_MICROS = 1e6


@dataclasses.dataclass(frozen=True)
class Machine:
  """What every rank runs on. The defaults are round numbers near those of an A100 with NVLink.

  Attributes:
    operations: operations a second of the device.
    memory: bytes a second between the device and its memory.
    network: bytes a second of the link of a rank.
    latency: seconds of a step of communication.
    measured: use the durations in the trace where it has some.
  """

  operations: float = 100e12
  memory: float = 1.5e12
  network: float = 100e9
  latency: float = 5e-6
  measured: bool = True

  def __post_init__(self):
    for name in ("operations", "memory", "network", "latency"):
      value = getattr(self, name)
      if not (np.isfinite(value) and (value > 0 or value == 0 and name == "latency")):
        raise errors.ConfigError(f"machine: {name} is {value}; expected a positive number")


@dataclasses.dataclass(frozen=True, eq=False)
class Result:
  """What a simulation gives, in microseconds.

  Attributes:
    total: when the last node ends.
    critical_path: the same with as many queues as nodes: the longest chain of dependencies, also
      over several ranks. At most `total`.
    busy: (ranks, 3) how long each queue of each rank was busy; columns as in QUEUES.
    starts: for each rank (n,) when each node started.
    ends: for each rank (n,) when each node ended.
  """

  total: float
  critical_path: float
  busy: np.ndarray
  starts: tuple[np.ndarray, ...]
  ends: tuple[np.ndarray, ...]


@dataclasses.dataclass
class _Task:
  """Nodes that run as one: a node, or a collective on several ranks.

  Attributes:
    nodes: (rank, position) of each.
    queues: (rank, queue) that it occupies.
    micros: its duration.
  """

  nodes: list[tuple[int, int]]
  queues: list[tuple[int, int]]
  micros: float


def run(ranks: Sequence[trace_graph.TraceGraph], machine: Machine = Machine(),
        groups: Mapping[str, Sequence[int]] | None = None, repeated: int | None = None) -> Result:
  """Simulates the traces of a workload.

  Args:
    ranks: the graph of each rank (`trace_graph.from_trace`, `graphs.read`).
    machine: what each rank runs on.
    groups: the ranks of each process group, by `pg_name`. Without an entry these are the ranks
      whose traces name the group; a collective that names none takes all ranks.
    repeated: for one graph: how many ranks run it. They all do the same at the same time, so one is
      simulated. It is then also the size of groups that `groups` does not list.

  Raises:
    DataError: collectives or messages of the ranks do not match, or wait for each other; a node
      states too little to have a duration.
    ConfigError: `repeated` with several graphs.
  """
  if not ranks:
    raise errors.DataError("there is no trace to simulate; expected one for each rank")
  if repeated is not None and (len(ranks) > 1 or repeated < 1):
    raise errors.ConfigError(
        f"repeated is {repeated} with {len(ranks)} graphs; expected a positive number with one")
  tasks, waits = _tasks(ranks, machine, groups or {}, repeated)
  task_of = {node: number for number, task in enumerate(tasks) for node in task.nodes}
  users: list[list[int]] = [[] for _ in tasks]
  missing = [0] * len(tasks)
  edges = [(task_of[rank, consumer], task_of[rank, producer])
           for rank, graph in enumerate(ranks) for consumer, producer in graph.edges.tolist()]
  for consumer, producer in (*edges, *((task_of[user], task_of[used]) for user, used in waits)):
    users[producer].append(consumer)
    missing[consumer] += 1
  return _simulate(ranks, tasks, users, missing)


def _simulate(ranks: Sequence[trace_graph.TraceGraph], tasks: list[_Task], users: list[list[int]],
              missing: list[int]) -> Result:
  # The first node in the files runs first: its position, then its rank.
  keys = [min((position, rank) for rank, position in task.nodes) for task in tasks]
  ready = [0.0] * len(tasks)
  chain = [0.0] * len(tasks)
  heap = [(0.0, keys[number], number) for number, count in enumerate(missing) if not count]
  heapq.heapify(heap)
  free = np.zeros((len(ranks), len(QUEUES))).tolist()
  busy = np.zeros((len(ranks), len(QUEUES)))
  starts = tuple(np.full(len(graph.ids), np.nan) for graph in ranks)
  ends = tuple(np.full(len(graph.ids), np.nan) for graph in ranks)
  total = longest = 0.0
  done = 0
  while heap:
    time, _, number = heapq.heappop(heap)
    task = tasks[number]
    start = max([time, *(free[rank][queue] for rank, queue in task.queues)])
    end = start + task.micros
    for rank, queue in task.queues:
      free[rank][queue] = end
      busy[rank, queue] += task.micros
    for rank, position in task.nodes:
      starts[rank][position], ends[rank][position] = start, end
    chain[number] += task.micros
    total, longest = max(total, end), max(longest, chain[number])
    done += 1
    for user in users[number]:
      ready[user] = max(ready[user], end)
      chain[user] = max(chain[user], chain[number])
      missing[user] -= 1
      if not missing[user]:
        heapq.heappush(heap, (ready[user], keys[user], user))
  if done < len(tasks):
    rank, position = min(node for task, count in zip(tasks, missing) if count
                         for node in task.nodes)
    raise errors.DataError(
        f"{ranks[rank].report.source}: node {ranks[rank].ids[position]} and communication of other "
        "ranks wait for each other; expected the same order of collectives and messages on all "
        "ranks; correct the traces")
  return Result(total, longest, busy, starts, ends)


def _tasks(ranks: Sequence[trace_graph.TraceGraph], machine: Machine,
           groups: Mapping[str, Sequence[int]], repeated: int | None
           ) -> tuple[list[_Task], list[tuple[tuple[int, int], tuple[int, int]]]]:
  """The tasks of all ranks, and which receive waits for which send."""
  tasks: list[_Task] = []
  collective: dict[tuple[str, int], list[tuple[int, int]]] = {}
  sends: dict[tuple[int, int], list[tuple[int, int]]] = {}
  receives: dict[tuple[int, int], list[tuple[int, int]]] = {}
  latency, bandwidth = machine.latency * _MICROS, machine.network / _MICROS
  for rank, graph in enumerate(ranks):
    network = decoding.on_network(graph)
    counts: dict[str, int] = {}
    for position, kind in enumerate(graph.types.tolist()):
      node = rank, position
      if not network[position]:
        host = graph.device[position] == 1
        tasks.append(_Task([node], [(rank, HOST if host else COMPUTE)],
                           _local_micros(graph, position, machine)))
      elif kind == node_kinds.COMM_COLL:
        name = ranks_lib.pool(graph.group[position])
        collective.setdefault((name, counts.get(name, 0)), []).append(node)
        counts[name] = counts.get(name, 0) + 1
      elif kind == node_kinds.COMM_SEND:
        sends.setdefault(_ends(graph, position, rank, repeated), []).append(node)
        size = max(int(graph.size[position]), 0)
        tasks.append(_Task([node], [(rank, NETWORK)],
                           collectives.message_micros(size, latency, bandwidth)))
      else:
        receives.setdefault(_ends(graph, position, rank, repeated), []).append(node)
        tasks.append(_Task([node], [], 0.0))
  named = _members(ranks, groups)
  for (name, _), nodes in collective.items():
    tasks.append(_joined(ranks, nodes, name, named.get(name), latency, bandwidth,
                         repeated if repeated and name not in groups else None,
                         len(groups.get(name, ()))))
  return tasks, _waits(ranks, sends, receives)


def _local_micros(graph: trace_graph.TraceGraph, position: int, machine: Machine) -> float:
  duration = int(graph.duration[position])
  if machine.measured and duration > 0:
    return float(duration)
  operations = max(int(graph.operations[position]), 0)
  size = max(int(graph.size[position]), 0)
  return max(operations / machine.operations, size / machine.memory) * _MICROS


def _ends(graph: trace_graph.TraceGraph, position: int, rank: int, repeated: int | None
          ) -> tuple[int, int]:
  """Sending and receiving rank of a node; of repeated ranks, their difference."""
  offset = ranks_lib.peer(graph.group[position])
  if offset is None:
    raise errors.DataError(
        f"{graph.report.source}: node {graph.ids[position]} sends or receives, but does not state "
        "both comm_src and comm_dst; expected both; correct the trace, or leave the node out")
  if repeated:
    return 0, offset % repeated
  return (rank, rank + offset) if graph.types[position] == node_kinds.COMM_SEND else (
      rank - offset, rank)


def _members(ranks: Sequence[trace_graph.TraceGraph], groups: Mapping[str, Sequence[int]]
             ) -> dict[str, list[int]]:
  """The ranks of each process group, by its name."""
  result: dict[str, list[int]] = {}
  for rank, graph in enumerate(ranks):
    for name in {ranks_lib.pool(group) for group in graph.group if group} - {""}:
      result.setdefault(name, []).append(rank)
  if len(ranks) > 1:
    result.update({name: sorted(members) for name, members in groups.items()})
  result[""] = list(range(len(ranks)))
  return result


def _joined(ranks: Sequence[trace_graph.TraceGraph], nodes: list[tuple[int, int]], name: str,
            members: list[int] | None, latency: float, bandwidth: float, repeated: int | None,
            stated: int) -> _Task:
  """One collective on all its ranks."""
  first, place = nodes[0]
  graph = ranks[first]
  kind, size = int(graph.collective[place]), max(int(graph.size[place]), 0)
  what = (f"node {graph.ids[place]} ({node_kinds.collective_name(kind)} of {size:,} bytes)")
  present = [rank for rank, _ in nodes]
  if members is not None and len(ranks) > 1 and present != members:
    raise errors.DataError(
        f"{graph.report.source}: {what} of {f'process group {name}' if name else 'all ranks'} runs "
        f"on ranks {_shown(present)}; expected ranks {_shown(members)}; give the traces of all "
        "ranks of one run")
  for rank, position in nodes:
    other = ranks[rank]
    if (int(other.collective[position]), max(int(other.size[position]), 0)) != (kind, size):
      raise errors.DataError(
          f"{other.report.source}: node {other.ids[position]} is "
          f"{node_kinds.collective_name(int(other.collective[position]))} of "
          f"{max(int(other.size[position]), 0):,} bytes, but on rank {first} it is {what}; "
          "expected the same collectives in the same order on all ranks; pass the traces of one "
          "run, or correct them")
  if kind == trace_graph.MISSING:
    raise errors.DataError(f"{graph.report.source}: node {graph.ids[place]} is a collective "
                           "without comm_type; expected its kind; correct the trace")
  count = repeated or (stated if len(ranks) == 1 and stated else len(nodes))
  return _Task(nodes, [(rank, NETWORK) for rank in present],
               collectives.micros(kind, size, count, latency, bandwidth))


def _shown(ranks: list[int]) -> str:
  return ", ".join(map(str, ranks[:8])) + (", ..." if len(ranks) > 8 else "")


def _waits(ranks: Sequence[trace_graph.TraceGraph], sends: dict[tuple[int, int], list],
           receives: dict[tuple[int, int], list]
           ) -> list[tuple[tuple[int, int], tuple[int, int]]]:
  result = []
  for ends in sorted({*sends, *receives}):
    sent, received = sends.get(ends, []), receives.get(ends, [])
    if len(sent) != len(received):
      rank, position = (sent or received)[0]
      raise errors.DataError(
          f"{ranks[rank].report.source}: rank {ends[0]} sends {len(sent)} messages to rank "
          f"{ends[1]}, which receives {len(received)}; expected pairs; give the traces of all "
          f"ranks of one run (node {ranks[rank].ids[position]} is one of them)")
    result += list(zip(received, sent))
  return result
