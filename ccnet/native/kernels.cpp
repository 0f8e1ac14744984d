// The native backend's kernels behind a plain C interface: instruction sets, threads and items of work.
//
// OpenMP symbols are left to be resolved by the OpenMP library that torch has loaded, so that both share one pool of
// threads. Nothing here knows Python or torch.

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>
#include <vector>

#include <omp.h>

namespace {

#include "layer.h"

namespace portable {
#define VECTOR_BYTES 16
#define REGISTERS 12
#define MAX_ROWS 6
#include "instruction_set.h"
}  // namespace portable

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define HAS_X86
#pragma GCC push_options
#pragma GCC target("avx2,fma")
namespace avx2 {
#define VECTOR_BYTES 32
#define REGISTERS 12
#define MAX_ROWS 6
#include "instruction_set.h"
}  // namespace avx2
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx512f,avx512vl,avx512dq,avx512bw,fma")
namespace avx512 {
#define VECTOR_BYTES 64
#define REGISTERS 24
#define MAX_ROWS 12
#include "instruction_set.h"
}  // namespace avx512
#pragma GCC pop_options
#endif

template <class T>
struct Kernels {
    int64_t (*convolve_scratch)(const Layer&);
    void (*convolve)(const Layer&, const T*, const T*, T*, const Share&, char*);
    void (*transpose_phase)(const Layer&, const T*, T*, int64_t);
    void (*input_gradient)(const Layer&, const T*, T*, int64_t, int64_t, char*);
    int64_t (*weight_gradient_scratch)(const Layer&);
    void (*weight_gradient)(const Layer&, const T*, const T*, T*, int64_t, int64_t, int64_t, int64_t, char*);
    void (*find_features)(const Layer&, int64_t, int64_t, T*, double*);
    void (*generate)(int64_t, const T*, int64_t, const T*, int64_t, T*, int64_t, int64_t);
};

template <class T>
Kernels<T> kernels_of(int instruction_set) {
#define KERNELS(set)                                                                                           \
    Kernels<T> {                                                                                               \
        set::convolve_scratch<T>, set::convolve<T>, set::transpose_phase<T>, set::input_gradient<T>,           \
            set::weight_gradient_scratch<T>, set::weight_gradient<T>, set::find_features<T>, set::generate<T>      \
    }
#ifdef HAS_X86
    if (instruction_set == 2) return KERNELS(avx512);
    if (instruction_set == 1) return KERNELS(avx2);
#endif
    return KERNELS(portable);
#undef KERNELS
}

// A layer applied to maps in one of the caller's buffers. Nothing in it depends on the call: the first value of the
// input lies `from_offset` values an image into its buffer.
struct Step {
    const Layer* layer;
    int64_t from, from_offset, to, to_offset, maps, relu;  // `maps` inputs an image; ReLU behind the bias or not
};

// Levels of steps over some images, in buffers of its own; steps of a level are independent.
struct Call {
    const Step* steps;
    const int64_t* ends;  // of each level's steps
    int64_t level_count;
    void* const* buffers;
    int64_t images;

    int64_t begin(int64_t level) const { return level ? ends[level - 1] : 0; }
    int64_t steps_of(int64_t level) const { return level < level_count ? ends[level] - begin(level) : 0; }
};

constexpr int64_t CORE_CACHE = 256 << 10;  // bytes that surely stay in a core's own cache, half of it or less
constexpr int64_t GENERATED_PHASES = 12;   // whose weights for one panel are generated together

// A step of one call, and how it is cut into items: blocks of images x parts of their pixels x groups of phases x parts
// of their panels. An item goes through the pixels of its part phase by phase.
struct Work {
    const Layer& layer;
    const void* x;
    void* y;
    int64_t relu, images, block, blocks, parts, groups, panel_parts, items;
};

Work cut(const Step& step, void* const* buffers, int64_t images, int64_t element_size, int64_t items_wanted) {
    const Layer& layer = *step.layer;
    const int64_t phases = layer.phases(), phase_bytes = layer.phase_size() * element_size;
    const char* x = static_cast<const char*>(buffers[step.from]) + images * step.from_offset * element_size;
    char* y = static_cast<char*>(buffers[step.to]) + images * step.to_offset * element_size;
    images *= step.maps;
    Work w{layer, x, y, step.relu, images, images_a_block(layer, images), 0, 1, phases, 1, 0};
    if (!layer.weights) {  // weights are generated once, for all images
        w.block = images;
        w.panel_parts = layer.panels();
        w.groups = (phases + GENERATED_PHASES - 1) / GENERATED_PHASES;
    } else if (phase_bytes > 2 * CORE_CACHE) {  // read once, panel by panel, by one thread each
        w.block = images;
        w.panel_parts = layer.panels();
    } else if (phases * phase_bytes <= CORE_CACHE) {  // all weights stay in the cache while parts of the images pass by
        w.groups = 1;
        w.parts = w.block * layer.in_h * layer.in_w * layer.c_in * element_size / (CORE_CACHE / 2);
    }
    w.blocks = (images + w.block - 1) / w.block;
    if (layer.weights) {
        const int64_t items = w.blocks * w.groups * w.panel_parts, wanted = (items_wanted + items - 1) / items;
        const int64_t tiles = w.block * (layer.out_h * layer.out_w / phases) / 6;
        if (w.parts < wanted) w.parts = wanted;
        if (w.parts > tiles) w.parts = tiles;
        if (w.parts < 1) w.parts = 1;
    }
    w.items = w.blocks * w.groups * w.panel_parts * w.parts;
    return w;
}

// Room for generating some phases' weights, a panel at a time, and where in it the parts lie.
template <class T>
struct Generating {
    int64_t features, spare, size;

    explicit Generating(const Layer& layer)
        : features(aligned(GENERATED_PHASES * layer.panel_size() * sizeof(T))),
          spare(features + aligned(GENERATED_PHASES * layer.net->features() * sizeof(T))),
          size(spare + 2 * layer.net->widest() * sizeof(double)) {}
};

// One item; `scratch` holds what `convolve` needs and, behind it, what generating does.
template <class T>
void run_item(const Kernels<T>& kernels, const Work& w, int64_t item, char* scratch) {
    const Layer& layer = w.layer;
    const int64_t panel_part = item % w.panel_parts;
    const int64_t group = (item /= w.panel_parts) % w.groups;
    const int64_t part = (item /= w.groups) % w.parts;
    const int64_t n0 = item / w.parts * w.block;
    const int64_t n1 = n0 + w.block < w.images ? n0 + w.block : w.images;
    const int64_t panels = layer.panels(), panel_size = layer.panel_size();
    const int64_t first = panels * panel_part / w.panel_parts, last = panels * (panel_part + 1) / w.panel_parts;
    const int64_t begin = layer.phases() * group / w.groups, end = layer.phases() * (group + 1) / w.groups;
    char* room = scratch + aligned(kernels.convolve_scratch(layer));
    T* generated = reinterpret_cast<T*>(room);  // of the panel `first`, [phases of the group, panel_size]
    if (!layer.weights) {
        const Generating<T> parts(layer);
        T* features = reinterpret_cast<T*>(room + parts.features);
        kernels.find_features(layer, begin, end, features, reinterpret_cast<double*>(room + parts.spare));
        kernels.generate(end - begin, features, layer.net->features(),
                         static_cast<const T*>(layer.basis) + first * panel_size, panels * panel_size, generated,
                         panel_size, panel_size);
    }
    for (int64_t phase = begin; phase < end; ++phase) {
        const T* weights = layer.weights ? static_cast<const T*>(layer.weights) + phase * layer.phase_size()
                                         : generated + (phase - begin - first) * panel_size;
        kernels.convolve(layer, weights, static_cast<const T*>(w.x), static_cast<T*>(w.y),
                         Share{n0, n1, phase, part, w.parts, first, last, w.relu}, scratch);
    }
}

template <class T>
int run(const Call* calls, int64_t call_count, int instruction_set, int threads) {
    const Kernels<T> kernels = kernels_of<T>(instruction_set);
    int64_t level_count = 0, scratch_size = 0;
    for (const Call* call = calls; call < calls + call_count; ++call)
        if (call->level_count > level_count) level_count = call->level_count;
    std::vector<Work> works;
    std::vector<int64_t> ends;    // of each work's items among those of its level
    std::vector<int64_t> levels;  // the end of each level's works
    for (int64_t level = 0; level < level_count; ++level) {
        const int64_t first = works.size();
        int64_t works_of_level = 0, end = 0;
        for (const Call* call = calls; call < calls + call_count; ++call) works_of_level += call->steps_of(level);
        const int64_t wanted = threads == 1 ? 1 : (8 * threads + works_of_level - 1) / works_of_level;
        for (const Call* call = calls; call < calls + call_count; ++call) {
            for (int64_t at = call->begin(level); at < call->begin(level) + call->steps_of(level); ++at) {
                const Work w = cut(call->steps[at], call->buffers, call->images, sizeof(T), wanted);
                works.push_back(w);
                ends.push_back(end += w.items);
                int64_t size = aligned(kernels.convolve_scratch(w.layer));
                if (!w.layer.weights) size += Generating<T>(w.layer).size;
                if (size > scratch_size) scratch_size = size;
            }
        }
        levels.push_back(first + works_of_level);
    }
    bool failed = false;
#pragma omp parallel num_threads(threads) reduction(|| : failed)
    {
        char* scratch = static_cast<char*>(std::malloc(scratch_size));
        failed = !scratch;
        for (int64_t level = 0; level < level_count; ++level) {
            const int64_t first = level ? levels[level - 1] : 0;
            const int64_t items = levels[level] > first ? ends[levels[level] - 1] : 0;
#pragma omp for schedule(dynamic)
            for (int64_t item = 0; item < items; ++item) {
                if (!scratch) continue;
                int64_t at = first;
                while (ends[at] <= item) ++at;
                run_item(kernels, works[at], item - (at > first ? ends[at - 1] : 0), scratch);
            }
        }
        std::free(scratch);
    }
    return failed;
}

template <class T>
int gradients(const Layer& layer, const T* x, const T* grad_y, T* grad_x, T* grad_w, int64_t images,
              int instruction_set, int threads) {
    const Kernels<T> kernels = kernels_of<T>(instruction_set);
    const int64_t phases = layer.phases(), panels = layer.panels();
    const int64_t columns = (layer.length() + PANEL - 1) / PANEL;
    Layer transposed = layer;
    T* weights = nullptr;
    if (grad_x) {
        weights = static_cast<T*>(std::malloc(phases * layer.k_h * columns * layer.c_out * PANEL * sizeof(T)));
        if (!weights) return 1;
        transposed.weights = weights;
    }
    int64_t block = images_a_block(layer, images);
    if (block * threads > images) block = (images + threads - 1) / threads;
    const int64_t blocks = (images + block - 1) / block;
    const int64_t row_size = aligned(64 * layer.k_h * sizeof(T*)), window_size = kernels.weight_gradient_scratch(layer);
    bool failed = false;
#pragma omp parallel num_threads(threads) reduction(|| : failed)
    {
        char* scratch = static_cast<char*>(std::malloc(row_size > window_size ? row_size : window_size));
        failed = !scratch;
        if (grad_x) {
#pragma omp for
            for (int64_t phase = 0; phase < phases; ++phase)
                kernels.transpose_phase(layer, static_cast<const T*>(layer.weights), weights, phase);
#pragma omp for schedule(dynamic) nowait
            for (int64_t b = 0; b < blocks; ++b)
                if (scratch)
                    kernels.input_gradient(transposed, grad_y, grad_x, b * block,
                                           (b + 1) * block < images ? (b + 1) * block : images, scratch);
        }
        if (grad_w) {
#pragma omp for schedule(dynamic)
            for (int64_t item = 0; item < phases * layer.k_h * panels; ++item)
                if (scratch)
                    kernels.weight_gradient(layer, x, grad_y, grad_w, images, item / panels / layer.k_h,
                                            item / panels % layer.k_h, item % panels, scratch);
        }
        std::free(scratch);
    }
    std::free(weights);
    return failed;
}

template <class T>
int generate(const Layer& layer, T* out, int instruction_set, int threads) {
    const Kernels<T> kernels = kernels_of<T>(instruction_set);
    const int64_t phases = layer.phases(), columns = layer.phase_size(), hidden = layer.net->features();
    std::vector<T> features(phases * hidden);
    std::vector<double> spare(2 * layer.net->widest());
    kernels.find_features(layer, 0, phases, features.data(), spare.data());
    constexpr int64_t step = 256;  // columns of the basis that stay in the nearest cache while they serve all phases
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t first = 0; first < columns; first += step)
        kernels.generate(phases, features.data(), hidden, static_cast<const T*>(layer.basis) + first, columns,
                         out + first, columns, first + step < columns ? step : columns - first);
    return 0;
}

}  // namespace

extern "C" {

// Raised whenever a structure or a signature below changes; checked when the library is loaded.
int ccnet_version() { return 5; }

// The best instruction set of this processor: 0 portable, 1 AVX2 with FMA, 2 AVX-512.
int ccnet_instruction_set() {
#ifdef HAS_X86
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512bw"))
        return 2;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return 1;
#endif
    return 0;
}

// Calls side by side, level by level: the threads share the steps that all of them have at a level. 0, or 1 when memory
// ran out.
int ccnet_run(const Call* calls, int64_t count, int is_double, int instruction_set, int threads) {
    try {
        return is_double ? run<double>(calls, count, instruction_set, threads)
                         : run<float>(calls, count, instruction_set, threads);
    } catch (const std::bad_alloc&) {
        return 1;
    }
}

// dL/dx and dL/dW (packed), either may be null. 0, or 1 when memory ran out.
int ccnet_gradients(const Layer* layer, const void* x, const void* grad_y, void* grad_x, void* grad_w, int64_t images,
                    int is_double, int instruction_set, int threads) {
    if (is_double)
        return gradients(*layer, static_cast<const double*>(x), static_cast<const double*>(grad_y),
                         static_cast<double*>(grad_x), static_cast<double*>(grad_w), images, instruction_set, threads);
    return gradients(*layer, static_cast<const float*>(x), static_cast<const float*>(grad_y),
                     static_cast<float*>(grad_x), static_cast<float*>(grad_w), images, instruction_set, threads);
}

// All weights of a layer that generates them, packed. 0, or 1 when memory ran out.
int ccnet_generate(const Layer* layer, void* out, int is_double, int instruction_set, int threads) {
    try {
        return is_double ? generate(*layer, static_cast<double*>(out), instruction_set, threads)
                         : generate(*layer, static_cast<float*>(out), instruction_set, threads);
    } catch (const std::bad_alloc&) {
        return 1;
    }
}
}
