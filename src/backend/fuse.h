/* Passes over a program that the devices of src/backend share: what one operation can do for another, and facts about tensors.
 * Private to the backends; none of them changes a bit of any result. */
#ifndef NITI_BACKEND_FUSE_H
#define NITI_BACKEND_FUSE_H

#include "backend/kernels.h"

/* Rewrites the list in place, with every operation keeping its number; one whose work another does becomes NITI_OP_NONE.
 * Fails with NITI_ERROR_MEMORY only. */
NitiStatus niti_fuse(NitiProgram *);
/* nonnegative[tensors]: no mantissa is ever below 0, because a ReLU has seen to it. */
void niti_find_nonnegative(bool *nonnegative, const NitiProgram *);
/* uses[tensors]: how operations read each tensor (NitiUses); a reshape's reader reads its input. */
void niti_find_uses(int *uses, const NitiProgram *);

#endif
