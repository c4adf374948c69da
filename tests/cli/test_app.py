"""What all commands share: flags of a configuration, errors, logs."""

import dataclasses
import importlib.util
import io
import logging
import os
import signal
import socket
import subprocess
import sys
import time
import types

from absl import flags
import numpy as np
import pytest
import tqdm

from tests.helpers import commands
from tpugraphs_rank import commands as names
from tpugraphs_rank import config as config_lib
from tpugraphs_rank import errors
from tpugraphs_rank import folder_locks
from tpugraphs_rank import registries
from tpugraphs_rank import run_config
from tpugraphs_rank.cli import app
from tpugraphs_rank.cli import help_text
from tpugraphs_rank.cli import interruption


def _config(*arguments):
  """The configuration that the arguments of a command give."""
  values = flags.FlagValues()
  app.define_config_flags(run_config.RunConfig, values)
  values(["program", *map(str, arguments)])
  return app.config_from_flags(run_config.RunConfig, values)


def test_flags_override_a_file_which_overrides_the_defaults(tmp_path):
  path = tmp_path / "settings.json"
  path.write_text('{"model": {"hidden_width": 8, "dropout": 0.5}}')
  config = _config("--config", path, "--dropout=0.25", "--losses=mse,list_mle",
                   "--loss_weights=1,0.5", "--notensorboard")
  expected = config_lib.override(run_config.RunConfig(), {
      "model.hidden_width": 8, "model.dropout": 0.25, "loss.losses": ["mse", "list_mle"],
      "loss.loss_weights": [1.0, 0.5], "training.tensorboard": False})
  assert config == expected
  with pytest.raises(errors.ConfigError, match="--loss_weights=a: expected a comma-separated "):
    _config("--loss_weights=a")
  with pytest.raises(errors.ConfigError, match=(
      "--model_options is not valid JSON.*expected a JSON object, ")):
    _config("--model_options={")
  assert _config('--model_options={"depth": 3}').model.model_options == {"depth": 3}


def test_a_recipe_is_named_without_its_path():
  assert _config("--config=tile_xla_cpu").data.collection == "tile:xla_cpu"
  with pytest.raises(errors.MissingDataError, match="no settings file tile_xla_cp .did you mean"):
    _config("--config=tile_xla_cp")


def test_a_folder_is_no_settings_file(tmp_path, monkeypatch):
  with pytest.raises(errors.MissingDataError, match="is a folder; .* --config .*config.json"):
    _config("--config", tmp_path)
  (tmp_path / "tile_xla_cpu").mkdir()
  monkeypatch.chdir(tmp_path)
  assert _config("--config=tile_xla_cpu").data.collection == "tile:xla_cpu"


def test_plugins_are_loaded_before_the_file_is_read(tmp_path, request):
  for name in ("one", "two"):
    request.addfinalizer(
        lambda name=name: registries.MODELS.unregister(f"plugin_model_{name}"))
  for name in ("one", "two"):
    (tmp_path / f"{name}.py").write_text(
        "from tpugraphs_rank import registries\n"
        f"registries.MODELS.register('plugin_model_{name}', object())\n")
  (tmp_path / "settings.json").write_text('{"model": {"model": "plugin_model_one"}}')
  one, two = tmp_path / "one.py", tmp_path / "two.py"
  config = _config("--config", tmp_path / "settings.json", "--plugin", one, "--plugin", two)
  assert config.model.model == "plugin_model_one"
  assert config.training.plugin == (str(one), str(two))
  assert _config("--plugin", f"{one},{two}", "--model=plugin_model_two").training.plugin == (
      str(one), str(two))


# ---- help ----------------------------------------------------------------------------------------


def test_the_short_help_groups_the_common_settings_and_mentions_helpfull():
  short = commands.run("train", "--help").stdout
  full = commands.run("train", "--helpfull").stdout
  headings = [line for line in short.splitlines() if line and not line.startswith(" ")]
  titles = list(config_lib.section_titles(run_config.RunConfig).values())
  assert headings[:3] == ["usage: tpugraphs-rank train --run_dir=DIR [flags]",
                          "Train a ranker on a collection; run it again to resume.", "Command"]
  assert headings[3:-1] == [title for title in titles if title in headings]
  rest = int(headings[-1].split()[0])
  assert headings[-1] == f"{rest} more settings: tpugraphs-rank train --helpfull"
  settings = {name.rpartition(".")[2]: (name, field.metadata["common"])
              for name, field, _ in config_lib.leaves(run_config.RunConfig)}
  shown = {leaf for leaf in settings if f" --{leaf}" in short or f" --[no]{leaf}" in short}
  assert {leaf for leaf, (_, common) in settings.items() if common} == shown
  assert 15 <= len(shown) <= 30 and len(shown) + rest == len(settings)
  assert all(f"[{name}]" in " ".join(full.split()) for name, _ in settings.values())
  assert commands.run("train", "--help_all").stdout == full


@pytest.mark.parametrize("words, expected", [
    (("rank",), "usage: tpugraphs-rank rank --run_dir=DIR --hlo=FILE [flags]"),
    (("submission", "merge"),
     "usage: tpugraphs-rank submission merge --parts=A,B,... --output=PATH [flags]"),
])
def test_the_usage_names_the_required_flags(words, expected):
  assert commands.run(*words, "--help").stdout.splitlines()[0] == expected


def test_the_help_of_flags_fits_a_terminal_and_shows_defaults(monkeypatch):
  monkeypatch.setenv("COLUMNS", "80")
  lines = commands.run("rank", "--help").stdout.splitlines()
  text = " ".join(" ".join(lines).split())
  assert "--tiling=target|tpu|elements|xla_cpu" in text and "Default: 4096." in text
  flags_from = lines.index(help_text.COMMAND_SECTION)
  assert max(map(len, lines[flags_from:])) <= 80


# ---- running -------------------------------------------------------------------------------------


@pytest.fixture(name="run")
def fixture_run(monkeypatch):
  """Runs a module as a command named "try"."""
  def run(main, *arguments, define_flags=lambda: None, **options):
    module = types.ModuleType("a_command", "Try.")
    module.main, module.define_flags = main, define_flags
    monkeypatch.setitem(sys.modules, "a_command", module)
    output = io.StringIO()
    monkeypatch.setattr(sys, "stderr", output)
    return app.run_command("try", "a_command", arguments, **options), output.getvalue()
  return run


def _raises(error):
  def main(argv):
    raise error
  return main


def test_exit_statuses(run):
  assert run(lambda argv: None) == (0, "")
  assert run(lambda argv: 3) == (3, "")
  assert run(_raises(errors.DataError("x.npz is damaged"))) == (1, "error: x.npz is damaged\n")
  assert run(_raises(KeyboardInterrupt())) == (
      130, "interrupted; every file that was written is complete; run `tpugraphs-rank try` "
      "again\n")
  with pytest.raises(SystemExit):
    run(_raises(SystemExit(5)))
  with pytest.raises(ZeroDivisionError):  # A bug keeps its traceback.
    run(_raises(ZeroDivisionError()))
  assert run(lambda argv: 0, "stray") == (
      2, "error: unexpected argument 'stray'; all options are flags (`tpugraphs-rank try --help` "
      "lists them)\n")
  assert run(lambda argv: len(argv), "a", "b", positional="NAME...")[0] == 3


@pytest.mark.parametrize("error, status, what", [
    (KeyboardInterrupt(), 130, "interrupted"),
    (interruption.Terminated(), 143, "terminated"),
    (SystemExit(143), 143, "terminated"),  # As the processes of the collector end.
])
def test_an_interruption_states_what_is_kept_and_the_command_that_resumes(
    run, tmp_path, error, status, what):
  folder = tmp_path / "my run"
  options = {"define_flags": lambda: flags.DEFINE_string("try_output", None, "A folder."),
             "kept": ("the run is kept", "try_output")}
  again = f"`tpugraphs-rank try --try_output '{folder}'`"
  assert run(_raises(error), "--try_output", str(folder), **options) == (
      status, f"{what}; nothing was written yet; run {again} again\n")
  folder.mkdir()
  assert run(_raises(error), "--try_output", str(folder), **options) == (
      status, f"{what}; the run is kept in {folder}; {again} resumes\n")


@pytest.mark.parametrize("number, status", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_the_children_of_a_command(tmp_path, number, status):
  note = tmp_path / "child"
  parent = subprocess.Popen(
      [sys.executable, "-m", "tests.cli.waiting_command", str(note)], cwd=commands.ROOT, text=True,
      stdout=subprocess.PIPE, stderr=subprocess.PIPE,
      # A shell's background jobs ignore SIGINT, and their children inherit that.
      preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))
  deadline = time.monotonic() + 60
  while not note.exists() and time.monotonic() < deadline:
    time.sleep(0.05)
  parent.send_signal(number)
  output, log = parent.communicate(timeout=60)
  assert parent.returncode == status, log
  assert output == "\n$ tpugraphs-rank layerdag sample --count 3\n"
  assert log.splitlines()[-1] == (
      f"{'terminated' if status == 143 else 'interrupted'}; every file that was written is "
      "complete; run `tpugraphs-rank waits` again")
  with pytest.raises(ProcessLookupError):
    os.kill(int(note.read_text()), 0)
  assert note.with_suffix(".ended").exists()  # It had the time to clean up.


def test_flags_exist_only_while_their_command_runs(run):
  before = set(flags.FLAGS)
  values = []
  define = lambda: flags.DEFINE_integer("try_number", 7, "A number.")
  for arguments in (["--try_number=8"], []):
    assert run(lambda argv: values.append(flags.FLAGS.try_number), *arguments,
               define_flags=define)[0] == 0
  assert run(lambda argv: 0, "--try_number=x", define_flags=define)[0] == 2
  assert values == [8, 7] and set(flags.FLAGS) == before


def test_the_command_line_is_recorded_in_its_installed_form(run):
  recorded = []
  run(lambda argv: recorded.append(names.running()), "--try_name=two words",
      define_flags=lambda: flags.DEFINE_string("try_name", "", "A name."))
  assert recorded == ["tpugraphs-rank try '--try_name=two words'"]
  assert not names.running().startswith("tpugraphs-rank try")


def test_a_command_that_needs_tensorflow_explains_how_to_install_it(run, monkeypatch):
  real = importlib.util.find_spec
  monkeypatch.setattr(importlib.util, "find_spec",
                      lambda name, *rest: None if name == "tensorflow" else real(name, *rest))
  monkeypatch.setattr(sys, "version_info", (3, 12, 1))
  status, text = run(lambda argv: 0, tensorflow=True)
  assert status == 1 and text.startswith(
      "error: tpugraphs-rank try needs TensorFlow 2.15, which is not installed in this environment "
      "(Python 3.12); install the package in an environment with Python 3.10 or 3.11: ")
  assert run(lambda argv: 0) == (0, "")
  monkeypatch.setattr(sys, "version_info", (3, 11, 7))
  assert "`pip install tensorflow==2.15.1 " in run(lambda argv: 0, tensorflow=True)[1]


# ---- logs ----------------------------------------------------------------------------------------


def test_logs_go_to_stderr_and_warnings_appear_once(run):
  logger = logging.getLogger("tpugraphs_rank.somewhere")
  root = logging.getLogger("tpugraphs_rank")
  before = dataclasses.astuple(_State.of(root))
  def main(argv):
    for _ in range(2):
      logger.info("working")
      logger.warning("unseen opcodes")
  assert run(main) == (0, "working\nwarning: unseen opcodes\nworking\n")
  assert dataclasses.astuple(_State.of(root)) == before


@dataclasses.dataclass
class _State:
  """What a command changes about a logger while it runs."""
  handlers: list
  level: int
  propagate: bool

  @classmethod
  def of(cls, logger):
    return cls(list(logger.handlers), logger.level, logger.propagate)


def test_a_log_line_does_not_break_a_progress_bar(run):
  def main(argv):
    with tqdm.tqdm(total=2, desc="bar", mininterval=0, file=sys.stderr, ascii=True) as bar:
      bar.update()
      logging.getLogger("tpugraphs_rank.somewhere").info("a line")
      bar.update()
  _, text = run(main)
  [line] = [line for line in text.replace("\r", "\n").splitlines() if "a line" in line]
  assert line == "a line"


# ---- one process in a folder, and memory ---------------------------------------------------------


def test_a_command_that_resumes_holds_its_folder(run, tmp_path):
  options = {"define_flags": lambda: flags.DEFINE_string("try_output", None, "A folder."),
             "kept": ("the run is kept", "try_output")}
  folder = tmp_path / "mine"
  inside = []

  def main(argv):
    inside.extend(path.name for path in folder.iterdir())
    (folder / "result").touch()

  assert run(main, "--try_output", str(folder), **options) == (0, "")
  assert inside == [".lock"] and [path.name for path in folder.iterdir()] == ["result"]
  with folder_locks.hold(folder):
    status, output = run(main, "--try_output", str(folder), **options)
    assert status == 1 and output.startswith(
        f"error: {folder} is in use by process {os.getpid()} on {socket.gethostname()}; wait for "
        "it with --wait")


def test_memory_that_runs_out_is_one_line_with_what_to_lower(run):
  def allocate(argv):
    np.empty(1 << 60, np.uint8)

  assert run(allocate) == (
      1, "error: memory ran out; end other programs, or use a machine with more memory\n")
  exhausted = type("ResourceExhaustedError", (Exception,),
                   {"__module__": "tensorflow.python.framework.errors_impl"})
  assert run(_raises(errors.OutOfMemoryError("memory ran out: x"))) == (
      1, "error: memory ran out: x; end other programs, or use a machine with more memory\n")
  define = lambda: [flags.DEFINE_integer(name, 1, "A number.") for name in ("max_configs", "jobs")]
  assert run(_raises(exhausted("OOM")), define_flags=define) == (
      1, "error: memory ran out; lower --max_configs or --jobs, end other programs, or use a "
      "machine with more memory\n")
