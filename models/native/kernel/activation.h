// From a stage's raw map to its activation, row by row.
// Part of native.cpp: compiled once for each instruction set, in a namespace of its own.

struct View {
    const Stage *stage;
    const float *raw;
    float *chosen;                 // of a stage with a pool: see choose_row()
    float *gradient;               // of the activation, then dz: see finish_gradient_row()
    M lanes;                       // those that hold an image
    alignas(64) uint32_t keys[L];  // dropout: the key of each image
    bool training;

    // What the activation is made from, value by value: (out_height, out_width, channels) vectors.
    const float *seen() const { return stage->pool ? chosen : raw; }
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
    // As with raw, every block of an evaluation uses the memory of the first.
    view.chosen =
        stage.pool ? stage.chosen + (training ? block : 0) * stage.out_size() * L : nullptr;
    view.gradient = stage.gradient ? stage.gradient + block * stage.gradient_stride : nullptr;
    view.lanes = first_lanes(sample.n - block * L);
    view.training = training;
    fill_keys(view.keys, stage.dropout, sample.seed, block * L);
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
        return gradient * fma(keep(equal(line, limited), z), all(1 / 6.0f), limited);
    }
    return gradient;
}

// The loops over pixels keep what they need in local variables: a store of a vector could change
// anything behind a pointer, as far as the compiler knows, and it would load it again each time.

// Row `y` of the activation, (out_width, channels) vectors, to `out`. Lanes without an image get
// what a black one would give: whatever is summed over lanes leaves them out.
template <Activation kActivation, bool kDrop>
struct ActivationRow {
    const View &view;
    int y;
    float *out;

    template <int kChannels>
    NATIVE_INLINE_MEMBER void part(int c) {
        const Stage &s = *view.stage;
        const size_t step = size_t(s.channels) * L;
        uint32_t element = uint32_t(y) * s.out_width * s.channels + c;
        const float *from = view.seen() + size_t(element) * L;
        float *to = out + size_t(c) * L;
        V scale[kChannels], shift[kChannels];
        for (int k = 0; k < kChannels; ++k) {
            scale[k] = kActivation != kNothing ? all(s.scale[c + k]) : V{};
            shift[k] = kActivation != kNothing ? all(s.shift[c + k]) : V{};
        }
        for (int n = s.out_width; n > 0; --n, from += step, to += step) {
            for (int k = 0; k < kChannels; ++k) {
                V value = normalise<kActivation>(load(from + k * L), scale[k], shift[k]);
                value = activate<kActivation>(value);
                if (kDrop) value *= dropout_factor(s.dropout, view.keys, element + k);
                store(to + k * L, value);
            }
            if (kDrop) element += s.channels;
        }
    }
};

template <Activation kActivation, bool kDrop>
static void activation_row(const View &view, int y, float *out) {
    ActivationRow<kActivation, kDrop> work{view, y, out};
    for_channels<kDrop ? 1 : 4>(work, view.stage->channels);
}

static void make_activation_row(const View &view, int y, float *out) {
    typedef void (*Row)(const View &, int, float *);
    static const Row rows[3][2] = {
        {activation_row<kNothing, false>, activation_row<kNothing, true>},
        {activation_row<kRelu, false>, activation_row<kRelu, true>},
        {activation_row<kHardSwish, false>, activation_row<kHardSwish, true>}};
    const Stage &s = *view.stage;
    rows[s.activation][s.dropout.threshold && view.training](view, y, out);
}
