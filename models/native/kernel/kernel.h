// All of the kernel for one instruction set: NATIVE_LANES images at once, in NATIVE_NAMESPACE.

namespace {
namespace NATIVE_NAMESPACE {

#include "vectors.h"  // first: all others use it

#include "activation.h"
#include "convolution.h"
#include "gradient.h"
#include "norm.h"
#include "pool.h"
#include "ring.h"

#include "depthwise.h"
#include "head.h"
#include "sampler.h"
#include "step.h"

}  // namespace NATIVE_NAMESPACE
}  // namespace
