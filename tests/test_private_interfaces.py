"""What the package and the library use of other libraries without being promised it: a rename there fails here.

Every such name stands in `RELIED_ON`, with the reason, and has a test below of what is relied upon.
"""

import ast
import importlib
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import pytest
import timm.layers
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from timm.models.beit import Attention as BeitAttention
from timm.models.eva import EvaAttention
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.module import _has_any_global_hook
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import PreTrainedModel, Trainer, ViTConfig, ViTModel, modeling_utils
from transformers.loss import loss_d_fine, loss_deimv2, loss_for_object_detection
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.mask2former import modeling_mask2former
from transformers.models.maskformer import modeling_maskformer
from transformers.utils import output_capturing

from modeling_vit_comer import ViTCoMerBackbone, ViTCoMerConfig
from modeling_vit_comer.deformable_attention import is_plain
from modeling_vit_comer.kernel_choice import is_exporting
from tiny import tiny_config


ROOT = Path(__file__).parents[1]
PACKAGE, LIBRARY, KERNEL = "modeling_vit_comer", "scripts/dense_prediction", "kernels/comer-msda/torch-ext"

RELIED_ON = {
    # torch
    "_is_exporting_flag": "torch.compiler.is_exporting() of torch 2.11 is also true under torch.compile",
    "_BatchNorm": "ours must not be an nn.BatchNorm2d, which heads freeze, and still become a SyncBatchNorm",
    "_check_input_dim": "every kind of batch norm has to say which inputs it takes",
    "_forward_pre_hooks": "a layer that is watched has to be called; torch has no public way to ask",
    "_forward_hooks": "the same",
    "_backward_hooks": "the same",
    "_backward_pre_hooks": "the same",
    "_has_any_global_hook": "hooks on all modules of the process watch a layer, too",
    "_functorch": "whether a transform of torch.func is under way; torch has no public way to ask",
    "_output_capturing_hooks_installed": "transformers' hooks do not pickle: taken off, they have to be put on again",
    "_embedding_bag_forward_only": "the operator whose multiply-accumulates are counted",
    "_dispatch_has_kernel_for_dispatch_key": "whether a build has code for CUDA; torch has no public way to ask",
    # transformers
    "_initialize_weights": "of code from the Hub, modules without weights of their own would not be initialised",
    "_init_weights": "where a model of transformers initialises its weights",
    "_attn_implementation": "the attention function, which the layers look up in the trunk's config at each call",
    "_no_split_modules": "what every model of transformers says of itself: to Accelerate",
    "_supports_sdpa": "the same: to set_attn_implementation",
    "_can_compile_fullgraph": "the same, of torch.compile, as transformers' own vision models do",
    "_can_record_outputs": "the same: to capture_outputs",
    "_input_embed_layer": "the same: to get_input_embeddings",
    "_auto_class": "the same: to save_pretrained, which writes the code then",
    "_load_from_checkpoint": "Trainer's own leaves out weights whose names in a saved model are older ones",
    "_load_best_model": "the same",
    "_save_checkpoint": "what a checkpoint is called is noted before it is made, and only what is noted is removed",
    "_load_callback_state": "early stopping follows from the recipe, not from the checkpoint",
    "_get_dense_o2o_indices": "DEIMv2 divides by matches that only its loss knows",
    "_created_lr_scheduler": "Trainer drops a scheduler after training only if it has made it",
    # timm
    "_compute_periods": "timm up to 1.0.22 has no init_non_persistent_buffers",
}

# Of other libraries, but promised: `evaluate` documents both for metrics.
PROMISED = {"_info", "_compute"}
# Written by scripts/build_kernel.py beside the operators, and made by Python for its own classes.
GENERATED = {"_ops", "_abc_impl", "_is_protocol", "_backward_cls"}


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name != "_"


def trees() -> Iterator[ast.AST]:
    for folder in (PACKAGE, LIBRARY, KERNEL):
        for path in (ROOT / folder).rglob("*.py"):
            yield from ast.walk(ast.parse(path.read_text()))


def our_classes() -> Iterator[type]:
    for folder in (PACKAGE, LIBRARY):
        base = (ROOT / folder).parent
        for path in (ROOT / folder).rglob("*.py"):
            name = ".".join(path.relative_to(base).with_suffix("").parts).removesuffix(".__init__")
            members = vars(importlib.import_module(name)).values()
            yield from (member for member in members if inspect.isclass(member) and member.__module__ == name)


def overridden(our_class: type) -> set[str]:
    """Private members of a class that hide those of a class of another library."""
    ours = (PACKAGE, Path(LIBRARY).name)
    theirs = [base for base in our_class.__mro__[1:] if not base.__module__.startswith(ours)]
    return {name for name in vars(our_class) if is_private(name) and any(name in vars(base) for base in theirs)}


def test_every_private_name_is_known() -> None:
    """Attributes and imports that we do not define, and members that we override."""
    nodes = list(trees())
    defined = {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    defined |= {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    attributes = [node for node in nodes if isinstance(node, ast.Attribute)]
    defined |= {node.attr for node in attributes if isinstance(node.ctx, ast.Store) and is_self(node.value)}
    used = {node.attr for node in attributes} - {"_C"}
    used |= {node.arg for node in nodes if isinstance(node, ast.keyword) and node.arg}  # methods that are wrapped
    for node in nodes:
        if isinstance(node, ast.ImportFrom):
            used |= {*(alias.name for alias in node.names), *(node.module or "").split(".")}
    found = {name for name in used - defined if is_private(name)}
    found |= set().union(*map(overridden, our_classes()))
    # Trainer reads the one attribute of its own that we set.
    found |= {"_created_lr_scheduler"} & defined
    assert found - PROMISED - GENERATED == set(RELIED_ON)


def is_self(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


def names_in(code: CodeType) -> set[str]:
    """The attributes and globals that code reads or writes, functions inside it included."""
    inner = [constant for constant in code.co_consts if isinstance(constant, CodeType)]
    return set(code.co_names).union(*map(names_in, inner))


def users(owner: type, name: str) -> list[str]:
    """Methods of a class, not those of its bases, that use a name."""
    functions = {key: inspect.unwrap(value) for key, value in vars(owner).items() if isinstance(value, FunctionType)}
    return [key for key, function in functions.items() if key != name and name in names_in(function.__code__)]


class Probe(nn.Module):
    """Adds 1, and 10 more while it is exported."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 11 if is_exporting() else x + 1


def test_exporting_flag() -> None:
    zero = torch.zeros(2)
    assert torch.compiler._is_exporting_flag is False
    assert torch.equal(torch.export.export(Probe(), (zero,)).module()(zero), zero + 11)
    assert torch.equal(torch.compile(Probe(), backend="eager", fullgraph=True)(zero), zero + 1)
    assert torch.equal(Probe()(zero), zero + 1)


def test_batch_norm_base() -> None:
    class OurNorm(_BatchNorm):
        def _check_input_dim(self, feature_map: torch.Tensor) -> None:
            raise ValueError("asked")

    assert issubclass(nn.BatchNorm2d, _BatchNorm) and not isinstance(OurNorm(2), nn.BatchNorm2d)
    with pytest.raises(ValueError, match="asked"):
        OurNorm(2)(torch.ones(2, 2, 2, 2))
    assert type(nn.SyncBatchNorm.convert_sync_batchnorm(OurNorm(2))) is nn.SyncBatchNorm


WATCHERS: dict[str, Callable[[nn.Module], Any]] = {
    "forward_pre": lambda layer: layer.register_forward_pre_hook(print),
    "forward": lambda layer: layer.register_forward_hook(print),
    "backward_pre": lambda layer: layer.register_full_backward_pre_hook(print),
    "backward": lambda layer: layer.register_full_backward_hook(print),
    "parametrization": lambda layer: nn.utils.parametrizations.weight_norm(layer),
}


@pytest.mark.parametrize("watch", WATCHERS.values(), ids=WATCHERS)
def test_watched_layer_is_not_plain(watch: Callable[[nn.Module], Any]) -> None:
    layer = nn.Linear(2, 2)
    assert is_plain(layer)
    watch(layer)
    assert not is_plain(layer)


def test_hooks_on_all_modules_are_seen() -> None:
    assert not _has_any_global_hook()
    handle = nn.modules.module.register_module_forward_hook(print)
    assert _has_any_global_hook()
    handle.remove()
    assert not _has_any_global_hook()


def test_transforms_are_seen() -> None:
    functorch, seen = torch._C._functorch, []

    def look(x: torch.Tensor) -> torch.Tensor:
        seen.append((functorch.peek_interpreter_stack().key(), functorch.is_batchedtensor(x)))
        return x.sum()

    assert functorch.peek_interpreter_stack() is None
    torch.func.grad(look)(torch.ones(2))
    torch.func.vmap(look)(torch.ones(2, 2))
    assert seen == [(functorch.TransformType.Grad, False), (functorch.TransformType.Vmap, True)]


def test_output_hooks_are_put_on_again() -> None:
    model = ViTCoMerBackbone(tiny_config())
    assert model._output_capturing_hooks_installed
    hooks = [hook for module in model.modules() for hook in module._forward_hooks.values()]
    assert hooks and {hook.__module__ for hook in hooks} == {output_capturing.__name__}
    model._output_capturing_hooks_installed = False
    output_capturing.maybe_install_capturing_hooks(model)
    assert len([hook for module in model.modules() for hook in module._forward_hooks.values()]) == 2 * len(hooks)


def test_operator_of_the_sampling() -> None:
    called = []

    class Record(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            called.append(function.overloadpacket)
            return function(*args, **(kwargs or {}))

    bags = torch.tensor([[0, 1]]), torch.ones(2, 3)
    with Record(), torch.no_grad():
        nn.functional.embedding_bag(*bags, mode="sum", per_sample_weights=torch.ones(1, 2))
    assert torch.ops.aten._embedding_bag_forward_only in called


def test_dispatcher_tells_of_kernels() -> None:
    library = torch.library.Library("vit_comer_probe", "DEF")
    library.define("identity(Tensor x) -> Tensor")
    library.impl("identity", torch.clone, "CPU")
    has_kernel = [
        torch._C._dispatch_has_kernel_for_dispatch_key("vit_comer_probe::identity", key) for key in ("CPU", "CUDA")
    ]
    assert has_kernel == [True, False]


def test_modules_without_weights_are_initialised_unless_custom(monkeypatch: pytest.MonkeyPatch) -> None:
    """What our override undoes: for code from the Hub, transformers leaves out modules without own weights."""
    initialised = []
    model = ViTCoMerBackbone(tiny_config())
    monkeypatch.setattr(type(model), "_init_weights", lambda self, module: initialised.append(module))
    for is_custom_code, modules in ((True, 0), (False, 1)):
        initialised.clear()
        PreTrainedModel._initialize_weights(model, nn.Identity(), is_custom_code=is_custom_code)
        assert len(initialised) == modules
    ours, theirs = ViTCoMerBackbone._initialize_weights, PreTrainedModel._initialize_weights
    assert list(inspect.signature(ours).parameters) == list(inspect.signature(theirs).parameters)
    assert users(PreTrainedModel, "_initialize_weights")


def test_attention_is_looked_up_at_each_call(monkeypatch: pytest.MonkeyPatch) -> None:
    called = []

    def attention(module: nn.Module, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, None]:
        called.append(module)
        return ALL_ATTENTION_FUNCTIONS["sdpa"](module, *args, **kwargs)

    sizes = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 8}
    model = ViTModel(ViTConfig(**sizes, image_size=32))
    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS, "probe", attention)
    model.config._attn_implementation = "probe"
    model(torch.zeros(1, 3, 32, 32))
    assert len(called) == 2


@pytest.mark.parametrize(
    ("name", "default"),
    [
        ("_no_split_modules", None),
        ("_supports_sdpa", False),
        ("_can_record_outputs", None),
        ("_input_embed_layer", "embed_tokens"),
        ("_auto_class", None),
        ("_init_weights", PreTrainedModel._init_weights),
    ],
)
def test_what_models_say_of_themselves(name: str, default: Any) -> None:
    """The default is another than ours, and transformers' models ask for it."""
    assert getattr(PreTrainedModel, name) == default != getattr(ViTCoMerBackbone, name)
    nodes = list(ast.walk(ast.parse(inspect.getsource(modeling_utils))))
    loads = [node.attr for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)]
    asked = [
        node.value for node in nodes if isinstance(node, ast.Constant)
    ]  # getattr(self, "_input_embed_layer", ...)
    assert name in loads or name in asked


def test_statement_that_nothing_asks_for() -> None:
    """Vision models make it; no code of transformers 5.23 or 5.24 reads it."""
    assert PreTrainedModel._can_compile_fullgraph is False


@pytest.mark.parametrize(
    "name", ["_load_from_checkpoint", "_load_best_model", "_save_checkpoint", "_load_callback_state"]
)
def test_trainer_calls_what_we_override(name: str) -> None:
    from dense_prediction.training.huggingface.trainer import RecipeTrainer

    ours, theirs = getattr(RecipeTrainer, name), getattr(Trainer, name)
    assert list(inspect.signature(ours).parameters) == list(inspect.signature(theirs).parameters)
    assert users(Trainer, name)


def test_trainer_remembers_whose_scheduler_it_is() -> None:
    assert {"create_scheduler", "__init__"} < set(users(Trainer, "_created_lr_scheduler"))


def test_trainer_saves_through_save_model() -> None:
    assert inspect.signature(Trainer.save_model).parameters["_internal_call"].default is False
    assert "_save_checkpoint" in users(Trainer, "save_model")


GET_LOSS = ["self", "loss", "outputs", "targets", "indices", "num_boxes"]
GET_NUM_MASKS = ["self", "class_labels", "device"]


@pytest.mark.parametrize(
    ("loss_class", "name", "parameters", "caller"),
    [
        (loss_for_object_detection.ImageLoss, "get_loss", GET_LOSS, "forward"),
        (loss_for_object_detection.ImageLoss, "loss_labels", ["self", *GET_LOSS[2:]], "get_loss"),
        (loss_d_fine.DFineLoss, "get_loss", GET_LOSS, None),
        (loss_deimv2.Deimv2Loss, "get_loss", GET_LOSS, "forward"),
        (loss_deimv2.Deimv2Loss, "_get_dense_o2o_indices", ["self", "indices", "indices_aux_list"], "forward"),
        (modeling_mask2former.Mask2FormerLoss, "get_num_masks", GET_NUM_MASKS, "forward"),
        (modeling_mask2former.Mask2FormerLoss, "loss_labels", None, "forward"),
        (modeling_maskformer.MaskFormerLoss, "get_num_masks", GET_NUM_MASKS, "forward"),
        (modeling_maskformer.MaskFormerLoss, "loss_labels", None, "forward"),
    ],
)
def test_losses_divide_in_methods_that_can_be_wrapped(
    loss_class: type, name: str, parameters: list[str] | None, caller: str | None
) -> None:
    """Of the class itself, called by its own methods, or by those of the one that D-FINE's inherits from."""
    assert parameters is None or list(inspect.signature(vars(loss_class)[name]).parameters) == parameters
    assert caller is None or name in names_in(vars(loss_class)[caller].__code__)


def test_distillation_weighs_what_is_matched_and_what_is_not() -> None:
    """D-FINE's term, of which the parts are told apart by a teacher that is sure of nothing."""
    names = names_in(loss_d_fine.DFineLoss.loss_local.__code__)
    assert {"num_pos", "num_neg", "mean", "sigmoid"} <= names


ROTATED = {"dim": 16, "feat_shape": None}
TIMM_MODULES: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "EvaAttention": (lambda: EvaAttention(8, num_heads=2, norm_layer=nn.LayerNorm), "k_bias"),
    "BeitAttention": (lambda: BeitAttention(8, num_heads=2, qkv_bias=True), "k_bias"),
    "RotaryEmbeddingDinoV3": (lambda: timm.layers.RotaryEmbeddingDinoV3(**ROTATED), "periods"),
    "RotaryEmbeddingCat": (lambda: timm.layers.RotaryEmbeddingCat(**ROTATED), "bands"),
}


@pytest.mark.parametrize(("build", "buffer"), TIMM_MODULES.values(), ids=TIMM_MODULES)
def test_buffers_that_no_checkpoint_holds(build: Callable[[], nn.Module], buffer: str) -> None:
    """By timm's own method, or by what timm up to 1.0.22 has in its place."""
    module = build()
    assert buffer not in module.state_dict()
    expected = getattr(module, buffer).clone()
    getattr(module, buffer).fill_(torch.nan)
    if hasattr(module, "init_non_persistent_buffers"):
        module.init_non_persistent_buffers()
        assert torch.equal(getattr(module, buffer), expected)
    elif buffer == "periods":
        assert torch.equal(module._compute_periods(), expected)


def test_accelerate_forgets() -> None:
    """What the tests rely on: Accelerate keeps its settings for the life of a process."""
    GradientState()
    Accelerator(cpu=True)
    assert AcceleratorState._shared_state and GradientState._shared_state
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    assert not AcceleratorState._shared_state and not GradientState._shared_state


def test_registered_model_types() -> None:
    """A mapping of undocumented place, by which we ask whether somebody has registered the model type."""
    assert ViTCoMerConfig.model_type in CONFIG_MAPPING
    assert CONFIG_MAPPING[ViTCoMerConfig.model_type] is ViTCoMerConfig
