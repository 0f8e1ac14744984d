// Weights from an Internal-Net: its features at each phase's offset, then its last, linear layer, weights [M, columns] =
// features [M, H] basis [H, columns]. Compiled for each instruction set, after convolve.h.
//
// The features are computed in double: they are few, and each is used for thousands of weights.

// The features of phases [begin, end), one after the other; `spare` has room for twice the widest layer.
template <class T>
static void find_features(const Layer& layer, int64_t begin, int64_t end, T* out, double* spare) {
    const Net& net = *layer.net;
    double *from = spare, *to = spare + net.widest();
    for (int64_t phase = begin; phase < end; ++phase) {
        from[0] = layer.offsets_h[phase / layer.p_w];
        from[1] = layer.offsets_w[phase % layer.p_w];
        for (int64_t l = 0; l < net.layers; ++l) {
            const T* weights = static_cast<const T*>(net.parameters[2 * l]);
            const T* biases = static_cast<const T*>(net.parameters[2 * l + 1]);
            for (int64_t o = 0; o < net.widths[l + 1]; ++o, weights += net.widths[l]) {
                double sum = biases[o];
                for (int64_t i = 0; i < net.widths[l]; ++i) sum += weights[i] * from[i];
                to[o] = sum < 0 ? sum * net.slope : sum;
            }
            double* const free = from;
            from = to;
            to = free;
        }
        for (int64_t i = 0; i < net.widths[net.layers]; ++i) *out++ = static_cast<T>(from[i]);
        *out++ = 1;
    }
}

// H is about 17, so this moves more than it computes: a column of the basis is read once for several points, whose sums
// stay in registers, and every weight is written once.

template <class T, int R>
static inline void generate_rows(const T* features, int64_t hidden, const T* basis, int64_t basis_stride, T* out,
                                 int64_t out_stride, int64_t columns) {
    using V = typename Vectors<T>::Vector;
    constexpr int B = Vectors<T>::a_panel, L = Vectors<T>::lanes;
    for (int64_t c = 0; c < columns; c += PANEL) {
        V sums[R][B];
        for (int r = 0; r < R; ++r)
            for (int b = 0; b < B; ++b) sums[r][b] = V{};
        for (int64_t h = 0; h < hidden; ++h) {
            V column[B];
            for (int b = 0; b < B; ++b) column[b] = *reinterpret_cast<const V*>(basis + h * basis_stride + c + b * L);
            for (int r = 0; r < R; ++r) {
                const T value = features[r * hidden + h];
                for (int b = 0; b < B; ++b) sums[r][b] += column[b] * value;
            }
        }
        for (int r = 0; r < R; ++r)
            for (int b = 0; b < B; ++b) *reinterpret_cast<V*>(out + r * out_stride + c + b * L) = sums[r][b];
    }
}

// `columns`, a multiple of PANEL, of all points; strides in values.
template <class T, int R = Vectors<T>::rows>
static void generate(int64_t points, const T* features, int64_t hidden, const T* basis, int64_t basis_stride, T* out,
                     int64_t out_stride, int64_t columns) {
    for (; points >= R; points -= R, features += R * hidden, out += R * out_stride)
        generate_rows<T, R>(features, hidden, basis, basis_stride, out, out_stride, columns);
    if constexpr (R > 1)
        if (points) generate<T, R / 2>(points, features, hidden, basis, basis_stride, out, out_stride, columns);
}
