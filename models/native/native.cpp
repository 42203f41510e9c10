// One training step of a `ModelSpec` on one thread: forward, loss and backward in one call.
//
// Layout. Images are taken in blocks of LANES (16 for AVX-512, 8 for AVX2, 4 otherwise), and every
// feature map is stored as [block][height][width][channel][lane]. One vector holds one channel of
// one pixel of all images of a block, so a convolution is "broadcast weight times vector" and no
// number of channels or pixels leaves a vector part-filled. Only the last block of a batch may have
// lanes without an image; they are masked wherever they could reach a sum.
//
// Stages. A network is planned as stages. A stage makes a `raw` map out of the activation of the
// stage before it (a convolution, or a copy where a pool follows a pool or a dropout), and its
// activation is made from `raw` on the fly, row by row, just before it is used: 2×2 maximum,
// BatchNorm, ReLU or hard swish, dropout. So only `raw` and the gradient of the activation travel
// through memory; rows in work stay in rings that fit the
// caches.
//
// BatchNorm makes the whole batch wait at each stage, so the loops are: stages, blocks, rows.
// The backward pass of one stage and block does, for each group of rows: the gradient of `raw`, the
// weight gradient, the gradient of the activation before, and of that, in its place, the gradient of
// that stage's BatchNorm output (dz) and the sums over it. A depthwise convolution does the last
// three at once.
//
// The files of kernel/ are compiled once for each instruction set, by including them under a
// target pragma. Nothing in them may use a function of the C++ library: an inline function
// instantiated under such a pragma could be shared with code that runs on lesser processors.

#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
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

enum LayerKind : int32_t {
    kConv = 0,
    kPool = 1,
    kDropout = 2,
    kGap = 3,
    kOutput = 4,
    kDepthwise = 5
};

// Of a stage, behind its BatchNorm; kNothing is a stage that has neither.
enum Activation : int32_t { kNothing = 0, kRelu = 1, kHardSwish = 2 };

constexpr size_t kNone = ~size_t{0};
constexpr double kEpsilon = 1e-5;  // of PyTorch's BatchNorm2d, like the momentum
constexpr double kMomentum = 0.1;
constexpr int kMostGroup = 32;             // rows
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
    bool depthwise = false;       // each channel is convolved by itself
    int in_channels = 0, in_height = 0, in_width = 0;
    int channels = 0, height = 0, width = 0;  // of raw
    int out_height = 0, out_width = 0;        // of the activation
    Activation activation = kNothing;
    bool pool = false;
    Dropout dropout;              // behind the pool
    bool needs_gradient = false;  // of the activation: there are weights at or before it
    int group = 1;                // rows of raw that the backward pass takes at once
    size_t weight = kNone, bias = kNone, gamma = kNone, beta = kNone;  // in the flat parameters
    size_t running_mean = kNone, running_var = kNone;                  // in the flat statistics
    // Per block [height][width][channels][lanes], and of the activation the same with out_height
    // and out_width. The gradient shares the memory of the next convolution's raw: see plan_raw.
    float *raw = nullptr, *gradient = nullptr;
    float *chosen = nullptr;  // of each window of the pool, the value of raw that goes on
    size_t raw_stride = 0, gradient_stride = 0;  // from block to block
    // One value a channel. The BatchNorm's output is scale * raw + shift, and the gradient of raw
    // is scale * dz + slope * (raw - mean) + level, where dz is that of the BatchNorm's output.
    float *scale = nullptr, *shift = nullptr, *mean = nullptr, *slope = nullptr, *level = nullptr;
    double *inverse_std = nullptr;
    double *mean_rest = nullptr;  // what rounding took from the mean
    double *sums = nullptr;       // 2 a channel
    float *lane_sums = nullptr;   // 2 vectors a channel
    float *packed = nullptr, *packed_flipped = nullptr, *weight_sums = nullptr;

    bool convolves() const { return kernel > 0; }
    int slots() const { return group + 2; }  // rows of a ring: a group and what a kernel reaches
    int gradient_border() const { return convolves() ? kernel - 1 - padding : 0; }
    size_t activation_ring_row() const { return size_t(in_width + 2 * padding) * in_channels; }
    size_t gradient_ring_row() const { return size_t(width + 2 * gradient_border()) * channels; }
    size_t raw_size() const { return size_t(height) * width * channels; }
    size_t out_size() const { return size_t(out_height) * out_width * channels; }
    int reach() const { return kernel * in_channels; }  // of a kernel's row: its taps and channels
    size_t weights() const {
        return size_t(channels) * (depthwise ? 1 : in_channels) * kernel * kernel;
    }
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
    int32_t kind, channels, kernel, padding, bias, activation;
    float rate;
};

struct Elastic {                  // as native.py declares it: a grid of control points, moved
    int32_t points;               // along each axis
    const float *displacements;   // (n, 2, points, points): x, then y, from -1 to 1 over an image
    const float *rows, *columns;  // (height, points), (width, points): the share of each point
    float *field;                 // [axis][points + 1][points][lanes], for the sampler to work in
};

struct Affine {             // as native.py declares it: one call of the sampler
    const uint8_t *images;  // (n_images, channels, height, width)
    int64_t n_images;
    int32_t channels, height, width, n;
    const int64_t *index;         // n
    const float *matrices;        // (n, 2, 3), or null for the images as they are
    const Elastic *elastic;       // null for none
    const float *scale, *offset;  // one a channel: of a byte, to normalised
    uint8_t *scratch;             // sampler_scratch() bytes; zero where no image is
    float *out;
};

struct Network {
    int lanes = 0, max_batch = 0, n_stages = 0;
    std::vector<Stage> stages;
    Stage *stage = nullptr;  // stages.data()
    Head head;
    size_t n_parameters = 0, n_statistics = 0;
    float *activation_ring = nullptr, *gradient_ring = nullptr;
    float *zeros = nullptr;  // a row of either ring
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
    stage.activation = Activation(layer.activation);
    stage.depthwise = layer.kind == kDepthwise;
    stage.channels = stage.depthwise ? stage.in_channels : layer.channels;
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
    const Stage &last = network.stages.back();
    if (last.pool || last.dropout.threshold) network.stages.push_back(copy_of(last));
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
            case kConv:
            case kDepthwise:
                add_convolution(network, layer);
                break;
            case kPool:
                add_pool(network);
                break;
            case kGap:
                averaged = true;
                break;
            case kOutput:
                add_output(network, layer);
                break;
            case kDropout:
                if (head.linear && !averaged) {
                    join(head.pixels, layer.rate, i);
                } else if (head.linear) {
                    join(head.logits, layer.rate, i);
                } else if (averaged) {
                    join(head.features, layer.rate, i);
                } else {
                    join(last.dropout, layer.rate, i);
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

// Row for row, the backward pass uses up raw and makes the gradient of the activation before. So
// that gradient takes raw's place, and raw starts just far enough in for it never to be overtaken.
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
    size_t activation_ring = 0, gradient_ring = 0, zeros = 0;
    for (Stage &stage : network.stages) {
        const size_t c = stage.channels;
        stage.group = group_rows(stage, network.lanes);
        plan_raw(network, stage, blocks);
        activation_ring =
            most(activation_ring, stage.activation_ring_row() * stage.slots() * lanes);
        activation_ring = most(activation_ring, stage.out_width * c * lanes);  // the head's row
        gradient_ring = most(gradient_ring, stage.gradient_ring_row() * stage.slots() * lanes);
        zeros = most(zeros, most(stage.activation_ring_row(), stage.gradient_ring_row()) * lanes);
        if (stage.pool) stage.chosen = network.allocate<float>(blocks * stage.out_size() * lanes);
        if (!stage.convolves()) continue;
        for (float **values :
             {&stage.scale, &stage.shift, &stage.mean, &stage.slope, &stage.level}) {
            *values = network.allocate<float>(c);
        }
        stage.inverse_std = network.allocate<double>(c);
        stage.mean_rest = network.allocate<double>(c);
        stage.sums = network.allocate<double>(2 * c);
        stage.lane_sums = network.allocate<float>(2 * c * lanes);
        if (!stage.depthwise) {
            stage.packed = network.allocate<float>(stage.weights());
            stage.packed_flipped = network.allocate<float>(stage.weights());
        }
        stage.weight_sums = network.allocate<float>(stage.weights() * lanes);
    }
    Stage &last = network.stages.back();
    last.gradient_stride = last.out_size() * lanes;
    last.gradient = network.allocate<float>(blocks * last.gradient_stride);
    network.activation_ring = network.allocate<float>(activation_ring);
    network.gradient_ring = network.allocate<float>(gradient_ring);
    network.zeros = network.allocate<float>(zeros);
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
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,fma"))), \
                             apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,fma,tune=skylake-avx512")
#pragma GCC diagnostic push  // GCC 12 takes its own _mm512_undefined_ps() for a mistake
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif
#include "kernel/kernel.h"
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
#include "kernel/kernel.h"
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
#include "kernel/kernel.h"

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
