/* Mixup, inline, shared by every backend (C and CUDA): docs/arithmetic.md, "Augmentation". */
#ifndef NITI_BASE_MIX_H
#define NITI_BASE_MIX_H

#include "base/round.h"

/* A label of a batch: the class, and from bit 16 on how much of the image is the next one of the batch, in 1/256, 0 to 128. */
enum { NITI_LABEL_CLASS = 65535, NITI_LABEL_SHARE_BIT = 16, NITI_SHARE_BITS = 8, NITI_SHARE_MAX = 128 };

NITI_INLINE int32_t niti_label_class(int32_t label) { return label & NITI_LABEL_CLASS; }
NITI_INLINE int32_t niti_label_share(int32_t label) { return label >> NITI_LABEL_SHARE_BIT; }

/* Of two mantissas, `share` 256ths of the second. */
NITI_INLINE int8_t niti_mixed(int32_t own, int32_t other, int32_t share) {
  return (int8_t)(((256 - share) * own + share * other + 128) >> NITI_SHARE_BITS);
}

/* What is expected of the other image's class beyond `off`, and of the own one short of `on`. */
NITI_INLINE int32_t niti_mixed_part(int32_t on, int32_t off, int32_t share) {
  return (int32_t)(((int64_t)(on - off) * share + 128) >> NITI_SHARE_BITS);
}

#endif
