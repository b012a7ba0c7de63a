"""A recipe holds everything that can change a feature, and nothing else."""

import importlib.util
import sys
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from doubles import RECIPE, Images, TwoCrops
from torch import nn

from vidclf.data.transforms import BackboneTransform
from vidclf.features.recipe import Recipe, hash_weights, recipe_of, why_not_storable
from vidclf.models.backbones.wrap import wrap

FORMAT = Images.picture_format


def recipe(backbone: nn.Module, transform: Any = None, **changed: Any) -> Recipe:
    transform = transform or BackboneTransform(FORMAT)
    arguments = {
        "nodes": {"backbone": {"_target_": "doubles.Images"}, "transform": {"_target_": "x.T", "crops": 1}},
        "picture_format": FORMAT,
        "weights": hash_weights(backbone),
        "number_format": "float32",
        "device": "cpu",
        "batch": 32,
    }
    return recipe_of(backbone, transform, **(arguments | changed))


def with_node(backbone: nn.Module, **node: Any) -> Recipe:
    return recipe(backbone, nodes={"backbone": node, "transform": {}})


def test_whatever_changes_in_a_recipe_changes_its_digest():
    changed = {
        field.name: replace(RECIPE, **{field.name: 7 if field.name in ("batch", "format") else "other"}).digest
        for field in fields(RECIPE)
    }
    assert len({RECIPE.digest, *changed.values()}) == len(changed) + 1


def test_the_same_backbone_made_twice_has_one_recipe():
    assert recipe(Images()) == recipe(Images()) == recipe(wrap(Images()).backbone)


@pytest.mark.parametrize(
    "change",
    [{"number_format": "tf32"}, {"device": "cuda"}, {"batch": 8}, {"picture_format": replace(FORMAT, resize=21)}],
)
def test_how_and_where_a_backbone_computes_is_in_its_recipe(change: dict[str, Any]):
    assert recipe(Images()).digest != recipe(Images(), **change).digest


def test_what_is_stored_is_found_after_the_format_of_images_has_learned_more():
    assert recipe(Images()).transform.endswith("interpolation='bilinear', clip_length=1)")
    assert "antialias" in recipe(Images(), picture_format=replace(FORMAT, antialias=True)).transform


def test_a_models_folder_may_move_and_what_may_be_fetched_may_change(tmp_path: Path):
    recipes = []
    for place, fetch in (("here", True), ("there", False)):
        (tmp_path / place / "dino").mkdir(parents=True)
        node = {"_target_": "vidclf.x.Y", "name": str(tmp_path / place / "dino"), "fetch": fetch}
        recipes.append(with_node(Images(), **node))
    assert recipes[0] == recipes[1] != with_node(Images(), _target_="vidclf.x.Y", name="vit")


def test_what_a_file_says_of_a_network_is_in_the_hash_of_its_weights():
    backbone, other = Images(), Images()
    other.configuration = '{"num_heads": 2}'
    assert hash_weights(backbone) != hash_weights(other)


def test_an_argument_that_is_kept_under_another_name_is_in_the_recipe():
    """Its value changes neither a weight nor an attribute of its name, so only the configuration shows it."""

    class Hidden(Images):
        def __init__(self, depth: int = 1) -> None:
            super().__init__()
            self._n = depth

    one, two = (with_node(Hidden(depth), _target_="doubles.Hidden", depth=depth) for depth in (1, 2))
    assert one.digest != two.digest
    nested = [with_node(Images(), _target_="a.B", inner={"_target_": "a.C", "n": [number]}) for number in (1, 2)]
    assert nested[0].digest != nested[1].digest


def test_what_the_recipe_says_exactly_is_not_taken_from_the_configuration(tmp_path: Path):
    ours = {"_target_": "vidclf.models.backbones.tiny.Tiny"}
    assert with_node(Images(), **ours, precision="auto") == with_node(Images(), **ours, precision="float32")
    files = [tmp_path / folder / "a.pth" for folder in "ab"]
    for file in files:
        file.parent.mkdir()
        file.touch()
    moved = [with_node(Images(), **ours, weights=str(file)) for file in files]
    assert moved[0] == moved[1] != with_node(Images(), **ours, weights="IMAGENET1K_V1")


def test_other_weights_and_statistics_have_another_hash():
    backbones = [Images(), Images(seed=1), Images()]
    backbones[2].rest[0].running_mean += 1e-3  # BatchNorm's: a buffer
    assert len({hash_weights(backbone) for backbone in backbones}) == 3
    assert hash_weights(Images()) == hash_weights(Images())


def test_a_buffer_that_is_not_saved_counts_as_a_weight():
    one, other = Images(), Images()
    one.register_buffer("shift", torch.zeros(2), persistent=False)
    other.register_buffer("shift", torch.ones(2), persistent=False)
    assert hash_weights(one) != hash_weights(other)


USER_CODE = """
from torch import nn
from vidclf.contracts import PictureFormat

class Layer(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.scale = scale

    def forward(self, images):
        return self.scale * images

class Mine(nn.Module):
    picture_format = PictureFormat(16, 16, (0.5,) * 3, (0.5,) * 3)
    feature_dim = 3

    def __init__(self, scale=1.0):
        super().__init__()
        self.layer = Layer(scale)
        self.calls = 0

    def forward(self, images):
        self.calls += 1
        return self.layer(images).mean((3, 4))
"""


def import_user_file(path: Path, source: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Import the user's file as Hydra would, anew."""
    path.write_text(source)
    spec = importlib.util.spec_from_file_location("my_backbone", path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "my_backbone", module)
    spec.loader.exec_module(module)
    return module


def test_a_change_in_the_users_own_source_has_another_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    before = recipe(import_user_file(tmp_path / "a.py", USER_CODE, monkeypatch).Mine())
    same = recipe(import_user_file(tmp_path / "b.py", USER_CODE, monkeypatch).Mine())
    changed = USER_CODE.replace("self.scale * images", "self.scale + images")  # in another class of the file
    assert before == same
    assert before.digest != recipe(import_user_file(tmp_path / "c.py", changed, monkeypatch).Mine()).digest


def test_use_does_not_change_a_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    backbone = import_user_file(tmp_path / "a.py", USER_CODE, monkeypatch).Mine()
    before = recipe(backbone)
    backbone(torch.zeros(1, 1, 3, 2, 2))
    assert recipe(backbone) == before


@dataclass(frozen=True)
class RandomTransform(TwoCrops):
    random: ClassVar[bool] = True


def test_what_cannot_be_stored_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    images = BackboneTransform(FORMAT)
    assert why_not_storable(Images(), images) is None
    trained = Images().requires_grad_()
    assert why_not_storable(trained, images) == "the backbone is trained, so its features change"
    assert why_not_storable(Images(), RandomTransform(FORMAT)).startswith("RandomTransform is random")
    assert why_not_storable(Images(), images, TwoCrops(FORMAT)).startswith("TwoCrops is random")
    mine = import_user_file(tmp_path / "a.py", USER_CODE, monkeypatch).Mine
    (tmp_path / "a.py").unlink()
    assert "source of a class cannot be read" in why_not_storable(mine(), images)


def test_a_function_that_makes_the_backbone_is_its_users_own_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    recipes = []
    for name, number in (("a.py", 1), ("b.py", 2)):
        import_user_file(tmp_path / name, f"def make():\n    return {number}\n", monkeypatch)
        recipes.append(with_node(Images(), _target_="my_backbone.make"))
    assert recipes[0].digest != recipes[1].digest
