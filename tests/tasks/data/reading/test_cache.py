"""Files that are made once and kept."""

import os
import time

import pytest

from lambda_seq.tasks.data.reading.cache import cached


def made(path):
    path.write_text("made")


def aged(folder):
    """The folders that something is made in, as if they were an hour old."""
    found = [place for place in folder.iterdir() if place.is_dir()]
    for place in found:
        os.utime(place, (time.time() - 3600,) * 2)
    return found


def test_what_a_killed_process_has_left_goes(tmp_path):
    left = [tmp_path / f".ids [v{number}].arrow-12345678" for number in (1, 2)]
    for place in left:
        place.mkdir()
        for file in ("lock", "ids"):
            (place / file).touch()  # with a lock that nobody holds
    aged(tmp_path)
    assert cached("ids [v1].arrow", made, tmp_path).read_text() == "made"
    assert [place.exists() for place in left] == [False, True]  # the other is of something else


def test_what_a_process_works_on_stays(tmp_path):
    def make_both(path):
        (working,) = aged(tmp_path)
        cached("ids", made, tmp_path)  # another process, which is faster
        assert working.exists()
        made(path)

    assert cached("ids", make_both, tmp_path).read_text() == "made"
    assert [file.name for file in tmp_path.iterdir()] == ["ids"]


def test_what_has_just_been_begun_stays(tmp_path):
    """Its process may not have locked it yet."""
    begun = tmp_path / ".ids-12345678"
    begun.mkdir()
    (begun / "lock").touch()
    cached("ids", made, tmp_path)
    assert begun.exists()


def test_what_fails_leaves_nothing(tmp_path):
    def fail(path):
        made(path)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        cached("ids", fail, tmp_path)
    assert not list(tmp_path.iterdir())
