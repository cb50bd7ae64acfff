// Depthwise convolutions over all images and channels, plain and fused with what stands around them in a block.
#pragma once
#include "depthwise.h"
#include "memory.h"

namespace {

// What every position of a channel is multiplied with and what is added, before the convolution.
struct Affine {
    const float *scale, *shift;
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

// PLAIN: the convolution.
// TRAINING: the input is scale * x + shift; the output activation(convolution), with its derivative, and the sums of
// the output and of its square.
// INFERENCE: the input is scale * x + shift; the output that plus after * activation(convolution).
enum Mode { PLAIN, TRAINING, INFERENCE };

template <class T, Mode MODE>
void depthwise_forward(
    Shape shape, const T* x, Affine affine, const float* weights, const float* bias, const float* after, T* output,
    T* derivative, double* sums, double* squares, Activation<T> activation, int64_t chunk, int64_t threads) {
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
                            found = activation.value(found) * last_scale + *tile.at(row + before, column + before);
                        if constexpr (MODE == TRAINING) {
                            found = activation.value(found, derivative, place, lanes);
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
                                if (fused.derivative) __builtin_prefetch(fused.derivative + place + next, 0, 2);
                            }
                            const Vector y = load(fused.output + place, lanes);
                            value = (a * value + b * y + c) *
                                    Activation<T>::derivative(fused.derivative, place, y, lanes);
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

}  // namespace
