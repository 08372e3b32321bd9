/* The learning rate of updates `sgd` and `niti16`: a schedule in steps, or one of the usual curves, with warm-up, in fixed point.
 * docs/arithmetic.md, "Learning rates"; docs/recipe-reference.md has the format. */
#ifndef NITI_TRAIN_RATE_H
#define NITI_TRAIN_RATE_H

#include "train/schedule.h"

enum { NITI_RATE_PLACES = 9 };

typedef enum NitiRateCurve { NITI_RATE_STEPS = 0, NITI_RATE_LINEAR, NITI_RATE_COSINE, NITI_RATE_ONE_CYCLE } NitiRateCurve;

/* Rates are in billionths. */
typedef struct NitiRate {
  NitiRateCurve curve;
  NitiSchedule points; /* NITI_RATE_STEPS: the rates; else its only value is the highest */
  int64_t last;        /* where the other curves end */
  NitiPosition warmup; /* until then the rate rises */
  int64_t warm, steps; /* steps of the warm-up, and of the run: set by niti_rate_place */
} NitiRate;

/* Reads lr, schedule, warmup and final_lr of the mapping `update`; absent keys leave what *out holds. */
NitiStatus niti_rate_read(NitiRate *out, const NitiYaml *update);
void niti_rate_write(NitiYamlDocument *document, NitiYaml *update, const NitiRate *rate);
/* NITI_ERROR_ARGUMENT where positions descend in such a run, or the warm-up leaves no step. */
NitiStatus niti_rate_place(NitiRate *rate, int64_t steps_per_epoch, int64_t steps);
/* The rate of a step, from 0, after niti_rate_place. */
int64_t niti_rate_value(const NitiRate *rate, int64_t step);
/* Why the rates depend on the run's length, as a clause for messages; NULL: they do not. */
const char *niti_rate_depends_on_length(const NitiRate *rate);

#endif
