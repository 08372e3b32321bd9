/* Copies of a convolution's operands. Where the channels that a sum runs over are no multiple of 16, kernels would gather single
 * bytes. A copy of the input and the weights costs less, and is a convolution of another shape: channels are padded with zeros;
 * or, forward, a whole window becomes a pixel, whose channels are all of its bytes (unfolded); or, through a stride, a block of
 * stride by stride pixels does (stacked). Packing adds zeros itself, so where weights are packed for wgmma, and backward, they
 * are not copied. */
#ifndef NITI_BACKEND_CUDA_CONV_COPY_H
#define NITI_BACKEND_CUDA_CONV_COPY_H

#include "backend/cuda/cuda.h"

enum { NITI_CONV_MMA_MOST = 95 /* percent of wgmma's expected time, below which mma.sync takes its place */ };

typedef enum NitiCopying { NITI_COPY_NONE, NITI_COPY_PADDED, NITI_COPY_STACKED, NITI_COPY_UNFOLDED } NitiCopying;

static inline size_t niti_blocked_align(size_t bytes) {
  return (bytes + NITI_BLOCKED_ALIGN - 1) / NITI_BLOCKED_ALIGN * NITI_BLOCKED_ALIGN;
}

/* What kernels are asked for in a convolution's place: the convolution itself, or that of the copies. */
typedef struct NitiCopied {
  NitiCopying copying;
  NitiConv shape;
} NitiCopied;

/* Asks cost models. */
NitiCopied niti_conv_copied(const NitiCuda *, const NitiConv *, bool backward);
/* The filters of s as they are, for packing them: of an unfolded convolution each is a pixel. */
NitiConv niti_conv_own_weights(const NitiConv *s, NitiCopying);
/* Bytes of the copied convolution's own workspace and, behind it, of the copies: enough for each copying that a smaller batch may
 * have too. */
size_t niti_conv_copies_workspace(const NitiCuda *, const NitiConv *, bool backward);
/* in, w: the operands of s, which is copied; become copies in the workspace, w only with `weights`. */
void niti_conv_copy(NitiCuda *, NitiTensor *in, NitiTensor *w, const NitiConv *s, const NitiCopied *, bool backward,
                    bool weights);
size_t niti_cuda_families_workspace(const NitiCuda *, const NitiConv *, NitiDirection); /* conv.c: of whichever family */

#endif
