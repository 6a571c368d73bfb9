import pytest
import torch

from core_attn.analysis import find_sites
from core_attn.analysis import hallucination as h

t = pytest.importorskip("transformers")
IMAGE = 20


def text(**other):
    return dict(vocab_size=32, hidden_size=48, intermediate_size=64, num_hidden_layers=4,
                num_attention_heads=4, num_key_value_heads=2, head_dim=12,
                bos_token_id=1, eos_token_id=31, pad_token_id=0) | other  # fmt: skip


def vision(**other):
    return dict(hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
                image_size=8, patch_size=4) | other  # fmt: skip


def llava():
    config = t.LlavaConfig(
        vision_config=t.CLIPVisionConfig(**vision()), text_config=t.LlamaConfig(**text()),
        image_token_id=IMAGE, vision_feature_layer=-1,
    )  # fmt: skip
    model = t.LlavaForConditionalGeneration(config)
    return model, {"pixel_values": torch.randn(1, 3, 8, 8)}, 4


def llava_next():
    config = t.LlavaNextConfig(
        vision_config=t.CLIPVisionConfig(**vision()), text_config=t.LlamaConfig(**text()),
        image_token_id=IMAGE, vision_feature_layer=-1, image_grid_pinpoints=[[8, 8]],
    )  # fmt: skip
    model = t.LlavaNextForConditionalGeneration(config)
    inputs = {"pixel_values": torch.randn(1, 2, 3, 8, 8), "image_sizes": torch.tensor([[8, 8]])}
    return model, inputs, 10  # 4 for the base image, 4 and two ends of rows for the tile


def qwen2_vl():
    rope = {"rope_type": "default", "mrope_section": [2, 2, 2], "rope_theta": 1e4}
    config = t.Qwen2VLConfig(
        text_config=text(rope_parameters=rope), image_token_id=IMAGE,
        vision_start_token_id=21, vision_end_token_id=22, video_token_id=23,
        vision_config=dict(depth=1, embed_dim=16, hidden_size=48, num_heads=2, mlp_ratio=2,
                           patch_size=4, spatial_merge_size=2, temporal_patch_size=2),
    )  # fmt: skip
    model = t.Qwen2VLForConditionalGeneration(config)
    inputs = {
        "pixel_values": torch.randn(16, 3 * 2 * 4 * 4),
        "image_grid_thw": torch.tensor([[1, 4, 4]]),
    }
    return model, inputs, 4


def instruct_blip():
    config = t.InstructBlipConfig(
        vision_config=t.InstructBlipVisionConfig(**vision()).to_dict(),
        qformer_config=t.InstructBlipQFormerConfig(
            vocab_size=32, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
            intermediate_size=16, encoder_hidden_size=16,
        ).to_dict(),
        text_config=t.LlamaConfig(**text()).to_dict(), num_query_tokens=4, image_token_index=IMAGE,
    )  # fmt: skip
    model = t.InstructBlipForConditionalGeneration(config)
    inputs = {
        "pixel_values": torch.randn(1, 3, 8, 8),
        "qformer_input_ids": torch.tensor([[5, 6]]),
        "qformer_attention_mask": torch.ones(1, 2, dtype=torch.long),
    }
    return model, inputs, 4


FAMILIES = [llava, llava_next, qwen2_vl, instruct_blip]


def built(family):
    torch.manual_seed(0)
    model, inputs, tokens = family()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.15)
    head, tail = [5, 6], [7, 8, 9]
    if family is qwen2_vl:
        head, tail = [*head, 21], [22, *tail]
    ids = torch.tensor([[*head, *[IMAGE] * tokens, *tail]])
    inputs |= {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if family is qwen2_vl:
        inputs["mm_token_type_ids"] = (ids == IMAGE).int()
    return model.eval(), inputs


def generate(model, inputs, **options):
    options = {"max_new_tokens": 6, "do_sample": False} | options
    return model.generate(**inputs, **options)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f.__name__)
class TestEveryFamily:
    def test_selected_heads_are_those_of_two_separate_passes(self, family):
        model, inputs = built(family)
        known = h.VisionLanguage(model)
        first = known.layers([0])[0]  # nothing before it is reinforced
        ids, mask = known.without_image(inputs["input_ids"])
        with find_sites(model).record("heads", layers=first) as seen:
            generate(model, inputs, max_new_tokens=1)
            whole = seen[first][:, -1]
            known.decoder(input_ids=ids, attention_mask=mask)
            alone = seen[first][:, -1]
        with h.reinforce(model, layers=[0]) as state:
            generate(model, inputs, max_new_tokens=1)
        assert state.chosen[first].equal(h.Rule().select(whole, alone))
        assert 0 < state.chosen[first].sum() <= 2

    def test_scaling_heads_equals_scaling_columns_of_the_projection(self, family):
        model, inputs = built(family)
        with h.reinforce(model, alpha=3.0, layers=[1, 2, 3]) as state:
            ours = generate(model, inputs)
        for name, chosen in state.chosen.items():
            weight = find_sites(model)[name].output_weight
            with torch.no_grad():
                weight.mul_(torch.where(chosen[0], 3.0, 1.0).repeat_interleave(12))
        assert generate(model, inputs).equal(ours)

    def test_alpha_one_and_no_layers_change_nothing_and_leave_no_trace(self, family):
        model, inputs = built(family)
        before = generate(model, inputs)
        hooks = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())
        with h.reinforce(model, alpha=1.0):
            assert generate(model, inputs).equal(before)
        with h.reinforce(model, layers=[]):
            assert generate(model, inputs).equal(before)
        with pytest.raises(ZeroDivisionError), h.reinforce(model):
            raise ZeroDivisionError
        assert generate(model, inputs).equal(before)
        after = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())
        assert after == hooks

    def test_sites_are_the_decoders_and_leave_no_trace(self, family):
        model, inputs = built(family)
        sites = find_sites(model)
        assert len(sites) == 4 and not any("vision" in name or "visual" in name for name in sites)

        def hooks():
            return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())

        with torch.no_grad():
            before, count = model(**inputs).logits, hooks()
            tokens = inputs["input_ids"].shape[1]
            with sites.record("heads") as heads, sites.record("pattern") as weights:
                during = model(**inputs).logits
            for name in sites:
                assert heads[name].shape == (1, tokens, 4, 12)
                torch.testing.assert_close(weights[name].sum(-1), torch.ones(1, 4, tokens))
            torch.testing.assert_close(during, before, rtol=1e-4, atol=1e-4)
            with pytest.raises(ZeroDivisionError), sites.record("pattern"):
                raise ZeroDivisionError
            first = next(iter(sites))
            with sites.edit("heads", {first: torch.zeros_like}):
                assert not model(**inputs).logits.equal(before)
            assert model(**inputs).logits.equal(before) and hooks() == count

    def test_cached_equals_uncached(self, family):
        model, inputs = built(family)
        with h.reinforce(model, alpha=2.0, layers=[1, 3]):
            cached = generate(model, inputs)
        with h.reinforce(model, alpha=2.0, layers=[1, 3]):
            assert generate(model, inputs, use_cache=False).equal(cached)

    def test_divergence_of_generated_tokens(self, family):
        model, inputs = built(family)
        generated = torch.tensor([[3, 4, 2]])
        found = h.token_divergence(model, inputs, generated)
        assert found.shape == (1, 3, 4, 4) and (found > 0).all()
        shorter = h.token_divergence(model, inputs, generated[:, :1])
        torch.testing.assert_close(found[:, :1], shorter, rtol=1e-4, atol=1e-5)


def test_each_sample_of_a_batch_has_its_own_heads():
    model, inputs = built(llava)
    other = {"pixel_values": torch.randn(1, 3, 8, 8), "input_ids": inputs["input_ids"].clone()}
    other["input_ids"][0, -1] = 11
    both = {k: torch.cat([inputs[k], other[k]]) for k in ("pixel_values", "input_ids")}
    both["attention_mask"] = torch.ones_like(both["input_ids"])
    alone = []
    for one in (inputs, other):
        with h.reinforce(model, layers=[2]) as state:
            generate(model, one, max_new_tokens=1)
        alone.append(*state.chosen.values())
    with h.reinforce(model, layers=[2]) as state:
        generate(model, both, max_new_tokens=1)
    assert next(iter(state.chosen.values())).equal(torch.cat(alone))


def test_left_padding_and_beams():
    model, inputs = built(llava)
    padded = dict(inputs)
    padded["input_ids"] = torch.cat([torch.zeros(1, 2, dtype=torch.long), inputs["input_ids"]], 1)
    padded["attention_mask"] = (padded["input_ids"] != 0).long()
    with h.reinforce(model, layers=[1]) as plain:
        right = generate(model, inputs, num_beams=2)
    with h.reinforce(model, layers=[1]) as state:
        ours = generate(model, padded, num_beams=2)
    assert next(iter(state.chosen.values()))[0].equal(next(iter(plain.chosen.values()))[0])
    new = slice(-6, None)
    assert ours[:, new].equal(right[:, new])


@pytest.mark.parametrize(
    "options",
    [
        dict(reinforce_text_stream=True),
        dict(calibrate_first=True),
        dict(rule=h.Rule(outliers=False, squared=True, raw_median=True)),
    ],
)
def test_variants_of_ports_run_and_choose_half_of_the_heads(options):
    model, inputs = built(llava)
    with h.reinforce(model, layers=[1, 2, 3], **options) as state:
        generate(model, inputs)
    assert len(state.chosen) == 3
    assert all(1 <= int(chosen.sum()) <= 2 for chosen in state.chosen.values())


def test_a_surging_head_is_no_vision_head():
    alone = torch.zeros(1, 4, 1)
    alone[0, 0] = 100.0  # surges when the picture is taken away
    whole = torch.tensor([[[0.0], [3.0], [2.0], [1.0]]])
    assert h.Rule(outliers=False).select(whole, alone).tolist() == [[True, True, False, False]]
    assert h.Rule().select(whole, alone).tolist() == [[False, True, True, False]]


def test_louder_heads_turn_the_output_towards_them():
    """cos(x + (alpha - 1) y, y) > cos(x, y) unless they are parallel."""
    x, y = torch.randn(2, 50, 8, generator=torch.Generator().manual_seed(0))
    cosine = torch.nn.functional.cosine_similarity
    assert (cosine(x + y, y) > cosine(x, y)).all()


def test_refusals():
    model, inputs = built(llava)
    for alpha in (0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="alpha must be a positive"):
            h.reinforce(model, alpha).__enter__()
    with pytest.raises(ValueError, match="layer 9 is not among the layers 0 to 3"):
        h.reinforce(model, layers=[9]).__enter__()
    with pytest.raises(TypeError, match="layers must be whole numbers, got 1.5"):
        h.reinforce(model, layers=[1.5]).__enter__()  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"has 4 heads, those given are \(1, 9\)"):
        h.reinforce(model, heads={1: torch.ones(1, 9, dtype=torch.bool)}).__enter__()
    with pytest.raises(ValueError, match="top must be 1 to 4, the heads of a layer; got 5"):
        h.top_divergence(torch.rand(2, 4), top=5)
    with pytest.raises(TypeError, match="objects of picture 1 must be a set of words: 'cat'"):
        h.chair(["a dog", "a cat"], [{"dog"}, "cat"])
    with pytest.raises(ValueError, match="already"), h.reinforce(model), h.reinforce(model):
        pass
    no_image = {"input_ids": torch.tensor([[5, 6, 7]])}
    with pytest.raises(ValueError, match="no image token"), h.reinforce(model):
        model.generate(**no_image, max_new_tokens=1)
    right = dict(inputs, attention_mask=inputs["attention_mask"].clone())
    right["attention_mask"][:, -1] = 0
    with pytest.raises(ValueError, match="padding must be on the left"), h.reinforce(model):
        generate(model, right)
    with pytest.raises(ValueError, match="image_token_id"):
        h.VisionLanguage(torch.nn.Linear(2, 2))
    next(iter(find_sites(model).values())).layer.head_dim = 13
    with pytest.raises(ValueError, match="48 features are not 3 heads of 13"):
        h.VisionLanguage(model)


def test_objects_in_captions():
    assert len(set(h.scores.coco_words().values())) == 80
    caption = (
        "Two men on bikes pass a stop sign; buses, teddy bears and hot dogs by a coffee table."
    )
    assert h.mentioned(caption) == [
        "person", "bicycle", "stop sign", "bus", "teddy bear", "hot dog", "dining table",
    ]  # fmt: skip
    found = h.chair(["a dog and a dog and a cat", "nothing"], [{"cat"}, set()])
    assert (found.per_caption, found.per_mention, found.mentions) == (0.5, 2 / 3, 3)
    assert found.hallucinated == [["dog", "dog"], []]
    with pytest.raises(ValueError, match="1 captions for 2 pictures"):
        h.chair(["a"], [set(), set()])


def test_answers_about_objects():
    found = h.pope(["Yes.", "no, not at all", "There is not.", "maybe"], [True, True, False, False])
    assert (found.accuracy, found.precision, found.recall, found.unclear) == (0.75, 1.0, 0.5, 1)
    with pytest.raises(ValueError, match="0 answers for 0 questions"):
        h.pope([], [])
