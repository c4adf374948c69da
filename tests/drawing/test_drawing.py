"""Views, layouts and files of drawings."""

import itertools
import re
from xml.etree import ElementTree

import numpy as np
import pytest

from tests import synthetic
from tests.helpers import commands
from tests.synthesis import small_dags
from tpugraphs_rank import errors
from tpugraphs_rank.data import collections
from tpugraphs_rank.data import graphs
from tpugraphs_rank.data import npz
from tpugraphs_rank.drawing import graphviz
from tpugraphs_rank.drawing import layered
from tpugraphs_rank.drawing import scenes
from tpugraphs_rank.drawing import views
from tpugraphs_rank.hlo import hlo_pb2
from tpugraphs_rank.synthesis.dags import dags as dags_lib

_SVG = "{http://www.w3.org/2000/svg}"


def _module() -> hlo_pb2.HloModuleProto:
  """max(x, constant) -> dot with y."""
  module = hlo_pb2.HloModuleProto(name="small")
  computation = module.computations.add(name="main", id=1, root_id=5)
  for number, (name, opcode, operands) in enumerate((
      ("x", "parameter", []), ("zero.1", "constant", []), ("y", "parameter", []),
      ("maximum.2", "maximum", [1, 2]), ("dot.3", "dot", [4, 3])), start=1):
    instruction = computation.instructions.add(name=name, opcode=opcode, id=number)
    instruction.operand_ids.extend(operands)
    instruction.shape.element_type = hlo_pb2.F32
    instruction.shape.dimensions.extend([8, 16])
    instruction.shape.layout.minor_to_major.extend([1, 0])
  module.entry_computation_id = 1
  return module


def _texts(svg: str) -> list[str]:
  return [element.text or "" for element in ElementTree.fromstring(svg).iter(f"{_SVG}text")]


# ---- layout --------------------------------------------------------------------------------------


def test_producers_are_above_consumers_and_sources_next_to_their_consumers():
  #  0 -> 1 -> 2 -> 3, and 4 -> 3: node 4 has no producer, and moves down to the layer above 3.
  level = layered.levels(5, np.array([[0, 1], [1, 2], [2, 3], [4, 3]]))
  assert level.tolist() == [0, 1, 2, 3, 2]


def test_cycles_and_loops_do_not_hang():
  level = layered.levels(4, np.array([[0, 1], [1, 2], [2, 1], [3, 3]]))
  assert len(level) == 4 and level[1] > level[0]


def test_the_order_of_a_layer_avoids_crossings():
  # The two edges cross if both layers keep the order of the numbers.
  members = layered.order(np.array([0, 0, 1, 1]), np.array([[0, 3], [1, 2]]))
  upper, lower = (nodes.tolist() for nodes in members)
  assert (upper.index(0) < upper.index(1)) == (lower.index(3) < lower.index(2))


def test_boxes_do_not_overlap_and_lines_begin_and_end_at_boxes():
  rng = np.random.default_rng(0)
  edges = np.array([[rng.integers(node), node] for node in range(1, 40) for _ in range(2)])
  widths, heights = rng.uniform(20, 90, 40).tolist(), rng.uniform(10, 60, 40).tolist()
  centres, routes = layered.arrange(edges, widths, heights)
  for a, b in itertools.combinations(range(40), 2):
    apart = np.abs(centres[a] - centres[b])
    assert (apart[0] >= (widths[a] + widths[b]) / 2 - 1e-6
            or apart[1] >= (heights[a] + heights[b]) / 2 - 1e-6)
  for (producer, consumer), route in zip(edges, routes):
    assert centres[producer][1] < centres[consumer][1]
    np.testing.assert_allclose(
        route[0], [centres[producer][0], centres[producer][1] + heights[producer] / 2])
    np.testing.assert_allclose(
        route[-1], [centres[consumer][0], centres[consumer][1] - heights[consumer] / 2])


def test_isotonic_regression_pools_violators():
  np.testing.assert_allclose(layered._isotonic(np.array([1.0, 3.0, 2.0, 5.0])), [1, 2.5, 2.5, 5])


@pytest.mark.skipif(not graphviz.available(), reason="Graphviz's dot is not installed")
def test_dot_places_the_same_graph():
  view = views.from_module(_module())
  scene = scenes.arrange(view, use_dot=True)
  assert scene.splines and len(scene.routes) == len(view.edges)
  assert scene.boxes[4].y > scene.boxes[3].y > scene.boxes[0].y
  ElementTree.fromstring(scenes.svg(scene))


# ---- views ---------------------------------------------------------------------------------------


def test_an_hlo_program_has_names_opcodes_and_shapes():
  view = views.from_module(_module())
  assert [node.opcode for node in view.nodes] == [
      "parameter", "constant", "parameter", "maximum", "dot"]
  assert view.nodes[4].detail == "f32[8,16]{1,0}"
  assert sorted(map(tuple, view.edges.tolist())) == [(0, 3), (1, 3), (2, 4), (3, 4)]
  texts = _texts(scenes.svg(scenes.arrange(view, use_dot=False)))
  assert {"dot.3", "x", "parameter", "f32[8,16]{1,0}"} <= set(texts)


def test_a_layout_graph_shows_what_a_configuration_requests():
  feat = np.full([2, 2, graphs.NUM_LAYOUT_FEATURES], -1, np.float32)
  feat[1, 0, :3], feat[1, 0, 6:8] = [2, 0, 1], [1, 0]
  graph = synthetic.layout_graph(
      0, num_configs=2, num_config_nodes=2, node_config_feat=feat,
      config_runtime=np.array([3_000_000, 2_000_000]))
  first, second = graph.node_config_ids.tolist()
  view = views.from_graph(graph, 1)
  assert view.nodes[first].requests == ("output {2,0,1}", "input {1,0}")
  assert view.nodes[second].requests == ("no layout requested",)
  assert [node.number for node in view.nodes if node.configurable] == sorted([first, second])
  assert view.note == "configuration 1, 2 ms"
  with pytest.raises(errors.ConfigError, match="no configuration 2; expected 0 to 1"):
    views.from_graph(graph, 2)
  svg = scenes.svg(scenes.arrange(view, use_dot=False))
  assert "output {2,0,1}" in _texts(svg) and scenes._MARK in svg


def test_shapes_of_bundled_kernels():
  graph = next(iter(collections.load_collection("tile:xla_cpu", "test")))
  shapes = [node.detail for node in views.from_graph(graph).nodes]
  assert all(re.fullmatch(r"\w+(\[[\d,]*\])?", shape) for shape in shapes), shapes


def test_neighbourhoods():
  view = views.from_module(_module())
  near = views.neighbourhood(view, views.node_number(view, "maximum.2"), 1)
  assert [node.name for node in near.nodes] == ["x", "zero.1", "maximum.2", "dot.3"]
  assert [node.hidden for node in near.nodes] == [0, 0, 0, 1] and len(near.edges) == 3
  assert "4 of 5 nodes, 1 edges around node 3" in near.note
  assert views.neighbourhood(view, 3, 0).edges.shape == (0, 2)
  assert views.limit(view, 5) is view and len(views.limit(view, 4).nodes) <= 4
  assert views.node_number(view, "2") == 2
  for wanted, message in (("dot.4", "no instruction 'dot.4'.*did you mean 'dot.3'"),
                          ("5", "no node 5; expected 0 to 4")):
    with pytest.raises(errors.UnknownNameError, match=message):
      views.node_number(view, wanted)


def test_text_is_escaped():
  view = views.View("<a & b>", (views.Node(0, "dot", "<x>", name='"n"'),), np.zeros([0, 2], int), 1)
  svg = scenes.svg(scenes.arrange(view, use_dot=False))
  assert {"<a & b>", "<x>", '"n"'} <= set(_texts(svg))


# ---- the command ---------------------------------------------------------------------------------


def test_draw_writes_both_files(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  (tmp_path / "module.hlo.pb").write_bytes(_module().SerializeToString())
  done = commands.run("draw", "--input", "module.hlo.pb", "--layout=builtin")
  assert done.returncode == 0, done.stderr
  assert done.stdout.split() == ["module.hlo.svg", "module.hlo.png"]
  assert "dot.3" in _texts((tmp_path / "module.hlo.svg").read_text(encoding="utf-8"))
  assert (tmp_path / "module.hlo.png").read_bytes().startswith(b"\x89PNG")


def test_the_name_of_a_program_cannot_move_the_cursor(tmp_path):
  module = _module()
  module.name = "x\x1b[2J\nerror: forged"
  (tmp_path / "p.hlo.pb").write_bytes(module.SerializeToString())
  done = commands.run("draw", "--input", tmp_path / "p.hlo.pb", "--max_nodes=2", "--layout=builtin",
                      "--output", tmp_path / "p.svg")
  assert done.returncode == 0, done.stderr
  assert done.stdout.startswith(r"x\x1b[2J\nerror: forged has ")
  assert done.stdout.count("\n") == 2


def test_draw_cuts_large_graphs_and_shows_a_configuration(tmp_path):
  graph = synthetic.layout_graph(0, num_nodes=60, num_config_nodes=3, name="large")
  npz.save_graph(tmp_path / "large.npz", graph)
  output = tmp_path / "large.svg"
  done = commands.run("draw", "--input", tmp_path / "large.npz", "--max_nodes=12",
                      "--configuration=1", "--output", output, "--layout=builtin")
  assert done.returncode == 0, done.stderr
  assert done.stdout.startswith("large has 60 nodes; drawing ")
  assert any("configuration 1" in text for text in _texts(output.read_text(encoding="utf-8")))
  done = commands.run("draw", "--input", tmp_path / "large.npz", "--around=200")
  assert done.returncode == 1 and "has no node 200" in done.stderr


def test_draw_reads_generated_graphs(tmp_path):
  dags = small_dags.graphs(3)
  dags_lib.save(tmp_path / "dags.npz", dags)
  output = tmp_path / "graph.svg"
  done = commands.run("draw", "--input", tmp_path / "dags.npz", "--graph=1", "--output", output)
  assert done.returncode == 0, done.stderr
  assert output.exists()
  done = commands.run("draw", "--input", tmp_path / "dags.npz", "--graph=1000")
  assert done.returncode == 1 and "has no graph 1000" in done.stderr


def test_other_endings_are_refused(tmp_path):
  (tmp_path / "module.pb").write_bytes(_module().SerializeToString())
  done = commands.run("draw", "--input", tmp_path / "module.pb", "--output=a.jpeg")
  assert done.returncode == 1 and "a.jpeg is neither an .svg nor a .png file" in done.stderr
