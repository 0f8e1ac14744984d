// Backward: dL/dx and dL/dW from dL/dy. Compiled for each instruction set, after convolve.h.
//
//   transposed weights   [P_h P_w, K_h, panels of K_w C_in, C_out, PANEL]
//
// dL/dx: windows of dL/dx = W[phase]^T dL/dy, tile by tile in registers, added where the window lies; one thread owns
// an image. dL/dW[phase]: sums of (window values) x (dL/dy) over the phase's pixels; one thread owns an element.

template <class T>
static void transpose_phase(const Layer& layer, const T* packed, T* transposed, int64_t phase) {
    const int64_t length = layer.length(), columns = (length + PANEL - 1) / PANEL;
    packed += phase * layer.phase_size();
    transposed += phase * layer.k_h * columns * layer.c_out * PANEL;
    for (int64_t u = 0; u < layer.k_h; ++u)
        for (int64_t column = 0; column < columns; ++column)
            for (int64_t o = 0; o < layer.c_out; ++o, transposed += PANEL) {
                const T* from = packed + ((o / PANEL * layer.k_h + u) * length + column * PANEL) * PANEL + o % PANEL;
                const int64_t left = length - column * PANEL;
                for (int64_t c = 0; c < PANEL; ++c) transposed[c] = c < left ? from[c * PANEL] : T(0);
            }
}

// R rows of dL/dy times one column panel of the transposed weights, added to R windows of dL/dx.
template <class T, int R>
static inline void add_tile(const Layer& layer, const T* const* grads, const T* weights, int64_t column, T* const* to,
                            const int64_t* lefts) {
    using V = typename Vectors<T>::Vector;
    constexpr int B = Vectors<T>::a_panel, L = Vectors<T>::lanes;
    V sums[R][B];
    for (int r = 0; r < R; ++r)
        for (int b = 0; b < B; ++b) sums[r][b] = V{};
    for (int64_t o = 0; o < layer.c_out; ++o, weights += PANEL)
        for (int r = 0; r < R; ++r) {
            const T value = grads[r][o];
            for (int b = 0; b < B; ++b) sums[r][b] += *reinterpret_cast<const V*>(weights + b * L) * value;
        }
    for (int r = 0; r < R; ++r) {
        if (!to[r]) continue;  // the row lies outside the image
        const Inside inside(layer, lefts[r]);
        const int64_t first = inside.from * layer.c_in, last = inside.to * layer.c_in;
        for (int b = 0; b < B; ++b) {
            const int64_t at = column * PANEL + b * L;
            T* target = to[r] + at;
            if (at >= first && at + L <= last)
                *reinterpret_cast<V*>(target) += sums[r][b];
            else
                for (int64_t l = 0; l < L; ++l)
                    if (at + l >= first && at + l < last) target[l] += sums[r][b][l];
        }
    }
}

template <class T, int R = Vectors<T>::rows>
static void add_windows(int windows, const Layer& layer, const T* const* grads, const T* weights, T* const* to,
                        const int64_t* lefts) {
    if (windows == R) {
        const int64_t columns = (layer.length() + PANEL - 1) / PANEL;
        for (int64_t u = 0; u < layer.k_h; ++u)
            for (int64_t column = 0; column < columns; ++column, weights += layer.c_out * PANEL)
                add_tile<T, R>(layer, grads, weights, column, to + u * R, lefts);
    } else if constexpr (R > 1) {
        add_windows<T, R - 1>(windows, layer, grads, weights, to, lefts);
    }
}

// dL/dx of images [n0, n1); layer.weights are the transposed ones.
template <class T>
static void input_gradient(const Layer& layer, const T* grad_y, T* grad_x, int64_t n0, int64_t n1, char* scratch) {
    constexpr int64_t R = Vectors<T>::rows;
    const int64_t image_size = layer.in_h * layer.in_w * layer.c_in;
    const int64_t columns = (layer.length() + PANEL - 1) / PANEL;
    std::memset(grad_x + n0 * image_size, 0, (n1 - n0) * image_size * sizeof(T));
    T** to = reinterpret_cast<T**>(scratch);
    for (int64_t phase = 0; phase < layer.phases(); ++phase) {
        const T* weights = static_cast<const T*>(layer.weights) + phase * layer.k_h * columns * layer.c_out * PANEL;
        Pixels pixel(layer, phase, n0, n1);
        const int64_t tiles = (pixel.count + R - 1) / R;
        for (int64_t tile = 0, done = 0; tile < tiles; ++tile) {
            const int64_t end = pixel.count * (tile + 1) / tiles;
            const int windows = static_cast<int>(end - done);
            const T* grads[R];
            int64_t lefts[R];
            for (int r = 0; r < windows; ++r, pixel.next()) {
                grads[r] = grad_y + pixel.out();
                lefts[r] = layer.starts_w[pixel.j];
                for (int64_t u = 0; u < layer.k_h; ++u) {
                    const int64_t m = layer.starts_h[pixel.i] + u;
                    const bool in = m >= 0 && m < layer.in_h && lefts[r] < layer.in_w && lefts[r] + layer.k_w > 0;
                    to[u * windows + r] =
                        in ? grad_x + pixel.image() + (m * layer.in_w + lefts[r]) * layer.c_in : nullptr;
                }
            }
            add_windows<T>(windows, layer, grads, weights, to, lefts);
            done = end;
        }
    }
}

constexpr int64_t GRADIENT_PIXELS = 64;  // whose windows and gradients stay in the nearest caches

// R values of each window times one panel of dL/dy, summed over the pixels and added to `out` [R, PANEL].
template <class T, int R>
static inline void add_outer_products(int64_t pixels, const T* const* windows, int64_t first, const T* const* grads,
                                      T* out) {
    using V = typename Vectors<T>::Vector;
    constexpr int B = Vectors<T>::a_panel, L = Vectors<T>::lanes;
    V sums[R][B];
    for (int r = 0; r < R; ++r)
        for (int b = 0; b < B; ++b) sums[r][b] = *reinterpret_cast<const V*>(out + r * PANEL + b * L);
    for (int64_t p = 0; p < pixels; ++p) {
        V grad[B];
        for (int b = 0; b < B; ++b) grad[b] = *reinterpret_cast<const V*>(grads[p] + b * L);
        for (int r = 0; r < R; ++r) {
            const T value = windows[p][first + r];
            for (int b = 0; b < B; ++b) sums[r][b] += grad[b] * value;
        }
    }
    for (int r = 0; r < R; ++r)
        for (int b = 0; b < B; ++b) *reinterpret_cast<V*>(out + r * PANEL + b * L) = sums[r][b];
}

template <class T, int R = Vectors<T>::rows>
static void add_values(int64_t values, int64_t pixels, const T* const* windows, int64_t first, const T* const* grads,
                       T* out) {
    if (values == R)
        add_outer_products<T, R>(pixels, windows, first, grads, out);
    else if constexpr (R > 1)
        add_values<T, R - 1>(values, pixels, windows, first, grads, out);
}

template <class T>
static int64_t weight_gradient_scratch(const Layer& layer) {
    return 2 * aligned(GRADIENT_PIXELS * sizeof(T*)) +
           ((GRADIENT_PIXELS + 1) * layer.length() + GRADIENT_PIXELS * PANEL) * sizeof(T);
}

// dL/dW of one phase, tap row u and one panel, over all images; grad_w in the packed layout.
template <class T>
static void weight_gradient(const Layer& layer, const T* x, const T* grad_y, T* grad_w, int64_t images, int64_t phase,
                            int64_t u, int64_t panel, char* scratch) {
    constexpr int64_t R = Vectors<T>::rows;
    const int64_t length = layer.length(), channels = layer.c_out - panel * PANEL;
    const T** windows = reinterpret_cast<const T**>(scratch);
    const T** grads = reinterpret_cast<const T**>(scratch + aligned(GRADIENT_PIXELS * sizeof(T*)));
    T* zeros = reinterpret_cast<T*>(scratch + 2 * aligned(GRADIENT_PIXELS * sizeof(T*)));
    T* patches = zeros + length;
    T* padded = patches + GRADIENT_PIXELS * length;
    std::memset(zeros, 0, length * sizeof(T));
    grad_w += phase * layer.phase_size() + (panel * layer.k_h + u) * length * PANEL;
    std::memset(grad_w, 0, length * PANEL * sizeof(T));
    Pixels pixel(layer, phase, 0, images);
    for (int64_t done = 0; done < pixel.count;) {
        int64_t count = 0;
        for (; count < GRADIENT_PIXELS && done < pixel.count; ++done, pixel.next()) {
            const int64_t m = layer.starts_h[pixel.i] + u;
            const int64_t left = layer.starts_w[pixel.j];
            const T* row = find_row(layer, x + pixel.image(), m, left, patches + count * length, zeros);
            if (row == zeros) continue;
            const T* grad = grad_y + pixel.out() + panel * PANEL;
            if (channels < PANEL) {
                T* copy = padded + count * PANEL;
                for (int64_t o = 0; o < PANEL; ++o) copy[o] = o < channels ? grad[o] : T(0);
                grad = copy;
            }
            windows[count] = row;
            grads[count++] = grad;
        }
        for (int64_t first = 0; first < length; first += R)
            add_values<T>(length - first < R ? length - first : R, count, windows, first, grads,
                          grad_w + first * PANEL);
    }
}
