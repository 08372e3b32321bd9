/* Descriptions without batch norm: each norm becomes part of the convolution or linear layer before it. */
#ifndef NITI_MODEL_FOLD_H
#define NITI_MODEL_FOLD_H

#include "model/description.h"

/* The number of the norm, from 1, that reads node `number` and can be folded into it; 0: none. */
int32_t niti_description_norm_after(const NitiDescription *description, int32_t number);
/* The same network without norms: their layers have biases, and the model's name ends in "-folded". Layers keep their names; none
 * is frozen. NITI_ERROR_MODEL with the place and the name of a norm that cannot be folded: it follows something else, or what it
 * follows is read by others too; or where there is no norm at all. */
NitiStatus niti_description_fold(NitiDescription **out, const NitiDescription *description);

#endif
