"""The process that turns a GGUF file into OpenVINO's own form: the same numbers, written so that they multiply faster.

OpenVINO reads 8-bit weights as unsigned with a zero point of 128, and keeps what each layer multiplies with one input
apart. Here they become signed, without a zero point, and queries, keys and values are one product, gate and up another:
a seventh to a quarter less time a token (docs/log.md). It imports nothing of Genwright.
"""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def main() -> None:
    """Read the file that the first line names; leave openvino_model.xml and .bin beside it."""
    out = os.dup(1)
    os.dup2(2, 1)
    options = json.loads(sys.stdin.readline())
    import openvino_genai as genai

    properties = {**options["properties"], "enable_save_ov_model": True}
    try:
        genai.ContinuousBatchingPipeline(options["path"], genai.SchedulerConfig(), "CPU", properties)
        fuse(Path(options["path"]).with_name("openvino_model.xml"))
    except (RuntimeError, ValueError) as error:
        os.write(out, json.dumps({"error": str(error)}).encode() + b"\n")
        os._exit(1)
    os.write(out, b'{"ready": true}\n')
    os._exit(0)


def fuse(path: Path) -> None:
    """Rewrite a model in place. What does not look as expected stays as it is."""
    import openvino
    from openvino import opset13 as ops

    model = openvino.Core().read_model(path)
    products: dict[str, list[tuple[Any, Weight]]] = {}
    for node in model.get_ordered_ops():
        if node.get_type_name() == "MatMul" and (weight := Weight.of(node.input_value(1).get_node())):
            products.setdefault(node.input_value(0).get_node().get_friendly_name(), []).append((node, weight))
    for together in products.values():
        made = _signed([weight for _, weight in together], ops)
        if len(together) == 1:
            _put(together[0][1].node.output(0), made.output(0))
            continue
        product = ops.matmul(together[0][0].input_value(0), ops.convert(made, "f32"), False, True)
        sizes = ops.constant([weight.numbers.shape[0] for _, weight in together], dtype="int64")
        parts = ops.variadic_split(product, ops.constant(-1, dtype="int64"), sizes)
        for number, (node, _) in enumerate(together):
            _put(node.output(0), parts.output(number))
    model.validate_nodes_and_infer_types()
    fresh = path.with_name("fused.xml")
    openvino.save_model(model, fresh, compress_to_fp16=False)
    del model  # it holds the old file
    os.replace(fresh.with_suffix(".bin"), path.with_suffix(".bin"))
    os.replace(fresh, path)


class Weight:
    """A matrix in 8 bits: `numbers` (rows, groups, size), signed, and `scales` (rows, groups, 1) by which they go."""

    def __init__(self, node: Any, numbers: Any, scales: Any):
        self.node, self.numbers, self.scales = node, numbers, scales

    @classmethod
    def of(cls, node: Any) -> "Weight | None":
        """Behind a node that gives the matrix in floats; None where it is kept in another way."""
        import numpy as np

        found = []
        for kind in ("Reshape", "Multiply", "Subtract"):
            while node.get_type_name() == "Convert":
                node = node.input_value(0).get_node()
            if node.get_type_name() != kind:
                return None
            found.append(node)
            node = node.input_value(0).get_node()
        reshape, multiply, subtract = found
        stored, zero, scales = (_constant(one.input_value(side).get_node())
                                for one, side in ((subtract, 0), (subtract, 1), (multiply, 1)))  # fmt: skip
        if stored is None or zero is None or scales is None or stored.dtype != np.uint8 or (zero != 128).any():
            return None
        return cls(reshape, (stored.astype(np.int16) - 128).astype(np.int8), scales)


def _constant(node: Any) -> Any:
    while node.get_type_name() == "Convert":
        node = node.input_value(0).get_node()
    return node.data if node.get_type_name() == "Constant" else None


def _signed(weights: Sequence[Weight], ops: Any) -> Any:
    """The matrices one below the other, as a node that gives them in half precision."""
    import numpy as np

    numbers = np.concatenate([weight.numbers for weight in weights])
    scales = np.concatenate([weight.scales for weight in weights])
    whole = ops.multiply(ops.convert(ops.constant(numbers), "f16"), ops.constant(scales))
    shape = ops.constant([numbers.shape[0], numbers.shape[1] * numbers.shape[2]], dtype="int64")
    return ops.reshape(whole, shape, False)


def _put(old: Any, new: Any) -> None:
    for target in old.get_target_inputs():
        target.replace_source_output(new)


if __name__ == "__main__":
    main()
