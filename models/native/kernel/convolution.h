// Convolution, and the gradient of its weights, a row of the map at a time.
// Part of native.cpp: compiled once for each instruction set, in a namespace of its own.

// --- Convolution. For one row of the kernel the taps and the input channels of a pixel lie side by
// side in a row of the input: `reach` = kernel * channels vectors from the pixel's own. ---

struct RowTaps {
    int n;  // rows of the kernel that meet a row of the input
    int kernel_row[3];
    const float *input[3];  // the row of the input, from its left border on
    const float *packed;    // weights, as pack() lays them
    int kernel, channels;   // channels of the input
    int reach;              // kernel * channels
};

static RowTaps row_taps(const float *packed, int kernel, int channels) {
    return {0, {}, {}, packed, kernel, channels, kernel * channels};
}

constexpr int kMostOutputs = L == 16 ? 8 : 6;
constexpr int most_pixels(int outputs) {  // accumulators, a vector a pixel, one weight: registers
    if (L == 16) return outputs < 3 ? 8 : outputs == 3 ? 7 : outputs == 4 ? 6 : outputs < 7 ? 4 : 3;
    return outputs == 1 ? 8 : outputs == 2 ? 5 : outputs == 3 ? 4 : outputs == 4 ? 3 : 2;
}

// `count` neighbouring tiles of kPixels pixels by kOutputs channels.
template <int kOutputs, int kPixels>
static void convolve_tiles(const RowTaps &taps, int first_output, int x, int count, float *out,
                           int out_channels) {
    const size_t step = size_t(taps.channels) * L, out_step = size_t(out_channels) * L;
    const float *packed = taps.packed + size_t(first_output) * taps.kernel * taps.reach;
    out += size_t(first_output) * L;
    for (; count > 0; --count, x += kPixels) {
        V sum[kPixels][kOutputs] = {};
        for (int t = 0; t < taps.n; ++t) {
            const float *in = taps.input[t] + x * step;
            const float *weight = packed + size_t(taps.kernel_row[t]) * taps.reach * kOutputs;
            for (int j = 0; j < taps.reach; ++j, in += L, weight += kOutputs) {
                V pixel[kPixels];
#pragma GCC unroll 8
                for (int p = 0; p < kPixels; ++p) pixel[p] = load(in + p * step);
#pragma GCC unroll 8
                for (int o = 0; o < kOutputs; ++o) {
                    const V w = all(weight[o]);
#pragma GCC unroll 8
                    for (int p = 0; p < kPixels; ++p) sum[p][o] = fma(pixel[p], w, sum[p][o]);
                }
            }
        }
#pragma GCC unroll 8
        for (int p = 0; p < kPixels; ++p) {
#pragma GCC unroll 8
            for (int o = 0; o < kOutputs; ++o) {
                store(out + (x + p) * out_step + o * L, sum[p][o]);
            }
        }
    }
}

typedef void (*ConvolveTiles)(const RowTaps &, int, int, int, float *, int);

template <int kOutputs, int kPixels>
constexpr ConvolveTiles convolve_entry() {
    if constexpr (kOutputs <= kMostOutputs && kPixels <= most_pixels(kOutputs)) {
        return convolve_tiles<kOutputs, kPixels>;
    } else {
        return nullptr;
    }
}

#define NATIVE_PIXELS(o)                                                            \
    {                                                                               \
        convolve_entry<o, 1>(), convolve_entry<o, 2>(), convolve_entry<o, 3>(),     \
            convolve_entry<o, 4>(), convolve_entry<o, 5>(), convolve_entry<o, 6>(), \
            convolve_entry<o, 7>(), convolve_entry<o, 8>()                          \
    }
static const ConvolveTiles kConvolveTiles[8][8] = {
    NATIVE_PIXELS(1), NATIVE_PIXELS(2), NATIVE_PIXELS(3), NATIVE_PIXELS(4),
    NATIVE_PIXELS(5), NATIVE_PIXELS(6), NATIVE_PIXELS(7), NATIVE_PIXELS(8)};
#undef NATIVE_PIXELS

// One output row of `width` pixels by `channels`.
static void convolve_row(const RowTaps &taps, float *out, int width, int channels) {
    const Split tiles(channels, kMostOutputs);
    for (int tile = 0, o = 0; tile < tiles.parts; ++tile) {
        const int outputs = tiles.part(tile);
        const Split pixels(width, most_pixels(outputs));
        const ConvolveTiles *convolve = kConvolveTiles[outputs - 1];
        const int wide = pixels.size + 1, n_wide = pixels.larger;
        if (n_wide) convolve[wide - 1](taps, o, 0, n_wide, out, channels);
        convolve[pixels.size - 1](taps, o, n_wide * wide, pixels.parts - n_wide, out, channels);
        o += outputs;
    }
}

// From (out, in, kernel, kernel) to [tile of outputs][kernel row][kernel column][in][output of the
// tile], as convolve_tiles reads it.
static void pack(const Stage &s, const float *weight) {
    const int k = s.kernel;
    float *to = s.packed;
    const Split tiles(s.channels, kMostOutputs);
    for (int tile = 0, first = 0; tile < tiles.parts; first += tiles.part(tile++)) {
        for (int ky = 0; ky < k; ++ky) {
            for (int kx = 0; kx < k; ++kx) {
                for (int i = 0; i < s.in_channels; ++i) {
                    for (int o = first; o < first + tiles.part(tile); ++o) {
                        *to++ = weight[((size_t(o) * s.in_channels + i) * k + ky) * k + kx];
                    }
                }
            }
        }
    }
}

// The same for the gradient of the input: in and out change places, and the columns turn round.
// (The rows of the kernel are looked up by their own number.)
static void pack_flipped(const Stage &s, const float *weight) {
    const int k = s.kernel;
    float *to = s.packed_flipped;
    const Split tiles(s.in_channels, kMostOutputs);
    for (int tile = 0, first = 0; tile < tiles.parts; first += tiles.part(tile++)) {
        for (int ky = 0; ky < k; ++ky) {
            for (int kx = k - 1; kx >= 0; --kx) {
                for (int o = 0; o < s.channels; ++o) {
                    for (int i = first; i < first + tiles.part(tile); ++i) {
                        *to++ = weight[((size_t(o) * s.in_channels + i) * k + ky) * k + kx];
                    }
                }
            }
        }
    }
}

// --- Weight gradient: outer products of a pixel's gradient and what its kernel saw. ---

constexpr int kMostWeightOutputs = L == 16 ? 6 : 4;
constexpr int kMostWeightInputs = L == 16 ? 4 : 3;

template <int kOutputs, int kInputs>
static void add_weight_tile(const float *const *gradient, const float *const *input, int n_rows,
                            int width, size_t gradient_step, size_t input_step, float *sums) {
    V sum[kOutputs][kInputs];
#pragma GCC unroll 8
    for (int o = 0; o < kOutputs; ++o) {
#pragma GCC unroll 8
        for (int i = 0; i < kInputs; ++i) sum[o][i] = load(sums + (o * kInputs + i) * L);
    }
    for (int row = 0; row < n_rows; ++row) {
        const float *g = gradient[row], *in = input[row];
        for (int x = 0; x < width; ++x, g += gradient_step, in += input_step) {
            V seen[kInputs];
#pragma GCC unroll 8
            for (int i = 0; i < kInputs; ++i) seen[i] = load(in + i * L);
#pragma GCC unroll 8
            for (int o = 0; o < kOutputs; ++o) {
                const V gradient_o = in_register(load(g + o * L));
#pragma GCC unroll 8
                for (int i = 0; i < kInputs; ++i) sum[o][i] = fma(gradient_o, seen[i], sum[o][i]);
            }
        }
    }
#pragma GCC unroll 8
    for (int o = 0; o < kOutputs; ++o) {
#pragma GCC unroll 8
        for (int i = 0; i < kInputs; ++i) store(sums + (o * kInputs + i) * L, sum[o][i]);
    }
}

typedef void (*AddWeightTile)(const float *const *, const float *const *, int, int, size_t, size_t,
                              float *);

template <int kOutputs, int kInputs>
constexpr AddWeightTile weight_entry() {
    if constexpr (kOutputs <= kMostWeightOutputs && kInputs <= kMostWeightInputs) {
        return add_weight_tile<kOutputs, kInputs>;
    } else {
        return nullptr;
    }
}

#define NATIVE_INPUTS(o) \
    { weight_entry<o, 1>(), weight_entry<o, 2>(), weight_entry<o, 3>(), weight_entry<o, 4>() }
static const AddWeightTile kAddWeightTile[6][4] = {NATIVE_INPUTS(1), NATIVE_INPUTS(2),
                                                   NATIVE_INPUTS(3), NATIVE_INPUTS(4),
                                                   NATIVE_INPUTS(5), NATIVE_INPUTS(6)};
#undef NATIVE_INPUTS

// Adds the weight gradient of kernel row `ky` over `n_rows` rows.
static void add_weight_row(const Stage &s, int ky, const float *const *gradient,
                           const float *const *input, int n_rows) {
    const int reach = s.reach();
    const Split outputs(s.channels, kMostWeightOutputs), inputs(reach, kMostWeightInputs);
    const size_t gradient_step = size_t(s.channels) * L, input_step = size_t(s.in_channels) * L;
    float *sums = s.weight_sums + size_t(ky) * s.channels * reach * L;
    const float *gradient_at[kMostGroup], *input_at[kMostGroup];
    for (int tile_o = 0, o = 0; tile_o < outputs.parts; o += outputs.part(tile_o++)) {
        const int n_o = outputs.part(tile_o);
        for (int row = 0; row < n_rows; ++row) gradient_at[row] = gradient[row] + size_t(o) * L;
        for (int tile_i = 0, i = 0; tile_i < inputs.parts; i += inputs.part(tile_i++)) {
            const int n_i = inputs.part(tile_i);
            for (int row = 0; row < n_rows; ++row) input_at[row] = input[row] + size_t(i) * L;
            kAddWeightTile[n_o - 1][n_i - 1](gradient_at, input_at, n_rows, s.width, gradient_step,
                                             input_step, sums);
            sums += size_t(n_o) * n_i * L;
        }
    }
}

// Adds up the lanes and brings the sums into the order (out, in, kernel, kernel).
static void unpack_weight_gradient(const Stage &s, float *gradient) {
    const int k = s.kernel, reach = s.reach();
    const Split outputs(s.channels, kMostWeightOutputs), inputs(reach, kMostWeightInputs);
    const float *sums = s.weight_sums;
    for (int ky = 0; ky < k; ++ky) {
        for (int tile_o = 0, o0 = 0; tile_o < outputs.parts; o0 += outputs.part(tile_o++)) {
            for (int tile_i = 0, i0 = 0; tile_i < inputs.parts; i0 += inputs.part(tile_i++)) {
                for (int o = o0; o < o0 + outputs.part(tile_o); ++o) {
                    for (int i = i0; i < i0 + inputs.part(tile_i); ++i, sums += L) {
                        const size_t place = size_t(o) * s.in_channels + i % s.in_channels;
                        gradient[(place * k + ky) * k + i / s.in_channels] =
                            float(total(load(sums)));
                    }
                }
            }
        }
    }
}
