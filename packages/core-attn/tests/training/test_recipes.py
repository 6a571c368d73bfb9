import pytest

from core_attn.training.recipes import description, find_recipe, resolve_configs


def test_recipes_are_listed_with_their_first_comment(tiny):
    code, out, err = tiny("recipes")
    assert (code, err) == (0, [])
    assert out == [
        "points-ema   The same with averaged weights and an early stop.",
        "points-tiny  Sets of points, told apart by one attention layer.",
    ]


def test_a_recipe_without_comment_has_no_description(tmp_path):
    file = tmp_path / "x.yaml"
    file.write_text("model: Classifier\n")
    assert description(file) == ""


def test_a_recipe_is_found_by_name_or_path(tmp_path):
    file = tmp_path / "mine.yaml"
    file.touch()
    assert find_recipe("attn_tiny", "points-tiny").name == "points-tiny.yaml"
    assert find_recipe("attn_tiny", str(file)) == file
    with pytest.raises(FileNotFoundError, match="nearest: points-tiny"):
        find_recipe("attn_tiny", "point-tiny")
    with pytest.raises(FileNotFoundError, match="available: points-ema, points-tiny"):
        find_recipe("attn_tiny", "resnet")
    with pytest.raises(FileNotFoundError, match="no such file"):
        find_recipe("attn_tiny", "missing/mine.yaml")


@pytest.mark.parametrize("words", [["--config", "points-tiny"], ["-c=points-tiny"]])
def test_names_become_files_wherever_they_stand(words):
    resolved, name = resolve_configs(
        "attn_tiny", ["fit", "--compile", *words, "--x", "points-tiny"]
    )
    assert name == "points-tiny"
    assert "recipes/points-tiny.yaml" in " ".join(resolved)
    assert resolved[0] == "fit" and resolved[-1] == "points-tiny"
    assert resolved.index("--compile") > 1  # flags change what the recipe says
