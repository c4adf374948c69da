"""HLO programs as traces: control flow, communication, ranks, and a real distributed step."""

import json
import os
import pathlib
import random
import subprocess
import time

import pytest

from tests import testdata
from tests.helpers import commands
from tpugraphs_rank import errors
from tpugraphs_rank.chakra import attributes
from tpugraphs_rank.chakra import converting
from tpugraphs_rank.chakra import decoding
from tpugraphs_rank.chakra import et_def_pb2
from tpugraphs_rank.chakra import hlo_groups
from tpugraphs_rank.chakra import node_kinds
from tpugraphs_rank.chakra import replay
from tpugraphs_rank.chakra import trace_graph
from tpugraphs_rank.chakra import traces
from tpugraphs_rank.collect import environment
from tpugraphs_rank.hlo import hlo_pb2
from tpugraphs_rank.hlo import reading
from tpugraphs_rank.hlo import text as hlo_text

ROOT = pathlib.Path(__file__).resolve().parents[2]
STEP = "hlo/maxtext.module_0016.jit_train_step"
ADD = """add {
  a = f32[] parameter(0)
  b = f32[] parameter(1)
  ROOT c = f32[] add(a, b)
}
"""
LOOP = """HloModule m
condition {
  state = (s32[], s32[], f32[8]) parameter(0)
  i = s32[] get-tuple-element(state), index=0
  end = s32[] get-tuple-element(state), index=1
  ROOT go = pred[] compare(i, end), direction=LT
}
next {
  i = s32[] parameter(0)
  one = s32[] constant(2)
  ROOT j = s32[] add(i, one)
}
body {
  state = (s32[], s32[], f32[8]) parameter(0)
  i = s32[] get-tuple-element(state), index=0
  end = s32[] get-tuple-element(state), index=1
  x = f32[8] get-tuple-element(state), index=2
  j = s32[] call(i), to_apply=next
  y = f32[8] multiply(x, x)
  ROOT new = (s32[], s32[], f32[8]) tuple(j, end, y)
}
ENTRY main {
  x = f32[8] parameter(0)
  start = s32[] constant(START)
  end = s32[] constant(7)
  y = f32[8] negate(x)
  state = (s32[], s32[], f32[8]) tuple(start, end, y)
  loop = (s32[], s32[], f32[8]) while(state), condition=condition, body=body
  z = f32[8] get-tuple-element(loop), index=2
  ROOT out = f32[8] sine(z)
}
"""


def _convert(text: str, **settings) -> converting.Workload:
  return converting.convert(hlo_text.parse(text, "x.txt"), "x.txt", converting.Settings(**settings))


def _program(lines: str, header: str = "") -> str:
  return f"HloModule m{header}\n{ADD}ENTRY e {{\n  p = f32[8] parameter(0)\n  {lines}\n}}\n"


def _named(trace: traces.Trace) -> dict[str, tuple[list[str], dict]]:
  """For each node, by its name, the names of those that it waits for, and its attributes."""
  names = {node.id: node.name for node in trace.nodes}
  assert sorted(names) == list(range(len(names)))
  return {node.name: ([names[other] for other in node.data_deps], attributes.as_dict(node))
          for node in trace.nodes}


# ---- control flow --------------------------------------------------------------------------------


@pytest.mark.parametrize("start, iterations", [(1, 3), (2, 3), (6, 1), (7, 0)])
def test_a_loop_whose_condition_follows_from_constants(start, iterations):
  workload = _convert(LOOP.replace("START", str(start)))
  nodes = _named(workload.trace(0))
  multiplies = [f"loop/{number}/y" for number in range(iterations)]
  chain = ["y", *multiplies, "out"]
  for before, after in zip(chain, chain[1:]):
    assert nodes[after][0] == [before]
  assert [name for name in nodes if name.endswith("/j")] == [
      f"loop/{number}/j/j" for number in range(iterations)]
  assert (workload.notes.iterations, workload.notes.once) == (iterations, [])


def test_loops_of_unknown_and_of_noted_length():
  unknown = LOOP.replace("start = s32[] constant(START)", "start = s32[] parameter(1)")
  workload = _convert(unknown)
  assert workload.notes.once == ["loop"] and workload.notes.iterations == 1
  assert "loops with an unknown number of iterations, which run once: 1 (loop)" in str(workload)
  noted = unknown.replace(
      "body=body", 'body=body, backend_config={"known_trip_count":{"n":"4"}}')
  assert "loops unrolled: 1, with 4 iterations" in str(_convert(noted))
  cut = _convert(noted, max_iterations=2)
  assert (cut.notes.cut, cut.notes.iterations) == (["loop"], 2)
  assert "loops cut after 2 iterations: 1 (loop)" in str(cut)
  with pytest.raises(errors.LimitError, match="more than 5 operations.*--max_iterations"):
    _convert(noted, max_nodes=5)


@pytest.mark.parametrize("levels", [15, 24])
def test_calls_in_calls_do_not_take_long(levels):
  """Each computation calls the next one twice."""
  lines = ["HloModule calls", "last {", "  ROOT p = f32[8] parameter(0)", "}"]
  lines[2:3] = ["  p = f32[8] parameter(0)", "  ROOT m = f32[8] multiply(p, p)"]
  called = "last"
  for level in range(levels):
    lines += [f"level{level} {{", "  p = f32[8] parameter(0)",
              f"  a = f32[8] call(p), to_apply={called}",
              f"  ROOT b = f32[8] call(a), to_apply={called}", "}"]
    called = f"level{level}"
  lines += ["ENTRY main {", "  p = f32[8] parameter(0)",
            f"  ROOT r = f32[8] call(p), to_apply={called}", "}"]
  start = time.process_time()
  with pytest.raises(errors.LimitError, match="more than 20,000 operations.*--max_nodes"):
    _convert("\n".join(lines))
  assert time.process_time() - start < 8  # Two seconds, with room for a busy machine.


def test_large_programs_may_have_more_nodes():
  module = hlo_pb2.HloModuleProto()
  for count, limit in ((1, 20_000), (400, 20_000), (1_000, 50_000), (10_000, 200_000)):
    module.Clear()
    computation = module.computations.add()
    for _ in range(count):
      computation.instructions.add()
    assert converting._node_limit(module) == limit


def test_an_endless_loop_is_an_error():
  endless = LOOP.replace("START", "1").replace("j = s32[] call(i), to_apply=next",
                                               "j = s32[] copy(i)")
  with pytest.raises(errors.LimitError, match="more than 100 operations once its calls"):
    _convert(endless, max_nodes=100)
  # Even if the loop does nothing.
  nothing = endless.replace("y = f32[8] multiply(x, x)", "y = f32[8] bitcast(x)").replace(
      "j = s32[] copy(i)", "j = s32[] bitcast(i)")
  with pytest.raises(errors.LimitError, match="runs more than 2,000 instructions"):
    _convert(nothing, max_nodes=100)


COUNTED = """HloModule mHEADER
REGIONbody {
  p = (f32[8], token[]) parameter(0)
  x = f32[8] get-tuple-element(p), index=0
  k = token[] get-tuple-element(p), index=1
  BODY
  ROOT new = (f32[8], token[]) tuple(x, l)
}
condition {
  p = (f32[8], token[]) parameter(0)
  ROOT go = pred[] constant(true)
}
ENTRY main {
  x = f32[8] parameter(0)
  k = token[] after-all()
  state = (f32[8], token[]) tuple(x, k)
  loop = (f32[8], token[]) while(state), condition=condition, body=body, """ + (
      'backend_config={"known_trip_count":{"n":"TIMES"}}\n'
      "  ROOT z = f32[8] get-tuple-element(loop), index=0\n}\n")


def _counted(times: int, body: str, header: str = "", region: str = "", **settings):
  return _convert(COUNTED.replace("HEADER", header).replace("REGION", region).replace(
      "BODY", body).replace("TIMES", str(times)), **settings)


def test_loops_take_no_quadratic_time():
  start = time.process_time()
  # A long name in every iteration.
  name = "y" * 100_000
  workload = _counted(10_000, f"{name} = f32[8] add(x, x)\n  l = token[] after-all(k)")
  assert max(len(operation.name) for operation in workload.operations) <= 200
  # A token of all earlier iterations. What an operation waits for implies the most of them.
  workload = _counted(10_000, "w = f32[8] add-dependency(x, k)\n  y = f32[8] add(w, w)\n"
                              "  l = token[] after-all(y, k)")
  assert sum(len(operation.waits) for operation in workload.operations) < 100 * 10_000
  # Settings of a loop in a loop are read once.
  inner = COUNTED.replace("HEADER", "").replace("REGION", "").replace("TIMES", "1").replace(
      "BODY", "y = f32[8] add(x, x)\n  l = token[] after-all(y, k)").replace(
          '{"known', '{"note":"' + "n" * 500_000 + '","known')
  inner = inner.replace("body", "inner_body").replace("condition {", "inner_condition {").replace(
      "condition=condition", "condition=inner_condition").replace("ENTRY main", "inner").replace(
          "HloModule m\n", "")
  workload = _counted(2_000, "y = f32[8] call(x), to_apply=inner\n  l = token[] after-all(y, k)",
                      region=inner)
  assert len(workload.operations) == 2_000
  assert time.process_time() - start < 8


def test_operations_that_wait_for_too_many_others_are_an_error():
  # No operation implies the others, so that every one waits for all of them.
  body = "y = f32[8] add(x, x)\n  l = token[] after-all(y, k)\n  z = f32[8] add-dependency(x, k)"
  with pytest.raises(errors.LimitError, match="wait for too many others"):
    _counted(9_000, body + "\n  u = f32[8] negate(z)")


def test_a_fusion_of_many_parameters_takes_no_quadratic_time():
  count = 2_000
  lines = ["fused {", *(f"  p{at} = f32[4] parameter({at})" for at in range(count)),
           *(f"  s{at} = f32[1] slice(p{at}), slice={{[0:1]}}" for at in range(count)),
           "  ROOT t = f32[1] add(s0, s1)", "}"]
  arguments = ", ".join(f"a{at}" for at in range(count))
  lines += ["ENTRY main {", *(f"  a{at} = f32[4] parameter({at})" for at in range(count)),
            f"  ROOT f = f32[1] fusion({arguments}), kind=kLoop, calls=fused", "}"]
  start = time.process_time()
  workload = _convert("HloModule m\n" + "\n".join(lines))
  assert workload.operations[0].cost.size == 4 * count + 4
  assert time.process_time() - start < 8


def test_budgets_of_ranks_and_of_all_nodes():
  body = "y = f32[8] all-reduce(x), replica_groups={}, to_apply=add\n  l = token[] after-all(y, k)"
  with pytest.raises(errors.LimitError, match=r"5,000 ranks.*1,024 unless.*--ranks 5000\)"):
    _counted(3, body, ", replica_count=5000", ADD)
  workload = _counted(3, body, ", replica_count=5000", ADD, ranks=5000)
  assert workload.world.ranks == 5000
  # The operations of a loop share one list of groups.
  assert len({id(operation.groups) for operation in workload.operations}) == 1
  with pytest.raises(errors.LimitError, match=r"1,000 ranks; the limit for all of them is 100,000 "
                                              r"nodes.*--max_total_nodes 2000000\)"):
    _counted(2_000, body, ", replica_count=1000", ADD)
  assert _counted(200, body, ", replica_count=1000", ADD, max_total_nodes=200_000)
  with pytest.raises(errors.ConfigError, match="max_total_nodes"):
    converting.Settings(max_total_nodes=0)


def test_ranks_that_groups_name_are_counted_without_listing_them():
  lines = "ROOT y = f32[8] all-reduce(p), replica_groups=[1,60000]<=[60000], to_apply=add"
  with pytest.raises(errors.LimitError, match="60,000 ranks.*--ranks 60000"):
    _convert(_program(lines))


def test_conditionals_take_the_known_or_the_largest_branch():
  text = """HloModule m
small {
  a = f32[8] parameter(0)
  ROOT b = f32[8] negate(a)
}
large {
  a = f32[8] parameter(0)
  b = f32[8] sine(a)
  ROOT c = f32[8] add(b, b)
}
ENTRY main {
  x = f32[8] parameter(0)
  chosen = WHICH
  ROOT y = f32[8] conditional(chosen, x, x), BRANCHES
}
"""
  by_index = text.replace("BRANCHES", "branch_computations={small, large}")
  known = _convert(by_index.replace("WHICH", "s32[] constant(0)"))
  assert list(_named(known.trace(0))) == ["y/b"] and not known.notes.branches
  beyond = _convert(by_index.replace("WHICH", "s32[] constant(9)"))
  assert list(_named(beyond.trace(0))) == ["y/b", "y/c"]
  by_truth = text.replace("BRANCHES", "true_computation=small, false_computation=large")
  unknown = _convert(by_truth.replace("WHICH", "pred[] parameter(1)"))
  assert list(_named(unknown.trace(0))) == ["y/b", "y/c"]
  assert "conditionals with an unknown branch, of which the one of most" in str(unknown)


def test_instructions_without_cost_pass_dependencies_on():
  nodes = _named(_convert(_program("""a = f32[8] negate(p)
    b = f32[8] sine(p)
    t = (f32[8], (f32[8], f32[8])) tuple(a, inner)
    inner = (f32[8], f32[8]) tuple(b, p)
    g = (f32[8], f32[8]) get-tuple-element(t), index=1
    h = f32[8] get-tuple-element(g), index=0
    r = f32[2,4] reshape(h)
    c = f32[2,4] cosine(r)
    d = f32[8] tanh(p), control-predecessors={a}
    empty = f32[0] negate(q)
    q = f32[0] parameter(1)
    ROOT out = (f32[2,4], f32[8], f32[0]) tuple(c, d, empty)""")).trace(0))
  assert {name: waits for name, (waits, _) in nodes.items()} == {
      "a": [], "b": [], "c": ["b"], "d": []}
  assert nodes["c"][1] == {"is_cpu_op": False, "operator": "cosine", "num_ops": 8, "flops": 8,
                           "tensor_size": 64}


def test_control_predecessors_are_control_dependencies():
  trace = _convert(_program("a = f32[8] negate(p)\n  ROOT b = f32[8] sine(p), "
                            "control-predecessors={a}")).trace(0)
  assert [(node.name, list(node.ctrl_deps)) for node in trace.nodes] == [("a", []), ("b", [0])]


def test_fusions_whole_or_open():
  text = """HloModule m
fused {
  a = f32[8] parameter(0)
  b = f32[8] sine(a)
  ROOT c = f32[8] add(b, a)
}
ENTRY main {
  x = f32[8] parameter(0)
  ROOT f = f32[8] fusion(x), kind=kLoop, calls=fused
}
"""
  whole = _named(_convert(text).trace(0))
  assert list(whole) == ["f"] and whole["f"][1]["operator"] == "fusion.add"
  assert (whole["f"][1]["num_ops"], whole["f"][1]["tensor_size"]) == (16, 64)
  opened = _named(_convert(text, fusions="open").trace(0))
  assert list(opened) == ["b", "c"] and opened["c"][0] == ["b"]


# ---- communication -------------------------------------------------------------------------------


def _groups(attribute: str, world: tuple[int, int], channel: bool = True, rest: str = ""):
  text = _program(f"ROOT x = f32[8] {rest or 'all-reduce'}(p), replica_groups={attribute}"
                  + ", channel_id=1" * channel + (", to_apply=add" if not rest else ""))
  module = hlo_text.parse(text, "x")
  return hlo_groups.groups_of(module.computations[-1].instructions[-1], hlo_groups.World(*world),
                              "x")


def test_forms_of_groups():
  one = (4, 1)
  assert _groups("{{0,1},{2,3}}", one, False) == ((0, 1), (2, 3))
  assert _groups("{}", one, False) == ((0, 1, 2, 3),)
  assert _groups("[2,2]<=[4]", one, False) == ((0, 1), (2, 3))
  assert _groups("[2,2]<=[2,2]T(1,0)", one, False) == ((0, 2), (1, 3))
  assert _groups("mesh['a'=2,'b'=2] {'b'}", one, False) == ((0, 1), (2, 3))
  assert _groups("mesh['a'=2,'b'=2] {'a'}", one, False) == ((0, 2), (1, 3))
  assert _groups("mesh['a'=8] {'a':(2)2}", (8, 1), False) == ((0, 2), (1, 3), (4, 6), (5, 7))
  older = hlo_pb2.HloInstructionProto(opcode="all-reduce")
  short = older.collective_device_list.iota_replica_group_list
  short.num_replica_groups, short.num_devices_per_group = 2, 2
  short.iota_reshape_dims.append(4)
  assert hlo_groups.groups_of(older, hlo_groups.World(4), "x") == ((0, 1), (2, 3))


def test_what_the_numbers_of_groups_mean():
  # Two replicas (r) of two partitions (p): rank 2 r + p.
  world = (2, 2)
  assert _groups("{{0,1}}", world, False) == ((0, 2), (1, 3))  # Replicas, each partition apart.
  assert _groups("{{0},{1}}", world) == ((0, 1), (2, 3))  # Replicas with all partitions.
  assert _groups("{{0,3},{1,2}}, use_global_device_ids=true", world) == ((0, 3), (1, 2))
  assert _groups("{{0,1}}", world, rest="all-to-all") == ((0, 1), (2, 3))  # Partitions.
  assert _groups("{}, use_global_device_ids=true", world) == ((0, 1, 2, 3),)


@pytest.mark.parametrize("groups", ["{{0,4}}", "{{0,0}}", "@mesh {'x'}", "[2,3]<=[4]"])
def test_impossible_groups_are_errors(groups):
  with pytest.raises(errors.DataError, match="'x' has replica groups"):
    _groups(groups, (4, 1), False)


@pytest.mark.parametrize("line, kind, size", [
    ("f32[8] all-reduce(p), replica_groups={}, to_apply=add", "ALL_REDUCE", 32),
    ("(f32[8], f32[8]) all-reduce(p, p), replica_groups={}, to_apply=add", "ALL_REDUCE", 64),
    ("f32[32] all-gather(p), replica_groups={}, dimensions={0}", "ALL_GATHER", 32),
    ("f32[2] reduce-scatter(p), replica_groups={}, dimensions={0}, to_apply=add", "REDUCE_SCATTER",
     32),
    ("f32[8] all-to-all(p), replica_groups={}, dimensions={0}", "ALL_TO_ALL", 32),
    ("f32[8] collective-broadcast(p), replica_groups={{0,1,2,3}}", "BROADCAST", 32)])
def test_collectives_state_what_each_rank_passes_in(line, kind, size):
  text = _program(f"x = {line}\n  ROOT out = f32[8] negate(y)\n  y = f32[8] bitcast(x)",
                  ", replica_count=4")
  workload = _convert(text)
  assert workload.world == hlo_groups.World(4, 1)
  for rank in range(4):
    nodes = _named(workload.trace(rank))
    assert nodes["out"][0] == ["x"]
    assert nodes["x"][1] == {
        "is_cpu_op": False, "operator": line.split("(")[0].split()[-1] if line[0] == "f" else
        "all-reduce", "comm_type": node_kinds.collective_number(kind), "comm_size": size,
        "involved_dim": [True]}


@pytest.mark.parametrize("start, done", [
    ("s = f32[8] all-reduce-start(p), replica_groups={}, to_apply=add", "all-reduce-done"),
    ("s = (f32[8], f32[32]) all-gather-start(p), replica_groups={}, dimensions={0}",
     "all-gather-done"),
    ("s = ((f32[8]), f32[2]) reduce-scatter-start(p), replica_groups={}, dimensions={0}, "
     "to_apply=add", "reduce-scatter-done"),
    ("s = ((f32[8]), f32[8]) all-to-all-start(p), replica_groups={}, dimensions={0}",
     "all-to-all-done")])
def test_asynchronous_collectives_overlap_computation(start, done):
  workload = _convert(_program(
      f"{start}\n  work = f32[8] sine(p)\n  d = f32[8] {done}(s)\n"
      "  ROOT out = f32[8] add(d, work)", ", num_partitions=2, replica_count=2"))
  nodes = _named(workload.trace(3))
  [collective] = set(nodes) - {"work", "out"}
  assert sorted(nodes["out"][0]) == sorted([collective, "work"])
  assert nodes["work"][0] == [] and nodes[collective][0] == []
  # Without a channel it runs among replicas: ranks {0, 2} and {1, 3}.
  assert workload.groups == {"1": (0, 2), "2": (1, 3)}
  assert nodes[collective][1]["pg_name"] == "2"
  assert json.loads(attributes.get(workload.trace(0).metadata, "comm_groups")) == {
      "1": [0, 2], "2": [1, 3]}


def test_a_topology_states_dimensions_instead_of_groups():
  # Ranks 0 to 3 are at (0,0), (1,0), (0,1), (1,1): the first dimension varies fastest.
  text = _program("x = f32[8] all-reduce(p), replica_groups={{0,1},{2,3}}, to_apply=add\n"
                  "  y = f32[8] all-reduce(x), replica_groups={{0,2},{1,3}}, to_apply=add\n"
                  "  z = f32[8] all-reduce(y), replica_groups={{0,3},{1,2}}, to_apply=add\n"
                  "  ROOT w = f32[8] all-reduce(z), replica_groups={}, to_apply=add")
  workload = _convert(text, topology=(2, 2))
  nodes = _named(workload.trace(2))
  assert [nodes[name][1]["involved_dim"] for name in "xyzw"] == [
      [True, False], [False, True], [True, True], [True, True]]
  assert workload.groups == {"1": (0, 3), "2": (1, 2)}
  assert [nodes[name][1].get("pg_name") for name in "xyzw"] == [None, None, "2", None]
  with pytest.raises(errors.DataError, match="runs on 4 ranks, but the topology 4,2 has 8"):
    _convert(text.replace("HloModule m", "HloModule m, replica_count=4"), topology=(4, 2))


def test_a_rank_outside_all_groups_runs_no_collective():
  workload = _convert(_program("a = f32[8] negate(p)\n  x = f32[8] all-reduce(a), replica_groups="
                               "{{0,1},{2}}, to_apply=add\n  ROOT b = f32[8] sine(x)",
                               ", replica_count=4"))
  expected = {0: {"b": ["x"], "x": ["a"], "a": []}, 2: {"b": ["a"], "a": []}}
  expected.update({1: expected[0], 3: expected[2]})
  for rank, waits in expected.items():
    assert {name: node[0] for name, node in _named(workload.trace(rank)).items()} == waits


def test_a_permute_is_a_send_and_a_receive():
  workload = _convert(_program("a = f32[8] negate(p)\n  x = f32[8] collective-permute(a), "
                               "channel_id=1, source_target_pairs={{0,1},{1,2},{3,3}}\n"
                               "  ROOT b = f32[8] sine(x)", ", num_partitions=4"))
  kinds = [[(node.type, attributes.get(node, "comm_src"), attributes.get(node, "comm_dst"),
             attributes.get(node, "comm_tag"), attributes.get(node, "comm_size"))
            for node in workload.trace(rank).nodes if node.name == "x"] for rank in range(4)]
  send, receive, compute = node_kinds.COMM_SEND, node_kinds.COMM_RECV, node_kinds.COMP
  assert kinds == [
      [(send, 0, 1, 0, 32)], [(send, 1, 2, 0, 32), (receive, 0, 1, 0, 32)],
      [(receive, 1, 2, 0, 32)], [(compute, None, None, None, None)]]
  # `sine` waits for what was received.
  assert list(workload.trace(1).nodes[-1].data_deps) == [2]
  graphs = [trace_graph.from_trace(trace, f"x.{rank}.et")
            for rank, trace in enumerate(workload.all_ranks())]
  assert replay.run(graphs).total > 0
  with pytest.raises(errors.DataError, match="source-target pairs"):
    _convert(_program("ROOT x = f32[8] collective-permute(p), channel_id=1, "
                      "source_target_pairs={{0,1},{0,2}}", ", num_partitions=4"))


def test_sends_receives_and_transfers_to_the_host():
  pairs = 'channel_id=1, frontend_attributes={_xla_send_recv_source_target_pairs="{{0,1}}"}'
  workload = _convert(_program(
      f"token = token[] after-all()\n  s = (f32[8], u32[], token[]) send(p, token), {pairs}\n"
      f"  sd = token[] send-done(s), channel_id=1\n  r = (f32[8], u32[], token[]) recv(token), "
      f"{pairs}\n  rd = (f32[8], token[]) recv-done(r), channel_id=1\n"
      "  x = f32[8] get-tuple-element(rd), index=0\n  y = f32[8] sine(x)\n"
      "  i = (f32[8], token[]) infeed(token)\n  o = token[] outfeed(y, token)\n"
      "  hs = (f32[8], u32[], token[]) send(p, token), channel_id=2, is_host_transfer=true\n"
      "  hd = token[] send-done(hs), channel_id=2, is_host_transfer=true\n"
      "  ROOT out = (f32[8], token[]) tuple(y, o)", ", num_partitions=2"))
  kinds = [{node.name: node.type for node in trace.nodes} for trace in workload.all_ranks()]
  common = {"y": node_kinds.COMP, "i": node_kinds.MEM_LOAD, "o": node_kinds.MEM_STORE,
            "hs": node_kinds.MEM_STORE}
  assert kinds == [{"s": node_kinds.COMM_SEND, **common}, {"r": node_kinds.COMM_RECV, **common}]


def test_ranks_follow_from_groups_or_the_user():
  text = _program("ROOT x = f32[8] all-reduce(p), replica_groups={{0,1},{2,3}}, to_apply=add")
  assert _convert(text).world == hlo_groups.World(4, 1)
  assert _convert(text, ranks=8).world == hlo_groups.World(8, 1)
  with pytest.raises(errors.DataError, match="replica groups .*state the number of ranks"):
    _convert(text, ranks=3)
  with pytest.raises(errors.DataError, match="4 ranks .* but --ranks is 2; leave it out"):
    _convert(text.replace("HloModule m", "HloModule m, num_partitions=4"), ranks=2)
  with pytest.raises(errors.LimitError, match="99,999 ranks; the limit is 65,536"):
    _convert(text.replace("HloModule m", "HloModule m, num_partitions=99999"))


def test_faulty_programs_and_settings():
  with pytest.raises(errors.DataError, match="pass a program that computes"):
    _convert("ENTRY e {\n  ROOT x = f32[8] parameter(0)\n}")
  with pytest.raises(errors.DataError, match="dimension 0 has no known size"):
    _convert("ENTRY e {\n  x = f32[?] parameter(0)\n  ROOT y = f32[?] negate(x)\n}")
  with pytest.raises(errors.DataError, match="takes element 5 of a tuple of 1"):
    _convert(_program("t = (f32[8]) tuple(p)\n  ROOT x = f32[8] get-tuple-element(t), index=5"))
  for settings, message in (
      ({"ranks": 0}, "ranks is 0"), ({"topology": (0,)}, "topology is 0"),
      ({"fusions": "half"}, "whole or open"), ({"max_nodes": 0}, "max_nodes is 0")):
    with pytest.raises(errors.ConfigError, match=message):
      converting.Settings(**settings)


def test_tuples_that_grow_exponentially_take_no_time():
  lines = ["t0 = (f32[8], f32[8]) tuple(p, p)"]
  lines += [f"t{n} = (f32[8], f32[8]) tuple(t{n - 1}, t{n - 1})" for n in range(1, 60)]
  body = "fused {\n  p = f32[8] parameter(0)\n  " + "\n  ".join(lines) + (
      "\n  ROOT r = (f32[8], f32[8]) tuple(t59, t59)\n}\n")
  text = _program("\n".join(lines) + "\n  f = (f32[8], f32[8]) fusion(p), kind=kLoop, calls=fused\n"
                  "  ROOT x = f32[8] custom-call(t59, f), custom_call_target=\"a\"").replace(
                      "ENTRY", f"{body}ENTRY")
  for fusions in ("whole", "open"):
    nodes = _named(_convert(text, fusions=fusions).trace(0))
    assert nodes["x"][0] == (["f"] if fusions == "whole" else [])


_NUMBERS = (-2 ** 63, -1, 0, 1, 2, 3, 7, 100_000, 2 ** 31 - 1, 2 ** 62, 2 ** 63 - 1)
_OPCODES = ("while", "fusion", "dot", "convolution", "sort", "reduce-window", "tuple", "call",
            "select-and-scatter", "all-reduce", "collective-permute", "send", "custom-call",
            "dynamic-update-slice", "copy-start", "conditional", "triangular-solve", "other")


def _damage(message, draw: random.Random) -> None:
  """Replaces or removes something in a message, at any depth."""
  fields = message.ListFields()
  if not fields:
    return
  field, value = draw.choice(fields)
  repeated = field.label == field.LABEL_REPEATED
  if repeated and draw.random() < 0.2:
    del value[draw.randrange(len(value))]
  elif field.type == field.TYPE_MESSAGE:
    _damage(draw.choice(value) if repeated else value, draw)
  elif field.cpp_type == field.CPPTYPE_INT64:
    if repeated:
      value[draw.randrange(len(value))] = draw.choice(_NUMBERS)
    else:
      setattr(message, field.name, draw.choice(_NUMBERS))
  elif field.name == "opcode":
    message.opcode = draw.choice(_OPCODES)


@pytest.mark.parametrize("seed", range(4))
def test_damaged_programs_give_errors_or_traces(seed):
  draw = random.Random(seed)
  step = hlo_text.parse(LOOP.replace("START", "1").replace(
      "y = f32[8] multiply(x, x)", "y = f32[8] all-reduce(x), to_apply=add, replica_groups={{0,1}}"
  ).replace("HloModule m", f"HloModule m\n{ADD}"), "x")
  block = reading.read_raw(ROOT / "examples" / "transformer_block.hlo.pb").modules[0].module
  converted = 0
  for _ in range(40):
    module = hlo_pb2.HloModuleProto()
    module.CopyFrom(draw.choice((step, block)))
    for _ in range(draw.choice((1, 2, 5))):
      _damage(draw.choice(draw.choice(module.computations).instructions), draw)
    try:
      workload = converting.convert(module, "x", converting.Settings(
          max_nodes=1000, fusions=draw.choice(("whole", "open"))))
    except (errors.DataError, errors.LimitError):
      continue
    graph = trace_graph.from_trace(workload.trace(workload.world.ranks - 1), "x.0.et")
    assert not decoding.unusable(graph).any()
    assert str(workload)
    converted += 1
  assert converted > 5


# ---- real programs -------------------------------------------------------------------------------


@testdata.required
def test_a_real_distributed_step(tmp_path):
  source = testdata.path(f"{STEP}.sm_9.0_gpu_after_optimizations.hlo.pb.gz")
  result = commands.run("chakra convert", "--input", source, "--output", tmp_path / "traces")
  assert "4 ranks, 979 operations each (947 compute, 13 all-gather, 10 all-reduce, " \
      "7 reduce-scatter, 2 all-to-all)" in result.stdout
  graphs = [trace_graph.from_trace(traces.read(path), str(path))
            for path in sorted((tmp_path / "traces").iterdir())]
  assert len(graphs) == 4
  for graph in graphs:
    assert not decoding.unusable(graph).any()
    assert graph.report.edges == graph.report.dependencies == 2203
    collectives = [(node_kinds.collective_name(kind), size) for kind, size in zip(
        graph.collective.tolist(), graph.size.tolist()) if kind >= 0]
    assert collectives == [(node_kinds.collective_name(kind), size) for kind, size in zip(
        graphs[0].collective.tolist(), graphs[0].size.tolist()) if kind >= 0]
  result = replay.run(graphs)
  assert 0 < result.critical_path < result.total
  assert result.busy[:, replay.NETWORK].min() > 0
  # Before optimisation the program is that of all four ranks together: the same products.
  [before] = reading.read_raw(testdata.path(f"{STEP}.before_optimizations.hlo.pb.gz")).modules
  whole = converting.convert(before.module, "before")
  assert whole.notes.iterations == 16 and whole.unpartitioned
  assert "not partitioned yet" in str(whole)
  total = sum(operation.cost.flops for operation in whole.operations)
  assert int(graphs[0].operations.sum()) == pytest.approx(total / 4, rel=0.01)


@testdata.required
@pytest.mark.slow
@pytest.mark.skipif(not environment.is_ready(), reason="the collector's environment does not exist")
def test_the_text_of_a_program_gives_the_same_traces(tmp_path):
  source = testdata.path(f"{STEP}.sm_9.0_gpu_after_optimizations.hlo.pb.gz")
  [raw] = reading.read_raw(source).modules
  (tmp_path / "module.pb").write_bytes(raw.module.SerializeToString())
  subprocess.run(
      [str(environment.python()), str(ROOT / "tests" / "hlo" / "jax_programs.py"),
       str(tmp_path / "module.pb"), str(tmp_path / "text")],
      env={"PATH": os.environ["PATH"], "JAX_PLATFORMS": "cpu"}, check=True)
  expected = converting.convert(raw.module, "x")
  for style in ("now", "older"):
    [read] = reading.read_raw(tmp_path / f"text.{style}.txt").modules
    workload = converting.convert(read.module, "x")
    assert workload.world == expected.world
    assert sorted((o.operator, o.cost.flops, o.cost.size, o.groups, len(o.waits))
                  for o in workload.operations) == sorted(
        (o.operator, o.cost.flops, o.cost.size, o.groups, len(o.waits))
        for o in expected.operations)


# ---- the command ---------------------------------------------------------------------------------


def test_ranks_that_run_copies_are_announced():
  text = _program("ROOT x = f32[8] negate(p)")
  copies = "each of the 8 ranks runs a copy of it"
  for changes in ({"ranks": 8}, {"topology": (4, 2)}):
    workload = _convert(text, **changes)
    assert workload.world.ranks == 8 and copies in str(workload)
  assert "a copy" not in str(_convert(text))
  reduced = _program("ROOT x = f32[8] all-reduce(p), replica_groups={}, to_apply=add")
  assert "a copy" not in str(_convert(reduced, ranks=8))


def test_the_command_writes_all_ranks_or_nothing(tmp_path):
  good = tmp_path / "in" / "step.txt"
  good.parent.mkdir()
  good.write_text(_program("x = f32[8] all-reduce(p), replica_groups={{0,1},{2,3}}, to_apply=add\n"
                           "  ROOT y = f32[8] negate(x)"))
  (good.parent / "bad.txt").write_text(_program("ROOT x = f32[8] negate(q)"))
  output = tmp_path / "out"
  result = commands.run("chakra convert", "--input", good.parent, "--output", output)
  assert result.returncode == 3 and "no instruction 'q'" in result.stderr
  assert sorted(path.name for path in output.iterdir()) == [
      "step.0.et", "step.1.et", "step.2.et", "step.3.et", "step.comm_groups"]
  assert json.loads((output / "step.comm_groups").read_text()) == {"1": [0, 1], "2": [2, 3]}
  again = commands.run("chakra convert", "--input", good, "--output", output)
  assert again.returncode == 1 and "has traces already" in again.stderr
  # Traces that were converted are imported, exported, and simulated.
  imported = commands.run("chakra import", "--input", output, "--output", tmp_path / "dags.npz")
  assert imported.returncode == 0
  exported = commands.run("chakra export", "--graphs", tmp_path / "dags.npz", "--output",
                          tmp_path / "again")
  assert exported.returncode == 0
  last = traces.read(tmp_path / "again" / "step.3.et")
  assert attributes.get(last.nodes[0], "comm_type") == et_def_pb2.ALL_REDUCE
  assert attributes.get(last.nodes[0], "pg_name") == "2"
  for strict in ((), ("--strict",)):
    new = tmp_path / "new"
    failed = commands.run("chakra convert", "--input", good.parent / "bad.txt", "--output", new,
                          *strict)
    assert failed.returncode == 1 and not new.exists()
  wrong = commands.run("chakra convert", "--input", good, "--output", tmp_path / "new",
                       "--topology", "2,x")
  assert wrong.returncode == 1 and "--topology is 2,x" in wrong.stderr
