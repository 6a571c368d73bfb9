import pytest

from attn_speech.data import PicoCorpus, pico
from attn_speech.data.announcements import MOST, announcements

pytest.importorskip("py_nanotts", reason="needs py-nanotts, extra corpus")


def test_the_same_lines_are_the_same_bytes_in_every_fresh_process(tmp_path):
    lines = [pico.Line("Good morning."), pico.Line("Good morning."), pico.Line("Yes.", "en-GB")]
    first, again = (pico.speak(lines, tmp_path / name) for name in ("a", "b"))
    assert pico.digest(first) == pico.digest(again)
    assert all(8000 < len(sound) < 40000 and sound.abs().max() < 1 for sound in first)
    assert [path.suffix for path in (tmp_path / "a").iterdir()] == [".npz"]


def test_an_unknown_voice_is_named(tmp_path):
    with pytest.raises(ValueError, match="no voice 'xx'; there are en-US"):
        pico.speak([pico.Line("a", "xx")], tmp_path)


def test_the_list_has_short_distinct_sentences():
    sentences = pico.sentences()
    assert len(sentences) == len(set(sentences)) > 1000
    assert all(12 <= len(sentence) <= 48 for sentence in sentences)


def test_announcements_are_distinct_of_few_words_and_the_same_every_time():
    texts = announcements(800)
    assert len(set(texts)) == 800 and texts == announcements(900)[:800]
    assert all(20 <= len(text) <= 48 for text in texts)
    words = " ".join(texts).lower().replace("-", " ").split()
    assert len({word.strip(".,") for word in words}) == 122


def test_sentences_that_are_not_there_are_refused():
    with pytest.raises(ValueError, match="utterances must be 1 ... 1061, got 1062"):
        PicoCorpus(1062)
    with pytest.raises(ValueError, match=f"utterances must be 1 ... {MOST}, got 0"):
        PicoCorpus(0, texts="announcements")
    with pytest.raises(ValueError, match="count must be 0"):
        announcements(-1)
