// ConvMixer's operations for CPUs, called through a C interface: no headers of Python or PyTorch are needed.
//
// Activations are (images, rows, columns, channels) without gaps, float32 or bfloat16; everything of a channel alone
// (weights, scales, sums) is float32. Work is cut the same way however many threads there are, so results do not
// depend on their number. Compiled once for each instruction set; the caller picks the library.
#include "elementwise.h"
#include "inference.h"
#include "mixing.h"
#include "pointwise.h"

#define EXPORT extern "C" __attribute__((visibility("default")))

#define FOR_TYPE(NAME, T)                                                                                              \
    EXPORT void depthwise_forward_##NAME(                                                                              \
        int64_t threads, int64_t images, int64_t rows, int64_t columns, int64_t channels, int64_t kernel, const T* x,  \
        const float* weights, const float* bias, T* output) {                                                          \
        depthwise_forward<T, PLAIN>(                                                                                   \
            {images, rows, columns, channels, kernel}, x, {}, weights, bias, nullptr, output, nullptr, nullptr,        \
            nullptr, {}, CHUNK, threads);                                                                              \
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
        const float* scale, const float* shift, const float* weights, const float* bias, int64_t relu, T* output,      \
        T* derivative, double* sums, double* squares) {                                                                \
        depthwise_forward<T, TRAINING>(                                                                                \
            {images, rows, columns, channels, kernel}, x, {scale, shift}, weights, bias, nullptr, output, derivative,  \
            sums, squares, {relu != 0}, CHUNK, threads);                                                               \
    }                                                                                                                  \
    EXPORT void blocks_inference_##NAME(                                                                               \
        int64_t threads, int64_t images, int64_t rows, int64_t columns, int64_t channels, int64_t depth, const T* x,   \
        const BlockParameters* blocks, int64_t relu, T* memory, T* output) {                                           \
        blocks_inference<T>(                                                                                           \
            {images, rows, columns, channels, 0}, depth, x, blocks, {relu != 0}, memory, output, threads);             \
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
    EXPORT void activation_inference_##NAME(                                                                           \
        int64_t threads, int64_t positions, int64_t channels, const T* x, int64_t relu, T* output) {                   \
        activation_inference<T>(positions, channels, x, {relu != 0}, output, threads);                                 \
    }                                                                                                                  \
    EXPORT void mean_of_positions_##NAME(                                                                              \
        int64_t threads, int64_t images, int64_t positions, int64_t channels, const T* x, float* output) {             \
        mean_of_positions(images, positions, channels, x, output, threads);                                            \
    }                                                                                                                  \
    EXPORT void activation_forward_##NAME(                                                                             \
        int64_t threads, int64_t positions, int64_t channels, const T* x, int64_t relu, T* output, T* derivative,      \
        double* sums, double* squares) {                                                                               \
        activation_forward<T>(positions, channels, x, {relu != 0}, output, derivative, sums, squares, threads);        \
    }                                                                                                                  \
    EXPORT void activation_backward_##NAME(                                                                            \
        int64_t threads, int64_t positions, int64_t channels, const T* gradient, const T* output, const T* derivative, \
        const float* a, const float* b, T* input_gradient, double* sums) {                                             \
        activation_backward<T>(                                                                                        \
            positions, channels, {gradient, output, derivative, a, b}, input_gradient, sums, threads);                 \
    }                                                                                                                  \
    EXPORT void add_scaled_##NAME(                                                                                     \
        int64_t threads, int64_t positions, int64_t channels, const T* x1, const float* scale1, const float* shift1,   \
        const T* x2, const float* scale2, const float* shift2, T* output) {                                            \
        add_scaled<T>(positions, channels, {x1, {scale1, shift1}, x2, {scale2, shift2}}, output, threads);             \
    }                                                                                                                  \
    EXPORT void pointwise_forward_##NAME(                                                                              \
        int64_t threads, int64_t positions, int64_t channels, const T* x1, const float* scale1, const float* shift1,   \
        const T* x2, const float* scale2, const float* shift2, const float* matrix, const float* bias,                 \
        int64_t relu, T* output, T* derivative, double* sums, double* squares) {                                       \
        pointwise_forward<T>(                                                                                          \
            positions, channels, {x1, {scale1, shift1}, x2, {scale2, shift2}}, matrix, bias, {relu != 0}, output,      \
            derivative, sums, squares, threads);                                                                       \
    }                                                                                                                  \
    EXPORT void pointwise_backward_##NAME(                                                                             \
        int64_t threads, int64_t positions, int64_t channels, const T* gradient, const T* output, const T* derivative, \
        const float* a, const float* b, const T* x1, const float* scale1, const float* shift1, const T* x2,            \
        const float* scale2, const float* shift2, const float* matrix, T* input_gradient, float* weight_gradient,      \
        double* bias_gradient, double* sums, double* products) {                                                       \
        pointwise_backward<T>(                                                                                         \
            positions, channels, {gradient, output, derivative, a, b}, {x1, {scale1, shift1}, x2, {scale2, shift2}},   \
            matrix, input_gradient, weight_gradient, bias_gradient, sums, products, threads);                          \
    }                                                                                                                  \
    EXPORT void sum_products_##NAME(                                                                                   \
        int64_t threads, int64_t positions, int64_t channels, const T* x, const T* y, double* sums,                    \
        double* products) {                                                                                            \
        sum_products(positions, channels, x, y, sums, products, threads);                                              \
    }

FOR_TYPE(float32, float)
FOR_TYPE(bfloat16, BFloat16)
