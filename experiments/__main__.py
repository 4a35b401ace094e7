"""The command line: overrides in, one run folder and its table out; every problem is one line."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import shutil
import signal
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from experiments import completion, groups

LINES = 120
"""Of a summary that are printed; all are in its file."""
EXAMPLES = """\
six useful commands (kalmean is short for python -m experiments):
  kalmean
      the main job: four estimators on synthetic gradient ratios
  kalmean stream=recorded stream.path=log.csv stream.column=loss
      the same on a log of your own
  kalmean tune=rmse seeds=200
      every estimator at its own best setting, chosen on other seeds
  kalmean 'estimators=[ema,kalman]' estimators.ema.beta=0.9 match=noise_gain
      two of them, the second set to let the same noise through as the first
  kalmean -m estimators.ema.beta=0.9,0.99,0.999 stream=gradient_ratio,gradient_ratio_b64
      a sweep; the same command again goes on where it was stopped
  kalmean experiment=response
      measured impulse, step and frequency responses against closed forms
"""


class _Parser(argparse.ArgumentParser):
    """Refuses an option in one line, like every other setting."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message}; write key=value, or see --help")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one experiment.

    Exit status 0; 1 where cells failed; 2 for a setting that cannot be used; 130 after Ctrl-C, 143 after
    a polite kill.
    """
    from experiments.runner import StoppedError

    try:
        code = _main(list(sys.argv[1:] if arguments is None else arguments))
        sys.stdout.flush()  # what was printed may be refused only now
        return code
    except BrokenPipeError:  # whoever read the table has seen enough; the last flush must not complain
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except StoppedError as stopped:
        print(f"kalmean: stopped; {stopped}", file=sys.stderr)
        return 128 + stopped.signum
    except KeyboardInterrupt as interrupt:
        print("kalmean: interrupted; finished cells are kept", file=sys.stderr)
        return 128 + (interrupt.args[0] if interrupt.args else signal.SIGINT)
    except MemoryError as error:
        return _refused(f"too large for this machine's memory: stream.steps or seeds ({error})")
    except (ValueError, ImportError, OSError) as error:
        return _refused(str(error))


def _refused(problem: str) -> int:
    print(f"kalmean: {' '.join(problem.split())}", file=sys.stderr)
    return 2


def _parser() -> _Parser:
    parser = _Parser(
        prog="kalmean",
        description="Compare running estimators on the same streams; every setting is a Hydra override.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=False,
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="settings, as seeds=20 or stream=recorded"
    )
    parser.add_argument("-h", "--help", action="store_true", help="show groups, settings and useful commands")
    parser.add_argument(
        "-m", "--multirun", action="store_true", help="sweep: key=a,b runs each, with each of the others"
    )
    parser.add_argument("--cfg", action="store_true", help="print the configuration and stop")
    parser.add_argument("--version", action="store_true", help="print the version and stop")
    parser.add_argument(
        "--shell-completion", choices=completion.SHELLS, metavar="SHELL",
        help=f"print what a shell is to source to complete settings: {', '.join(completion.SHELLS)}",
    )  # fmt: skip
    return parser


def _main(arguments: list[str]) -> int:
    parser = _parser()
    if arguments[:1] == ["--complete"]:  # by the scripts of --shell-completion
        flags = [flag for action in parser._actions for flag in action.option_strings]
        print(
            *(f"{word}\n" for word in completion.candidates(" ".join(arguments[1:]), flags)), sep="", end=""
        )
        return 0
    given = parser.parse_intermixed_args(arguments)  # options may stand between overrides
    if given.help:
        print(_help(parser))
        return 0
    if given.version:
        print(f"kalmean {importlib.metadata.version('kalmean')}")
        return 0
    if given.shell_completion:
        print(completion.script(given.shell_completion), end="")
        return 0

    from experiments import config, job

    overrides = [config.quoted(override) for override in given.overrides]
    if given.cfg:
        print(job.Job.of(overrides, given.multirun).text, end="")
        return 0
    done = job.completed(overrides, given.multirun)
    print(_shown((done.path / "summary.md").read_text(encoding="utf-8"), done.path / "summary.md"))
    print(f"{'written' if done.fresh else 'unchanged, from an earlier run'}: {done.path}")
    if done.failures:
        some = f"{len(done.failures):,} cell{'s' if len(done.failures) > 1 else ''} failed"
        print(f"kalmean: {some}; the same command tries again. First: {done.failures[0]}", file=sys.stderr)
    if done.missing:
        print(
            f"kalmean: {done.missing:,} cells are gone from the store; the same command runs them",
            file=sys.stderr,
        )
    if done.failures or done.missing:
        return 1
    return 0


def _shown(text: str, path: Path) -> str:
    """A text that fits a few screens; of a longer one the beginning, and where the rest is."""
    from experiments.terminal import fitted

    if sys.stdout.isatty():
        text = fitted(text, shutil.get_terminal_size().columns)
    lines = text.splitlines()
    if len(lines) <= LINES:
        return text
    return "\n".join([*lines[:LINES], f"... {len(lines) - LINES:,} more lines in {path}", ""])


def _help(parser: argparse.ArgumentParser) -> str:
    lines = [parser.format_help(), "groups, chosen by group=name (estimators by a list of names):"]
    for group in groups.GROUPS:
        lines.append(f"  {group}")
        lines += [_entry(name, comment) for name, comment in groups.options(group).items()]
    keys = (groups.folder() / "config.yaml").read_text(encoding="utf-8").partition("\n\n")[2]
    lines += ["", "settings and their defaults:", *(f"  {line}" for line in keys.splitlines()), "", EXAMPLES]
    return "\n".join(lines)


def _entry(name: str, comment: str) -> str:
    width = max(40, min(110, shutil.get_terminal_size().columns - 1))
    room = 26 if width >= 80 else 4  # on a narrow terminal a name has a line of its own
    filled = textwrap.fill(
        comment, width, initial_indent=" " * (room + 5), subsequent_indent=" " * (room + 5)
    )
    if len(name) > room:
        return f"    {name}\n{filled}"
    return f"    {name:<{room}} {filled.lstrip()}"


if __name__ == "__main__":
    sys.exit(main())
