"""The card of a repository (README.md) where nobody has written one: what the files themselves say."""

from transformers import PreTrainedModel

from .licences import Licence


TASKS = {
    "ForSemanticSegmentation": "image-segmentation",
    "ForUniversalSegmentation": "image-segmentation",
    "ForInstanceSegmentation": "image-segmentation",
    "ForZeroShotObjectDetection": "zero-shot-object-detection",
    "ForObjectDetection": "object-detection",
}
"""The pipeline of transformers for a model's class, by the end of its name. A backbone makes features."""

TEMPLATE = """\
---
library_name: transformers
pipeline_tag: {task}
{licence}
tags:
- vit-comer
- custom_code
---

# {name}

`{model_class}` with a ViT-CoMer backbone ([paper](https://arxiv.org/abs/2403.07392)) on the plain ViT `{trunk}`,
{parameters:,} parameters. It needs torch, timm and transformers 5.23 or newer; `trust_remote_code=True` runs the code
in this repository, unless the package `modeling_vit_comer` is imported.

```python
{snippet}
```

{results}
"""

BACKBONE_SNIPPET = """\
from transformers import AutoBackbone, AutoImageProcessor

processor = AutoImageProcessor.from_pretrained("{repository}")
backbone = AutoBackbone.from_pretrained("{repository}", trust_remote_code=True)"""

PIPELINE_SNIPPET = """\
from transformers import pipeline

predict = pipeline("{task}", model="{repository}", trust_remote_code=True)"""


def pipeline_of(model: PreTrainedModel) -> str | None:
    """The pipeline of transformers that runs a model, None for a backbone."""
    return next((task for ending, task in TASKS.items() if type(model).__name__.endswith(ending)), None)


def minimal_card(model: PreTrainedModel, repository: str, trunk: str, licence: Licence, has_results: bool) -> str:
    """README.md, with the metadata by which the Hub lists a repository."""
    task = pipeline_of(model)
    snippet = BACKBONE_SNIPPET if task is None else PIPELINE_SNIPPET
    results = "`results.json` holds what was measured in training." if has_results else "No results come with it."
    return TEMPLATE.format(
        task=task or "image-feature-extraction",
        licence=licence.metadata,
        name=repository.rpartition("/")[2],
        model_class=type(model).__name__,
        trunk=trunk,
        parameters=model.num_parameters(),
        snippet=snippet.format(repository=repository, task=task),
        results=results,
    )
