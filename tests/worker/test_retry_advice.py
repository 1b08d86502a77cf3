"""A load whose code is wrong is not tried again, and a variable that is not there is explained."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.worker.loading import loader
from gateway.worker.loading.retry_advice import about_place, about_variable, may_help, missing_variable


def caught(function: Callable[[], Any]) -> BaseException:
    with pytest.raises(Exception) as found:
        function()
    return found.value


def test_a_variable_that_is_missing_is_told_from_a_key_that_is() -> None:
    error = caught(lambda: os.environ["NO_SUCH_KEY_HERE"])
    assert missing_variable(error) == "NO_SUCH_KEY_HERE" and not may_help(error)
    other = caught(lambda: {}["NO_SUCH_KEY_HERE"])
    assert missing_variable(other) is None and may_help(other)
    with pytest.raises(RuntimeError) as wrapped:
        raise RuntimeError("no key") from error
    assert missing_variable(wrapped.value) == "NO_SUCH_KEY_HERE"
    with pytest.raises(ConnectionError) as instead:  # what came after the author dealt with it is another matter
        try:
            os.environ["NO_SUCH_KEY_HERE"]
        except KeyError:
            raise ConnectionError("reset")  # noqa: B904
    assert missing_variable(instead.value) is None and may_help(instead.value)
    assert '[models."team/m".environment]' in about_variable("A", "team/m") and "set A " in about_variable("A", "m")


@pytest.mark.parametrize(
    ("raised", "strict", "tries"),
    [
        (NameError("nmae"), False, 1),
        (TypeError("int + str"), False, 1),
        (ModuleNotFoundError("nowhere"), False, 1),
        (ConnectionError("reset"), False, 2),
        (RuntimeError("busy"), False, 2),
        (NameError("nmae"), True, 2),
    ],
)
def test_only_what_may_pass_is_tried_again(
    raised: Exception, strict: bool, tries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loader, "RETRY_PAUSE", 0)
    seen = []

    class Model:
        def load(self) -> None:
            seen.append(1)
            raise raised

    with pytest.raises(type(raised)):
        loader._load_with_retries(Model(), asyncio.new_event_loop(), strict)
    assert len(seen) == tries


def test_a_file_on_a_read_only_file_system_is_told_with_what_to_do() -> None:
    try:
        try:
            raise OSError(errno.EROFS, "Read-only file system", "/opt/model/cache.bin")
        except OSError as error:
            raise RuntimeError("no cache") from error
    except RuntimeError as error:
        told = about_place(error, "/opt/model/data")
        assert not may_help(error)  # it stays so
    assert told.startswith("; /opt/model/cache.bin is where nothing can be written: write what need not stay below")


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EACCES])
def test_a_data_directory_that_could_not_be_made_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    data = tmp_path / "data"
    error = OSError(number, "no", str(data / "x"))
    assert about_place(error, data) == ""  # it only has to be made
    monkeypatch.setattr(os, "access", lambda place, mode: False)
    assert f"{data}/x is where nothing can be written ({data} is the model's data_dir)" in about_place(error, data)


@pytest.mark.parametrize("error", [FileNotFoundError(errno.ENOENT, "no", "/nothing"), OSError("x"), ValueError("x")])
def test_other_errors_have_nothing_to_do_with_places(error: Exception, tmp_path: Path) -> None:
    assert about_place(error, tmp_path) == ""


def test_a_file_of_a_relative_path_that_is_missing_is_told_where_it_was_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights.bin").touch()
    told = about_place(caught(Path("wieghts.bin").read_text), None)
    assert told == f"; it was looked for as {tmp_path}/wieghts.bin (did you mean weights.bin?)"
    assert about_place(caught(Path("deep/x.bin").read_text), None) == f"; it was looked for as {tmp_path}/deep/x.bin"
    assert about_place(caught((tmp_path / "nothing").read_text), None) == ""
