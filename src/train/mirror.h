/* Test-time flip: evaluates images and their mirrors, and adds the logits (docs/arithmetic.md). The sums are made by the host,
 * from the same forward passes on every backend. */
#ifndef NITI_TRAIN_MIRROR_H
#define NITI_TRAIN_MIRROR_H

#include "model/network.h"

/* The logits of the batch that was evaluated last. */
typedef struct NitiMirror {
  int32_t batch, classes; /* room for so many images of so many classes */
  int32_t *sums;          /* [batch][classes] */
  int32_t exponent;       /* of the means of the two */
  int8_t *logits[2];      /* [batch][classes] as they are, and mirrored */
  NitiSample *samples;    /* [batch] mirrored */
} NitiMirror;

/* For batches of at most `batch` images. */
NitiStatus niti_mirror_open(NitiMirror **out, int32_t batch, int32_t classes);
void niti_mirror_close(NitiMirror *mirror); /* NULL is accepted */
/* Two forward passes of the images that are bound: fills sums and exponent. Waits. */
NitiStatus niti_mirror_predict(NitiMirror *mirror, NitiNetwork *net, const NitiBindings *bindings);
/* The same, and adds their scores, with ranks those of all, to the network's metrics; labels[batch] in host memory. */
NitiStatus niti_mirror_score(NitiMirror *mirror, NitiNetwork *net, const NitiBindings *bindings, const int32_t *labels);
/* The sums of n images as int8 logits, requantised to nearest. */
void niti_mirror_logits(const NitiMirror *mirror, int32_t n, int8_t *logits, int32_t *exponent);

#endif
