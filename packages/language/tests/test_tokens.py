import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attn_language.tokens import (
    Bytes,
    Characters,
    Learned,
    read_tokenizer,
    streamed,
    tokenizer_from,
    until,
)

TEXT = "low lower lowest, naïve café — 日本語 🙂 \n\ttabs  and  spaces"


def kinds():
    return [Characters.of(TEXT), Bytes(), Learned.bpe([TEXT] * 3, 300)]


@pytest.mark.parametrize("tokenizer", kinds(), ids=["characters", "bytes", "bpe"])
def test_text_comes_back_also_from_a_stored_tokenizer(tokenizer):
    ids = tokenizer.encode(TEXT)
    assert tokenizer.decode(ids) == TEXT
    again = tokenizer_from(json.loads(json.dumps(tokenizer.to_dict())))
    assert again.encode(TEXT) == ids and again.vocab == tokenizer.vocab
    assert max(ids) < tokenizer.vocab


@pytest.mark.parametrize("tokenizer", kinds()[1:], ids=["bytes", "bpe"])
@settings(max_examples=40)
@given(st.text(max_size=20))
def test_streamed_text_is_the_decoded_whole(tokenizer, text):
    ids = tokenizer.encode(text)
    assert "".join(streamed(tokenizer, ids)) == tokenizer.decode(ids) == text
    assert "".join(streamed(tokenizer, ids[:-1])) == tokenizer.decode(ids[:-1])


@pytest.mark.parametrize("text", ["abENDc", "aEENDEND", "aENb", "END", "abEN"])
@pytest.mark.parametrize("size", [1, 2, 3, 9])
def test_a_text_stops_where_the_stop_begins_however_it_comes(text, size):
    parts = [text[i : i + size] for i in range(0, len(text), size)]
    assert "".join(until("END", parts)) == text.split("END")[0]


def test_a_token_inside_a_character_waits():
    parts = list(streamed(Bytes(), "a🙂b".encode()))
    assert parts == ["a", "🙂", "b"]


def test_words_keep_their_distance_to_the_prompt():
    words = Learned.words(["one two three"], 9)
    before, after = words.encode("one two"), words.encode("three one")
    assert list(streamed(words, after, before)) == [" three", " one"]
    for tokenizer in kinds():
        ids = tokenizer.encode(TEXT)
        for cut in (1, 2, 4):
            text = "".join(streamed(tokenizer, ids[cut:], ids[:cut]))
            assert tokenizer.decode(ids[:cut]) + text == TEXT


def test_unknown_characters_and_kinds_are_told():
    with pytest.raises(ValueError, match="character '日' is not among the 2"):
        Characters("ab").encode("a日")
    with pytest.raises(ValueError, match="unknown kind 'morse'"):
        tokenizer_from({"kind": "morse"})
    with pytest.raises(ValueError, match="at least the 256 bytes"):
        Learned.bpe(["a"], 100)


def test_words_keep_the_most_frequent_and_one_id_for_others():
    words = Learned.words(["a a a b b c"], vocab=3, lower=True)
    assert words.encode("A b c d") == [1, 2, 0, 0]


def test_a_file_that_is_no_tokenizer(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match="cannot be read"):
        read_tokenizer(tmp_path / "tokenizer.json")
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_tokenizer(tmp_path / "none.json")
