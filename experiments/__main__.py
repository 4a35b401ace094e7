"""The command line: overrides in, one run folder and its table out; every problem is one line."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import textwrap
from collections.abc import Sequence
from typing import NoReturn

EXAMPLES = """\
five useful commands (kalmean is short for python -m experiments):
  kalmean
      the main job: four estimators on synthetic gradient ratios
  kalmean stream=recorded stream.path=log.csv stream.column=loss
      the same on a log of your own
  kalmean tune=rmse seeds=200
      every estimator at its own best setting, chosen on other seeds
  kalmean 'estimators=[ema,kalman]' estimators.ema.beta=0.9 match=noise_gain
      two of them, the second set to let the same noise through as the first
  kalmean experiment=response
      measured impulse, step and frequency responses against closed forms
"""


class _Parser(argparse.ArgumentParser):
    """Refuses an option in one line, like every other setting."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message}; write key=value, or see --help")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one experiment; exit status 0, 2 for a setting that cannot be used, 130 for Ctrl-C."""
    try:
        code = _main(list(sys.argv[1:] if arguments is None else arguments))
        sys.stdout.flush()  # what was printed may be refused only now
        return code
    except BrokenPipeError:  # whoever read the table has seen enough; the last flush must not complain
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("kalmean: interrupted; nothing was written", file=sys.stderr)
        return 130
    except MemoryError as error:
        return _refused(f"too large for this machine's memory: stream.steps or seeds ({error})")
    except (ValueError, ImportError, OSError) as error:
        return _refused(str(error))


def _refused(problem: str) -> int:
    print(f"kalmean: {' '.join(problem.split())}", file=sys.stderr)
    return 2


def _main(arguments: list[str]) -> int:
    parser = _Parser(
        prog="kalmean",
        description="Compare running estimators on the same streams; every setting is a Hydra override.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=False,
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    parser.add_argument("-h", "--help", action="store_true", help="show groups, settings and useful commands")
    parser.add_argument("--cfg", action="store_true", help="print the configuration and stop")
    given = parser.parse_intermixed_args(arguments)  # options may stand between overrides
    if given.help:
        print(_help(parser))
        return 0

    from experiments import job

    if given.cfg:
        print(job.Job.of(given.overrides).config_text(), end="")
        return 0
    folder, fresh = job.completed(given.overrides)
    print((folder / "summary.md").read_text(encoding="utf-8"))
    print(f"{'written' if fresh else 'unchanged, from an earlier run'}: {folder}")
    return 0


def _help(parser: argparse.ArgumentParser) -> str:
    from experiments import config

    lines = [parser.format_help(), "groups, chosen by group=name (estimators by a list of names):"]
    for group in config.GROUPS:
        lines.append(f"  {group}")
        lines += [_entry(name, comment) for name, comment in config.options(group).items()]
    keys = (config.folder() / "config.yaml").read_text(encoding="utf-8").partition("\n\n")[2]
    lines += ["", "settings and their defaults:", *(f"  {line}" for line in keys.splitlines()), "", EXAMPLES]
    return "\n".join(lines)


def _entry(name: str, comment: str) -> str:
    width = max(60, min(110, shutil.get_terminal_size().columns - 1))
    return textwrap.fill(comment, width, initial_indent=f"    {name:<20} ", subsequent_indent=" " * 25)


if __name__ == "__main__":
    sys.exit(main())
