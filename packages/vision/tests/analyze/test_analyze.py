import json

import numpy as np
import polars as pl
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from attn_vision.analyze.command import _query, analyze
from attn_vision.analyze.subject import load_subject, read_pictures
from attn_vision.models import create
from core_attn.analysis import Bench, Layout, find_sites, head_importance, pruned
from core_attn.cli import main


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    noise = np.random.default_rng(0)
    for number in range(3):
        pixels = noise.integers(0, 255, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    (folder / "broken.jpg").write_bytes(b"no image")
    (folder / ".hidden.png").write_bytes(b"xx")
    return folder


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(0)
    model = create("deit_tiny", image_size=64)
    save_file(model.state_dict(), tmp_path / "deit.safetensors")
    return tmp_path / "deit.safetensors"


def test_one_command_writes_page_tables_and_pruned_weights(photos, weights, tmp_path, capsys):
    out = tmp_path / "out"
    analyze(
        "deit_tiny", [str(photos)], out=str(out), checkpoint=str(weights), size=64,
        layers="0,11", prune="0.1,11.2", save=str(tmp_path / "small.safetensors"), maps=True,
    )  # fmt: skip
    said = capsys.readouterr()
    assert "broken.jpg" in said.err and "3 images, 1 skipped" in said.err
    assert "about" in said.err  # the cost is stated beforehand
    assert "3 images are few: mind the intervals" in said.err
    facts = json.loads((out / "report.json").read_text())
    assert facts["pruned"]["largest difference to masked heads"] < 1e-5
    heads = pl.read_csv(out / "heads.csv")
    for table in ("heads", "strength", "importance"):
        assert set(pl.read_csv(out / f"{table}.csv")["layer"]) == {0, 11}
    assert {"prob_drop", "low_prob_drop", "khop_mean_3", "kind", "cluster"} <= set(heads.columns)
    page = (out / "index.html").read_text()
    assert "http://" not in page.replace("http://www.w3.org", "") and "https://" not in page
    assert {"strength.csv", "importance.csv", "patterns.csv", "curve.csv"} <= {
        path.name for path in out.iterdir()
    }
    assert load_file(tmp_path / "small.safetensors")["blocks.0.attn.proj.weight"].shape[1] == 128
    assert len(load_file(out / "attention.safetensors")) == 2
    smaller = load_subject("deit_tiny", str(tmp_path / "small.safetensors"), 64)
    assert [site.num_heads for site in smaller.sites.values()] == [2, *[3] * 10, 2]
    whole = load_subject("deit_tiny", str(weights), 64)
    x = read_pictures([str(photos)], whole).pictures[0].input[None]
    with (
        Bench(whole.model, [(x, None)]).removed([("blocks.0.attn", 1), ("blocks.11.attn", 2)]),
        torch.no_grad(),
    ):
        torch.testing.assert_close(smaller.model(x), whole.model(x), rtol=0, atol=1e-5)


def test_a_cut_model_is_looked_into_again(photos, weights, tmp_path):
    small = str(tmp_path / "small.safetensors")
    whole = load_subject("deit_tiny", str(weights), 64)
    cut = pruned(whole.model, [("blocks.0.attn", 1), ("blocks.0.attn", 2)])
    heads = {name: site.num_heads for name, site in find_sites(cut).items()}
    save_file(cut.state_dict(), small, {"heads": json.dumps(heads)})
    analyze("deit_tiny", [str(photos)], out=str(tmp_path / "out"), checkpoint=small, size=64,
            views="importance,strength", layers="0,1", quiet=True)  # fmt: skip
    assert len(pl.read_csv(tmp_path / "out/heads.csv")) == 1 + 3


def test_images_left_out_and_folders_without_meaning_are_said(photos, weights, tmp_path, capsys):
    (photos / "cat").mkdir()
    Image.new("RGB", (9, 9)).save(photos / "cat" / "a.png")
    analyze("deit_tiny", [str(photos)], out=str(tmp_path / "out"), checkpoint=str(weights), size=64,
            views="strength", layers="0", max_images=3, quiet=True)  # fmt: skip
    said = capsys.readouterr().err
    assert "3 of 5 images, evenly chosen; --max-images takes more" in said
    assert "the folders cat are no labels: the classes of deit_tiny are not known by name" in said
    assert len(json.loads((tmp_path / "out/report.json").read_text())["notes"]) == 2
    assert "3 of 5 images" in (tmp_path / "out/index.html").read_text()


@pytest.mark.parametrize(
    "name, changes",
    [
        ("vit_tiny_patch16_224", dict(img_size=(32, 64))),
        ("deit_tiny_distilled_patch16_224", dict(img_size=32)),
        ("vit_small_patch14_reg4_dinov2", dict(img_size=28, depth=2, num_classes=4)),
    ],
)
def test_any_vit_of_timm_is_taken_as_it_is(name, changes):
    model = timm.create_model(name, **changes).eval()
    side = changes["img_size"]
    sides = (side, side) if isinstance(side, int) else side
    bench = Bench(model, [(torch.randn(1, 3, *sides), None)])
    last = list(bench.sites)[-1]
    found = head_importance(bench, layers=[last])
    assert found.values["output_change"].shape == (1, 1, bench.num_heads[last])
    smaller = pruned(model, [(last, 0)])
    with bench.removed([(last, 0)]):
        masked = bench.outcome(bench.batches[0][0]).output
    with torch.no_grad():
        torch.testing.assert_close(smaller(bench.batches[0][0]), masked, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "name, changes",
    [
        ("vit_tiny_patch16_224", dict(img_size=(32, 48))),
        ("deit_tiny_distilled_patch16_224", dict(img_size=32)),
        ("vit_small_patch14_reg4_dinov2", dict(img_size=28)),
    ],
)
def test_outputs_and_hooks_are_as_before_afterwards(name, changes):
    model = timm.create_model(name, depth=2, **changes).eval()
    x = torch.randn(1, 3, *model.patch_embed.img_size)

    def hooks():
        return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())

    with torch.no_grad():
        before, count = model(x), hooks()
        head_importance(Bench(model, [(x, None)]))
        with pytest.raises(ZeroDivisionError), find_sites(model).record("pattern"):
            model(x)
            raise ZeroDivisionError
        assert model(x).equal(before) and hooks() == count
    assert all(site.layer.fused_attn for site in find_sites(model).values())


def test_an_interrupted_run_leaves_no_half_written_report(photos, weights, tmp_path, monkeypatch):
    def stop(*_args, **_named):
        raise KeyboardInterrupt

    monkeypatch.setattr("attn_vision.analyze.pages.write_page", stop)
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        analyze("deit_tiny", [str(photos)], out=str(out), checkpoint=str(weights), size=64,
                views="strength", layers="0", quiet=True)  # fmt: skip
    assert not out.exists() and not list(tmp_path.glob(".out*"))


def test_restarting_changes_no_number():
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=3, num_classes=5).eval()
    bench = Bench(model, [(torch.randn(2, 3, 32, 32), None)])
    ours = head_importance(bench).values["js"]
    whole = bench.outcome(bench.batches[0][0]).output.softmax(-1)
    for layer, name in enumerate(bench.sites):
        with bench.removed([(name, 1)]):
            less = bench.outcome(bench.batches[0][0]).output.softmax(-1)
        middle = (whole + less) / 2
        right = sum((p * (p / middle).log()).sum(-1) for p in (whole, less)) / 2
        torch.testing.assert_close(ours[:, layer, 1], right, rtol=1e-3, atol=1e-6)


def test_subfolders_are_labels(photos, weights, tmp_path):
    subject = load_subject("deit_tiny", str(weights), 64)
    object.__setattr__(subject, "class_names", ("cat", "dog"))
    for name in ("cat", "dog"):
        (tmp_path / "sorted" / name).mkdir(parents=True)
        Image.new("RGB", (9, 9)).save(tmp_path / "sorted" / name / "a.png")
    found = read_pictures([str(tmp_path / "sorted")], subject)
    assert [picture.label for picture in found.pictures] == [0, 1] and not found.notes
    (tmp_path / "sorted" / "cow").mkdir()
    Image.new("RGB", (9, 9)).save(tmp_path / "sorted" / "cow" / "a.png")
    with pytest.raises(ValueError, match="'cow' is no class of deit_tiny: cat, dog"):
        read_pictures([str(tmp_path / "sorted")], subject)


@pytest.mark.parametrize(
    "words, said",
    [
        (["nonsense", "a.png"], "no model 'nonsense'"),
        (["deit_tiny", "a.png"], "deit_tiny needs weights"),
        (["deit_tiny", "a.png", "--checkpoint", "none.pth"], "none.pth: no such file"),
        (
            ["deit_tiny", "a.png", "--checkpoint", "WEIGHTS"],
            "does not fit deit_tiny: pos_embed of (1, 17, 192) for (1, 197, 192)",
        ),
    ],
)
def test_refusals_in_one_line(words, said, weights, capsys):
    words = [str(weights) if word == "WEIGHTS" else word for word in words]
    assert main("attn_vision", ["analyze", *words], commands={"analyze": analyze}) == 2
    error = capsys.readouterr().err.strip()
    assert said in error and "\n" not in error


def test_a_query_is_x_and_y():
    assert _query("3,1", Layout((2, 5), 1)) == 8
    assert _query(None, Layout((2, 5), 1)) == 7


def test_more_refusals(photos, weights):
    given = dict(checkpoint=str(weights), size=64, views="strength")
    with pytest.raises(ValueError, match="layer 12 is not among the layers 0 to 11"):
        analyze("deit_tiny", [str(photos)], prune="12.0", **given)
    with pytest.raises(ValueError, match="blocks.0.attn has heads 0 to 2, not 3"):
        analyze("deit_tiny", [str(photos)], prune="0.3", **given)
    with pytest.raises(ValueError, match="blocks.1.attn would lose all its 3 heads"):
        analyze("deit_tiny", [str(photos)], prune="1.0,1.1,1.2", **given)
    with pytest.raises(ValueError, match="max_images must be at least 1, got 0"):
        analyze("deit_tiny", [str(photos)], max_images=0, **given)
    with pytest.raises(ValueError, match="query 4,0 is outside of the grid of 4x4"):
        analyze("deit_tiny", [str(photos)], query="4,0", **given)
    with pytest.raises(ValueError, match="--query takes x,y of a patch, as 5,3; got '7'"):
        analyze("deit_tiny", [str(photos)], query="7", **given)
    with pytest.raises(ValueError, match="layer.head, as 3.2"):
        analyze("deit_tiny", [str(photos)], prune="x", **given)
    with pytest.raises(ValueError, match="no image can be read"):
        analyze("deit_tiny", [str(photos / "broken.jpg")], **given)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        analyze("deit_tiny", ["nowhere"], **given)
    with pytest.raises(ValueError, match="no view 'depth'"):
        analyze("deit_tiny", [str(photos)], **given | dict(views="depth"))
    with pytest.raises(ValueError, match="windows have no single grid|fit"):
        from core_attn.analysis import Layout, attention_strength

        swin = timm.create_model("swin_tiny_patch4_window7_224", img_size=56, window_size=7).eval()
        attention_strength(swin, [torch.randn(1, 3, 56, 56)], Layout((14, 14), 0), find_sites(swin))
