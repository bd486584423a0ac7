"""Image classifiers of the Hugging Face hub, or from a folder in its layout."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.transforms import Resize

from trustml_cli.models.model import InputSpec, require_images
from trustml_cli.models.pretrained import Pretrained, Published, RepeatGrey
from trustml_cli.system.distribution import needing
from trustml_cli.system.hub import from_hub

PROCESSOR = "preprocessor_config.json"


class Logits(nn.Module):
    """The logits in the output of a network of transformers."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return self.body(pixel_values=x).logits  # type: ignore[no-any-return]


class Processed(nn.Module):
    """Pixels in [0, 1] after an image processor of transformers, which expects them in 0 to 255."""

    def __init__(self, processor: Any) -> None:
        super().__init__()
        self.processor = processor

    def forward(self, x: Tensor) -> Tensor:
        pixels: Tensor = self.processor(images=x * 255, input_data_format="channels_first", return_tensors="pt")[
            "pixel_values"
        ]
        return pixels


@dataclass(frozen=True, kw_only=True)
class HuggingFaceModel(Pretrained):
    """The image classifier `id`: a repository of the hub, or a folder written by `save_pretrained`.

    Weights are read from safetensors, and no code of the repository is run. Grey images are repeated as three channels.
    It is trained with a new head, or taken as it is.
    """

    id: str

    def __post_init__(self) -> None:
        super().__post_init__()
        with needing("huggingface", "model"):
            import transformers  # noqa: F401

    @property
    def has_weights(self) -> bool:
        return True

    def load(self, **changes: Any) -> Any:
        """The network of transformers. Raises ValueError where there is none, or where its head has no weights."""
        from transformers import AutoModelForImageClassification

        with from_hub("id", self.id):
            network, found = AutoModelForImageClassification.from_pretrained(
                self.id, trust_remote_code=False, use_safetensors=True, attn_implementation="eager",
                dtype=torch.float32, output_loading_info=True, **changes,
            )  # fmt: skip
        if found["missing_keys"] and not changes:
            raise ValueError(
                f"id: {self.id} has no weights for {min(found['missing_keys'])}, so it is no classifier yet; use a "
                "fine-tuned one, or train it with trainer=default"
            )
        return network

    def network(self, inputs: InputSpec) -> nn.Module:
        require_images(inputs)
        return nn.Sequential(RepeatGrey(), Logits(self.load(num_labels=inputs.classes, ignore_mismatched_sizes=True)))

    def preprocessing(self) -> nn.Module | None:
        from transformers import AutoImageProcessor

        if Path(self.id).is_dir() and not (Path(self.id) / PROCESSOR).is_file():
            return None
        with from_hub("id", self.id):
            processor = AutoImageProcessor.from_pretrained(self.id, trust_remote_code=False)
        if getattr(processor, "backend", None) != "torchvision":
            raise ValueError(f"id: the preprocessing of {self.id} has no gradient; only those on torchvision have one")
        return Processed(processor)

    def published(self) -> Published:
        network = self.load()
        count, names = network.config.num_labels, network.config.id2label
        unnamed = all(names.get(number) == f"LABEL_{number}" for number in range(count))
        classes = [[] if unnamed else [str(names[number])] for number in range(count)]
        body: nn.Module = Logits(network)
        preprocessing = self.preprocessing()
        if preprocessing is None and isinstance(size := getattr(network.config, "image_size", None), int):
            body = nn.Sequential(Resize([size, size]), body)
        return Published(body, preprocessing, classes, getattr(network.config, "num_channels", 3))
