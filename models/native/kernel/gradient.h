// From the activation's gradient back to raw's. Each is written in the place of the one before it.
// Part of native.cpp: compiled once for each instruction set, in a namespace of its own.

// Makes dz of row `y` of the activation's gradient, in its place: the gradient of the BatchNorm's
// output (of raw, in a stage without one), before a pool only where its maximum was. Adds up dz and
// dz * (raw - mean), which BatchNorm's gradient needs of the whole batch before it can go on.
template <Activation kActivation, bool kDrop>
struct FinishGradientRow {
    const View &view;
    int y;

    template <int kChannels>
    NATIVE_INLINE_MEMBER void part(int c) {
        const Stage &s = *view.stage;
        const size_t step = size_t(s.channels) * L;
        uint32_t element = uint32_t(y) * s.out_width * s.channels + c;
        const float *raw = view.seen() + size_t(element) * L;
        float *gradient = view.gradient + size_t(element) * L;
        V scale[kChannels], shift[kChannels], mean[kChannels], sum[kChannels], centred[kChannels];
        float *sums = s.lane_sums + 2 * size_t(c) * L;
        for (int k = 0; k < kChannels && kActivation != kNothing; ++k) {
            scale[k] = all(s.scale[c + k]);
            shift[k] = all(s.shift[c + k]);
            mean[k] = all(s.mean[c + k]);
            sum[k] = load(sums + 2 * k * L);
            centred[k] = load(sums + (2 * k + 1) * L);
        }
        for (int n = s.out_width; n > 0; --n, raw += step, gradient += step) {
            for (int k = 0; k < kChannels; ++k) {
                V dz = load(gradient + k * L);
                if (kDrop) dz *= dropout_factor(s.dropout, view.keys, element + k);
                if constexpr (kActivation != kNothing) {
                    const V value = in_register(load(raw + k * L));
                    dz = activation_gradient<kActivation>(
                        normalise<kActivation>(value, scale[k], shift[k]), dz);
                    sum[k] += dz;
                    centred[k] = fma(dz, value - mean[k], centred[k]);
                }
                store(gradient + k * L, dz);
            }
            if (kDrop) element += s.channels;
        }
        for (int k = 0; k < kChannels && kActivation != kNothing; ++k) {
            store(sums + 2 * k * L, sum[k]);
            store(sums + (2 * k + 1) * L, centred[k]);
        }
    }
};

template <Activation kActivation, bool kDrop>
static void finished_gradient_row(const View &view, int y) {
    FinishGradientRow<kActivation, kDrop> work{view, y};
    for_channels<kDrop ? 1 : 4>(work, view.stage->channels);
}

static void finish_gradient_row(const View &view, int y) {
    typedef void (*Row)(const View &, int);
    static const Row rows[3][2] = {
        {nullptr, finished_gradient_row<kNothing, true>},
        {finished_gradient_row<kRelu, false>, finished_gradient_row<kRelu, true>},
        {finished_gradient_row<kHardSwish, false>, finished_gradient_row<kHardSwish, true>}};
    const Row row = rows[view.stage->activation][view.stage->dropout.threshold > 0];
    if (row) row(view, y);
}

// The gradient of raw row `y` to rows[0]; with a pool y is even, and row y + 1, where there is one,
// goes to rows[1]. Zero in lanes without an image.
template <bool kNorm, bool kPool>
struct RawGradientRows {
    const View &view;
    int y;
    float *const *rows;

    template <int kChannels>
    struct Coefficients {
        V scale[kChannels], mean[kChannels], slope[kChannels], level[kChannels];
        M lanes;

        NATIVE_INLINE_MEMBER Coefficients(const View &view, int c) : lanes(view.lanes) {
            for (int k = 0; k < kChannels && kNorm; ++k) {
                scale[k] = all(view.stage->scale[c + k]);
                mean[k] = all(view.stage->mean[c + k]);
                slope[k] = all(view.stage->slope[c + k]);
                level[k] = all(view.stage->level[c + k]);
            }
        }
        NATIVE_INLINE_MEMBER V of_raw(int k, V raw, V dz) const {
            if constexpr (!kNorm) return keep(lanes, dz);
            return keep(lanes, fma(scale[k], dz, fma(slope[k], raw - mean[k], level[k])));
        }
    };

    template <int kChannels>
    NATIVE_INLINE_MEMBER void part(int c) {
        const Coefficients<kChannels> of(view, c);
        if constexpr (kPool) {
            windows<kChannels>(c, of);
            outside_windows<kChannels>(c, of);
        } else {
            plain<kChannels>(c, of);
        }
    }

    template <int kChannels>
    NATIVE_INLINE_MEMBER void plain(int c, const Coefficients<kChannels> &of) {
        const Stage &s = *view.stage;
        const size_t step = size_t(s.channels) * L;
        const size_t first = size_t(y) * s.width * step + size_t(c) * L;
        const float *raw = view.raw + first, *dz = view.gradient + first;
        float *to = rows[0] + size_t(c) * L;
        for (int n = s.width; n > 0; --n, raw += step, dz += step, to += step) {
            for (int k = 0; k < kChannels; ++k) {
                store(to + k * L, of.of_raw(k, load(raw + k * L), load(dz + k * L)));
            }
        }
    }

    // dz belongs to the first of the four that has the chosen value.
    template <int kChannels>
    NATIVE_INLINE_MEMBER void windows(int c, const Coefficients<kChannels> &of) {
        const Stage &s = *view.stage;
        if (y / 2 >= s.out_height) return;
        const size_t right = size_t(s.channels) * L, down = s.width * right;
        const size_t out_row = size_t(y / 2) * s.out_width * right + size_t(c) * L;
        const float *raw = view.raw + y * down + size_t(c) * L;
        const float *chosen = view.chosen + out_row, *gradient = view.gradient + out_row;
        float *upper = rows[0] + size_t(c) * L, *lower = rows[1] + size_t(c) * L;
        for (int n = s.out_width; n > 0; --n) {
            for (int k = 0; k < kChannels; ++k) {
                const V value = load(chosen + k * L), gradient_k = load(gradient + k * L);
                M taken = first_lanes(0);
                for (int corner = 0; corner < 4; ++corner) {
                    const size_t across = corner % 2 * right + k * L;
                    const V of_corner = load(raw + corner / 2 * down + across);
                    const M here = but_not(equal(of_corner, value), taken);
                    taken = either(taken, here);
                    store((corner < 2 ? upper : lower) + across,
                          of.of_raw(k, of_corner, keep(here, gradient_k)));
                }
            }
            raw += 2 * right, upper += 2 * right, lower += 2 * right;
            chosen += right, gradient += right;
        }
    }

    // An odd last row or column is in no window.
    template <int kChannels>
    NATIVE_INLINE_MEMBER void outside_windows(int c, const Coefficients<kChannels> &of) {
        const Stage &s = *view.stage;
        const int first = y / 2 < s.out_height ? 2 * s.out_width : 0;
        for (int row = 0; row < lesser(2, s.height - y); ++row) {
            for (int x = first; x < s.width; ++x) {
                for (int k = 0; k < kChannels; ++k) {
                    const size_t place = size_t(x) * s.channels + c + k;
                    const size_t element = size_t(y + row) * s.width * s.channels + place;
                    store(rows[row] + place * L, of.of_raw(k, load(view.raw + element * L), V{}));
                }
            }
        }
    }
};

template <bool kNorm, bool kPool>
static void raw_gradient_rows(const View &view, int y, float *const *rows) {
    RawGradientRows<kNorm, kPool> work{view, y, rows};
    for_channels<kPool ? 2 : 4>(work, view.stage->channels);
}

static void make_raw_gradient_rows(const View &view, int y, float *const *out) {
    typedef void (*Rows)(const View &, int, float *const *);
    static const Rows rows[2][2] = {
        {raw_gradient_rows<false, false>, raw_gradient_rows<false, true>},
        {raw_gradient_rows<true, false>, raw_gradient_rows<true, true>}};
    rows[view.stage->convolves()][view.stage->pool](view, y, out);
}
