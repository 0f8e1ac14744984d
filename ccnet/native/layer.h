// What the kernels are told about a layer, and how they cut it into items of work. Mirrored by ccnet/native/library.py.

constexpr int PANEL = 16;  // output channels of a panel
constexpr int CACHE_LINE = 64;

// The hidden layers of an Internal-Net: fully connected, with a leaky ReLU behind each.
struct Net {
    const int64_t* widths;          // [layers + 1], from 2 (an offset) to the values that weights are linear in
    const void* const* parameters;  // [layers * 2]: weights [out, in] and biases [out], one layer after the other
    int64_t layers;
    double slope;

    int64_t features() const { return widths[layers] + 1; }  // the last one is 1, by which the last bias enters
    int64_t widest() const {
        int64_t most = widths[0];
        for (int64_t layer = 1; layer <= layers; ++layer) most = widths[layer] > most ? widths[layer] : most;
        return most;
    }
};

struct Layer {
    int64_t in_h, in_w, c_in, out_h, out_w, c_out, k_h, k_w, p_h, p_w;
    const int32_t* starts_h;  // [out_h], first input row of each output row's window; may lie outside the image
    const int32_t* starts_w;  // [out_w]
    const void* weights;      // packed or transposed, see convolve.h and gradients.h; null: generated
    const void* bias;         // [panels * PANEL], or null
    const double* offsets_h;  // [p_h], of the phases; these and the following are for generating
    const double* offsets_w;  // [p_w]
    const Net* net;
    const void* basis;        // [features, panels * K_h * K_w * C_in * PANEL], what turns features into weights

    int64_t length() const { return k_w * c_in; }  // values of one row of a window, contiguous in the image
    int64_t panels() const { return (c_out + PANEL - 1) / PANEL; }
    int64_t phases() const { return p_h * p_w; }
    int64_t panel_size() const { return k_h * length() * PANEL; }  // weights of one phase and panel
    int64_t phase_size() const { return panels() * panel_size(); }
};

constexpr int64_t aligned(int64_t bytes) { return (bytes + 63) / 64 * 64; }

// The output pixels of one phase in images [n0, n1), one after the other.
struct Pixels {
    const Layer& layer;
    int64_t a, b, n, i, j, rounds_h, rounds_w, count;

    Pixels(const Layer& of, int64_t phase, int64_t n0, int64_t n1)
        : layer(of), a(phase / of.p_w), b(phase % of.p_w), n(n0), i(a), j(b),
          rounds_h((of.out_h - a + of.p_h - 1) / of.p_h), rounds_w((of.out_w - b + of.p_w - 1) / of.p_w),
          count((n1 - n0) * rounds_h * rounds_w) {}

    void skip(int64_t pixels) {
        n += pixels / (rounds_h * rounds_w);
        i = a + pixels / rounds_w % rounds_h * layer.p_h;
        j = b + pixels % rounds_w * layer.p_w;
    }
    void next() {
        if ((j += layer.p_w) < layer.out_w) return;
        j = b;
        if ((i += layer.p_h) < layer.out_h) return;
        i = a;
        ++n;
    }
    int64_t out() const { return ((n * layer.out_h + i) * layer.out_w + j) * layer.c_out; }
    int64_t image() const { return n * layer.in_h * layer.in_w * layer.c_in; }
};

// What one call works on: of images [n0, n1) the output pixels of one phase, part `part` of `parts`, for panels
// [first, last), with a ReLU behind it or not.
struct Share {
    int64_t n0, n1, phase, part, parts, first, last, relu;
};

// Images that share one reading of a phase's weights: enough for about a hundred pixels.
inline int64_t images_a_block(const Layer& layer, int64_t images) {
    const int64_t rounds = (layer.out_h * layer.out_w + layer.phases() - 1) / layer.phases();
    const int64_t block = (96 + rounds - 1) / rounds;
    return block < images ? block : images;
}
