"""The simulator of traces against cases computed by hand, and its bounds on random graphs."""

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import numpy as np
import pytest

from tests.chakra import samples
from tpugraphs_rank import errors
from tpugraphs_rank.chakra import collectives
from tpugraphs_rank.chakra import et_def_pb2
from tpugraphs_rank.chakra import node_kinds
from tpugraphs_rank.chakra import replay
from tpugraphs_rank.chakra import trace_graph

# One operation, one byte of memory and a quarter of a byte of the network a microsecond; 3 us.
MACHINE = replay.Machine(operations=1e6, memory=1e6, network=0.25e6, latency=3e-6)


def _graph(*nodes, rank: int = 0) -> trace_graph.TraceGraph:
  return trace_graph.from_trace(samples.trace(*nodes), f"job.{rank}.et")


def _compute(identifier: int, *deps: int, micros: int = 10, host: bool = False):
  return samples.node(identifier, *deps, duration=micros, is_cpu_op=host)


def _collective(identifier: int, *deps: int, size: int = 8, kind: int = et_def_pb2.ALL_REDUCE,
                **values):
  return samples.node(identifier, *deps, kind=node_kinds.COMM_COLL, comm_type=kind,
                      comm_size=size, **values)


def _message(identifier: int, *deps: int, kind: int, source: int, target: int, size: int = 8):
  return samples.node(identifier, *deps, kind=kind, comm_src=source, comm_dst=target,
                      comm_size=size)


@pytest.mark.parametrize("kind, ranks, expected", [
    # 100 bytes, latency 2 us, 10 bytes a microsecond.
    ("ALL_REDUCE", 4, 2 * 3 * 2 + 2 * 3 / 4 * 10), ("ALL_GATHER", 4, 3 * 2 + 3 * 10),
    ("GATHER", 4, 3 * 2 + 3 * 10), ("REDUCE_SCATTER", 4, 3 * 2 + 3 / 4 * 10),
    ("REDUCE_SCATTER_BLOCK", 4, 3 * 2 + 3 / 4 * 10), ("ALL_TO_ALL", 5, 4 * 2 + 4 / 5 * 10),
    ("SCATTER", 5, 4 * 2 + 4 / 5 * 10), ("BROADCAST", 4, 2 * (2 + 10)),
    ("REDUCE", 5, 3 * (2 + 10)), ("BARRIER", 9, 4 * 2), ("ALL_REDUCE", 1, 0)])
def test_the_time_of_a_collective(kind, ranks, expected):
  number = node_kinds.collective_number(kind)
  assert collectives.micros(number, 100, ranks, 2.0, 10.0) == pytest.approx(expected)


def test_an_unknown_collective_has_no_time():
  with pytest.raises(errors.DataError, match="COLLECTIVE_12.*ALL_REDUCE"):
    collectives.micros(12, 1, 2, 1.0, 1.0)


def test_computation_takes_its_duration_or_the_roofline():
  graph = _graph(samples.node(0, duration=7, num_ops=100, tensor_size=1),
                 samples.node(1, num_ops=5, tensor_size=9), samples.node(2, num_ops=6),
                 samples.node(3))
  result = replay.run([graph], MACHINE)
  assert (result.ends[0] - result.starts[0]).tolist() == [7, 9, 6, 0]
  assert result.total == 7 + 9 + 6 and result.critical_path == 9
  assert result.busy.tolist() == [[0, 22, 0]]
  unmeasured = replay.run([graph], replay.Machine(1e6, 1e6, 1e6, measured=False))
  assert unmeasured.total == 100 + 9 + 6


def test_queues_run_side_by_side_each_in_order_of_readiness():
  # 0 (host, 4) -> 1 (10) -> 3 (5); 0 -> 2 (20); 4 (host, 3) waits for the queue of 0.
  graph = _graph(_compute(0, micros=4, host=True), _compute(1, 0), _compute(2, 0, micros=20),
                 _compute(3, 1, micros=5), _compute(4, micros=3, host=True))
  result = replay.run([graph], MACHINE)
  assert result.starts[0].tolist() == [0, 4, 14, 34, 4]
  assert result.total == 39
  assert result.critical_path == 24  # 0 -> 2.
  assert result.busy.tolist() == [[7, 35, 0]]


def test_a_collective_waits_for_all_ranks_and_overlaps_computation():
  # Two ranks, all-reduce of 8 bytes: 2 * 1 * 3 + 2 * (1 / 2) * 8 / 0.25 = 38 us.
  ranks = [_graph(_compute(0, micros=micros), _collective(1, 0), _compute(2, 0, micros=50),
                  _compute(3, 1, micros=1), rank=rank) for rank, micros in enumerate((10, 25))]
  result = replay.run(ranks, MACHINE)
  assert [starts.tolist() for starts in result.starts] == [[0, 25, 10, 63], [0, 25, 25, 75]]
  assert result.total == 76
  assert result.critical_path == 25 + 50  # 25 + 38 + 1 on the other chain.
  assert result.busy.tolist() == [[0, 61, 38], [0, 76, 38]]


def test_process_groups_are_matched_each_apart():
  # Groups {0, 1} and {2, 3} in another order than the collective of all.
  ranks = [_graph(_collective(0, pg_name=str(rank // 2), kind=et_def_pb2.BARRIER),
                  _collective(1, 0, kind=et_def_pb2.BARRIER), rank=rank) for rank in range(4)]
  assert replay.run(ranks, MACHINE).total == 3 + 2 * 3
  wrong = {"0": [0, 1, 2], "1": [2, 3]}
  with pytest.raises(errors.DataError, match="process group 0 runs on ranks 0, 1; .* 0, 1, 2"):
    replay.run(ranks, MACHINE, wrong)


def test_a_receive_ends_when_its_message_arrives():
  send, receive = node_kinds.COMM_SEND, node_kinds.COMM_RECV
  # 8 bytes: 3 + 8 / 0.25 = 35 us; both ranks send first, so nothing waits for itself.
  ranks = [
      _graph(_message(0, kind=send, source=0, target=1),
             _message(1, 0, kind=receive, source=1, target=0), rank=0),
      _graph(_compute(0, micros=10), _message(1, 0, kind=send, source=1, target=0),
             _message(2, 1, kind=receive, source=0, target=1), _compute(3, 2), rank=1)]
  result = replay.run(ranks, MACHINE)
  assert [ends.tolist() for ends in result.ends] == [[35, 45], [10, 45, 45, 55]]
  assert result.critical_path == result.total == 55
  with pytest.raises(errors.DataError, match="rank 0 sends 1 messages to rank 1, .* receives 0"):
    replay.run([ranks[0], _graph(_compute(0), rank=1)], MACHINE)


def test_equal_ranks_are_simulated_once():
  nodes = (_compute(0), _collective(1, 0), _compute(2, 1))
  many = replay.run([_graph(*nodes, rank=rank) for rank in range(8)], MACHINE)
  one = replay.run([_graph(*nodes)], MACHINE, repeated=8)
  assert one.total == many.total == 10 + (2 * 7 * 3 + 2 * 7 / 8 * 8 / 0.25) + 10
  assert one.busy.tolist() == [many.busy[0].tolist()]
  assert replay.run([_graph(*nodes)], MACHINE).total == 20  # One rank has nobody to talk to.


def test_opposite_orders_of_collectives_are_an_error():
  first = _graph(_collective(0, pg_name="a"), _collective(1, 0, pg_name="b"), rank=0)
  second = _graph(_collective(0, pg_name="b"), _collective(1, 0, pg_name="a"), rank=1)
  with pytest.raises(errors.DataError, match=r"job.0.et: node 0 .*wait for each other"):
    replay.run([first, second], MACHINE)


@pytest.mark.parametrize("nodes, message", [
    ((_collective(0, size=4),), "ALL_REDUCE of 4 bytes, but on rank 0 it is .* of 8 bytes"),
    ((_compute(0),), "runs on ranks 0; expected ranks 0, 1")])
def test_collectives_that_differ_are_an_error(nodes, message):
  with pytest.raises(errors.DataError, match=message):
    replay.run([_graph(_collective(0)), _graph(*nodes, rank=1)], MACHINE)


def test_wrong_settings():
  with pytest.raises(errors.ConfigError, match="memory is 0"):
    replay.Machine(memory=0)
  with pytest.raises(errors.ConfigError, match="repeated is 2 with 2 graphs"):
    replay.run([_graph(_compute(0))] * 2, repeated=2)
  with pytest.raises(errors.DataError, match="no trace to simulate"):
    replay.run([])


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_bounds_hold_for_random_traces(data):
  count = data.draw(st.integers(1, 14))
  nodes: list[list] = [[], []]
  for index in range(count):
    deps = data.draw(st.sets(st.integers(0, index - 1), max_size=3)) if index else set()
    communicates = data.draw(st.booleans())
    for rank in range(2):
      nodes[rank].append(_collective(index, *deps) if communicates else _compute(
          index, *deps, micros=data.draw(st.integers(0, 20)), host=data.draw(st.booleans())))
  graphs = [_graph(*part, rank=rank) for rank, part in enumerate(nodes)]
  result = replay.run(graphs, MACHINE)
  assert result.critical_path <= result.total + 1e-9
  assert result.busy.max() <= result.total + 1e-9
  assert result.total <= result.busy.sum() + 1e-9
  for graph, starts, ends in zip(graphs, result.starts, result.ends):
    assert np.isfinite(ends).all()
    for consumer, producer in graph.edges.tolist():
      assert starts[consumer] >= ends[producer]
    # A queue runs one node at a time.
    for chosen in (graph.types == node_kinds.COMM_COLL, graph.device == 1, graph.device == 0):
      spans = sorted(zip(starts[chosen].tolist(), ends[chosen].tolist()))
      assert all(later[0] >= earlier[1] for earlier, later in zip(spans, spans[1:]))
