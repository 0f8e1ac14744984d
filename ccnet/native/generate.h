// The last, linear layer of an Internal-Net over all phases: out [M, columns] = features [M, H] basis [H, columns].
// Compiled for each instruction set, after convolve.h.
//
// H is about 17, so this moves more than it computes: a block of the basis stays in the nearest cache while it serves
// all phases, and every weight is written once.

template <class T, int R, int Q>
static inline void generate_tile(const T* features, const T* basis, int64_t hidden, int64_t columns, T* out) {
    using V = typename Vectors<T>::Vector;
    constexpr int L = Vectors<T>::lanes;
    V sums[R][Q];
    for (int r = 0; r < R; ++r)
        for (int q = 0; q < Q; ++q) sums[r][q] = V{};
    for (int64_t h = 0; h < hidden; ++h) {
        for (int r = 0; r < R; ++r) {
            const T value = features[r * hidden + h];
            for (int q = 0; q < Q; ++q)
                sums[r][q] += *reinterpret_cast<const V*>(basis + h * columns + q * L) * value;
        }
    }
    for (int r = 0; r < R; ++r)
        for (int q = 0; q < Q; ++q) *reinterpret_cast<V*>(out + r * columns + q * L) = sums[r][q];
}

// Columns [first, last), a multiple of PANEL, for all points.
template <class T>
static void generate(const T* features, const T* basis, T* out, int64_t points, int64_t hidden, int64_t columns,
                     int64_t first, int64_t last) {
    constexpr int Q = Vectors<T>::a_panel, R = Vectors<T>::rows < 4 ? 1 : 4;
    int64_t point = 0;
    for (; point + R <= points; point += R)
        for (int64_t c = first; c < last; c += PANEL)
            generate_tile<T, R, Q>(features + point * hidden, basis + c, hidden, columns, out + point * columns + c);
    for (; point < points; ++point)
        for (int64_t c = first; c < last; c += PANEL)
            generate_tile<T, 1, Q>(features + point * hidden, basis + c, hidden, columns, out + point * columns + c);
}
