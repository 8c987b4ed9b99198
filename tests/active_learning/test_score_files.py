"""Scores on disk: found again by content, never believed when they are something else, and stamps that tell a replaced image."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from flrplan.active_learning import Part
from flrplan.active_learning.cache import ScoreCache, image_digest
from flrplan.errors import OutputError
from flrplan.files import stamp_of


def test_a_score_is_found_again_by_content_and_not_by_name(tmp_path: Path) -> None:
    image = tmp_path / "a.nii.gz"
    image.write_bytes(b"one")
    cache = ScoreCache(tmp_path / "scores")
    digest = image_digest(image)
    cache.write(digest, Part.IMAGE, "k", {"x": 1})
    cache.note_image("a", stamp_of(image), digest)
    again = ScoreCache(tmp_path / "scores")
    assert again.digest("a", stamp_of(image)) == digest
    assert again.digest("a", None) == digest  # not at hand: nobody can have changed it here
    assert again.read(digest, Part.IMAGE, "k") == {"x": 1}
    assert again.read(digest, Part.MODELS, "k") is None
    image.write_bytes(b"another")
    assert again.digest("a", stamp_of(image)) is None
    moved = tmp_path / "b.nii.gz"
    moved.write_bytes(b"one")
    assert again.read(image_digest(moved), Part.IMAGE, "k") == {"x": 1}


def test_a_damaged_cache_is_made_anew(tmp_path: Path) -> None:
    cache = ScoreCache(tmp_path)
    cache.note_image("a", "s", "d")
    cache.write("d", Part.IMAGE, "k", {"x": 1})
    for file in tmp_path.glob("*.score"):
        file.write_text("{")
    again = ScoreCache(tmp_path)
    assert again.digest("a", "s") is None
    assert again.read("d", Part.IMAGE, "k") is None


@pytest.mark.parametrize(
    "spoil",
    [
        lambda file, other: file.write_bytes(other.read_bytes()),
        lambda file, other: file.write_text(file.read_text().replace("0.25", "0.75")),
        lambda file, other: file.write_text('{"disagreement": {"flr": 0.75}}'),
        lambda file, other: file.write_bytes(file.read_bytes()[:-9]),
        lambda file, other: file.write_bytes(b"\xff\x00"),
        lambda file, other: file.write_text(""),
        lambda file, other: (file.unlink(), file.mkdir()),
    ],
    ids=["another case's", "a number changed", "well formed", "cut short", "no text", "empty", "a folder"],
)
def test_a_score_that_is_not_what_was_written_is_measured_again(
    tmp_path: Path, spoil: Callable[[Path, Path], object], caplog: pytest.LogCaptureFixture
) -> None:
    cache = ScoreCache(tmp_path)
    for digest, flr in (("a", 0.25), ("b", 0.5)):
        cache.write(digest, Part.MODELS, "k", {"disagreement": {"flr": flr}})
    file, other = (tmp_path / f"{digest}-models-k.score" for digest in "ab")
    spoil(file, other)
    assert ScoreCache(tmp_path).read("a", Part.MODELS, "k") is None
    assert f"{file} is" in caplog.text
    if file.is_dir():
        with pytest.raises(OutputError, match=r"a-models-k\.score: a folder is in its place; delete or rename it"):
            cache.write("a", Part.MODELS, "k", {})
        return
    cache.write("a", Part.MODELS, "k", {"disagreement": {"flr": 0.25}})
    assert ScoreCache(tmp_path).read("a", Part.MODELS, "k") == {"disagreement": {"flr": 0.25}}


def test_an_index_that_was_changed_is_made_anew_and_one_that_cannot_be_written_is_kept_in_memory(tmp_path: Path) -> None:
    case, index = "Müller  1.2 \udcff", tmp_path / "index.score"
    cache = ScoreCache(tmp_path)
    cache.note_image(case, "s", "digest of a")
    assert ScoreCache(tmp_path).digest(case, "s") == "digest of a"
    index.write_text(index.read_text().replace("of a", "of b"))
    assert ScoreCache(tmp_path).digest(case, "s") is None
    index.unlink()
    index.mkdir()
    cache.note_image("b", "s", "digest of b")
    assert (cache.digest(case, "s"), cache.digest("b", "s")) == ("digest of a", "digest of b")
    assert ScoreCache(tmp_path).digest("b", "s") is None


@pytest.mark.parametrize("series", [False, True])
def test_an_image_that_is_replaced_with_its_size_and_time_kept_has_another_stamp(tmp_path: Path, series: bool) -> None:
    image = tmp_path / "image"
    file = image / "1.dcm" if series else image
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(b"one")
    before, times = stamp_of(image), file.stat()
    assert stamp_of(image) == before
    (tmp_path / "new").write_bytes(b"two")
    os.utime(tmp_path / "new", ns=(times.st_atime_ns, times.st_mtime_ns))
    (tmp_path / "new").replace(file)
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (times.st_size, times.st_mtime_ns)
    assert stamp_of(image) != before


def test_two_servers_keep_what_each_has_noted_in_the_index(tmp_path: Path) -> None:
    first, second = ScoreCache(tmp_path), ScoreCache(tmp_path)
    first.note_image("a", "s", "digest of a")
    second.note_image("b", "s", "digest of b")
    second.note_models("stamp", "key")
    first.note_image("c", "s", "digest of c")
    there = ScoreCache(tmp_path)
    assert [there.digest(case, "s") for case in "abc"] == ["digest of a", "digest of b", "digest of c"]
    assert there.models_key("stamp") == "key"
    first.note_image("b", "another disk", "digest of b")  # whose files have other stamps: each goes on with its own
    second.note_image("d", "s", "digest of d")
    assert second.digest("b", "s") == "digest of b"
