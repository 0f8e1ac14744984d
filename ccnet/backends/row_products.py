"""Polyphase convolution as batches of small matrix products that read and write in place, for CPUs and large batches.

Layout. With the images innermost, x as [H, W, C_in, N], K_w neighbouring pixels of a row are one contiguous
(K_w C_in) x N matrix. The output pixel (i, j) = (a + t P_h, b + r P_w) of phase (a, b) is then

    y[i, j] = sum over u of  W[a, b, u]  @  x[start_i + u, start_j : start_j + K_w]        (C_out x N)

with W[a, b, u] the C_out x (K_w C_in) matrix of vertical tap u. For one output row i, one tap u and one period r of
columns these are P_w products of the same shape at equal distances in memory: one call of a batched GEMM. The columns'
windows are laid side by side (K_w copies of the input, a band of rows at a time); the vertical taps are read where they
are.

Tensors keep the shape [N, C, H, W] outside; only their strides say that the images are innermost, so that consecutive
layers hand their maps on without a copy.
"""

from typing import Any

import torch
from torch import Tensor

from ccnet.backends.gathering import gather
from ccnet.grid import AxisGrid

BAND_BYTES = 6 * 2**20  # of column windows that are made together; as many bands live as a window's rows reach


class RowProducts(torch.autograd.Function):
    """y [N, C_out, H', W'] from x [N, C_in, H, W] and phase weights [P_h, P_w, C_out, C_in, K_h, K_w]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weights: Tensor, vertical: AxisGrid, horizontal: AxisGrid) -> Tensor:
        """y, with its images innermost in memory."""
        ctx.save_for_backward(x, weights)
        ctx.vertical, ctx.horizontal = vertical, horizontal
        pixels, filters = _pixels(x), _filters(weights)
        taps_of_phase = _by_phase_and_tap(filters.flatten(4))
        windows = _WindowBands(pixels, horizontal)  # of each row and period, [<= P_w, K_w C_in, N]
        out = pixels.new_empty(vertical.out_size, horizontal.out_size, filters.shape[3], pixels.shape[3])
        for i, products in enumerate(_by_row_and_period(out, horizontal)):
            inside = _taps_inside(i, vertical)
            windows.forget_before(vertical.starts[i])
            if not inside:
                out[i] = 0
            for u, m in inside:
                filters_of_tap = taps_of_phase[i % vertical.period][u]
                for product, window in zip(products, windows[m], strict=True):
                    _multiply(filters_of_tap[: len(product)], window, product, add=(u, m) != inside[0])
        return out.permute(3, 2, 0, 1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        """(dL/dx, dL/dweights) from dL/dy; the column windows are built again rather than kept."""
        if torch.is_grad_enabled():  # create_graph=True: the gradients are to be differentiated in their turn
            return _differentiable_gradients(ctx, grads[0])
        x, weights = ctx.saved_tensors
        pixels, filters = _pixels(x), _filters(weights)
        vertical, horizontal = ctx.vertical, ctx.horizontal
        grad_out = _pixels(grads[0])  # [H', W', C_out, N]
        grad_x = grad_weights = None
        if ctx.needs_input_grad[0]:
            grad_x = _input_gradient(grad_out, pixels, filters.flatten(4), vertical, horizontal).permute(3, 2, 0, 1)
        if ctx.needs_input_grad[1]:
            grad_weights = _weight_gradient(grad_out, pixels, filters, vertical, horizontal).permute(0, 1, 3, 5, 2, 4)
        return grad_x, grad_weights, None, None


def _differentiable_gradients(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
    """(dL/dx, dL/dweights) by `gather`, the same function made of operations that have gradients of any order."""
    x, weights = ctx.saved_tensors
    of_x, of_weights = ctx.needs_input_grad[:2]
    inputs = [tensor for tensor, needed in ((x, of_x), (weights, of_weights)) if needed]
    out = gather(x, weights, ctx.vertical, ctx.horizontal)
    grads = torch.autograd.grad(out, inputs, grad_out, create_graph=True)
    return grads[0] if of_x else None, grads[-1] if of_weights else None, None, None


def _pixels(x: Tensor) -> Tensor:
    """[N, C, H, W] -> [H, W, C, N], a view when the images are innermost already."""
    return x.permute(2, 3, 1, 0).contiguous()


def _filters(weights: Tensor) -> Tensor:
    """[P_h, P_w, C_out, C_in, K_h, K_w] -> [P_h, P_w, K_h, C_out, K_w, C_in], a view when generated in that order."""
    return weights.permute(0, 1, 4, 2, 5, 3).contiguous()


def _input_gradient(
    grad_out: Tensor, pixels: Tensor, filters: Tensor, vertical: AxisGrid, horizontal: AxisGrid
) -> Tensor:
    """dL/dx [H, W, C_in, N]: the transposed products, added up where windows overlap."""
    windows = _GradientBands(pixels, horizontal)
    taps_of_phase = _by_phase_and_tap(filters.transpose(3, 4))
    written = set()
    for i, grads in enumerate(_by_row_and_period(grad_out, horizontal)):
        windows.add_up_before(vertical.starts[i])
        for u, m in _taps_inside(i, vertical):
            filters_of_tap = taps_of_phase[i % vertical.period][u]
            for product, grad in zip(windows[m], grads, strict=True):
                _multiply(filters_of_tap[: len(product)], grad, product, add=m in written)
            written.add(m)
    windows.add_up_before(vertical.in_size)
    return windows.out


def _weight_gradient(
    grad_out: Tensor, pixels: Tensor, filters: Tensor, vertical: AxisGrid, horizontal: AxisGrid
) -> Tensor:
    """dL/dW [P_h, P_w, K_h, C_out, K_w, C_in]: for each phase and tap the sum over its output pixels and images."""
    windows = _WindowBands(pixels, horizontal, transposed=True)  # each [<= P_w, N, K_w C_in]
    phases_h, phases_w, taps, *matrix = filters.shape
    grad = filters.new_zeros(phases_h, taps, phases_w, *matrix)
    products = grad.flatten(4)  # its slices [P_w, C_out, K_w C_in] are contiguous, which the batched GEMM asks for
    for i, grads in enumerate(_by_row_and_period(grad_out, horizontal)):
        windows.forget_before(vertical.starts[i])
        for u, m in _taps_inside(i, vertical):
            product = products[i % vertical.period, u]
            for r, (grad_of_period, window) in enumerate(zip(grads, windows[m], strict=True)):
                first = i < vertical.period and r == 0
                _multiply(grad_of_period, window, product[: len(window)], add=not first)
    return grad.transpose(1, 2)


def _multiply(a: Tensor, b: Tensor, out: Tensor, *, add: bool) -> None:
    """out = a @ b, or out += a @ b: batches of matrices.

    `bmm` writes without reading, while `baddbmm_` copies `out` onto itself even at beta = 0.
    """
    if add:
        out.baddbmm_(a, b)
    else:
        torch.bmm(a, b, out=out)


def _taps_inside(i: int, vertical: AxisGrid) -> list[tuple[int, int]]:
    """(tap u, input row) of output row i, without the rows of the zero padding."""
    start = vertical.starts[i]
    return [(u, start + u) for u in range(vertical.kernel_size) if 0 <= start + u < vertical.in_size]


def _by_row_and_period(rows: Tensor, horizontal: AxisGrid) -> list[tuple[Tensor, ...]]:
    """[H, W', ...] as views: for each row its columns, one period of phases at a time (the last may be cut short)."""
    return [row.split(horizontal.period) for row in rows.unbind(0)]


def _by_phase_and_tap(filters: Tensor) -> list[tuple[Tensor, ...]]:
    """[P_h, P_w, K_h, ...] as views [P_w, ...], one for each vertical phase and tap."""
    return [taps.unbind(1) for taps in filters.unbind(0)]


def _windows_inside(horizontal: AxisGrid) -> list[tuple[int, slice, slice]]:
    """(output column, its taps that lie inside the input, their input columns); taps outside see zero padding."""
    inside = []
    for j, start in enumerate(horizontal.starts):
        first, end = max(start, 0), min(start + horizontal.kernel_size, horizontal.in_size)
        if first >= end:
            first = end = start = 0  # no tap inside
        inside.append((j, slice(first - start, end - start), slice(first, end)))
    return inside


def _rows_a_band(pixels: Tensor, horizontal: AxisGrid) -> int:
    """Input rows whose column windows are about `BAND_BYTES`."""
    row = horizontal.out_size * horizontal.kernel_size * pixels[0, 0].numel() * pixels.element_size()
    return int(max(1, BAND_BYTES // max(1, row)))


class _WindowBands:
    """The column windows of input rows, made a band at a time when first asked for and forgotten in order.

    Windows of one row serve the output rows that reach it, which follow one another.
    """

    def __init__(self, pixels: Tensor, horizontal: AxisGrid, *, transposed: bool = False) -> None:
        self._pixels, self._horizontal, self._transposed = pixels, horizontal, transposed
        self._rows = _rows_a_band(pixels, horizontal)
        self._bands: dict[int, list[tuple[Tensor, ...]]] = {}

    def __getitem__(self, m: int) -> tuple[Tensor, ...]:
        """Of row m, one period of phases at a time."""
        band, row = divmod(m, self._rows)
        if band not in self._bands:
            windows = _column_windows(self._pixels[band * self._rows : (band + 1) * self._rows], self._horizontal)
            windows = windows.transpose(2, 3) if self._transposed else windows
            self._bands[band] = _by_row_and_period(windows, self._horizontal)
        return self._bands[band][row]

    def forget_before(self, m: int) -> None:
        """Rows before m are not asked for again."""
        for band in [band for band in self._bands if (band + 1) * self._rows <= m]:
            del self._bands[band]


class _GradientBands:
    """Gradients with respect to column windows, a band of rows at a time, added up to those of the pixels in order.

    Attributes:
        out: dL/dx [H, W, C, N], of the rows added up so far; 0 elsewhere.
    """

    def __init__(self, pixels: Tensor, horizontal: AxisGrid) -> None:
        self.out = torch.zeros_like(pixels)
        self._horizontal = horizontal
        self._rows = _rows_a_band(pixels, horizontal)
        self._bands: dict[int, tuple[Tensor, list[tuple[Tensor, ...]]]] = {}

    def __getitem__(self, m: int) -> tuple[Tensor, ...]:
        """Of row m, one period of phases at a time; 0 before it is written."""
        band, row = divmod(m, self._rows)
        if band not in self._bands:
            rows = len(self.out[band * self._rows : (band + 1) * self._rows])
            width, (channels, images) = self._horizontal.kernel_size, self.out.shape[2:]
            windows = self.out.new_zeros(rows, self._horizontal.out_size, width * channels, images)
            self._bands[band] = windows, _by_row_and_period(windows, self._horizontal)
        return self._bands[band][1][row]

    def add_up_before(self, m: int) -> None:
        """Rows before m are complete."""
        for band in [band for band in self._bands if (band + 1) * self._rows <= m or m == len(self.out)]:
            windows, _ = self._bands.pop(band)
            first = band * self._rows
            _add_column_windows(windows, self.out[first : first + len(windows)], self._horizontal)


def _column_windows(pixels: Tensor, horizontal: AxisGrid) -> Tensor:
    """The K_w neighbours of every output column side by side: [H, W, C, N] -> [H, W', K_w C, N]."""
    height, _, channels, images = pixels.shape
    windows = pixels.new_empty(height, horizontal.out_size, horizontal.kernel_size, channels, images)
    for j, taps, columns in _windows_inside(horizontal):
        if taps.stop - taps.start < horizontal.kernel_size:
            windows[:, j] = 0
        windows[:, j, taps] = pixels[:, columns]
    return windows.flatten(2, 3)


def _add_column_windows(windows: Tensor, out: Tensor, horizontal: AxisGrid) -> None:
    """The adjoint of `_column_windows`: [H, W', K_w C, N] added to [H, W, C, N]."""
    slices = windows.unflatten(2, (horizontal.kernel_size, -1))
    for j, taps, columns in _windows_inside(horizontal):
        out[:, columns] += slices[:, j, taps]
