"""Image classifiers of the library timm, with random or pretrained weights."""

from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from torch import nn

from trustml_cli.models.model import InputSpec, require_images
from trustml_cli.models.pretrained import Pretrained, Published, RepeatGrey
from trustml_cli.models.vision import FirstOutput
from trustml_cli.system.distribution import needing
from trustml_cli.system.hub import from_hub


@dataclass(frozen=True, kw_only=True)
class TimmModel(Pretrained):
    """A network of timm's own list, by `name`, optionally with the tag of its weights (Wightman 2019).

    Grey images are repeated as three channels. With `pretrained` weights it is trained with a new last layer, or taken
    as it is.
    """

    name: str
    pretrained: bool

    def __post_init__(self) -> None:
        super().__post_init__()
        with needing("timm", "model"):
            import timm
        name, _, tag = self.name.partition(".")
        if not timm.is_model(name):
            near = get_close_matches(name, timm.list_models(), n=3)
            raise ValueError(f"name: timm has no model {self.name!r}; near it are {', '.join(near) or 'none'}")
        tags = [each.partition(".")[2] for each in timm.list_pretrained(f"{name}.*")]
        if tag and tag not in tags:
            raise ValueError(f"name: timm has no weights {tag!r} of {name}; there are {', '.join(tags) or 'none'}")
        if self.pretrained and not tags:
            raise ValueError(f"pretrained: timm has no weights of {name}; choose another, or model.pretrained=false")

    @property
    def has_weights(self) -> bool:
        return self.pretrained

    def network(self, inputs: InputSpec) -> nn.Module:
        require_images(inputs)
        return nn.Sequential(RepeatGrey(), FirstOutput(self.create(num_classes=inputs.classes)))

    def create(self, **changes: Any) -> Any:
        """Timm's network, with its weights if they are asked for."""
        import timm

        with from_hub("pretrained", f"the file of weights of {self.name}"):
            return timm.create_model(self.name, pretrained=self.pretrained, **changes)

    def preprocessing(self) -> nn.Module:
        import timm
        from timm.data import create_transform, resolve_data_config

        config = resolve_data_config(pretrained_cfg=timm.get_pretrained_cfg(self.name).to_dict())
        steps = create_transform(**config, is_training=False).transforms
        return nn.Sequential(*(step for step in steps if isinstance(step, nn.Module)))  # the others convert files

    def published(self) -> Published:
        network = self.create()
        return Published(FirstOutput(network), self.preprocessing(), names_of(network))


def names_of(network: Any) -> list[list[str]]:
    """The names of the outputs of a network of timm, as its weights state them; of ImageNet synset and words."""
    from timm.data import ImageNetInfo, infer_imagenet_subset

    config = network.pretrained_cfg
    if config.get("label_names"):
        texts = config.get("label_descriptions") or {}
        return [[texts.get(name, name), name] for name in config["label_names"]]
    if (subset := infer_imagenet_subset(network)) is None:
        return [[] for _ in range(network.num_classes)]
    known = ImageNetInfo(subset)
    return [[known.label_name_to_description(name), name] for name in known.label_names()]
