// The second half of a block in training: x = scale1 x1 + shift1 + scale2 x2 + shift2, activation(x weights + bias),
// where neither x nor the gradient that reaches the product is stored.
#pragma once
#include "elementwise.h"
#include "product.h"

namespace {

// Lays out positions in float32, of which value(position, channel, lanes) are the channels of a vector.
template <class Value>
inline void lay_out_lanes(float* units, int64_t positions, int64_t channels, Value&& value) {
    lay_out<Floats>(units, positions, channels, [&](float* to, int64_t position, int64_t channel) {
        with_lanes(channels - channel, [&](auto lanes) { store(to, value(position, channel, lanes)); });
    });
}

// output = activation(x weights + bias), with its derivative, and the sums of the output and of its square
template <class T>
void pointwise_forward(
    int64_t positions, int64_t channels, Residual<T> x, const float* matrix, const float* bias,
    Activation<T> activation, T* output, T* derivative, double* sums, double* squares, int64_t threads) {
    typedef typename Fastest<T>::InTraining Arithmetic;
    const Weights<Arithmetic> weights(matrix, channels, false, threads);
    const int64_t blocks = divide_up(positions, NEAR);
    Parts sum_parts(blocks, channels), square_parts(blocks, channels);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t block = 0; block < blocks; block++) {
        const int64_t start = block * NEAR, wanted = least(NEAR, positions - start);
        float* units = (float*)scratch.reserve(weights.bands * ROOM * WIDTH);
        lay_out_lanes(units, wanted, channels, [&](int64_t position, int64_t channel, auto lanes) {
            return x.at((start + position) * channels + channel, channel, lanes);
        });
        float *block_sums = sum_parts.zeroed(block), *block_squares = square_parts.zeroed(block);
        auto emit = [&](int64_t first, int64_t last, int64_t channel, auto lanes, auto product) {
            const Vector added = load(bias + channel, lanes);
            Vector total = {}, square = {};
            for (int64_t position = first; position < last; position++) {
                const int64_t place = (start + position) * channels + channel;
                Vector found = activation.value(product(position) + added, derivative, place, lanes);
                store(output + place, found, lanes);
                total += found;
                square += found * found;
            }
            add(block_sums + channel, total, lanes);
            add(block_squares + channel, square, lanes);
        };
        const float restoring = Arithmetic::to_spread(units, wanted, weights.bands);
        multiply_positions(units, restoring, wanted, channels, weights, emit);
    }
    sum_parts.add_up(sums, threads);
    square_parts.add_up(squares, threads);
}

// The gradients of x, of weights and bias, and the sums of the first and of it times x1.
template <class T>
void pointwise_backward(
    int64_t positions, int64_t channels, Above<T> above, Residual<T> x, const float* matrix, T* input_gradient,
    float* weight_gradient, double* bias_gradient, double* sums, double* products, int64_t threads) {
    typedef typename Fastest<T>::InTraining Arithmetic;
    const Weights<Arithmetic> weights(matrix, channels, true, threads);
    const int64_t blocks = divide_up(positions, NEAR), size = weights.bands * ROOM * BAND;
    // Weight gradients of few positions would be more numbers than the maps are.
    const int64_t parts = least(blocks, least(64, positions / channels / 4 + 8));
    Parts weight_parts(parts, channels * channels), bias_parts(parts, channels);
    Parts sum_parts(parts, channels), product_parts(parts, channels);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t part = 0; part < parts; part++) {
        float *part_weights = weight_parts.zeroed(part), *part_biases = bias_parts.zeroed(part);
        float *part_sums = sum_parts.zeroed(part), *part_products = product_parts.zeroed(part);
        float* inputs = (float*)scratch.reserve(2 * size / LANES);
        float* gradients = inputs + size;
        for (int64_t block = blocks * part / parts; block < blocks * (part + 1) / parts; block++) {
            const int64_t start = block * NEAR, wanted = least(NEAR, positions - start);
            lay_out_lanes(inputs, wanted, channels, [&](int64_t position, int64_t channel, auto lanes) {
                return x.at((start + position) * channels + channel, channel, lanes);
            });
            lay_out_lanes(gradients, wanted, channels, [&](int64_t position, int64_t channel, auto lanes) {
                const Vector found = above.at((start + position) * channels + channel, channel, lanes);
                add(part_biases + channel, found, lanes);
                return found;
            });
            auto emit = [&](int64_t first, int64_t last, int64_t channel, auto lanes, auto product) {
                Vector total = {}, with_x1 = {};
                for (int64_t position = first; position < last; position++) {
                    const int64_t place = (start + position) * channels + channel;
                    store(input_gradient + place, product(position), lanes);
                    total += product(position);
                    with_x1 += product(position) * load(x.x1 + place, lanes);
                }
                add(part_sums + channel, total, lanes);
                add(part_products + channel, with_x1, lanes);
            };
            const float restoring = Arithmetic::to_spread(gradients, wanted, weights.bands);
            const float of_inputs = Arithmetic::to_load(inputs, wanted, weights.bands);
            multiply_positions(gradients, restoring, wanted, channels, weights, emit);
            add_products<Arithmetic>(gradients, inputs, restoring * of_inputs, wanted, channels, part_weights);
        }
    }
    weight_parts.add_up(weight_gradient, threads);
    bias_parts.add_up(bias_gradient, threads);
    sum_parts.add_up(sums, threads);
    product_parts.add_up(products, threads);
}

}  // namespace
