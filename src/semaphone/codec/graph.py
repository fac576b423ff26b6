"""A chain of frozen blocks as one graph for ONNX Runtime.

Step by step, a block's many small operations cost more than its products: a runtime that knows all of them in
advance takes little more than half the time. Only chains whose products are made in 8 bits become graphs; their sums
are whole numbers, so that speech does not depend on how it was cut here either.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from semaphone.codec.layers import CausalConv, Chain, ConvNeXt, Linear, Pointwise, Upsample
from semaphone.codec.products import Product

CONTRIB = "com.microsoft"  # the runtime's own operators
TO_THE_END = np.iinfo(np.int64).max
State = tuple[NDArray[np.float32], ...]


class CompiledChain(nn.Module):
    """What a `Chain` does, with `(x [B, T, C], state) → (y [B, T', C'], state)` as it has."""

    def __init__(self, chain: Chain) -> None:
        super().__init__()
        self.chain = chain  # so that its weights are still seen
        builder = _Builder()
        out = "x"
        for block in chain.blocks:
            out = builder.block(block, out)
        self._pasts = builder.pasts  # (frames, channels) that each block with a state remembers
        self._session = builder.session(out)
        self._names = [f"past{i}" for i in range(len(self._pasts))]

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """See `Chain`."""
        if state is None:
            state = tuple(np.zeros((x.shape[0], *past), np.float32) for past in self._pasts)
        feed = dict(zip(self._names, state, strict=True))
        y, *after = self._session.run(None, {"x": x.detach().contiguous().numpy(), **feed})
        return torch.from_numpy(y), tuple(after)


def compiled(chain: Chain) -> nn.Module:
    """The chain as a graph, or as it is, if its products are not all in 8 bits."""
    return CompiledChain(chain) if all(_whole(part) for part in chain.modules()) else chain


def _whole(part: nn.Module) -> bool:
    if isinstance(part, CausalConv) and part.taps is not None:
        return True
    if isinstance(part, CausalConv | Linear):
        return part.kept is not None and part.kept.sizes is not None
    if isinstance(part, Pointwise):
        return isinstance(part.module, nn.LayerNorm)
    return True


class _Builder:
    """Collects the nodes of a graph, block by block; every method returns the name of what it computes."""

    def __init__(self) -> None:
        import onnx

        self._onnx = onnx
        self._nodes: list[Any] = []
        self._constants: list[Any] = []
        self.pasts: list[tuple[int, int]] = []
        self._after: list[str] = []

    def session(self, out: str) -> Any:
        """The graph, ready to run: inputs x and past0 …, outputs `out` and what is past afterwards."""
        import onnxruntime

        make, kind = self._onnx.helper, self._onnx.TensorProto.FLOAT
        inputs = [make.make_tensor_value_info("x", kind, None)]
        inputs += [make.make_tensor_value_info(f"past{i}", kind, [None, *past]) for i, past in enumerate(self.pasts)]
        outputs = [make.make_tensor_value_info(name, kind, None) for name in (out, *self._after)]
        graph = make.make_graph(self._nodes, "chain", inputs, outputs, self._constants)
        opsets = [make.make_opsetid("", 17), make.make_opsetid(CONTRIB, 1)]
        model = make.make_model(graph, opset_imports=opsets, ir_version=9)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])

    def block(self, block: nn.Module, x: str) -> str:
        """One block of a chain."""
        if isinstance(block, ConvNeXt):
            return self._convnext(block, x)
        if isinstance(block, CausalConv):
            return self._convolution(block, x)
        if isinstance(block, Upsample):
            y = self._product(block.linear.kept, x)
            width = block.linear.out_features // block.factor
            return self._node("Reshape", [y, self._constant(np.array([0, -1, width]))])
        assert isinstance(block, Pointwise)
        return self._norm(block.module, x)

    def _convnext(self, block: ConvNeXt, x: str) -> str:
        conv = block.depthwise.conv
        seen = self._seen(block.depthwise, x)
        turned = self._node("Transpose", [seen], perm=[0, 2, 1])
        weights = [self._constant(_numbers(conv.weight)), self._constant(_numbers(conv.bias))]
        y = self._node("Conv", [turned, *weights], group=conv.groups, kernel_shape=list(conv.kernel_size))
        y = self._norm(block.norm, self._node("Transpose", [y], perm=[0, 2, 1]))
        y = self._node("Gelu", [self._product(block.widen.kept, y)], domain=CONTRIB)
        y = self._product(block.narrow.kept, y)
        return self._node("Add", [x, self._node("Mul", [y, self._constant(_numbers(block.scale))])])

    def _convolution(self, block: CausalConv, x: str) -> str:
        """As a product: the frames under the kernel side by side."""
        kernel, stride = block.conv.kernel_size[0], block.conv.stride[0]
        seen, parts = self._seen(block, x), []
        for j in range(kernel):
            end = j - kernel + 1
            parts.append(self._slice(seen, j, end if end else TO_THE_END, stride))
        frames = self._node("Concat", parts, axis=2)
        assert block.kept is not None
        # The product has its inputs channel by channel, each with all of the kernel's frames.
        order = np.arange(block.inputs * kernel).reshape(block.inputs, kernel).T.ravel()
        return self._product(block.kept, frames, order)

    def _seen(self, block: CausalConv, x: str) -> str:
        """The block's past and x; its new past becomes an output."""
        seen = self._node("Concat", [f"past{len(self.pasts)}", x], axis=1)
        self._after.append(self._slice(seen, -block.past, TO_THE_END))
        self.pasts.append((block.past, block.inputs))
        return seen

    def _slice(self, x: str, start: int, end: int, step: int = 1) -> str:
        return self._node("Slice", [x, *(self._constant(np.array([value])) for value in (start, end, 1, step))])

    def _norm(self, norm: Any, x: str) -> str:
        weights = [self._constant(_numbers(norm.weight)), self._constant(_numbers(norm.bias))]
        return self._node("LayerNormalization", [x, *weights], axis=-1, epsilon=norm.eps)

    def _product(self, product: Product | None, x: str, order: NDArray[np.int64] | None = None) -> str:
        """`order` are the product's inputs in the order in which x has them."""
        assert product is not None
        assert product.sizes is not None
        weight = product.weight.numpy().T
        weight = weight if order is None else weight[order]
        scale, zero = self._constant(np.float32(product.scale)), self._constant(np.uint8(product.zero))
        whole = self._node("QuantizeLinear", [x, scale, zero])
        sizes, none = product.sizes.numpy(), np.zeros(weight.shape[1], np.int8)
        bias = product.bias.numpy() if product.bias is not None else np.zeros(weight.shape[1], np.float32)
        inputs = [whole, self._constant(weight), scale, self._constant(sizes), zero]
        return self._node("MatMulIntegerToFloat", [*inputs, self._constant(none), self._constant(bias)], domain=CONTRIB)

    def _node(self, kind: str, inputs: list[str], domain: str = "", **attributes: Any) -> str:
        out = f"{kind}{len(self._nodes)}"
        self._nodes.append(self._onnx.helper.make_node(kind, inputs, [out], domain=domain, **attributes))
        return out

    def _constant(self, value: Any) -> str:
        name = f"constant{len(self._constants)}"
        self._constants.append(self._onnx.numpy_helper.from_array(np.array(value, order="C"), name))
        return name


def _numbers(weight: Tensor | None) -> NDArray[np.float32]:
    assert weight is not None
    numbers: NDArray[np.float32] = weight.detach().numpy()
    return numbers
