// The last, linear layer of an Internal-Net: weights [M, columns] = features [M, H] basis [H, columns].
// Compiled for each instruction set, after convolve.h.
//
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
