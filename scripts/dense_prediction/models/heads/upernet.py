"""UperNet: a class for each pixel, from all maps."""

from transformers import SegformerImageProcessor, UperNetForSemanticSegmentation

from modeling_vit_comer.heads import supported_head

from ..head import Head
from ..semantic import count_labelled_pixels, dense_probabilities, dense_scores, dense_targets, predict_dense


HEAD = Head(
    entry=supported_head(UperNetForSemanticSegmentation),
    tasks=("semantic_segmentation",),
    processor_class=SegformerImageProcessor,
    targets=dense_targets,
    predict=predict_dense,
    scores=dense_scores,
    probabilities=dense_probabilities,
    takes_pixel_mask=False,
    count=count_labelled_pixels,
)
