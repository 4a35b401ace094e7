"""Eight samples at a constant gain in one step, so that a stream need not wait for its own recursion."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, register_jitable

LANES = 8

_INDEX, _DOUBLE = ir.IntType(32), ir.DoubleType()
_VECTOR = ir.VectorType(_DOUBLE, LANES)


@register_jitable
def weights_of(gain: Any) -> tuple[Any, Any]:
    """Weights of samples 1 to 7 of a block in its eight means, less sample 0; and less the mean before it.

    With d[i] = x[i] - x[0], e = mean - x[0] and beta = 1 - gain: mean[j] = x[0] + e - (1 - beta^(j+1)) e +
    sum over i <= j of gain beta^(j-i) d[i]. In differences, so that a constant comes out as itself.
    """
    of_samples, of_mean = np.zeros((LANES, LANES)), np.zeros(LANES)
    beta, lost = 1.0 - gain, 0.0
    for i in range(LANES):
        lost = gain + beta * lost
        of_mean[i] = -lost
        weight = gain
        for j in range(i, LANES):
            of_samples[i, j] = weight
            weight *= beta
    return of_samples, of_mean


@intrinsic
def advance(typing_context, x, t, mean, of_samples, of_mean, excess, limit):  # type: ignore[no-untyped-def]
    """Write mean[t : t + 8] from x[t : t + 8] and ``excess``, the mean before them less x[t].

    Returns the same for x[t + 8], which must exist; and whether all eight lie below the limit in magnitude
    (NaN does not), without which nothing that was written or returned counts. Written in vectors: numba
    leaves such a triangle of products to one lane at a time. Every operation is exact IEEE arithmetic.
    """
    signature = types.Tuple((types.float64, types.boolean))(
        x, types.intp, mean, of_samples, of_mean, types.float64, types.float64
    )

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        start, excess, limit = arguments[1], arguments[5], arguments[6]
        data = {
            name: context.make_array(signature.args[k])(context, builder, arguments[k]).data
            for name, k in (("x", 0), ("mean", 2), ("of_samples", 3), ("of_mean", 4))
        }
        fused = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(_VECTOR, [_VECTOR] * 3), f"llvm.fma.v{LANES}f64"
        )
        magnitude = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(_VECTOR, [_VECTOR]), f"llvm.fabs.v{LANES}f64"
        )

        def at(name: str, offset: Any) -> Any:
            pointer = builder.gep(data[name], [offset])
            return builder.bitcast(pointer, _VECTOR.as_pointer())

        def whole(name: str, offset: Any) -> Any:
            return builder.load(at(name, offset), align=8)

        def number(k: int) -> Any:
            return ir.Constant(start.type, k)

        def lane(vector: Any, k: int) -> Any:
            return builder.extract_element(vector, ir.Constant(_INDEX, k))

        def spread(vector: Any, k: int) -> Any:
            everywhere = ir.Constant(ir.VectorType(_INDEX, LANES), [k] * LANES)
            return builder.shuffle_vector(vector, ir.Constant(_VECTOR, ir.Undefined), everywhere)

        def filled(value: Any) -> Any:
            empty = ir.Constant(_VECTOR, ir.Undefined)
            return spread(builder.insert_element(empty, value, ir.Constant(_INDEX, 0)), 0)

        samples = whole("x", start)
        first = spread(samples, 0)
        differences = builder.fsub(samples, first)
        sums = [  # two chains, of the odd and of the even samples, so that neither waits for the other
            builder.fmul(spread(differences, k), whole("of_samples", number(LANES * k))) for k in (1, 2)
        ]
        for k in range(3, LANES):
            product = [spread(differences, k), whole("of_samples", number(LANES * k))]
            sums[(k + 1) % 2] = builder.call(fused, [*product, sums[(k + 1) % 2]])
        moved = builder.fadd(*sums)
        before, lost = filled(excess), whole("of_mean", number(0))
        excesses = builder.fadd(before, builder.call(fused, [lost, before, moved]))
        builder.store(builder.fadd(first, excesses), at("mean", start), align=8)

        # The one chain from block to block: two additions and a product.
        onward = builder.load(builder.gep(data["x"], [builder.add(start, number(LANES))]))
        known = builder.fsub(lane(moved, LANES - 1), builder.fsub(onward, lane(samples, 0)))
        carried = builder.fadd(excess, builder.fadd(builder.fmul(lane(lost, LANES - 1), excess), known))
        below = builder.fcmp_ordered("<", builder.call(magnitude, [samples]), filled(limit))
        mask = builder.bitcast(below, ir.IntType(LANES))
        present = builder.icmp_unsigned("==", mask, ir.Constant(ir.IntType(LANES), 2**LANES - 1))
        return context.make_tuple(builder, signature.return_type, [carried, present])

    return signature, code
