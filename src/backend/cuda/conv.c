/* Convolution and linear: which family of kernels handles which shape. */
#include <stdio.h>

#include "backend/cuda/mma_first.h"
#include "backend/cuda/pack.h"
#include "backend/cuda/wgmma.h"

typedef bool (*Serves)(const NitiConv *);

enum {
  MMA_MOST = 95,     /* percent of wgmma's expected time, below which mma.sync takes its place */
  COPIED_WEIGHT = 50 /* picoseconds */
};

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

/* Backward, where wgmma's tiles are in use as a whole: then it is never left. Either packs weights, and wgmma reads masks as
 * bits. */
static bool fills_tiles(const NitiConv *s) {
  return s->stride_h == 1 && s->stride_w == 1 && s->k % 64 == 0 && s->c >= 64 && s->c % 16 == 0;
}

/* mma.sync handles every shape in one group. Where wgmma does too, it is left where mma.sync is expected to gain more than the
 * models may err. copied: a copy of another shape, whose weights mma.sync has copied too. */
static const NitiCudaConv *family_of(const NitiCuda *cuda, const NitiConv *s, NitiDirection direction, bool copied) {
  int64_t wgmma, mma;
  if (niti_conv_grouped(s)) return &niti_cuda_conv_grouped;
  if (!wgmma_serves(cuda, s, direction)) return &niti_cuda_conv_mma;
  if (direction == NITI_BACKWARD && fills_tiles(s)) return &niti_cuda_conv_wgmma;
  (void)niti_cuda_conv_wgmma.choose(cuda, s, direction, &wgmma);
  (void)niti_cuda_conv_mma.choose(cuda, s, direction, &mma);
  if (copied && direction == NITI_FORWARD && mma < INT64_MAX) mma += (int64_t)s->k * s->kh * s->kw * s->c * COPIED_WEIGHT;
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
 * input and the weights costs less, and is a convolution of another shape: channels are padded with zeros; or, forward, a whole
 * window becomes a pixel, whose channels are all of its bytes; or, through a stride, a block of stride by stride pixels does.
 * Packing adds zeros itself, so where weights are packed for wgmma, and backward, they are not copied. ---- */

enum {
  UNFOLD_CHANNELS = 15,
  UNFOLD_SUM = 256,       /* bytes of a window */
  UNFOLD_LEAST = 4000000, /* picoseconds of such a copy; then for each thousand bytes of it: */
  UNFOLD_THOUSAND = 700,
  PAD_CHANNELS = 8, /* up to so many gathering is as fast: less than twice as many are padded */
  PAD_PHASES = 2,
  PAD_SUM = 32,   /* forward: up to so long a sum mma_first.cu may do */
  STACK_MOST = 2, /* the sum may become so many times as long */
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

static NitiConv unfolded_of(const NitiConv *s) {
  NitiConv unfolded = *s;
  const int32_t sum = (int32_t)sum_of(s), chunk = NITI_WGMMA_CHUNK;
  unfolded.c = parts_of(sum, 16) * 16;
  if (4 * unfolded.c < 3 * parts_of(sum, chunk) * chunk) unfolded.c = parts_of(sum, chunk) * chunk;
  unfolded.kh = unfolded.kw = 1;
  unfolded.h = s->oh;
  unfolded.w = s->ow;
  unfolded.stride_h = unfolded.stride_w = 1;
  unfolded.pad_h = unfolded.pad_w = 0;
  return unfolded;
}

/* What mma.sync takes for few channels in picoseconds, as measured on an H200 beside the models of its other ways: about twice as
 * long where it gathers single bytes, and in its first layer's kernel three times as long where it stores them. */
static int64_t few_channels_time(const NitiCuda *cuda, const NitiConv *s) {
  NitiConv other = *s;
  int64_t time;
  if (niti_mma_first_serves(s)) {
    time = niti_mma_first_time(s);
    return s->k % 16 == 0 ? time : time + 2 * (time - UNFOLD_LEAST);
  }
  other.c = 16;
  if (is_stacked(s)) other = stacked_of(s);
  (void)niti_cuda_conv_mma.choose(cuda, &other, NITI_FORWARD, &time);
  return is_stacked(s) || s->c > PAD_CHANNELS || time == INT64_MAX ? time : 2 * time;
}

/* Forward alone: whether it may be unfolded, whatever the number of images. */
static bool unfolds(const NitiCuda *cuda, const NitiConv *s) {
  if (cuda->family != NITI_CUDA_WGMMA || niti_conv_grouped(s) || s->c > UNFOLD_CHANNELS || sum_of(s) > UNFOLD_SUM) return false;
  if (s->kh * s->kw == 1 && s->stride_h == 1 && s->stride_w == 1) return false;
  const NitiConv unfolded = unfolded_of(s);
  return niti_cuda_conv_wgmma.serves_forward(&unfolded);
}

/* And whether copying and wgmma are expected to take less time than mma.sync. */
static bool is_unfolded(const NitiCuda *cuda, const NitiConv *s) {
  if (!unfolds(cuda, s)) return false;
  const NitiConv unfolded = unfolded_of(s);
  const int64_t bytes = (int64_t)s->n * s->oh * s->ow * unfolded.c;
  int64_t wgmma;
  if (bytes / 16 >= INT32_MAX) return false;
  (void)niti_cuda_conv_wgmma.choose(cuda, &unfolded, NITI_FORWARD, &wgmma);
  return wgmma + UNFOLD_LEAST + bytes * UNFOLD_THOUSAND / 1000 < few_channels_time(cuda, s) / 100 * MMA_MOST;
}

static bool is_padded(const NitiCuda *cuda, const NitiConv *s, bool backward) {
  const int32_t channels = backward ? s->k : s->c;
  const Serves serves = backward ? niti_cuda_conv_wgmma.serves_backward : niti_cuda_conv_wgmma.serves_forward;
  const bool phases = backward && s->stride_h * s->stride_w > 1; /* whose gathering tables are many */
  if (niti_conv_grouped(s) || channels % 16 == 0 || channels <= (phases ? PAD_PHASES : PAD_CHANNELS)) return false;
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

typedef enum Copying { AS_IT_IS, PADDED, STACKED, UNFOLDED } Copying;

static Copying copying_of(const NitiCuda *cuda, const NitiConv *s, bool backward) {
  if (!backward && is_unfolded(cuda, s)) return UNFOLDED;
  if (!backward && is_stacked(s)) return STACKED;
  return is_padded(cuda, s, backward) ? PADDED : AS_IT_IS;
}

/* The convolution that kernels are asked for: s itself, or that of the copies. */
static NitiConv copied_of(const NitiCuda *cuda, const NitiConv *s, bool backward) {
  switch (copying_of(cuda, s, backward)) {
    case UNFOLDED: return unfolded_of(s);
    case STACKED: return stacked_of(s);
    case PADDED: return padded_of(s, backward);
    default: return *s;
  }
}

static bool is_copied(const NitiConv *copied, const NitiConv *s) { return copied->c != s->c || copied->k != s->k; }

static NitiShape input_of(const NitiConv *s, bool backward) {
  return backward ? (NitiShape){s->n, s->oh, s->ow, s->k} : (NitiShape){s->n, s->h, s->w, s->c};
}

static size_t weights_of(const NitiConv *s) { return (size_t)s->k * (size_t)s->kh * (size_t)s->kw * (size_t)s->c; }

/* Of the convolution itself, then the copies of the input and of the weights. */
static size_t copied_workspace(const NitiCuda *cuda, const NitiConv *copied, bool backward) {
  return align_up(families_workspace(cuda, copied, backward ? NITI_BACKWARD : NITI_FORWARD)) +
         align_up(niti_shape_count(input_of(copied, backward))) + (backward ? 0 : weights_of(copied));
}

static size_t larger(size_t a, size_t b) { return a > b ? a : b; }

/* Enough for each copying that a smaller batch may have too. */
static size_t copies_workspace(const NitiCuda *cuda, const NitiConv *s, bool backward) {
  size_t most = 0;
  if (is_padded(cuda, s, backward)) {
    const NitiConv padded = padded_of(s, backward);
    most = larger(most, copied_workspace(cuda, &padded, backward));
  }
  if (!backward && is_stacked(s)) {
    const NitiConv stacked = stacked_of(s);
    most = larger(most, copied_workspace(cuda, &stacked, false));
  }
  if (!backward && unfolds(cuda, s)) {
    const NitiConv unfolded = unfolded_of(s);
    most = larger(most, copied_workspace(cuda, &unfolded, false));
  }
  return most;
}

/* weights: NULL where they are not copied. */
static void pad(NitiCuda *cuda, int8_t *data, int8_t *weights, const NitiTensor *in, const NitiTensor *w, const NitiConv *s,
                const NitiConv *padded, bool backward) {
  const NitiShape from = input_of(s, backward), to = input_of(padded, backward);
  const size_t taps = (size_t)s->k * (size_t)s->kh * (size_t)s->kw;
  const NitiPad pads[2] = {
      {data, in->data, niti_shape_count(from) / (size_t)from.c, (size_t)from.c, (size_t)to.c},
      {weights, w->data, taps, (size_t)s->c, (size_t)padded->c},
  };
  niti_cuda_pad(cuda, pads, weights ? 2 : 1);
}

/* Blocks of kh by kw pixels become pixels; a filter is an image of taps. */
static void stack(NitiCuda *cuda, int8_t *data, int8_t *weights, const NitiTensor *in, const NitiTensor *w, const NitiConv *s,
                  const NitiConv *t, int32_t kh, int32_t kw) {
  const NitiStack stacks[2] = {
      {data, in->data, s->n, s->h, s->w, s->c, kh, kw, s->stride_h, s->stride_w, s->pad_h, s->pad_w, t->h, t->w, t->c},
      {weights, w->data, s->k, s->kh, s->kw, s->c, kh, kw, kh, kw, 0, 0, t->kh, t->kw, t->c},
  };
  niti_cuda_stack(cuda, stacks, weights ? 2 : 1);
}

/* in, w: the operands; become copies in the workspace, w only with `weights`. */
static void copy(NitiCuda *cuda, NitiTensor *in, NitiTensor *w, const NitiConv *s, const NitiConv *copied, bool backward,
                 bool weights) {
  const NitiShape to = input_of(copied, backward);
  int8_t *data = (int8_t *)cuda->workspace + align_up(families_workspace(cuda, copied, backward ? NITI_BACKWARD : NITI_FORWARD));
  int8_t *own = weights ? data + align_up(niti_shape_count(to)) : NULL;
  switch (copying_of(cuda, s, backward)) {
    case UNFOLDED: stack(cuda, data, own, in, w, s, copied, s->kh, s->kw); break;
    case STACKED: stack(cuda, data, own, in, w, s, copied, s->stride_h, s->stride_w); break;
    default: pad(cuda, data, own, in, w, s, copied, backward); break;
  }
  in->data = data;
  in->shape = to;
  if (!weights) return;
  w->data = own;
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
  return call->way ? families[call->way >> FAMILY_SHIFT]
                   : family_of(cuda, shape, call->direction, is_copied(shape, &call->shape));
}

/* ---- packed weights ---- */

/* Whether a call that copies its input copies its weights too. Backward packing adds filters of zeros; so does wgmma's channels
 * forward. */
static bool copies_weights(const NitiCuda *cuda, const NitiConvCall *call, const NitiConv *shape) {
  const Copying copying = copying_of(cuda, &call->shape, false);
  if (call->direction != NITI_FORWARD || copying == AS_IT_IS) return false;
  return copying == STACKED || family_for(cuda, call, shape) != &niti_cuda_conv_wgmma;
}

/* Of an unfolded convolution's filters each is a pixel. */
static NitiConv own_weights_of(const NitiCuda *cuda, const NitiConv *s) {
  NitiConv own = *s;
  if (copying_of(cuda, s, false) != UNFOLDED) return own;
  own.c = (int32_t)sum_of(s);
  own.kh = own.kw = 1;
  own.stride_h = own.stride_w = 1; /* what packing asks for */
  return own;
}

/* w: of the copies, or as they are. */
static void add_pack(NitiPacks *packs, const NitiConvCall *call, const NitiConv *shape, const int8_t *w, int8_t *to) {
  const NitiCudaConv *family = family_for(packs->cuda, call, shape);
  const bool as_they_are = call->direction == NITI_FORWARD && !copies_weights(packs->cuda, call, shape);
  const NitiConv packed = as_they_are ? own_weights_of(packs->cuda, &call->shape) : *shape;
  const int own = call->direction == NITI_BACKWARD ? call->shape.k : shape->k;
  if (family->pack) family->pack(packs, to, w, own, &packed, call->direction, call->way & WAY_MASK);
}

/* Copies of weights are made anew by every call, and packed with them. */
size_t niti_cuda_conv_packed_bytes(const NitiBackend *backend, const NitiConvCall *call) {
  const NitiCuda *cuda = niti_cuda_const(backend);
  const NitiConv shape = shape_for(cuda, call);
  if (call->direction == NITI_GRADIENT || niti_conv_grouped(&shape)) return 0;
  if (copies_weights(cuda, call, &shape)) return 0;
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
  const NitiCudaConv *f = family_of(cuda, &shape, call->direction, is_copied(&shape, &call->shape));
  const int count = add_family(ways, 0, f, &shape, call->direction);
  if (!wgmma_serves(cuda, &shape, call->direction)) return count;
  return add_family(ways, count, f == &niti_cuda_conv_mma ? &niti_cuda_conv_wgmma : &niti_cuda_conv_mma, &shape, call->direction);
}

int niti_cuda_conv_choice(const NitiBackend *backend, const NitiConvCall *call) {
  const NitiCuda *cuda = niti_cuda_const(backend);
  const NitiConv shape = shape_for(cuda, call);
  const NitiCudaConv *f = family_of(cuda, &shape, call->direction, is_copied(&shape, &call->shape));
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
  if (is_copied(&shape, own)) copy(cuda, &in, &weights, own, &shape, false, copies_weights(cuda, call, &shape));
  const int8_t *packed = packed_of(cuda, call, &shape, &weights);
  family_for(cuda, call, &shape)->forward(cuda, y, &in, &weights, prepared, packed, &shape, call->relu, rq, call->way & WAY_MASK);
}

void niti_cuda_conv_backward(NitiBackend *backend, NitiTensor *dx, const NitiTensor *dy, const NitiTensor *w,
                             const NitiTensor *mask, const NitiConvCall *call, const NitiRequantise *rq) {
  NitiCuda *cuda = niti_cuda(backend);
  const NitiConv *own = &call->shape, shape = shape_for(cuda, call);
  const NitiCudaConv *family = family_for(cuda, call, &shape);
  NitiTensor in = *dy, weights = *w, masking = mask ? *mask : (NitiTensor){0};
  if (is_copied(&shape, own)) copy(cuda, &in, &weights, own, &shape, true, false);
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
