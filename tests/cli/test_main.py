"""The table of commands and how a command is found."""

import importlib
import os
import pathlib
import resource
import signal
import subprocess
import sys

from absl import flags
import pytest

from tests.helpers import commands
import tpugraphs_rank
from tpugraphs_rank.cli import __main__ as dispatcher

MODULES = {name: importlib.import_module(dispatcher.module_name(name))
           for name in dispatcher.COMMANDS}


def test_the_list_of_commands_is_complete_and_fits_a_terminal():
  done = commands.run()
  assert done.returncode == 0 and done.stderr == ""
  assert commands.run("--help") == done._replace(args=["--help"])
  lines = done.stdout.splitlines()
  for name, command in dispatcher.COMMANDS.items():
    assert any(line.startswith(f"  {name} ") and line.endswith(command.summary)
               for line in lines), name
  assert max(map(len, lines)) <= 100
  for group in dispatcher.GROUPS:
    assert group in lines


def test_the_list_of_commands_imports_next_to_nothing():
  code = ("import sys; from tpugraphs_rank.cli import __main__ as m; m.main([]); "
          "print([n for n in ('absl', 'numpy', 'pandas', 'tensorflow', 'tqdm') "
          "if n in sys.modules])")
  before = resource.getrusage(resource.RUSAGE_CHILDREN)
  done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                        cwd=commands.ROOT)
  after = resource.getrusage(resource.RUSAGE_CHILDREN)
  assert done.stdout.splitlines()[-1] == "[]"
  # Processor time instead of elapsed time, which depends on other processes.
  assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5


@pytest.mark.parametrize("name", dispatcher.COMMANDS)
def test_a_module_follows_the_protocol(name):
  module = MODULES[name]
  first = module.__doc__.splitlines()[0]
  assert first == f"{dispatcher.COMMANDS[name].summary}.", first
  assert f"tpugraphs-rank {name}" in module.__doc__
  assert callable(module.define_flags) and callable(module.main)
  # No flag is defined at import.
  assert not flags.FLAGS.flags_by_module_dict().get(module.__name__)


def test_help_and_wrong_flags_do_not_import_tensorflow():
  code = """
import contextlib, io, sys
from tpugraphs_rank.cli import __main__ as m
for name in m.COMMANDS:
  for flag, status in (("--help", 0), ("--no_such_flag=1", 2)):
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
      assert m.main([*name.split(), flag]) == status, (name, flag)
  assert "tensorflow" not in sys.modules, name
"""
  done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False,
                        cwd=commands.ROOT)
  assert done.returncode == 0, done.stderr


def test_the_version():
  for words in (["--version"], ["version"]):
    assert commands.run(*words).stdout == f"tpugraphs-rank {tpugraphs_rank.__version__}\n"


@pytest.mark.parametrize("words, message", [
    (["trian"], "error: unknown command 'trian' (did you mean 'train'?); `tpugraphs-rank` lists"),
    (["make_collection"], "(did you mean 'make-collection'?)"),
    (["merge"], "(did you mean 'submission merge'?)"),
    (["xyzzy"], "error: unknown command 'xyzzy'; `tpugraphs-rank` lists the commands"),
    (["submission"], "error: submission is a group of commands; expected one of: `tpugraphs-rank "
     "submission merge`, `tpugraphs-rank submission validate`, `tpugraphs-rank submission fix`, "
       "`tpugraphs-rank submission score`"),
    (["submission", "valdate"], "error: unknown command 'submission valdate' (did you mean "
     "'submission validate'?); expected one of: `tpugraphs-rank submission merge`, "),
    (["--run_dir=x", "train"], "error: expected a command before --run_dir=x; `tpugraphs-rank`"),
])
def test_an_unknown_command_names_the_nearest(words, message):
  done = commands.run(*words)
  assert done.returncode == 2 and done.stdout == ""
  assert message in done.stderr and done.stderr.count("\n") == 1


def test_a_group_lists_its_commands():
  done = commands.run("layerdag", "--help")
  assert done.returncode == 0
  assert [line.split()[1] for line in done.stdout.splitlines() if line.startswith("  layer")] == [
      name.split()[1] for name in dispatcher.COMMANDS if name.startswith("layerdag ")]


def _installed() -> list[str]:
  """The installed command, where there is one."""
  script = pathlib.Path(sys.executable).with_name("tpugraphs-rank")
  return [str(script)] if script.exists() else []


def test_in_a_process_of_its_own(tmp_path):
  module = [sys.executable, "-m", "tpugraphs_rank.cli"]
  environment = {**os.environ, "PYTHONPATH": str(commands.ROOT)}
  for command in filter(None, (module, _installed())):
    done = subprocess.run([*command, "--version"], capture_output=True, text=True, cwd=tmp_path,
                          env=environment, check=False)
    assert done.stdout == f"tpugraphs-rank {tpugraphs_rank.__version__}\n", done.stderr
    failed = subprocess.run([*command, "trian"], capture_output=True, text=True, cwd=tmp_path,
                            env=environment, check=False)
    assert failed.returncode == 2 and "did you mean 'train'" in failed.stderr


@pytest.mark.parametrize("number, status, word", [(signal.SIGINT, 130, "interrupted"),
                                                  (signal.SIGTERM, 143, "terminated")])
def test_a_signal_while_the_modules_are_imported(number, status, word):
  # The first module that a command imports sends the signal. Jobs in the background of a shell
  # start with SIGINT ignored.
  code = ("import os, signal, sys, time; from tpugraphs_rank.cli import __main__ as m\n"
          "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
          "class Finder:\n"
          "  def find_spec(self, name, *_):\n"
          f"    os.kill(os.getpid(), {int(number)}); time.sleep(9)\n"
          "sys.meta_path.insert(0, Finder())\n"
          "sys.argv[1:] = ['describe', '--collection=tile:xla_cpu']; sys.exit(m.main())")
  done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False,
                        cwd=commands.ROOT, timeout=60)
  assert (done.returncode, done.stdout) == (status, "")
  assert done.stderr == f"{word}; every file that was written is complete; run the command again\n"


def test_a_reader_that_closes_the_output_is_no_error(tmp_path):
  reading, writing = os.pipe()
  os.close(reading)
  try:
    done = subprocess.run([sys.executable, "-m", "tpugraphs_rank.cli", "train", "--help"],
                          stdout=writing, stderr=subprocess.PIPE, text=True, cwd=tmp_path,
                          env={**os.environ, "PYTHONPATH": str(commands.ROOT)}, check=False)
  finally:
    os.close(writing)
  assert (done.returncode, done.stderr) == (141, "")
