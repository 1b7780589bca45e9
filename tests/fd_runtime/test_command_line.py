"""A program ends with one line and an exit code that a supervisor can act on."""

import subprocess
import sys

import pytest

from fd_protocol.errors import InvalidValueError
from fd_runtime.command_line import Parser, run_program
from tests.support.programs import running


def ending(error):
    def run(_arguments):
        if error is not None:
            raise error
        return 0

    parser = Parser(prog="some-program")
    parser.set_defaults(run=run)
    return run_program(parser, [])


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (None, 0, ""),
        (InvalidValueError("two\nlines"), 78, "some-program: two lines\n"),
        (FileNotFoundError(2, "No such file or directory", "a.toml"), 74, "some-program: a.toml: No such file"),
        (PermissionError("no"), 77, "some-program: no\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_what_was_foreseen_is_one_line_and_its_code(error, code, line, capsys):
    assert ending(error) == code
    assert capsys.readouterr().err.startswith(line)


def test_a_mistake_of_ours_keeps_its_trace():
    with pytest.raises(ZeroDivisionError):
        ending(ZeroDivisionError())


def test_a_wrong_call_is_a_usage_error(capsys):
    parser = Parser(prog="some-program")
    with pytest.raises(SystemExit) as ended:
        run_program(parser, ["--unknown"])
    assert ended.value.code == 64
    assert "some-program: unrecognized arguments: --unknown" in capsys.readouterr().err


def test_a_reader_that_has_seen_enough_is_no_error():
    program = (
        "from fd_runtime.command_line import Parser, run_program\n"
        "parser = Parser(prog='p')\n"
        "parser.set_defaults(run=lambda _: print('word ' * 100_000) or 0)\n"
        "raise SystemExit(run_program(parser, []))"
    )
    with running([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.read(10)
        process.stdout.close()
        assert process.wait(60) == 141
        assert process.stderr.read() == b""
