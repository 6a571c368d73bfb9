import gzip
import io
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets

from attn_vision.data import CIFAR10, Augmentation, Digits, FashionMNIST, ImageArrays, ImageFolder
from attn_vision.data.augmentation import _randomly, evaluation_transform, training_transform
from attn_vision.data.reading import read_image


def opened(data):
    data.prepare_data()
    data.setup()
    return data


def test_digits_are_split_without_overlap_and_the_test_part_never_changes():
    one, other = opened(Digits(seed=0)), opened(Digits(seed=1))
    assert (len(one.train_set), len(one.validation_set), len(one.test_set)) == (1293, 144, 360)
    first = one.test_set[0][0]
    torch.testing.assert_close(first, other.test_set[0][0])
    rows = [set(part.indices) for part in (one.train_set, one.validation_set)]
    assert not rows[0] & rows[1] and rows[0] != set(other.train_set.indices)


def test_batches_of_an_epoch_are_the_same_for_the_same_seed():
    a, b = (opened(Digits(augmentation=Augmentation())).train_dataloader() for _ in range(2))
    for (images, labels), (again, labels_again) in zip(a, b, strict=True):
        assert images.equal(again) and labels.equal(labels_again)
        assert images.shape == (64, 1, 8, 8)


def test_normalised_images_return_to_pixels():
    data = opened(Digits())
    images, _ = next(iter(data.test_dataloader()))
    assert abs(float(images.mean())) < 0.1 and abs(float(images.std()) - 1) < 0.1
    pixels = data.to_pixels(images) * 255
    torch.testing.assert_close(pixels, pixels.round(), rtol=0, atol=1e-3)


@pytest.mark.parametrize("crop", ["none", "pad", "resized"])
@pytest.mark.parametrize("mode,channels", [("L", 1), ("RGB", 3)])
@pytest.mark.parametrize("rand_augment", ["", "rand-m9-mstd0.5-inc1"])
def test_training_transforms_give_the_asked_size(crop, mode, channels, rand_augment):
    change = Augmentation(crop, 0.5, rand_augment, color_jitter=0.3, erasing=1.0)
    transform = training_transform(change, 24, [0.5] * channels, [0.25] * channels)
    pixels = np.random.default_rng(0).integers(0, 255, (40, 30, 3), np.uint8)
    image = transform(Image.fromarray(pixels).convert(mode))
    assert image.shape == (channels, 24, 24) and image.isfinite().all()


def test_no_augmentation_is_the_identity():
    pixels = np.random.default_rng(0).integers(0, 255, (8, 8), np.uint8)
    for make in (lambda: training_transform(Augmentation(), 8, [0.0], [1.0]),
                 lambda: evaluation_transform(8, [0.0], [1.0])):  # fmt: skip
        image = make()(Image.fromarray(pixels))
        torch.testing.assert_close(image[0] * 255, torch.from_numpy(pixels).float())


@pytest.mark.parametrize("sides", [(300, 200), (100, 64), (20, 10)])
def test_evaluation_cuts_the_centre(sides):
    image = Image.new("RGB", sides, "black")
    image.paste(
        "white", (sides[0] // 2 - 2, sides[1] // 2 - 2, sides[0] // 2 + 2, sides[1] // 2 + 2)
    )
    seen = evaluation_transform(32, [0.0] * 3, [1.0] * 3)(image)
    assert seen.shape == (3, 32, 32)
    bright = seen[0].nonzero().float().mean(0)
    torch.testing.assert_close(bright, torch.full((2,), 15.5), rtol=0, atol=1.5)


def write_idx(path, array):
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    path.write_bytes(gzip.compress(header + array.tobytes()))


def test_fashion_mnist_in_its_original_files(tmp_path):
    rng = np.random.default_rng(0)
    for part, count in (("train", 20), ("t10k", 6)):
        write_idx(
            tmp_path / f"{part}-images-idx3-ubyte.gz",
            rng.integers(0, 255, (count, 28, 28), np.uint8),
        )
        write_idx(tmp_path / f"{part}-labels-idx1-ubyte.gz", rng.integers(0, 10, count, np.uint8))
    data = opened(FashionMNIST(str(tmp_path), image_size=28, validation=0.2, num_workers=0))
    assert (len(data.train_set), len(data.validation_set), len(data.test_set)) == (16, 4, 6)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(b"not an idx file"))
    with pytest.raises(ValueError, match="is not a whole IDX file"):
        data.setup()


def test_cifar10_in_torchvisions_files(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.CIFAR10, "_check_integrity", lambda self: True)
    monkeypatch.setattr(datasets.CIFAR10, "_load_meta", lambda self: None)
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name in [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]:
        content = {"data": np.zeros((4, 3072), np.uint8), "labels": [0, 1, 2, 3]}
        (folder / name).write_bytes(pickle.dumps(content))
    data = opened(CIFAR10(str(tmp_path), num_workers=0))
    assert data.train_set[0][0].shape == (3, 32, 32) and len(data.test_set) == 4


def folder_of_images(root, parts=("train", "test"), classes=("cat", "dog")):
    for part in parts:
        for name in classes:
            (root / part / name).mkdir(parents=True)
            for i in range(3):
                Image.new("RGB", (20, 16), (i, 2, 3)).save(root / part / name / f"{i}.png")
    return str(root)


@pytest.mark.parametrize("parts,sizes", [
    (("train", "test"), (3, 3, 6)), (("train", "val", "test"), (6, 6, 6)),
])  # fmt: skip
def test_a_folder_of_images(tmp_path, parts, sizes):
    root = folder_of_images(tmp_path, parts)
    plain = Augmentation()
    data = opened(ImageFolder(root, 8, validation=0.5, augmentation=plain, num_workers=0))
    assert (len(data.train_set), len(data.validation_set), len(data.test_set)) == sizes
    assert data.class_names == ("cat", "dog")


def test_repeated_augmentation_shows_a_part_of_the_images_several_times():
    data = opened(Digits(augmentation=Augmentation("pad", repeats=3)))
    batches = data.train_dataloader()
    assert len(batches) == len(data.train_set) // 64
    order = list(batches.sampler)[: len(data.train_set)]
    assert len(order) == len(data.train_set) and order[0] == order[1] == order[2] != order[3]
    batches.sampler.set_epoch(1)
    assert list(batches.sampler) != order


def test_a_partial_augmentation_is_all_that_is_done():
    data = ImageFolder("photos", augmentation=Augmentation(flip=0.5))
    assert data.augmentation == Augmentation(flip=0.5)
    assert ImageFolder("photos").augmentation == Augmentation.deit()


def test_posterizing_leaves_a_bit():
    policy = _randomly("rand-m10-n1-inc1", {})
    op = next(op for op in policy.ops if op.name == "PosterizeIncreasing")
    op.prob = 1.0
    values = set(op(Image.linear_gradient("L").convert("RGB")).get_flattened_data())
    assert len(values) == 2


def test_pictures_are_upright_and_of_8_bits(tmp_path):
    def read(image, name, channels=1, **options):
        image.save(tmp_path / name, **options)
        return read_image(tmp_path / name, channels)

    ramp = np.linspace(0, 65535, 12).astype(np.uint16).reshape(3, 4)
    deep = read(Image.fromarray(ramp), "deep.png")
    assert deep.mode == "L" and deep.getpixel((3, 2)) == 255 and deep.getpixel((0, 0)) == 0
    floats = read(Image.fromarray((ramp / 65535).astype(np.float32)), "float.tif")
    assert np.abs(np.asarray(floats, int) - np.asarray(deep, int)).max() <= 1
    clear = Image.new("RGBA", (2, 2), (255, 0, 0, 0))
    assert read(clear, "clear.png", 3).getpixel((0, 0)) == (255, 255, 255)
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    assert read(Image.new("RGB", (8, 4)), "side.jpg", 3, exif=exif).size == (4, 8)
    with pytest.raises(ValueError, match="not finite"):
        read(Image.fromarray(np.full((2, 2), np.nan, np.float32)), "nan.tif")


def test_unreadable_pictures_are_named_skipped_and_counted(tmp_path, capsys):
    root = Path(folder_of_images(tmp_path))
    cat = root / "train" / "cat"
    noise = np.random.default_rng(0).integers(0, 255, (40, 40, 3), np.uint8)
    Image.fromarray(noise).save(cat / "whole.jpg")
    (cat / "zero.jpg").touch()
    (cat / "cut.jpg").write_bytes((cat / "whole.jpg").read_bytes()[:300])
    (cat / "._1.jpg").write_bytes(b"xx")
    (cat / ".hidden.jpg").write_bytes(b"xx")
    data = opened(ImageFolder(str(root), 8, validation=0.5, num_workers=0))
    assert f"2 of 9 images in {root}/train cannot be read: cut.jpg, zero.jpg" in (
        capsys.readouterr().out
    )
    assert len(data.train_set) + len(data.validation_set) == 7
    (cat / "film.jpg").write_bytes((cat / "whole.jpg").read_bytes() + b"mp4" * 4000)
    preview = io.BytesIO()
    Image.fromarray(noise[:8, :8]).save(preview, "JPEG")
    Image.fromarray(noise).save(cat / "preview.jpg", exif=b"Exif\0\0" + preview.getvalue())
    (cat / "preview.jpg").write_bytes((cat / "preview.jpg").read_bytes()[:1500])
    assert b"\xff\xd9" in (cat / "preview.jpg").read_bytes()
    data = opened(ImageFolder(str(root), 8, validation=0.5, num_workers=0))
    assert "3 of 11 images" in (said := capsys.readouterr().out) and "preview.jpg" in said
    assert len(data.train_set) + len(data.validation_set) == 8
    (root / "train" / "empty").mkdir()
    with pytest.raises(ValueError, match="class folder .*empty holds no picture"):
        opened(ImageFolder(str(root), 8, num_workers=0))
    alone = folder_of_images(tmp_path / "alone", classes=("cat",))
    with pytest.raises(ValueError, match="holds one class, 'cat'"):
        opened(ImageFolder(alone, 8, num_workers=0))


def test_a_test_part_with_fewer_classes_is_fine(tmp_path):
    root = folder_of_images(tmp_path, ("train",))
    folder_of_images(tmp_path, ("test",), ("dog",))
    data = opened(ImageFolder(root, 8, validation=0.5, num_workers=0))
    assert {label for _, label in data.test_set} == {1}


def test_missing_and_wrong_folders_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent does not exist"):
        CIFAR10(str(tmp_path / "absent")).prepare_data()
    (tmp_path / "x").touch()
    with pytest.raises(
        FileNotFoundError, match=r"does not hold CIFAR10; get it with --data.download"
    ):
        opened(CIFAR10(str(tmp_path)))
    with pytest.raises(FileNotFoundError, match="train does not exist"):
        ImageFolder(str(tmp_path)).prepare_data()
    root = folder_of_images(tmp_path / "f", ("train",))
    folder_of_images(tmp_path / "f", ("test",), ("cow",))
    with pytest.raises(ValueError, match=r"classes of test and train under .* differ: \['cow'\]"):
        opened(ImageFolder(root, 8, num_workers=0))


BAD = {
    "validation": (lambda: Digits(validation=1.0), r"validation must be in \(0, 1\), got 1.0"),
    "batch": (lambda: Digits(batch_size=0), "batch_size must be at least 1, got 0"),
    "empty part": (lambda: Digits(validation=1e-5).setup(), "leaves a part empty"),
    "crop": (
        lambda: Augmentation("centre"),
        "crop must be 'none', 'pad' or 'resized', got 'centre'",
    ),
    "flip": (lambda: Augmentation(flip=2), r"flip must be in \[0, 1\], got 2"),
    "repeats": (lambda: Augmentation(repeats=0), "repeats must be at least 1, got 0"),
    "jitter": (lambda: Augmentation(color_jitter=-1), "color_jitter must be at least 0, got -1"),
    "policy": (lambda: Augmentation(rand_augment="random"), "a policy of timm, as .* 'random'"),
    "labels": (lambda: ImageArrays([1], [1, 2], str), "images are 1, labels 2; they must agree"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_settings_are_refused(case):
    call, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        call()
