/* A checkpoint of a network with batch norm as one without (docs/arithmetic.md, "Folded norm"). */
#ifndef NITI_TRAIN_FOLD_H
#define NITI_TRAIN_FOLD_H

#include "train/locate.h"

typedef struct NitiFolded {
  int32_t norms;   /* folded away */
  int32_t masters; /* of their layers: folded from 16-bit masters, the others from int8 weights */
  char model[NITI_NAME_MAX];
  char hash[65]; /* of the checkpoint written */
} NitiFolded;

/* Folds what `network` is and writes the checkpoint `out`, whole or not at all. It has the weights, the model, the recipe and
 * what the other says of its data, and no optimiser's state. NITI_ERROR_MODEL: niti_description_fold. */
NitiStatus niti_fold(NitiFolded *result, const NitiLocation *network, const char *out);

#endif
