"""What the commands `collect tile`, `collect layout` and `synthesize` share: the whole pipeline."""

from collections.abc import Callable, Sequence
import pathlib
import shlex
from typing import Any

from absl import flags

from tpugraphs_rank import commands
from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank.cli import featurize
from tpugraphs_rank.cli import help_text
from tpugraphs_rank.collect import environment
from tpugraphs_rank.collect.common import assemble_synthetic
from tpugraphs_rank.collect.common import extending
from tpugraphs_rank.collect.common import flags as collector_flags
from tpugraphs_rank.collect.common import graph_files
from tpugraphs_rank.collect.common import plans
from tpugraphs_rank.collect.layout import assemble as assemble_layout
from tpugraphs_rank.collect.tile import assemble as assemble_tile

SECTION = "Measurement"
_LISTS = (list[str], list[int])


def define_collector_flags(kinds: Sequence[str], left_out: Sequence[str] = ()) -> None:
  """Defines the flags of the collectors, without defaults: the collector has them.

  Args:
    kinds: the collectors, "tile" or "layout" or both.
    left_out: names of flags that the command does not have.
  """
  define: dict[Any, Callable[..., Any]] = {
      int: flags.DEFINE_integer, float: flags.DEFINE_float, str: flags.DEFINE_string,
      bool: flags.DEFINE_bool, **dict.fromkeys(_LISTS, flags.DEFINE_list)}
  for flag in collector_flags.FLAGS:
    having = [kind for kind in kinds if kind in flag.defaults]
    if having and flag.name not in left_out:
      text = flag.help
      defaults = {kind: flag.defaults[kind] for kind in having
                  if flag.defaults[kind] not in (None, False, float("inf"))}
      if len(set(defaults.values())) == 1:
        text += f" Default: {next(iter(defaults.values()))}."
      elif defaults:
        listed = ", ".join(f"{value} ({kind})" for kind, value in defaults.items())
        text += f" Default: {listed}."
      define[flag.type](flag.name, None, text)
      help_text.describe(flags.FLAGS[flag.name], SECTION, True, flag.name)


def collector_arguments(kind: str, values: flags.FlagValues, left_out: Sequence[str] = ()
                        ) -> list[str]:
  """The flags that the user set, as arguments of the collector."""
  arguments = []
  for flag in collector_flags.of_kind(kind):
    if flag.name in left_out or flag.name not in values or not values[flag.name].present:
      continue
    value: Any = values[flag.name].value
    if flag.type is bool:
      arguments += [f"--{flag.name}"] if value else []
    else:
      text = ",".join(value) if flag.type in _LISTS else str(value)
      if flag.name in ("synthetic", "exclude"):
        text = str(pathlib.Path(text).absolute())
      arguments.append(f"--{flag.name}={text}")
  return arguments


def collect(kind: str, output: pathlib.Path, arguments: Sequence[str], name: str,
            synthetic: bool, passes: int = 2, split_seed: int = 0, extend: str | None = None
            ) -> dict[str, Any]:
  """Measures, featurizes and assembles: from a catalogue or a file of programs to a collection.

  The folder `output` gets `measured/`, `npz/` and `collection/`, which holds `collection.json`.

  Args:
    kind: "tile" or "layout".
    output: the folder. A second call resumes in it.
    arguments: arguments of the collector, see `collector_flags`.
    name: name of the collection.
    synthetic: whether synthetic programs are measured, not those of the catalogue.
    passes: number of passes.
    split_seed: seed of the splits (tiles of the catalogue only).
    extend: a collection whose graphs the new one holds as well (not with synthetic programs).

  Returns:
    The contents of the collection's `measurement.json`.

  Raises:
    OutputError: the collector's environment could not be made, or the collector failed.
    DataError: nothing passes the quality gates.
  """
  measured, npz, collection = output / "measured", output / "npz", output / "collection"
  earlier = extending.NONE
  if extend:
    keys = graph_files.TILE_KEYS if kind == "tile" else graph_files.LAYOUT_KEYS
    earlier = extending.read(extend, kind, keys)
    arguments = [*arguments, *_exclude(earlier, output, arguments)]
  environment.run(f"tpugraphs_rank.collect.{kind}", "--output", str(measured.absolute()),
                  *arguments)
  suffix = ".pb" if kind == "tile" else ""
  raw = [str(measured / f"pass{number}{suffix}") for number in range(1, passes + 1)]
  featurize.featurize([raw[0]], str(npz), repeats=raw[1:], overwrite=True, strict=True)
  if synthetic:
    return assemble_synthetic.assemble(measured, npz, collection, name)
  if kind == "tile":
    return assemble_tile.assemble(measured, npz, collection, name, split_seed, earlier)
  return assemble_layout.assemble(measured, npz, collection, name, earlier)


def _exclude(earlier: extending.Earlier, output: pathlib.Path, arguments: Sequence[str]
             ) -> list[str]:
  """The argument that excludes the graphs of an earlier collection, and what the user excludes."""
  chosen = [argument.partition("=")[2] for argument in arguments
            if argument.startswith("--exclude=")]
  names = sorted({*earlier.graphs, *(name for path in chosen for name in plans.names(path))})
  path = (output / "exclude.txt").absolute()
  files.write_text(path, "".join(f"{name}\n" for name in names))
  return [f"--exclude={path}"]


def locks() -> pathlib.Path | None:
  """The folder in which no other process may work: with --machine, that of this machine.

  The collector locks that one itself.
  """
  return None if flags.FLAGS.machine else pathlib.Path(flags.FLAGS.output)


def _measure_part(kind: str, output: pathlib.Path, arguments: Sequence[str]) -> None:
  """Measures this machine's part of the programs."""
  environment.run(f"tpugraphs_rank.collect.{kind}", "--output",
                  str((output / "measured").absolute()), *arguments)
  again = commands.command("collect", kind, "--output", shlex.quote(str(output)),
                           "--assemble_only")
  print("this machine has nothing more to measure now; when all machines are done, make the "
        f"collection: {again}, with the same other flags")


def run(kind: str, default_name: str, values: flags.FlagValues) -> None:
  """Runs `collect tile` or `collect layout` and prints what the collection holds."""
  output = pathlib.Path(values.output)
  if values.machine and not values.assemble_only:
    wait = ["--wait"] if values.wait else []
    _measure_part(kind, output, [*collector_arguments(kind, values), *wait])
    return
  synthetic = bool(values.synthetic)
  if synthetic and values.extend:
    raise errors.ConfigError("--synthetic and --extend exclude each other: only measurements of "
                             "the catalogue extend a collection")
  name = values.name or (f"{kind}:synthetic" if synthetic else default_name)
  measurement = collect(
      kind, output, collector_arguments(kind, values), name, synthetic, values.passes or 2,
      values.split_seed if kind == "tile" else 0, values.extend)
  print(summary(measurement, "kernels" if kind == "tile" else "programs"))
  print(f"collection: {output / 'collection' / 'collection.json'}")


def summary(measurement: dict[str, Any], programs: str) -> str:
  """What a collection holds, for the user."""
  gates = measurement["gates"]
  if "splits" not in measurement:
    failed, lost = (", ".join(f"{count} {why}" for why, count in gates[key].items() if count)
                    or "none" for key in ("failed", "lost"))
    return (f"{gates['kept']} of {gates['planned']} programs kept, with "
            f"{measurement['configurations']:,} configurations; not measurable: {failed}; "
            f"rejected by the quality gates: {lost}")
  lines = [f"{split:<6} {split_summary[programs]:5d} {programs}, "
           f"{split_summary.get('configurations', 0):7,d} configurations"
           for split, split_summary in measurement["splits"].items()]
  lost = sum(count for row in gates["families"].values() for reason, count in row.items()
             if reason.startswith("lost_to_"))
  return "\n".join([*lines, f"rejected by the quality gates: {lost}; not measurable: "
                    f"{len(gates['failed_to_measure'])}; not measured yet: "
                    f"{len(gates['not_measured'])}"])


def define_flags_of(kind: str, default_name: str) -> None:
  """Defines the flags of `collect tile` or `collect layout`."""
  flags.DEFINE_string("output", None, "Folder of the results.", required=True)
  flags.DEFINE_string("name", None, f"Name of the collection. Default: {default_name}, or "
                      f"{kind}:synthetic.")
  flags.DEFINE_string("extend", None, "A measured collection, by name or path, whose graphs the "
                      "new one holds as well, each in its split.")
  if kind == "tile":
    flags.DEFINE_integer("split_seed", 0, "Seed of the splits.")
  define_collector_flags([kind])
