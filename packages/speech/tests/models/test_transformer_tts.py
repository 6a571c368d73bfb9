import copy
import dataclasses

import pytest
import torch
from torch.nn.utils.rnn import pad_sequence

from attn_speech.models import VARIANTS, Speaker, TransformerTTSConfig, create
from attn_speech.models.decoding import DecodeOptions, Steps, Window, decode
from attn_speech.models.transformer_tts import Prediction
from attn_speech.models.tts_loss import TTSLossConfig, tts_losses
from core_attn import record

TINY = TransformerTTSConfig(
    vocabulary=11, mels=5, embed_dim=8, dim=8, heads=2, encoder_depth=1, decoder_depth=2,
    encoder_hidden=12, decoder_hidden=12, encoder_prenet_dim=6, decoder_prenet_dim=7,
    postnet_dim=6, feed_forward="conv1d", feed_forward_kernel=3, reduction=2,
)  # fmt: skip
TEXTS = [torch.tensor(row) for row in ([1, 2, 3, 4, 5], [9, 2], [3, 3, 7])]
LENGTHS = torch.tensor([5, 2, 3])
NEVER = DecodeOptions(threshold=2.0, max_ratio=4.0)


@pytest.fixture
def model():
    torch.manual_seed(1)
    return TINY.build().eval()


def together(model, **options):
    return decode(model, pad_sequence(TEXTS, batch_first=True), LENGTHS, **options)


def alone(model, row, **options):
    return decode(model, TEXTS[row][None], LENGTHS[row : row + 1], **options)[0]


def same(a, b, tolerance=1e-5):
    torch.testing.assert_close(a.mel, b.mel, rtol=0, atol=tolerance)
    torch.testing.assert_close(a.pattern, b.pattern, rtol=0, atol=tolerance)
    torch.testing.assert_close(a.stop, b.stop, rtol=0, atol=tolerance)
    assert a.limited == b.limited


def test_a_row_does_not_depend_on_its_batch(model):
    text, mels = pad_sequence(TEXTS, batch_first=True), torch.randn(3, 13, 5)
    frames = torch.tensor([13, 6, 8])
    with torch.no_grad():
        batch = model(text, LENGTHS, mels, frames)
        for row in range(3):
            steps = int(frames[row]) // 2 * 2
            one = model(
                TEXTS[row][None], LENGTHS[row : row + 1], mels[row : row + 1, : frames[row]],
                frames[row : row + 1],
            )  # fmt: skip
            torch.testing.assert_close(batch.after[row, :steps], one.after[0], rtol=0, atol=1e-5)


def test_the_official_padding_leaks_into_short_rows():
    torch.manual_seed(1)
    model = dataclasses.replace(TINY, mask_padding=False).build()
    with torch.no_grad():
        model(pad_sequence(TEXTS, batch_first=True), LENGTHS, torch.randn(3, 8, 5),
              torch.tensor([8, 8, 8]))  # fmt: skip
        model.eval()
        batch, _ = model.encode(pad_sequence(TEXTS, batch_first=True), LENGTHS)
        one, _ = model.encode(TEXTS[1][None], LENGTHS[1:2])
    assert (batch[1, :3] - one[0]).abs().max() > 1e-3


@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_many_texts_at_once_and_cached_equal_one_by_one_and_uncached(model, rate):
    model.decoder.prenet.dropout = rate
    seeds = [4, 5, 6]
    batch = together(model, seeds=seeds, options=NEVER)
    for row, done in enumerate(batch):
        same(done, alone(model, row, seeds=[seeds[row]], options=NEVER))
        slow = dataclasses.replace(NEVER, cached=False)
        same(done, alone(model, row, seeds=[seeds[row]], options=slow))
        assert len(done.mel) == (len(TEXTS[row]) + 1) * 4 // 2 * 2 and done.limited


def test_stepwise_equals_teacher_forcing_on_what_was_said(model):
    done = alone(model, 0, seeds=[3], options=NEVER)
    with torch.no_grad(), record(model, "pattern", layers="decoder.blocks.*.cross") as seen:
        said = model(TEXTS[0][None], LENGTHS[:1], done.before[None],
                     torch.tensor([len(done.before)]), seed=3)  # fmt: skip
    torch.testing.assert_close(said.after[0], done.mel, rtol=0, atol=1e-5)
    torch.testing.assert_close(torch.stack(list(seen.values()), 1)[0], done.pattern)


def test_the_seed_alone_decides_and_the_global_state_is_untouched(model):
    state = torch.random.get_rng_state()
    first, again, other = (alone(model, 0, seeds=[s], options=NEVER) for s in (1, 1, 2))
    assert first.mel.equal(again.mel) and not first.mel.equal(other.mel)
    assert torch.random.get_rng_state().equal(state)


def test_rows_stop_by_themselves(model):
    with torch.no_grad():
        model.stop.bias.fill_(9.0)
    for done in together(model):
        assert len(done.mel) == 2 and not done.limited
    late = together(model, options=DecodeOptions(min_ratio=2.0))
    assert [len(done.mel) for done in late] == [12, 6, 8]


def test_a_window_keeps_one_head_near_where_it_was(model):
    window = Window(layer=1, head=0, back=0, ahead=1)
    done = alone(model, 0, options=dataclasses.replace(NEVER, window=window))
    at = 0
    for row in done.pattern[1, 0]:
        outside = [i for i in range(len(row)) if not at <= i <= at + 1]
        assert row[outside].abs().max() == 0
        at = int(row.argmax())
    assert done.pattern[1, 1, 0].min() > 0


@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_the_exported_steps_say_what_decode_says(model, rate):
    model.decoder.prenet.dropout = rate
    want = alone(model, 0, seeds=[7], options=NEVER)
    steps, noise = Steps(model), model.decoder.noise([7])
    frames = torch.zeros(1, 1, 5)
    factors = None if noise is None else noise.draw(1)
    with torch.no_grad():
        while True:
            before, after, stop = steps(TEXTS[0][None], LENGTHS[:1], frames, factors)
            if before.shape[1] == len(want.mel):
                break
            frames = torch.cat([frames, before[:, -1:]], 1)
            factors = None if noise is None else torch.cat([factors, noise.draw(1)], 1)
    torch.testing.assert_close(after[0], want.mel, rtol=0, atol=1e-5)
    torch.testing.assert_close(stop[0], want.stop, rtol=0, atol=1e-5)


def test_frames_of_its_own_are_what_it_said_of_true_ones(model):
    model.decoder.prenet.dropout = 0.0
    text, mels, frames = TEXTS[0][None], torch.randn(1, 8, 5), torch.tensor([8])
    true = model(text, LENGTHS[:1], mels, frames)
    assert model(text, LENGTHS[:1], mels, frames, own=0.0).after.equal(true.after)
    own = model(text, LENGTHS[:1], mels, frames, own=1.0)
    again = model(text, LENGTHS[:1], true.before.detach(), frames)
    torch.testing.assert_close(own.after, again.after)
    assert not own.after.allclose(true.after)


def test_texts_longer_than_the_table_of_positions(model):
    text = torch.randint(1, 10, (1, 700))
    with torch.no_grad():
        assert model.encode(text, torch.tensor([700]))[0].shape == (1, 701, 8)


def test_frames_of_the_future_do_not_reach_the_past(model):
    model.decoder.prenet.dropout = 0.0
    mels = torch.randn(1, 8, 5)
    changed = mels.clone()
    changed[:, 4:] += 1.0
    given = TEXTS[0][None], LENGTHS[:1]
    with torch.no_grad():
        a, b = (model(*given, x, torch.tensor([8])).before for x in (mels, changed))
    assert a[:, :6].equal(b[:, :6]) and not a[:, 6:].equal(b[:, 6:])


def test_sizes_of_the_paper():
    parameters = sum(p.numel() for p in create("tts_paper").parameters())
    assert parameters == pytest.approx(53.0e6, rel=2e-3)
    assert {"tts_paper", "tts_espnet", "wavenet_paper", "gaam"} <= VARIANTS.keys()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"heads": 3}, "dim 8 is not divisible by heads 3"),
        ({"reduction": 0}, "reduction must be at least 1"),
        ({"postnet_dim": 0}, "postnet_dim must be at least 1, got 0"),
        ({"encoder_prenet_kernel": -1}, "encoder_prenet_kernel must be at least 1"),
        ({"decoder_prenet_layers": -1}, "decoder_prenet_layers must be at least 0"),
        ({"speakers": -1}, "speakers must be at least 0"),
        ({"feed_forward": "conv"}, "must be one of linear, conv1d, conv1d-linear, got 'conv'"),
        ({"encoder_prenet_kernel": 4}, "kernel must be odd"),
        ({"decoder_prenet_dropout": 1.0}, r"must be in \[0, 1\)"),
        ({"encoder_prenet_layers": 0, "embed_dim": 9}, "embed_dim 9 must be dim 8"),
    ],
)
def test_configurations_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(TINY, **changes).build()


def test_inputs_refused(model):
    text, mels = torch.tensor([[1, 2, 3]]), torch.randn(1, 6, 5)
    three, six = torch.tensor([3]), torch.tensor([6])
    for given, message in (
        ((text, three, mels, torch.tensor([1])), "utterance 0 has 1 frames, fewer than reduction"),
        ((text, three, mels, torch.tensor([9])), r"mel_lengths \[9\] exceed the 6 frames"),
        ((text, three, mels / 0, six), "mels has NaN or infinite values"),
        ((text, three, mels[..., :4], six), r"mels must be \(1, frames, 5\)"),
        ((text, torch.tensor([4]), mels, six), r"not in 1 \.\.\. 3"),
        ((text[:, :0], torch.tensor([0]), mels, six), "text is empty"),
        ((text + 9, three, mels, six), r"symbols 10 \.\.\. 12, the vocabulary 11"),
        ((text, three, mels, six, Speaker(torch.tensor([0]))), "takes no speaker.ids"),
    ):
        with pytest.raises(ValueError, match=message):
            model(*given)
    with pytest.raises(ValueError, match="eval mode"):
        decode(model.train(), text, three)
    with pytest.raises(ValueError, match="needs speaker.ids"):
        dataclasses.replace(TINY, speakers=2).build()(text, three, mels, six)


def test_stop_labels_of_groups_that_are_left_out_are_the_official_ones():
    """Of 11 frames in threes the ninth is the last, and those after it stay as they were."""
    frames = torch.zeros(2, 12, 5)
    shown = Prediction(frames, frames, torch.zeros(2, 12), torch.zeros(2, 4, 8))
    lengths, labels = torch.tensor([12, 11]), torch.zeros(2, 12)
    labels[0, 11] = labels[1, [8, 10, 11]] = 1.0
    config = TTSLossConfig(masking="none", stop_weight=3.0)
    cost = tts_losses(shown, frames, lengths, config, reduction=3)["stop"]
    torch.testing.assert_close(cost, (1 + 2 * labels).mean() * torch.tensor(2.0).log())


def test_losses_of_an_exact_copy_and_refusals():
    target = torch.randn(2, 6, 5)
    torch.manual_seed(0)
    model = TINY.build().eval()
    prediction = model(torch.tensor([[1, 2], [3, 4]]), torch.tensor([2, 2]), target,
                       torch.tensor([6, 5]))  # fmt: skip
    exact = prediction._replace(after=target, before=target)
    parts = tts_losses(exact, target, torch.tensor([6, 5]), TTSLossConfig(), reduction=2)
    assert parts["l1"] == parts["l2"] == 0 and parts["stop"] > 0
    for options, message in (
        ({"guided": "encoder-decoder"}, "must be a list"),
        ({"guided": ("cross",)}, "there are encoder, decoder"),
        ({"masking": "both"}, "one of valid, utterance, none, got 'both'"),
    ):
        with pytest.raises(ValueError, match=message):
            TTSLossConfig(**options)


@pytest.mark.traces
def test_a_compiled_model_trains_as_the_eager_one_at_any_length():
    torch.manual_seed(0)
    rates = {x.name: 0.0 for x in dataclasses.fields(TINY) if "dropout" in x.name}
    model = dataclasses.replace(TINY, reduction=3, **rates).build()
    compiled = copy.deepcopy(model)
    compiled.compile(backend="aot_eager")  # inductor could not order strides of frames // 3
    for batch, tokens, frames in ((2, 9, 12), (3, 7, 20), (2, 5, 33)):
        text, mels = torch.randint(1, 10, (batch, tokens)), torch.randn(batch, frames, 5)
        lengths = torch.full((batch,), tokens), mels, torch.full((batch,), frames)
        found = []
        for one in (model, compiled):
            one.zero_grad()
            with record(one, "pattern", layers="decoder.blocks.*.cross") as seen:
                prediction = one(text, *lengths)
            results = [prediction.after, prediction.stop_logits, *seen.values()]
            sum(x.square().sum() for x in results).backward()
            found.append(results + [x.grad for x in one.parameters()])
        torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-5)
