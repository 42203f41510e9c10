// Vectors of one number for each image of a block: V of floats, U and S of integers, M of
// conditions. Part of native.cpp: compiled once for each instruction set, in a namespace of its
// own.

constexpr int L = NATIVE_LANES;

typedef uint32_t U __attribute__((vector_size(4 * L), may_alias));
typedef int32_t S __attribute__((vector_size(4 * L), may_alias));

#if NATIVE_LANES == 16

typedef __m512 V;
typedef __mmask16 M;
NATIVE_INLINE V load(const float *p) { return _mm512_load_ps(p); }
NATIVE_INLINE void store(float *p, V v) { _mm512_store_ps(p, v); }
NATIVE_INLINE V all(float x) { return _mm512_set1_ps(x); }
NATIVE_INLINE V fma(V a, V b, V c) { return _mm512_fmadd_ps(a, b, c); }
NATIVE_INLINE V maximum(V a, V b) { return _mm512_max_ps(a, b); }  // b where one is not a number
NATIVE_INLINE V minimum(V a, V b) { return _mm512_min_ps(a, b); }
NATIVE_INLINE M equal(V a, V b) { return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ); }
NATIVE_INLINE M greater(V a, V b) { return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ); }
NATIVE_INLINE M at_least(U a, uint32_t b) {
    return _mm512_cmpge_epu32_mask((__m512i)a, _mm512_set1_epi32(int(b)));
}
NATIVE_INLINE M either(M a, M b) { return M(a | b); }
NATIVE_INLINE M but_not(M a, M b) { return M(a & ~b); }
NATIVE_INLINE M first_lanes(int n) { return M(n >= L ? 0xffff : (1 << n) - 1); }
NATIVE_INLINE V keep(M m, V v) { return _mm512_maskz_mov_ps(m, v); }
NATIVE_INLINE V choose(M m, V a, V b) { return _mm512_mask_blend_ps(m, b, a); }
NATIVE_INLINE S truncate(V v) { return (S)_mm512_cvttps_epi32(v); }
NATIVE_INLINE V to_float(S s) { return _mm512_cvtepi32_ps((__m512i)s); }
NATIVE_INLINE U words(const uint8_t *base, S offset) {
    return (U)_mm512_i32gather_epi32((__m512i)offset, base, 1);
}

#elif NATIVE_LANES == 8

typedef __m256 V;
typedef __m256 M;
NATIVE_INLINE V load(const float *p) { return _mm256_load_ps(p); }
NATIVE_INLINE void store(float *p, V v) { _mm256_store_ps(p, v); }
NATIVE_INLINE V all(float x) { return _mm256_set1_ps(x); }
NATIVE_INLINE V fma(V a, V b, V c) { return _mm256_fmadd_ps(a, b, c); }
NATIVE_INLINE V maximum(V a, V b) { return _mm256_max_ps(a, b); }  // b where one is not a number
NATIVE_INLINE V minimum(V a, V b) { return _mm256_min_ps(a, b); }
NATIVE_INLINE M equal(V a, V b) { return _mm256_cmp_ps(a, b, _CMP_EQ_OQ); }
NATIVE_INLINE M greater(V a, V b) { return _mm256_cmp_ps(a, b, _CMP_GT_OQ); }
NATIVE_INLINE M at_least(U a, uint32_t b) {
    const __m256i limit = _mm256_set1_epi32(int(b));
    return _mm256_castsi256_ps(_mm256_cmpeq_epi32(_mm256_max_epu32((__m256i)a, limit), (__m256i)a));
}
NATIVE_INLINE M either(M a, M b) { return _mm256_or_ps(a, b); }
NATIVE_INLINE M but_not(M a, M b) { return _mm256_andnot_ps(b, a); }
NATIVE_INLINE M first_lanes(int n) {
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_castsi256_ps(_mm256_cmpgt_epi32(_mm256_set1_epi32(n), lane));
}
NATIVE_INLINE V keep(M m, V v) { return _mm256_and_ps(m, v); }
NATIVE_INLINE V choose(M m, V a, V b) { return _mm256_blendv_ps(b, a, m); }
NATIVE_INLINE S truncate(V v) { return (S)_mm256_cvttps_epi32(v); }
NATIVE_INLINE V to_float(S s) { return _mm256_cvtepi32_ps((__m256i)s); }
NATIVE_INLINE U words(const uint8_t *base, S offset) {
    return (U)_mm256_i32gather_epi32((const int *)base, (__m256i)offset, 1);
}

#else

typedef float V __attribute__((vector_size(4 * L), may_alias));
typedef S M;
NATIVE_INLINE V load(const float *p) { return *(const V *)p; }
NATIVE_INLINE void store(float *p, V v) { *(V *)p = v; }
NATIVE_INLINE V all(float x) { return V{x, x, x, x}; }
NATIVE_INLINE V fma(V a, V b, V c) { return a * b + c; }
NATIVE_INLINE V choose(M m, V a, V b) { return (V)((m & (S)a) | (~m & (S)b)); }
NATIVE_INLINE V maximum(V a, V b) { return choose(a > b, a, b); }  // b where one is not a number
NATIVE_INLINE V minimum(V a, V b) { return choose(a < b, a, b); }
NATIVE_INLINE M equal(V a, V b) { return a == b; }
NATIVE_INLINE M greater(V a, V b) { return a > b; }
NATIVE_INLINE M at_least(U a, uint32_t b) { return a >= b; }
NATIVE_INLINE M either(M a, M b) { return a | b; }
NATIVE_INLINE M but_not(M a, M b) { return a & ~b; }
NATIVE_INLINE M first_lanes(int n) { return S{0, 1, 2, 3} < n; }
NATIVE_INLINE V keep(M m, V v) { return (V)(m & (S)v); }
NATIVE_INLINE S truncate(V v) { return __builtin_convertvector(v, S); }
NATIVE_INLINE V to_float(S s) { return __builtin_convertvector(s, V); }
NATIVE_INLINE U words(const uint8_t *base, S offset) {
    U result;
    for (int lane = 0; lane < L; ++lane) {
        const uint8_t *p = base + offset[lane];
        result[lane] = uint32_t(p[0]) | uint32_t(p[1]) << 8;  // only the two lower bytes are used
    }
    return result;
}

#endif

// `v`, but loaded once: compilers like to fold a load into each multiplication that uses it, and
// then the load ports are what the loop waits for.
NATIVE_INLINE V in_register(V v) {
#if NATIVE_LANES == 16
    asm("" : "+v"(v));
#elif NATIVE_LANES == 8
    asm("" : "+x"(v));
#endif
    return v;
}

// Asks for what will be read soon; it may lie behind the end of a map.
NATIVE_INLINE void fetch(const float *p) { __builtin_prefetch(p); }

NATIVE_INLINE double total(V v) {
#if NATIVE_LANES == 16
    const __m256 upper = _mm512_extractf32x8_ps(v, 1);
    return _mm512_reduce_add_pd(_mm512_cvtps_pd(_mm512_castps512_ps256(v)) +
                                _mm512_cvtps_pd(upper));
#elif NATIVE_LANES == 8
    const __m256d sums = _mm256_cvtps_pd(_mm256_castps256_ps128(v)) +
                         _mm256_cvtps_pd(_mm256_extractf128_ps(v, 1));
    const __m128d halves = _mm256_castpd256_pd128(sums) + _mm256_extractf128_pd(sums, 1);
    return halves[0] + halves[1];
#else
    return (double(v[0]) + v[1]) + (double(v[2]) + v[3]);
#endif
}

NATIVE_INLINE int lesser(int a, int b) { return a < b ? a : b; }
