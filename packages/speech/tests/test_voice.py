import dataclasses

import pytest
import torch

from attn_speech.models import Speaker, WaveNetConfig
from attn_speech.models.decoding import DecodeOptions
from attn_speech.text import ENGLISH, Characters
from attn_speech.vocoder import GriffinLim, WaveNetVocoder
from attn_speech.voice import Voice

SHORT = DecodeOptions(max_ratio=3.0)
TEXT = "First one. Then a second, longer sentence! And more? Yes."


def test_streamed_equals_whole_and_the_same_seed_is_the_same_bytes(voice):
    spoken = voice.say(TEXT, seed=3, options=SHORT)
    pieces = list(voice.stream(TEXT, seed=3, options=SHORT))
    assert len(pieces) > 3 and torch.cat(pieces).equal(spoken.audio)
    assert voice.say(TEXT, seed=3, options=SHORT).audio.equal(spoken.audio)
    assert not voice.say(TEXT, seed=4, options=SHORT).audio.equal(spoken.audio)
    assert spoken.rate == 16000 and spoken.audio.abs().max() <= 1
    assert "".join(spoken.phonemes) == TEXT.lower()
    assert [pattern.shape[1] for pattern in spoken.alignment] == [11, 15, 17, 10, 5]


def test_an_untrained_voice_says_that_it_ran_to_its_limit(voice):
    with torch.no_grad():
        voice.model.stop.bias.fill_(-9.0)
    spoken = voice.say("two words", options=SHORT)
    assert spoken.limited
    assert set(spoken.skipped) <= {"'two' at 0", "'words' at 4"}


def test_what_cannot_be_spoken_is_reported_with_its_place(voice):
    spoken = voice.say("hi 日本語 you", options=SHORT)
    assert [str(piece) for piece in spoken.unspoken] == ["'日本語' at 3: no English letters"]


def test_the_global_random_state_is_untouched(voice):
    state = torch.random.get_rng_state()
    voice.say("hello", options=SHORT)
    assert torch.random.get_rng_state().equal(state)


def test_pieces_are_divided_by_silence(voice):
    none, some = (voice.say("one. two.", options=SHORT, silence=s).audio for s in (0.0, 0.5))
    assert len(some) - len(none) == 8000


@pytest.mark.parametrize("text", ["", "...", "🙂", "日本語"])
def test_texts_without_words_are_refused(voice, text):
    with pytest.raises(ValueError, match=r"^text"):
        voice.say(text)


def test_a_number_of_many_words_is_named_once(voice):
    with torch.no_grad():
        voice.model.stop.bias.fill_(9.0)  # one step for each piece, which skips most words
    spoken = voice.say("12345678901234567890 and so on", options=SHORT)
    assert spoken.skipped and len(set(spoken.skipped)) == len(spoken.skipped)


def test_one_letter_is_spoken(voice):
    assert len(voice.say("a", options=SHORT).audio) > 0


def test_speakers_by_name(voice):
    with pytest.raises(ValueError, match="has one voice only"):
        voice.say("hello", speaker="ann")
    config = dataclasses.replace(voice.model.config, speakers=2)
    two = Voice(
        config.build(), voice.features, Characters(), Characters().symbols, speakers=["ann", "bob"]
    )
    ann, bob = (two.say("hi", speaker=name, options=SHORT).audio for name in ("ann", "bob"))
    assert not (len(ann) == len(bob) and ann.equal(bob))
    with pytest.raises(ValueError, match="no speaker 'eve'; there are ann, bob"):
        two.say("hi", speaker="eve")
    assert Speaker().ids is None


def test_another_table_of_symbols_or_other_mels_are_refused(voice):
    with pytest.raises(ValueError, match="speaks the 81 symbols of 'english'"):
        Voice(voice.model, voice.features, Characters(), ENGLISH)
    other = GriffinLim(dataclasses.replace(voice.features, hop=256))
    with pytest.raises(ValueError, match="mels of the vocoder are others: hop 200 against 256"):
        Voice(voice.model, voice.features, Characters(), Characters().symbols, vocoder=other)


def test_a_vocoder_that_knows_speakers_apart_is_told_who_speaks(voice):
    torch.manual_seed(0)
    config = WaveNetConfig(
        layers=2, stacks=1, residual=4, gate=8, skip=4, scales=(5, 40), pad=1, speaker_dim=3,
        speakers=2,
    )  # fmt: skip
    draw = WaveNetVocoder(config.build(), voice.features, ["ann", "bob"])
    mel = torch.randn(4, 80)
    assert not draw([mel], [0], "ann")[0].equal(draw([mel], [0], "bob")[0])
    with pytest.raises(ValueError, match="the vocoder has no speaker 'eve'; it has ann, bob"):
        draw([mel], [0], "eve")
    symbols = Characters().symbols
    one = Voice(voice.model, voice.features, Characters(), symbols, speakers=["ann"], vocoder=draw)
    assert len(one.say("a", options=DecodeOptions(max_ratio=1.0)).audio) > 0
