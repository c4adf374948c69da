"""From dataflow graphs to programs: always valid, and unrepaired where the graph allows it."""

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest

from tests.synthesis.programs import small_programs
from tpugraphs_rank.synthesis.programs import controls
from tpugraphs_rank.synthesis.programs import dataflow
from tpugraphs_rank.synthesis.programs import nodes as nodes_lib
from tpugraphs_rank.synthesis.programs import operations as ops
from tpugraphs_rank.synthesis.programs import programs
from tpugraphs_rank.synthesis.programs import realization
from tpugraphs_rank.synthesis.programs import realizer
from tpugraphs_rank.synthesis.programs import subgraphs

Node = nodes_lib.Node
# Limits that refuse no graph.
_LENIENT = realization.Limits(repaired=10.0, elements=2 ** 62, work=1e30)


def _realized(nodes, seed=0, limits=realization.Limits()):
  return realization.realize(nodes, "synthetic", 3, np.random.default_rng(seed), limits)


@st.composite
def _graphs(draw):
  """Random graphs of known operations with one result; only the arities are valid."""
  count = draw(st.integers(2, 14))
  nodes = []
  unused = []
  for place in range(count):
    able = [name for name in sorted(ops.ALL) if min(ops.ARITIES[name]) <= place]
    if place == count - 1:
      fitting = [name for name in able if max(ops.ARITIES[name]) >= len(unused) > 0
                 and len(unused) in ops.ARITIES[name]]
      hypothesis.assume(fitting)
      name = draw(st.sampled_from(fitting))
      operands = tuple(unused)
    else:
      name = draw(st.sampled_from(able))
      arity = draw(st.sampled_from([n for n in sorted(ops.ARITIES[name]) if n <= place]))
      operands = tuple(sorted(draw(st.permutations(range(place)))[:arity]))
    unused = [node for node in unused if node not in operands] + [place]
    nodes.append(Node(name, draw(st.sampled_from(["f32", "bf16", "s32", "pred", "u8"])),
                      draw(st.integers(0, 20)), operands))
  return nodes


@hypothesis.given(_graphs(), st.integers(0, 3))
@hypothesis.settings(max_examples=150)
def test_any_graph_is_realized_or_refused(nodes, seed):
  outcome = _realized(nodes, seed, _LENIENT)
  assert outcome.nodes == len(nodes)
  if outcome.program is None:
    assert outcome.refused in realization.REFUSALS
    return
  # The constructor of a program validates every node.
  assert outcome.refused == ""
  program = outcome.program
  used = {operand for node in program.nodes for operand in node.operands}
  assert used == set(range(len(program.nodes) - 1))
  assert programs.RunnableProgram.from_json(program.to_json()) == program
  for place, node in enumerate(program.nodes):
    types = {program.nodes[operand].type for operand in node.operands
             if program.nodes[operand].operation != ops.CONSTANT}
    if node.operation in {**ops.UNARY, **ops.BINARY}:
      assert types <= {node.type}, (place, node)
      assert node.type in {**ops.UNARY, **ops.BINARY}[node.operation]
    elif node.operation == ops.COMPARE:
      assert len(types) <= 1 and node.type == "pred"
    elif node.operation == ops.SELECT:
      assert program.nodes[node.operands[0]].type == "pred"


@hypothesis.given(st.sampled_from(ops.KINDS), st.integers(2, 30), st.integers(0, 999))
@hypothesis.settings(max_examples=150)
def test_a_program_without_repairs_equals_its_graph(kind, size, seed):
  nodes = controls.typed_random(kind, size, np.random.default_rng(seed))
  outcome = _realized(nodes, seed, _LENIENT)
  assert outcome.program is not None and not sum(outcome.repairs.values())
  without_size = lambda actual: dataflow.as_dags(
      [[node._replace(bucket=0, type="" if node.operation == ops.CONSTANT else node.type)
        for node in actual]])
  np.testing.assert_array_equal(without_size(nodes).hashes(),
                                without_size(outcome.program.dataflow()).hashes())
  if not outcome.missed_buckets:
    assert sorted(node.bucket for node in nodes if node.operation != ops.CONSTANT) == sorted(
        node.bucket for node in outcome.program.dataflow() if node.operation != ops.CONSTANT)


def test_real_kernels_need_almost_no_repairs():
  graphs = dataflow.from_dags(dataflow.extract("tile:xla_cpu:v1"))
  outcomes = [_realized(nodes, number) for number, nodes in enumerate(graphs)]
  assert all(outcome.program is not None for outcome in outcomes)
  assert np.mean([outcome.repaired for outcome in outcomes]) < 0.01
  nodes = sum(outcome.nodes for outcome in outcomes)
  assert sum(outcome.missed_buckets for outcome in outcomes) < 0.2 * nodes


@pytest.mark.parametrize("program", small_programs.ALL, ids=lambda program: program.stem)
def test_handwritten_programs_need_no_repairs(program):
  outcome = _realized(program.dataflow(), limits=_LENIENT)
  assert outcome.repairs == dict.fromkeys(realizer.REPAIRS, 0)


_P = Node("parameter", "f32", 12, ())


@pytest.mark.parametrize("nodes, why", [
    ([_P], "one_node"),
    ([_P, _P, Node("negate", "f32", 12, (0,))], "several_results"),
    ([_P, Node("sort", "f32", 12, (0,))], "operation"),
    ([_P, Node("select", "f32", 12, (0,))], "operands"),
    ([Node("constant", "f32", 0, ()), Node("broadcast", "f32", 12, (0,))], "constant"),
    ([_P, Node("negate", "f32", 40, (0,))], "size"),
    ([_P, Node("transpose", "f32", 1, (0,)), Node("convert", "f32", 1, (1,)),
      Node("xor", "f32", 1, (2,))], "repairs")])
def test_refusals(nodes, why):
  outcome = _realized(nodes, limits=realization.Limits(repaired=0.2, elements=2 ** 20))
  assert (outcome.program, outcome.refused) == (None, why)


@pytest.mark.parametrize("nodes, repairs", [
    # A logarithm of integers.
    ([Node("parameter", "s32", 12, ()), Node("parameter", "s32", 12, ()),
      Node("add", "s32", 12, (0, 1)), Node("log", "s32", 12, (2,))], {"type": 4}),
    # A select without a predicate.
    ([_P, _P._replace(), Node("select", "f32", 12, (0, 1))], {"operand": 1}),
    # A reduction and its input have different shapes.
    ([_P, Node("reduce-add", "f32", 12, (0,)), Node("add", "f32", 12, (0, 1))], {"operand": 1}),
    # A conversion to the same type.
    ([_P, Node("convert", "f32", 12, (0,))], {"operation": 1}),
    # The result has room for a vector only, which cannot be transposed.
    ([_P, _P, Node("add", "f32", 12, (0, 1)), Node("reduce-add", "f32", 0, (2,)),
      Node("transpose", "f32", 0, (3,)), Node("broadcast", "f32", 12, (4,))], None)])
def test_repairs_are_counted(nodes, repairs):
  outcome = _realized(nodes, limits=_LENIENT)
  assert outcome.program is not None
  actual = {kind: count for kind, count in outcome.repairs.items() if count}
  if repairs is not None:
    assert actual == repairs
  assert outcome.repaired == pytest.approx(sum(actual.values()) / len(nodes))


def test_repairs_lose_as_few_nodes_as_possible():
  # A vector cannot be broadcast from an array of two axes; the product before it is kept.
  chain = [_P, _P, Node("dot", "f32", 12, (0, 1)), Node("broadcast", "f32", 3, (2,))]
  outcome = _realized(chain, limits=_LENIENT)
  assert outcome.repairs == {"type": 0, "operand": 0, "operation": 1, "left_out": 0}
  # One array cannot be both operands of a non-square product; the parameter is replaced.
  taken = [_P, _P, Node("add", "f32", 12, (0, 1)), Node("tanh", "f32", 12, (2,)),
           Node("dot", "f32", 12, (0, 3)), _P, Node("add", "f32", 12, (4, 5))]
  outcome = _realized(taken, limits=_LENIENT)
  assert outcome.repairs["left_out"] == 0 and sum(outcome.repairs.values()) <= 1
  # Of three arrays without a predicate a parameter is dropped, not the computed array.
  select = [_P, Node("tanh", "f32", 12, (0,)), _P, _P, Node("select", "f32", 12, (1, 2, 3))]
  assert _realized(select, limits=_LENIENT).repairs == {
      "type": 0, "operand": 1, "operation": 0, "left_out": 1}


def test_the_best_of_several_tries_is_selected():
  graphs = dataflow.from_dags(dataflow.extract(
      "layout:xla_cpu:mixed:v1", ("valid",), sampling=subgraphs.Sampling(1, 15, 40, sites=3)))
  limits = [realization.Limits(repaired=10.0, tries=tries) for tries in (1, 6)]
  repairs = [[sum(_realized(nodes, number, limit).repairs.values())
              for number, nodes in enumerate(graphs)] for limit in limits]
  assert np.mean(repairs[1]) < np.mean(repairs[0])


@pytest.mark.parametrize("elements, expected", [
    (0, ["dot", "reshape", "reshape", "dot"]), (2 ** 10, ["dot", "dot"]), (2 ** 20, [])])
def test_sites_need_a_large_tensor_with_two_axes(elements, expected):
  node = programs.Node
  nodes = [node("parameter", (), "f32", (64, 32)), node("parameter", (), "f32", (32, 4)),
           node("dot", (0, 1), "f32", (64, 4), "ak,kb->ab"), node("reshape", (2,), "f32", (16, 16)),
           node("reshape", (3,), "f32", (256,)), node("tanh", (4,), "f32", (256,)),
           node("reshape", (5,), "f32", (1, 256)),
           node("dot", (0, 0), "f32", (64, 64), "ak,bk->ab")]
  assert programs.sites(nodes, elements) == len(expected)


def test_few_sites_are_refused():
  nodes = small_programs.BIAS.dataflow()
  assert _realized(nodes, limits=realization.Limits(sites=2)).refused == "sites"
  # The graph has a site, but the program's tensors are too small.
  lost = realization.Limits(sites=1, site_elements=2 ** 20)
  assert _realized(nodes, limits=lost).refused == "lost_sites"
  assert _realized(nodes, limits=realization.Limits(sites=1)).refused == ""


def test_a_missed_size_is_no_repair():
  # Both operands of a sum have its shape, whatever size they request.
  outcome = _realized([Node("parameter", "f32", 10, ()), Node("parameter", "f32", 12, ()),
                   Node("add", "f32", 12, (0, 1))])
  assert sum(outcome.repairs.values()) == 0 and outcome.missed_buckets == 1


def test_the_same_seed_gives_the_same_program():
  nodes = small_programs.BIAS.dataflow()
  assert _realized(nodes, 5).program == _realized(nodes, 5).program
  assert _realized(nodes, 5).program != _realized(nodes, 6).program


@pytest.mark.parametrize("kind", ops.KINDS)
@pytest.mark.parametrize("make", [controls.typed_random, controls.template])
def test_controls_are_of_the_kind_and_size_and_need_no_repair(make, kind):
  rng = np.random.default_rng(0)
  for size in range(2, 24):
    nodes = make(kind, size, rng)
    assert nodes_lib.kind(nodes) == kind
    assert len(nodes) == max(size, {"reduce": 2, "transpose": 2}.get(kind, 3))
    outcome = _realized(nodes, size, _LENIENT)
    assert outcome.program is not None and not sum(outcome.repairs.values()), nodes
