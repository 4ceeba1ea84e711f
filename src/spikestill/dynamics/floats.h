// Numbers in memory, float32 or bfloat16, and as float32 in the processor.
#pragma once
#include <cstdint>
#include <cstring>

namespace {

using index = int64_t;

struct bfloat16 {
    uint16_t bits;
};

inline float as_float(float x) { return x; }

inline float as_float(bfloat16 x) {
    uint32_t bits = uint32_t(x.bits) << 16;
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}

inline void load(const float* from, float* to, index n) { std::memcpy(to, from, n * sizeof(float)); }

inline void load(const bfloat16* from, float* to, index n) {
#pragma omp simd
    for (index i = 0; i < n; i++) to[i] = as_float(from[i]);
}

inline void load(const bfloat16* from, bfloat16* to, index n) { std::memcpy(to, from, n * sizeof(bfloat16)); }

inline void store(const float* from, float* to, index n) { std::memcpy(to, from, n * sizeof(float)); }

inline void store(const float* from, bfloat16* to, index n) {
#pragma omp simd
    for (index i = 0; i < n; i++) {
        uint32_t bits;
        std::memcpy(&bits, &from[i], 4);
        uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;  // to nearest, ties to even
        to[i].bits = uint16_t(from[i] == from[i] ? rounded : 0x7fc0);
    }
}

}  // namespace
