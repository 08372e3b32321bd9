/* Integer softmax cross-entropy, in parts: the sums over all classes of one image first, then any run of its classes, so that
 * no caller needs memory for all of them. docs/arithmetic.md, "Loss". */
#ifndef NITI_BASE_LOSS_H
#define NITI_BASE_LOSS_H

#include "niti.h"

/* No image's loss, flipped or not, is as large (docs/arithmetic.md, "What a checkpoint holds"). */
#define NITI_LOSS_IMAGE_MAX ((int64_t)1 << 41)

/* What the delta of every class depends on; p is the variant's weight of a class. */
typedef struct NitiSoftmax {
  int32_t exponent; /* of the logits */
  int64_t top;      /* largest t_j */
  uint64_t sum;     /* of p_j over all classes */
  int32_t on, off;  /* expected of the target's class and of the others, at exponent -24; 2^24 and 0 but for smoothed labels */
  int32_t other, mixed; /* of a mixed image: the other image's class, and what is expected of it; class -1: none */
} NitiSoftmax;

/* The sums of one image: logits[classes] in [-127, 127], 1 <= classes <= 65536. */
NitiSoftmax niti_softmax_sum(const int8_t *logits, int32_t exponent, int classes);
/* Sets what is expected with smoothed and mixed labels: niti_loss_off; the labels of the image and of the next of its batch. */
void niti_softmax_expect(NitiSoftmax *softmax, int32_t off, int classes, int32_t label, int32_t next);
/* acc[count] for classes first .. first + count - 1, at exponent -24. logits: the image's first. */
void niti_softmax_acc(int32_t *acc, const NitiSoftmax *softmax, const int8_t *logits, int first, int count, int target);
/* Cross-entropy in bits, 16 fraction bits. */
int64_t niti_softmax_loss(const NitiSoftmax *softmax, const int8_t *logits, int target);

/* Of sums that niti_flip_sums made, or of mantissas: the first class of the largest. */
int niti_flip_class(const int32_t *sums, int classes);

#endif
