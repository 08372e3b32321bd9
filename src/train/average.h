/* Averaged weights: when a run takes samples of its weights, their sums, and the mean (docs/arithmetic.md, "Averaged weights").
 */
#ifndef NITI_TRAIN_AVERAGE_H
#define NITI_TRAIN_AVERAGE_H

#include "io/checkpoint.h"
#include "model/network.h"
#include "train/schedule.h"

/* `average` of a recipe: a sample after each multiple of `every` that comes after `from`. */
typedef struct NitiAveraging {
  NitiPosition from, every; /* every 0: no average */
  int64_t first, period;    /* the same in steps; set by niti_averaging_place */
} NitiAveraging;

/* Reads the recipe's mapping, or `none`; writes the mapping, for none nothing. */
NitiStatus niti_averaging_read(NitiAveraging *out, const NitiYaml *mapping);
void niti_averaging_write(NitiYamlDocument *document, NitiYaml *root, const NitiAveraging *averaging);
static inline bool niti_averaging_on(const NitiAveraging *a) { return a->every.value > 0; }
/* NITI_ERROR_ARGUMENT where such a run takes no sample, or too many. */
NitiStatus niti_averaging_place(NitiAveraging *averaging, int64_t steps_per_epoch, int64_t steps);
/* Whether a sample is taken when so many steps are done, and how many have then been taken. */
bool niti_averaging_due(const NitiAveraging *averaging, int64_t step);
int64_t niti_averaging_samples(const NitiAveraging *averaging, int64_t step);

/* The sums of a network's trained weights: of masters where the optimiser has them, else of the weights. */
typedef struct NitiAverage NitiAverage;
NitiStatus niti_average_open(NitiAverage **out, const NitiNetwork *net);
void niti_average_close(NitiAverage *average); /* NULL is accepted */
/* Adds the network's weights as they are now to the sums of *samples samples. Waits. */
NitiStatus niti_average_sample(NitiAverage *average, int64_t *samples, NitiNetwork *net);
/* Sets the network's trained weights to the mean of at least one sample. */
NitiStatus niti_average_apply(const NitiAverage *average, int64_t samples, NitiNetwork *net);
/* The sums in a checkpoint: WEIGHT.average, int32 [...][2], the low and the high halves. Nothing where there are no samples. */
NitiStatus niti_average_save(const NitiAverage *average, int64_t samples, NitiCheckpoint *checkpoint);
/* Fails unless the samples are as many as `expected`, and with the name of a tensor that is missing or holds what no sum can be.
 */
NitiStatus niti_average_restore(NitiAverage *average, int64_t samples, int64_t expected, const NitiCheckpoint *checkpoint);
/* Whether a checkpoint's tensor of that name is one of the sums. */
bool niti_average_has(const NitiAverage *average, const char *name);

#endif
