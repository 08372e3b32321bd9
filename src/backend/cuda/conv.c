/* Convolution and linear: which family of kernels handles which shape. */
#include <stdio.h>

#include "backend/cuda/cuda.h"

typedef bool (*Serves)(const NitiConv *);

/* A way's number is that of its family above that of the family's own way. */
enum { FAMILY_SHIFT = 6, WAY_MASK = (1 << FAMILY_SHIFT) - 1 };
static const NitiCudaConv *const families[] = {NULL, &niti_cuda_conv_mma, &niti_cuda_conv_wgmma, &niti_cuda_conv_grouped};

/* The device's own family where it handles the shape; mma.sync handles every shape in one group. */
static const NitiCudaConv *family_of(const NitiCuda *cuda, const NitiConv *s, Serves serves) {
  if (niti_conv_grouped(s)) return &niti_cuda_conv_grouped;
  const bool served = serves(s);
  return cuda->family == NITI_CUDA_WGMMA && served ? &niti_cuda_conv_wgmma : &niti_cuda_conv_mma;
}

static size_t families_workspace(const NitiCuda *cuda, const NitiConv *s) {
  if (niti_conv_grouped(s)) return niti_cuda_conv_grouped.workspace(cuda, s);
  const size_t mma = niti_cuda_conv_mma.workspace(cuda, s);
  if (cuda->family != NITI_CUDA_WGMMA) return mma;
  const size_t wgmma = niti_cuda_conv_wgmma.workspace(cuda, s);
  return wgmma > mma ? wgmma : mma;
}

/* ---- padding: where the channels that a sum runs over are no multiple of 16, kernels would gather single bytes. A copy of the
 * input and the weights with zeros in between costs less, and is a convolution of another shape. ---- */

enum {
  PAD_CHANNELS = 8, /* up to so many gathering is as fast: less than twice as many are padded */
  PAD_SUM = 32,     /* forward: up to so long a sum mma_first.cu may do */
};

static size_t align_up(size_t bytes) { return (bytes + NITI_BLOCKED_ALIGN - 1) / NITI_BLOCKED_ALIGN * NITI_BLOCKED_ALIGN; }

static bool is_padded(const NitiCuda *cuda, const NitiConv *s, bool backward) {
  const int32_t channels = backward ? s->k : s->c;
  const Serves serves = backward ? niti_cuda_conv_wgmma.serves_backward : niti_cuda_conv_wgmma.serves_forward;
  if (niti_conv_grouped(s) || channels % 16 == 0 || channels <= PAD_CHANNELS) return false;
  if (!backward && (int64_t)s->kh * s->kw * channels <= PAD_SUM) return false;
  return cuda->family != NITI_CUDA_WGMMA || !serves(s);
}

static NitiConv padded_of(const NitiConv *s, bool backward) {
  NitiConv padded = *s;
  if (backward)
    padded.k = (s->k + 15) / 16 * 16;
  else
    padded.c = (s->c + 15) / 16 * 16;
  return padded;
}

static NitiShape input_of(const NitiConv *s, bool backward) {
  return backward ? (NitiShape){s->n, s->oh, s->ow, s->k} : (NitiShape){s->n, s->h, s->w, s->c};
}

static size_t weights_of(const NitiConv *s) { return (size_t)s->k * (size_t)s->kh * (size_t)s->kw * (size_t)s->c; }

/* Of the convolution itself, then the padded input and the padded weights. */
static size_t padded_workspace(const NitiCuda *cuda, const NitiConv *s, bool backward) {
  if (!is_padded(cuda, s, backward)) return 0;
  const NitiConv padded = padded_of(s, backward);
  return align_up(families_workspace(cuda, &padded)) + align_up(niti_shape_count(input_of(&padded, backward))) +
         weights_of(&padded);
}

/* in, w: the operands; become copies in the workspace. */
static void pad(NitiCuda *cuda, NitiTensor *in, NitiTensor *w, const NitiConv *s, bool backward) {
  const NitiConv padded = padded_of(s, backward);
  const NitiShape from = input_of(s, backward), to = input_of(&padded, backward);
  int8_t *data = (int8_t *)cuda->workspace + align_up(families_workspace(cuda, &padded));
  int8_t *weights = data + align_up(niti_shape_count(to));
  const size_t filters = backward ? 1 : (size_t)s->k * (size_t)s->kh * (size_t)s->kw; /* backward: zero filters at the end */
  const NitiPad pads[2] = {
      {data, in->data, niti_shape_count(from) / (size_t)from.c, (size_t)from.c, (size_t)to.c},
      {weights, w->data, filters, weights_of(s) / filters, weights_of(&padded) / filters},
  };
  niti_cuda_pad(cuda, pads);
  in->data = data;
  in->shape = to;
  w->data = weights;
  w->shape = (NitiShape){padded.k, padded.kh, padded.kw, padded.c};
}

static size_t family_workspace(const NitiCuda *cuda, const NitiConv *s) {
  const size_t own = families_workspace(cuda, s);
  const size_t forward = padded_workspace(cuda, s, false), backward = padded_workspace(cuda, s, true);
  const size_t most = forward > backward ? forward : backward;
  return own > most ? own : most;
}

/* Where a bias is in the workspace: behind what the families use. */
static size_t bias_offset(const NitiCuda *cuda, const NitiConv *s) { return align_up(family_workspace(cuda, s)); }

size_t niti_cuda_conv_workspace(const NitiBackend *backend, const NitiConvCall *call) {
  const NitiCuda *cuda = niti_cuda_const(backend);
  if (call->direction != NITI_FORWARD) return family_workspace(cuda, &call->shape);
  return bias_offset(cuda, &call->shape) + niti_cuda_bias_bytes(call->shape.k);
}

/* What kernels are asked for: the call's shape, padded or as it is. */
static NitiConv shape_for(const NitiCuda *cuda, const NitiConvCall *call) {
  const bool back = call->direction == NITI_BACKWARD;
  const bool padded = call->direction != NITI_GRADIENT && is_padded(cuda, &call->shape, back);
  return padded ? padded_of(&call->shape, back) : call->shape;
}

/* The family of a call's way, or the one that the cost model takes, for what shape_for gave. */
static const NitiCudaConv *family_for(const NitiCuda *cuda, const NitiConvCall *call, const NitiConv *shape) {
  const NitiCudaConv *f = &niti_cuda_conv_wgmma;
  const Serves serves = call->direction == NITI_FORWARD    ? f->serves_forward
                        : call->direction == NITI_BACKWARD ? f->serves_backward
                                                           : f->serves_gradient;
  return call->way ? families[call->way >> FAMILY_SHIFT] : family_of(cuda, shape, serves);
}

int niti_cuda_add_way(NitiWay ways[NITI_WAYS_MAX], int count, int number, const char *name) {
  if (count == NITI_WAYS_MAX) return count;
  ways[count].number = number;
  (void)snprintf(ways[count].name, sizeof ways->name, "%s", name);
  return count + 1;
}

/* Adds a family's own choice and its other ways. */
static int add_family(NitiWay ways[NITI_WAYS_MAX], int count, const NitiCudaConv *f, const NitiConv *shape,
                      NitiDirection direction) {
  int number = 1, first = count;
  while (families[number] != f) ++number;
  count = niti_cuda_add_way(ways, count, 0, f->name);
  if (f->ways) count = f->ways(ways, count, shape, direction);
  for (; first < count; ++first) ways[first].number |= number << FAMILY_SHIFT;
  return count;
}

int niti_cuda_conv_ways(const NitiBackend *backend, const NitiConvCall *call, NitiWay ways[NITI_WAYS_MAX]) {
  NitiConvCall modelled = *call;
  modelled.way = 0;
  const NitiConv shape = shape_for(niti_cuda_const(backend), call);
  const NitiCudaConv *f = family_for(niti_cuda_const(backend), &modelled, &shape);
  const int count = add_family(ways, 0, f, &shape, call->direction);
  return f == &niti_cuda_conv_wgmma ? add_family(ways, count, &niti_cuda_conv_mma, &shape, call->direction) : count;
}

const char *niti_cuda_conv_kernel(const NitiBackend *backend, const NitiConvCall *call) {
  const NitiConv shape = shape_for(niti_cuda_const(backend), call);
  return family_for(niti_cuda_const(backend), call, &shape)->name;
}

void niti_cuda_conv_forward(NitiBackend *backend, NitiTensor *y, const NitiTensor *x, const NitiTensor *w, const NitiTensor *bias,
                            const NitiConvCall *call, const NitiRequantise *rq) {
  NitiCuda *cuda = niti_cuda(backend);
  const NitiConv *own = &call->shape, shape = shape_for(cuda, call);
  NitiTensor in = *x, weights = *w;
  int32_t *prepared = bias ? (int32_t *)(void *)(cuda->workspace + bias_offset(cuda, own)) : NULL;
  if (bias) niti_cuda_bias_prepare(cuda, prepared, bias, x, w, own->k, call->centred);
  if (shape.c != own->c) pad(cuda, &in, &weights, own, false);
  family_for(cuda, call, &shape)->forward(cuda, y, &in, &weights, prepared, &shape, call->relu, rq, call->way & WAY_MASK);
}

void niti_cuda_conv_backward(NitiBackend *backend, NitiTensor *dx, const NitiTensor *dy, const NitiTensor *w,
                             const NitiTensor *mask, const NitiConvCall *call, const NitiRequantise *rq) {
  NitiCuda *cuda = niti_cuda(backend);
  const NitiConv *own = &call->shape, shape = shape_for(cuda, call);
  NitiTensor in = *dy, weights = *w;
  if (shape.k != own->k) pad(cuda, &in, &weights, own, true);
  family_for(cuda, call, &shape)->backward(cuda, dx, &in, &weights, mask, &shape, rq, call->way & WAY_MASK);
}

void niti_cuda_conv_gradient(NitiBackend *backend, NitiGradient *gradient, const NitiTensor *dy, const NitiTensor *x,
                             const NitiConvCall *call) {
  NitiCuda *cuda = niti_cuda(backend);
  const NitiConv *s = &call->shape;
  if (!niti_conv_grouped(s)) {
    niti_cuda_blocked_make(cuda, dy);
    niti_cuda_blocked_make(cuda, x);
  }
  family_for(cuda, call, s)->gradient(cuda, gradient, dy, x, s, call->way & WAY_MASK);
}
