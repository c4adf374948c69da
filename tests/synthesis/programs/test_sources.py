"""Many programs from one source, and the statistics of their realization."""

import itertools
import json

import pytest

from tests.synthesis.programs import small_programs
from tpugraphs_rank import errors
from tpugraphs_rank.synthesis.programs import nodes as nodes_lib
from tpugraphs_rank.synthesis.programs import programs
from tpugraphs_rank.synthesis.programs import realization
from tpugraphs_rank.synthesis.programs import sources

Node = nodes_lib.Node
_GOOD = small_programs.BIAS.dataflow()
_BAD = [Node("parameter", "f32", 4, ()), Node("sort", "f32", 4, (0,))]


def test_graphs_are_tried_until_there_are_enough():
  realized = sources.realize_graphs(itertools.cycle([_BAD, _GOOD]), 5, "mine", 0)
  assert len(realized.programs) == 5 and realized.graphs == 10
  assert realized.refused == {"operation": 5} and realized.realized_share == 0.5
  assert [program.stem for program in realized.programs] == [
      f"mine_dot.{number}.f32" for number in (1, 3, 5, 7, 9)]
  report = realized.report()
  assert report["kinds"] == {"dot": 5} and report["nodes"] == 5 * (len(_BAD) + len(_GOOD))


def test_graphs_with_few_sites_do_not_count_as_refused():
  limits = realization.Limits(sites=1)
  vector = [Node("parameter", "f32", 3, ()), Node("negate", "f32", 3, (0,))]
  realized = sources.realize_graphs(iter([_GOOD, vector, _BAD, vector]), 9, "mine", 0, limits)
  assert realized.refused == {"sites": 2, "operation": 1} and realized.realized_share == 0.5
  assert realized.report()["sites"] == 1.0
  small = realization.Limits(sites=1, site_elements=2 ** 20)
  with pytest.raises(errors.DataError, match="'lost_sites': 201"):
    sources.realize_graphs(itertools.repeat(_GOOD), 1, "mine", 0, small)


def test_names_of_several_calls_are_distinct():
  realized = sources.realize_graphs(itertools.repeat(_GOOD), 2, "mine", 0, first_number=100)
  assert [program.stem for program in realized.programs] == ["mine_dot.100.f32", "mine_dot.101.f32"]


def test_repeated_programs_are_dropped():
  vector = [Node("parameter", "f32", 3, ()), Node("negate", "f32", 3, (0,))]
  realized = sources.realize_graphs(iter([vector] * 40), 40, "mine", 0)
  assert realized.refused["repeated"] + len(realized.programs) == 40
  assert realized.realized_share == 1.0


def test_too_few_programs_are_an_error():
  with pytest.raises(errors.DataError, match="of 201 graphs 0 became programs"):
    sources.realize_graphs(itertools.repeat(_BAD), 3, "mine", 0)


@pytest.mark.parametrize("source", sources.CONTROLS)
def test_controls_match_kinds_and_sizes(source):
  wanted = sources.targets(small_programs.ALL)
  realized = sources.realize_controls(source, wanted, 3)
  assert sources.targets(realized.programs) == wanted
  assert sources.realize_controls(source, wanted, 3).programs == realized.programs
  assert sources.realize_controls(source, wanted, 4).programs != realized.programs
  later = sources.realize_controls(source, wanted, 3, first_number=1000).programs
  assert min(int(program.stem.split(".")[1]) for program in later) == 1000


@pytest.mark.parametrize("source", sources.CONTROLS)
def test_controls_of_layout_programs_match_sites_too(source):
  limits = sources.LIMITS["layout"]
  wanted = [sources.Target(kind, 24, 4) for kind in ("dot", "reduce", "convolution")] * 2
  realized = sources.realize_controls(source, wanted, 3, limits)
  assert sources.targets(realized.programs, limits) == wanted
  assert realized.repaired < 0.02


def test_an_unknown_source():
  with pytest.raises(errors.UnknownNameError, match="random, template"):
    sources.realize_controls("guess", [sources.Target("dot", 3)], 0)


def test_a_file_of_programs_is_read_back(tmp_path):
  realized = sources.realize_graphs(itertools.repeat(_GOOD), 3, "mine", 0)
  value = json.loads(json.dumps(sources.as_json(realized, {"source": "mine"})))
  assert sources.from_json(value, "here") == realized.programs
  assert value["source"] == "mine" and value["realisation"]["programs"] == 3
  with pytest.raises(errors.DataError, match="there holds no programs"):
    sources.from_json([], "there")


@pytest.mark.parametrize("change, match", [
    ({"operation": "sort"}, "node 2 .sort.: unknown operation"),
    ({"type": "f8"}, "unknown element type 'f8'"),
    ({"operands": [0, 7]}, "expected indices below 2"),
    ({"shape": [48, 0]}, "expected sizes of 1 or more"),
    ({"operands": [0]}, "has 2 operands, not 1"),
    ({"equation": "ak,kb->ba"}, "axis . is"),
    ({"equation": ""}, "no equation")])
def test_errors_name_the_damaged_node(change, match):
  value = json.loads(json.dumps(small_programs.MATMUL.to_json()))
  value["nodes"][2].update(change)
  with pytest.raises(errors.DataError, match=match):
    programs.RunnableProgram.from_json(value)


@pytest.mark.parametrize("value", [{}, {"stem": "a_b.1.f32", "nodes": [3]}, None])
def test_values_that_are_not_programs(value):
  with pytest.raises(errors.DataError, match="no program|expected stem"):
    programs.RunnableProgram.from_json(value)
