/* Convolution and linear: which family of kernels handles which shape. */
#include <stdio.h>

#include "backend/cuda/conv_copy.h"
#include "backend/cuda/pack.h"

typedef bool (*Serves)(const NitiConv *);

enum {
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
 * models may err. Of a copied convolution mma.sync has the weights copied too. */
static const NitiCudaConv *family_of(const NitiCuda *cuda, const NitiCopied *copied, NitiDirection direction) {
  const NitiConv *s = &copied->shape;
  int64_t wgmma, mma;
  if (niti_conv_grouped(s)) return &niti_cuda_conv_grouped;
  if (!wgmma_serves(cuda, s, direction)) return &niti_cuda_conv_mma;
  if (direction == NITI_BACKWARD && fills_tiles(s)) return &niti_cuda_conv_wgmma;
  (void)niti_cuda_conv_wgmma.choose(cuda, s, direction, &wgmma);
  (void)niti_cuda_conv_mma.choose(cuda, s, direction, &mma);
  if (copied->copying != NITI_COPY_NONE && direction == NITI_FORWARD && mma < INT64_MAX)
    mma += (int64_t)s->k * s->kh * s->kw * s->c * COPIED_WEIGHT;
  return mma < wgmma / 100 * NITI_CONV_MMA_MOST ? &niti_cuda_conv_mma : &niti_cuda_conv_wgmma;
}

size_t niti_cuda_families_workspace(const NitiCuda *cuda, const NitiConv *s, NitiDirection direction) {
  if (niti_conv_grouped(s)) return niti_cuda_conv_grouped.workspace(cuda, s, direction);
  const size_t mma = niti_cuda_conv_mma.workspace(cuda, s, direction);
  if (cuda->family != NITI_CUDA_WGMMA) return mma;
  const size_t wgmma = niti_cuda_conv_wgmma.workspace(cuda, s, direction);
  return wgmma > mma ? wgmma : mma;
}

static size_t family_workspace(const NitiCuda *cuda, const NitiConv *s, NitiDirection direction) {
  const size_t own = niti_cuda_families_workspace(cuda, s, direction);
  const size_t copies = direction == NITI_GRADIENT ? 0 : niti_conv_copies_workspace(cuda, s, direction == NITI_BACKWARD);
  return own > copies ? own : copies;
}

/* Where a bias is in the workspace: behind what the families use. */
static size_t bias_offset(const NitiCuda *cuda, const NitiConv *s) {
  return niti_blocked_align(family_workspace(cuda, s, NITI_FORWARD));
}

/* Likewise of a mask's elements. */
static size_t mask_offset(const NitiCuda *cuda, const NitiConv *s) {
  return niti_blocked_align(family_workspace(cuda, s, NITI_BACKWARD));
}

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

static NitiCopied copied_for(const NitiCuda *cuda, const NitiConvCall *call) {
  if (call->direction == NITI_GRADIENT) return (NitiCopied){NITI_COPY_NONE, call->shape};
  return niti_conv_copied(cuda, &call->shape, call->direction == NITI_BACKWARD);
}

/* The family of a call's way, or the one that the cost model takes, for what copied_for gave. */
static const NitiCudaConv *family_for(const NitiCuda *cuda, const NitiConvCall *call, const NitiCopied *copied) {
  return call->way ? families[call->way >> FAMILY_SHIFT] : family_of(cuda, copied, call->direction);
}

/* ---- packed weights ---- */

/* Whether a call that copies its input copies its weights too. Backward packing adds filters of zeros; so does wgmma's channels
 * forward. */
static bool copies_weights(const NitiCuda *cuda, const NitiConvCall *call, const NitiCopied *copied) {
  if (call->direction != NITI_FORWARD || copied->copying == NITI_COPY_NONE) return false;
  return copied->copying == NITI_COPY_STACKED || family_for(cuda, call, copied) != &niti_cuda_conv_wgmma;
}

/* w: of the copies, or as they are. */
static void add_pack(NitiPacks *packs, const NitiConvCall *call, const NitiCopied *copied, const int8_t *w, int8_t *to) {
  const NitiCudaConv *family = family_for(packs->cuda, call, copied);
  const bool as_they_are = call->direction == NITI_FORWARD && !copies_weights(packs->cuda, call, copied);
  const NitiConv packed = as_they_are ? niti_conv_own_weights(&call->shape, copied->copying) : copied->shape;
  const int own = call->direction == NITI_BACKWARD ? call->shape.k : copied->shape.k;
  if (family->pack) family->pack(packs, to, w, own, &packed, call->direction, call->way & WAY_MASK);
}

/* Copies of weights are made anew by every call, and packed with them. */
size_t niti_cuda_conv_packed_bytes(const NitiBackend *backend, const NitiConvCall *call) {
  const NitiCuda *cuda = niti_cuda_const(backend);
  const NitiCopied copied = copied_for(cuda, call);
  if (call->direction == NITI_GRADIENT || niti_conv_grouped(&copied.shape)) return 0;
  if (copies_weights(cuda, call, &copied)) return 0;
  return niti_cuda_families_workspace(cuda, &copied.shape, call->direction);
}

void niti_cuda_conv_pack(NitiBackend *backend, const NitiPacking *packings, int count) {
  NitiPacks packs = {.cuda = niti_cuda(backend)};
  for (int i = 0; i < count; ++i) {
    const NitiConvCall *call = packings[i].call;
    const NitiCopied copied = copied_for(packs.cuda, call);
    add_pack(&packs, call, &copied, packings[i].w->data, call->packed);
  }
  niti_packs_end(&packs);
}

static void take_workspace(NitiCuda *cuda, const NitiConvCall *call) {
  cuda->scratch = call->workspace ? call->workspace : cuda->workspace;
}

/* The call's packed weights; where it has none, packs them in the workspace. */
static const int8_t *packed_of(NitiCuda *cuda, const NitiConvCall *call, const NitiCopied *copied, const NitiTensor *w) {
  NitiPacks packs = {.cuda = cuda};
  if (call->packed) return call->packed;
  add_pack(&packs, call, copied, w->data, (int8_t *)cuda->scratch);
  niti_packs_end(&packs);
  return (const int8_t *)cuda->scratch;
}

/* Whatever the call's way: a smaller batch may have another, wgmma's read bits alone, and mma's can spread them. */
int niti_cuda_mask_uses(const NitiBackend *backend, const NitiOperation *o, NitiShape mask, const NitiConvCall *call) {
  const NitiCuda *cuda = niti_cuda_const(backend);
  if (o->opcode == NITI_OP_ADD)
    return niti_cuda_add_reads_bits(mask, o->rounding.mode, o->rounding.clip) ? NITI_USE_MASK : NITI_USE_OTHER;
  NitiConvCall modelled = *call;
  modelled.way = 0;
  const NitiCopied copied = copied_for(cuda, &modelled);
  const bool wgmma = family_for(cuda, &modelled, &copied) == &niti_cuda_conv_wgmma;
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
  const NitiCopied copied = copied_for(cuda, call);
  const NitiCudaConv *f = family_of(cuda, &copied, call->direction);
  const NitiCudaConv *other = f == &niti_cuda_conv_mma ? &niti_cuda_conv_wgmma : &niti_cuda_conv_mma;
  const int count = add_family(ways, 0, f, &copied.shape, call->direction);
  if (!wgmma_serves(cuda, &copied.shape, call->direction)) return count;
  return add_family(ways, count, other, &copied.shape, call->direction);
}

int niti_cuda_conv_choice(const NitiBackend *backend, const NitiConvCall *call) {
  const NitiCuda *cuda = niti_cuda_const(backend);
  const NitiCopied copied = copied_for(cuda, call);
  const NitiCudaConv *f = family_of(cuda, &copied, call->direction);
  int64_t time;
  return number_of(f) << FAMILY_SHIFT | f->choose(cuda, &copied.shape, call->direction, &time);
}

const char *niti_cuda_conv_kernel(const NitiBackend *backend, const NitiConvCall *call) {
  const NitiCopied copied = copied_for(niti_cuda_const(backend), call);
  return family_for(niti_cuda_const(backend), call, &copied)->name;
}

void niti_cuda_conv_forward(NitiBackend *backend, NitiTensor *y, const NitiTensor *x, const NitiTensor *w, const NitiTensor *bias,
                            const NitiConvCall *call, const NitiRequantise *rq) {
  NitiCuda *cuda = niti_cuda(backend);
  const NitiConv *own = &call->shape;
  const NitiCopied copied = copied_for(cuda, call);
  NitiTensor in = *x, weights = *w;
  take_workspace(cuda, call);
  const NitiCudaBias added = {bias, call->centred, own->k, (int32_t *)(void *)(cuda->scratch + bias_offset(cuda, own))};
  if (copied.copying != NITI_COPY_NONE)
    niti_conv_copy(cuda, &in, &weights, own, &copied, false, copies_weights(cuda, call, &copied));
  const int8_t *packed = packed_of(cuda, call, &copied, &weights);
  const NitiCudaConv *family = family_for(cuda, call, &copied);
  family->forward(cuda, y, &in, &weights, &added, packed, &copied.shape, call->relu, rq, call->way & WAY_MASK);
}

void niti_cuda_conv_backward(NitiBackend *backend, NitiTensor *dx, const NitiTensor *dy, const NitiTensor *w,
                             const NitiTensor *mask, const NitiConvCall *call, const NitiRequantise *rq) {
  NitiCuda *cuda = niti_cuda(backend);
  const NitiConv *own = &call->shape;
  const NitiCopied copied = copied_for(cuda, call);
  const NitiCudaConv *family = family_for(cuda, call, &copied);
  NitiTensor in = *dy, weights = *w, masking = mask ? *mask : (NitiTensor){0};
  take_workspace(cuda, call);
  if (copied.copying != NITI_COPY_NONE) niti_conv_copy(cuda, &in, &weights, own, &copied, true, false);
  if (mask && family == &niti_cuda_conv_mma && masking.placed && masking.layouts[1] && masks_by_bits(cuda, own)) {
    masking.data = (int8_t *)cuda->scratch + mask_offset(cuda, own); /* the elements may be gone */
    niti_cuda_bits_spread(cuda, masking.data, mask);
    masking.limit = 0; /* of ones and zeros */
  }
  const int8_t *packed = packed_of(cuda, call, &copied, &weights);
  family->backward(cuda, dx, &in, &weights, mask ? &masking : NULL, packed, &copied.shape, rq, call->way & WAY_MASK);
}

void niti_cuda_conv_gradient(NitiBackend *backend, NitiGradient *gradient, const NitiTensor *dy, const NitiTensor *x,
                             const NitiConvCall *call) {
  NitiCuda *cuda = niti_cuda(backend);
  const NitiCopied own = copied_for(cuda, call); /* not copied */
  const NitiConv *s = &call->shape;
  take_workspace(cuda, call);
  if (!niti_conv_grouped(s)) {
    niti_cuda_blocked_make(cuda, dy);
    niti_cuda_blocked_make(cuda, x);
  }
  family_for(cuda, call, &own)->gradient(cuda, gradient, dy, x, s, call->way & WAY_MASK);
}
