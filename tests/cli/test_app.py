"""What applications share: commands and their flags."""

from absl import flags
import pytest

from tpugraphs_rank.cli import app

COMMANDS = {"merge": app.Command(("parts", "output"), ("sample",)),
            "check": app.Command(("submission",), ("sample", "strict"))}


def _values(*arguments):
  values = flags.FlagValues()
  flags.DEFINE_list("parts", [], "", flag_values=values)
  for name in ("output", "submission", "sample"):
    flags.DEFINE_string(name, None, "", flag_values=values)
  flags.DEFINE_bool("strict", False, "", flag_values=values)
  rest = values(["program", *arguments])
  return rest[1:], values


@pytest.mark.parametrize("arguments, expected", [
    ([], "expected a command: merge, check (--help says what each does)"),
    (["merg"], "unknown command 'merg' (did you mean 'merge'?); expected one of: merge, check "
     "(--help says what each does)"),
    (["42"], "unknown command '42'; expected one of: merge, check (--help says what each does)"),
    (["merge", "now"], "unexpected argument 'now'; all options are flags (--help lists them)"),
    (["merge"], "merge needs --parts and --output"),
    (["merge", "--parts=", "--output=o"], "merge needs --parts"),
    (["check", "--submission="], "check needs --submission"),
    (["merge", "--parts=a", "--output=o", "--strict"],
     "merge takes no --strict; it takes: --parts, --output, --sample"),
    (["check", "--submission=s", "--output=o"],
     "check takes no --output; it takes: --submission, --sample, --strict"),
    (["merge", "--parts=a,b", "--output=o", "--sample=s"], ""),
    (["--parts=a", "merge", "--output=o"], ""),
    (["check", "--submission=s", "--strict"], ""),
])
def test_a_command_and_its_flags(arguments, expected):
  rest, values = _values(*arguments)
  assert app._mistake(rest, COMMANDS, values) == expected


def test_an_application_without_commands_takes_flags_only():
  assert app._mistake([], {}) == ""
  assert app._mistake(["merge"], {}).startswith("unexpected argument 'merge'; all options are flag")
