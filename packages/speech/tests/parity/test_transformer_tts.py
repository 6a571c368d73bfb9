from pathlib import Path

import pytest
import torch

from attn_speech.models.decoding import DecodeOptions, decode
from attn_speech.models.transformer_tts import Speaker
from attn_speech.models.tts_loss import tts_losses
from attn_speech.official import transformer_tts as official
from core_attn import record
from core_attn.testing import assert_parity, load_case, parity_cases

CASES = parity_cases("transformer_tts", Path(__file__).parent / "cases")


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_official_outputs_losses_gradients_and_inference(path):
    case = load_case(path)
    config = official.config_from(case.config["model"])
    model = config.build()
    model.load_state_dict(official.from_official(case.params, config))
    model.eval()

    given = case.inputs
    text, text_lengths = given["text"], given["text_lengths"]
    text, lengths = text[:, : text_lengths.max()], given["feats_lengths"]
    mels = given["feats"].clone().requires_grad_()
    speaker = Speaker(_flat(given, "sids"), _flat(given, "lids"), given.get("spembs"))
    encoded = []
    model.encoder.register_forward_hook(lambda _module, _args, x: encoded.append(x))
    with record(model, "pattern") as seen:
        prediction = model(text, text_lengths, mels[:, : lengths.max()], lengths, speaker)
    loss_config = official.loss_config_from(case.config["model"])
    parts = tts_losses(
        prediction, mels, lengths, loss_config, reduction=config.reduction,
        text_lengths=text_lengths, patterns=seen,
    )  # fmt: skip
    parts["loss"].backward()

    actual = {
        "after_outs": prediction.after, "before_outs": prediction.before,
        "stop_logits": prediction.stop_logits, "encoder": encoded[0],
        "decoder_hidden": prediction.hidden, "loss": parts["loss"],
        "stat.loss": parts["loss"], "stat.bce_loss": parts["stop"],
        "stat.l1_loss": parts["l1"], "stat.l2_loss": parts["l2"],
    }  # fmt: skip
    for key, name in (("enc", "encoder"), ("dec", "decoder"), ("enc_dec", "encoder-decoder")):
        if name in loss_config.guided:
            actual[f"stat.{key}_attn_loss"] = parts[f"guided_{name}"]
    if config.scaled_positions:
        actual["stat.encoder_alpha"] = model.encoder.positions.alpha
        actual["stat.decoder_alpha"] = model.decoder.positions.alpha
    for name, pattern in seen.items():
        side, _, layer, kind = name.split(".")
        key = "src" if kind == "cross" else side[:3]
        actual[f"attn.{key}.{layer}"] = pattern
    actual |= _inference(model, case)
    assert_parity(actual, case.outputs, rtol=1e-4, atol=1e-5)

    grads = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    grads = official.to_official(grads, config) | {"in.feats": mels.grad}
    assert_parity(grads, case.grads, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_weights_go_to_the_official_keys_and_back(path):
    case = load_case(path)
    config = official.config_from(case.config["model"])
    back = official.to_official(official.from_official(case.params, config), config)
    assert {key for key in case.params if not key.startswith("criterion")} == back.keys()
    assert all(back[key].equal(case.params[key]) for key in back)
    whole = {f"tts.{key}": value for key, value in case.params.items()}
    whole |= {"normalize.mean": torch.zeros(1), "tts.encoder.embed.1.pe": torch.zeros(1)}
    assert official.from_official(whole, config).keys() == config.build().state_dict().keys()


def test_all_guided_layers_are_officially_as_many_as_the_encoders():
    asked = {"num_layers_applied_guided_attn": -1, "elayers": 2, "dlayers": 4}
    assert official.loss_config_from(asked).guided_layers == 2
    assert official.loss_config_from({}).guided_layers == 2
    assert official.loss_config_from({"num_layers_applied_guided_attn": -1}).guided_layers == 6


def _inference(model, case):
    rules, given = case.config["infer"], case.inputs
    length, frames = int(given["text_lengths"][0]), int(given["feats_lengths"][0])
    text, lengths = given["text"][:1, :length], given["text_lengths"][:1]
    one = Speaker(*(None if x is None else x[:1] for x in (
        _flat(given, "sids"), _flat(given, "lids"), given.get("spembs")
    )))  # fmt: skip
    options = DecodeOptions(rules["threshold"], rules["minlenratio"], rules["maxlenratio"])
    [done] = decode(model, text, lengths, one, options=options)
    with record(model, "pattern", layers="decoder.blocks.*.cross") as seen, torch.no_grad():
        mels = given["feats"][:1, :frames]
        shown = model(text, lengths, mels, torch.tensor([frames]), one)
    return {
        "infer.feat_gen": done.mel, "infer.prob": done.stop, "infer.att_w": done.pattern,
        "infer_tf.feat_gen": shown.after[0],
        "infer_tf.att_w": torch.stack(list(seen.values()), 1)[0],
    }  # fmt: skip


def _flat(given, name):
    return given[name].view(-1) if name in given else None
