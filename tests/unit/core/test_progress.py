import io

import pytest

from fitspike.errors import InvalidInputError
from fitspike.progress import Progress


class Clock:
    """A clock that is set by hand, in seconds."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_log_file_gets_the_first_step_then_one_line_a_minute_then_the_last():
    stream, clock = io.StringIO(), Clock()
    with Progress("auto", "fitting", total=500, stream=stream, clock=clock) as progress:
        for step in range(1, 151):
            clock.now += 1.0
            progress.update(step, {"nll": 0.25})
    lines = stream.getvalue().splitlines()
    assert [line.split()[1] for line in lines] == ["1/500", "61/500", "121/500", "150/500"]
    assert lines[1] == "fitting 61/500  1:01  nll=0.25"


def test_steps_of_another_stage_are_named():
    stream, clock = io.StringIO(), Clock()
    with Progress("lines", "fitting", stream=stream, clock=clock) as progress:
        progress.update(7, {"bits": 0.5}, description="choosing settings")
        clock.now += 60.0
        progress.update(1, {"nll": 0.25}, description="fitting")
    assert stream.getvalue() == "choosing settings 7  0:00  bits=0.5\nfitting 1  1:00  nll=0.25\n"


def test_last_line_is_not_written_twice():
    stream = io.StringIO()
    with Progress("lines", "fitting", stream=stream, clock=Clock()) as progress:
        progress.update(1, {}, "converged")
    assert stream.getvalue() == "fitting 1  0:00  converged\n"


def test_nothing_is_written_when_off():
    stream = io.StringIO()
    with Progress(False, "fitting", stream=stream) as progress:
        progress.update(1, {"nll": 1.0})
        progress.say("about to fit")
    assert stream.getvalue() == ""


def test_terminal_gets_a_live_line_with_metrics_as_they_are():
    stream = Terminal()
    with Progress("auto", "fitting", total=10, stream=stream) as progress:
        progress.update(10, {"nll": 1.5}, "[neuron 3]")
    assert progress.style == "live"
    assert "10/10" in stream.getvalue()
    assert "nll=1.5" in stream.getvalue()
    assert "[neuron" in stream.getvalue()  # no markup of rich's


def test_standard_output_stays_free(capsys):
    with Progress("auto", "fitting") as progress:
        progress.update(1, {"nll": 1.0})
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "fitting 1  0:00  nll=1\n"


def test_unknown_style_is_refused():
    with pytest.raises(InvalidInputError, match="'lines' or 'off'"):
        Progress("loud")
