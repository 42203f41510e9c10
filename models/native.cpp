// One training step of a `ModelSpec` on one thread: forward, loss and backward in one call.
//
// Layout. Images are taken in blocks of LANES (16 for AVX-512, 8 for AVX2, 4 otherwise), and every
// feature map is stored as [block][height][width][channel][lane]. One vector holds one channel of
// one pixel of all images of a block, so a convolution is "broadcast weight times vector" and no
// number of channels or pixels leaves a vector part-filled. Only the last block of a batch may have
// lanes without an image; they are masked wherever they could reach a sum.
//
// Stages. A network is planned as stages. A stage makes a `raw` map out of the activation of the
// stage before it (a convolution, or a copy where pools and dropouts follow each other in a way
// that one stage cannot hold), and its activation is made from `raw` on the fly, row by row, just
// before it is used: BatchNorm, ReLU, dropout, 2×2 maximum, dropout. So only `raw` and the gradient
// of the activation travel through memory; rows in work stay in rings that fit the caches.
//
// BatchNorm makes the whole batch wait at each stage, so the loops are: stages, blocks, rows.
// The backward pass of one stage and block does, for each group of rows: the gradient of `raw`, the
// weight gradient, the gradient of the activation before, and that stage's BatchNorm sums.
//
// The second half of this file is compiled once for each instruction set by including itself under
// a target pragma. Nothing in it may use a function of the C++ library: an inline function
// instantiated under such a pragma could be shared with code that runs on lesser processors.

#ifndef NATIVE_LANES

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <chrono>
#include <new>
#include <vector>

#if defined(__x86_64__)
#define NATIVE_X86 1
#include <immintrin.h>
#else
#define NATIVE_X86 0
#endif

#define NATIVE_INLINE static inline __attribute__((always_inline))
#define NATIVE_INLINE_MEMBER inline __attribute__((always_inline))

namespace {

enum LayerKind : int32_t { kConv = 0, kPool = 1, kDropout = 2, kGap = 3, kOutput = 4 };

constexpr size_t kNone = ~size_t{0};
constexpr double kEpsilon = 1e-5;  // of PyTorch's BatchNorm2d, like the momentum
constexpr double kMomentum = 0.1;
constexpr int kMostGroup = 32;    // rows
constexpr size_t kWorkingSet = 32 * 1024;  // bytes: what rows in work may take of the L1 cache

// What the time of a step is booked under when somebody asks for it.
enum Stopwatch { kForward, kInputGradient, kWeightGradient, kElementwise, kHead, kStopwatches };

struct Dropout {
    float scale = 1;        // of what is kept: 1 / (1 - rate)
    int32_t threshold = 0;  // of 2^24 random values, those under it drop; 0 is no dropout
    uint32_t salt = 0;
    double keep = 1;
};

// `total` things in parts of at most `most` that differ by one at most; the larger ones come first.
struct Split {
    int parts, size, larger;
    Split(int total, int most) {
        parts = (total + most - 1) / most;
        size = total / parts;
        larger = total % parts;
    }
    int part(int index) const { return size + (index < larger ? 1 : 0); }
};

struct Stage {
    int kernel = 0, padding = 0;  // kernel 0: a copy of the activation before
    int in_channels = 0, in_height = 0, in_width = 0;
    int channels = 0, height = 0, width = 0;  // of raw
    int out_height = 0, out_width = 0;        // of the activation
    bool pool = false;
    Dropout before, after;        // the pool
    bool needs_gradient = false;  // of the activation: there are weights at or before it
    int group = 1;                // rows of raw that the backward pass takes at once
    size_t weight = kNone, bias = kNone, gamma = kNone, beta = kNone;  // in the flat parameters
    size_t running_mean = kNone, running_var = kNone;                  // in the flat statistics
    // Per block [height][width][channels][lanes], and of the activation the same with out_height and
    // out_width. The gradient shares the memory of the next convolution's raw: see plan_raw.
    float *raw = nullptr, *gradient = nullptr;
    size_t raw_stride = 0, gradient_stride = 0;  // from block to block
    // One value a channel. The activation is relu(scale * raw + shift), and the gradient of raw is
    // scale * dz - (slope * (raw - mean) + level), where dz is that of the BatchNorm's output.
    float *scale = nullptr, *shift = nullptr, *mean = nullptr, *slope = nullptr, *level = nullptr;
    double *inverse_std = nullptr;
    double *mean_rest = nullptr;  // what rounding took from the mean
    double *sums = nullptr;       // 2 a channel
    float *lane_sums = nullptr;                      // 2 vectors a channel
    float *packed = nullptr, *packed_flipped = nullptr, *weight_sums = nullptr;

    bool convolves() const { return kernel > 0; }
    int slots() const { return group + 2; }  // rows of a ring: a group and what a kernel reaches
    int gradient_border() const { return convolves() ? kernel - 1 - padding : 0; }
    size_t activation_ring_row() const { return size_t(in_width + 2 * padding) * in_channels; }
    size_t gradient_ring_row() const { return size_t(width + 2 * gradient_border()) * channels; }
    bool drops() const { return before.threshold > 0 || after.threshold > 0; }
    size_t raw_size() const { return size_t(height) * width * channels; }
    size_t out_size() const { return size_t(out_height) * out_width * channels; }
    size_t weights() const { return size_t(channels) * in_channels * kernel * kernel; }
};

// What follows the last stage: the mean over pixels and the linear map to the classes. Without a
// dropout between them the two commute, so the mean is always taken first then (`per_pixel` false).
struct Head {
    int channels = 0, n_classes = 0;
    bool linear = false, per_pixel = false;
    Dropout features, pixels, logits;  // before the linear map, between it and the mean, after all
    size_t weight = kNone, bias = kNone;
    float *mean = nullptr, *scores = nullptr, *weight_sums = nullptr, *bias_sums = nullptr;
};

struct Sample {
    int n;                  // images in the batch
    const float *images;    // [blocks][height][width][channels][lanes], normalised
    const int64_t *labels;  // n
    float label_smoothing;
    uint64_t seed;
    double *loss_sum;
    int64_t *n_correct;
};

struct LayerCode {  // as native.py declares it
    int32_t kind, channels, kernel, padding, bias;
    float rate;
};

struct Affine {  // as native.py declares it: one call of the sampler
    const uint8_t *images;  // (n_images, channels, height, width)
    int64_t n_images;
    int32_t channels, height, width, n;
    const int64_t *index;   // n
    const float *matrices;  // (n, 2, 3), or null for the images as they are
    const float *scale, *offset;  // one a channel: of a byte, to normalised
    uint8_t *scratch;       // sampler_scratch() bytes; zero where no image is
    float *out;
};

struct Network {
    int lanes = 0, max_batch = 0, n_stages = 0;
    std::vector<Stage> stages;
    Stage *stage = nullptr;  // stages.data()
    Head head;
    size_t n_parameters = 0, n_statistics = 0;
    float *activation_ring = nullptr, *gradient_ring = nullptr;
    std::vector<void *> buffers;
    double *seconds = nullptr;  // kStopwatches, while somebody profiles
    bool (*step)(Network &, const Sample &, const float *, float *, float *) = nullptr;
    bool (*evaluate)(Network &, const Sample &, const float *, const float *, float *) = nullptr;

    ~Network() {
        for (void *buffer : buffers) std::free(buffer);
    }

    // Every buffer is its own allocation, so that a sanitizer sees a step over its end.
    template <typename T>
    T *allocate(size_t count) {
        const size_t bytes = (count * sizeof(T) + 63) / 64 * 64;
        void *buffer = nullptr;
        if (posix_memalign(&buffer, 64, bytes ? bytes : 64) != 0) throw std::bad_alloc();
        buffers.push_back(buffer);
        std::memset(buffer, 0, bytes);
        return static_cast<T *>(buffer);
    }
};

int blocks_of(int n, int lanes) { return (n + lanes - 1) / lanes; }

// A well-mixed 32-bit value (Chris Wellons' lowbias32).
NATIVE_INLINE uint32_t mix(uint32_t x) {
    x = (x ^ (x >> 16)) * 0x7feb352dU;
    x = (x ^ (x >> 15)) * 0x846ca68bU;
    return x ^ (x >> 16);
}

NATIVE_INLINE uint32_t image_key(uint64_t seed, uint32_t salt, uint32_t image) {
    return mix(mix(mix(uint32_t(seed)) ^ uint32_t(seed >> 32)) + mix(salt * 0x9e3779b9U + image));
}

double now() {
    using namespace std::chrono;
    return duration<double>(steady_clock::now().time_since_epoch()).count();
}

// Books the time until the end of its block, while somebody profiles.
class Booking {
  public:
    Booking(const Network &network, Stopwatch watch)
        : seconds_(network.seconds ? network.seconds + watch : nullptr) {
        if (seconds_) *seconds_ -= now();
    }
    ~Booking() {
        if (seconds_) *seconds_ += now();
    }
    Booking(const Booking &) = delete;
    Booking &operator=(const Booking &) = delete;

  private:
    double *seconds_;
};

// Numbers too small for a normal float count as 0 in here: they cost hundreds of cycles each and
// teach a network nothing. The caller's own setting comes back at the end.
class FlushDenormals {
  public:
#if NATIVE_X86
    FlushDenormals() : saved_(_mm_getcsr()) { _mm_setcsr(saved_ | 0x8040); }
    ~FlushDenormals() { _mm_setcsr(saved_); }

  private:
    unsigned saved_;
#endif
};

size_t scratch_stride(int width) { return size_t(width) + 3; }

size_t scratch_image(int channels, int height, int width) {
    return channels * (size_t(height) + 3) * scratch_stride(width);
}

// Two dropouts in a row are one: what both keep, scaled by both.
void join(Dropout &dropout, double rate, uint32_t salt) {
    if (rate <= 0) return;
    dropout.keep *= 1 - rate;
    dropout.scale = float(1 / dropout.keep);
    dropout.threshold = int32_t(std::lround((1 - dropout.keep) * (1 << 24)));
    dropout.salt = salt;
}

Stage copy_of(const Stage &before) {
    Stage stage;
    stage.in_channels = stage.channels = before.channels;
    stage.in_height = stage.height = stage.out_height = before.out_height;
    stage.in_width = stage.width = stage.out_width = before.out_width;
    stage.needs_gradient = before.needs_gradient;
    return stage;
}

void add_convolution(Network &network, const LayerCode &layer) {
    Stage stage = copy_of(network.stages.back());
    stage.kernel = layer.kernel;
    stage.padding = layer.padding;
    stage.channels = layer.channels;
    stage.height = stage.out_height = stage.in_height + 2 * layer.padding - layer.kernel + 1;
    stage.width = stage.out_width = stage.in_width + 2 * layer.padding - layer.kernel + 1;
    stage.needs_gradient = true;
    stage.weight = network.n_parameters;
    network.n_parameters += stage.weights();
    if (layer.bias) {
        stage.bias = network.n_parameters;
        network.n_parameters += stage.channels;
    }
    stage.gamma = network.n_parameters;
    stage.beta = stage.gamma + stage.channels;
    network.n_parameters += 2 * size_t(stage.channels);
    stage.running_mean = network.n_statistics;
    stage.running_var = stage.running_mean + stage.channels;
    network.n_statistics += 2 * size_t(stage.channels);
    network.stages.push_back(stage);
}

void add_pool(Network &network) {
    if (network.stages.back().pool) network.stages.push_back(copy_of(network.stages.back()));
    Stage &stage = network.stages.back();
    stage.pool = true;
    stage.out_height = stage.height / 2;
    stage.out_width = stage.width / 2;
}

void add_output(Network &network, const LayerCode &layer) {
    Head &head = network.head;
    head.linear = true;
    head.weight = network.n_parameters;
    network.n_parameters += size_t(head.n_classes) * head.channels;
    if (layer.bias) {
        head.bias = network.n_parameters;
        network.n_parameters += head.n_classes;
    }
}

void plan_layers(Network &network, const LayerCode *layers, int n_layers) {
    Head &head = network.head;
    bool averaged = false;
    for (int i = 0; i < n_layers; ++i) {
        const LayerCode &layer = layers[i];
        Stage &last = network.stages.back();
        head.channels = last.channels;
        switch (layer.kind) {
            case kConv: add_convolution(network, layer); break;
            case kPool: add_pool(network); break;
            case kGap: averaged = true; break;
            case kOutput: add_output(network, layer); break;
            case kDropout:
                if (head.linear && !averaged) {
                    join(head.pixels, layer.rate, i);
                } else if (head.linear) {
                    join(head.logits, layer.rate, i);
                } else if (averaged) {
                    join(head.features, layer.rate, i);
                } else {
                    join(last.pool ? last.after : last.before, layer.rate, i);
                }
        }
    }
    head.channels = network.stages.back().channels;
    head.per_pixel = head.pixels.threshold > 0;
}

size_t most(size_t a, size_t b) { return a > b ? a : b; }

int group_rows(const Stage &stage, int lanes) {
    const size_t row = stage.activation_ring_row() + stage.gradient_ring_row();
    int rows = int(kWorkingSet / (row * lanes * sizeof(float)));
    rows = rows > kMostGroup ? kMostGroup : rows;
    rows = rows > stage.height ? stage.height : rows < 1 ? 1 : rows;
    return stage.pool ? (rows + 1) / 2 * 2 : rows;
}

// Row for row, the backward pass uses up raw and makes the gradient of the activation before. So that
// gradient takes raw's place, and raw starts just far enough in for it never to be overtaken.
void plan_raw(Network &network, Stage &stage, size_t blocks) {
    const size_t lanes = network.lanes;
    if (&stage == &network.stages.front()) {
        stage.raw_stride = stage.raw_size() * lanes;
        return;
    }
    Stage &before = *(&stage - 1);
    const size_t in_row = size_t(stage.in_width) * stage.in_channels;
    const size_t row = size_t(stage.width) * stage.channels;
    size_t start = 0;
    if (before.needs_gradient && !stage.convolves()) {
        start = before.out_size();
    } else if (before.needs_gradient) {
        for (int used = stage.group; used < stage.height; used += stage.group) {
            const size_t made = size_t(used - stage.padding) * in_row;
            start = most(start, made > used * row ? made - used * row : 0);
        }
    }
    const size_t gradient_size = before.needs_gradient ? before.out_size() : 0;
    stage.raw_stride = most(start + stage.raw_size(), gradient_size) * lanes;
    float *memory = network.allocate<float>(blocks * stage.raw_stride);
    stage.raw = memory + start * lanes;
    if (before.needs_gradient) {
        before.gradient = memory;
        before.gradient_stride = stage.raw_stride;
    }
}

void plan_buffers(Network &network) {
    const size_t lanes = network.lanes, blocks = blocks_of(network.max_batch, network.lanes);
    size_t activation_ring = 0, gradient_ring = 0;
    for (Stage &stage : network.stages) {
        const size_t c = stage.channels;
        stage.group = group_rows(stage, network.lanes);
        plan_raw(network, stage, blocks);
        activation_ring = most(activation_ring, stage.activation_ring_row() * stage.slots() * lanes);
        activation_ring = most(activation_ring, stage.out_width * c * lanes);  // the head's row
        gradient_ring = most(gradient_ring, stage.gradient_ring_row() * stage.slots() * lanes);
        if (!stage.convolves()) continue;
        for (float **values : {&stage.scale, &stage.shift, &stage.mean, &stage.slope, &stage.level}) {
            *values = network.allocate<float>(c);
        }
        stage.inverse_std = network.allocate<double>(c);
        stage.mean_rest = network.allocate<double>(c);
        stage.sums = network.allocate<double>(2 * c);
        stage.lane_sums = network.allocate<float>(2 * c * lanes);
        stage.packed = network.allocate<float>(stage.weights());
        stage.packed_flipped = network.allocate<float>(stage.weights());
        stage.weight_sums = network.allocate<float>(stage.weights() * lanes);
    }
    Stage &last = network.stages.back();
    last.gradient_stride = last.out_size() * lanes;
    last.gradient = network.allocate<float>(blocks * last.gradient_stride);
    network.activation_ring = network.allocate<float>(activation_ring);
    network.gradient_ring = network.allocate<float>(gradient_ring);
    Head &head = network.head;
    head.mean = network.allocate<float>(2 * head.channels * lanes);
    head.scores = network.allocate<float>(2 * head.n_classes * lanes);
    head.weight_sums = network.allocate<float>(size_t(head.n_classes) * head.channels * lanes);
    head.bias_sums = network.allocate<float>(head.n_classes * lanes);
}

}  // namespace

#if NATIVE_X86
#define NATIVE_LANES 16
#define NATIVE_NAMESPACE avx512
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,fma,tune=skylake-avx512")
#pragma GCC diagnostic push  // GCC 12 takes its own _mm512_undefined_ps() for a mistake
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif
#include "native.cpp"
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC diagnostic pop
#pragma GCC pop_options
#endif
#undef NATIVE_LANES
#undef NATIVE_NAMESPACE

#define NATIVE_LANES 8
#define NATIVE_NAMESPACE avx2
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,tune=haswell")
#endif
#include "native.cpp"
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#undef NATIVE_LANES
#undef NATIVE_NAMESPACE
#endif  // NATIVE_X86

#define NATIVE_LANES 4
#define NATIVE_NAMESPACE baseline
#include "native.cpp"

namespace {

enum Isa : int32_t { kBaseline = 0, kAvx2 = 1, kAvx512 = 2 };

bool supports(int isa) {
#if NATIVE_X86
    if (isa == kAvx512) {
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    }
    if (isa == kAvx2) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
    return isa == kBaseline;
}

int lanes_of(int isa) { return isa == kAvx512 ? 16 : isa == kAvx2 ? 8 : 4; }

}  // namespace

extern "C" {

int native_supports(int isa) { return supports(isa); }

int native_lanes(int isa) { return lanes_of(isa); }

// Null if memory runs out.
void *native_create(int isa, const LayerCode *layers, int n_layers, int channels, int height,
                    int width, int n_classes, int max_batch) try {
    auto *network = new Network();
    network->lanes = lanes_of(isa);
    network->max_batch = max_batch;
    network->head.n_classes = n_classes;
    Stage input;
    input.channels = channels;
    input.height = input.out_height = height;
    input.width = input.out_width = width;
    network->stages.reserve(n_layers + 1);
    network->stages.push_back(input);
    try {
        plan_layers(*network, layers, n_layers);
        plan_buffers(*network);
    } catch (...) {
        delete network;
        throw;
    }
    network->n_stages = int(network->stages.size());
    network->stage = network->stages.data();
    network->step = baseline::step;
    network->evaluate = baseline::evaluate;
#if NATIVE_X86
    if (isa == kAvx2) network->step = avx2::step, network->evaluate = avx2::evaluate;
    if (isa == kAvx512) network->step = avx512::step, network->evaluate = avx512::evaluate;
#endif
    return network;
} catch (const std::bad_alloc &) {
    return nullptr;
}

void native_destroy(void *network) { delete static_cast<Network *>(network); }

int64_t native_parameters(const void *network) {
    return int64_t(static_cast<const Network *>(network)->n_parameters);
}

int64_t native_statistics(const void *network) {
    return int64_t(static_cast<const Network *>(network)->n_statistics);
}

// `seconds` (kStopwatches values) gathers where the time goes from now on; null stops it.
void native_profile(void *network, double *seconds) {
    static_cast<Network *>(network)->seconds = seconds;
}

// False, and nothing done, if a label is not a class.
int native_step(void *network, const float *images, int n, const int64_t *labels,
                float label_smoothing, uint64_t seed, const float *parameters, float *gradient,
                float *statistics, double *loss_sum, int64_t *n_correct) {
    const Sample sample{n, images, labels, label_smoothing, seed, loss_sum, n_correct};
    auto &self = *static_cast<Network *>(network);
    return self.step(self, sample, parameters, gradient, statistics);
}

// `logits` (n, n_classes) may be null.
int native_evaluate(void *network, const float *images, int n, const int64_t *labels,
                    const float *parameters, const float *statistics, float *logits,
                    double *loss_sum, int64_t *n_correct) {
    const Sample sample{n, images, labels, 0, 0, loss_sum, n_correct};
    auto &self = *static_cast<Network *>(network);
    return self.evaluate(self, sample, parameters, statistics, logits);
}

int64_t native_sampler_scratch(int isa, int channels, int height, int width) {
    return int64_t(scratch_image(channels, height, width)) * lanes_of(isa) + 4;
}

// False, and nothing done, if an index is not that of an image.
int native_sample(int isa, const Affine *affine) {
#if NATIVE_X86
    if (isa == kAvx512) return avx512::sample(*affine);
    if (isa == kAvx2) return avx2::sample(*affine);
#endif
    (void)isa;
    return baseline::sample(*affine);
}

}  // extern "C"

#else  // NATIVE_LANES: once for each instruction set

namespace NATIVE_NAMESPACE {

constexpr int L = NATIVE_LANES;

// --- Vectors: V is a float a lane, U an unsigned integer a lane, M a condition a lane. ---

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

// `v`, but loaded once: compilers like to fold a load into each multiplication that uses it, and then
// the load ports are what the loop waits for.
NATIVE_INLINE V in_register(V v) {
#if NATIVE_LANES == 16
    asm("" : "+v"(v));
#elif NATIVE_LANES == 8
    asm("" : "+x"(v));
#endif
    return v;
}

NATIVE_INLINE double total(V v) {
    alignas(64) float values[L];
    store(values, v);
    double sum = 0;
    for (float value : values) sum += value;
    return sum;
}

NATIVE_INLINE int lesser(int a, int b) { return a < b ? a : b; }
NATIVE_INLINE int greater_of(int a, int b) { return a > b ? a : b; }

// --- One block of one stage, as the source of an activation. ---

struct View {
    const Stage *stage;
    const float *raw;
    float *gradient;
    M lanes;                                         // those that hold an image
    alignas(64) uint32_t before[L], after[L];        // dropout: the key of each image
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

// Calls work.part<n>(c) for channels [c, c + n) until all are done, with n = kMost as far as it goes:
// neighbouring channels are neighbours in memory, and their coefficients stay in registers.
template <int kMost, typename Work>
NATIVE_INLINE void for_channels(Work &work, int channels, int c = 0) {
    for (; c + kMost <= channels; c += kMost) work.template part<kMost>(c);
    if constexpr (kMost > 1) for_channels<kMost / 2>(work, channels, c);
}

constexpr int most_channels(bool pool, bool drop) { return drop ? 1 : pool ? 2 : 4; }

// The output of BatchNorm (or raw itself), and the maximum over a window of it, where ReLU clips at
// `floor`. ReLU is left to the maximum where no dropout comes between.
template <bool kNorm>
NATIVE_INLINE V normalise(V raw, V scale, V shift) {
    return kNorm ? fma(raw, scale, shift) : raw;
}

template <bool kNorm>
NATIVE_INLINE V rectify(V value) {
    return kNorm ? maximum(all(0), value) : value;
}

NATIVE_INLINE V maximum_of(const V *corner) {
    return maximum(maximum(corner[0], corner[1]), maximum(corner[2], corner[3]));
}

// One 2×2 window of one channel, as the pooling sees it. The maximum and where it was come from
// here alone, in both directions.
template <bool kNorm, bool kDrop>
struct Window {
    V raw[4], corner[4], factor[4], top;

    NATIVE_INLINE_MEMBER Window(const View &view, const float *p, size_t right, size_t down, V scale,
                                V shift, uint32_t element) {
        const Stage &s = *view.stage;
        const size_t offset[4] = {0, right, down, down + right};
        for (int k = 0; k < 4; ++k) {
            raw[k] = load(p + offset[k]);
            corner[k] = normalise<kNorm>(raw[k], scale, shift);
            if constexpr (kDrop) {
                factor[k] = all(1);
                if (s.before.threshold) {
                    const uint32_t at = element + uint32_t(offset[k] / L);
                    factor[k] = dropout_factor(s.before, view.before, at);
                    corner[k] = rectify<kNorm>(corner[k]) * factor[k];
                }
            }
        }
        top = rectify<kNorm>(maximum_of(corner));
    }
};

// Row `y` of the activation, (out_width, channels) vectors, to `out`.
template <bool kNorm, bool kPool, bool kDrop>
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
            scale[k] = kNorm ? all(s.scale[c + k]) : V{};
            shift[k] = kNorm ? all(s.shift[c + k]) : V{};
        }
        for (int x = 0; x < s.out_width; ++x) {
            for (int k = 0; k < kChannels; ++k) {
                const uint32_t element = uint32_t(kPool ? 2 * x : x) * s.channels + c + k;
                const float *p = raw + size_t(element) * L;
                V value;
                if constexpr (kPool) {
                    value = Window<kNorm, kDrop>(view, p, right, down, scale[k], shift[k],
                                                 row + element).top;
                } else {
                    value = rectify<kNorm>(normalise<kNorm>(load(p), scale[k], shift[k]));
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

// dz is the gradient of the BatchNorm's output (of raw, in a stage without one): the gradient of the
// activation through dropout, to the pixel that was the maximum, where ReLU let it pass.

template <bool kNorm, bool kDrop>
NATIVE_INLINE V plain_dz(const View &view, V raw, V gradient, V scale, V shift, uint32_t element) {
    if (kDrop) gradient *= dropout_factor(view.stage->before, view.before, element);
    if (!kNorm) return gradient;
    return keep(greater(normalise<kNorm>(raw, scale, shift), all(0)), gradient);
}

// What of a window's gradient comes through to the maximum.
template <bool kNorm, bool kDrop>
NATIVE_INLINE V window_gradient(const View &view, const Window<kNorm, kDrop> &window, V gradient,
                                uint32_t out_element) {
    if (kDrop && view.stage->after.threshold) {
        gradient *= dropout_factor(view.stage->after, view.after, out_element);
    }
    return kNorm ? keep(greater(window.top, all(0)), gradient) : gradient;
}

// The gradient of raw row `y` to rows[0]; with a pool y is even, and row y + 1, where there is one,
// goes to rows[1].
template <bool kNorm, bool kPool, bool kDrop>
struct RawGradientRows {
    const View &view;
    int y;
    float *const *rows;

    template <int kChannels>
    struct Coefficients {
        V scale[kChannels], shift[kChannels], mean[kChannels], slope[kChannels], level[kChannels];

        NATIVE_INLINE_MEMBER Coefficients(const Stage &s, int c) {
            for (int k = 0; k < kChannels; ++k) {
                scale[k] = kNorm ? all(s.scale[c + k]) : V{};
                shift[k] = kNorm ? all(s.shift[c + k]) : V{};
                mean[k] = kNorm ? all(s.mean[c + k]) : V{};
                slope[k] = kNorm ? all(s.slope[c + k]) : V{};
                level[k] = kNorm ? all(s.level[c + k]) : V{};
            }
        }
        NATIVE_INLINE_MEMBER V of_raw(int k, V raw, V dz) const {
            if (!kNorm) return dz;
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
                const V dz =
                    plain_dz<kNorm, kDrop>(view, raw, load(view.gradient + size_t(element) * L),
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
                const Window<kNorm, kDrop> window(view, view.raw + size_t(row + place) * L, right,
                                                  down, of.scale[k], of.shift[k], row + place);
                const V gradient = window_gradient(
                    view, window, load(view.gradient + size_t(out_element) * L), out_element);
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
template <bool kPool, bool kDrop>
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
                    const Window<true, kDrop> window(view, view.raw + size_t(element) * L, right,
                                                     down, scale[k], shift[k], element);
                    dz = window_gradient(view, window, gradient, out_element);
                    V factor = all(1);
                    raw = window.raw[3];
                    if constexpr (kDrop) factor = window.factor[3];
                    for (int corner = 2; corner >= 0; --corner) {
                        const M here = equal(window.corner[corner], window.top);
                        raw = choose(here, window.raw[corner], raw);
                        if constexpr (kDrop) factor = choose(here, window.factor[corner], factor);
                    }
                    if constexpr (kDrop) dz *= factor;
                } else {
                    dz = plain_dz<true, kDrop>(view, raw, gradient, scale[k], shift[k], element);
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

template <bool kNorm, bool kPool, bool kDrop>
static void activation_row(const View &view, int y, float *out) {
    ActivationRow<kNorm, kPool, kDrop> work{view, y, out};
    for_channels<most_channels(kPool, kDrop)>(work, view.stage->channels);
}

template <bool kNorm, bool kPool, bool kDrop>
static void raw_gradient_rows(const View &view, int y, float *const *rows) {
    RawGradientRows<kNorm, kPool, kDrop> work{view, y, rows};
    for_channels<most_channels(kPool, kDrop)>(work, view.stage->channels);
}

template <bool kPool, bool kDrop>
static void add_norm_sums(const View &view, int y) {
    NormSums<kPool, kDrop> work{view, y};
    for_channels<most_channels(kPool, kDrop)>(work, view.stage->channels);
}

static void make_activation_row(const View &view, int y, float *out) {
    typedef void (*Row)(const View &, int, float *);
    static const Row rows[8] = {
        activation_row<false, false, false>, activation_row<false, false, true>,
        activation_row<false, true, false>,  activation_row<false, true, true>,
        activation_row<true, false, false>,  activation_row<true, false, true>,
        activation_row<true, true, false>,   activation_row<true, true, true>};
    const Stage &s = *view.stage;
    rows[4 * s.convolves() + 2 * s.pool + (s.drops() && view.training)](view, y, out);
}

static void make_raw_gradient_rows(const View &view, int y, float *const *out) {
    typedef void (*Rows)(const View &, int, float *const *);
    static const Rows rows[8] = {
        raw_gradient_rows<false, false, false>, raw_gradient_rows<false, false, true>,
        raw_gradient_rows<false, true, false>,  raw_gradient_rows<false, true, true>,
        raw_gradient_rows<true, false, false>,  raw_gradient_rows<true, false, true>,
        raw_gradient_rows<true, true, false>,   raw_gradient_rows<true, true, true>};
    const Stage &s = *view.stage;
    rows[4 * s.convolves() + 2 * s.pool + s.drops()](view, y, out);
}

static void take_norm_sums(const View &view, int y) {
    typedef void (*Row)(const View &, int);
    static const Row rows[4] = {add_norm_sums<false, false>, add_norm_sums<false, true>,
                                add_norm_sums<true, false>, add_norm_sums<true, true>};
    const Stage &s = *view.stage;
    if (s.convolves()) rows[2 * s.pool + s.drops()](view, y);
}

// --- Convolution. For one row of the kernel the taps and the input channels of a pixel lie side by
// side in a row of the input: `reach` = kernel * channels vectors from the pixel's own. ---

struct RowTaps {
    int n;                    // rows of the kernel that meet a row of the input
    int kernel_row[3];
    const float *input[3];  // the row of the input, from its left border on
    const float *packed;    // weights, as pack() lays them
    int kernel, channels;   // channels of the input
    int reach;              // kernel * channels
};

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

#define NATIVE_PIXELS(o)                                                                  \
    {convolve_entry<o, 1>(), convolve_entry<o, 2>(), convolve_entry<o, 3>(),              \
     convolve_entry<o, 4>(), convolve_entry<o, 5>(), convolve_entry<o, 6>(),              \
     convolve_entry<o, 7>(), convolve_entry<o, 8>()}
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

// The same for the gradient of the input: in and out change places, and the columns turn round. (The
// rows of the kernel are looked up by their own number.)
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
    {weight_entry<o, 1>(), weight_entry<o, 2>(), weight_entry<o, 3>(), weight_entry<o, 4>()}
static const AddWeightTile kAddWeightTile[6][4] = {NATIVE_INPUTS(1), NATIVE_INPUTS(2),
                                                   NATIVE_INPUTS(3), NATIVE_INPUTS(4),
                                                   NATIVE_INPUTS(5), NATIVE_INPUTS(6)};
#undef NATIVE_INPUTS

static int weight_input_parts(const Stage &s) { return s.kernel * s.in_channels; }

// Adds the weight gradient of kernel row `ky` over `n_rows` rows.
static void add_weight_row(const Stage &s, int ky, const float *const *gradient,
                           const float *const *input, int n_rows) {
    const int reach = weight_input_parts(s);
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
    const int k = s.kernel, reach = weight_input_parts(s);
    const Split outputs(s.channels, kMostWeightOutputs), inputs(reach, kMostWeightInputs);
    const float *sums = s.weight_sums;
    for (int ky = 0; ky < k; ++ky) {
        for (int tile_o = 0, o0 = 0; tile_o < outputs.parts; o0 += outputs.part(tile_o++)) {
            for (int tile_i = 0, i0 = 0; tile_i < inputs.parts; i0 += inputs.part(tile_i++)) {
                for (int o = o0; o < o0 + outputs.part(tile_o); ++o) {
                    for (int i = i0; i < i0 + inputs.part(tile_i); ++i, sums += L) {
                        const size_t place = size_t(o) * s.in_channels + i % s.in_channels;
                        gradient[(place * k + ky) * k + i / s.in_channels] = float(total(load(sums)));
                    }
                }
            }
        }
    }
}

// --- Rows in work: row y of a map lies in slot y % slots, between borders that stay zero. ---

struct Ring {
    float *data;
    size_t row_size, border;
    int slots;
    float *row(int y) const { return data + (y % slots) * row_size; }
    float *inside(int y) const { return row(y) + border; }
};

static Ring make_ring(float *data, size_t row_size, size_t border, int slots) {
    const Ring ring{data, row_size * L, border * L, slots};
    for (int slot = 0; slot < slots; ++slot) {
        memset(ring.row(slot), 0, ring.border * sizeof(float));
        memset(ring.row(slot) + ring.row_size - ring.border, 0, ring.border * sizeof(float));
    }
    return ring;
}

static Ring activation_ring(const Network &network, const Stage &s) {
    return make_ring(network.activation_ring, s.activation_ring_row(),
                     size_t(s.padding) * s.in_channels, s.slots());
}

static Ring gradient_ring(const Network &network, const Stage &s) {
    return make_ring(network.gradient_ring, s.gradient_ring_row(),
                     size_t(s.gradient_border()) * s.channels, s.slots());
}

// --- BatchNorm ---

static void clear_sums(const Stage &s) {
    for (int i = 0; i < 2 * s.channels; ++i) s.sums[i] = 0;
}

static void clear_lane_sums(const Stage &s) {
    memset(s.lane_sums, 0, 2 * size_t(s.channels) * L * sizeof(float));
}

// Sums of single precision are kept to one block; over the blocks they are double.
static void fold_lane_sums(const Stage &s) {
    for (int i = 0; i < 2 * s.channels; ++i) s.sums[i] += total(load(s.lane_sums + size_t(i) * L));
}

// The mean of one row of raw, as the value around which to take the statistics: the difference of
// the mean square and the squared mean loses digits where the mean is far from zero.
static void choose_pivot(const Stage &s, const float *row, int n_lanes) {
    const M lanes = first_lanes(n_lanes);
    for (int c = 0; c < s.channels; ++c) {
        V sum{};
        for (int x = 0; x < s.width; ++x) sum += load(row + (size_t(x) * s.channels + c) * L);
        s.mean[c] = float(total(keep(lanes, sum)) / (double(s.width) * lesser(n_lanes, L)));
    }
}

// Adds a row of raw to the sums of its distance from the pivot, and of the square of it.
struct Statistics {
    const Stage &s;
    const float *row;
    M lanes;

    template <int kChannels>
    NATIVE_INLINE_MEMBER void part(int c) {
        V pivot[kChannels], sum[kChannels], square[kChannels];
        float *sums = s.lane_sums + 2 * size_t(c) * L;
        for (int k = 0; k < kChannels; ++k) {
            pivot[k] = all(s.mean[c + k]);
            sum[k] = load(sums + 2 * k * L);
            square[k] = load(sums + (2 * k + 1) * L);
        }
        const float *pixel = row + size_t(c) * L;
        for (int x = 0; x < s.width; ++x, pixel += size_t(s.channels) * L) {
            for (int k = 0; k < kChannels; ++k) {
                const V distance = keep(lanes, load(pixel + k * L) - pivot[k]);
                sum[k] += distance;
                square[k] = fma(distance, distance, square[k]);
            }
        }
        for (int k = 0; k < kChannels; ++k) {
            store(sums + 2 * k * L, sum[k]);
            store(sums + (2 * k + 1) * L, square[k]);
        }
    }
};

static void add_statistics(const Stage &s, const float *row, M lanes) {
    Statistics work{s, row, lanes};
    for_channels<4>(work, s.channels);
}

static double elements(const Stage &s, int n) { return double(n) * s.height * s.width; }

// A bias before a BatchNorm is taken out again by its mean, so the convolution leaves it away and
// only the running mean sees it.
static void finish_statistics(const Stage &s, int n, const float *parameters, float *statistics) {
    const double count = elements(s, n);
    for (int c = 0; c < s.channels; ++c) {
        const double off = s.sums[2 * c] / count, mean = s.mean[c] + off;
        const double square = s.sums[2 * c + 1] / count - off * off;
        const double variance = square < 0 ? 0 : square;  // NaN stays
        const double bias = s.bias == kNone ? 0 : parameters[s.bias + c];
        s.inverse_std[c] = 1 / sqrt(variance + kEpsilon);
        s.scale[c] = float(parameters[s.gamma + c] * s.inverse_std[c]);
        s.shift[c] = float(parameters[s.beta + c] - mean * s.scale[c]);
        s.mean[c] = float(mean);
        s.mean_rest[c] = mean - s.mean[c];
        float &running_mean = statistics[s.running_mean + c];
        float &running_var = statistics[s.running_var + c];
        running_mean = float((1 - kMomentum) * running_mean + kMomentum * (mean + bias));
        running_var = float((1 - kMomentum) * running_var +
                            kMomentum * variance * count / (count - 1));
    }
}

static void use_running_statistics(const Stage &s, const float *parameters,
                                   const float *statistics) {
    for (int c = 0; c < s.channels; ++c) {
        const double bias = s.bias == kNone ? 0 : parameters[s.bias + c];
        const double variance = statistics[s.running_var + c];
        const double scale = parameters[s.gamma + c] / sqrt(variance + kEpsilon);
        s.scale[c] = float(scale);
        s.shift[c] =
            float(parameters[s.beta + c] + (bias - statistics[s.running_mean + c]) * scale);
    }
}

static void finish_norm_gradient(const Stage &s, int n, float *gradient) {
    const double count = elements(s, n);
    for (int c = 0; c < s.channels; ++c) {
        const double plain = s.sums[2 * c];
        const double normed = (s.sums[2 * c + 1] - s.mean_rest[c] * plain) * s.inverse_std[c];
        gradient[s.beta + c] = float(plain);
        gradient[s.gamma + c] = float(normed);
        if (s.bias != kNone) gradient[s.bias + c] = 0;  // the mean takes it out again
        const double slope = s.scale[c] * s.inverse_std[c] * normed / count;
        s.slope[c] = float(slope);
        s.level[c] = float(s.scale[c] * plain / count - slope * s.mean_rest[c]);
    }
}

// --- One block of one stage ---

static const float *raw_of(const Network &network, const Sample &sample, int stage, int block) {
    const Stage &s = network.stage[stage];
    return (stage ? s.raw : sample.images) + block * s.raw_stride;
}

static void forward_block(const Network &network, const Stage &s, const View &source, float *raw,
                          int block, int n) {
    const size_t row_size = size_t(s.width) * s.channels * L;
    if (!s.convolves()) {
        for (int y = 0; y < s.height; ++y) make_activation_row(source, y, raw + y * row_size);
        return;
    }
    const Ring input = activation_ring(network, s);
    clear_lane_sums(s);
    for (int y = 0, made = 0; y < s.height; ++y) {
        {
            const Booking booking(network, kElementwise);
            const int needed = lesser(s.in_height, y - s.padding + s.kernel);
            for (; made < needed; ++made) make_activation_row(source, made, input.inside(made));
        }
        float *row = raw + y * row_size;
        {
            const Booking booking(network, kForward);
            RowTaps taps;
            taps.n = 0;
            taps.packed = s.packed;
            taps.kernel = s.kernel;
            taps.channels = s.in_channels;
            taps.reach = s.kernel * s.in_channels;
            for (int ky = 0; ky < s.kernel; ++ky) {
                const int from = y - s.padding + ky;
                if (from < 0 || from >= s.in_height) continue;
                taps.kernel_row[taps.n] = ky;
                taps.input[taps.n++] = input.row(from);
            }
            convolve_row(taps, row, s.width, s.channels);
        }
        if (source.training) {
            const Booking booking(network, kElementwise);
            if (block == 0 && y == 0) choose_pivot(s, row, n);
            add_statistics(s, row, source.lanes);
        }
    }
    if (source.training) fold_lane_sums(s);
}

// Gradient rows [from, to) of the activation before `s`, out of the rows of raw's gradient in work.
static void input_gradient_rows(const Network &network, const Stage &s, const Ring &gradient,
                                const View &source, int from, int to) {
    const size_t row_size = size_t(s.in_width) * s.in_channels * L;
    for (int y = from; y < to; ++y) {
        {
            const Booking booking(network, kInputGradient);
            RowTaps taps;
            taps.n = 0;
            taps.packed = s.packed_flipped;
            taps.kernel = s.kernel;
            taps.channels = s.channels;
            taps.reach = s.kernel * s.channels;
            for (int ky = 0; ky < s.kernel; ++ky) {
                const int row = y + s.padding - ky;
                if (row < 0 || row >= s.height) continue;
                taps.kernel_row[taps.n] = ky;
                taps.input[taps.n++] = gradient.row(row);
            }
            convolve_row(taps, source.gradient + y * row_size, s.in_width, s.in_channels);
        }
        const Booking booking(network, kElementwise);
        take_norm_sums(source, y);
    }
}

static void weight_gradient_rows(const Network &network, const Stage &s, const Ring &gradient,
                                 const Ring &input, int from, int to) {
    const Booking booking(network, kWeightGradient);
    const float *gradient_rows[kMostGroup], *input_rows[kMostGroup];
    for (int ky = 0; ky < s.kernel; ++ky) {
        int n_rows = 0;
        for (int y = from; y < to; ++y) {
            const int seen = y - s.padding + ky;
            if (seen < 0 || seen >= s.in_height) continue;
            gradient_rows[n_rows] = gradient.inside(y);
            input_rows[n_rows++] = input.row(seen);
        }
        add_weight_row(s, ky, gradient_rows, input_rows, n_rows);
    }
}

static void backward_copy(const Stage &s, const View &own, const View &source) {
    const size_t row_size = size_t(s.width) * s.channels * L;
    const int rows = s.pool ? 2 : 1;
    for (int y = 0; y < s.height; y += rows) {
        float *row = source.gradient + y * row_size;
        float *const out[2] = {row, row + row_size};
        make_raw_gradient_rows(own, y, out);
    }
    for (int y = 0; y < s.height; ++y) take_norm_sums(source, y);
}

static void backward_convolution(const Network &network, const Stage &s, const View &own,
                                 const View &source) {
    const Ring input = activation_ring(network, s), gradient = gradient_ring(network, s);
    int made = 0, passed = 0;
    for (int y = 0; y < s.height; y += s.group) {
        const int end = lesser(s.height, y + s.group);
        {
            const Booking booking(network, kElementwise);
            for (int row = y; row < end; row += s.pool ? 2 : 1) {
                float *const out[2] = {gradient.inside(row), gradient.inside(row + 1)};
                make_raw_gradient_rows(own, row, out);
            }
            const int needed = lesser(s.in_height, end - s.padding + s.kernel - 1);
            for (; made < needed; ++made) make_activation_row(source, made, input.inside(made));
        }
        weight_gradient_rows(network, s, gradient, input, y, end);
        if (source.gradient) {
            const int complete = end == s.height ? s.in_height : end - s.padding;
            input_gradient_rows(network, s, gradient, source, passed, complete);
            passed = greater_of(passed, complete);
        }
    }
}

// --- Head ---

// scores = weight * features + bias, of one pixel.
static void add_scores(const Head &head, const float *parameters, const float *features, float *scores) {
    for (int k = 0; k < head.n_classes; ++k) {
        const float *weight = parameters + head.weight + size_t(k) * head.channels;
        V score = all(head.bias == kNone ? 0 : parameters[head.bias + k]);
        for (int c = 0; c < head.channels; ++c) {
            score = fma(load(features + size_t(c) * L), all(weight[c]), score);
        }
        store(scores + size_t(k) * L, score);
    }
}

// The gradients of weight and bias added up, and that of the features, of one pixel.
static void take_scores_gradient(const Head &head, const float *parameters, const float *features,
                                 const float *scores_gradient, float *features_gradient) {
    for (int c = 0; c < head.channels; ++c) store(features_gradient + size_t(c) * L, V{});
    for (int k = 0; k < head.n_classes; ++k) {
        const V gradient = load(scores_gradient + size_t(k) * L);
        const float *weight = parameters + head.weight + size_t(k) * head.channels;
        float *sums = head.weight_sums + size_t(k) * head.channels * L;
        float *bias = head.bias_sums + size_t(k) * L;
        store(bias, load(bias) + gradient);
        for (int c = 0; c < head.channels; ++c) {
            const size_t at = size_t(c) * L;
            store(sums + at, fma(gradient, load(features + at), load(sums + at)));
            store(features_gradient + at,
                  fma(gradient, all(weight[c]), load(features_gradient + at)));
        }
    }
}

static void multiply(float *values, int n, float factor) {
    for (int i = 0; i < n; ++i) store(values + size_t(i) * L, load(values + size_t(i) * L) * factor);
}

struct HeadKeys {
    alignas(64) uint32_t features[L], pixels[L], logits[L];
    bool training;
};

static void drop(const Dropout &dropout, const uint32_t *keys, bool training, float *values, int n,
                 uint32_t first) {
    if (!training || !dropout.threshold) return;
    for (int i = 0; i < n; ++i) {
        float *value = values + size_t(i) * L;
        store(value, load(value) * dropout_factor(dropout, keys, first + i));
    }
}

static HeadKeys head_keys(const Head &head, const Sample &sample, int block, bool training) {
    HeadKeys keys;
    keys.training = training;
    fill_keys(keys.features, head.features, sample.seed, block * L);
    fill_keys(keys.pixels, head.pixels, sample.seed, block * L);
    fill_keys(keys.logits, head.logits, sample.seed, block * L);
    return keys;
}

// Logits of one block, to head.scores; the features before the linear map stay in head.mean.
static void head_forward(const Network &network, const float *parameters, const View &last,
                         const HeadKeys &keys) {
    const Head &head = network.head;
    const Stage &s = *last.stage;
    const int n_pixels = s.out_height * s.out_width, n_classes = head.n_classes;
    float *row = network.activation_ring, *mean = head.mean, *scores = head.scores;
    float *pixel_scores = scores + size_t(n_classes) * L;
    memset(mean, 0, size_t(s.channels) * L * sizeof(float));
    memset(scores, 0, size_t(n_classes) * L * sizeof(float));
    for (int y = 0; y < s.out_height; ++y) {
        make_activation_row(last, y, row);
        for (int x = 0; x < s.out_width; ++x) {
            const float *pixel = row + size_t(x) * s.channels * L;
            if (head.per_pixel) {
                add_scores(head, parameters, pixel, pixel_scores);
                const uint32_t first = uint32_t(y * s.out_width + x) * n_classes;
                drop(head.pixels, keys.pixels, keys.training, pixel_scores, n_classes, first);
                for (int k = 0; k < n_classes; ++k) {
                    float *score = scores + size_t(k) * L;
                    store(score, load(score) + load(pixel_scores + size_t(k) * L));
                }
            } else {
                for (int c = 0; c < s.channels; ++c) {
                    float *sum = mean + size_t(c) * L;
                    store(sum, load(sum) + load(pixel + size_t(c) * L));
                }
            }
        }
    }
    if (head.per_pixel) {
        multiply(scores, n_classes, 1.0f / n_pixels);
    } else {
        multiply(mean, s.channels, 1.0f / n_pixels);
        drop(head.features, keys.features, keys.training, mean, s.channels, 0);
        if (head.linear) {
            add_scores(head, parameters, mean, scores);
        } else {
            memcpy(scores, mean, size_t(n_classes) * L * sizeof(float));
        }
    }
    drop(head.logits, keys.logits, keys.training, scores, n_classes, 0);
}

// From the gradient of the logits (in head.scores) to that of the last activation.
static void head_backward(const Network &network, const float *parameters, const View &last,
                          const HeadKeys &keys) {
    const Head &head = network.head;
    const Stage &s = *last.stage;
    const int n_pixels = s.out_height * s.out_width, n_classes = head.n_classes;
    float *row = network.activation_ring, *scores = head.scores;
    float *pixel_scores = scores + size_t(n_classes) * L;
    float *mean_gradient = head.mean + size_t(s.channels) * L;
    drop(head.logits, keys.logits, true, scores, n_classes, 0);
    if (head.per_pixel) {
        multiply(scores, n_classes, 1.0f / n_pixels);
    } else {
        if (head.linear) {
            take_scores_gradient(head, parameters, head.mean, scores, mean_gradient);
        } else {
            memcpy(mean_gradient, scores, size_t(n_classes) * L * sizeof(float));
        }
        drop(head.features, keys.features, true, mean_gradient, s.channels, 0);
        multiply(mean_gradient, s.channels, 1.0f / n_pixels);
    }
    for (int y = 0; y < s.out_height; ++y) {
        if (head.per_pixel) make_activation_row(last, y, row);
        for (int x = 0; x < s.out_width; ++x) {
            const size_t place = size_t(x) * s.channels * L;
            float *gradient = last.gradient + size_t(y) * s.out_width * s.channels * L + place;
            if (!head.per_pixel) {
                memcpy(gradient, mean_gradient, size_t(s.channels) * L * sizeof(float));
                continue;
            }
            memcpy(pixel_scores, scores, size_t(n_classes) * L * sizeof(float));
            const uint32_t first = uint32_t(y * s.out_width + x) * n_classes;
            drop(head.pixels, keys.pixels, true, pixel_scores, n_classes, first);
            take_scores_gradient(head, parameters, row + place, pixel_scores, gradient);
        }
        take_norm_sums(last, y);
    }
}

// Loss and hits of one block from the logits in head.scores; in training their gradient (of the
// mean loss over the batch) takes their place.
static void take_loss(const Head &head, const Sample &sample, int block, bool training) {
    const int n_classes = head.n_classes;
    const double smoothing = sample.label_smoothing;
    for (int lane = 0; lane < L; ++lane) {
        float *score = head.scores + lane;
        const int image = block * L + lane;
        if (image >= sample.n) {
            for (int k = 0; k < n_classes; ++k) score[k * L] = 0;
            continue;
        }
        const int label = int(sample.labels[image]);
        int best = 0;
        double sum = 0, exponentials = 0;
        for (int k = 0; k < n_classes; ++k) {
            if (score[k * L] > score[best * L]) best = k;
            sum += score[k * L];
        }
        const double top = score[best * L];
        for (int k = 0; k < n_classes; ++k) exponentials += exp(score[k * L] - top);
        const double log_sum = top + log(exponentials);
        *sample.loss_sum += log_sum - (1 - smoothing) * score[label * L] - smoothing * sum / n_classes;
        *sample.n_correct += best == label;
        if (!training) continue;
        for (int k = 0; k < n_classes; ++k) {
            const double target = (1 - smoothing) * (k == label) + smoothing / n_classes;
            score[k * L] = float((exp(score[k * L] - log_sum) - target) / sample.n);
        }
    }
}

static void finish_head_gradient(const Head &head, float *gradient) {
    if (!head.linear) return;
    const int n_weights = head.n_classes * head.channels;
    for (int i = 0; i < n_weights; ++i) {
        gradient[head.weight + i] = float(total(load(head.weight_sums + size_t(i) * L)));
    }
    for (int k = 0; head.bias != kNone && k < head.n_classes; ++k) {
        gradient[head.bias + k] = float(total(load(head.bias_sums + size_t(k) * L)));
    }
}

static void head_step(const Network &network, const Sample &sample, const float *parameters,
                      float *gradient) {
    const Booking booking(network, kHead);
    const Head &head = network.head;
    const Stage &last = network.stage[network.n_stages - 1];
    memset(head.weight_sums, 0, size_t(head.n_classes) * head.channels * L * sizeof(float));
    memset(head.bias_sums, 0, size_t(head.n_classes) * L * sizeof(float));
    if (last.convolves()) clear_sums(last);
    for (int block = 0; block * L < sample.n; ++block) {
        const float *raw = raw_of(network, sample, network.n_stages - 1, block);
        const View view = view_of(last, raw, sample, block, true);
        const HeadKeys keys = head_keys(head, sample, block, true);
        if (last.convolves()) clear_lane_sums(last);
        head_forward(network, parameters, view, keys);
        take_loss(head, sample, block, true);
        head_backward(network, parameters, view, keys);
        if (last.convolves()) fold_lane_sums(last);
    }
    finish_head_gradient(head, gradient);
}

// --- Whole network ---

static bool labels_are_classes(const Sample &sample, int n_classes) {
    for (int i = 0; i < sample.n; ++i) {
        if (sample.labels[i] < 0 || sample.labels[i] >= n_classes) return false;
    }
    return true;
}

static void forward_stage(const Network &network, const Sample &sample, int index,
                          const float *parameters, float *statistics) {
    const Stage &s = network.stage[index], &before = network.stage[index - 1];
    if (s.convolves()) {
        pack(s, parameters + s.weight);
        clear_sums(s);
    }
    for (int block = 0; block * L < sample.n; ++block) {
        const View source =
            view_of(before, raw_of(network, sample, index - 1, block), sample, block, true);
        forward_block(network, s, source, s.raw + block * s.raw_stride, block, sample.n);
    }
    if (s.convolves()) finish_statistics(s, sample.n, parameters, statistics);
}

static void backward_stage(const Network &network, const Sample &sample, int index,
                           const float *parameters, float *gradient) {
    const Stage &s = network.stage[index], &before = network.stage[index - 1];
    if (!s.needs_gradient) return;
    if (s.convolves()) {
        finish_norm_gradient(s, sample.n, gradient);
        pack_flipped(s, parameters + s.weight);
        memset(s.weight_sums, 0, s.weights() * L * sizeof(float));
    }
    if (before.convolves()) clear_sums(before);
    for (int block = 0; block * L < sample.n; ++block) {
        const View own = view_of(s, raw_of(network, sample, index, block), sample, block, true);
        const View source =
            view_of(before, raw_of(network, sample, index - 1, block), sample, block, true);
        if (before.convolves()) clear_lane_sums(before);
        if (s.convolves()) {
            backward_convolution(network, s, own, source);
        } else {
            backward_copy(s, own, source);
        }
        if (before.convolves()) fold_lane_sums(before);
    }
    if (s.convolves()) unpack_weight_gradient(s, gradient + s.weight);
}

static bool step(Network &network, const Sample &sample, const float *parameters, float *gradient,
                 float *statistics) {
    if (!labels_are_classes(sample, network.head.n_classes)) return false;
    const FlushDenormals flush;
    *sample.loss_sum = 0;
    *sample.n_correct = 0;
    for (int i = 1; i < network.n_stages; ++i) {
        forward_stage(network, sample, i, parameters, statistics);
    }
    head_step(network, sample, parameters, gradient);
    for (int i = network.n_stages - 1; i > 0; --i) {
        backward_stage(network, sample, i, parameters, gradient);
    }
    return true;
}

// Without statistics to wait for, a block goes through the whole network at once, and stays in the
// caches: every block uses the memory of the first.
static bool evaluate(Network &network, const Sample &sample, const float *parameters,
                     const float *statistics, float *logits) {
    const Head &head = network.head;
    if (!labels_are_classes(sample, head.n_classes)) return false;
    const FlushDenormals flush;
    *sample.loss_sum = 0;
    *sample.n_correct = 0;
    for (int i = 1; i < network.n_stages; ++i) {
        const Stage &s = network.stage[i];
        if (!s.convolves()) continue;
        pack(s, parameters + s.weight);
        use_running_statistics(s, parameters, statistics);
    }
    for (int block = 0; block * L < sample.n; ++block) {
        const float *raw = raw_of(network, sample, 0, block);
        for (int i = 1; i < network.n_stages; ++i) {
            const Stage &s = network.stage[i];
            const View source = view_of(network.stage[i - 1], raw, sample, block, false);
            forward_block(network, s, source, s.raw, block, sample.n);
            raw = s.raw;
        }
        const View last = view_of(network.stage[network.n_stages - 1], raw, sample, block, false);
        head_forward(network, parameters, last, head_keys(head, sample, block, false));
        take_loss(head, sample, block, false);
        for (int lane = 0; logits && lane < lesser(L, sample.n - block * L); ++lane) {
            float *out = logits + size_t(block * L + lane) * head.n_classes;
            for (int k = 0; k < head.n_classes; ++k) out[k] = head.scores[k * L + lane];
        }
    }
    return true;
}

// --- Sampler ---

static bool indices_are_images(const Affine &a) {
    for (int i = 0; i < a.n; ++i) {
        if (a.index[i] < 0 || a.index[i] >= a.n_images) return false;
    }
    return true;
}

static void sample_plain(const Affine &a, int first, float *out) {
    const size_t plane = size_t(a.height) * a.width;
    const int n = lesser(L, a.n - first);
    const uint8_t *image[L];
    for (int lane = 0; lane < n; ++lane) {
        image[lane] = a.images + a.index[first + lane] * a.channels * plane;
    }
    for (int c = 0; c < a.channels; ++c) {
        const V scale = all(a.scale[c]), offset = all(a.offset[c]);
        for (size_t pixel = 0; pixel < plane; ++pixel) {
            S bytes{};
            for (int lane = 0; lane < n; ++lane) bytes[lane] = image[lane][c * plane + pixel];
            const V value = fma(to_float(bytes), scale, offset);
            store(out + (pixel * a.channels + c) * L, keep(first_lanes(n), value));
        }
    }
}

// The images of a block, one behind the other, each plane with one zero row and column before it
// and two behind it: whatever is asked for outside an image reads a zero.
static void copy_to_scratch(const Affine &a, int first) {
    const size_t stride = scratch_stride(a.width), plane = (a.height + 3) * stride;
    for (int lane = 0; lane < L && first + lane < a.n; ++lane) {
        const size_t n_bytes = size_t(a.channels) * a.height * a.width;
        const uint8_t *from = a.images + a.index[first + lane] * n_bytes;
        for (int c = 0; c < a.channels; ++c) {
            uint8_t *to = a.scratch + (size_t(lane) * a.channels + c) * plane + stride + 1;
            for (int y = 0; y < a.height; ++y, from += a.width, to += stride) {
                memcpy(to, from, a.width);
            }
        }
    }
}

// The source of pixel (x, y), in pixels from one before the first, is
// along[0] * x + along[1] * y + along[2] with x and y taken from the middle of the image.
struct SourceLine {
    V along[3];
    float most;
    NATIVE_INLINE_MEMBER V at(V x, V y) const {
        const V source = fma(along[0], x, fma(along[1], y, along[2]));
        return maximum(all(0), minimum(source, all(most)));  // not a number: `most`
    }
};

static SourceLine source_line(const Affine &a, int first, int row) {
    alignas(64) float along[3][L] = {};
    const float size = float(row ? a.height : a.width);
    for (int lane = 0; lane < L && first + lane < a.n; ++lane) {
        const float *matrix = a.matrices + (size_t(first) + lane) * 6 + 3 * row;
        along[0][lane] = matrix[0] * (size / a.width);
        along[1][lane] = matrix[1] * (size / a.height);
        along[2][lane] = matrix[2] * (size / 2) + (size - 1) / 2 + 1;
    }
    return {{load(along[0]), load(along[1]), load(along[2])}, size + 1};
}

static void sample_affine(const Affine &a, int first, float *out) {
    copy_to_scratch(a, first);
    const SourceLine source_x = source_line(a, first, 0), source_y = source_line(a, first, 1);
    const int stride = int(scratch_stride(a.width)), plane = (a.height + 3) * stride;
    const M lanes = first_lanes(a.n - first);
    S image;
    for (int lane = 0; lane < L; ++lane) image[lane] = lane * a.channels * plane;
    for (int y = 0; y < a.height; ++y) {
        const V from_middle_y = all(y - (a.height - 1) / 2.0f);
        for (int x = 0; x < a.width; ++x) {
            const V from_middle_x = all(x - (a.width - 1) / 2.0f);
            const V sx = source_x.at(from_middle_x, from_middle_y);
            const V sy = source_y.at(from_middle_x, from_middle_y);
            const S column = truncate(sx), line = truncate(sy);
            const V right = sx - to_float(column), down = sy - to_float(line);
            const S corner = image + line * stride + column;
            for (int c = 0; c < a.channels; ++c) {
                const U upper = words(a.scratch + c * plane, corner);
                const U lower = words(a.scratch + c * plane, corner + stride);
                const V a00 = to_float((S)(upper & 0xff)), a01 = to_float((S)(upper >> 8 & 0xff));
                const V a10 = to_float((S)(lower & 0xff)), a11 = to_float((S)(lower >> 8 & 0xff));
                const V top = fma(right, a01 - a00, a00), bottom = fma(right, a11 - a10, a10);
                const V value = fma(down, bottom - top, top);
                const V normalised = fma(value, all(a.scale[c]), all(a.offset[c]));
                store(out + ((size_t(y) * a.width + x) * a.channels + c) * L,
                      keep(lanes, normalised));
            }
        }
    }
}

static bool sample(const Affine &a) {
    if (!indices_are_images(a)) return false;
    const size_t block = size_t(a.channels) * a.height * a.width * L;
    for (int first = 0; first < a.n; first += L) {
        float *out = a.out + first / L * block;
        a.matrices ? sample_affine(a, first, out) : sample_plain(a, first, out);
    }
    return true;
}

}  // namespace NATIVE_NAMESPACE

#endif  // NATIVE_LANES
