"""ESPnet's Transformer TTS: its options and its state dict as ours, and back."""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..models.transformer_tts import TransformerTTSConfig
from ..models.tts_loss import ATTENTIONS, TTSLossConfig, both_maskings
from .renaming import check_complete, rename

_FIELDS = {
    "idim": ("vocabulary", 64),
    "odim": ("mels", 80),
    "embed_dim": ("embed_dim", 512),
    "eprenet_conv_layers": ("encoder_prenet_layers", 3),
    "eprenet_conv_chans": ("encoder_prenet_dim", 256),
    "eprenet_conv_filts": ("encoder_prenet_kernel", 5),
    "dprenet_layers": ("decoder_prenet_layers", 2),
    "dprenet_units": ("decoder_prenet_dim", 256),
    "elayers": ("encoder_depth", 6),
    "eunits": ("encoder_hidden", 1024),
    "adim": ("dim", 512),
    "aheads": ("heads", 4),
    "dlayers": ("decoder_depth", 6),
    "dunits": ("decoder_hidden", 1024),
    "postnet_layers": ("postnet_layers", 5),
    "postnet_chans": ("postnet_dim", 256),
    "postnet_filts": ("postnet_kernel", 5),
    "positionwise_layer_type": ("feed_forward", "conv1d"),
    "positionwise_conv_kernel_size": ("feed_forward_kernel", 1),
    "use_scaled_pos_enc": ("scaled_positions", True),
    "use_batch_norm": ("batch_norm", True),
    "encoder_normalize_before": ("encoder_pre_norm", True),
    "decoder_normalize_before": ("decoder_pre_norm", True),
    "encoder_concat_after": ("encoder_concat", False),
    "decoder_concat_after": ("decoder_concat", False),
    "reduction_factor": ("reduction", 1),
    "spk_embed_integration_type": ("speaker_mode", "add"),
    "transformer_enc_dropout_rate": ("encoder_dropout", 0.1),
    "transformer_enc_positional_dropout_rate": ("encoder_position_dropout", 0.1),
    "transformer_enc_attn_dropout_rate": ("encoder_attention_dropout", 0.1),
    "transformer_dec_dropout_rate": ("decoder_dropout", 0.1),
    "transformer_dec_positional_dropout_rate": ("decoder_position_dropout", 0.1),
    "transformer_dec_attn_dropout_rate": ("decoder_attention_dropout", 0.1),
    "transformer_enc_dec_attn_dropout_rate": ("cross_attention_dropout", 0.1),
    "eprenet_dropout_rate": ("encoder_prenet_dropout", 0.5),
    "dprenet_dropout_rate": ("decoder_prenet_dropout", 0.5),
    "postnet_dropout_rate": ("postnet_dropout", 0.5),
    "init_enc_alpha": ("encoder_alpha", 1.0),
    "init_dec_alpha": ("decoder_alpha", 1.0),
}


def config_from(official: Mapping[str, Any]) -> TransformerTTSConfig:
    """Our configuration of the arguments of ESPnet's constructor, with its defaults.

    Raises:
        ValueError: global style tokens, which this package does not have.
    """
    if official.get("use_gst"):
        raise ValueError("use_gst: global style tokens are not supported")
    fields = {ours: official.get(key, default) for key, (ours, default) in _FIELDS.items()}
    if not fields["encoder_prenet_layers"]:
        fields["embed_dim"] = fields["dim"]
    for ours, key, least in (("speakers", "spks", 2), ("languages", "langs", 2)):
        count = official.get(key) or 0
        fields[ours] = count if count >= least else 0
    fields["speaker_dim"] = max(official.get("spk_embed_dim") or 0, 0)
    return TransformerTTSConfig(**fields, mask_padding=False)


def loss_config_from(official: Mapping[str, Any]) -> TTSLossConfig:
    """Our loss of the arguments of ESPnet's constructor.

    A bare text for `modules_applied_guided_attn` means there every attention whose name is a part
    of it, so that the default, "encoder-decoder", guides all three. -1 layers are there as many as
    the encoder has, in the decoder too.

    Raises:
        ValueError: both masking flags are set, or an attention is unknown.
    """
    modules = official.get("modules_applied_guided_attn", "encoder-decoder")
    if isinstance(modules, str):
        modules = [name for name in ATTENTIONS if name in modules]
    layers = official.get("num_layers_applied_guided_attn", 2)
    masking = [official.get(key, False) for key in ("use_masking", "use_weighted_masking")]
    return TTSLossConfig(
        kind=official.get("loss_type", "L1"),
        masking=both_maskings(masking),
        stop_weight=official.get("bce_pos_weight", 5.0),
        guided=tuple(modules) if official.get("use_guided_attn_loss", True) else (),
        guided_heads=official.get("num_heads_applied_guided_attn", 2),
        guided_layers=official.get("elayers", 6) if layers == -1 else layers,
        guided_sigma=official.get("guided_attn_loss_sigma", 0.4),
        guided_weight=official.get("guided_attn_loss_lambda", 1.0),
    )


def from_official(state: Mapping[str, Tensor], config: TransformerTTSConfig) -> dict[str, Tensor]:
    """Our state dict of ESPnet's; also of a whole task's, whose keys begin with "tts.".

    Raises:
        ValueError: a key is unknown, or one is missing; the message names them.
    """
    ours = renamed(state, config)
    check_complete(ours, config)
    return ours


def renamed(state: Mapping[str, Tensor], config: TransformerTTSConfig) -> dict[str, Tensor]:
    """ESPnet's weights under our names, whether or not they are complete."""
    has_prefix = any(key.startswith("tts.") for key in state)
    state = {
        key.removeprefix("tts."): value
        for key, value in state.items()
        if not has_prefix or key.startswith("tts.")
    }
    ours: dict[str, Tensor] = {}
    packed: dict[str, dict[str, Tensor]] = {}
    for key, value in state.items():
        if key.endswith(".pe") or key.startswith("criterion."):
            continue
        name = _our_name(key.replace("output_norm", "after_norm"), config)
        if found := re.fullmatch(r"(.*)\.linear_([qkv])\.(weight|bias)", name):
            packed.setdefault(f"{found[1]}|{found[3]}", {})[found[2]] = value
        else:
            ours[name] = value
    for key, parts in packed.items():
        layer, kind = key.split("|")
        if ".cross" in layer:
            ours[f"{layer}.q.{kind}"] = parts["q"]
            ours[f"{layer}.kv.{kind}"] = torch.cat([parts["k"], parts["v"]])
        else:
            ours[f"{layer}.qkv.{kind}"] = torch.cat([parts["q"], parts["k"], parts["v"]])
    return ours


def to_official(state: Mapping[str, Tensor], config: TransformerTTSConfig) -> dict[str, Tensor]:
    """ESPnet's state dict of ours, but for the constant `criterion.bce_criterion.pos_weight`."""
    official: dict[str, Tensor] = {}
    for name, value in state.items():
        layer, _, kind = name.rpartition(".")
        layer, _, last = layer.rpartition(".")
        if last in ("qkv", "kv"):
            for letter, part in zip(last, value.chunk(len(last)), strict=True):
                official[_official_name(f"{layer}.linear_{letter}.{kind}", config)] = part
        elif last == "q":
            official[_official_name(f"{layer}.linear_q.{kind}", config)] = value
        else:
            official[_official_name(name, config)] = value
    return official


def _renamings(config: TransformerTTSConfig) -> list[tuple[str, str]]:
    """Pairs of their name and ours, with <n> for a number; the first that fits counts."""
    norm, pairs = ("1" if config.batch_norm else "-"), []
    if config.encoder_prenet_layers:
        pairs += [
            ("encoder.embed.0.0.embed.", "encoder.embed."),
            ("encoder.embed.0.0.convs.<n>.0.", "encoder.prenet.convs.<n>."),
            (f"encoder.embed.0.0.convs.<n>.{norm}.", "encoder.prenet.norms.<n>."),
            ("encoder.embed.0.1.", "encoder.proj."),
        ]
    else:
        pairs += [("encoder.embed.0.", "encoder.embed.")]
    pairs += [("encoder.embed.1.", "encoder.positions.")]
    if config.decoder_prenet_layers:
        pairs += [
            ("decoder.embed.0.0.prenet.<n>.0.", "decoder.prenet.layers.<n>."),
            ("decoder.embed.0.1.", "decoder.proj."),
            ("decoder.embed.1.", "decoder.positions."),
        ]
    else:
        pairs += [
            ("decoder.embed.0.", "decoder.proj."),
            ("decoder.embed.1.", "decoder.norm_in."),
            ("decoder.embed.4.", "decoder.positions."),
        ]
    for side, cross in (("encoder", False), ("decoder", True)):
        theirs, ours = f"{side}.{side}s.<n>.", f"{side}.blocks.<n>."
        pairs += [
            (f"{theirs}self_attn.linear_out.", f"{ours}attn.proj."),
            (f"{theirs}self_attn.", f"{ours}attn."),
            (f"{theirs}feed_forward.w_<n>.", f"{ours}feed_forward.layer<n>."),
            (f"{theirs}norm1.", f"{ours}attn_norm."),
            (f"{theirs}norm{3 if cross else 2}.", f"{ours}feed_forward_norm."),
            (f"{theirs}concat_linear{1 if cross else ''}.", f"{ours}attn_concat."),
        ]
        if cross:
            pairs += [
                (f"{theirs}src_attn.linear_out.", f"{ours}cross.proj."),
                (f"{theirs}src_attn.", f"{ours}cross."),
                (f"{theirs}norm2.", f"{ours}cross_norm."),
                (f"{theirs}concat_linear2.", f"{ours}cross_concat."),
            ]
        pairs += [(f"{side}.after_norm.", f"{side}.norm.")]
    return [
        *pairs,
        ("feat_out.", "mel."),
        ("prob_out.", "stop."),
        ("postnet.postnet.<n>.0.", "postnet.convs.<n>."),
        (f"postnet.postnet.<n>.{norm}.", "postnet.norms.<n>."),
        ("sid_emb.", "speaker."),
        ("lid_emb.", "language."),
        ("projection.", "speaker_proj."),
    ]


def _our_name(key: str, config: TransformerTTSConfig) -> str:
    return rename(key, _renamings(config))


def _official_name(name: str, config: TransformerTTSConfig) -> str:
    return rename(name, [(ours, theirs) for theirs, ours in _renamings(config)])
