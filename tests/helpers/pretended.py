"""A device that is none. Its tensors say that they lie on it, their numbers lie on the CPU, and rules are a GPU's.

What a GPU would make the host wait for is noted with its place in the program; tensors of two devices in one operation
are an error. So whatever runs there runs on a GPU without errors and waits of these sorts, by the same branches, and
its numbers can be compared.

The device is known to torch until the process ends, and changes how others use it: have a process for it alone.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils import backend_registration
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from tests.helpers.pretended_cells import CELLS

ROOT = Path(__file__).parents[2]
OURS = tuple(str(ROOT / folder) for folder in ("runner", "tasks", "benchmarks"))
NAME = "pretended"
# what reads numbers on the host, or has a shape that depends on them
READING = frozenset({"_local_scalar_dense", "is_nonzero", "equal", "nonzero", "masked_select", "bincount"})
READING |= {"unique", "_unique", "_unique2", "unique_dim", "unique_consecutive", "repeat_interleave"}
COPYING = ("_to_copy", "copy_", "copy")
INDEXING = ("index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index", "_unsafe_index_put")


def lacking() -> str | None:
    """Why there can be no such device; None where it can be."""
    if not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"):
        return f"torch {torch.__version__} knows no devices that are written in Python"
    return "torch sees a GPU: tests/gpu asks that" if torch.cuda.is_available() else None


class _Backend(backend_registration._DummyBackendModule):
    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]


def device() -> torch.device:
    """The device; torch learns of it at the first call."""
    if not hasattr(torch, NAME):
        backend_registration._setup_privateuseone_for_python_backend(NAME, _Backend())
        torch.__future__.set_swap_module_params_on_conversion(True)  # `Module.to` keeps parameters that are tied
    return torch.device(NAME, 0)


class There(Tensor):
    """A tensor on the device; `here` is the one that has its numbers."""

    here: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, here: Tensor) -> There:
        with torch.inference_mode(False):  # a view of a parameter is no tensor of inference
            return torch.Tensor._make_wrapper_subclass(
                cls,
                here.shape,
                strides=here.stride(),
                storage_offset=here.storage_offset(),
                dtype=here.dtype,
                device=torch.device(NAME, 0),
            )

    def __init__(self, here: Tensor) -> None:
        self.here = here

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"{func}: a tensor of the device is used outside `Device`")

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def __repr__(self) -> str:
        return f"There({tuple(self.shape)}, {self.dtype})"


class Device(TorchDispatchMode):
    """While it is entered the device works.

    Attributes:
        waits: (operation, place) for each wait, in order.
        copies: place -> how often it sent an array from the host.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[tuple[str, str]] = []
        self.copies: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = func.overloadpacket.__name__, dict(kwargs or {})
        if torch.is_inference_mode_enabled():  # what is made of other operations comes in one piece
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        tensors = [item for item in tree_leaves((args, kwargs)) if isinstance(item, Tensor)]
        there = [tensor for tensor in tensors if isinstance(tensor, There)]
        asked = kwargs.get("device")
        lies = bool(there) if asked is None else torch.device(asked).type == NAME
        if asked is not None:
            kwargs["device"] = torch.device("cpu")
        if there or lies:
            self._check(name, args, kwargs, tensors, lies)
        mine = {id(item.here): item for item in there}
        result = CELLS.get(name, func)(*tree_map_only(There, _here, args), **tree_map_only(There, _here, kwargs))
        if torch.Tag.inplace_view in func.tags:
            with no_dispatch():  # the shape that the tensor on the device says it has
                func(*args, **kwargs)
        if not lies:
            return result
        # what is changed in place comes out as it went in
        return tree_map_only(Tensor, lambda one: mine[id(one)] if id(one) in mine else There(one), result)

    def _check(self, name: str, args: Any, kwargs: Any, tensors: list[Tensor], lies: bool) -> None:
        on_host = [tensor for tensor in tensors if not isinstance(tensor, There)]
        if name in COPYING:
            self._copy(name, args, kwargs, lies)
            return
        if name in READING:
            self.waits.append((name, place()))
        if name in INDEXING and any(arg is not None and arg.dtype == torch.bool for arg in args[1]):
            self.waits.append((f"{name} by a mask", place()))
        if any(item.dim() for item in on_host):
            if name not in INDEXING:
                raise RuntimeError(f"{name}: tensors on {NAME} and on the CPU at {place()}")
            self.waits.append((f"{name} by a tensor of the host", place()))

    def _copy(self, name: str, args: Any, kwargs: Any, lies: bool) -> None:
        target, source = (args[0], args[1]) if name != "_to_copy" else (None, args[0])
        to = isinstance(target, There) if target is not None else lies
        if to == isinstance(source, There):
            return
        blocks = not (kwargs.get("non_blocking") or (name != "_to_copy" and len(args) > 2 and args[2]))
        if to:
            self.copies[place()] += 1
        if not to or blocks:
            self.waits.append((f"{name} {'to' if to else 'from'} the device", place()))


def _here(tensor: There) -> Tensor:
    return tensor.here


def place() -> str:
    """`runner/training/loop.py:evaluate`: the innermost function of ours that is running."""
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_filename.startswith(OURS):
            return f"{Path(frame.f_code.co_filename).relative_to(ROOT)}:{frame.f_code.co_qualname}"
        frame = frame.f_back
    return "torch"
