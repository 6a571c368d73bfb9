import numpy as np
import pytest
import soundfile
import torch

from attn_speech.data import IEMOCAP, LabelTable, LayeredEncoder, SpokenDigits, UtteranceData

RATE = 16000


def write(path, seconds=0.4, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).standard_normal(int(seconds * RATE))
    soundfile.write(path, 0.1 * noise, RATE)


@pytest.fixture
def digits(tmp_path):
    for speaker in ("ann", "bob", "cleo", "dan"):
        for digit in range(3):
            for i in range(2):
                write(tmp_path / "fsdd" / f"{digit}_{speaker}_{i}.wav", seed=digit)
    return tmp_path / "fsdd"


def made(source, tmp_path, **options):
    data = UtteranceData(source, cache=str(tmp_path / "cache"), segments=4, **options)
    data.setup("fit")
    return data


@pytest.mark.parametrize("fold", [0, 1, 2])
def test_no_group_is_in_two_parts(digits, tmp_path, fold):
    data = made(SpokenDigits(str(digits)), tmp_path, folds=3, fold=fold)
    parts = [set(groups) for groups in data.groups.values()]
    assert set.union(*parts) == {"ann", "bob", "cleo", "dan"}
    assert sum(map(len, parts)) == 4
    assert sum(len(part) for part in data.parts.values()) == 24
    assert data.shape == (4, 40) and data.class_names == ["one", "two", "zero"]


def test_groups_for_the_test_can_be_named(digits, tmp_path):
    data = made(SpokenDigits(str(digits)), tmp_path, test_groups=["bob"])
    assert data.groups["test"] == ["bob"]
    with pytest.raises(ValueError, match="no group eve; there are ann, bob"):
        made(SpokenDigits(str(digits)), tmp_path, test_groups=["eve"])


def test_a_part_with_one_class_is_refused(tmp_path):
    rows = ["path,label,group"]
    for i, (label, group) in enumerate([("a", "g"), ("b", "g"), ("a", "h")]):
        write(tmp_path / f"{i}.wav")
        rows.append(f"{i}.wav,{label},{group}")
    table = tmp_path / "t.csv"
    table.write_text("\n".join(rows))
    with pytest.raises(ValueError, match="the valid part, h, has fewer than two classes: a"):
        made(LabelTable(str(table)), tmp_path, test_groups=["h"])


def test_a_label_that_is_not_in_the_map_is_named_with_its_file(tmp_path):
    table = tmp_path / "t.csv"
    table.write_text("path,label,group\nx.wav,joy,g\n")
    with pytest.raises(ValueError, match=r"row 2: label 'joy' of x.wav is not in the map of ang"):
        made(LabelTable(str(table), {"ang": "anger"}), tmp_path)
    table.write_text("path,label\nx.wav,joy\n")
    with pytest.raises(ValueError, match="misses group"):
        made(LabelTable(str(table)), tmp_path)
    table.write_text("path,label,group\nx.wav,ang,g\ny.wav\n")
    with pytest.raises(ValueError, match="t.csv, row 3: not 3 cells"):
        made(LabelTable(str(table)), tmp_path)
    table.write_bytes(b"path,label,group\ncaf\xe9.wav,ang,g\n")
    with pytest.raises(ValueError, match=r"t.csv: is not text in UTF-8"):
        made(LabelTable(str(table)), tmp_path)


def test_bad_utterances_are_listed(digits, tmp_path, capsys):
    soundfile.write(digits / "0_ann_0.wav", np.zeros(RATE), RATE)
    made(SpokenDigits(str(digits)), tmp_path)
    assert "23 utterances" in (said := capsys.readouterr().out)
    assert "refused 1: is silent (0_ann_0.wav)" in said
    for path in digits.iterdir():
        soundfile.write(path, np.zeros(RATE), RATE)
    with pytest.raises(ValueError, match="no utterance is of use: 24: is silent"):
        made(SpokenDigits(str(digits)), tmp_path)


def test_iemocap_layout_merges_excitement_and_happiness(tmp_path):
    root = tmp_path / "iemocap"
    emotions = ["hap", "exc", "ang", "fru"]
    for session in (1, 2, 3):
        lines = ["% comment"]
        for i, emotion in enumerate(emotions):
            name = f"Ses0{session}F_impro01_F00{i}"
            lines.append(f"[0.0 - 1.0]\t{name}\t{emotion}\t[2.5, 2.5, 2.5]")
            folder = root / f"Session{session}" / "sentences" / "wav" / f"Ses0{session}F_impro01"
            write(folder / f"{name}.wav", seed=i)
        table = root / f"Session{session}" / "dialog" / "EmoEvaluation" / "a.txt"
        table.parent.mkdir(parents=True)
        table.write_text("\n".join(lines))
    data = made(IEMOCAP(str(root)), tmp_path, seconds=0.5)
    assert data.class_names == ["anger", "happiness"]
    assert data.groups["test"] == ["Session1"] and len(data.parts["train"]) == 3


def test_long_recordings_are_cut_into_parts_each_with_its_label(tmp_path):
    rows = ["path,label,group"]
    for i, (label, group) in enumerate([("a", "g"), ("b", "g"), ("a", "h"), ("b", "h")]):
        write(tmp_path / f"{i}.wav", seconds=1.0 + 0.25 * i, seed=i)
        rows.append(f"{i}.wav,{label},{group}")
    table = tmp_path / "t.csv"
    table.write_text("\n".join(rows))
    masked, filled = (
        made(LabelTable(str(table)), tmp_path, seconds=0.5, mask_padding=mask, test_groups=["h"])
        for mask in (True, False)
    )
    assert [len(masked.parts[part]) for part in ("train", "test")] == [2 + 3, 3 + 4]
    audio = torch.randn(3 * RATE // 4, generator=torch.Generator().manual_seed(0)).clamp(-3, 3) / 4
    first, rest = masked.parts_of(audio)
    assert masked.stacked(first).equal(filled.stacked(first))
    assert filled.stacked(rest)[-1].max() < -9  # silence is averaged in
    assert masked.stacked(rest).min() > -3
    assert masked.stacked(rest[:9]).isfinite().all()
    short = made(LabelTable(str(table)), tmp_path, seconds=0.5, mask_padding=True)
    assert all(part.tensors[0].isfinite().all() for part in short.parts.values())
    with pytest.raises(ValueError, match="seconds must not be negative"):
        made(LabelTable(str(table)), tmp_path, seconds=-1.0)


def test_a_layered_encoder_gives_a_row_per_layer(digits, tmp_path):
    encoder = LayeredEncoder("wav2vec2_base")
    assert not any(p.requires_grad for p in encoder.parameters())
    for path in sorted(digits.iterdir())[8:]:
        path.unlink()
    data = made(SpokenDigits(str(digits), "speaker"), tmp_path, encoder=encoder, folds=2)
    assert data.shape == (12, 768)
    with pytest.raises(ValueError, match="399 samples is shorter than the encoder's frame of 400"):
        encoder(torch.zeros(399))
    assert len(encoder(torch.zeros(400))) == 12
    for content, message in (
        (b"junk", "junk.pt cannot be read"), (None, "junk.pt: not the weights of wav2vec2_base"),
    ):  # fmt: skip
        torch.save({"a": torch.zeros(1)}, tmp_path / "junk.pt")
        if content is not None:
            (tmp_path / "junk.pt").write_bytes(content)
        with pytest.raises(ValueError, match=message):
            LayeredEncoder("wav2vec2_base", str(tmp_path / "junk.pt"))
    with pytest.raises(ValueError, match="no encoder 'wav2vec2_model'"):
        LayeredEncoder("wav2vec2_model")
    with pytest.raises(ValueError, match="no encoder 'nope'"):
        LayeredEncoder("nope")
