// Forward: y = sum over taps of W[phase] x[window] + bias, for float and double.
//
// Written once with the compiler's vector types; kernels.cpp compiles it for each instruction set, defining
// VECTOR_BYTES, REGISTERS (vector sums kept at a time) and MAX_ROWS, inside a namespace of its own.
//
// Layouts (T is float or double):
//   images           x [N, H, W, C_in], y [N, H', W', C_out]                  (torch's channels_last)
//   packed weights   [P_h P_w, panels, K_h, K_w, C_in, PANEL]                 (the last panel padded with zeros)
//
// A tile is a few output pixels of one phase times a panel of output channels, its sums in registers; input rows are
// read where they are. Every sum runs over (tap row, tap column, channel) in this one order, whatever the tile, the
// batch and the number of threads: an image gives the same bits alone and in any batch.

template <class T>
struct Vectors {
    typedef T Vector __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(T)), may_alias));
    static constexpr int lanes = VECTOR_BYTES / sizeof(T);
    static constexpr int a_panel = PANEL / lanes;
    static constexpr int panel_sums = REGISTERS / a_panel;  // panels of sums that fit the registers
    static constexpr int rows = panel_sums < MAX_ROWS ? panel_sums : MAX_ROWS;  // of a tile
};

// Output pixels of one phase that are computed together.
template <class T>
struct Tile {
    bool relu;
    const T** rows;            // [K_h, windows], of each window
    T* patches;                // [windows, K_h, K_w C_in]: room for rows that reach out of the image
    int windows;               // 1 to Vectors<T>::rows
    T* out[Vectors<T>::rows];  // where the results of each window go, [C_out]
};

// The tile's first R windows, all it has, times Q panels. Memory is asked for what comes: the place of the results
// while they are summed up, and row by row the windows of the tile `next` (as many windows, or null).
template <class T, int R, int Q>
static inline __attribute__((always_inline)) void multiply_tile(const Layer& layer, const Tile<T>& tile,
                                                                const Tile<T>* next, const T* weights, int64_t panel) {
    using V = typename Vectors<T>::Vector;
    constexpr int B = Vectors<T>::a_panel, L = Vectors<T>::lanes;
    const int64_t length = layer.length(), panel_size = layer.panel_size();
    V sums[R][Q][B];
    for (int r = 0; r < R; ++r)
        for (int q = 0; q < Q; ++q) {
            for (int b = 0; b < B; ++b) sums[r][q][b] = V{};
            __builtin_prefetch(tile.out[r] + (panel + q) * PANEL, 1);
        }
    const T* w = weights + panel * panel_size;
    for (int64_t u = 0; u < layer.k_h; ++u) {
        const T* row[R];
        for (int r = 0; r < R; ++r) row[r] = tile.rows[u * R + r];
        if (next)
            for (int r = 0; r < R; ++r)
                for (int64_t c = 0; c < length; c += CACHE_LINE / sizeof(T))
                    __builtin_prefetch(next->rows[u * R + r] + c, 0, 2);
#pragma GCC unroll 2
        for (int64_t c = 0; c < length; ++c, w += PANEL) {
            V filters[Q][B];
            for (int q = 0; q < Q; ++q)
                for (int b = 0; b < B; ++b) filters[q][b] = *reinterpret_cast<const V*>(w + q * panel_size + b * L);
            for (int r = 0; r < R; ++r) {
                const T value = row[r][c];
                for (int q = 0; q < Q; ++q)
                    for (int b = 0; b < B; ++b) sums[r][q][b] += filters[q][b] * value;
            }
        }
    }
    for (int q = 0; q < Q; ++q)
        for (int b = 0; b < B; ++b) {
            const int64_t first = (panel + q) * PANEL + b * L, left = layer.c_out - first;
            if (left <= 0) return;
            V shift{};
            if (layer.bias) shift = *reinterpret_cast<const V*>(static_cast<const T*>(layer.bias) + first);
            for (int r = 0; r < R; ++r) {
                V value = sums[r][q][b] + shift;
                if (tile.relu) value = value < 0 ? V{} : value;  // keeps NaN
                if (left >= L)
                    *reinterpret_cast<V*>(tile.out[r] + first) = value;
                else
                    for (int64_t l = 0; l < left; ++l) tile.out[r][first + l] = value[l];
            }
        }
}

// Panels [first, last), Q at a time and the rest fewer at a time.
template <class T, int R, int Q>
static void multiply_panels(const Layer& layer, const Tile<T>& tile, const Tile<T>* next, const T* weights,
                            int64_t first, int64_t last) {
    for (; first + Q <= last; first += Q, next = nullptr)
        multiply_tile<T, R, Q>(layer, tile, next, weights, first);
    if constexpr (Q > 1)
        if (first < last) multiply_panels<T, R, Q / 2>(layer, tile, next, weights, first, last);
}

// The same for a number of windows known only now. Few windows take several panels at a time.
template <class T, int R = Vectors<T>::rows>
static void multiply(const Layer& layer, const Tile<T>& tile, const Tile<T>* next, const T* weights, int64_t first,
                     int64_t last) {
    constexpr int fitting = Vectors<T>::panel_sums / R;
    if (tile.windows == R)
        multiply_panels<T, R, (fitting >= 4 ? 4 : fitting >= 2 ? 2 : 1)>(layer, tile, next, weights, first, last);
    else if constexpr (R > 1)
        multiply<T, R - 1>(layer, tile, next, weights, first, last);
}

// The columns [from, to) of a window that lie inside the image.
struct Inside {
    int64_t from, to;
    Inside(const Layer& layer, int64_t left)
        : from(left < 0 ? -left : 0), to(left + layer.k_w > layer.in_w ? layer.in_w - left : layer.k_w) {}
};

// Row m of the image under a window that begins at column `left`: in place where it lies wholly inside the image, else
// copied to `patch` with zeros around it.
template <class T>
static const T* find_row(const Layer& layer, const T* image, int64_t m, int64_t left, T* patch, const T* zeros) {
    const Inside inside(layer, left);
    if (m < 0 || m >= layer.in_h || inside.from >= inside.to) return zeros;
    const T* line = image + m * layer.in_w * layer.c_in;
    if (inside.from == 0 && inside.to == layer.k_w) return line + left * layer.c_in;
    std::memset(patch, 0, layer.length() * sizeof(T));
    std::memcpy(patch + inside.from * layer.c_in, line + (left + inside.from) * layer.c_in,
                (inside.to - inside.from) * layer.c_in * sizeof(T));
    return patch;
}

// The rows of a whole window, `stride` pointers apart; `patch` has room for all of them.
template <class T>
static inline void find_rows(const Layer& layer, const T* image, int64_t top, int64_t left, const T** rows,
                             int64_t stride, T* patch, const T* zeros) {
    if (top >= 0 && top + layer.k_h <= layer.in_h && left >= 0 && left + layer.k_w <= layer.in_w) {
        const T* row = image + (top * layer.in_w + left) * layer.c_in;
        for (int64_t u = 0; u < layer.k_h; ++u, row += layer.in_w * layer.c_in) rows[u * stride] = row;
        return;
    }
    for (int64_t u = 0; u < layer.k_h; ++u)
        rows[u * stride] = find_row(layer, image, top + u, left, patch + u * layer.length(), zeros);
}

template <class T>
static int64_t convolve_scratch(const Layer& layer) {
    constexpr int64_t R = Vectors<T>::rows;
    return aligned(2 * R * layer.k_h * sizeof(T*)) +
           (1 + 2 * R * layer.k_h) * layer.length() * static_cast<int64_t>(sizeof(T));
}

// One share of a layer; `weights` are those of its phase. A tile's windows are found, and memory is asked for them,
// before the tile in front of it is computed.
template <class T>
static void convolve(const Layer& layer, const T* weights, const T* x, T* y, const Share& share, char* scratch) {
    constexpr int64_t R = Vectors<T>::rows;
    const int64_t length = layer.length(), rows = R * layer.k_h;
    const T** pointers = reinterpret_cast<const T**>(scratch);
    T* zeros = reinterpret_cast<T*>(scratch + aligned(2 * rows * sizeof(T*)));
    std::memset(zeros, 0, length * sizeof(T));
    T* patches = zeros + length;
    Tile<T> turns[2] = {{share.relu != 0, pointers, patches, 0, {}},
                        {share.relu != 0, pointers + rows, patches + rows * length, 0, {}}};
    Pixels pixel(layer, share.phase, share.n0, share.n1);
    const int64_t tiles = (pixel.count + R - 1) / R;
    const int64_t first = tiles * share.part / share.parts, last = tiles * (share.part + 1) / share.parts;
    const bool overlap_little = layer.phases() > 1;  // the windows of a single phase are near already
    int64_t done = tiles ? pixel.count * first / tiles : 0;
    pixel.skip(done);
    for (int64_t found = first; found <= last; ++found) {
        Tile<T>& coming = turns[found % 2];
        if (found < last) {
            const int64_t end = pixel.count * (found + 1) / tiles;  // tiles of even size rather than a small last one
            const int windows = coming.windows = static_cast<int>(end - done);
            const T** window = coming.rows;
            T* patch = coming.patches;
            for (int r = 0; r < windows; ++r, pixel.next(), ++window, patch += layer.k_h * length) {
                find_rows(layer, x + pixel.image(), layer.starts_h[pixel.i], layer.starts_w[pixel.j], window, windows,
                          patch, zeros);
                coming.out[r] = y + pixel.out();
            }
            done = end;
        }
        if (found == first) continue;
        const Tile<T>& tile = turns[(found - 1) % 2];
        const bool alike = overlap_little && found < last && coming.windows == tile.windows;
        multiply<T>(layer, tile, alike ? &coming : nullptr, weights, share.first, share.last);
    }
}
