"""Traces as graphs: faults of dependencies, buckets, categories, transitive reduction."""

import itertools
import pathlib
import time

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import numpy as np
import pytest

from tests import testdata
from tests.chakra import samples
from tpugraphs_rank import errors
from tpugraphs_rank.chakra import buckets
from tpugraphs_rank.chakra import graphs
from tpugraphs_rank.chakra import node_kinds
from tpugraphs_rank.chakra import operators
from tpugraphs_rank.chakra import reduction
from tpugraphs_rank.chakra import summary
from tpugraphs_rank.chakra import trace_graph
from tpugraphs_rank.chakra import traces
from tpugraphs_rank.data import segments


def _graph(*nodes: traces.Node, **options) -> trace_graph.TraceGraph:
  return trace_graph.from_trace(samples.trace(*nodes), "job.0.et", **options)


# ---- dependencies --------------------------------------------------------------------------------


def test_faulty_references_are_dropped_and_counted():
  graph = _graph(samples.node(5, 5, 9, 9, 7, 7, 7), samples.node(7, ctrl_deps=(5, 7, 8)),
                 samples.node(6, 7, 5, kind=12))
  assert graph.edges.tolist() == [[0, 1], [2, 0], [2, 1]]
  assert graph.levels.tolist() == [1, 0, 2]
  report = graph.report
  assert (report.nodes, report.dependencies, report.edges) == (3, 8, 3)
  # 9 twice and 7 three times: three repetitions; then 5 itself, and 9 is missing.
  assert (report.self_loops, report.dangling, report.duplicates) == (1, 1, 3)
  assert report.unknown_types == 1
  assert str(report) == (
      "job.0.et: 3 nodes, 3 of 8 dependencies (dropped: 1 of a node to itself, 1 on missing nodes, "
      "3 repeated); nodes of unknown types, kept: 1")


def test_control_dependencies_on_request():
  nodes = samples.node(1), samples.node(2, ctrl_deps=(1,)), samples.node(3, 2, ctrl_deps=(2,))
  assert _graph(*nodes).edges.tolist() == [[2, 1]]
  graph = _graph(*nodes, control=True)
  assert graph.edges.tolist() == [[1, 0], [2, 1]]
  assert graph.report.duplicates == 1


def test_a_cycle_names_its_nodes():
  nodes = [samples.node(10), samples.node(20, 10, 40), samples.node(30, 20), samples.node(40, 30),
           samples.node(50, 40), samples.node(60, ctrl_deps=(61,)), samples.node(61, 60)]
  with pytest.raises(errors.DataError) as caught:
    _graph(*nodes)
  assert any(text in str(caught.value) for text in (
      "20 -> 40 -> 30 -> 20", "40 -> 30 -> 20 -> 40", "30 -> 20 -> 40 -> 30"))
  assert "3 nodes" in str(caught.value)
  del nodes[1].data_deps[1]
  assert len(_graph(*nodes).edges) == 5
  with pytest.raises(errors.DataError, match="without control dependencies"):
    _graph(*nodes, control=True)


def test_a_long_cycle_is_shortened():
  nodes = [samples.node(index, (index + 1) % 5000) for index in range(5000)]
  with pytest.raises(errors.DataError, match="5000 nodes: .*, *|-> ... ->") as caught:
    _graph(*nodes)
  assert len(str(caught.value)) < 400


@pytest.mark.parametrize("nodes, message", [
    ((), "no nodes"),
    ((samples.node(4), samples.node(5), samples.node(4)), "nodes 0 and 2 .* the same id 4")])
def test_traces_without_a_graph(nodes, message):
  with pytest.raises(errors.DataError, match=message):
    _graph(*nodes)


def test_numbers_of_nodes():
  graph = trace_graph.from_trace(samples.training_step(), "job.3.et")
  assert graph.duration.tolist() == [0, 12, 13, 40, 3, 0, 0]
  assert graph.operations.tolist() == [-1, 8192, 8192, -1, -1, -1, -1]
  assert graph.size.tolist() == [4096, 4096, 2048, 65536, -1, 4096, -1]
  assert graph.device.tolist() == [0, 0, 0, 0, 1, 0, 1]
  assert graph.collective.tolist() == [-1, -1, -1, 0, -1, -1, -1]
  assert graph.group == ("", "", "", "dims=10;pg=7", "", "", "")
  send = samples.node(1, kind=node_kinds.COMM_SEND, comm_src=3, comm_dst=1, tensor_size=5)
  assert trace_graph.group_of(send) == "peer=-2"
  assert _graph(send).size.tolist() == [5]


def test_unusable_numbers_are_missing():
  graph = _graph(samples.node(1, num_ops=-4), samples.node(2, tensor_size=2 ** 63),
                 samples.node(3, duration=2 ** 64 - 1))
  assert graph.operations.tolist() == [-1, -1, -1]
  assert graph.size.tolist() == [-1, -1, -1]
  assert graph.duration.tolist() == [0, 0, 0]
  assert graph.report.unusable == 3


# ---- operators -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name, expected", [
    ("aten::copy_(1)", "aten::copy_"),
    ("void at::native::kernel<4, f<int>, std::g<char*, 2> >(int, f<int>, g<char*, 2>)",
     "at::native::kernel"),
    ("void at::native::(anonymous namespace)::cat<float, 1>(float*, (lambda()#1))",
     "at::native::cat"),
    ("Memcpy DtoD (Device -> Device)", "Memcpy DtoD"),
    ("fusion.12", "fusion"), ("all-reduce.3.1", "all-reduce"), ("layer_7", "layer"),
    ("conv2d", "conv2d"), ("int8_t", "int8_t"), ("sgemm_128x64", "sgemm_128x64"),
    ("cut<off(", "cut"), ("odd>name)", "odd>name)"), ("a\x00b\nc", "a?b c"), ("(x)", ""),
    ("", ""), ("_3", "_3"), ("x" * 300, "x" * 100), (".1.2", ".1"), ("a.b.1_22", "a.b"),
    ("a" + ".1" * 15_000, "a"), ("a<" * 10_000 + ")" * 20_000, "a"), ("a" + "(" * 10 ** 6, "a")])
def test_operator_classes(name, expected):
  assert operators.class_of_name(name) == expected


def test_the_class_that_a_trace_states_comes_first():
  node = samples.node(1, name="fusion.3")
  assert operators.class_of(node) == "fusion"
  node = samples.node(1, name="fusion.3", operator="dot")
  assert operators.class_of(node) == "dot"
  assert operators.class_of(samples.node(1, name="(1)")) == "COMP_NODE"


# ---- buckets -------------------------------------------------------------------------------------


def test_buckets_by_hand():
  # Two an octave: 1, sqrt(2) = 1.41, 2, 2.83, 4, 5.66, 8, 11.3, 16.
  numbers = [1, 2, 3, 4, 5, 6, 7, 8, 11, 12, 15, 16, 0, -1]
  assert buckets.labels(numbers, 2).tolist() == [
      "1", "2", "3", "4-5", "4-5", "6-7", "6-7", "8-11", "8-11", "12-15", "12-15", "16-22", "0",
      "none"]
  assert buckets.labels([1, 2, 3, 4, 7, 8], 1).tolist() == ["1", "2-3", "2-3", "4-7", "4-7", "8-15"]
  assert buckets.labels([5, 12345], 0).tolist() == ["5", "12345"]
  # The geometric mean of 4, 4 and 5 is 4.31; of 8 and 11 it is 9.38.
  assert buckets.values([4, 4, 5, 8, 11, 0, -1], 2) == {"4-5": 4, "8-11": 9}
  assert buckets.number("4-5", {"4-5": 5}) == (5, True)
  assert buckets.number("16-25", {}) == (20, False)
  assert buckets.number("7", {}) == (7, True)
  assert buckets.number("0", {}) == (0, True)
  assert buckets.number("none", {}) is None
  assert buckets.number("many", {}) is None


@given(st.lists(st.integers(0, 2 ** 63 - 1), min_size=1), st.integers(0, buckets.MAX_PER_OCTAVE))
def test_a_bucket_becomes_a_number_of_the_same_bucket(numbers, per_octave):
  words = buckets.labels(numbers, per_octave)
  values = buckets.values(numbers, per_octave)
  for number, word in zip(numbers, words.tolist()):
    low, _, high = word.partition("-")
    assert int(low) <= number <= int(high or low)
    value, known = buckets.number(word, values)
    assert known
    assert buckets.labels([value], per_octave).tolist() == [word]
    if per_octave and number:
      assert max(value, number) <= min(value, number) * 2 ** (1 / per_octave) * (1 + 1e-9)
    middle, _ = buckets.number(word, {})
    assert int(low) <= middle <= int(high or low)


# ---- transitive reduction ------------------------------------------------------------------------


@st.composite
def _edges(draw: st.DrawFn) -> tuple[np.ndarray, int]:
  count = draw(st.integers(1, 9))
  pairs = draw(st.sets(st.sampled_from(list(itertools.combinations(range(count), 2))))
               ) if count > 1 else set()
  order = draw(st.permutations(range(count)))
  return np.array([(order[high], order[low]) for low, high in sorted(pairs)],
                  np.int64).reshape(-1, 2), count


def _paths(edges: list[tuple[int, int]], count: int) -> np.ndarray:
  """(n, n) bool: which node depends on which, directly or not."""
  result = np.zeros([count, count], bool)
  for consumer, producer in edges:
    result[consumer, producer] = True
  for middle in range(count):
    result |= result[:, middle:middle + 1] & result[middle]
  return result


@given(_edges())
def test_the_reduction_against_brute_force(drawn):
  edges, count = drawn
  kept = reduction.reduce(edges, segments.levels(edges, count), "job")
  pairs = [tuple(row) for row in edges.tolist()]
  # An edge is implied if and only if the others give the same paths.
  needed = [index for index in range(len(pairs)) if not np.array_equal(
      _paths(pairs[:index] + pairs[index + 1:], count), _paths(pairs, count))]
  assert kept.tolist() == needed
  assert np.array_equal(_paths([pairs[index] for index in kept], count), _paths(pairs, count))


def test_the_reduction_against_networkx():
  networkx = pytest.importorskip("networkx")
  random = np.random.default_rng(0)
  rows = np.argwhere(np.tril(random.random([60, 60]) < 0.2, -1))
  kept = reduction.reduce(rows, segments.levels(rows, 60), "job")
  reduced = networkx.transitive_reduction(networkx.DiGraph(rows.tolist()))
  assert set(map(tuple, rows[kept].tolist())) == set(reduced.edges)


def test_the_reduction_of_many_dependencies_takes_no_quadratic_time():
  count, width = 5_000, 200
  rows = np.array([(node, other) for node in range(count)
                   for other in range(max(node - width, 0), node)])
  start = time.process_time()
  kept = rows[reduction.reduce(rows, np.arange(count), "job")]
  assert time.process_time() - start < 4
  assert kept.tolist() == [[node, node - 1] for node in range(1, count)]


def test_the_reduction_stays_within_its_time(monkeypatch):
  monkeypatch.setattr(reduction, "FREE_WORK", 1000)
  monkeypatch.setattr(reduction, "WORK_PER_NODE", 10)
  chain = np.stack([np.arange(1, 300), np.arange(299)], axis=1)
  with pytest.raises(errors.LimitError, match="300 nodes takes too long; import the trace without"):
    reduction.reduce(chain, np.arange(300), "job")


def test_the_reduction_stays_within_its_memory(monkeypatch):
  monkeypatch.setattr(reduction, "MAX_BYTES", 100)
  chain = np.stack([np.arange(1, 3000), np.arange(2999)], axis=1)
  # A chain frees every set at once; a star keeps them all.
  with pytest.raises(errors.LimitError, match="import the trace without it"):
    reduction.reduce(chain, np.arange(3000), "job")


# ---- data sets -----------------------------------------------------------------------------------


def test_a_data_set():
  graph = trace_graph.from_trace(samples.training_step(), "folder/job.3.et")
  several = graphs.to_dags([graph])
  assert several.x_names == graphs.ATTRIBUTES
  assert several.y_names == ("duration", "workload", "rank")
  assert several.y.tolist() == [[68, 0, 3]]
  assert several.provenance["workloads"] == ["job"]
  assert several.provenance["buckets"]["values"] == {
      "duration": {"12-15": 12, "32-45": 40, "3": 3}, "operations": {"8192-11585": 8192},
      "bytes": {"4096-5792": 4096, "2048-2896": 2048, "65536-92681": 65536}}
  # Levels from the end: 5 and 6 have no consumers.
  words = [[vocabulary[index] for index, vocabulary in zip(row, several.vocabularies)]
           for row in several.x.tolist()]
  assert words[0] == ["MEM_STORE_NODE", "store", "device", "0", "none", "4096-5792", "none", "none"]
  assert words[1][:3] == ["METADATA_NODE", "process_group:init", "host"]
  assert words[2] == ["COMM_COLL_NODE", "ncclAllReduce", "device", "32-45", "none", "65536-92681",
                      "ALL_REDUCE", "dims=10;pg=7"]
  # By level: 5, 6 | 3 | 2, 4 | 1 | 0.
  assert several.level.tolist() == [0, 0, 1, 2, 2, 3, 4]
  assert several.edges(0).tolist() == [[0, 2], [1, 3], [2, 3], [2, 4], [3, 5], [4, 5], [5, 6]]


def test_ranks_and_workloads_come_from_the_names():
  places = {"a/job.0.et": ("job", 0), "job.12.json": ("job", 12), "x.y.3.et.gz": ("x.y", 3),
            "run.2.0.et": ("run.2", 0), "1.0.2-chakra.0.0.4.json": ("1.0.2-chakra.0.0.4", -1),
            "job.et": ("job", -1), "trace": ("trace", -1), ".et": (".et", -1)}
  for path, expected in places.items():
    assert graphs.workload_and_rank(path) == expected
  several = graphs.to_dags([
      trace_graph.from_trace(samples.training_step(), path)
      for path in ("a/job.0.et", "a/job.1.et", "b/job.0.et")])
  assert several.label("workload").tolist() == [0, 0, 1]
  assert several.label("rank").tolist() == [0, 1, 0]


def test_chosen_attributes_and_frequent_operators():
  graph = trace_graph.from_trace(samples.training_step(), "job.0.et")
  several = graphs.to_dags([graph], graphs.Settings(("operator", "duration"), 0, 1))
  assert [words.tolist() for words in several.vocabularies] == [
      ["aten::mm", "other"], ["0", "12", "13", "3", "40"]]
  for change, error in (({"attributes": ("operators",)}, errors.UnknownNameError),
                        ({"attributes": ()}, errors.ConfigError),
                        ({"attributes": ("type", "type")}, errors.ConfigError),
                        ({"per_octave": 99}, errors.ConfigError),
                        ({"max_operators": -1}, errors.ConfigError)):
    with pytest.raises(error):
      graphs.Settings(**change)


def test_files_of_folders(tmp_path, caplog):
  for name in ("b.1.et", "a.json", "c.et.gz", "notes.txt", "._b.1.et"):
    (tmp_path / name).touch()
  (tmp_path / "empty").mkdir()
  assert [path.name for path in graphs.trace_files([tmp_path])] == ["a.json", "b.1.et", "c.et.gz"]
  assert graphs.trace_files([tmp_path / "notes.txt"]) == [tmp_path / "notes.txt"]
  for path in (tmp_path / "empty", tmp_path / "missing"):
    with pytest.raises(errors.MissingDataError):
      graphs.trace_files([path])
  assert "passed over" not in caplog.text
  for name in ("one/a.0.et", "one/deep/b.0.et", "two/c.0.json", ".hidden/d.0.et", "one/notes.txt"):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()
  with caplog.at_level("INFO"):
    assert len(graphs.trace_files([tmp_path])) == 3
  assert (f"passed over 3 folders with 3 traces ({tmp_path}/one, {tmp_path}/one/deep, "
          f"{tmp_path}/two); pass these folders as well") in caplog.text


# ---- summaries -----------------------------------------------------------------------------------


@settings(max_examples=40)
@given(samples.acyclic())
def test_the_critical_path_against_brute_force(trace):
  graph = trace_graph.from_trace(trace, "job")
  weights = np.minimum(graph.duration, 1000)
  producers = {node: [] for node in range(len(weights))}
  for consumer, producer in graph.edges.tolist():
    producers[consumer].append(producer)
  def ends(node: int) -> int:
    return int(weights[node]) + max(map(ends, producers[node]), default=0)
  assert summary.critical_path(graph, weights) == max(map(ends, producers))


def test_a_summary():
  trace = samples.training_step()
  result = summary.summarize(trace, "job")
  assert result["depth"] == 5
  assert result["critical_path_micros"] == 12 + 13 + 40
  assert result["total_duration_micros"] == 68
  assert result["zero_cost"] == 1
  assert "nodes that cost nothing: 1;" in summary.text(result)
  trace.nodes[0].data_deps.append(5)
  samples.attributes.put(trace.nodes[1], "num_ops", 5, "uint64_val")
  result = summary.summarize(trace, "job")
  assert len(result["faults"]) == 2
  text = summary.text(result)
  assert "num_ops is uint64_val (nodes: 1)" in text and "cycle of 5 nodes" in text


def test_a_summary_of_unknown_types_and_collectives():
  trace = samples.trace(
      samples.node(0, kind=12, duration=5), samples.node(1, 0, kind=-3, duration=5),
      samples.node(2, 1, kind=node_kinds.COMM_COLL, is_cpu_op=False, comm_type=99, comm_size=8))
  result = summary.summarize(trace, "job")
  assert result["types"] == {"COMM_COLL_NODE": 1, "NODE_TYPE_-3": 1, "NODE_TYPE_12": 1}
  text = summary.text(result)
  assert "nodes of unknown types: 2; simulators do not know them" in text
  assert "collectives of unknown kinds: 1;" in text


# ---- real traces ---------------------------------------------------------------------------------


@testdata.required
def test_the_real_trace_reduced(tmp_path: pathlib.Path):
  import tarfile
  with tarfile.open(testdata.path("chakra/feeder_tests_trace.tar.gz")) as archive:
    member = next(item for item in archive.getmembers() if item.name.endswith(".et"))
    (tmp_path / "chakra.0.et").write_bytes(archive.extractfile(member).read())
  start = time.process_time()
  graph = graphs.read(tmp_path / "chakra.0.et", graphs.Settings(reduced=True))
  assert time.process_time() - start < 10
  assert graph.report.dependencies == 181_878
  assert len(graph.edges) == graph.report.edges == 3784
  with pytest.raises(errors.DataError, match="cycle"):
    graphs.read(tmp_path / "chakra.0.et", graphs.Settings(control=True))
  # The same trace in the feeder's JSON form has the same dependencies.
  with tarfile.open(testdata.path("chakra/json_trace.tar.gz")) as archive:
    member = next(item for item in archive.getmembers() if item.name.endswith("/chakra.0.json"))
    (tmp_path / "chakra.0.json").write_bytes(archive.extractfile(member).read())
  other = graphs.read(tmp_path / "chakra.0.json", graphs.Settings(reduced=True))
  assert np.array_equal(other.ids, graph.ids)
  assert np.array_equal(other.edges, graph.edges)
  assert np.array_equal(other.duration, graph.duration)


def test_a_folder_of_folders_names_the_inner_one(tmp_path):
  (tmp_path / "a" / "b").mkdir(parents=True)
  with pytest.raises(errors.MissingDataError, match="pass the folder that holds them, or the file"):
    graphs.trace_files([tmp_path])
  traces.write(tmp_path / "a" / "b" / "job.0.et", samples.trace(samples.node(1)))
  with pytest.raises(errors.MissingDataError, match=f"such as {tmp_path}/a/b, or"):
    graphs.trace_files([tmp_path])
