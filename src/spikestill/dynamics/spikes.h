// Which inputs of a convolution are spikes, and sums of rows of bfloat16: what a convolution and its gradient share.
//
// Images are [images, height, width, channels]; weights [outputs, channels, taps] lie in either order within an output.
// Inputs go by groups of 16 channels.
#pragma once
#include <algorithm>
#include <new>
#include <vector>
#ifdef __AVX512F__
#include <immintrin.h>
#endif

#include "floats.h"

namespace {

#if defined(__AVX512F__)
constexpr index LANES = 16;
#elif defined(__AVX__)
constexpr index LANES = 8;
#else
constexpr index LANES = 4;
#endif
constexpr index GROUP = 16;
typedef float lanes __attribute__((vector_size(LANES * sizeof(float)), may_alias));

// A vector that begins where a line of the cache does.
template <class T>
struct AtLines {
    using value_type = T;
    AtLines() = default;
    template <class Other>
    AtLines(const AtLines<Other>&) {}
    T* allocate(size_t n) { return static_cast<T*>(::operator new(n * sizeof(T), std::align_val_t(64))); }
    void deallocate(T* place, size_t) { ::operator delete(place, std::align_val_t(64)); }
    bool operator==(const AtLines&) const { return true; }
    bool operator!=(const AtLines&) const { return false; }
};

struct Geometry {
    index images, height, width, channels, outputs;
    index kernel[2], stride[2], padding[2], dilation[2];
    index out_height, out_width;
    index tap_stride, channel_stride;  // of the weights

    index groups() const { return (channels + GROUP - 1) / GROUP; }
    index taps() const { return kernel[0] * kernel[1]; }
    index padded_width() const { return width + 2 * padding[1]; }

    // Where a row of a plane of bits begins.
    index row(index group, index image, index y) const {
        return ((group * images + image) * (height + 2 * padding[0]) + y) * padded_width();
    }
};

// --------------------------------------------------------------------------------------------- which inputs there are

// Which of up to 16 numbers are not zero, a bit each; `others` gets the bits of those that are not one either.
template <class X>
uint16_t bits_of(const X* x, index n, uint16_t& others) {
    uint16_t bits = 0;
    for (index c = 0; c < n; c++) {
        float value = as_float(x[c]);
        bits |= uint16_t(value != 0) << c;
        others |= uint16_t(value != 0 && value != 1) << c;
    }
    return bits;
}

// Which of up to 16 sets of bits have a certain one, a bit each.
inline uint16_t bits_with(const uint16_t* bits, index n, index which) {
#if defined(__AVX512BW__) && defined(__AVX512VL__)
    __m256i sets = _mm256_maskz_loadu_epi16(__mmask16((1u << n) - 1), bits);
    return _mm256_test_epi16_mask(sets, _mm256_set1_epi16(short(1 << which)));
#else
    uint16_t with = 0;
    for (index k = 0; k < n; k++) with |= uint16_t(bits[k] >> which & 1) << k;
    return with;
#endif
}

// Writes the places of the bits that are set, counted from `first`, and returns how many; up to 16 are written over.
inline index list_places(uint16_t bits, index first, uint16_t* to) {
#if defined(__AVX512VBMI2__) && defined(__AVX512VL__)
    const __m256i counting = _mm256_setr_epi16(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    __m256i places = _mm256_add_epi16(counting, _mm256_set1_epi16(short(first)));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm256_maskz_compress_epi16(bits, places));
    return __builtin_popcount(bits);
#else
    index n = 0;
    for (; bits; bits &= bits - 1) to[n++] = uint16_t(first + __builtin_ctz(bits));
    return n;
#endif
}

// Writes the numbers whose bits are set; up to 16 are written over.
template <class X>
void list_values(uint16_t bits, const X* x, X* to) {
    for (; bits; bits &= bits - 1) *to++ = x[__builtin_ctz(bits)];
}

#ifdef __AVX512F__
template <>
uint16_t bits_of(const float* x, index n, uint16_t& others) {
    __m512 values = _mm512_maskz_loadu_ps(__mmask16((1u << n) - 1), x);
    uint16_t bits = _mm512_cmp_ps_mask(values, _mm512_setzero_ps(), _CMP_NEQ_UQ);
    others |= bits & _mm512_cmp_ps_mask(values, _mm512_set1_ps(1), _CMP_NEQ_UQ);
    return bits;
}

template <>
void list_values(uint16_t bits, const float* x, float* to) {
    _mm512_storeu_ps(to, _mm512_maskz_compress_ps(bits, _mm512_maskz_loadu_ps(bits, x)));
}
#endif

#if defined(__AVX512VBMI2__) && defined(__AVX512BW__) && defined(__AVX512VL__)
template <>
uint16_t bits_of(const bfloat16* x, index n, uint16_t& others) {
    __m256i values = _mm256_maskz_loadu_epi16(__mmask16((1u << n) - 1), x);
    uint16_t bits = _mm256_test_epi16_mask(values, _mm256_set1_epi16(0x7fff));
    others |= bits & _mm256_cmpneq_epi16_mask(values, _mm256_set1_epi16(0x3f80));
    return bits;
}

template <>
void list_values(uint16_t bits, const bfloat16* x, bfloat16* to) {
    __m256i values = _mm256_maskz_compress_epi16(bits, _mm256_maskz_loadu_epi16(bits, x));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), values);
}
#endif

// planes: [groups, images, padded height, padded width] of bits, zero at first. found: how many inputs are not zero,
// and how many neither zero nor one.
template <class X>
void look(const X* x, const Geometry& g, uint16_t* planes, int64_t* found, int threads) {
    index spikes = 0, others = 0, rows = g.images * g.height;
#pragma omp parallel for schedule(static) num_threads(threads) reduction(+ : spikes, others)
    for (index row = 0; row < rows; row++) {
        for (index column = 0; column < g.width; column++) {
            const X* place = x + (row * g.width + column) * g.channels;
            for (index group = 0; group < g.groups(); group++) {
                uint16_t different = 0;
                uint16_t bits = bits_of(place + group * GROUP, std::min(GROUP, g.channels - group * GROUP), different);
                index at = g.row(group, row / g.height, row % g.height + g.padding[0]) + g.padding[1] + column;
                planes[at] = bits;
                spikes += __builtin_popcount(bits);
                others += __builtin_popcount(different);
            }
        }
    }
    found[0] = spikes;
    found[1] = others;
}

// ---------------------------------------------------------------------------------------------------- sums of bfloat16

#if defined(__AVX512BF16__) && defined(__AVX512BW__)
// Two rows at a time, by the processor's products of pairs. Numbers of two rows are interleaved by quarters of 128
// bits, so of 32 sums each is of the numbers at this place.
inline index place_of_pair(index sum) {
    index within = sum % 32;
    return sum - within + (within < 16 ? 0 : 4) + within % 16 / 4 * 8 + within % 4;
}

inline __m512i pair_of(const bfloat16* values) {
    int pair;
    std::memcpy(&pair, values, sizeof(pair));
    return _mm512_set1_epi32(pair);
}

// sums += 32 numbers each of two rows, times their factors.
inline void add_pair(const bfloat16* one, const bfloat16* other, __m512i factors, __m512* sums) {
    __m512i first = _mm512_loadu_si512(one), second = _mm512_loadu_si512(other);
    __m512i low = _mm512_unpacklo_epi16(first, second), high = _mm512_unpackhi_epi16(first, second);
    sums[0] = _mm512_dpbf16_ps(sums[0], (__m512bh)low, (__m512bh)factors);
    sums[1] = _mm512_dpbf16_ps(sums[1], (__m512bh)high, (__m512bh)factors);
}
#endif

}  // namespace
