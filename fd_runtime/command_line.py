"""What the programs share at their command line.

An error is one line on stderr and an exit code, never a trace; `init` writes a settings file that explains every key.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from errno import EEXIST
from pathlib import Path
from typing import NoReturn

from fd_protocol.errors import FedistillError
from fd_runtime.config import EX_USAGE, exit_code_for
from fd_runtime.files import write_atomically

EX_INTERRUPTED, EX_PIPE = 130, 141
"""128 + SIGINT and 128 + SIGPIPE, as a shell would say."""


class Parser(argparse.ArgumentParser):
    """A parser whose complaints end with EX_USAGE. Every leaf sets `run(arguments) -> exit code` as a default."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(EX_USAGE, f"{self.prog}: {message}\n")


def run_program(parser: argparse.ArgumentParser, argv: Sequence[str] | None = None) -> int:
    """Parse, run, and return the exit code; errors that we raise on purpose, and those of files, become one line."""
    arguments, prog = parser.parse_args(argv), parser.prog
    del parser  # of many small objects; a program may run for a year
    try:
        code = int(arguments.run(arguments))
        sys.stdout.flush()
        return code  # noqa: TRY300 - what is left to be written may fail too
    except BrokenPipeError:  # whoever read along has seen enough, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EX_PIPE
    except (FedistillError, OSError) as error:
        print(f"{prog}: {_line(error)}", file=sys.stderr)  # noqa: T201 - a program's last words
        return exit_code_for(error)
    except KeyboardInterrupt:
        return EX_INTERRUPTED


def settings_text(file: str, package: str, **names: str) -> str:
    """Return what `write_settings` writes into a file of that name."""
    from importlib.resources import files  # noqa: PLC0415 - what runs for a year needs no template

    text = files(package).joinpath(f"{file}.template").read_text(encoding="utf-8")
    for name, value in names.items():
        text = text.replace(f"{{{name}}}", value)
    return text


def write_settings(path: Path, package: str, **names: str) -> None:
    """Write the new file `path` after the template that `package` has of it, and print where it lies.

    Args:
        path: of the file; its folder is made where it is missing.
        package: that holds `NAME.template`, NAME being the file's.
        names: what to put for each `{name}` of the template.

    Raises:
        FileExistsError: there is such a file.
        OSError: the folder cannot be written.
    """
    if path.exists():
        raise FileExistsError(EEXIST, "exists already", str(path))
    text = settings_text(path.name, package, **names)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, text.encode())
    print(path)  # noqa: T201 - what the command was for


def _line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split())
