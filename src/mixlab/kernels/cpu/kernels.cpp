// ConvMixer's operations for CPUs, called through a C interface: no headers of Python or PyTorch are needed.
//
// Activations are (images, rows, columns, channels) without gaps, float32 or bfloat16; everything of a channel alone
// (weights, scales, sums) is float32. Work is cut the same way however many threads there are, so results do not
// depend on their number. Compiled once for each instruction set; the caller picks the library.
#include <cstdlib>
#include <vector>

#include "depthwise.h"
#include "pointwise.h"

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace {

constexpr int64_t CHUNK = 8;        // images whose weight gradients are added up in order
constexpr int64_t ROWS = 256;       // positions whose sums are added up in order
constexpr int64_t NEAR = 32;        // positions whose inputs and outputs are near while all weights pass by
constexpr int64_t CACHE = 1 << 19;  // bytes of a map that a core keeps near
constexpr int64_t LINE = 64;        // bytes of a cache line: channels that are worked on together

// Scratch memory of one thread, kept from call to call.
struct Scratch {
    Vector* values = nullptr;
    int64_t size = 0;

    Vector* reserve(int64_t wanted) {
        if (wanted > size) {
            free(values);
            values = static_cast<Vector*>(aligned_alloc(64, (wanted * sizeof(Vector) + 63) / 64 * 64));
            size = wanted;
        }
        return values;
    }
    ~Scratch() { free(values); }
};
thread_local Scratch scratch;

inline int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }
inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

struct Shape {
    int64_t images, rows, columns, channels;
    int64_t kernel;

    int64_t positions() const { return rows * columns; }
    int64_t taps() const { return kernel * kernel; }
    int64_t chunks() const { return divide_up(images, CHUNK); }
};

// Weights (channels, taps) as vectors of channels; mirrored for the gradient of the input.
inline void gather_weights(const float* weights, int64_t taps, int64_t channel, int64_t left, bool mirror, Vector* to) {
    for (int64_t tap = 0; tap < taps; tap++) {
        float lanes[LANES] = {};
        for (int64_t lane = 0; lane < least(left, LANES); lane++)
            lanes[lane] = weights[(channel + lane) * taps + (mirror ? taps - 1 - tap : tap)];
        to[tap] = load(lanes);
    }
}

template <class Value>
inline void fill(Tile tile, const Shape& shape, int64_t before, Value&& value) {
    for (int64_t row = 0; row < shape.rows; row++)
        for (int64_t column = 0; column < shape.columns; column++)
            *tile.at(row + before, column + before) = value((row * shape.columns + column) * shape.channels);
}

// Sums of parts, added up in order in float64 whatever the number of threads.
class Parts {
public:
    Parts(int64_t count, int64_t size) : count(count), size(size), values(count * size) {}
    float* operator[](int64_t part) { return values.data() + part * size; }

    template <class Number>
    void add_up(Number* totals, int64_t threads) const {
#pragma omp parallel for num_threads(threads) schedule(static)
        for (int64_t first = 0; first < size; first += LINE) {
            const int64_t wanted = least(LINE, size - first);
            double sums[LINE] = {};
            for (int64_t part = 0; part < count; part++)
                for (int64_t place = 0; place < wanted; place++) sums[place] += values[part * size + first + place];
            for (int64_t place = 0; place < wanted; place++) totals[first + place] = Number(sums[place]);
        }
    }

private:
    int64_t count, size;
    std::vector<float> values;
};

// What every position of a channel is multiplied with and what is added, before the convolution.
struct Affine {
    const float *scale, *shift;
};

// One piece of a depthwise convolution: some images, and the channels of one cache line in `groups` vectors.
template <class T>
struct Item {
    static constexpr int64_t TOGETHER = LINE / sizeof(T);
    int64_t chunk, first_image, last_image, first_channel, groups;

    static int64_t count(const Shape& shape, int64_t images) {
        return divide_up(shape.images, images) * divide_up(shape.channels, TOGETHER);
    }
    static Item at(int64_t number, const Shape& shape, int64_t images) {
        const int64_t blocks = divide_up(shape.channels, TOGETHER), chunk = number / blocks;
        const int64_t first = number % blocks * TOGETHER;
        return {
            chunk, chunk * images, least((chunk + 1) * images, shape.images) - 1, first,
            divide_up(least(TOGETHER, shape.channels - first), LANES)};
    }
    // From a number of an image to its like in what comes next, which is asked for early.
    int64_t next(int64_t image, int64_t size) const {
        return image < last_image ? size : (first_image - image) * size + TOGETHER;
    }
};

// PLAIN: the convolution.
// TRAINING: the input is scale * x + shift; the output GELU(convolution), with its derivative, and the sums of the
// output and of its square.
// INFERENCE: the input is scale * x + shift; the output that plus after * GELU(convolution).
enum Mode { PLAIN, TRAINING, INFERENCE };

template <class T, Mode MODE>
void depthwise_forward(
    Shape shape, const T* x, Affine affine, const float* weights, const float* bias, const float* after, T* output,
    T* derivative, double* sums, double* squares, int64_t chunk, int64_t threads) {
    const int64_t parts = MODE == TRAINING ? shape.images : 0;
    Parts sum_parts(parts, shape.channels), square_parts(parts, shape.channels);
    const int64_t tile_size = Tile::size_of(shape.rows, shape.columns, shape.kernel);
    const int64_t before = (shape.kernel - 1) / 2, size = shape.positions() * shape.channels;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t number = 0; number < Item<T>::count(shape, chunk); number++) {
        const Item<T> item = Item<T>::at(number, shape, chunk);
        const int64_t groups = item.groups;
        Vector* memory = scratch.reserve(tile_size + groups * shape.taps());
        Tile tile{memory, Tile::width_of(shape.columns, shape.kernel)};
        Vector* gathered = memory + tile_size;
        memset((void*)memory, 0, tile_size * sizeof(Vector));
        for (int64_t group = 0; group < groups; group++) {
            const int64_t channel = item.first_channel + group * LANES;
            gather_weights(
                weights, shape.taps(), channel, shape.channels - channel, false, gathered + group * shape.taps());
        }
        for (int64_t image = item.first_image; image <= item.last_image; image++) {
            const int64_t next = item.next(image, size);
            for (int64_t group = 0; group < groups; group++) {
                const int64_t channel = item.first_channel + group * LANES;
                const int64_t offset = image * shape.positions() * shape.channels + channel;
                const T* from = x + offset;
                with_lanes(shape.channels - channel, [&](auto lanes) {
                    const Vector scale = MODE != PLAIN ? load(affine.scale + channel, lanes) : Vector{};
                    const Vector shift = MODE != PLAIN ? load(affine.shift + channel, lanes) : Vector{};
                    const Vector last_scale = MODE == INFERENCE ? load(after + channel, lanes) : Vector{};
                    const Vector added = bias ? load(bias + channel, lanes) : Vector{};
                    fill(tile, shape, before, [&](int64_t place) {
                        if (group == 0) __builtin_prefetch(from + place + next, 0, 2);
                        Vector value = load(from + place, lanes);
                        return MODE != PLAIN ? value * scale + shift : value;
                    });
                    Vector sum = {}, square = {};
                    auto emit = [&](int64_t row, int64_t column, Vector found) {
                        const int64_t place = offset + (row * shape.columns + column) * shape.channels;
                        found += added;
                        if constexpr (MODE == INFERENCE)
                            found = Gelu<T>::value(found) * last_scale + *tile.at(row + before, column + before);
                        if constexpr (MODE == TRAINING) {
                            Vector slope;
                            found = Gelu<T>::value(found, slope);
                            store(derivative + place, slope, lanes);
                            sum += found;
                            square += found * found;
                        }
                        store(output + place, found, lanes);
                    };
                    correlate_with(
                        shape.kernel, tile, shape.rows, shape.columns, gathered + group * shape.taps(), emit);
                    if (MODE == TRAINING) {
                        store(sum_parts[image] + channel, sum, lanes);
                        store(square_parts[image] + channel, square, lanes);
                    }
                });
            }
        }
    }
    if (MODE == TRAINING) {
        sum_parts.add_up(sums, threads);
        square_parts.add_up(squares, threads);
    }
}

// What the backward pass of the fused operation needs beyond the plain one's. With y = output and x = the input:
// gradient of the convolution = (a * gradient + b * y + c) * derivative, and gradient of x = scale * (the
// convolution's + gradient), for the residual connection passes it on.
template <class T>
struct Fused {
    const T *output, *derivative;
    const float *a, *b, *c;
    Affine affine;
    double *sums, *products;  // of the gradient of x before the scale, and of it times x
};

template <class T, bool FUSED>
void depthwise_backward(
    Shape shape, const T* gradient, const T* x, const float* weights, Fused<T> fused, T* input_gradient,
    float* weight_gradient, double* bias_gradient, int64_t threads) {
    const int64_t taps = shape.taps();
    const int64_t tile_size = Tile::size_of(shape.rows, shape.columns, shape.kernel);
    const int64_t before = (shape.kernel - 1) / 2, after = shape.kernel / 2;
    const int64_t size = shape.positions() * shape.channels;
    Parts sum_parts(FUSED ? shape.images : 0, shape.channels), product_parts(FUSED ? shape.images : 0, shape.channels);
    Parts weight_parts(weight_gradient ? shape.chunks() : 0, shape.channels * taps);
    Parts bias_parts(shape.chunks(), shape.channels);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t number = 0; number < Item<T>::count(shape, CHUNK); number++) {
        const Item<T> item = Item<T>::at(number, shape, CHUNK);
        const int64_t groups = item.groups;
        const int64_t width = Tile::width_of(shape.columns, shape.kernel);
        Vector* memory = scratch.reserve(2 * tile_size + groups * (2 * taps + 1));
        Tile inputs{memory, width}, above{memory + tile_size, width};
        Vector *mirrored = memory + 2 * tile_size, *totals = mirrored + groups * taps, *biases = totals + groups * taps;
        memset((void*)memory, 0, (2 * tile_size + groups * (2 * taps + 1)) * sizeof(Vector));
        for (int64_t group = 0; group < groups; group++) {
            const int64_t channel = item.first_channel + group * LANES;
            gather_weights(weights, taps, channel, shape.channels - channel, true, mirrored + group * taps);
        }
        for (int64_t image = item.first_image; image <= item.last_image; image++) {
            const int64_t next = item.next(image, size);
            for (int64_t group = 0; group < groups; group++) {
                const int64_t channel = item.first_channel + group * LANES;
                const int64_t offset = image * shape.positions() * shape.channels + channel;
                with_lanes(shape.channels - channel, [&](auto lanes) {
                    Vector a, b, c, scale, shift, total = {};
                    if constexpr (FUSED) {
                        a = load(fused.a + channel, lanes), b = load(fused.b + channel, lanes);
                        c = load(fused.c + channel, lanes);
                        scale = load(fused.affine.scale + channel, lanes),
                        shift = load(fused.affine.shift + channel, lanes);
                    }
                    fill(above, shape, after, [&](int64_t position) {
                        const int64_t place = offset + position;
                        if (group == 0) {
                            __builtin_prefetch(gradient + place + next, 0, 2);
                            __builtin_prefetch(x + place + next, 0, 2);
                        }
                        Vector value = load(gradient + place, lanes);
                        if constexpr (FUSED) {
                            if (group == 0) {
                                __builtin_prefetch(fused.output + place + next, 0, 2);
                                __builtin_prefetch(fused.derivative + place + next, 0, 2);
                            }
                            Vector inside = a * value + b * load(fused.output + place, lanes) + c;
                            value = inside * load(fused.derivative + place, lanes);
                        }
                        total += value;
                        return value;
                    });
                    biases[group] += total;
                    if (weight_gradient) {
                        fill(inputs, shape, before, [&](int64_t position) {
                            Vector value = load(x + offset + position, lanes);
                            return FUSED ? value * scale + shift : value;
                        });
                        add_weight_gradient_with(
                            shape.kernel, inputs, above.at(after, after), width, shape.rows, shape.columns,
                            totals + group * taps);
                    }
                    if (!input_gradient) return;
                    Vector sum = {}, product = {};
                    auto emit = [&](int64_t row, int64_t column, Vector found) {
                        const int64_t place = offset + (row * shape.columns + column) * shape.channels;
                        if constexpr (FUSED) {
                            found += load(gradient + place, lanes);
                            sum += found;
                            product += found * load(x + place, lanes);
                            found *= scale;
                        }
                        store(input_gradient + place, found, lanes);
                    };
                    correlate_with(shape.kernel, above, shape.rows, shape.columns, mirrored + group * taps, emit);
                    if constexpr (FUSED) {
                        store(sum_parts[image] + channel, sum, lanes);
                        store(product_parts[image] + channel, product, lanes);
                    }
                });
            }
        }
        for (int64_t group = 0; group < groups; group++) {
            const int64_t channel = item.first_channel + group * LANES, left = least(LANES, shape.channels - channel);
            with_lanes(left, [&](auto lanes) { store(bias_parts[item.chunk] + channel, biases[group], lanes); });
            if (!weight_gradient) continue;
            for (int64_t tap = 0; tap < taps; tap++)
                for (int64_t lane = 0; lane < left; lane++)
                    weight_parts[item.chunk][(channel + lane) * taps + tap] = totals[group * taps + tap][lane];
        }
    }
    bias_parts.add_up(bias_gradient, threads);
    if (weight_gradient) weight_parts.add_up(weight_gradient, threads);
    if (FUSED) {
        sum_parts.add_up(fused.sums, threads);
        product_parts.add_up(fused.products, threads);
    }
}

// Calls each(place, channel, lanes, sums, other sums) for every vector of (positions, channels); the sums of
// a channel lie where `each` adds to them, and are added up over the blocks of ROWS positions.
template <class Each>
inline void over_positions(
    int64_t positions, int64_t channels, double* totals, double* other_totals, int64_t threads, Each&& each) {
    const int64_t blocks = divide_up(positions, ROWS);
    Parts parts(totals ? blocks : 0, channels), others(other_totals ? blocks : 0, channels);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t block = 0; block < blocks; block++) {
        float *sums = parts[block], *other_sums = others[block];
        for (int64_t position = block * ROWS; position < least((block + 1) * ROWS, positions); position++) {
            const int64_t place = position * channels, full = channels / LANES * LANES;
            for (int64_t channel = 0; channel < full; channel += LANES)
                each(place + channel, channel, Full{}, sums + channel, other_sums + channel);
            if (full < channels) each(place + full, full, Partial{channels - full}, sums + full, other_sums + full);
        }
    }
    if (totals) parts.add_up(totals, threads);
    if (other_totals) others.add_up(other_totals, threads);
}

template <class Lanes>
inline void add(float* to, Vector value, Lanes lanes) {
    store(to, load(to, lanes) + value, lanes);
}

template <class T>
void gelu_forward(
    int64_t positions, int64_t channels, const T* x, T* output, T* derivative, double* sums, double* squares,
    int64_t threads) {
    auto each = [=](int64_t place, int64_t, auto lanes, float* sum, float* square) {
        Vector slope, found = Gelu<T>::value(load(x + place, lanes), slope);
        store(output + place, found, lanes);
        store(derivative + place, slope, lanes);
        add(sum, found, lanes);
        add(square, found * found, lanes);
    };
    over_positions(positions, channels, sums, squares, threads, each);
}

template <class T>
void gelu_inference(int64_t positions, int64_t channels, const T* x, T* output, int64_t threads) {
    auto each = [=](int64_t place, int64_t, auto lanes, float*, float*) {
        store(output + place, Gelu<T>::value(load(x + place, lanes)), lanes);
    };
    over_positions(positions, channels, nullptr, nullptr, threads, each);
}

// output (images, channels) = the mean of the positions
template <class T>
void mean_of_positions(
    int64_t images, int64_t positions, int64_t channels, const T* x, float* output, int64_t threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t image = 0; image < images; image++) {
        const int64_t width = divide_up(channels, LANES);
        Vector* sums = scratch.reserve(width);
        for (int64_t vector = 0; vector < width; vector++) sums[vector] = Vector{};
        for (int64_t position = 0; position < positions; position++)
            for (int64_t vector = 0; vector < width; vector++)
                with_lanes(channels - vector * LANES, [&](auto lanes) {
                    sums[vector] += load(x + (image * positions + position) * channels + vector * LANES, lanes);
                });
        for (int64_t vector = 0; vector < width; vector++)
            with_lanes(channels - vector * LANES, [&](auto lanes) {
                store(output + image * channels + vector * LANES, sums[vector] / float(positions), lanes);
            });
    }
}

// gradient of x = (gradient + a + b * output) * derivative, and its sums
template <class T>
void gelu_backward(
    int64_t positions, int64_t channels, const T* gradient, const T* output, const T* derivative, const float* a,
    const float* b, T* input_gradient, double* sums, int64_t threads) {
    auto each = [=](int64_t place, int64_t channel, auto lanes, float* sum, float*) {
        Vector inside = load(gradient + place, lanes) + load(a + channel, lanes);
        inside += load(b + channel, lanes) * load(output + place, lanes);
        Vector found = inside * load(derivative + place, lanes);
        store(input_gradient + place, found, lanes);
        add(sum, found, lanes);
    };
    over_positions(positions, channels, sums, nullptr, threads, each);
}

// output = scale1 * x1 + shift1 + scale2 * x2 + shift2
template <class T>
void add_scaled(
    int64_t positions, int64_t channels, const T* x1, Affine first, const T* x2, Affine second, T* output,
    int64_t threads) {
    auto each = [=](int64_t place, int64_t channel, auto lanes, float*, float*) {
        Vector found =
            load(x1 + place, lanes) * load(first.scale + channel, lanes) + load(first.shift + channel, lanes);
        found += load(x2 + place, lanes) * load(second.scale + channel, lanes) + load(second.shift + channel, lanes);
        store(output + place, found, lanes);
    };
    over_positions(positions, channels, nullptr, nullptr, threads, each);
}

// sums of x, and of x * y
template <class T>
void sum_products(
    int64_t positions, int64_t channels, const T* x, const T* y, double* sums, double* products, int64_t threads) {
    auto each = [=](int64_t place, int64_t, auto lanes, float* sum, float* product) {
        Vector value = load(x + place, lanes);
        add(sum, value, lanes);
        add(product, value * load(y + place, lanes), lanes);
    };
    over_positions(positions, channels, sums, products, threads, each);
}

template <class T>
std::vector<typename Panels<T>::Weight> packed(const float* weights, int64_t channels, int64_t threads) {
    const int64_t size = Panels<T>::size(channels);
    std::vector<typename Panels<T>::Weight> found(Panels<T>::count(channels) * size);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t panel = 0; panel < Panels<T>::count(channels); panel++)
        Panels<T>::fill(found.data() + panel * size, weights, panel * Panels<T>::COLUMNS, channels, channels);
    return found;
}

// Asks for one of `parts` equal parts of memory that is read next; beyond its end that does nothing.
template <class T>
inline void prefetch_part(const T* from, int64_t size, int64_t part, int64_t parts) {
    const char* bytes = (const char*)from;
    for (int64_t place = size * part / parts * sizeof(T); place < int64_t(size * (part + 1) / parts * sizeof(T));
         place += LINE)
        __builtin_prefetch(bytes + place, 0, 2);
}

// output = GELU(x weights + bias)
template <class T>
void pointwise_gelu(
    int64_t positions, int64_t channels, const T* x, const std::vector<typename Panels<T>::Weight>& weights,
    const float* bias, T* output, int64_t threads) {
    const int64_t panels = Panels<T>::count(channels);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t first = 0; first < positions; first += NEAR) {
        for (int64_t panel = 0; panel < panels; panel++) {
            auto emit = [&](int64_t position, int64_t vector, Vector found) {
                const int64_t channel = panel * Panels<T>::COLUMNS + vector * LANES;
                with_lanes(channels - channel, [&](auto lanes) {
                    found = Gelu<T>::value(found + load(bias + channel, lanes));
                    store(output + position * channels + channel, found, lanes);
                });
            };
            const auto* from = weights.data() + panel * Panels<T>::size(channels);
            prefetch_part(x + (first + NEAR) * channels, NEAR * channels, panel, panels);
            multiply_positions(x, first, least(first + NEAR, positions), channels, from, emit);
        }
    }
}

// A whole block for inference, a few images at a time: what the depthwise part writes, the pointwise finds in the
// cache.
template <class T>
void block_inference(
    Shape shape, const T* x, Affine affine, const float* taps, const float* taps_bias, const float* after,
    const float* matrix, const float* matrix_bias, T* output, int64_t threads) {
    const int64_t size = shape.positions() * shape.channels;
    const int64_t each = least(divide_up(CACHE, size * int64_t(sizeof(T))), divide_up(shape.images, threads));
    const auto weights = packed<T>(matrix, shape.channels, threads);
    std::vector<T> mixed(least(each * threads, shape.images) * size);
    for (int64_t image = 0; image < shape.images; image += each * threads) {
        Shape few = shape;
        few.images = least(each * threads, shape.images - image);
        depthwise_forward<T, INFERENCE>(
            few, x + image * size, affine, taps, taps_bias, after, mixed.data(), nullptr, nullptr, nullptr, each,
            threads);
        pointwise_gelu<T>(
            few.images * shape.positions(), shape.channels, mixed.data(), weights, matrix_bias, output + image * size,
            threads);
    }
}

}  // namespace

#define FOR_TYPE(NAME, T)                                                                                              \
    EXPORT void depthwise_forward_##NAME(                                                                              \
        int64_t threads, int64_t images, int64_t rows, int64_t columns, int64_t channels, int64_t kernel, const T* x,  \
        const float* weights, const float* bias, T* output) {                                                          \
        depthwise_forward<T, PLAIN>(                                                                                   \
            {images, rows, columns, channels, kernel}, x, {}, weights, bias, nullptr, output, nullptr, nullptr,        \
            nullptr, CHUNK, threads);                                                                                  \
    }                                                                                                                  \
    EXPORT void depthwise_backward_##NAME(                                                                             \
        int64_t threads, int64_t images, int64_t rows, int64_t columns, int64_t channels, int64_t kernel,              \
        const T* gradient, const T* x, const float* weights, T* input_gradient, float* weight_gradient,                \
        double* bias_gradient) {                                                                                       \
        depthwise_backward<T, false>(                                                                                  \
            {images, rows, columns, channels, kernel}, gradient, x, weights, {}, input_gradient, weight_gradient,      \
            bias_gradient, threads);                                                                                   \
    }                                                                                                                  \
    EXPORT void mixing_forward_##NAME(                                                                                 \
        int64_t threads, int64_t images, int64_t rows, int64_t columns, int64_t channels, int64_t kernel, const T* x,  \
        const float* scale, const float* shift, const float* weights, const float* bias, T* output, T* derivative,     \
        double* sums, double* squares) {                                                                               \
        depthwise_forward<T, TRAINING>(                                                                                \
            {images, rows, columns, channels, kernel}, x, {scale, shift}, weights, bias, nullptr, output, derivative,  \
            sums, squares, CHUNK, threads);                                                                            \
    }                                                                                                                  \
    EXPORT void block_inference_##NAME(                                                                                \
        int64_t threads, int64_t images, int64_t rows, int64_t columns, int64_t channels, int64_t kernel, const T* x,  \
        const float* scale, const float* shift, const float* taps, const float* taps_bias, const float* after,         \
        const float* matrix, const float* matrix_bias, T* output) {                                                    \
        block_inference<T>(                                                                                            \
            {images, rows, columns, channels, kernel}, x, {scale, shift}, taps, taps_bias, after, matrix, matrix_bias, \
            output, threads);                                                                                          \
    }                                                                                                                  \
    EXPORT void mixing_backward_##NAME(                                                                                \
        int64_t threads, int64_t images, int64_t rows, int64_t columns, int64_t channels, int64_t kernel,              \
        const T* gradient, const T* x, const float* scale, const float* shift, const float* weights, const T* output,  \
        const T* derivative, const float* a, const float* b, const float* c, T* input_gradient,                        \
        float* weight_gradient, double* bias_gradient, double* sums, double* products) {                               \
        depthwise_backward<T, true>(                                                                                   \
            {images, rows, columns, channels, kernel}, gradient, x, weights,                                           \
            {output, derivative, a, b, c, {scale, shift}, sums, products}, input_gradient, weight_gradient,            \
            bias_gradient, threads);                                                                                   \
    }                                                                                                                  \
    EXPORT void gelu_inference_##NAME(int64_t threads, int64_t positions, int64_t channels, const T* x, T* output) {   \
        gelu_inference(positions, channels, x, output, threads);                                                       \
    }                                                                                                                  \
    EXPORT void mean_of_positions_##NAME(                                                                              \
        int64_t threads, int64_t images, int64_t positions, int64_t channels, const T* x, float* output) {             \
        mean_of_positions(images, positions, channels, x, output, threads);                                            \
    }                                                                                                                  \
    EXPORT void gelu_forward_##NAME(                                                                                   \
        int64_t threads, int64_t positions, int64_t channels, const T* x, T* output, T* derivative, double* sums,      \
        double* squares) {                                                                                             \
        gelu_forward(positions, channels, x, output, derivative, sums, squares, threads);                              \
    }                                                                                                                  \
    EXPORT void gelu_backward_##NAME(                                                                                  \
        int64_t threads, int64_t positions, int64_t channels, const T* gradient, const T* output, const T* derivative, \
        const float* a, const float* b, T* input_gradient, double* sums) {                                             \
        gelu_backward(positions, channels, gradient, output, derivative, a, b, input_gradient, sums, threads);         \
    }                                                                                                                  \
    EXPORT void add_scaled_##NAME(                                                                                     \
        int64_t threads, int64_t positions, int64_t channels, const T* x1, const float* scale1, const float* shift1,   \
        const T* x2, const float* scale2, const float* shift2, T* output) {                                            \
        add_scaled(positions, channels, x1, {scale1, shift1}, x2, {scale2, shift2}, output, threads);                  \
    }                                                                                                                  \
    EXPORT void sum_products_##NAME(                                                                                   \
        int64_t threads, int64_t positions, int64_t channels, const T* x, const T* y, double* sums,                    \
        double* products) {                                                                                            \
        sum_products(positions, channels, x, y, sums, products, threads);                                              \
    }

FOR_TYPE(float32, float)
FOR_TYPE(bfloat16, BFloat16)
