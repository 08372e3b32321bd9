/* Passes that a backend may apply to its own copy of a program: what one operation can do for another, and facts about tensors.
 * None of them changes a bit of any result. */
#ifndef NITI_PROGRAM_FUSE_H
#define NITI_PROGRAM_FUSE_H

#include "program/program.h"

/* How the operations after its writer read a tensor, so that a device may lay it out for them as well. */
typedef enum NitiUses {
  NITI_USE_GRADIENT = 1, /* as an operand of a weight's gradient */
  NITI_USE_MASK = 2,     /* as the mask of a convolution's backward */
  NITI_USE_OTHER = 4,
} NitiUses;

/* Rewrites the list in place, with every operation keeping its number; one whose work another does becomes NITI_OP_NONE.
 * Fails with NITI_ERROR_MEMORY only. */
NitiStatus niti_fuse(NitiProgram *);
/* nonnegative[tensors]: no mantissa is ever below 0, because a ReLU has seen to it. */
void niti_find_nonnegative(bool *nonnegative, const NitiProgram *);
/* uses[tensors]: how operations read each tensor (NitiUses); a reshape's reader reads its input. */
void niti_find_uses(int *uses, const NitiProgram *);

#endif
