"""Trained files of torchvision and timm, as they are on a machine, in networks for other data."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
import torchvision

from rayprune.models import build_model


@pytest.mark.parametrize("name", ["squeezenet1_1", "googlenet", "inception_v3"])
@pytest.mark.parametrize("num_classes", [1000, 3])
def test_an_entry_of_torchvision(name: str, num_classes: int, hub: Path) -> None:
    """Auxiliary heads that some files have are left out."""
    options = {"aux_logits": True, "init_weights": False} if name != "squeezenet1_1" else {}
    ready = torchvision.models.get_model(name, **options).state_dict()
    entry = torchvision.models.get_model_weights(name).DEFAULT
    torch.save(ready, hub / Path(entry.url).name)
    how = {"num_classes": num_classes, "new_head": num_classes == 3}
    for weights in ("DEFAULT", str(hub / Path(entry.url).name)):
        model = build_model(name, weights=weights, **how).eval()
        own = model.state_dict()
        taken = [key for key in own if torch.equal(own[key], ready[key])]
        assert len(own) - len(taken) == (0 if num_classes == 1000 else 2)
        assert getattr(model, "transform_input", True)
    with torch.no_grad():
        assert model(torch.zeros(1, 3, 96, 96)).shape == (1, num_classes)


def test_old_names_of_densenet_are_known(hub: Path) -> None:
    trained = build_model("densenet121", num_classes=1000).state_dict()
    old = {
        re.sub(r"(denselayer\d+\.(?:norm|conv))([12])", r"\1.\2", name): tensor
        for name, tensor in trained.items()
        if not name.endswith("num_batches_tracked")
    }
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    torch.save(old, hub / "densenet121-a639ec97.pth")
    loaded = build_model("densenet121", num_classes=1000, weights="DEFAULT").state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in trained.items())


def test_an_entry_of_timm(hub: Path) -> None:
    timm = pytest.importorskip("timm")
    trained = timm.create_model("resnet10t").state_dict()
    torch.save(trained, hub / "resnet10t_176_c3-f3215ab1.pth")
    loaded = build_model("timm/resnet10t", num_classes=1000, weights="DEFAULT").state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in trained.items())
    with pytest.raises(ValueError, match="head is for 1000 classes"):
        build_model("timm/resnet10t", num_classes=10, weights="DEFAULT")
    with pytest.raises(ValueError, match=r"data\.channels: 3"):
        build_model("timm/resnet10t", num_classes=1000, in_channels=1, weights="DEFAULT")


def test_timm_reads_what_others_wrote(tmp_path: Path) -> None:
    """As of a transformer for images of another size, whose positions it resizes."""
    timm = pytest.importorskip("timm")
    name = "vit_tiny_patch16_224"
    torch.save(timm.create_model(name).state_dict(), tmp_path / "model.pt")
    model = build_model(
        f"timm/{name}",
        kwargs={"img_size": 64},
        num_classes=1000,
        weights=str(tmp_path / "model.pt"),
    )
    assert model.pos_embed.shape == (1, 17, 192)
