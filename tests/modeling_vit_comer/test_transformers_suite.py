"""transformers' own tests of backbones, models and configs, run against ours."""

import unittest

import pytest
import torch

from modeling_vit_comer import ViTCoMerBackbone, ViTCoMerConfig, ViTCoMerModel
from tiny import tiny_config, tiny_fields
from transformers_sdist import SdistUnavailable, import_common_tests


try:
    backbone_common, configuration_common, modeling_common = import_common_tests()
except SdistUnavailable as error:
    pytest.skip(f"transformers' own tests are not here: {error}", allow_module_level=True)


class ViTCoMerModelTester:
    """What the mixins ask of a model's tests: a small config and inputs for it."""

    batch_size = 2
    image_size = 64
    num_hidden_layers = 2
    hidden_size = 32
    num_attention_heads = 2
    seq_length = 17  # the class token and 4 x 4 patches
    is_training = False  # neither class has a loss: training is in test_modeling.py and test_heads.py

    def prepare_config_and_inputs_for_common(self) -> tuple[ViTCoMerConfig, dict[str, torch.Tensor]]:
        return tiny_config(), {"pixel_values": torch.rand(self.batch_size, 3, self.image_size, self.image_size)}


class ViTCoMerModelTest(modeling_common.ModelTesterMixin, unittest.TestCase):
    all_model_classes = (ViTCoMerModel, ViTCoMerBackbone)
    test_resize_embeddings = False  # an image model has no vocabulary
    test_can_init_all_missing_weights_before_2023 = True  # a test that files without a year of copyright must ask for

    def setUp(self) -> None:
        self.model_tester = ViTCoMerModelTester()
        self.config_tester = configuration_common.ConfigTester(
            self,
            config_class=ViTCoMerConfig,
            has_text_modality=False,
            common_properties=["hidden_size", "num_hidden_layers", "image_size", "patch_size", "num_channels"],
            **tiny_fields(trunk_config=tiny_config().to_diff_dict()["trunk_config"]),
        )

    def test_config(self) -> None:
        self.config_tester.run_common_tests()

    def test_model_get_set_embeddings(self) -> None:
        """Overridden as in transformers' vision models: the input embedding is a patch embedding."""
        for model_class in self.all_model_classes:
            model = model_class(tiny_config())
            self.assertIsInstance(model.get_input_embeddings(), torch.nn.Module)
            self.assertIsNone(model.get_output_embeddings())


class ViTCoMerBackboneTest(backbone_common.BackboneTesterMixin, unittest.TestCase):
    all_model_classes = (ViTCoMerBackbone,)
    config_class = ViTCoMerConfig

    def setUp(self) -> None:
        self.model_tester = ViTCoMerModelTester()
