/* Convolution and linear: which family of kernels handles which shape. */
#include <stdio.h>

#include "backend/cuda/pack.h"

typedef bool (*Serves)(const NitiConv *);

enum { MMA_MOST = 95 /* percent of wgmma's expected time, below which mma.sync takes its place */ };

/* A way's number is that of its family above that of the family's own way. */
enum { FAMILY_SHIFT = 6, WAY_MASK = (1 << FAMILY_SHIFT) - 1 };
static const NitiCudaConv *const families[] = {NULL, &niti_cuda_conv_mma, &niti_cuda_conv_wgmma, &niti_cuda_conv_grouped};

static bool wgmma_serves(const NitiCuda *cuda, const NitiConv *s, NitiDirection direction) {
  const NitiCudaConv *f = &niti_cuda_conv_wgmma;
  const Serves serves = direction == NITI_FORWARD    ? f->serves_forward
                        : direction == NITI_BACKWARD ? f->serves_backward
                                                     : f->serves_gradient;
  return cuda->family == NITI_CUDA_WGMMA && !niti_conv_grouped(s) && serves(s);
}

/* mma.sync handles every shape in one group. Where wgmma does too, it is left where mma.sync is expected to gain more than the
 * models may err; never backward, where either packs weights, and wgmma reads masks as bits. */
static const NitiCudaConv *family_of(const NitiCuda *cuda, const NitiConv *s, NitiDirection direction) {
  int64_t wgmma, mma;
  if (niti_conv_grouped(s)) return &niti_cuda_conv_grouped;
  if (!wgmma_serves(cuda, s, direction)) return &niti_cuda_conv_mma;
  if (direction == NITI_BACKWARD) return &niti_cuda_conv_wgmma;
  (void)niti_cuda_conv_wgmma.choose(cuda, s, direction, &wgmma);
  (void)niti_cuda_conv_mma.choose(cuda, s, direction, &mma);
  return mma < wgmma / 100 * MMA_MOST ? &niti_cuda_conv_mma : &niti_cuda_conv_wgmma;
}

static size_t families_workspace(const NitiCuda *cuda, const NitiConv *s, NitiDirection direction) {
  if (niti_conv_grouped(s)) return niti_cuda_conv_grouped.workspace(cuda, s, direction);
  const size_t mma = niti_cuda_conv_mma.workspace(cuda, s, direction);
  if (cuda->family != NITI_CUDA_WGMMA) return mma;
  const size_t wgmma = niti_cuda_conv_wgmma.workspace(cuda, s, direction);
  return wgmma > mma ? wgmma : mma;
}

/* ---- copies: where the channels that a sum runs over are no multiple of 16, kernels would gather single bytes. A copy of the
 * input and the weights costs less, and is a convolution of another shape: channels are padded with zeros; or, forward through a
 * stride, a block of stride by stride pixels becomes one, whose channels are all of theirs. Backward the weights are not copied:
 * packing them adds filters of zeros. ---- */

enum {
  PAD_CHANNELS = 8, /* up to so many gathering is as fast: less than twice as many are padded */
  PAD_SUM = 32,     /* forward: up to so long a sum mma_first.cu may do */
  STACK_MOST = 2,   /* the sum may become so many times as long */
};

static size_t align_up(size_t bytes) { return (bytes + NITI_BLOCKED_ALIGN - 1) / NITI_BLOCKED_ALIGN * NITI_BLOCKED_ALIGN; }

static int32_t parts_of(int32_t all, int32_t part) { return (all + part - 1) / part; }

static int64_t sum_of(const NitiConv *s) { return (int64_t)s->kh * s->kw * s->c; }

static NitiConv stacked_of(const NitiConv *s) {
  NitiConv stacked = *s;
  stacked.c = parts_of(s->stride_h * s->stride_w * s->c, 16) * 16;
  stacked.kh = parts_of(s->kh, s->stride_h);
  stacked.kw = parts_of(s->kw, s->stride_w);
  stacked.h = s->oh + stacked.kh - 1;
  stacked.w = s->ow + stacked.kw - 1;
  stacked.stride_h = stacked.stride_w = 1;
  stacked.pad_h = stacked.pad_w = 0;
  return stacked;
}

/* Forward alone. */
static bool is_stacked(const NitiConv *s) {
  if (niti_conv_grouped(s) || s->c % 4 == 0 || s->c > PAD_CHANNELS || sum_of(s) <= PAD_SUM) return false;
  if (s->stride_h * s->stride_w == 1 || s->kh < s->stride_h || s->kw < s->stride_w) return false;
  const NitiConv stacked = stacked_of(s);
  return sum_of(&stacked) <= STACK_MOST * sum_of(s) && (int64_t)stacked.n * stacked.h * stacked.w * (stacked.c / 16) < INT32_MAX;
}

static bool is_padded(const NitiCuda *cuda, const NitiConv *s, bool backward) {
  const int32_t channels = backward ? s->k : s->c;
  const Serves serves = backward ? niti_cuda_conv_wgmma.serves_backward : niti_cuda_conv_wgmma.serves_forward;
  if (niti_conv_grouped(s) || channels % 16 == 0 || channels <= PAD_CHANNELS) return false;
  if (!backward && sum_of(s) <= PAD_SUM) return false;
  return cuda->family != NITI_CUDA_WGMMA || !serves(s);
}

static NitiConv padded_of(const NitiConv *s, bool backward) {
  NitiConv padded = *s;
  if (backward)
    padded.k = parts_of(s->k, 16) * 16;
  else
    padded.c = parts_of(s->c, 16) * 16;
  return padded;
}

/* The convolution that kernels are asked for: s itself, or that of the copies. */
static NitiConv copied_of(const NitiCuda *cuda, const NitiConv *s, bool backward) {
  if (!backward && is_stacked(s)) return stacked_of(s);
  return is_padded(cuda, s, backward) ? padded_of(s, backward) : *s;
}

static bool is_copied(const NitiConv *copied, const NitiConv *s) { return copied->c != s->c || copied->k != s->k; }

static NitiShape input_of(const NitiConv *s, bool backward) {
  return backward ? (NitiShape){s->n, s->oh, s->ow, s->k} : (NitiShape){s->n, s->h, s->w, s->c};
}

static size_t weights_of(const NitiConv *s) { return (size_t)s->k * (size_t)s->kh * (size_t)s->kw * (size_t)s->c; }

/* Of the convolution itself, then the copies of the input and of the weights. */
static size_t copies_workspace(const NitiCuda *cuda, const NitiConv *s, bool backward) {
  const NitiConv copied = copied_of(cuda, s, backward);
  if (!is_copied(&copied, s)) return 0;
  return align_up(families_workspace(cuda, &copied, backward ? NITI_BACKWARD : NITI_FORWARD)) +
         align_up(niti_shape_count(input_of(&copied, backward))) + (backward ? 0 : weights_of(&copied));
}

static void pad(NitiCuda *cuda, int8_t *data, int8_t *weights, const NitiTensor *in, const NitiTensor *w, const NitiConv *s,
                const NitiConv *padded, bool backward) {
  const NitiShape from = input_of(s, backward), to = input_of(padded, backward);
  const size_t taps = (size_t)s->k * (size_t)s->kh * (size_t)s->kw;
  const NitiPad pads[2] = {
      {data, in->data, niti_shape_count(from) / (size_t)from.c, (size_t)from.c, (size_t)to.c},
      {weights, w->data, taps, (size_t)s->c, (size_t)padded->c},
  };
  niti_cuda_pad(cuda, pads, backward ? 1 : 2);
}

/* A filter is an image of taps. */
static void stack(NitiCuda *cuda, int8_t *data, int8_t *weights, const NitiTensor *in, const NitiTensor *w, const NitiConv *s,
                  const NitiConv *t) {
  const NitiStack stacks[2] = {
      {data, in->data, s->n, s->h, s->w, s->c, s->stride_h, s->stride_w, s->pad_h, s->pad_w, t->h, t->w, t->c},
      {weights, w->data, s->k, s->kh, s->kw, s->c, s->stride_h, s->stride_w, 0, 0, t->kh, t->kw, t->c},
  };
  niti_cuda_stack(cuda, stacks);
}

/* in, w: the operands; become copies in the workspace, w forward alone. */
static void copy(NitiCuda *cuda, NitiTensor *in, NitiTensor *w, const NitiConv *s, const NitiConv *copied, bool backward) {
  const NitiShape to = input_of(copied, backward);
  int8_t *data = (int8_t *)cuda->workspace + align_up(families_workspace(cuda, copied, backward ? NITI_BACKWARD : NITI_FORWARD));
  int8_t *weights = data + align_up(niti_shape_count(to));
  if (copied->stride_h == s->stride_h && copied->stride_w == s->stride_w)
    pad(cuda, data, weights, in, w, s, copied, backward);
  else
    stack(cuda, data, weights, in, w, s, copied);
  in->data = data;
  in->shape = to;
  if (backward) return;
  w->data = weights;
  w->shape = (NitiShape){copied->k, copied->kh, copied->kw, copied->c};
}

static size_t family_workspace(const NitiCuda *cuda, const NitiConv *s, NitiDirection direction) {
  const size_t own = families_workspace(cuda, s, direction);
  const size_t copies = direction == NITI_GRADIENT ? 0 : copies_workspace(cuda, s, direction == NITI_BACKWARD);
  return own > copies ? own : copies;
}

/* Where a bias is in the workspace: behind what the families use. */
static size_t bias_offset(const NitiCuda *cuda, const NitiConv *s) { return align_up(family_workspace(cuda, s, NITI_FORWARD)); }

/* Likewise of a mask's elements. */
static size_t mask_offset(const NitiCuda *cuda, const NitiConv *s) { return align_up(family_workspace(cuda, s, NITI_BACKWARD)); }

/* Whether bits may be all that is left of a backward's mask. */
static bool masks_by_bits(const NitiCuda *cuda, const NitiConv *s) {
  return cuda->family == NITI_CUDA_WGMMA && !niti_conv_grouped(s) && s->c % 16 == 0;
}

size_t niti_cuda_conv_workspace(const NitiBackend *backend, const NitiConvCall *call) {
  const NitiCuda *cuda = niti_cuda_const(backend);
  const NitiConv *s = &call->shape;
  if (call->direction == NITI_FORWARD) return bias_offset(cuda, s) + niti_cuda_bias_bytes(s->k);
  if (call->direction == NITI_GRADIENT || !masks_by_bits(cuda, s)) return family_workspace(cuda, s, call->direction);
  return mask_offset(cuda, s) + niti_shape_count((NitiShape){s->n, s->h, s->w, s->c});
}

static NitiConv shape_for(const NitiCuda *cuda, const NitiConvCall *call) {
  return call->direction == NITI_GRADIENT ? call->shape : copied_of(cuda, &call->shape, call->direction == NITI_BACKWARD);
}

/* The family of a call's way, or the one that the cost model takes, for what shape_for gave. */
static const NitiCudaConv *family_for(const NitiCuda *cuda, const NitiConvCall *call, const NitiConv *shape) {
  return call->way ? families[call->way >> FAMILY_SHIFT] : family_of(cuda, shape, call->direction);
}

/* ---- packed weights ---- */

/* w: of the copies, or backward as they are. */
static void add_pack(NitiPacks *packs, const NitiConvCall *call, const NitiConv *shape, const int8_t *w, int8_t *to) {
  const NitiCudaConv *family = family_for(packs->cuda, call, shape);
  const int own = call->direction == NITI_BACKWARD ? call->shape.k : shape->k;
  if (family->pack) family->pack(packs, to, w, own, shape, call->direction, call->way & WAY_MASK);
}

/* Copies of weights are made anew by every call, and packed with them. */
size_t niti_cuda_conv_packed_bytes(const NitiBackend *backend, const NitiConvCall *call) {
  const NitiCuda *cuda = niti_cuda_const(backend);
  const NitiConv shape = shape_for(cuda, call);
  if (call->direction == NITI_GRADIENT || niti_conv_grouped(&shape)) return 0;
  if (call->direction == NITI_FORWARD && is_copied(&shape, &call->shape)) return 0;
  return families_workspace(cuda, &shape, call->direction);
}

void niti_cuda_conv_pack(NitiBackend *backend, const NitiPacking *packings, int count) {
  NitiPacks packs = {.cuda = niti_cuda(backend)};
  for (int i = 0; i < count; ++i) {
    const NitiConvCall *call = packings[i].call;
    const NitiConv shape = shape_for(packs.cuda, call);
    add_pack(&packs, call, &shape, packings[i].w->data, call->packed);
  }
  niti_packs_end(&packs);
}

/* The call's packed weights; where it has none, packs them in the workspace. */
static const int8_t *packed_of(NitiCuda *cuda, const NitiConvCall *call, const NitiConv *shape, const NitiTensor *w) {
  NitiPacks packs = {.cuda = cuda};
  if (call->packed) return call->packed;
  add_pack(&packs, call, shape, w->data, (int8_t *)cuda->workspace);
  niti_packs_end(&packs);
  return (const int8_t *)cuda->workspace;
}

/* Whatever the call's way: a smaller batch may have another, wgmma's read bits alone, and mma's can spread them. */
int niti_cuda_mask_uses(const NitiBackend *backend, const NitiOperation *o, NitiShape mask, const NitiConvCall *call) {
  const NitiCuda *cuda = niti_cuda_const(backend);
  if (o->opcode == NITI_OP_ADD)
    return niti_cuda_add_reads_bits(mask, o->rounding.mode, o->rounding.clip) ? NITI_USE_MASK : NITI_USE_OTHER;
  NitiConvCall modelled = *call;
  modelled.way = 0;
  const NitiConv shape = shape_for(cuda, &modelled);
  const bool wgmma = family_for(cuda, &modelled, &shape) == &niti_cuda_conv_wgmma;
  return wgmma && masks_by_bits(cuda, &call->shape) ? NITI_USE_MASK : NITI_USE_OTHER;
}

int niti_cuda_add_way(NitiWay ways[NITI_WAYS_MAX], int count, int number, const char *name) {
  if (count == NITI_WAYS_MAX) return count;
  ways[count].number = number;
  (void)snprintf(ways[count].name, sizeof ways->name, "%s", name);
  return count + 1;
}

static int number_of(const NitiCudaConv *f) {
  int number = (int)(sizeof families / sizeof *families) - 1;
  while (families[number] != f && number > 1) --number;
  return number;
}

/* Adds a family's own choice and its other ways. */
static int add_family(NitiWay ways[NITI_WAYS_MAX], int count, const NitiCudaConv *f, const NitiConv *shape,
                      NitiDirection direction) {
  const int number = number_of(f);
  int first = count;
  count = niti_cuda_add_way(ways, count, 0, f->name);
  if (f->ways) count = f->ways(ways, count, shape, direction);
  for (; first < count; ++first) ways[first].number |= number << FAMILY_SHIFT;
  return count;
}

int niti_cuda_conv_ways(const NitiBackend *backend, const NitiConvCall *call, NitiWay ways[NITI_WAYS_MAX]) {
  const NitiCuda *cuda = niti_cuda_const(backend);
  const NitiConv shape = shape_for(cuda, call);
  const NitiCudaConv *f = family_of(cuda, &shape, call->direction);
  const int count = add_family(ways, 0, f, &shape, call->direction);
  if (!wgmma_serves(cuda, &shape, call->direction)) return count;
  return add_family(ways, count, f == &niti_cuda_conv_mma ? &niti_cuda_conv_wgmma : &niti_cuda_conv_mma, &shape, call->direction);
}

int niti_cuda_conv_choice(const NitiBackend *backend, const NitiConvCall *call) {
  const NitiCuda *cuda = niti_cuda_const(backend);
  const NitiConv shape = shape_for(cuda, call);
  const NitiCudaConv *f = family_of(cuda, &shape, call->direction);
  int64_t time;
  return number_of(f) << FAMILY_SHIFT | f->choose(cuda, &shape, call->direction, &time);
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
  if (is_copied(&shape, own)) copy(cuda, &in, &weights, own, &shape, false);
  const int8_t *packed = packed_of(cuda, call, &shape, &weights);
  family_for(cuda, call, &shape)->forward(cuda, y, &in, &weights, prepared, packed, &shape, call->relu, rq, call->way & WAY_MASK);
}

void niti_cuda_conv_backward(NitiBackend *backend, NitiTensor *dx, const NitiTensor *dy, const NitiTensor *w,
                             const NitiTensor *mask, const NitiConvCall *call, const NitiRequantise *rq) {
  NitiCuda *cuda = niti_cuda(backend);
  const NitiConv *own = &call->shape, shape = shape_for(cuda, call);
  const NitiCudaConv *family = family_for(cuda, call, &shape);
  NitiTensor in = *dy, weights = *w, masking = mask ? *mask : (NitiTensor){0};
  if (is_copied(&shape, own)) copy(cuda, &in, &weights, own, &shape, true);
  if (mask && family == &niti_cuda_conv_mma && masking.placed && masking.layouts[1] && masks_by_bits(cuda, own)) {
    masking.data = (int8_t *)cuda->workspace + mask_offset(cuda, own); /* the elements may be gone */
    niti_cuda_bits_spread(cuda, masking.data, mask);
  }
  const int8_t *packed = packed_of(cuda, call, &shape, &weights);
  family->backward(cuda, dx, &in, &weights, mask ? &masking : NULL, packed, &shape, rq, call->way & WAY_MASK);
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
