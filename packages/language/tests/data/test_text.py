import numpy as np
import pytest
import torch

from attn_language.data import Shakespeare, TextFiles, Topics, WikiText2, Windows
from attn_language.data.labeled import LabeledTable, TopicParagraphs, collate_labeled, tidy


@pytest.mark.parametrize("ends", [[23], [5, 6, 23], [1, 23], [0, 23]])
@pytest.mark.parametrize("context", [1, 4, 22, 50])
def test_every_token_but_a_texts_first_is_predicted_once(ends, context):
    windows = Windows(np.arange(23), ends, context)
    predicted = torch.cat([window[1:] for window in windows]).tolist()
    firsts = {0, *ends[:-1]}
    assert predicted == [i for i in range(23) if i not in firsts]
    assert max(len(window) for window in windows) <= context + 1


def test_topics_are_there_without_files_and_their_parts_are_apart():
    data = Topics(context=32, batch_size=4)
    data.setup("fit")
    data.setup("test")
    texts = {part: data.texts(part) for part in ("train", "val", "test")}
    assert len({t for part in texts.values() for t in part}) == sum(map(len, texts.values())) >= 70
    batch = next(iter(data.train_dataloader()))
    assert batch.ids.shape == (4, 33) and batch.ids.max() < data.tokenizer.vocab
    assert data.bytes_per_token("val") >= 1


def test_a_file_is_read_in_pieces_and_mapped(tmp_path):
    lines = [f"line {i} of the text\n" for i in range(1000)]
    (tmp_path / "a.txt").write_text("".join(lines))
    data = TextFiles(str(tmp_path / "a.txt"), cache=str(tmp_path / "cache"), context=16)
    data.setup("fit")
    data.setup("test")
    parts = [data.part(part) for part in ("train", "val", "test")]
    assert isinstance(parts[0].ids, np.memmap)
    whole = b"".join(bytes(part.ids.astype(np.uint8)) for part in parts)
    assert whole.decode() == "".join(lines)
    again = TextFiles(str(tmp_path / "a.txt"), cache=str(tmp_path / "cache"), context=16)
    again._write = None  # what is cached is not made again
    again.setup("fit")
    assert np.array_equal(again.part("train").ids, parts[0].ids)


@pytest.mark.parametrize(
    "text", ["日本 🙂é" * 300, "\ufeff" + "a long line, " * 99 + "\n", "é\n" * 200]
)
def test_parts_are_cut_between_characters_where_there_is_no_line_end(tmp_path, monkeypatch, text):
    monkeypatch.setattr("attn_language.data.text.PIECE", 101)
    (tmp_path / "a.txt").write_text(text)
    data = TextFiles(str(tmp_path / "a.txt"), cache=str(tmp_path / "c"), tokenizer="characters")
    pieces = {part: list(data.texts(part)) for part in ("train", "val", "test")}
    assert "".join(piece for part in pieces.values() for piece in part) == text.removeprefix(
        "\ufeff"
    )
    assert max(len(piece.encode()) for piece in pieces["train"]) <= 101 * 2
    assert {part: round(len("".join(x)) / len(text), 1) for part, x in pieces.items()} == {
        "train": 0.8, "val": 0.1, "test": 0.1,
    }  # fmt: skip


def test_documents_of_a_folder_are_kept_apart(tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.txt").write_text(f"{name * 9}\n" * 40)
    data = TextFiles(str(tmp_path), cache=str(tmp_path / "c"), context=8, documents=True)
    data.setup("fit")
    seen = {frozenset(row.tolist()) for b in data.train_dataloader() for row in b.ids[:, :-1]}
    assert not any({ord("a"), ord("b")} <= row for row in seen)


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "is empty"),
        (b"\xff\xfe\x00abc" * 99, "no UTF-8 text"),
        (b"ab\n", "2 tokens, a window of context 128 and the token after it 129: lower"),
    ],
)
def test_files_that_are_no_text(tmp_path, content, message):
    (tmp_path / "x.txt").write_bytes(content)
    data = TextFiles(str(tmp_path / "x.txt"), cache=str(tmp_path / "c"))
    with pytest.raises(ValueError, match=message):
        data.setup("fit")


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        TextFiles(str(tmp_path / "none")).setup("fit")
    with pytest.raises(ValueError, match=r"holds no \.txt file"):
        TextFiles(str(tmp_path)).setup("fit")
    with pytest.raises(FileNotFoundError, match=r"input\.txt"):
        Shakespeare(str(tmp_path / "input.txt")).setup("fit")
    with pytest.raises(FileNotFoundError, match=r"wiki\.valid\.txt"):
        WikiText2(str(tmp_path)).setup("fit")


def test_paragraphs_are_classified_by_their_topic():
    data = TopicParagraphs(topics=3)
    data.setup("fit")
    assert len(data.classes) == 3 and all(data.rows.values())
    batch = next(iter(data.train_dataloader()))
    assert batch.ids.shape[0] == 32 and batch.lengths.max() == batch.ids.shape[1]


def test_a_table_of_ones_own(tmp_path):
    rows = "".join(f'"{w} number {i}, fine",{w}\n' for i in range(60) for w in ("good", "bad"))
    (tmp_path / "t.csv").write_text("text,label\n" + rows)
    data = LabeledTable(str(tmp_path / "t.csv"))
    data.setup("fit")
    assert data.classes == ["bad", "good"]
    with pytest.raises(ValueError, match="no column 'sentiment'; it has text, label"):
        LabeledTable(str(tmp_path / "t.csv"), label="sentiment").setup("fit")
    with pytest.raises(FileNotFoundError, match="no such file"):
        LabeledTable(str(tmp_path / "none.csv")).setup("fit")
    (tmp_path / "cut.csv").write_text(f"text,label\n{rows}late\n")
    with pytest.raises(ValueError, match="row 121 has no label"):
        LabeledTable(str(tmp_path / "cut.csv")).setup("fit")
    (tmp_path / "one.csv").write_text("text,label\nabc,x\n")
    with pytest.raises(ValueError, match="2 are the least"):
        LabeledTable(str(tmp_path / "one.csv")).setup("fit")


def test_a_text_without_words_is_a_row_of_length_zero():
    batch = collate_labeled([([], 1), ([5, 6], 0)])
    assert batch.lengths.tolist() == [0, 2] and batch.ids.tolist() == [[0, 0], [5, 6]]
    assert tidy("A  b,c") == "A b , c"
