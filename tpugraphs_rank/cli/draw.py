"""Draw the graph of a program as SVG and PNG.

  tpugraphs-rank draw --input kernel.npz
  tpugraphs-rank draw --input program.npz --configuration 12 --around 431 --radius 4
  tpugraphs-rank draw --input module.hlo.pb --around dot.7 --output dot.svg
  tpugraphs-rank draw --input synthetic.npz --graph 3

The input is an .npz graph, an HLO or StableHLO program (protobuf or text, also compressed), a
measured program, or a file of generated graphs. Data flows from top to bottom. Configurable nodes
have an orange border; with `--configuration` they show the layouts that it requests. For a large
program, only a neighbourhood is drawn; `--around` chooses its centre.
"""

import pathlib

from absl import flags

from tpugraphs_rank import errors
from tpugraphs_rank import escaping
from tpugraphs_rank.candidates import programs
from tpugraphs_rank.data import headers
from tpugraphs_rank.data import npz
from tpugraphs_rank.drawing import scenes
from tpugraphs_rank.drawing import views
from tpugraphs_rank.hlo import examples
from tpugraphs_rank.hlo import reading

_GRAPH_KEY = "node_opcode"  # In every .npz graph, and in no file of generated graphs.


def read(path: pathlib.Path, graph: int = 0, configuration: int | None = None,
         module: str | None = None) -> views.View:
  """Reads the graph to draw.

  Args:
    path: an .npz graph, an HLO program, or a file of generated graphs.
    graph: index in a file of generated graphs.
    configuration: the configuration whose layouts are shown; of .npz graphs only.
    module: name of the program in a file with several; None: the first one.

  Raises:
    ConfigError: there is no such graph or configuration.
    DataError, MissingDataError: the file cannot be read.
    UnknownNameError: there is no such module.
  """
  if path.suffix == ".npz" and path.is_file() and not _has_graph(path):
    from tpugraphs_rank.synthesis.dags import dags as dags_lib
    from tpugraphs_rank.synthesis.dags import views as dag_views
    dags = dags_lib.load(path)
    if not 0 <= graph < len(dags):
      raise errors.ConfigError(f"{path} has no graph {graph}; expected 0 to {len(dags) - 1}")
    return dag_views.view(dags, graph, f"{path.stem}, graph {graph}")
  if path.suffix == ".npz":
    return views.from_graph(npz.load_graph(path), configuration)
  if configuration is not None:
    raise errors.ConfigError(
        f"--configuration needs an .npz graph, which lists configurations; {path} is not one")
  program = programs.read(path, module)[0]
  return views.from_module(program.data.module, program.source)


def _has_graph(path: pathlib.Path) -> bool:
  try:
    return _GRAPH_KEY in headers.read_headers(path)
  except errors.DataError:
    return True  # `npz.load_graph` explains what is wrong.


def define_flags() -> None:
  """Defines the command's flags."""
  flags.DEFINE_string("input", None, "The .npz graph, HLO program (protobuf or text), "
                      "StableHLO program, or file of generated graphs; or bundled:NAME, a program "
                      "that comes with the package.", required=True)
  flags.DEFINE_list("output", [], "Files to write, .svg or .png. Default: both, in the current "
                    "folder, named after the input.")
  flags.DEFINE_integer("configuration", None, "Show the layouts or the tile that this "
                       "configuration of an .npz graph requests.", lower_bound=0)
  flags.DEFINE_string("around", None, "Draw the neighbourhood of this node: its number, or the "
                      "name of its instruction.")
  flags.DEFINE_integer("radius", 3, "Edges from the centre to the end of the neighbourhood.",
                       lower_bound=0)
  flags.DEFINE_integer("max_nodes", 120, "Maximum nodes of a full drawing. For larger programs, "
                       "only a neighbourhood is drawn.",
                       lower_bound=1)
  flags.DEFINE_integer("graph", 0, "Index in a file of generated graphs.", lower_bound=0)
  flags.DEFINE_string("module", None, "Name of the program in a file with several. Default: the "
                      "first.")
  flags.DEFINE_enum("layout", "auto", ["auto", "dot", "builtin"], "What places the nodes: "
                    "Graphviz's `dot`, or the built-in algorithm. auto: `dot` where installed.")


def main(argv: list[str]) -> None:
  """Runs the command."""
  values = flags.FLAGS
  path = examples.path_of(values.input)
  view = read(path, values.graph, values.configuration, values.module)
  if values.around is not None:
    view = views.neighbourhood(view, views.node_number(view, values.around), values.radius)
  else:
    whole = len(view.nodes)
    view = views.limit(view, values.max_nodes)
    if len(view.nodes) < whole:
      print(f"{escaping.shown(view.title)} has {whole} nodes; drawing {len(view.nodes)} of them "
            "(--around chooses the centre, --max_nodes the limit)")
  scene = scenes.arrange(view, {"auto": None, "dot": True, "builtin": False}[values.layout])
  stem = reading.stem(path)
  for output in values.output or [f"{stem}.svg", f"{stem}.png"]:
    scenes.write(output, scene)
    print(output)
