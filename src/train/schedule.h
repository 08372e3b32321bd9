/* Schedules: values that change at positions in a run, given in epochs, steps or shares of the run. */
#ifndef NITI_TRAIN_SCHEDULE_H
#define NITI_TRAIN_SCHEDULE_H

#include "config/yaml.h"

enum { NITI_SCHEDULE_MAX = 32, NITI_POSITION_MAX = 32, NITI_WHOLE_SHARE = 1000000 };

typedef enum NitiPositionUnit { NITI_POSITION_EPOCH = 0, NITI_POSITION_STEP, NITI_POSITION_SHARE } NitiPositionUnit;

/* A moment of a run: so many epochs or steps are done, or this share, in millionths, of all its steps. */
typedef struct NitiPosition {
  NitiPositionUnit unit;
  int64_t value;
} NitiPosition;

typedef struct NitiSchedulePoint {
  NitiPosition at;
  int64_t step;  /* the first step with the value, from 0; set by niti_schedule_place */
  int64_t value; /* a fixed-point number whose scale the owner knows */
} NitiSchedulePoint;

/* Each value holds from its point to the next. Zeroed: 0 throughout. */
typedef struct NitiSchedule {
  NitiSchedulePoint points[NITI_SCHEDULE_MAX];
  int32_t count;
} NitiSchedule;

/* Reads the position of a mapping, which has exactly one of the keys `epoch`, `step` and `at` (a share); `what` is for messages.
 */
NitiStatus niti_position_read(NitiPosition *out, const NitiYaml *mapping, const char *what);
/* The opposite. */
void niti_position_put(NitiYamlDocument *document, NitiYaml *mapping, NitiPosition at);
/* "epoch 5", "step 100", "50%". Returns buffer. */
const char *niti_position_text(char buffer[NITI_POSITION_MAX], NitiPosition at);
/* Its step in a run of `steps` steps: epoch * steps_per_epoch, or floor(share * steps / 10^6). */
int64_t niti_position_step(NitiPosition at, int64_t steps_per_epoch, int64_t steps);

/* Reads a number from 0 to max of at most so many decimal places, in units of 10^-places, or a list of positions with such a
 * value under `key`, the first of them at 0 and those of one unit ascending. */
NitiStatus niti_schedule_read(NitiSchedule *out, const NitiYaml *node, const char *what, const char *key, int places,
                              int64_t max);
/* The list, as YAML. */
NitiYaml *niti_schedule_write(NitiYamlDocument *document, const NitiSchedule *schedule, const char *key, int places);
/* Sets the points' steps; NITI_ERROR_ARGUMENT where they descend in such a run. Of equal ones, which runs of earlier versions may
 * have, the later holds. */
NitiStatus niti_schedule_place(NitiSchedule *schedule, const char *what, int64_t steps_per_epoch, int64_t steps);
/* After niti_schedule_place: the first point at the step of the one before it, which so never takes effect, and that is a share
 * of the run, as may happen in a run of a few steps, or that is none; NULL: there is none. */
const NitiSchedulePoint *niti_schedule_same(const NitiSchedule *schedule, bool share);
/* Likewise, of a new run: NITI_ERROR_ARGUMENT where such a point is no share. */
NitiStatus niti_schedule_check_distinct(const NitiSchedule *schedule, const char *what);
/* The value of a step, from 0. Before niti_schedule_place only that of step 0. */
int64_t niti_schedule_value(const NitiSchedule *schedule, int64_t step);
/* After niti_schedule_place: how many points lie at or beyond the end of a run of `steps` steps; *first: the first of them. */
int32_t niti_schedule_unreached(const NitiSchedule *schedule, int64_t steps, NitiPosition *first);
/* Whether a position is a share, so that the schedule depends on the run's length. */
bool niti_schedule_has_share(const NitiSchedule *schedule);

#endif
