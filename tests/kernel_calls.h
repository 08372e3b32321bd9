/* Calls of a backend's kernels one by one, for tests that choose every operand themselves: convolutions are prepared, run and
 * released in one call, and scalars are bound as a run would bind them. */
#ifndef NITI_TESTS_KERNEL_CALLS_H
#define NITI_TESTS_KERNEL_CALLS_H

#include <string.h>

#include "backend/kernels.h"

/* A convolution of n images of hxwxc to k channels; its output's size follows. */
static inline NitiConv conv_shape(int n, int h, int w, int c, int k, int kh, int kw, int sh, int sw, int ph, int pw) {
  return (NitiConv){.n = n,
                    .h = h,
                    .w = w,
                    .c = c,
                    .k = k,
                    .kh = kh,
                    .kw = kw,
                    .stride_h = sh,
                    .stride_w = sw,
                    .pad_h = ph,
                    .pad_w = pw,
                    .oh = (h + 2 * ph - kh) / sh + 1,
                    .ow = (w + 2 * pw - kw) / sw + 1};
}

/* A convolution in groups. */
static inline NitiConv grouped(NitiConv s, int groups) {
  s.groups = groups;
  return s;
}

/* The same with a kernel of 3x3 and stride 1, as Winograd's kernels require. */
static inline NitiConv conv3x3_shape(int n, int h, int w, int c, int k, int ph, int pw) {
  return conv_shape(n, h, w, c, k, 3, 3, 1, 1, ph, pw);
}

static const NitiDirection conv_directions[3] __attribute__((unused)) = {NITI_FORWARD, NITI_BACKWARD, NITI_GRADIENT};

static inline void begin_step(NitiBackend *b, uint64_t seed, uint32_t step) {
  const int64_t scalars[NITI_SCALARS_MAX] = {0};
  b->kernels->begin_step(b, seed, step, scalars);
}

/* Scratch bytes of all three directions. */
static inline size_t call_conv_workspace(NitiBackend *b, const NitiConv *s, bool nonnegative) {
  size_t most = 0;
  for (int d = 0; d < 3; ++d) {
    const NitiConvCall call = {.shape = *s, .direction = conv_directions[d], .nonnegative = nonnegative && d != NITI_BACKWARD};
    const size_t bytes = b->kernels->conv_workspace(b, &call);
    most = bytes > most ? bytes : most;
  }
  return most;
}

/* Which of a convolution's ways the calls below take, counted round; 0: the cost model's, or, in three of four calls, wgmma's
 * where there is one: the model leaves small products, as tests have them, to others. */
static int call_way;
static const char *call_way_named; /* unless NULL: this one, where there is such a way */

static inline int call_wgmma(const NitiWay *ways, int count) {
  static unsigned calls;
  for (int i = 0; i < count; ++i) {
    if (strcmp(ways[i].name, "wgmma") == 0) return calls++ % 4 == 0 ? 0 : ways[i].number;
  }
  return 0;
}

/* Where the calls below have their weights packed beforehand, in as much memory as call_packed_bytes says; NULL: they pack by
 * themselves. */
static int8_t *call_packed;

static inline size_t call_packed_bytes(const NitiBackend *b, const NitiConv *s) {
  size_t most = 0;
  for (int d = 0; d < 2; ++d) {
    NitiConvCall call = {.shape = *s, .direction = conv_directions[d]};
    NitiWay ways[NITI_WAYS_MAX];
    const int count = b->kernels->conv_ways ? b->kernels->conv_ways(b, &call, ways) : 0;
    for (int i = -1; i < count && b->kernels->conv_packed_bytes; ++i) {
      call.way = i < 0 ? 0 : ways[i].number;
      const size_t bytes = b->kernels->conv_packed_bytes(b, &call);
      most = bytes > most ? bytes : most;
    }
  }
  return most;
}

static inline void call_pack(NitiBackend *b, NitiConvCall *call, const NitiTensor *w) {
  if (!call_packed || b->kernels->conv_packed_bytes(b, call) == 0) return;
  call->packed = call_packed;
  b->kernels->conv_pack(b, &(NitiPacking){call, w}, 1);
}

static inline NitiConvCall call_prepare(NitiBackend *b, const NitiConv *s, NitiDirection direction, bool relu, bool nonnegative,
                                        bool constant) {
  NitiConvCall call = {.shape = *s, .direction = direction, .relu = relu, .nonnegative = nonnegative, .constant = constant};
  NitiWay ways[NITI_WAYS_MAX];
  const int count = b->kernels->conv_ways(b, &call, ways);
  call.way = call_way > 0 ? ways[call_way % count].number : call_wgmma(ways, count);
  for (int i = 0; call_way_named && i < count; ++i) {
    if (strcmp(ways[i].name, call_way_named) == 0) call.way = ways[i].number;
  }
  if (b->kernels->conv_prepare) assert_int_equal(b->kernels->conv_prepare(b, &call), NITI_OK);
  return call;
}

static inline void call_release(NitiBackend *b, NitiConvCall *call) {
  if (b->kernels->conv_release) b->kernels->conv_release(b, call);
}

static inline void call_conv_forward(NitiBackend *b, NitiTensor *y, const NitiTensor *x, const NitiTensor *w,
                                     const NitiTensor *bias, bool centred, const NitiConv *s, bool relu,
                                     const NitiRequantise *rq) {
  NitiConvCall call = call_prepare(b, s, NITI_FORWARD, relu, false, false);
  call.centred = centred;
  call_pack(b, &call, w);
  b->kernels->conv_forward(b, y, x, w, bias, &call, rq);
  call_release(b, &call);
}

static inline void call_conv_backward(NitiBackend *b, NitiTensor *dx, const NitiTensor *dy, const NitiTensor *w,
                                      const NitiTensor *mask, const NitiConv *s, const NitiRequantise *rq) {
  NitiConvCall call = call_prepare(b, s, NITI_BACKWARD, false, false, false);
  call_pack(b, &call, w);
  b->kernels->conv_backward(b, dx, dy, w, mask, &call, rq);
  call_release(b, &call);
}

static inline void call_conv_gradient(NitiBackend *b, NitiGradient *gradient, const NitiTensor *dy, const NitiTensor *x,
                                      const NitiConv *s, bool nonnegative) {
  NitiConvCall call = call_prepare(b, s, NITI_GRADIENT, false, nonnegative, false);
  b->kernels->conv_gradient(b, gradient, dy, x, &call);
  call_release(b, &call);
}

/* mu, in millionths, is scalar 1, so that a kernel that reads another scalar is found out. */
static inline void call_update_niti(NitiBackend *b, NitiTensor *w, const NitiGradient *gradient, int64_t mu) {
  const int64_t scalars[NITI_SCALARS_MAX] = {31000000, mu, 31000000};
  b->kernels->begin_step(b, 1, 1, scalars);
  b->kernels->update_niti(b, &(NitiWeightUpdate){w, gradient, 1}, 1);
}

static inline const char *call_conv_kernel(NitiBackend *b, const NitiConv *s, int direction) {
  static const NitiOpcode opcodes[3] = {NITI_OP_CONV_FORWARD, NITI_OP_CONV_BACKWARD, NITI_OP_CONV_GRADIENT};
  return niti_backend_conv_kernel(b, opcodes[direction], s);
}

#endif
