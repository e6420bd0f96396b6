"""Products of a few rows with one matrix, over and over: the matrix packed once, a tile of the result held in registers.

A library's matrix product packs the matrix at every call and, on rows this few, leaves half of the processor idle. The sums run over the
depth in order whatever rows are beside them, so that a trial's gradient does not depend on the trials it is computed with.
"""

from __future__ import annotations

from collections.abc import Callable

import llvmlite.binding
import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from fitspike.kernels.compiling import cached

_HAS_WIDE_REGISTERS = bool(llvmlite.binding.get_host_cpu_features().get("avx512f", False))
_VECTOR_BYTES = 64 if _HAS_WIDE_REGISTERS else 32
_N_VECTORS = 2
MAX_ROWS = 8 if _HAS_WIDE_REGISTERS else 4
"""Rows of a tile: with two vectors a row, more would not fit into the registers."""

PANEL_BYTES = _N_VECTORS * _VECTOR_BYTES
"""Width of a panel, the columns that a tile spans."""


def packed(matrix: np.ndarray) -> np.ndarray:
    """Return a matrix (depth, n_columns) in panels, (n_panels, depth, panel width), the last filled up with zeros."""
    width = PANEL_BYTES // matrix.itemsize
    depth, n_columns = matrix.shape
    n_panels = -(-n_columns // width)
    full = np.zeros((depth, n_panels * width), dtype=matrix.dtype)
    full[:, :n_columns] = matrix
    return np.ascontiguousarray(full.reshape(depth, n_panels, width).transpose(1, 0, 2))


def _tile(n_rows: int) -> Callable[..., None]:
    """Return a function that fills `n_rows` rows of one panel of the result; all arrays are flat."""

    @intrinsic
    def tile(typing_context, rows, row_at, row_stride, panel, panel_at, depth, result, result_at, result_stride):
        signature = types.void(rows, types.intp, types.intp, panel, types.intp, types.intp, result, types.intp, types.intp)

        def generate(context, builder, signature, arguments):
            data = [cgutils.create_struct_proxy(signature.args[at])(context, builder, value=arguments[at]).data for at in (0, 3, 6)]
            scalar = signature.args[0].dtype
            item_bytes = scalar.bitwidth // 8
            lanes = _VECTOR_BYTES // item_bytes
            vector, index, lane = ir.VectorType(context.get_value_type(scalar), lanes), ir.IntType(64), ir.IntType(32)
            undefined = ir.Constant(vector, ir.Undefined)
            multiply_add = cgutils.get_or_insert_function(
                builder.module, ir.FunctionType(vector, [vector] * 3), f"llvm.fma.v{lanes}f{scalar.bitwidth}"
            )

            def at(pointer, *offsets):
                for offset in offsets:
                    pointer = builder.gep(pointer, [offset if isinstance(offset, ir.Value) else ir.Constant(index, offset)])
                return pointer

            def vector_at(pointer):
                return builder.bitcast(pointer, vector.as_pointer())

            row = [at(data[0], arguments[1], builder.mul(arguments[2], ir.Constant(index, r))) for r in range(n_rows)]
            first = at(data[1], arguments[4])
            sums = [[cgutils.alloca_once_value(builder, ir.Constant(vector, None)) for _ in range(_N_VECTORS)] for _ in range(n_rows)]
            with cgutils.for_range(builder, arguments[5], intp=index) as loop:
                here = at(first, builder.mul(loop.index, ir.Constant(index, _N_VECTORS * lanes)))
                columns = [builder.load(vector_at(at(here, v * lanes)), align=item_bytes) for v in range(_N_VECTORS)]
                for r in range(n_rows):
                    one = builder.insert_element(undefined, builder.load(at(row[r], loop.index)), ir.Constant(lane, 0))
                    spread = builder.shuffle_vector(one, undefined, ir.Constant(ir.VectorType(lane, lanes), [0] * lanes))
                    for v in range(_N_VECTORS):
                        builder.store(builder.call(multiply_add, [spread, columns[v], builder.load(sums[r][v])]), sums[r][v])
            for r in range(n_rows):
                target = at(data[2], arguments[7], builder.mul(arguments[8], ir.Constant(index, r)))
                for v in range(_N_VECTORS):
                    builder.store(builder.load(sums[r][v]), vector_at(at(target, v * lanes)), align=item_bytes)
            return context.get_dummy_value()

        return signature, generate

    return tile


_tile_1, _tile_2, _tile_3, _tile_4, _tile_5, _tile_6, _tile_7, _tile_8 = (_tile(n) for n in range(1, 9))


@cached(numba.njit, nogil=True)
def product(rows, row_at, row_stride, n_rows, depth, panels, panel_at, result):
    """Fill result (n_rows, at least n_panels * width): sum over d < depth of row[r, d] times the packed matrix from its row `panel_at` on.

    `rows` is flat; row r begins at row_at + r row_stride.
    """
    width = panels.shape[2]
    stride = result.shape[1]
    flat_panels, flat = panels.reshape(panels.size), result.reshape(result.size)
    for p in range(panels.shape[0]):
        panel = (p * panels.shape[1] + panel_at) * width
        for r in range(0, n_rows, MAX_ROWS):
            m, a, o = min(MAX_ROWS, n_rows - r), row_at + r * row_stride, r * stride + p * width
            if m == 8:
                _tile_8(rows, a, row_stride, flat_panels, panel, depth, flat, o, stride)
            elif m == 7:
                _tile_7(rows, a, row_stride, flat_panels, panel, depth, flat, o, stride)
            elif m == 6:
                _tile_6(rows, a, row_stride, flat_panels, panel, depth, flat, o, stride)
            elif m == 5:
                _tile_5(rows, a, row_stride, flat_panels, panel, depth, flat, o, stride)
            elif m == 4:
                _tile_4(rows, a, row_stride, flat_panels, panel, depth, flat, o, stride)
            elif m == 3:
                _tile_3(rows, a, row_stride, flat_panels, panel, depth, flat, o, stride)
            elif m == 2:
                _tile_2(rows, a, row_stride, flat_panels, panel, depth, flat, o, stride)
            else:
                _tile_1(rows, a, row_stride, flat_panels, panel, depth, flat, o, stride)
