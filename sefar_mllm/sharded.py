"""A model in pieces on several processes (FSDP2): what all of them must do at the same time.

Layers gather their weights as they run, and give them back. A forward therefore needs every
process, each with as many forwards as the others.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from sefar_mllm.adapters import lora_parameters, projector_parameters


def is_sharded(model: nn.Module) -> bool:
    """Whether each process holds a piece of the model."""
    return isinstance(model, FSDPModule)


@contextmanager
def outer_weights_gathered(model: nn.Module) -> Iterator[None]:
    """While entered, parts of the model may run without going through its own forward.

    The model's forward gathers what belongs to no layer, such as the projector; here that is done
    around it. Layers gather their own weights as ever.
    """
    if not isinstance(model, FSDPModule):
        yield
        return
    model.unshard()
    try:
        yield
    finally:
        model.reshard()


def whole_trained(model: nn.Module) -> dict[str, Tensor]:
    """LoRA and projector by name, whole on every process; all processes call this together."""
    trained = (*lora_parameters(model), *projector_parameters(model))
    return {name: whole(parameter.detach()) for name, parameter in trained}


def whole(tensor: Tensor) -> Tensor:
    """A tensor of which each process holds a piece, put together; any other as it is."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
