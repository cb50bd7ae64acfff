// Operations that treat every position alone, with the sums of their results.
#pragma once
#include "memory.h"
#include "mixing.h"

namespace {

// Calls each(place, channel, lanes, sums, other sums) for every vector of (positions, channels); the sums of
// a channel lie where `each` adds to them, and are added up over the blocks of ROWS positions.
template <class Each>
inline void over_positions(
    int64_t positions, int64_t channels, double* totals, double* other_totals, int64_t threads, Each&& each) {
    const int64_t blocks = divide_up(positions, ROWS);
    Parts parts(totals ? blocks : 0, channels), others(other_totals ? blocks : 0, channels);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t block = 0; block < blocks; block++) {
        float* sums = totals ? parts.zeroed(block) : nullptr;
        float* other_sums = other_totals ? others.zeroed(block) : nullptr;
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

template <class T>
void activation_forward(
    int64_t positions, int64_t channels, const T* x, Activation<T> activation, T* output, T* derivative, double* sums,
    double* squares, int64_t threads) {
    auto each = [=](int64_t place, int64_t, auto lanes, float* sum, float* square) {
        Vector found = activation.value(load(x + place, lanes), derivative, place, lanes);
        store(output + place, found, lanes);
        add(sum, found, lanes);
        add(square, found * found, lanes);
    };
    over_positions(positions, channels, sums, squares, threads, each);
}

template <class T>
void activation_inference(
    int64_t positions, int64_t channels, const T* x, Activation<T> activation, T* output, int64_t threads) {
    auto each = [=](int64_t place, int64_t, auto lanes, float*, float*) {
        store(output + place, activation.value(load(x + place, lanes)), lanes);
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

// What reaches the input of an activation: (gradient + a + b * output) * derivative.
template <class T>
struct Above {
    const T *gradient, *output, *derivative;
    const float *a, *b;

    template <class Lanes>
    Vector at(int64_t place, int64_t channel, Lanes lanes) const {
        const Vector y = load(output + place, lanes);
        const Vector inside = load(gradient + place, lanes) + load(a + channel, lanes) + load(b + channel, lanes) * y;
        return inside * Activation<T>::derivative(derivative, place, y, lanes);
    }
};

// gradient of x, and its sums
template <class T>
void activation_backward(
    int64_t positions, int64_t channels, Above<T> above, T* input_gradient, double* sums, int64_t threads) {
    auto each = [=](int64_t place, int64_t channel, auto lanes, float* sum, float*) {
        const Vector found = above.at(place, channel, lanes);
        store(input_gradient + place, found, lanes);
        add(sum, found, lanes);
    };
    over_positions(positions, channels, sums, nullptr, threads, each);
}

// scale1 * x1 + shift1 + scale2 * x2 + shift2
template <class T>
struct Residual {
    const T* x1;
    Affine first;
    const T* x2;
    Affine second;

    template <class Lanes>
    Vector at(int64_t place, int64_t channel, Lanes lanes) const {
        return sum(x1 + place, first, channel, lanes) + sum(x2 + place, second, channel, lanes);
    }

private:
    template <class Lanes>
    static Vector sum(const T* x, Affine affine, int64_t channel, Lanes lanes) {
        return load(x, lanes) * load(affine.scale + channel, lanes) + load(affine.shift + channel, lanes);
    }
};

template <class T>
void add_scaled(int64_t positions, int64_t channels, Residual<T> x, T* output, int64_t threads) {
    auto each = [=](int64_t place, int64_t channel, auto lanes, float*, float*) {
        store(output + place, x.at(place, channel, lanes), lanes);
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

}  // namespace
