// Blocks for inference: batch normalisation is gone, and maps stay in the cache.
#pragma once
#include "mixing.h"
#include "pointwise.h"

namespace {

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

// What a block is made of, in the order in which the caller gives it.
struct BlockParameters {
    const float *scale, *shift;  // before the block
    const float *taps, *taps_bias, *after;
    const float *matrix, *matrix_bias;
    int64_t kernel;
};

template <class T>
using Packed = std::vector<std::vector<typename Panels<T>::Weight>>;

// Takes images through all blocks. What a block writes, the next finds in the cache, if they are few.
template <class T>
void through_blocks(
    Shape shape, int64_t depth, const T* x, const BlockParameters* blocks, const Packed<T>& weights, T* memory,
    T* output, int64_t threads) {
    const int64_t size = shape.images * shape.positions() * shape.channels;
    T *mixed = memory, *between = memory + size;
    for (int64_t block = 0; block < depth; block++) {
        const BlockParameters& of = blocks[block];
        shape.kernel = of.kernel;
        depthwise_forward<T, INFERENCE>(
            shape, block ? between : x, {of.scale, of.shift}, of.taps, of.taps_bias, of.after, mixed, nullptr, nullptr,
            nullptr, divide_up(shape.images, threads), threads);
        pointwise_gelu<T>(
            shape.images * shape.positions(), shape.channels, mixed, weights[block], of.matrix_bias,
            block + 1 < depth ? between : output, threads);
    }
}

// Blocks for inference: each thread takes one image after the other through all of them; together they take what does
// not divide among them. `memory` has room for two maps of so many images as there are threads.
template <class T>
void blocks_inference(
    Shape shape, int64_t depth, const T* x, const BlockParameters* blocks, T* memory, T* output, int64_t threads) {
    Packed<T> weights;
    for (int64_t block = 0; block < depth; block++)
        weights.push_back(packed<T>(blocks[block].matrix, shape.channels, threads));
    const int64_t size = shape.positions() * shape.channels, alone = shape.images / threads * threads;
    Shape one = shape, rest = shape;
    one.images = 1, rest.images = shape.images - alone;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t part = 0; part < threads; part++)
        for (int64_t image = alone / threads * part; image < alone / threads * (part + 1); image++)
            through_blocks(
                one, depth, x + image * size, blocks, weights, memory + 2 * part * size, output + image * size, 1);
    if (rest.images)
        through_blocks(rest, depth, x + alone * size, blocks, weights, memory, output + alone * size, threads);
}

}  // namespace
