"""What a run shows: counts, time left, and the end of a failed job's log."""

import io

import pytest

from winnow.runtime.counting import Count, duration
from winnow.runtime.progress import LOG_LINES, MOST, Display


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def display():
    clock = Clock()
    result = Display(lambda rule: rule == "finetune", io.StringIO(), clock)
    result.planned({"decode": 1, "finetune": 4, "mask": 3, "total": 8})
    return result


def said(display):
    return display.stream.getvalue()


def test_a_stage_with_one_job_is_named_and_one_with_many_is_not(display):
    display.started(1, "decode", "digits")
    display.started(2, "mask", "digits/net/apoz")
    assert said(display) == "decode digits\n"


def test_a_job_that_takes_long_says_what_it_does_what_it_is_at_and_how_long_it_took(display, tmp_path):
    log = tmp_path / "decode.log"
    display.does = {"decode": "reads every image once", "mask": "says which filters stay"}.get
    display.started(1, "decode", "digits", [str(log)])
    for line in ("", "100 of 900 images, 15 s so far, about 2 min left\n", ""):
        with open(log, "a") as file:
            file.write(line)
        display.clock.now += 10
        display.look()
    log.write_text(log.read_text() + "300 of 900 images, 45 s so far\r\n")
    for _ in range(4):
        display.clock.now += 10
        display.look()
    display.finished(1)
    assert said(display).splitlines() == [
        "decode digits: reads every image once",
        "decode digits: 100 of 900 images, 15 s so far, about 2 min left",
        "decode digits: 300 of 900 images, 45 s so far",
        "decode digits: done in 70 s",
    ]


def test_what_ends_at_once_says_no_more_than_its_name(display):
    display.started(1, "decode", "digits")
    display.clock.now += 1
    display.look()
    display.finished(1)
    assert said(display) == "decode digits\n"


def test_cells_of_minutes_show_their_epochs_where_nothing_else_is_said(display, tmp_path):
    display.planned({})
    for number in range(MOST + 2):
        log = tmp_path / f"{number}.log"
        log.write_text(f"epoch {number} of 60: train loss 0.1\n")
        display.started(number, "finetune", f"cell{number}", [str(log)])
    display.clock.now += 20
    display.look()
    lines = said(display).splitlines()
    assert lines == [f"finetune cell{n}: epoch {n} of 60: train loss 0.1" for n in range(MOST)] + ["and 2 more jobs"]
    display.finished(0)
    display.clock.now += 10
    display.look()
    assert said(display).splitlines()[len(lines) :] == ["cells 1/6, 20 s so far, about 0 s left"]


def test_beside_the_bar_stands_the_epoch_of_the_cell_that_has_run_longest(display, tmp_path):
    display.stream.isatty = lambda: True
    (tmp_path / "log").write_text("epoch 7 of 60: train loss 0.1, val accuracy 0.9\n")
    display.started(1, "finetune", "cell0", [str(tmp_path / "log")])
    display.started(2, "finetune", "cell1", [str(tmp_path / "none")])
    display.look()
    assert display.bar.postfix == "epoch 7 of 60"
    display.broke(2, [])
    assert display.bar.postfix == "1 failed, epoch 7 of 60"
    display.bar.close()


def test_a_run_that_is_stopped_says_what_it_waits_for_and_calls_nothing_failed(display, tmp_path):
    log = tmp_path / "log"
    display.started(1, "finetune", "cell0", [str(log)])
    display.started(2, "mask", "digits")
    display.stop()
    log.write_text("stopped by a signal in epoch 3 after step 1 of 9\n")
    display.broke(1, [str(log)])
    display.broke(2, [])
    first, *lines = said(display).splitlines()
    assert first.startswith("Stopping; the same command goes on from here.")
    assert lines == [
        "Waiting for:",
        "  finetune cell0",
        "  mask digits",
        "  ended: finetune cell0: stopped by a signal in epoch 3 after step 1 of 9",
        "  ended: mask digits",
    ]


def test_a_count_begins_anew_and_needs_no_total():
    clock, stream = Clock(), io.StringIO()
    count = Count(None, "images", 0, stream, clock)
    clock.now += 16
    assert list(count.over("ab")) == ["a", "b"]
    count = Count(100, "images", 0, stream, clock)
    clock.now += 5
    count.add(50)
    count.begin(20)
    clock.now += 20
    count.add(40)
    assert stream.getvalue().splitlines() == [
        "1 images, 16 s so far",
        "60 of 100 images, 20 s so far, about 20 s left",
    ]


@pytest.mark.parametrize(("side_by_side", "left"), [(1, 9), (2, 3)])
def test_the_first_cell_tells_at_once_how_long_all_of_them_take(display, side_by_side, left):
    for job in range(side_by_side):
        display.started(job, "finetune", f"cell{job}")
    display.clock.now += 3
    display.finished(0)
    assert said(display) == f"cells 1/4, 3 s so far, about {left} s left\n"


def test_lines_come_now_and_then_and_at_the_end(display):
    for job in range(4):
        display.started(job, "finetune", f"cell{job}")
        display.clock.now += 8
        display.finished(job)
    assert said(display).splitlines() == [
        "cells 1/4, 8 s so far, about 24 s left",
        "cells 3/4, 24 s so far, about 8 s left",
        "cells 4/4, 32 s so far",
    ]


def test_a_grid_that_grows_has_no_more_cells_done_than_it_has(display):
    for job in range(6):
        display.started(job, "finetune", f"cell{job}")
        display.clock.now += 8
        display.finished(job)
    assert said(display).splitlines()[2:] == [
        "cells 4/4, 32 s so far",
        "cells 5/5, 40 s so far",
        "cells 6/6, 48 s so far",
    ]


def test_a_failed_cell_names_itself_and_shows_its_logs_end(display, tmp_path):
    log = tmp_path / "cell.log"
    log.write_text("first\n" + "line\n" * LOG_LINES + "epoch 1\repoch 2: loss is nan\n")
    display.started(1, "finetune", "digits/net/apoz")
    display.clock.now += 30
    display.broke(1, [str(log)])
    lines = said(display).splitlines()
    assert lines[0] == "FAILED finetune digits/net/apoz"
    assert lines[1] == f"  {log} ends:"
    assert lines[1 + LOG_LINES] == "    epoch 2: loss is nan"
    assert "first" not in said(display)
    assert lines[-1] == "cells 0/4, 1 failed, 30 s so far, about 2 min left"


def test_a_cell_that_is_tried_again_is_not_counted_as_failed(display, tmp_path):
    for _ in range(3):
        display.started(1, "finetune", "cell0")
        display.broke(1, [])
    display.started(1, "finetune", "cell0")
    display.finished(1)
    for job in range(1, 4):
        display.started(job, "finetune", f"cell{job}")
        display.clock.now += 10
        display.finished(job)
    assert said(display).splitlines()[-1] == "cells 4/4, 30 s so far"


def test_a_missing_log_is_said(display, tmp_path):
    display.started(1, "mask", "m")
    display.broke(1, [str(tmp_path / "none.log")])
    assert "no log" in said(display)


def test_the_cells_of_all_rules_that_make_some_are_counted_together():
    display = Display(lambda rule: rule in ("w_finetune", "own"), io.StringIO(), Clock())
    display.planned({"w_finetune": 2, "own": 1, "w_mask": 1, "total": 4})
    for job, rule in enumerate(["w_finetune", "own", "w_finetune"]):
        display.started(job, rule, f"cell{job}")
        display.clock.now += 10
        display.finished(job)
    assert said(display).splitlines() == ["cells 1/3, 10 s so far, about 20 s left", "cells 3/3, 30 s so far"]


@pytest.mark.parametrize(("seconds", "text"), [(5, "5 s"), (89, "89 s"), (120, "2 min"), (7200, "2.0 h")])
def test_durations_read_as_a_person_says_them(seconds, text):
    assert duration(seconds) == text
