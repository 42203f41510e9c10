// From a stage's raw map to its activation, and from the activation's gradient back to raw's.
// Part of native.cpp: compiled once for each instruction set, in a namespace of its own.

struct View {
    const Stage *stage;
    const float *raw;
    float *gradient;
    M lanes;                                   // those that hold an image
    alignas(64) uint32_t before[L], after[L];  // dropout: the key of each image
    bool training;
};

static void fill_keys(uint32_t *keys, const Dropout &dropout, uint64_t seed, int first_image) {
    for (int lane = 0; lane < L; ++lane) {
        keys[lane] = image_key(seed, dropout.salt, uint32_t(first_image + lane));
    }
}

static View view_of(const Stage &stage, const float *raw, const Sample &sample, int block,
                    bool training) {
    View view;
    view.stage = &stage;
    view.raw = raw;
    view.gradient = stage.gradient ? stage.gradient + block * stage.gradient_stride : nullptr;
    view.lanes = first_lanes(sample.n - block * L);
    view.training = training;
    fill_keys(view.before, stage.before, sample.seed, block * L);
    fill_keys(view.after, stage.after, sample.seed, block * L);
    return view;
}

// What dropout multiplies one element of all images by: 0, or 1 / (1 - rate).
NATIVE_INLINE V dropout_factor(const Dropout &dropout, const uint32_t *keys, uint32_t element) {
    U x = *(const U *)keys + element * 0x9e3779b9U;
    x = (x ^ (x >> 16)) * 0x7feb352dU;
    x = (x ^ (x >> 15)) * 0x846ca68bU;
    x = x ^ (x >> 16);
    return keep(at_least(x >> 8, uint32_t(dropout.threshold)), all(dropout.scale));
}

// Calls work.part<n>(c) for channels [c, c + n) until all are done, with n = kMost as far as it
// goes: neighbouring channels are neighbours in memory, and their coefficients stay in registers.
template <int kMost, typename Work>
NATIVE_INLINE void for_channels(Work &work, int channels, int c = 0) {
    for (; c + kMost <= channels; c += kMost) work.template part<kMost>(c);
    if constexpr (kMost > 1) for_channels<kMost / 2>(work, channels, c);
}

constexpr int most_channels(bool pool, bool drop) { return drop ? 1 : pool ? 2 : 4; }

// The output of BatchNorm, or raw itself in a stage without one.
template <Activation kActivation>
NATIVE_INLINE V normalise(V raw, V scale, V shift) {
    return kActivation == kNothing ? raw : fma(raw, scale, shift);
}

// The factor of hard swish, without its limits.
NATIVE_INLINE V hard_sigmoid_line(V z) { return fma(z, all(1 / 6.0f), all(0.5f)); }

NATIVE_INLINE V within_unit(V value) { return minimum(all(1), maximum(all(0), value)); }

template <Activation kActivation>
NATIVE_INLINE V activate(V z) {
    if constexpr (kActivation == kRelu) return maximum(all(0), z);
    if constexpr (kActivation == kHardSwish) return z * within_unit(hard_sigmoid_line(z));
    return z;
}

// From the gradient of activate(z) to that of z.
template <Activation kActivation>
NATIVE_INLINE V activation_gradient(V z, V gradient) {
    if constexpr (kActivation == kRelu) return keep(greater(z, all(0)), gradient);
    if constexpr (kActivation == kHardSwish) {
        const V line = hard_sigmoid_line(z), limited = within_unit(line);
        return gradient * choose(equal(line, limited), fma(z, all(1 / 3.0f), all(0.5f)), limited);
    }
    return gradient;
}

NATIVE_INLINE V maximum_of(const V *corner) {
    return maximum(maximum(corner[0], corner[1]), maximum(corner[2], corner[3]));
}

// One 2×2 window of one channel, as the pooling sees it; forward and backward both take the maximum
// from here, so that they agree on where it was. ReLU follows the maximum, which is the same as
// before it, unless dropout comes between. Hard swish falls before it rises, so it comes first.
template <Activation kActivation, bool kDrop>
struct Window {
    V raw[4], corner[4], factor[4], top;

    NATIVE_INLINE_MEMBER Window(const View &view, const float *p, size_t right, size_t down,
                                V scale, V shift, uint32_t element) {
        const Stage &s = *view.stage;
        const size_t offset[4] = {0, right, down, down + right};
        for (int k = 0; k < 4; ++k) {
            raw[k] = load(p + offset[k]);
            corner[k] = normalise<kActivation>(raw[k], scale, shift);
            if constexpr (kActivation == kHardSwish) corner[k] = activate<kActivation>(corner[k]);
            if constexpr (kDrop) {
                factor[k] = all(1);
                if (s.before.threshold) {
                    const uint32_t at = element + uint32_t(offset[k] / L);
                    factor[k] = dropout_factor(s.before, view.before, at);
                    if constexpr (kActivation == kRelu) corner[k] = activate<kRelu>(corner[k]);
                    corner[k] *= factor[k];
                }
            }
        }
        top = maximum_of(corner);
        if constexpr (kActivation == kRelu) top = activate<kRelu>(top);
    }

    // What `values`, one a corner, has where the maximum was: in the first such corner.
    NATIVE_INLINE_MEMBER V at_top(const V *values) const {
        V found = values[3];
        for (int k = 2; k >= 0; --k) found = choose(equal(corner[k], top), values[k], found);
        return found;
    }
};

// Row `y` of the activation, (out_width, channels) vectors, to `out`.
template <Activation kActivation, bool kPool, bool kDrop>
struct ActivationRow {
    const View &view;
    int y;
    float *out;

    template <int kChannels>
    NATIVE_INLINE_MEMBER void part(int c) {
        const Stage &s = *view.stage;
        const size_t right = size_t(s.channels) * L, down = s.width * right;
        const uint32_t row = uint32_t(kPool ? 2 * y : y) * s.width * s.channels;
        const float *raw = view.raw + size_t(row) * L;
        V scale[kChannels], shift[kChannels];
        for (int k = 0; k < kChannels; ++k) {
            scale[k] = kActivation != kNothing ? all(s.scale[c + k]) : V{};
            shift[k] = kActivation != kNothing ? all(s.shift[c + k]) : V{};
        }
        for (int x = 0; x < s.out_width; ++x) {
            for (int k = 0; k < kChannels; ++k) {
                const uint32_t element = uint32_t(kPool ? 2 * x : x) * s.channels + c + k;
                const float *p = raw + size_t(element) * L;
                V value;
                if constexpr (kPool) {
                    value = Window<kActivation, kDrop>(view, p, right, down, scale[k], shift[k],
                                                       row + element)
                                .top;
                } else {
                    value =
                        activate<kActivation>(normalise<kActivation>(load(p), scale[k], shift[k]));
                    if (kDrop && s.before.threshold) {
                        value *= dropout_factor(s.before, view.before, row + element);
                    }
                }
                const uint32_t place = uint32_t(x) * s.channels + c + k;
                if (kDrop && s.after.threshold) {
                    const uint32_t out_row = uint32_t(y) * s.out_width * s.channels;
                    value *= dropout_factor(s.after, view.after, out_row + place);
                }
                store(out + size_t(place) * L, keep(view.lanes, value));
            }
        }
    }
};

// dz is the gradient of the BatchNorm's output (of raw, in a stage without one): the gradient of
// the activation through dropout, to the pixel that was the maximum, through ReLU or hard swish.

template <Activation kActivation, bool kDrop>
NATIVE_INLINE V plain_dz(const View &view, V raw, V gradient, V scale, V shift, uint32_t element) {
    if (kDrop) gradient *= dropout_factor(view.stage->before, view.before, element);
    return activation_gradient<kActivation>(normalise<kActivation>(raw, scale, shift), gradient);
}

// What of a window's gradient comes through to the maximum, but for the dropout before the pool.
template <Activation kActivation, bool kDrop>
NATIVE_INLINE V window_gradient(const View &view, const Window<kActivation, kDrop> &window,
                                V gradient, V scale, V shift, uint32_t out_element) {
    if (kDrop && view.stage->after.threshold) {
        gradient *= dropout_factor(view.stage->after, view.after, out_element);
    }
    V z = window.top;  // ReLU passes a gradient where it passed the value
    if constexpr (kActivation == kHardSwish) {
        z = normalise<kActivation>(window.at_top(window.raw), scale, shift);
    }
    return activation_gradient<kActivation>(z, gradient);
}

// The gradient of raw row `y` to rows[0]; with a pool y is even, and row y + 1, where there is one,
// goes to rows[1].
template <Activation kActivation, bool kPool, bool kDrop>
struct RawGradientRows {
    const View &view;
    int y;
    float *const *rows;

    template <int kChannels>
    struct Coefficients {
        V scale[kChannels], shift[kChannels], mean[kChannels], slope[kChannels], level[kChannels];

        NATIVE_INLINE_MEMBER Coefficients(const Stage &s, int c) {
            for (int k = 0; k < kChannels; ++k) {
                scale[k] = kActivation != kNothing ? all(s.scale[c + k]) : V{};
                shift[k] = kActivation != kNothing ? all(s.shift[c + k]) : V{};
                mean[k] = kActivation != kNothing ? all(s.mean[c + k]) : V{};
                slope[k] = kActivation != kNothing ? all(s.slope[c + k]) : V{};
                level[k] = kActivation != kNothing ? all(s.level[c + k]) : V{};
            }
        }
        NATIVE_INLINE_MEMBER V of_raw(int k, V raw, V dz) const {
            if (kActivation == kNothing) return dz;
            return fma(scale[k], dz, -fma(slope[k], raw - mean[k], level[k]));
        }
    };

    template <int kChannels>
    NATIVE_INLINE_MEMBER void part(int c) {
        const Coefficients<kChannels> of(*view.stage, c);
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
        const uint32_t row = uint32_t(y) * s.width * s.channels;
        for (int x = 0; x < s.width; ++x) {
            for (int k = 0; k < kChannels; ++k) {
                const uint32_t place = uint32_t(x) * s.channels + c + k, element = row + place;
                const V raw = load(view.raw + size_t(element) * L);
                const V dz = plain_dz<kActivation, kDrop>(view, raw,
                                                          load(view.gradient + size_t(element) * L),
                                                          of.scale[k], of.shift[k], element);
                store(rows[0] + size_t(place) * L, keep(view.lanes, of.of_raw(k, raw, dz)));
            }
        }
    }

    template <int kChannels>
    NATIVE_INLINE_MEMBER void windows(int c, const Coefficients<kChannels> &of) {
        const Stage &s = *view.stage;
        const size_t right = size_t(s.channels) * L, down = s.width * right;
        const uint32_t row = uint32_t(y) * s.width * s.channels;
        const uint32_t out_row = uint32_t(y / 2) * s.out_width * s.channels;
        for (int x = 0; y / 2 < s.out_height && x < s.out_width; ++x) {
            for (int k = 0; k < kChannels; ++k) {
                const uint32_t place = uint32_t(2 * x) * s.channels + c + k;
                const uint32_t out_element = out_row + uint32_t(x) * s.channels + c + k;
                const Window<kActivation, kDrop> window(view, view.raw + size_t(row + place) * L,
                                                        right, down, of.scale[k], of.shift[k],
                                                        row + place);
                const V gradient =
                    window_gradient(view, window, load(view.gradient + size_t(out_element) * L),
                                    of.scale[k], of.shift[k], out_element);
                M taken = first_lanes(0);
                for (int corner = 0; corner < 4; ++corner) {
                    const M here = but_not(equal(window.corner[corner], window.top), taken);
                    taken = either(taken, here);
                    V dz = keep(here, gradient);
                    if constexpr (kDrop) dz *= window.factor[corner];
                    store(rows[corner / 2] + size_t(place) * L + corner % 2 * right,
                          keep(view.lanes, of.of_raw(k, window.raw[corner], dz)));
                }
            }
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
                    const V gradient = of.of_raw(k, load(view.raw + element * L), V{});
                    store(rows[row] + place * L, keep(view.lanes, gradient));
                }
            }
        }
    }
};

// Adds dz and dz * (raw - mean) over row `y` of the activation's gradient.
template <Activation kActivation, bool kPool, bool kDrop>
struct NormSums {
    const View &view;
    int y;

    template <int kChannels>
    NATIVE_INLINE_MEMBER void part(int c) {
        const Stage &s = *view.stage;
        const size_t right = size_t(s.channels) * L, down = s.width * right;
        const uint32_t row = uint32_t(kPool ? 2 * y : y) * s.width * s.channels;
        const uint32_t out_row = uint32_t(y) * s.out_width * s.channels;
        V scale[kChannels], shift[kChannels], mean[kChannels], sum[kChannels], centred[kChannels];
        float *sums = s.lane_sums + 2 * size_t(c) * L;
        for (int k = 0; k < kChannels; ++k) {
            scale[k] = all(s.scale[c + k]);
            shift[k] = all(s.shift[c + k]);
            mean[k] = all(s.mean[c + k]);
            sum[k] = load(sums + 2 * k * L);
            centred[k] = load(sums + (2 * k + 1) * L);
        }
        for (int x = 0; x < s.out_width; ++x) {
            for (int k = 0; k < kChannels; ++k) {
                const uint32_t element = row + uint32_t(kPool ? 2 * x : x) * s.channels + c + k;
                const uint32_t out_element = out_row + uint32_t(x) * s.channels + c + k;
                const V gradient = load(view.gradient + size_t(out_element) * L);
                V raw = load(view.raw + size_t(element) * L), dz;
                if constexpr (kPool) {
                    const Window<kActivation, kDrop> window(view, view.raw + size_t(element) * L,
                                                            right, down, scale[k], shift[k],
                                                            element);
                    dz = window_gradient(view, window, gradient, scale[k], shift[k], out_element);
                    raw = window.at_top(window.raw);
                    if constexpr (kDrop) dz *= window.at_top(window.factor);
                } else {
                    dz = plain_dz<kActivation, kDrop>(view, raw, gradient, scale[k], shift[k],
                                                      element);
                }
                sum[k] += dz;
                centred[k] = fma(dz, raw - mean[k], centred[k]);
            }
        }
        for (int k = 0; k < kChannels; ++k) {
            store(sums + 2 * k * L, sum[k]);
            store(sums + (2 * k + 1) * L, centred[k]);
        }
    }
};

template <Activation kActivation, bool kPool, bool kDrop>
static void activation_row(const View &view, int y, float *out) {
    ActivationRow<kActivation, kPool, kDrop> work{view, y, out};
    for_channels<most_channels(kPool, kDrop)>(work, view.stage->channels);
}

template <Activation kActivation, bool kPool, bool kDrop>
static void raw_gradient_rows(const View &view, int y, float *const *rows) {
    RawGradientRows<kActivation, kPool, kDrop> work{view, y, rows};
    for_channels<most_channels(kPool, kDrop)>(work, view.stage->channels);
}

template <Activation kActivation, bool kPool, bool kDrop>
static void add_norm_sums(const View &view, int y) {
    NormSums<kActivation, kPool, kDrop> work{view, y};
    for_channels<most_channels(kPool, kDrop)>(work, view.stage->channels);
}

#define NATIVE_STAGES(work, activation)                                    \
    {                                                                      \
        {work<activation, false, false>, work<activation, false, true>}, { \
            work<activation, true, false>, work<activation, true, true>    \
        }                                                                  \
    }

static void make_activation_row(const View &view, int y, float *out) {
    typedef void (*Row)(const View &, int, float *);
    static const Row rows[3][2][2] = {NATIVE_STAGES(activation_row, kNothing),
                                      NATIVE_STAGES(activation_row, kRelu),
                                      NATIVE_STAGES(activation_row, kHardSwish)};
    const Stage &s = *view.stage;
    rows[s.activation][s.pool][s.drops() && view.training](view, y, out);
}

static void make_raw_gradient_rows(const View &view, int y, float *const *out) {
    typedef void (*Rows)(const View &, int, float *const *);
    static const Rows rows[3][2][2] = {NATIVE_STAGES(raw_gradient_rows, kNothing),
                                       NATIVE_STAGES(raw_gradient_rows, kRelu),
                                       NATIVE_STAGES(raw_gradient_rows, kHardSwish)};
    const Stage &s = *view.stage;
    rows[s.activation][s.pool][s.drops()](view, y, out);
}

static void take_norm_sums(const View &view, int y) {
    typedef void (*Row)(const View &, int);
    static const Row rows[2][2][2] = {NATIVE_STAGES(add_norm_sums, kRelu),
                                      NATIVE_STAGES(add_norm_sums, kHardSwish)};
    const Stage &s = *view.stage;
    if (s.convolves()) rows[s.activation - kRelu][s.pool][s.drops()](view, y);
}

#undef NATIVE_STAGES
