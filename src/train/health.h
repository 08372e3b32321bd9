/* Notices training that cannot work: accuracy at chance, saturated weights or logits, layers that do not change. Looks at each
 * epoch's end only, so steps cost nothing; every figure is a count of integers, the same on every device. */
#ifndef NITI_TRAIN_HEALTH_H
#define NITI_TRAIN_HEALTH_H

#include "data/dataset.h"
#include "model/network.h"

typedef struct NitiHealth NitiHealth;

/* An epoch that has ended. */
typedef struct NitiEpochFacts {
  int32_t epoch;    /* from 1 */
  const char *rate; /* the setting of the learning rate and its value in the last step: "update.mu, which is 4" */
  bool whole;       /* every step of it was trained since niti_health_begin */
  bool faded;       /* the rate's curve has come below a tenth of its highest: weights may rest */
  NitiScore train;
  int32_t scored; /* images in the last batch scored, whose logits the network still has; 0: nothing was scored */
} NitiEpochFacts;

/* Called with a line for each problem, which names the layer and a remedy. */
typedef void (*NitiHealthWarn)(void *context, const char *text);

/* Counts the training images of each class; borrows the network. */
NitiStatus niti_health_open(NitiHealth **out, NitiNetwork *net, const NitiDataset *dataset);
/* NULL is accepted. */
void niti_health_close(NitiHealth *health);
/* Before the first step of an epoch: remembers the weights. */
NitiStatus niti_health_begin(NitiHealth *health);
/* After it. A layer's problem is told once. Waits for the network. */
NitiStatus niti_health_end(NitiHealth *health, const NitiEpochFacts *facts, NitiHealthWarn warn, void *context);

#endif
