// Blocks for inference: batch normalisation is gone, and maps stay in the cache.
#pragma once
#include "mixing.h"
#include "product.h"

namespace {

template <class T>
using WeightsOf = Weights<typename Fastest<T>::Arithmetic>;

// output = activation(x weights + bias), of every image by itself
template <class T>
void pointwise_inference(
    const Shape& shape, const T* x, const WeightsOf<T>& weights, const float* bias, Activation<T> activation, T* output,
    int64_t threads) {
    typedef typename Fastest<T>::Arithmetic Arithmetic;
    const int64_t positions = shape.positions(), channels = shape.channels, parts = divide_up(positions, NEAR);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t part = 0; part < shape.images * parts; part++) {
        const int64_t done = part % parts * NEAR, start = part / parts * positions + done;
        const int64_t wanted = least(NEAR, positions - done);
        float* units = (float*)scratch.reserve(weights.bands * ROOM * WIDTH);
        lay_out<Arithmetic>(units, wanted, channels, [&](float* to, int64_t position, int64_t channel) {
            Arithmetic::store_units(to, x + (start + position) * channels + channel, channels - channel);
        });
        const float restoring = Arithmetic::to_spread(units, wanted, weights.bands);
        auto emit = [&](int64_t first, int64_t last, int64_t channel, auto lanes, auto sum) {
            const Vector added = load(bias + channel, lanes);
            for (int64_t position = first; position < last; position++)
                store(output + (start + position) * channels + channel, activation.value(sum(position) + added), lanes);
        };
        multiply_positions(units, restoring, wanted, channels, weights, emit);
    }
}

// What a block is made of, in the order in which the caller gives it.
struct BlockParameters {
    const float *scale, *shift;  // before the block
    const float *taps, *taps_bias, *after;
    const float *matrix, *matrix_bias;
    int64_t kernel;
};

// Takes images through all blocks. What a block writes, the next finds in the cache, if they are few.
template <class T>
void through_blocks(
    Shape shape, int64_t depth, const T* x, const BlockParameters* blocks, const std::vector<WeightsOf<T>>& weights,
    Activation<T> activation, T* memory, T* output, int64_t threads) {
    const int64_t size = shape.images * shape.positions() * shape.channels;
    T *mixed = memory, *between = memory + size;
    for (int64_t block = 0; block < depth; block++) {
        const BlockParameters& of = blocks[block];
        shape.kernel = of.kernel;
        depthwise_forward<T, INFERENCE>(
            shape, block ? between : x, {of.scale, of.shift}, of.taps, of.taps_bias, of.after, mixed, nullptr, nullptr,
            nullptr, activation, divide_up(shape.images, threads), threads);
        pointwise_inference<T>(
            shape, mixed, weights[block], of.matrix_bias, activation, block + 1 < depth ? between : output, threads);
    }
}

// Blocks for inference: each thread takes one image after the other through all of them; together they take what does
// not divide among them. `memory` has room for two maps of so many images as there are threads.
template <class T>
void blocks_inference(
    Shape shape, int64_t depth, const T* x, const BlockParameters* blocks, Activation<T> activation, T* memory,
    T* output, int64_t threads) {
    std::vector<WeightsOf<T>> weights;
    for (int64_t block = 0; block < depth; block++)
        weights.emplace_back(blocks[block].matrix, shape.channels, false, threads);
    const int64_t size = shape.positions() * shape.channels, alone = shape.images / threads * threads;
    Shape one = shape, rest = shape;
    one.images = 1, rest.images = shape.images - alone;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t part = 0; part < threads; part++)
        for (int64_t image = alone / threads * part; image < alone / threads * (part + 1); image++)
            through_blocks(
                one, depth, x + image * size, blocks, weights, activation, memory + 2 * part * size,
                output + image * size, 1);
    if (rest.images)
        through_blocks(
            rest, depth, x + alone * size, blocks, weights, activation, memory, output + alone * size, threads);
}

}  // namespace
