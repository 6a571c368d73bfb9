import json
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attn_speech.text import ENGLISH, Characters, English, front_end, phonemes, read, split
from attn_speech.text.items import Pause, Phonemes, Unspoken, Word
from attn_speech.text.normalize import SILENT, normalize
from attn_speech.text.symbols import table

GOLDEN = json.loads(Path(__file__).with_name("golden.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def english():
    return English()


@pytest.mark.parametrize("row", GOLDEN, ids=lambda row: row["text"][:24])
def test_golden_sentences(row, english):
    script = read(row["text"], english)
    said = [p.item.mark if isinstance(p.item, Pause) else p.item.text for p in script.parts]
    assert " ".join(said) == row["words"]
    assert [str(piece) for piece in script.unspoken] == row["unspoken"]
    assert " ".join("".join(part.symbols) for part in script.parts) == row["phonemes"]


def test_there_are_thirty_golden_sentences():
    assert len(GOLDEN) == 30


@settings(deadline=None, max_examples=200)
@given(
    st.text(st.sampled_from("aZé9 .,'’\"/-:$%°½[]\n日🙂\u200d\u0301m0s&1x²℃⑫T^pFri"), max_size=24)
)
def test_every_character_is_spoken_silent_or_reported(text):
    items = normalize(text)
    covered = set()
    for item in items:
        assert 0 <= item.start < item.stop
        covered.update(range(item.start, item.stop))
    for i, sign in enumerate(text):
        assert i in covered or sign.isspace() or sign in SILENT


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("café", "cafe"),
        ("10km", "ten kilometers"),
        ("20°C", "twenty degrees celsius"),
        ("6'2\"", "six feet two inches"),
        ("1/2", "one half"),
    ],
)
def test_what_gruut_alone_drops_or_misreads(text, words):
    assert " ".join(item.text for item in normalize(text)) == words


SPOKEN = {
    "€20-30": "twenty to thirty euros",
    "5 €": "five euros",
    "30¢": "thirty cents",
    "9am-5pm, Mon-Fri": "nine A M to five P M , monday to friday",
    "10:30-11:45": "ten thirty to eleven forty five",
    "1-800-555-0199": "one eight zero zero five five five zero one nine nine",
    "+44 20 7946 0958": "plus four four two zero seven nine four six zero nine five eight",
    "2024-02-29T13:45Z": "february twenty ninth twenty twenty four t thirteen forty five z",
    "Louis XIV, Chapter IV": "louis the fourteenth , chapter four",
    "Elizabeth I saw": "elizabeth i saw",
    "E = mc²": "e equals mc squared",
    "10⁻⁶": "ten to the power of minus six",
    "2^10": "two to the power of ten",
    "H₂O": "h two o",
    "5 m²": "five square meters",
    "2½ cups": "two and a half cups",
    "10%-20%": "ten percent to twenty percent",
    "5-3=2": "five minus three equals two",
    "45° 30' 15\"": "forty five degrees thirty minutes fifteen seconds",
    "20/20 and 24/7": "twenty twenty and twenty four seven",
    "a ≤ b": "a less than or equal to b",
    "node.js, C#": "node dot js , C sharp",
    "5㎏, 3℃": "five kilograms , three degrees celsius",
    "pp. 3-4": "pages three to four",
    "2.4 GHz": "two point four gigahertz",
    "1e-5, 2.5E10": "one times ten to the power of minus five , two point five times ten to the "
    "power of ten",
    "№ 5, the 21ST": "number five , the twenty first",
    "０９：３０": "nine thirty",
    "https://müller.de/Straße_a": "muller dot de slash strasse underscore a",
    "foo_bar@exämple.org": "foo underscore bar at example dot org",
}


@pytest.mark.parametrize("text", SPOKEN)
def test_prices_ranges_times_numerals_and_formulas(text):
    items = normalize(text)
    said = [item.mark if isinstance(item, Pause) else item.text for item in items]
    assert " ".join(said) == SPOKEN[text]


@pytest.mark.parametrize("text", ["Go 日本語 now 🙂", "cafe\u0301s 日本語 3℃ now 🙂"])
def test_places_are_those_of_the_text(text):
    unspoken = read(text, Characters()).unspoken
    assert [text[piece.start : piece.stop] for piece in unspoken] == ["日本語", "🙂"]


def test_phonemes_in_brackets_are_taken_as_they_are():
    script = read("say [[ h ə l ˈoʊ ]] now [[ qq ]]", English())
    assert script.parts[1].symbols == ("h", "ə", "l", "ˈoʊ")
    assert isinstance(script.parts[1].item, Phonemes)
    assert [str(piece) for piece in script.unspoken] == ["'qq' at 24: unknown phonemes qq"]


def test_the_users_dictionary_comes_first(tmp_path, english):
    path = tmp_path / "words.tsv"
    path.write_text("# mine\nSQL\ts ˈi k w ə l\n", encoding="utf-8")
    assert phonemes("SQL", path).tokens == "s ˈi k w ə l".split()
    assert phonemes("SQL").tokens != phonemes("SQL", path).tokens
    given = English({"r2-d2": "ɑ ɹ", "gpt": "t ˈu"})
    assert [part.symbols for part in read("R2-D2, GPT r2-d20", given).parts][:3] == [
        ("ɑ", "ɹ"), (",",), ("t", "ˈu"),
    ]  # fmt: skip
    assert [item.text for item in normalize("r2-d20", given.known)] == ["r", "two", "d", "twenty"]
    with pytest.raises(ValueError, match="'new york' is not one word"):
        English({"New York": "n ˈu"})
    with pytest.raises(ValueError, match="'x' has unknown symbols \\['q'\\]"):
        English({"x": "q"})
    path.write_bytes("café\tk".encode("latin-1"))
    with pytest.raises(ValueError, match="words.tsv: is not text in UTF-8"):
        English(path)
    path.write_text("no tab here")
    with pytest.raises(ValueError, match="is no word, tab, symbols"):
        English(path)


def test_letters_of_an_address_that_are_not_latin_are_reported():
    unspoken = read("see www.мир.org/🙂/a now", Characters()).unspoken
    assert [(piece.text, piece.reason) for piece in unspoken] == [
        ("мир", "no English letters"), ("🙂", "a sign without a name"),
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["", "  \n", "...", "\"'", "🙂", "日本語", "[[ ]]"])
def test_texts_without_a_spoken_word_are_refused(text, english):
    with pytest.raises(ValueError, match=r"^text"):
        read(text, english)


@pytest.mark.parametrize("text", ["a", "I", "x", "7", "é", "xqzt"])
def test_short_and_unknown_words_are_spoken(text, english):
    assert read(text, english).tokens


def test_a_missing_backend_is_an_error_not_letters(monkeypatch):
    monkeypatch.setattr(sys.modules[English.__module__], "find_spec", lambda name: None)
    for name in ("english", "espeak"):
        with pytest.raises(ModuleNotFoundError, match="pip install"):
            front_end(name)
    with pytest.raises(ValueError, match="english, characters or espeak"):
        front_end("letters")


def test_every_phoneme_of_the_lexicon_has_a_symbol():
    import sqlite3

    import gruut_lang_en

    path = Path(gruut_lang_en.__file__).with_name("lexicon.db")
    rows = sqlite3.connect(path).execute("select distinct phonemes from word_phonemes")
    sounds = {sound for (row,) in rows for sound in row.split()}
    assert {sound for sound in sounds if sound not in ENGLISH} == set()


def test_pieces_hold_the_whole_text_in_order_within_the_limit():
    text = "First one. " + "second " * 30 + "third, and more; " * 5 + "Last"
    script = read(text, Characters())
    for limit in (1, 7, 40, 1000):
        pieces = split(script, limit)
        assert [part for piece in pieces for part in piece.parts] == list(script.parts)
        for piece in pieces:
            words = [part for part in piece.parts if isinstance(part.item, Word)]
            assert len(piece.tokens) <= limit + 1 or len(words) == 1


def test_another_table_is_refused():
    with pytest.raises(ValueError, match="speaks the 81 symbols of 'english'"):
        ENGLISH.require(Characters().symbols)
    ENGLISH.require(table("english", list(ENGLISH.names[8:-1])))


def test_what_cannot_be_spoken_names_itself():
    assert str(Unspoken("🙂", 3, 4, "a sign")) == "'🙂' at 3: a sign"


def test_espeak_pronounces_words_by_its_own_table():
    pytest.importorskip("espeakng_loader", reason="needs the extra espeak, which is under the GPL")
    script = read("Two rhythmic cafés.", front_end("espeak"))
    assert "".join(script.tokens) == "tˈuː ɹˈɪðmɪk kˈæfeɪz."
    assert not script.unspoken
