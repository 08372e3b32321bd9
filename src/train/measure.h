/* Looks into a training step: what part of each layer's weights it changed, and what part of its values says nothing. */
#ifndef NITI_TRAIN_MEASURE_H
#define NITI_TRAIN_MEASURE_H

#include "model/network.h"

/* `part` of `whole` elements; whole 0: the layer has none. */
typedef struct NitiShare {
  int64_t part, whole;
} NitiShare;

/* Exact counts of one layer in one step. Of layers with several weights: of all of them. */
typedef struct NitiLayerCounts {
  NitiShare changed;                             /* weights with another mantissa after the step than before */
  NitiShare zero_gradients;                      /* exact sums that are 0 */
  NitiShare saturated_weights, saturated_inputs; /* |mantissa| = 127 */
  NitiShare saturated_logits;                    /* of layer 0, the network */
  NitiShare dead;                                /* of a ReLU's channels, or features, that are 0 in all images and places */
} NitiLayerCounts;

typedef struct NitiMeasure {
  NitiLayerCounts *layers; /* [layer_count + 1], by the training program's layer numbers */
  int8_t *before;          /* the weights, one after the other */
  void *room;              /* for one tensor */
} NitiMeasure;

/* For the network's training program. */
NitiStatus niti_measure_open(NitiMeasure **out, const NitiNetwork *net);
void niti_measure_close(NitiMeasure *measure); /* NULL is accepted */
/* niti_network_train, with the same results, and counts into `measure`. Waits. Inputs, logits and ReLUs are counted in the first
 * images of the batch, at least one and at most as many as 4 MiB of the tensor hold. The counts are the same on every backend. */
NitiStatus niti_measure_train(NitiMeasure *measure, NitiNetwork *net, const NitiBindings *bindings);

#endif
