"""The memory of a computation, found by running it on fake tensors, which have shapes but no values.

This takes neither the memory nor the time of the computation. It follows any code, such as a block of one's own.
"""

import weakref
from types import TracebackType
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

aten = torch.ops.aten
INDEXING = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default}


class WithoutValues(TorchFunctionMode):
    """Skips random initialisation, because meta tensors hold no values and drawing would load torch's compiler."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.__name__ in ("normal_", "uniform_", "kaiming_uniform_"):  # of tensors, or of torch.nn.init
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


class Simulation(TorchDispatchMode):
    """Inside its context, tensors are fake, and their live bytes are counted at every operation.

    A fake tensor has no values. A mask therefore has `selected` elements that are True. A number that
    Python reads is 0, except one that follows from `fake(...)` in one operation.
    """

    def __init__(self, selected: int) -> None:
        super().__init__()
        self.selected = selected
        self.alive = 0
        """Bytes of the tensors that exist now."""
        self.peak = 0
        """The largest number of bytes so far."""
        self._storages: dict[int, Any] = {}
        self._fake, self._initialisation = FakeTensorMode(), WithoutValues()

    def __enter__(self) -> "Simulation":
        self._fake.__enter__()
        self._initialisation.__enter__()
        return super().__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        self._initialisation.__exit__(kind, error, trace)
        self._fake.__exit__(kind, error, trace)

    def fake(self, tensor: Tensor) -> Tensor:
        """A fake tensor in the place of this one."""
        fake = self._fake.fake_tensor_converter.from_real_tensor(self._fake, tensor, make_constant=True)
        self._count(fake)
        return fake

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is aten._local_scalar_dense.default and getattr(args[0], "constant", None) is None:
            return 0.0 if args[0].is_floating_point() else 0
        if func is aten.nonzero.default:
            func, args, kwargs = aten.new_empty.default, (args[0], [self.selected, args[0].ndim]), {"dtype": torch.long}
        if func in INDEXING:
            args = (args[0], [index for given in args[1] for index in self._indices(given)], *args[2:])
        output = func(*args, **(kwargs or {}))
        for tensor in tree_iter(output):
            if isinstance(tensor, FakeTensor):
                self._count(tensor)
        return output

    def _indices(self, index: Tensor | None) -> list[Tensor | None]:
        if index is None or index.dtype is not torch.bool:
            return [index]
        return [torch.empty(self.selected, dtype=torch.long, device=index.device) for _ in range(index.ndim)]

    def _count(self, tensor: Tensor) -> None:
        """Count the storage of a tensor, once, until it is freed."""
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._storages:
            return

        def freed(_: Any) -> None:
            del self._storages[key]
            self.alive -= size

        self._storages[key] = weakref.ref(storage, freed)
        self.alive += size
        self.peak = max(self.peak, self.alive)
